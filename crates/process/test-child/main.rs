//! The child of the tests: does what its arguments say, one step after the other.
//!
//! `spawn COUNT` hands the next COUNT arguments to another child and goes on.
#![expect(clippy::disallowed_methods, reason = "it is the child, and has to misbehave by itself")]

mod agent;
mod hostile;

use std::error::Error;
use std::ffi::OsString;
use std::io::{self, Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};
use std::thread;
use std::time::Duration;

use attune_process::{EXEC_APPLET, GUARD_APPLET, INIT_APPLET, exec_main, guard_main, init_main};
use attune_sys::{Disposition, Limit, Pid, Resource, SignalSet};

type Step<T> = Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next() {
        Some(first) if first == EXEC_APPLET => return exec_main(arguments),
        Some(first) if first == GUARD_APPLET => return guard_main(),
        Some(first) if first == INIT_APPLET => return init_main(arguments).into(),
        Some(first) if first == "init" => return init(&arguments.collect::<Vec<_>>()),
        _ => {}
    }
    let mut steps = std::env::args().skip(1);
    loop {
        match step(&mut steps) {
            Ok(None) => {}
            Ok(Some(code)) => return ExitCode::from(code),
            Err(error) => {
                // Nobody may be listening any more; the exit code says enough then.
                drop(writeln!(io::stderr(), "attune-test-child: {error}"));
                return ExitCode::from(99);
            }
        }
    }
}

fn init(args: &[OsString]) -> ExitCode {
    let Err(error) = attune_process::run_as_first_process("init", "agent".as_ref(), args);
    drop(writeln!(io::stderr(), "attune-test-child: {error}"));
    ExitCode::from(98)
}

fn step(steps: &mut impl Iterator<Item = String>) -> Step<Option<u8>> {
    let Some(name) = steps.next() else {
        return Ok(Some(0));
    };
    if write_step(&name, steps)? || odd_step(&name, steps)? {
        return Ok(None);
    }
    let mut operand = || steps.next().ok_or("an operand is missing");
    match name.as_str() {
        "exit" => return Ok(Some(operand()?.parse()?)),
        "read-all" => {
            let count = io::copy(&mut io::stdin(), &mut io::sink())?;
            writeln!(io::stdout(), "read {count}")?;
        }
        "read-some" => io::stdin().read_exact(&mut [0; 10])?,
        "write-pid" => write_pid(&operand()?)?,
        "wait-for-file" => wait_for_file(&operand()?)?,
        "nap-ms" => thread::sleep(Duration::from_millis(operand()?.parse()?)),
        "wait-for-ever" => loop {
            thread::park();
        },
        "use-memory" => {
            let bytes = vec![1_u8; operand()?.parse()?];
            std::hint::black_box(&bytes);
        }
        "spawn" => {
            let count = operand()?.parse()?;
            other(steps.take(count)).spawn()?;
        }
        "spawn-without-env" => {
            let count = operand()?.parse()?;
            other(steps.take(count)).env_clear().spawn()?;
        }
        "supervise-doomed" => {
            let count = operand()?.parse()?;
            agent::supervise_doomed(&steps.take(count).collect::<Vec<_>>())?;
        }
        how @ ("guard-ms" | "guard-grouped-ms") => {
            let life = Duration::from_millis(operand()?.parse()?);
            let guarded = operand()?;
            let count = operand()?.parse()?;
            agent::guard(how, life, &guarded, &steps.take(count).collect::<Vec<_>>())?;
        }
        "prepare" => prepare()?,
        "unblock-signals" => SignalSet::empty()?.block_only()?,
        "orphans-and-children" => orphans_and_children(operand()?.parse()?)?,
        "try-to-start" => agent::try_to_start(&operand()?)?,
        "open" => std::mem::forget(std::fs::File::open(operand()?)?),
        "attack" => hostile::attack(operand()?.parse()?, &operand()?)?,
        "end-remains" => {
            let ended = attune_process::end_remains(Duration::from_secs(20));
            writeln!(io::stdout(), "ended {ended}")?;
        }
        how => {
            let count = operand().unwrap_or_default().parse().unwrap_or(0);
            if !agent::run(how, &steps.take(count).collect::<Vec<_>>())? {
                return Err(format!("unknown step {how}").into());
            }
        }
    }
    Ok(None)
}

/// The steps that write something; false for any other step.
fn write_step(name: &str, steps: &mut impl Iterator<Item = String>) -> Step<bool> {
    let mut operand = || steps.next().ok_or("an operand is missing");
    let mut out = io::stdout();
    match name {
        "print" => writeln!(out, "{}", operand()?)?,
        "eprint" => writeln!(io::stderr(), "{}", operand()?)?,
        "fill" => fill(out, operand()?.parse()?)?,
        "fill-both" => fill_both(operand()?.parse()?)?,
        "fill-for-ever" => fill(out, u64::MAX)?,
        "print-env" => {
            for (name, value) in std::env::vars() {
                writeln!(out, "{name}={value}")?;
            }
        }
        "print-file" => {
            io::copy(&mut std::fs::File::open(operand()?)?, &mut out)?;
        }
        "print-environment-of-parent" => {
            let parent = std::os::unix::process::parent_id();
            match std::fs::read_to_string(format!("/proc/{parent}/environ")) {
                Ok(text) => writeln!(out, "{text}")?,
                Err(error) => writeln!(out, "refused: {error}")?,
            }
        }
        "print-descriptors" => {
            for entry in std::fs::read_dir("/proc/self/fd")? {
                writeln!(out, "{}", entry?.file_name().display())?;
            }
        }
        "print-cwd" => writeln!(out, "{}", std::env::current_dir()?.display())?,
        _ => return Ok(false),
    }
    Ok(true)
}

/// The steps of children that are hard to handle; false for any other step.
fn odd_step(name: &str, steps: &mut impl Iterator<Item = String>) -> Step<bool> {
    let mut operand = || steps.next().ok_or("an operand is missing");
    match name {
        "ignore-term" => attune_sys::set_disposition(attune_sys::SIGTERM, Disposition::Ignore)?,
        "raise" => signal_self(operand()?.parse()?)?,
        "stop" => signal_self(attune_sys::SIGSTOP)?,
        "new-session" => attune_sys::setsid()?,
        "close-stdout" => close_stdout()?,
        "obey-late" => obey_late(operand()?.parse()?, &operand()?)?,
        "bomb" => bomb(operand()?.parse()?, &operand()?)?,
        "relay" => relay(operand()?.parse()?)?,
        "become" => return Err(Command::new(operand()?).args(steps).env("PATH", "/usr/bin:/bin").exec().into()),
        "limit" => limit(&operand()?, operand()?.parse()?)?,
        _ => return Ok(false),
    }
    Ok(true)
}

fn other(steps: impl Iterator<Item = String>) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg0("attune-test-child").args(steps);
    command
}

fn prepare() -> Step<()> {
    let notes = attune_process::prepare();
    if notes.is_empty() { Ok(()) } else { Err(format!("{notes:?}").into()) }
}

/// The file is complete as soon as it is there.
fn write_pid(path: &str) -> io::Result<()> {
    let unfinished = format!("{path}.new");
    std::fs::write(&unfinished, std::process::id().to_string())?;
    std::fs::rename(unfinished, path)
}

fn wait_for_file(path: &str) -> io::Result<()> {
    while !std::fs::exists(path)? {
        thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// Makes orphans for the init and children of its own, and looks whether each kind gets what it needs.
fn orphans_and_children(count: usize) -> Step<()> {
    for number in 0..count {
        // Its child is an orphan as soon as it ends itself, and a zombie soon after that.
        let mut parent = other(["spawn", "2", "nap-ms", "1"].map(str::to_owned).into_iter()).spawn()?;
        let own = other(["exit".to_owned(), (number % 100).to_string()].into_iter()).status()?;
        if own.code() != i32::try_from(number % 100).ok() || !parent.wait()?.success() {
            return Err(format!("a status was lost: {own}").into());
        }
    }
    let init = std::os::unix::process::parent_id();
    while children_of(init)?.iter().any(|child| *child != std::process::id()) {
        thread::sleep(Duration::from_millis(2));
    }
    writeln!(io::stdout(), "no zombie")?;
    Ok(())
}

/// Takes its time when it is asked to end, and says when it is done. Ready to be asked when its id is in `path`.
fn obey_late(ms: u64, path: &str) -> Step<()> {
    let asked = SignalSet::empty()?.with(attune_sys::SIGTERM)?;
    asked.block_too()?;
    write_pid(path)?;
    asked.wait()?;
    thread::sleep(Duration::from_millis(ms));
    write_pid(&format!("{path}.obeyed"))?;
    Ok(())
}

/// Two of its kind, and so on, `depth` times; each leaves its group and session, says where it is, and stays.
fn bomb(depth: u32, folder: &str) -> Step<()> {
    for _ in 0..2 * depth.min(1) {
        let steps = ["new-session", "ignore-term", "bomb", &(depth - 1).to_string(), folder].map(str::to_owned);
        other(steps.into_iter()).spawn()?;
    }
    write_pid(&format!("{folder}/{}", std::process::id()))?;
    loop {
        thread::park();
    }
}

/// Starts another one of its kind in a session of its own and ends at once, as does that one, `hops` times.
fn relay(hops: u32) -> Step<()> {
    if hops > 0 {
        let steps = ["new-session", "relay", &(hops - 1).to_string()].map(str::to_owned);
        other(steps.into_iter()).spawn()?;
    }
    Ok(())
}

/// For this process and what it starts.
fn limit(what: &str, value: u64) -> Step<()> {
    let resource = match what {
        "memory" => {
            agent::warm_up()?;
            Resource::AddressSpace
        }
        "processes" => Resource::Processes,
        "files" => Resource::OpenFiles,
        _ => return Err(format!("unknown limit {what}").into()),
    };
    attune_sys::set_limit(resource, Limit { soft: value, hard: value })?;
    Ok(())
}

fn children_of(parent: u32) -> Step<Vec<u32>> {
    let listed = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"))?;
    Ok(listed.split_whitespace().map(str::parse).collect::<Result<_, _>>()?)
}

fn signal_self(signal: i32) -> Step<()> {
    let own = Pid::new(std::process::id()).ok_or("no own process id")?;
    attune_sys::kill(own, signal)?;
    Ok(())
}

fn fill(mut to: impl io::Write, bytes: u64) -> io::Result<()> {
    io::copy(&mut io::repeat(b'x').take(bytes), &mut to)?;
    to.flush()
}

fn fill_both(bytes: u64) -> io::Result<()> {
    let other = thread::spawn(move || fill(io::stderr(), bytes));
    fill(io::stdout(), bytes)?;
    other.join().unwrap_or_else(|_| Err(io::Error::other("the writer of stderr panicked")))
}

/// Puts the null device in the place of standard output.
fn close_stdout() -> io::Result<()> {
    let null = std::fs::File::options().write(true).open("/dev/null")?;
    attune_sys::replace_stdout(&null)
}
