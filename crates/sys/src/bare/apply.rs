//! The steps of the launcher, in their order.
//!
//! Rights are given up after everything that needs them, and the parent-death signal comes after the change of user, which
//! would clear it.

use super::calls::{self, Called, Closing, Errno, Resource};
use super::notes::Notes;
use super::setup::ChildSetup;
use super::word::{Word, Words};

/// With less no program starts: the kernel makes its stack half of that. It would end the process instead of refusing.
const LEAST_MEMORY_BYTES: u64 = 256 << 10;

/// A program that has just been written may still be open elsewhere for a moment.
const BUSY_RETRIES: u32 = 5;
const BUSY_PAUSE_NANOSECONDS: u64 = 25_000_000;

/// More groups than this are refused; the kernel takes 65,536.
const MOST_GROUPS: usize = 1024;

/// The reason was written.
pub(super) struct Refused;

impl Notes {
    fn check(&self, what: &[u8], done: Called) {
        if let Err(error) = done {
            self.left_out(error, what);
        }
    }

    fn limit(&self, what: &[u8], resource: Resource, wanted: Option<u64>) {
        if let Some(wanted) = wanted {
            self.check(what, calls::set_limit(resource, wanted));
        }
    }
}

/// Who is set up.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    /// A program of its own, the leader of a group.
    Launcher,
    /// A child with the memory of the agent and copies of its descriptors, in the agent's group.
    Child,
}

/// Sets up all but the nice value and the limit of memory.
pub(super) fn apply(who: Who, setup: &ChildSetup, notes: &Notes) -> Result<(), Refused> {
    // First, so that nothing that follows happens outside of it.
    if let Some(entrance) = setup.cgroup {
        notes.check(b"the control group", calls::write_file(entrance.pointer(), b"0"));
    }
    // Before the limit of open files, with which there may be none left to find the descriptors by.
    notes.check(b"closing descriptors", calls::close_others(closing(who)));
    match (who, setup.new_session) {
        // Which makes it the leader of a group as well.
        (Who::Child, true) => notes.check(b"a new session", calls::lead_a_session()),
        (Who::Child, false) => {
            if let Err(error) = calls::lead_a_group() {
                // Nobody could end what it starts.
                notes.refused(error, b"lead a group", None);
                return Err(Refused);
            }
        }
        (Who::Launcher, true) => notes.check(b"a new session", calls::leave_for_a_session()),
        (Who::Launcher, false) => {}
    }
    if let Some(score) = setup.oom_score {
        notes.check(b"the OOM score", calls::write_file(c"/proc/self/oom_score_adj".as_ptr(), score.bytes()));
    }
    if let Some(mask) = setup.umask {
        notes.check(b"the umask", calls::set_umask(mask));
    }
    notes.limit(b"the core limit", Resource::CORE_FILE, setup.core_bytes);
    notes.limit(b"the CPU limit", Resource::CPU_TIME, setup.cpu_seconds);
    notes.limit(b"the limit of open files", Resource::OPEN_FILES, setup.open_files);
    notes.limit(b"the limit of processes", Resource::PROCESSES, setup.processes);
    if let Some(user) = setup.uid
        && let Err(error) = become_user(user, setup)
    {
        notes.refused(error, b"become user ", Some(user));
        return Err(Refused);
    }
    if setup.no_new_privileges {
        notes.check(b"no_new_privs", calls::prctl(libc::PR_SET_NO_NEW_PRIVS, 1));
    }
    calls::reset_signals();
    notes.check(b"the signal mask", calls::unblock_signals());
    setup.parent.map_or(Ok(()), |parent| die_with(parent, notes))
}

/// What a child has copies of would stay open for everybody else until it is the program, for which it may have to wait: the end of
/// a pipe, or a file that is written and then to be executed.
fn closing(who: Who) -> Closing {
    match who {
        Who::Launcher => Closing::OnExec,
        Who::Child => Closing::AtOnce,
    }
}

fn die_with(parent: u64, notes: &Notes) -> Result<(), Refused> {
    let kill = usize::try_from(libc::SIGKILL).unwrap_or(0);
    notes.check(b"the parent-death signal", calls::prctl(libc::PR_SET_PDEATHSIG, kill));
    // It may have died before; then the signal never comes.
    if calls::parent() == parent {
        return Ok(());
    }
    notes.agent_is_gone(parent);
    Err(Refused)
}

/// Groups first: afterwards the right to change them is gone.
fn become_user(user: u64, setup: &ChildSetup) -> Called {
    let mut groups = [0_u32; MOST_GROUPS];
    let number = read_groups(setup.groups, &mut groups)?;
    calls::set_groups(groups.get(..number).unwrap_or_default())?;
    calls::set_group(setup.gid.unwrap_or(0))?;
    calls::set_user(user)
}

/// Reads numbers with commas between them; says how many there were.
fn read_groups(text: Option<Word>, groups: &mut [u32; MOST_GROUPS]) -> Result<usize, Errno> {
    let text = text.map_or(&b""[..], Word::bytes);
    let mut number = usize::from(!text.is_empty());
    for byte in text {
        if *byte == b',' {
            number += 1;
            continue;
        }
        let digit = byte.checked_sub(b'0').filter(|digit| *digit <= 9).ok_or(Errno(libc::EINVAL))?;
        let group = groups.get_mut(number - 1).ok_or(Errno(libc::E2BIG))?;
        let longer = group.checked_mul(10).and_then(|group| group.checked_add(u32::from(digit)));
        *group = longer.ok_or(Errno(libc::EINVAL))?;
    }
    Ok(number)
}

/// Last but one, because the agent waits for a child that is set up in its memory, and now with less right to a processor.
pub(super) fn set_nice(nice: Option<i32>, notes: &Notes) {
    if let Some(nice) = nice {
        notes.check(b"the nice value", calls::set_nice(nice));
    }
}

/// The last step: with a low limit not even the stack could grow any more.
pub(super) fn limit_memory(bytes: Option<u64>, notes: &Notes) -> Called {
    if bytes.is_some_and(|bytes| bytes < LEAST_MEMORY_BYTES) {
        return Err(Errno(libc::ENOMEM));
    }
    notes.limit(b"the memory limit", Resource::ADDRESS_SPACE, bytes);
    Ok(())
}

/// Comes back with the reason when the kernel refuses; later where somebody is still writing the program.
pub(super) fn execute(program: Word, args: Words, environment: Words) -> Errno {
    for _ in 0..BUSY_RETRIES {
        match calls::exec(program.pointer(), args, environment) {
            Errno(libc::ETXTBSY) => calls::pause(BUSY_PAUSE_NANOSECONDS),
            refused => return refused,
        }
    }
    calls::exec(program.pointer(), args, environment)
}
