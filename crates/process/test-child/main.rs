//! The child of the tests: does what its arguments say, one step after the other.
//!
//! `spawn COUNT` hands the next COUNT arguments to another child and goes on.
#![expect(
    clippy::disallowed_methods,
    reason = "it is the child, and has to misbehave by itself"
)]

use std::error::Error;
use std::io::{self, Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};
use std::thread;
use std::time::Duration;

use attune_sys::{Disposition, Pid};

type Step<T> = Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
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

fn step(steps: &mut impl Iterator<Item = String>) -> Step<Option<u8>> {
    let Some(name) = steps.next() else {
        return Ok(Some(0));
    };
    let mut operand = || steps.next().ok_or("an operand is missing");
    match name.as_str() {
        "exit" => return Ok(Some(operand()?.parse()?)),
        "print" => writeln!(io::stdout(), "{}", operand()?)?,
        "eprint" => writeln!(io::stderr(), "{}", operand()?)?,
        "fill" => fill(io::stdout(), operand()?.parse()?)?,
        "fill-both" => fill_both(operand()?.parse()?)?,
        "fill-for-ever" => fill(io::stdout(), u64::MAX)?,
        "read-all" => {
            let count = io::copy(&mut io::stdin(), &mut io::sink())?;
            writeln!(io::stdout(), "read {count}")?;
        }
        "read-some" => io::stdin().read_exact(&mut [0; 10])?,
        "close-stdout" => close_stdout()?,
        "print-env" => {
            for (name, value) in std::env::vars() {
                writeln!(io::stdout(), "{name}={value}")?;
            }
        }
        "print-cwd" => writeln!(io::stdout(), "{}", std::env::current_dir()?.display())?,
        "write-pid" => {
            // Complete as soon as it is there.
            let path = operand()?;
            let unfinished = format!("{path}.new");
            std::fs::write(&unfinished, std::process::id().to_string())?;
            std::fs::rename(unfinished, path)?;
        }
        "ignore-term" => attune_sys::set_disposition(attune_sys::SIGTERM, Disposition::Ignore)?,
        "raise" => signal_self(operand()?.parse()?)?,
        "stop" => signal_self(attune_sys::SIGSTOP)?,
        "nap-ms" => thread::sleep(Duration::from_millis(operand()?.parse()?)),
        "wait-for-ever" => loop {
            thread::park();
        },
        "use-memory" => {
            let bytes = vec![1_u8; operand()?.parse()?];
            std::hint::black_box(&bytes);
        }
        "wait-for-file" => {
            let path = operand()?;
            while !std::fs::exists(&path)? {
                thread::sleep(Duration::from_millis(2));
            }
        }
        "spawn" => {
            let count = operand()?.parse()?;
            other(steps.take(count)).spawn()?;
        }
        "new-session" => attune_sys::setsid()?,
        unknown => return Err(format!("unknown step {unknown}").into()),
    }
    Ok(None)
}

fn other(steps: impl Iterator<Item = String>) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg0("attune-test-child").args(steps);
    command
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
    other
        .join()
        .unwrap_or_else(|_| Err(io::Error::other("the writer of stderr panicked")))
}

/// Puts the null device in the place of standard output.
fn close_stdout() -> io::Result<()> {
    let null = std::fs::File::options().write(true).open("/dev/null")?;
    attune_sys::replace_stdout(&null)
}
