//! One child process: start, capture, limits, the end of its whole tree, and why it ended.
//!
//! Nothing else in the workspace starts a process. [`start`] is for children that run beside an async runtime and may live
//! long, [`probe()`] for short questions before a runtime exists.
//!
//! ```text
//!   main ── process 1? ── run_as_first_process ── (again, as its child) ── prepare ── applet
//!                                                                                      │
//!   start(Command) ─► Child ── supervise(time limit, stop) ─► Report                   ▼
//!     posix_spawn; with a Policy attune_sys::start_child               end_all_strays at the very end
//!     or by way of __exec = exec_main
//! ```
//!
//! In a process that called [`prepare()`], children that something else starts are taken for strays and reaped.

mod capture;
mod cgroup;
mod child;
mod command;
#[cfg(test)]
mod corpus;
mod diagnose;
mod exec;
mod executable;
mod family;
mod guard;
mod guardian;
mod init;
mod input;
mod leader;
mod mark;
mod notes;
mod policy;
mod prepare;
mod probe;
mod procfs;
mod pumps;
mod redact;
mod remains;
mod report;
mod spawn;
mod spawner;
mod start_error;
mod trial;

pub use attune_sys::{SIGINT, SIGKILL, SIGTERM, boottime, effective_user, may_execute, may_write};
pub use child::{Child, start};
pub use command::{Command, Ending, Input, Keep, Sink, Strays, Stream};
pub use exec::exec_main;
pub use family::end_all_strays;
pub use guard::{GUARD_APPLET, Guard, Watched};
pub use guardian::guard_main;
pub use init::{INIT_APPLET, InitError, init_main, is_first_process, run_as_first_process};
pub use mark::TREE_VARIABLE;
pub use policy::{EXEC_APPLET, Launcher, Limits, Policy, Session, User};
pub use prepare::{prepare, surroundings};
pub use probe::{ProbeOutput, probe};
pub use redact::{MASK, MIN_SECRET_BYTES, Redactor};
pub use remains::end_remains;
pub use report::{Captured, Outcome, Report, Usage};
pub use spawner::start_aside;
pub use start_error::StartError;
pub use trial::refused;
