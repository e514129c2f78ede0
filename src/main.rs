//! `attune-agents`: one binary, several applets, chosen by the name it was called by or by its first argument.
//!
//! Nothing but `main` ends the process; its value is the exit code.

mod applet;
mod applets;
mod call;
mod exit;
mod init;
mod output;
mod rt;
mod telemetry;
mod unwinding;

use std::ffi::OsString;
use std::process::ExitCode;

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    unwinding::prepare();
    // Looked at, so that no linker drops it.
    std::hint::black_box(applet::MARKER);
    let argv: Vec<OsString> = std::env::args_os().collect();
    exit::conclude(applet::resolve(&argv).and_then(applet::Request::answer))
}
