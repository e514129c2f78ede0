//! Whether bytes are a program, and for which machine. What they are instead is said, because it tells what went wrong.

use thiserror::Error;

use crate::Machine;

/// As much of a file as [`machine_of`] looks at.
pub(crate) const HEAD_BYTES: usize = 64;

const MAGIC: [u8; 4] = [0x7f, b'E', b'L', b'F'];

/// Why a file cannot be the agents' binary.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NotAProgram {
    /// There is nothing in it.
    #[error("it is empty")]
    Empty,
    /// A web page, mostly of a proxy or a login.
    #[error("it is an HTML page: check the URL, and what stands between here and the server")]
    Html,
    /// An answer of an API.
    #[error("it is a JSON document and not a program: check the URL")]
    Json,
    /// A script.
    #[error("it is a script and not a program for Linux")]
    Script,
    /// Something else.
    #[error("it is no ELF file (it begins with {0})")]
    Other(String),
    /// The rest is missing.
    #[error("it ends within its header")]
    Short,
    /// An ELF file for a machine that there is no agent for.
    #[error("it is for a machine that there is no agent for (ELF machine {0}, {1}-bit)")]
    Foreign(u16, u8),
}

/// The machine that the program which begins with `head` is for.
pub fn machine_of(head: &[u8]) -> Result<Machine, NotAProgram> {
    if !head.starts_with(&MAGIC) {
        return Err(instead(head));
    }
    let (Some(class), Some(order), Some(number)) = (head.get(4), head.get(5), head.get(18..20)) else {
        return Err(NotAProgram::Short);
    };
    let number: [u8; 2] = number.try_into().map_err(|_never| NotAProgram::Short)?;
    let number = if *order == 2 { u16::from_be_bytes(number) } else { u16::from_le_bytes(number) };
    let bits = if *class == 2 { 64 } else { 32 };
    // Both machines are known in their 64-bit, little-endian form only.
    match Machine::from_elf(number) {
        Some(machine) if bits == 64 && *order == 1 => Ok(machine),
        _ => Err(NotAProgram::Foreign(number, bits)),
    }
}

fn instead(head: &[u8]) -> NotAProgram {
    let text = head.trim_ascii_start();
    match text.first() {
        None if head.is_empty() => NotAProgram::Empty,
        Some(b'<') => NotAProgram::Html,
        Some(b'{' | b'[') => NotAProgram::Json,
        Some(b'#') if text.starts_with(b"#!") => NotAProgram::Script,
        _ => NotAProgram::Other(format!("{:?}", String::from_utf8_lossy(head.get(..8).unwrap_or(head)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(class: u8, order: u8, machine: u16) -> Vec<u8> {
        let mut head = vec![0_u8; HEAD_BYTES];
        head[..4].copy_from_slice(&MAGIC);
        (head[4], head[5]) = (class, order);
        head[18..20].copy_from_slice(&machine.to_le_bytes());
        head
    }

    #[test]
    fn the_machine_is_read_from_the_header() {
        assert_eq!(machine_of(&header(2, 1, 62)), Ok(Machine::X86_64));
        assert_eq!(machine_of(&header(2, 1, 183)), Ok(Machine::Aarch64));
        assert_eq!(machine_of(&header(1, 1, 62)), Err(NotAProgram::Foreign(62, 32)), "x32");
        assert_eq!(machine_of(&header(2, 1, 243)), Err(NotAProgram::Foreign(243, 64)), "RISC-V");
        assert_eq!(machine_of(&header(2, 2, 183_u16.swap_bytes())), Err(NotAProgram::Foreign(183, 64)), "big-endian");
        assert_eq!(machine_of(&header(2, 1, 62)[..19]), Err(NotAProgram::Short));
    }

    #[test]
    fn this_very_test_is_a_program_for_this_machine() {
        let head = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert_eq!(machine_of(&head).ok(), Machine::own());
    }

    #[test]
    fn what_it_is_instead_is_said() {
        let cases: [(&[u8], NotAProgram); 5] = [
            (b"", NotAProgram::Empty),
            (b"\n <!DOCTYPE html>", NotAProgram::Html),
            (b"{\"error\":1}", NotAProgram::Json),
            (b"#!/bin/sh\n", NotAProgram::Script),
            (b"PK\x03\x04", NotAProgram::Other("\"PK\\u{3}\\u{4}\"".into())),
        ];
        for (head, wanted) in cases {
            assert_eq!(machine_of(head), Err(wanted));
        }
    }
}
