//! What a server of a test says to a client over HTTP, byte by byte, and a program that is small enough to be said often.

#![expect(clippy::disallowed_methods, reason = "programs are made smaller the way packagers do it")]

use std::io::Read;
use std::path::Path;
use std::process::Command;

/// An answer as it goes over the wire. Each of `headers` ends with CR LF.
#[must_use]
pub fn answer(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let mut answer =
        format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n").into_bytes();
    answer.extend_from_slice(body);
    answer
}

/// The same without the second half of the body.
///
/// # Panics
///
/// When there is no end of its head.
#[must_use]
pub fn cut(answer: &[u8]) -> Vec<u8> {
    let head = answer.windows(4).position(|window| window == b"\r\n\r\n").expect("an answer has a head") + 4;
    answer[..head + (answer.len() - head) / 2].to_vec()
}

/// The head of a request that has no body.
///
/// # Panics
///
/// When the client goes away before its end, or it is no text.
pub fn head_of(stream: &mut impl Read) -> String {
    let (mut head, mut piece) = (Vec::new(), [0_u8; 4096]);
    while !head.windows(4).any(|window| window == b"\r\n\r\n") {
        let count = stream.read(&mut piece).expect("the client is there");
        assert_ne!(count, 0, "the client went away");
        head.extend_from_slice(&piece[..count]);
    }
    String::from_utf8(head).expect("a head is text")
}

/// Writes `program` to `small` without what is for debuggers, which is most of a build for tests.
///
/// # Panics
///
/// When that cannot be done.
pub fn strip(program: &Path, small: &Path) {
    let stripped = Command::new("strip").arg("-o").args([small, program]).output().expect("strip runs");
    assert!(stripped.status.success(), "{stripped:?}");
}
