//! The helper child as somebody's code that looks for what it was not given.

use std::fs;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};

use attune_sys::Pid;

use crate::Step;

/// Tries everything that a process can try, and prints what came of each attempt: what was found, or the refusal.
pub(crate) fn attack(agent: u32, file: &str) -> Step<()> {
    let proc = |what: &str| format!("/proc/{agent}/{what}");
    tell("own environment", read("/proc/self/environ"))?;
    tell("environment", read(&proc("environ")))?;
    tell("environment of a thread", read(&proc(&format!("task/{agent}/environ"))))?;
    tell("command line", read(&proc("cmdline")))?;
    tell("maps", read(&proc("maps")))?;
    tell("memory", memory(agent))?;
    tell("descriptors", links(&proc("fd")))?;
    tell("inherited descriptors", links("/proc/self/fd"))?;
    tell("working directory", read(&proc("cwd/secret")))?;
    tell("root", read(&proc(&format!("root{file}"))))?;
    tell(
        "trace",
        Pid::new(agent).ok_or(io::ErrorKind::NotFound.into()).and_then(attune_sys::seize).map(|()| "done".into()),
    )?;
    tell("file", read(file))?;
    for process in all_processes()? {
        tell(&format!("environment of {process}"), read(&format!("/proc/{process}/environ")))?;
    }
    Ok(())
}

fn tell(attempt: &str, found: io::Result<String>) -> io::Result<()> {
    let mut out = io::stdout();
    match found {
        Ok(found) => writeln!(out, "{attempt}: found {found}"),
        Err(error) => writeln!(out, "{attempt}: refused, {error}"),
    }
}

fn read(path: &str) -> io::Result<String> {
    let bytes = fs::read(path)?;
    Ok(String::from_utf8_lossy(&bytes).replace(['\0', '\n'], " "))
}

/// The stack, on which the environment begins.
fn memory(agent: u32) -> io::Result<String> {
    let maps = fs::read_to_string(format!("/proc/{agent}/maps"));
    let mut memory = fs::File::open(format!("/proc/{agent}/mem"))?;
    let maps = maps?;
    let line = maps.lines().find(|line| line.ends_with("[stack]")).ok_or(io::ErrorKind::NotFound)?;
    let range = line.split(' ').next().and_then(|range| range.split_once('-')).ok_or(io::ErrorKind::InvalidData)?;
    let address = |text| u64::from_str_radix(text, 16).map_err(io::Error::other);
    memory.seek(SeekFrom::Start(address(range.0)?))?;
    let mut bytes = Vec::new();
    memory.take(address(range.1)? - address(range.0)?).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).replace(['\0', '\n'], " "))
}

/// Where the descriptors of a process lead, and what can be read through them.
fn links(folder: &str) -> io::Result<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        // Those of this process are the pipes of the test and the folder that is being listed.
        let is_standard = path.file_name().and_then(|name| name.to_str()?.parse().ok()).is_some_and(|fd: u32| fd < 3);
        let target = fs::read_link(&path)?.display().to_string();
        if !is_standard && !target.starts_with("/proc/") {
            found.push(target);
            // A pipe would be waited for.
            if fs::metadata(&path)?.is_file() {
                found.extend(path.to_str().and_then(|path| read(path).ok()));
            }
        }
    }
    Ok(found.join(" "))
}

fn all_processes() -> io::Result<Vec<u32>> {
    let entries = fs::read_dir("/proc")?.flatten();
    Ok(entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
}
