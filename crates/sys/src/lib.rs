//! Every libc call and every unsafe block of the workspace.
