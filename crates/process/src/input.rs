//! What a child reads, put into its pipe before it starts.
//!
//! Invariant: input that fits into the pipe is there completely before the child exists. It then needs no writing beside the
//! child, and a child that ends without reading it is no error.

use std::io::{self, PipeReader, PipeWriter, Write as _};
use std::os::fd::OwnedFd;

use crate::command::Input;

/// What did not fit into the pipe.
pub(crate) struct Rest {
    /// Our end of the pipe, not blocking.
    pub(crate) pipe: OwnedFd,
    /// The whole input.
    pub(crate) bytes: Vec<u8>,
    /// How much of it is in the pipe already.
    pub(crate) written: usize,
}

/// The standard input of a child, none for the null device, and what is still to be written to it.
pub(crate) fn prepare(input: Input) -> io::Result<(Option<PipeReader>, Option<Rest>)> {
    let Input::Bytes(bytes) = input else {
        return Ok((None, None));
    };
    let (reader, writer) = io::pipe()?;
    attune_sys::set_nonblocking(&writer)?;
    let written = fill(&writer, &bytes)?;
    let rest = (written < bytes.len()).then(|| Rest { pipe: writer.into(), bytes, written });
    Ok((Some(reader), rest))
}

/// Writes until the pipe is full; says how much went in.
fn fill(mut pipe: &PipeWriter, bytes: &[u8]) -> io::Result<usize> {
    let mut written = 0;
    while written < bytes.len() {
        match pipe.write(&bytes[written..]) {
            Ok(count) => written += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(written)
}
