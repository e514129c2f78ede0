//! What the container may use, by its control group.

use std::fs;
use std::path::{Path, PathBuf};

use super::finding::Finding;

/// An agent has up to 20 threads, a program in Node has about eleven, and all count.
const FEW_PROCESSES: u64 = 64;

/// An agent takes up to 10 MiB, a small program in Python 13 and in Node 40; what builds a Python environment takes 75.
const LITTLE_MEMORY: u64 = 96 << 20;

/// What version 1 calls no limit is the greatest number of pages.
const NO_LIMIT: u64 = 1 << 62;

/// Looks at them.
pub(super) fn look() -> Vec<Finding> {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    Limits::read(&Groups { own: &own, mount: Path::new("/sys/fs/cgroup") }).findings()
}

/// Where the control groups of a process are.
struct Groups<'a> {
    /// What the kernel says about it.
    own: &'a str,
    mount: &'a Path,
}

impl Groups<'_> {
    /// The folder of the group that has this controller; of version 1 those before version 2, as a machine may have both.
    fn folder(&self, controller: &str) -> Option<PathBuf> {
        let groups = || self.own.lines().filter_map(|line| line.split_once(':')?.1.split_once(':'));
        let first = groups().find(|(controllers, _)| controllers.split(',').any(|name| name == controller));
        if let Some((controllers, path)) = first {
            let whole = self.mount.join(controllers);
            let own = whole.join(path.trim_start_matches('/'));
            // Containers see their own group in the place of the first one, and are told where it is on the host.
            return Some(if own.is_dir() { own } else { whole });
        }
        let (_, path) = groups().find(|(controllers, _)| controllers.is_empty())?;
        Some(self.mount.join(path.trim_start_matches('/')))
    }

    fn read(&self, controller: &str, file: &str) -> Option<String> {
        let text = fs::read_to_string(self.folder(controller)?.join(file)).ok()?;
        Some(text.trim().to_owned())
    }
}

/// As far as the container shows them: a number, or `max`.
#[derive(Debug, PartialEq, Eq)]
struct Limits {
    memory: Option<String>,
    cpu: Option<String>,
    processes: Option<String>,
}

impl Limits {
    /// By the files of version 2, else by those of version 1.
    fn read(groups: &Groups<'_>) -> Self {
        let memory = || groups.read("memory", "memory.limit_in_bytes").map(or_max);
        let cpu = || {
            let (quota, period) = (groups.read("cpu", "cpu.cfs_quota_us")?, groups.read("cpu", "cpu.cfs_period_us")?);
            Some(format!("{} {period}", if quota.starts_with('-') { "max" } else { &quota }))
        };
        Self {
            memory: groups.read("memory", "memory.max").or_else(memory),
            cpu: groups.read("cpu", "cpu.max").or_else(cpu),
            processes: groups.read("pids", "pids.max"),
        }
    }

    fn findings(&self) -> Vec<Finding> {
        let Self { memory, cpu, processes } = self;
        let shown: Vec<String> = [("memory", memory), ("CPU", cpu), ("processes", processes)]
            .iter()
            .filter_map(|(name, value)| value.as_ref().map(|value| format!("{name} {value}")))
            .collect();
        let all = if shown.is_empty() { "none is shown".to_owned() } else { shown.join(", ") };
        let below = |value: &Option<String>, least| value.as_ref()?.parse().ok().filter(|limit: &u64| *limit < least);
        let little = below(memory, LITTLE_MEMORY).map(|limit| {
            Finding::warning(
                "limits",
                format!(
                    "{} KiB of memory: the agent takes up to 10 MiB, a small program in Python 13 and in Node 40, \
                     building an environment 75; the kernel kills what is too much",
                    limit >> 10
                ),
                "raise the limit of the container (memory) to 128 MiB or more",
            )
        });
        let few = below(processes, FEW_PROCESSES).map(|limit| {
            Finding::warning(
                "limits",
                format!(
                    "{limit} processes and threads at most: the agent has up to 20, a program in Node about eleven; \
                     what is too much cannot be started"
                ),
                "raise the limit of the container (pids)",
            )
        });
        [Some(Finding::fine("limits", all)), little, few].into_iter().flatten().collect()
    }
}

fn or_max(value: String) -> String {
    if value.parse::<u64>().is_ok_and(|value| value >= NO_LIMIT) { "max".to_owned() } else { value }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    fn write(folder: &Path, files: &[(&str, &str)]) {
        fs::create_dir_all(folder).unwrap();
        for (file, text) in files {
            fs::write(folder.join(file), text).unwrap();
        }
    }

    fn lines(own: &str, mount: &Path) -> Vec<String> {
        Limits::read(&Groups { own, mount }).findings().iter().map(Finding::line).collect()
    }

    #[test]
    fn limits_are_those_of_the_own_control_group() {
        let mount = TempDir::new().unwrap();
        let limits = || lines("1:name=systemd:/other\n0::/pod/worker\n", mount.path());
        assert_eq!(limits(), ["limits: none is shown"]);
        let files = [("memory.max", "536870912\n"), ("cpu.max", "max 100000\n"), ("pids.max", "100\n")];
        write(&mount.path().join("pod/worker"), &files);
        assert_eq!(limits(), ["limits: memory 536870912, CPU max 100000, processes 100"]);
    }

    #[test]
    fn control_groups_of_version_1_are_read_where_a_container_sees_them() {
        let mount = TempDir::new().unwrap();
        let own = "7:pids:/docker/1\n5:cpu,cpuacct:/docker/1\n4:memory:/docker/1\n0::/docker/1\n";
        write(&mount.path().join("pids"), &[("pids.max", "max\n")]);
        let cpu = mount.path().join("cpu,cpuacct");
        write(&cpu, &[("cpu.cfs_quota_us", "-1\n"), ("cpu.cfs_period_us", "100000\n")]);
        let memory = mount.path().join("memory");
        write(&memory, &[("memory.limit_in_bytes", "9223372036854771712\n")]);
        assert_eq!(lines(own, mount.path()), ["limits: memory max, CPU max 100000, processes max"]);
        write(&memory.join("docker/1"), &[("memory.limit_in_bytes", "536870912\n")]);
        write(&cpu, &[("cpu.cfs_quota_us", "50000\n")]);
        assert_eq!(lines(own, mount.path()), ["limits: memory 536870912, CPU 50000 100000, processes max"]);
    }

    #[test]
    fn limits_that_are_too_low_are_warnings_that_say_what_is_needed() {
        let mount = TempDir::new().unwrap();
        let limits = |memory, processes| {
            write(mount.path(), &[("memory.max", memory), ("pids.max", processes)]);
            lines("0::/\n", mount.path())
        };
        assert_eq!(limits("max", "max").len(), 1);
        assert_eq!(limits("134217728", "64").len(), 1);
        // Enough for the agent and not for a build beside it.
        let some = limits("83886080", "64");
        assert!(some[1].starts_with("limits: 81920 KiB of memory") && some.len() == 2, "{some:?}");
        let low = limits("33554432", "10");
        assert!(low[1].starts_with("limits: 32768 KiB of memory") && low[1].contains("raise"), "{low:?}");
        assert!(low[2].starts_with("limits: 10 processes and threads") && low[2].contains("raise"), "{low:?}");
    }
}
