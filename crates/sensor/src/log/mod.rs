//! Logs of sensors: from the pipe to versioned files.
//!
//! ```text
//!   pipe ─► LogSink ─(bounded)─► LogSource ─► LineSplitter ─► LogWriter ─► Segment
//!                                                               │ version, retention, sizes
//!                                                               └──────► LogStore
//! ```
//!
//! Where the platform shares no folder, the files stay here until [`crate::courier`] has brought them there.
//!
//! Nothing in the lines is interpreted. A new version begins with the first line of each process; when the store refuses
//! versions, the lines go to a plain file that the platform's readers know as well.

mod home;
mod lines;
mod queue;
mod segment;
mod trace;
mod writer;

pub(crate) use home::LogHome;
pub(crate) use queue::queue;
pub(crate) use writer::{CurrentFile, LogTarget, LogWriter};
