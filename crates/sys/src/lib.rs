//! Every libc call and every unsafe block of the workspace.
//!
//! Safe functions with std types in and out, one system call each; the first line of each names its man page. Return
//! values go through `check`, which is the one place that knows about `errno`, or `retry`, which also knows about
//! `EINTR`. Descriptors are owned and close-on-exec from their creation; raw ones do not leave this crate.
#![expect(unsafe_code, reason = "the one crate where unsafe code is allowed")]

mod access;
mod bare;
mod beneath;
mod check;
mod clock;
mod environment;
mod folder;
mod limits;
mod own;
mod pid;
mod poll;
mod session;
mod signal;
mod socket;
mod standard_output;
mod tables;
mod trace;
mod user;
mod wait;
mod watch;

pub use access::{may_execute, may_write};
pub use bare::{
    ChildSetup, ChildStart, INIT_ARGUMENT, LAUNCHER_ARGUMENT, be_first_process, become_program, start_child,
};
pub use beneath::open_beneath;
pub use clock::boottime;
pub use environment::empty_variables;
pub use folder::{Opening, folder_in, make_folder_in, open_in, remove_in, rename_in};
pub use limits::{Limit, Resource, argument_bytes_limit, limit, page_size, set_limit};
pub use own::{set_subreaper, set_undumpable};
pub use pid::{Pid, is_first_thread, pidfd_open, pidfd_send_signal, pidfd_signal_group};
pub use poll::{Polled, open_at_once, poll, set_nonblocking};
pub use session::{replace_stdout, setsid};
pub use signal::{Disposition, SignalSet, is_ignored, is_no_such_process, kill, kill_group, set_disposition};
pub use signal::{SIGCHLD, SIGCONT, SIGHUP, SIGINT, SIGKILL, SIGQUIT, SIGSEGV, SIGSTOP, SIGTERM};
pub use socket::{has_no_delay, set_keepalive, set_no_delay_to};
pub use standard_output::stdout_was_closed;
pub use tables::{PackedTables, packed_tables};
pub use trace::seize;
pub use user::{as_file_user, effective_user, peer_user, ticks_per_second};
pub use wait::{Reaped, has_exited, reap};
pub use watch::watch_readable;
