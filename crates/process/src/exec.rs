//! The hidden applet `__exec`: applies a policy to itself and becomes the program.
//!
//! What it does is in [`attune_sys`], because the shipped binary does it before there is a C library; this is the way there from
//! `main`, for other builds.

use std::ffi::{CString, OsString};
use std::os::unix::ffi::OsStringExt as _;
use std::process::ExitCode;

/// Becomes the program that `args` (all that follows the name of the applet) describe; returns only when that fails, with
/// 125, 126 or 127. What went wrong is then told in lines on standard error; whoever started the child makes an error of them
/// that names the program.
pub fn exec_main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    attune_sys::become_program(&words(args)).into()
}

/// Arguments for the kernel, up to one that it could not have given.
pub(crate) fn words(args: impl IntoIterator<Item = OsString>) -> Vec<CString> {
    args.into_iter().map_while(|word| CString::new(word.into_vec()).ok()).collect()
}
