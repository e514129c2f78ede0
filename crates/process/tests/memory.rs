//! A child that the kernel kills for lack of memory, in a control group that these tests may limit: as root only. The container
//! tests show the same for everybody.
#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use std::fs;
use std::path::PathBuf;

use attune_process::{Command, Outcome};
use support::{TEST_CHILD, child, ended};

const LIMIT_BYTES: &str = "100000000";

/// A control group with that limit; removed with it.
struct Limited(PathBuf);

impl Limited {
    fn new() -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let older = mounts.lines().find(|line| line.contains(" - cgroup ") && line.ends_with("memory"));
        let unified = mounts.lines().find(|line| line.contains(" - cgroup2 "));
        let point = |line: &str| PathBuf::from(line.split(' ').nth(4).unwrap());
        let (base, files) = match (older, unified) {
            (Some(line), _) => (point(line), &["memory.limit_in_bytes"][..]),
            (None, Some(line)) => (point(line), &["memory.max"][..]),
            (None, None) => return None,
        };
        let folder = base.join(format!("attune-test-{}", std::process::id()));
        fs::create_dir(&folder).ok()?;
        let limited = Self(folder);
        files.iter().all(|file| fs::write(limited.0.join(file), LIMIT_BYTES).is_ok()).then_some(limited)
    }

    /// The helper child as an agent in it.
    fn agent(&self, steps: &[&str]) -> Command {
        let mut command = child(&[]);
        command.program = "/bin/sh".into();
        let script = format!("echo $$ > {}/cgroup.procs && exec {TEST_CHILD} \"$@\"", self.0.display());
        command.args = ["-c", &script, "sh"].iter().chain(steps).map(Into::into).collect();
        command
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        attune_testkit::eventually_blocking("an empty control group", || fs::remove_dir(&self.0).ok());
    }
}

fn told(limited: &Limited, steps: &[&str]) -> String {
    let count = steps.len().to_string();
    let report = ended(limited.agent(&[&["prepare", "run-and-tell", &count], steps].concat()));
    assert_eq!(report.outcome, Outcome::Exited(0), "{report:?}");
    String::from_utf8(report.stdout.bytes).unwrap()
}

#[test]
fn a_child_that_is_killed_for_lack_of_memory_is_told_from_one_that_is_killed() {
    let Some(limited) = Limited::new() else {
        attune_testkit::lacking("control-groups", "run as root with the memory controller mounted writable");
        return;
    };
    let text = told(&limited, &["use-memory", "300000000"]);
    assert!(text.starts_with("OutOfMemory kills Some(1) peak "), "{text}");
    let peak: u64 = text.split(' ').nth(4).unwrap().parse().unwrap();
    assert!((50..100).contains(&peak), "{text}");
    let text = told(&limited, &["raise", "9"]);
    assert!(text.starts_with("Signalled { signal: 9, core_dumped: false } kills Some(0) "), "{text}");
    let text = told(&limited, &["use-memory", "3000000", "exit", "3"]);
    assert!(text.starts_with("Exited(3) kills Some(0) "), "{text}");
}
