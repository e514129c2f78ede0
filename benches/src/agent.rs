//! A program that runs, and what it costs by the kernel's own count.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, DirEntry};
use std::process::Child;
use std::time::{Duration, Instant};

use attune_sys::{Pid, SIGTERM};
use attune_testkit::eventually;

use crate::words::{Context as _, count_of};

/// One process; killed when dropped.
#[derive(Debug)]
pub(crate) struct Agent {
    name: &'static str,
    child: Child,
    /// When it was started.
    pub(crate) begun: Instant,
}

/// What a process holds, in bytes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Memory {
    pub(crate) resident: u64,
    pub(crate) own: u64,
    pub(crate) peak: u64,
    pub(crate) threads: u64,
}

impl Agent {
    pub(crate) fn new(name: &'static str, child: Child, begun: Instant) -> Self {
        Self { name, child, begun }
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its own time on a processor, without that of its children.
    pub(crate) fn cpu(&self) -> Result<Duration, String> {
        let stat = self.read("stat")?;
        let after_name = stat.rsplit_once(") ").map(|(_, rest)| rest).unwrap_or_default();
        let ticks: u64 = after_name.split(' ').skip(11).take(2).filter_map(|number| number.parse::<u64>().ok()).sum();
        Ok(Duration::from_micros(ticks * 1_000_000 / attune_sys::ticks_per_second()))
    }

    /// Nanoseconds of each of its threads on a processor, by the scheduler's own count: ticks are too coarse for a process
    /// that sleeps. A thread that ends takes its count with it.
    fn threads(&self) -> Result<BTreeMap<OsString, u64>, String> {
        let folder = format!("/proc/{}/task", self.id());
        let threads = fs::read_dir(folder).context(&self.gone())?.flatten();
        let count = |thread: DirEntry| {
            let counts = fs::read_to_string(thread.path().join("schedstat")).ok()?;
            Some((thread.file_name(), counts.split(' ').next()?.parse().ok()?))
        };
        Ok(threads.filter_map(count).collect())
    }

    /// Percent of a core that it uses while nothing is asked of it.
    pub(crate) async fn idle_percent(&self, length: Duration) -> Result<f64, String> {
        let (before, begun) = (self.threads()?, Instant::now());
        tokio::time::sleep(length).await;
        let after = self.threads()?;
        let used = after.iter().map(|(thread, count)| count - before.get(thread).copied().unwrap_or_default()).sum();
        Ok(count_of(used) / 1e9 / begun.elapsed().as_secs_f64() * 100.0)
    }

    /// What it holds now.
    pub(crate) fn memory(&self) -> Result<Memory, String> {
        let (rollup, status) = (self.read("smaps_rollup")?, self.read("status")?);
        let number = |text: &str, name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        };
        let kilobytes = |text: &str, name: &str| number(text, name).unwrap_or_default() * 1024;
        Ok(Memory {
            resident: kilobytes(&rollup, "Rss:"),
            // Clean pages of the binary's file are shared by all that run it, and the kernel may take them back.
            own: kilobytes(&rollup, "Private_Dirty:"),
            peak: kilobytes(&status, "VmHWM:"),
            threads: number(&status, "Threads:").unwrap_or_default(),
        })
    }

    fn read(&self, name: &str) -> Result<String, String> {
        fs::read_to_string(format!("/proc/{}/{name}", self.id())).context(&self.gone())
    }

    fn gone(&self) -> String {
        format!("{} has ended", self.name)
    }

    fn signal(&self, signal: i32) -> Result<(), String> {
        let pid = Pid::new(self.id()).ok_or("a program without a process id")?;
        attune_sys::kill(pid, signal).context("signalling a program")
    }

    /// Ends it by a signal, however it takes that.
    pub(crate) async fn end(&mut self, signal: i32) -> Result<(), String> {
        self.signal(signal)?;
        eventually("the end of a program", async || self.child.try_wait().ok().flatten()).await;
        Ok(())
    }

    /// Asks it to stop, and tells how long that took.
    pub(crate) fn stop(mut self) -> Result<Duration, String> {
        let begun = Instant::now();
        self.signal(SIGTERM)?;
        let status = self.child.wait().context("the end of a program")?;
        if status.success() { Ok(begun.elapsed()) } else { Err(format!("{} ended with {status}", self.name)) }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
