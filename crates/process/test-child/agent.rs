//! The helper child in the part of an agent: it runs children of its own and prints what it saw.

use std::cell::Cell;
use std::ffi::OsString;
use std::future::pending;
use std::io::{self, Write as _};
use std::path::Path;
use std::thread;
use std::time::Duration;

use attune_process::{Child, Command, Guard, Input, Keep, Outcome, Policy, Report, Strays, Stream, User};

use crate::{Step, other};

fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}

fn command(steps: &[String]) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.args = steps.iter().map(OsString::from).collect();
    let all = Keep::Head { limit_bytes: 1 << 20 };
    command.stdout = Stream::keep(all);
    command.ending.drain = Duration::from_millis(50);
    command
}

/// Starts a child that is to die with this process, from a thread that ends at once.
pub(crate) fn supervise_doomed(steps: &[String]) -> Step<()> {
    let runtime = runtime()?;
    let handle = runtime.handle().clone();
    let mut doomed = command(steps);
    doomed.policy = Some(Policy { dies_with_agent: true, ..Policy::default() });
    let starter = thread::spawn(move || {
        let _inside = handle.enter();
        attune_process::start(doomed)
    });
    let child = starter.join().map_err(|_| "starting panicked")??;
    let report = runtime.block_on(child.supervise(None, pending()));
    Err(format!("the child ended: {report:?}").into())
}

/// Starts a child under guard, for `life`, says in the file `guarded` that it is, and then does nothing any more; a guardian is
/// all that ends the child. How: `guard-grouped-ms` gives it a control group.
pub(crate) fn guard(how: &str, life: Duration, guarded: &str, steps: &[String]) -> Step<()> {
    let runtime = runtime()?;
    let _inside = runtime.enter();
    let guard = Guard::start(None)?;
    guard.allow_until(1, attune_process::boottime() + life);
    let command = if how == "guard-grouped-ms" { with_policy(command(steps)) } else { command(steps) };
    let child = attune_process::start(command)?;
    let _watched = guard.watch(&child, Some(1));
    crate::write_pid(guarded)?;
    loop {
        thread::park();
    }
}

/// Runs a child with `steps` in the way that `how` says; false when it says nothing known.
pub(crate) fn run(how: &str, steps: &[String]) -> Step<bool> {
    let runtime = runtime()?;
    let inside = runtime.enter();
    let mut command = command(steps);
    match how {
        "run" => show(&runtime.block_on(finished(command))?)?,
        "run-leaving-strays" => {
            command.ending.strays = Strays::LeaveAlone;
            show(&runtime.block_on(finished(command))?)?;
        }
        "run-beside-another" => {
            command.args.push("wait-for-ever".into());
            let mine = attune_process::start(command)?;
            let daemon = pid_written(steps);
            runtime.block_on(finished(self::command(&[])))?;
            let is_alive = Path::new("/proc").join(&daemon).exists();
            let what = if is_alive { "alive" } else { "gone" };
            writeln!(io::stdout(), "other done, daemon {what}")?;
            show(&runtime.block_on(mine.supervise(None, std::future::ready(()))))?;
        }
        "run-beside-starters" => {
            let mine = attune_process::start(command)?;
            show(&runtime.block_on(beside_starters(mine))?)?;
        }
        "run-and-wait" => {
            command.ending.strays = Strays::LeaveAlone;
            runtime.block_on(finished(command))?;
            show_no_children()?;
        }
        "run-and-show" => {
            let report = runtime.block_on(finished(command))?;
            io::stdout().write_all(&report.stdout.bytes)?;
        }
        "ask" => {
            let question: Vec<&str> = steps.iter().map(String::as_str).collect();
            let answer = attune_process::probe(Path::new("/proc/self/exe"), &question, &[], Duration::from_mins(1))?;
            io::stdout().write_all(&answer.stdout)?;
        }
        "run-many" => run_many(&runtime, steps)?,
        "run-twice" => run_twice(&runtime, steps)?,
        "drop" => {
            let child = attune_process::start(command)?;
            pid_written(steps);
            drop(child);
            show_no_children()?;
        }
        "drop-in-sweep" => drop_in_sweep(&runtime, command)?,
        "end-unknown" => {
            // Not by way of the library, so it knows nothing about this child.
            drop(other(steps.iter().cloned()).spawn()?);
            pid_written(&steps[..2]);
            let ended = attune_process::end_all_strays(Duration::from_secs(20));
            writeln!(io::stdout(), "ended {ended} children {}", own_children()?)?;
        }
        _ => return run_set_up(how, steps, &runtime, command),
    }
    drop(inside);
    Ok(true)
}

/// [`run`] with a policy, or with a grace that nobody waits for.
fn run_set_up(how: &str, steps: &[String], runtime: &tokio::runtime::Runtime, mut command: Command) -> Step<bool> {
    match how {
        "run-and-stop" => {
            command.ending.grace = Duration::from_secs(1000);
            let mine = attune_process::start(command)?;
            pid_written(&steps[..5]);
            show(&runtime.block_on(mine.supervise(None, std::future::ready(()))))?;
        }
        "run-and-tell" => {
            let report = runtime.block_on(finished(with_policy(command)))?;
            let peak = report.usage.peak_memory_bytes >> 20;
            writeln!(io::stdout(), "{:?} kills {:?} peak {peak} {:?}", report.outcome, report.oom_kills, report.notes)?;
        }
        "run-without-own-file" => {
            // As an update of the volume does it: the running file is replaced, or gone.
            let own = std::env::current_exe()?;
            std::fs::remove_file(&own)?;
            show_output(&runtime.block_on(finished(doomed(self::command(steps))))?)?;
            std::fs::write(&own, "#!/bin/false\n")?;
            show_output(&runtime.block_on(finished(doomed(command)))?)?;
        }
        "run-doomed" => {
            let report = runtime.block_on(finished(doomed(command)))?;
            show_output(&report)?;
            writeln!(io::stdout(), "{:?}", report.notes)?;
        }
        "run-attack" => {
            let [uid, file] = steps else { return Err("a user and a file".into()) };
            let attack = ["attack", &std::process::id().to_string(), file].map(str::to_owned);
            let mut command = with_policy(self::command(&attack));
            let uid: u32 = uid.parse()?;
            if let (Some(policy), true) = (&mut command.policy, uid != own_uid()?) {
                policy.user = Some(user(uid));
            }
            let report = runtime.block_on(finished(command))?;
            show_output(&report)?;
            writeln!(io::stdout(), "{:?} {:?}", report.outcome, report.notes)?;
        }
        "run-beside-a-quiet-one" => run_beside_a_quiet_one(runtime, command)?,
        "run-hidden-beside-another" => {
            let other = attune_process::start(self::command(&["wait-for-ever".to_owned()]))?;
            show(&runtime.block_on(finished(with_policy(command)))?)?;
            drop(other);
            show_no_children()?;
        }
        "run-as" => {
            let [uid, fate, steps @ ..] = steps else { return Err("a user and what becomes of strays".into()) };
            let uid = uid.parse()?;
            let mut command = with_policy(self::command(steps));
            command.policy = command.policy.map(|policy| Policy { user: Some(user(uid)), ..policy });
            if fate == "spared" {
                command.ending.strays = Strays::LeaveAlone;
            }
            let other = attune_process::start(self::command(&["wait-for-ever".to_owned()]))?;
            let report = runtime.block_on(finished(command))?;
            writeln!(io::stdout(), "strays {} holders {}", report.strays_ended.len(), report.pipe_holders.len())?;
            writeln!(io::stdout(), "{:?} {:?}", report.outcome, report.notes)?;
            drop(other);
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// Runs one child after the other, with some input.
fn run_twice(runtime: &tokio::runtime::Runtime, steps: &[String]) -> Step<()> {
    for _ in 0..2 {
        let mut command = with_policy(command(steps));
        command.stdin = Input::Bytes(b"input".to_vec());
        let report = runtime.block_on(finished(command))?;
        show_output(&report)?;
        writeln!(io::stdout(), "{:?} {:?}", report.outcome, report.notes)?;
    }
    Ok(())
}

/// Runs a child beside one that does nothing; says so when that is the only one left.
fn run_beside_a_quiet_one(runtime: &tokio::runtime::Runtime, command: Command) -> Step<()> {
    let quiet = attune_process::start(self::command(&["wait-for-ever".to_owned()]))?;
    show(&runtime.block_on(finished(command))?)?;
    // What was killed last may take a moment; a relay that goes on never ends.
    while own_children()? > 1 {
        thread::sleep(Duration::from_millis(2));
    }
    writeln!(io::stdout(), "children {}", own_children()?)?;
    drop(quiet);
    Ok(())
}

/// Forgets the supervision of a child after its leader was reaped, in the middle of looking for what it left.
fn drop_in_sweep(runtime: &tokio::runtime::Runtime, command: Command) -> Step<()> {
    let child = attune_process::start(command)?;
    let leader = format!("/proc/{}", child.pid());
    let reaped = async {
        while Path::new(&leader).exists() {
            tokio::task::yield_now().await;
        }
    };
    runtime.block_on(async {
        tokio::select! {
            biased;
            report = child.supervise(None, pending()) => Err(format!("it was not dropped: {report:?}")),
            () = reaped => Ok(()),
        }
    })?;
    show_no_children()
}

/// Supervises a child while one deliberate starter of daemons after the other comes to its end.
async fn beside_starters(mine: Child) -> Step<Report> {
    let is_over = Cell::new(false);
    let starters = async {
        while !is_over.get() {
            let mut starter = command(&[]);
            starter.ending.strays = Strays::LeaveAlone;
            finished(starter).await?;
        }
        Ok(())
    };
    let supervision = async {
        let report = mine.supervise(None, pending()).await;
        is_over.set(true);
        report
    };
    let (report, started): (_, Step<()>) = tokio::join!(supervision, starters);
    started.map(|()| report)
}

fn user(uid: u32) -> User {
    User { uid, gid: uid, groups: Vec::new() }
}

/// Runs beside and after each other, none of which may be taken for a stray of another one.
fn run_many(runtime: &tokio::runtime::Runtime, steps: &[String]) -> Step<()> {
    let one_after_the_other = || {
        for code in 0..15 {
            let mut command = command(steps);
            command.args.extend(["exit".into(), code.to_string().into()]);
            let _inside = runtime.enter();
            let outcome =
                attune_process::start(command).map(|child| runtime.block_on(child.supervise(None, pending())).outcome);
            match outcome {
                Ok(Outcome::Exited(found)) if found == code => {}
                other => return Err(format!("run {code} ended as {other:?}")),
            }
        }
        Ok(())
    };
    thread::scope(|scope| {
        let beside: Vec<_> = (0..8).map(|_| scope.spawn(one_after_the_other)).collect();
        let mut results = beside.into_iter().map(thread::ScopedJoinHandle::join);
        results.try_for_each(|result| result.unwrap_or_else(|_| Err("a panic".to_owned())))
    })?;
    show_no_children()
}

/// With a part that a child cannot set up by itself.
fn doomed(command: Command) -> Command {
    let command = with_policy(command);
    let policy = command.policy.map(|policy| Policy { oom_score_adj: Some(900), ..policy });
    Command { policy, ..command }
}

fn with_policy(mut command: Command) -> Command {
    command.policy = Some(Policy { dies_with_agent: true, ..Policy::default() });
    command
}

/// Sets up what a process has once and leaves free blocks of every size, as in an agent that has run for a while: it is the
/// start of a child that is to fail for want of memory, not this program. A C library may ask the kernel for every few blocks.
pub(crate) fn warm_up() -> Step<()> {
    drop(single()?);
    let sizes = std::iter::successors(Some(16_usize), |size| Some(size + size / 8)).take_while(|size| *size < 1 << 16);
    for size in sizes {
        let blocks: Vec<Vec<u8>> = (0..32).map(|_| Vec::with_capacity(size)).collect();
        // The neighbours stay, so that what lies between them is not given back to the kernel.
        blocks.into_iter().step_by(2).for_each(std::mem::forget);
    }
    Ok(())
}

fn single() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// Says why a program does not start, by itself and with a policy; with as few threads and descriptors as possible.
pub(crate) fn try_to_start(program: &str) -> Step<()> {
    let runtime = single()?;
    let _inside = runtime.enter();
    for policy in [None, Some(Policy::default())] {
        let command = Command { policy, ..Command::new(program) };
        let ended =
            attune_process::start(command).map(|child| runtime.block_on(child.supervise(None, pending())).outcome);
        match ended {
            Ok(Outcome::NotStarted(error)) => writeln!(io::stdout(), "{error:?} {error}")?,
            Ok(outcome) => writeln!(io::stdout(), "{outcome:?}")?,
            Err(error) => writeln!(io::stdout(), "{error:?} {error}")?,
        }
    }
    Ok(())
}

fn show_output(report: &Report) -> io::Result<()> {
    io::stdout().write_all(&report.stdout.bytes)?;
    io::stdout().write_all(&report.stderr.bytes)
}

fn own_uid() -> Step<u32> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:")).ok_or("no user")?;
    Ok(line.split_whitespace().next().ok_or("no user")?.parse()?)
}

async fn finished(command: Command) -> Step<Report> {
    let child: Child = attune_process::start(command)?;
    Ok(child.supervise(None, pending()).await)
}

fn show(report: &Report) -> Step<()> {
    let (strays, held) = (report.strays_ended.len(), report.pipes_held_open);
    writeln!(io::stdout(), "strays {strays} held {held} children {}", own_children()?)?;
    Ok(())
}

fn show_no_children() -> Step<()> {
    while own_children()? > 0 {
        thread::sleep(Duration::from_millis(2));
    }
    writeln!(io::stdout(), "children 0")?;
    Ok(())
}

/// Waits for the file that the last step names, and reads the process id in it.
fn pid_written(steps: &[String]) -> String {
    let path = steps.last().map_or("", String::as_str);
    loop {
        match std::fs::read_to_string(path) {
            Ok(pid) => return pid,
            Err(_) => thread::sleep(Duration::from_millis(2)),
        }
    }
}

/// How many children this process has, zombies included.
fn own_children() -> Step<usize> {
    let mut count = 0;
    for thread in std::fs::read_dir("/proc/self/task")? {
        let list = std::fs::read_to_string(thread?.path().join("children"));
        count += list.map_or(0, |list| list.split_whitespace().count());
    }
    Ok(count)
}
