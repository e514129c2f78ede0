//! Machine, kernel and container.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use attune_config::{ChildConfig, Source};
use attune_process::{effective_user, surroundings};

use super::finding::Finding;
use super::limits;
use crate::exit::Exit;

/// Since Linux 5.3 the end of a child is told by a descriptor.
const WITH_PROCESS_DESCRIPTORS: (u32, u32) = (5, 3);

/// Numbers of capabilities, see capabilities(7).
const KILL: u32 = 5;
const SETGID: u32 = 6;
const SETUID: u32 = 7;
const SYS_PTRACE: u32 = 19;

/// An agent with its connections and a few children has open about a hundred.
const FEW_DESCRIPTORS: u64 = 1024;

/// Looks at them; `child` says what children are to be given.
pub(super) fn look(child: Option<&ChildConfig>, environment: &dyn Source) -> Vec<Finding> {
    let mut findings = vec![
        Finding::fine("architecture", std::env::consts::ARCH),
        kernel(&fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default()),
        Finding::fine("libc of image", libc_of_image(Path::new("/"))),
        user(environment),
    ];
    let Ok(status) = fs::read_to_string("/proc/self/status") else {
        let remedy = "mount /proc: children are started and ended through it";
        findings.push(Finding::problem("/proc", Exit::OperatingSystem, "cannot be read", remedy));
        return findings;
    };
    findings.push(proc_of_others());
    findings.extend(rights(&status, child));
    findings.push(descriptors());
    findings.extend(limits::look());
    // What is tried out here may make a folder in the control group, and removes it again.
    let offered = surroundings();
    findings.extend(offered.into_iter().map(|(what, there)| Finding::fine("children", format!("{what}: {there}"))));
    findings
}

fn kernel(release: &str) -> Finding {
    let release = release.trim();
    let mut numbers = release.split(|character: char| !character.is_ascii_digit()).map_while(|part| part.parse().ok());
    let version: Option<(u32, u32)> = numbers.next().zip(numbers.next());
    match version {
        Some(version) if version < WITH_PROCESS_DESCRIPTORS => Finding::warning(
            "kernel",
            format!("Linux {release}: the end of a child is seen up to 10 ms late"),
            "use Linux 5.3 or later on the host",
        ),
        _ => Finding::fine("kernel", format!("Linux {release}")),
    }
}

/// By its loaders: what the image's own programs need.
fn libc_of_image(root: &Path) -> String {
    let in_folder = |folder: &str, begin: &str| {
        let entries = fs::read_dir(root.join(folder)).into_iter().flatten().filter_map(Result::ok);
        entries.into_iter().any(|entry| entry.file_name().to_string_lossy().starts_with(begin))
    };
    let has = |begin: &str| ["lib", "lib64", "usr/lib", "usr/lib64"].iter().any(|folder| in_folder(folder, begin));
    match (has("ld-linux"), has("ld-musl")) {
        (true, true) => "glibc and musl".to_owned(),
        (true, false) => "glibc".to_owned(),
        (false, true) => "musl".to_owned(),
        (false, false) => "none: only programs that are linked statically run here".to_owned(),
    }
}

fn user(environment: &dyn Source) -> Finding {
    let user = effective_user();
    let known = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let entry = known.lines().find(|line| line.split(':').nth(2) == Some(&user.to_string()));
    let name = entry.and_then(|line| line.split(':').next());
    let home = environment.get("HOME");
    match (name, home.as_deref().map(OsStr::to_string_lossy)) {
        (Some(name), _) => Finding::fine("user", format!("{user} ({name})")),
        (None, Some(home)) => Finding::fine("user", format!("{user}, without a name; HOME is {home}")),
        (None, None) => Finding::warning(
            "user",
            format!("{user}, without an entry in /etc/passwd and without HOME: some programs refuse to start"),
            "set HOME to a folder that this user can write",
        ),
    }
}

/// Processes that left their group are found there.
fn proc_of_others() -> Finding {
    if fs::metadata("/proc/1/stat").is_ok() {
        Finding::fine("/proc", "mounted, shows all processes of this container")
    } else {
        Finding::warning(
            "/proc",
            "hides processes of other users (hidepid): what actions leave behind under another user is not found",
            "mount /proc without hidepid, or do without run_as",
        )
    }
}

fn rights(status: &str, child: Option<&ChildConfig>) -> Vec<Finding> {
    let field = |name: &str| {
        let values = status.lines().filter_map(|line| line.split_once(':'));
        values.into_iter().find(|(found, _)| *found == name).map(|(_, value)| value.trim())
    };
    let capabilities = field("CapEff").and_then(|mask| u64::from_str_radix(mask, 16).ok()).unwrap_or(0);
    let may = |number: u32| capabilities & (1 << number) != 0;
    let mut findings = Vec::new();
    findings.push(Finding::fine(
        "seccomp",
        match field("Seccomp") {
            Some("0") | None => "no filter",
            Some("1") => "strict",
            Some(_) => "filtered",
        },
    ));
    findings.push(if may(SYS_PTRACE) {
        Finding::warning(
            "capabilities",
            format!("{capabilities:#x} with SYS_PTRACE: user code that runs as this user can read the agent's memory"),
            "drop SYS_PTRACE, or run user code as another user (run_as)",
        )
    } else {
        Finding::fine("capabilities", format!("{capabilities:#x}"))
    });
    // Without the last one they could be started and not be ended.
    let needed = [("SETUID", SETUID), ("SETGID", SETGID), ("KILL", KILL)];
    let missing: Vec<&str> = needed.into_iter().filter(|(_, number)| !may(*number)).map(|(name, _)| name).collect();
    if let Some(run_as) = child.and_then(|child| child.run_as.as_ref())
        && !missing.is_empty()
    {
        findings.push(Finding::problem(
            "run_as",
            Exit::Configuration,
            format!(
                "children are to run as {}, and this process may not change users and end them (without {})",
                run_as.uid,
                missing.join(", ")
            ),
            "run the container as root with SETUID, SETGID and KILL, or take run_as out",
        ));
    }
    findings
}

fn descriptors() -> Finding {
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let soft = line.and_then(|line| line.split_whitespace().next());
    match soft.and_then(|soft| soft.parse::<u64>().ok()) {
        Some(most) if most < FEW_DESCRIPTORS => Finding::warning(
            "open files",
            format!("at most {most}: each child needs up to five while it runs"),
            "raise the limit of the container (ulimit nofile)",
        ),
        _ => Finding::fine("open files", format!("at most {}", soft.unwrap_or("unknown"))),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use attune_config::{MapSource, RunAs};
    use tempfile::TempDir;

    use super::*;

    #[test]
    fn kernels_are_told_apart_by_their_numbers() {
        assert!(kernel("4.19.0-27-amd64\n").line().contains("10 ms late"));
        assert!(kernel("5.2.21").line().contains("10 ms late"));
        for fine in ["5.3.0-rc1", "6.1.0-23-amd64", "10.0", ""] {
            assert!(!kernel(fine).line().contains("late"), "{fine}");
        }
    }

    #[test]
    fn the_libc_of_an_image_is_told_by_its_loaders() {
        let root = TempDir::new().unwrap();
        assert!(libc_of_image(root.path()).starts_with("none"));
        fs::create_dir_all(root.path().join("lib64")).unwrap();
        fs::write(root.path().join("lib64/ld-linux-x86-64.so.2"), "").unwrap();
        assert_eq!(libc_of_image(root.path()), "glibc");
        fs::create_dir(root.path().join("lib")).unwrap();
        fs::write(root.path().join("lib/ld-musl-x86_64.so.1"), "").unwrap();
        assert_eq!(libc_of_image(root.path()), "glibc and musl");
    }

    #[test]
    fn rights_are_read_from_the_status() {
        let lines = |status: &str| rights(status, None).iter().map(Finding::line).collect::<Vec<_>>().join("\n");
        let usual = lines("Name:\tx\nCapEff:\t00000000a80425fb\nSeccomp:\t2\n");
        assert!(usual.contains("filtered") && !usual.contains("SYS_PTRACE"), "{usual}");
        assert!(lines("CapEff:\t000001ffffffffff\nSeccomp:\t0\n").contains("drop SYS_PTRACE"));
    }

    #[test]
    fn children_of_another_user_take_the_rights_to_start_and_to_end_them() {
        let child = ChildConfig {
            memory_bytes: None,
            cpu_time: None,
            open_files: None,
            processes: None,
            umask: None,
            nice: None,
            oom_score_adj: None,
            no_new_privileges: false,
            run_as: Some(RunAs { uid: 1000, gid: 1000, groups: Vec::new() }),
            new_session: false,
            stop_signal: 15,
            stop_grace: Duration::from_secs(5),
        };
        let lines = |capabilities: &str| {
            let findings = rights(&format!("CapEff:\t{capabilities}\n"), Some(&child));
            findings.iter().map(Finding::line).collect::<Vec<_>>().join("\n")
        };
        assert!(lines("00000000000000c0").contains("(without KILL)"));
        assert!(lines("0").contains("(without SETUID, SETGID, KILL)"));
        assert!(!lines("00000000000000e0").contains("run_as"));
    }

    #[test]
    fn this_machine_is_looked_at_without_a_configuration() {
        let findings = look(None, &MapSource::default());
        assert!(findings.iter().any(|finding| finding.line().starts_with("kernel: Linux ")), "{findings:?}");
    }
}
