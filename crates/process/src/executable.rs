//! Reads the first bytes of a file the way the kernel does when it is executed.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// What a file claims to be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Executable {
    /// A script with a `#!` line: the interpreter as it stands there.
    Script { interpreter: PathBuf },
    /// A program.
    Elf {
        /// The processor as ELF numbers it.
        machine: u16,
        /// Bits and byte order are those of this build.
        native_layout: bool,
        /// The dynamic loader; none for a static program, or where the layout is foreign.
        loader: Option<PathBuf>,
    },
    /// Neither.
    Unknown,
}

const ELF_MAGIC: &[u8] = b"\x7fELF";
const PROGRAM_HEADER_INTERPRETER: u32 = 3;

/// Of one program header; the kernel refuses files that say anything else.
const PROGRAM_HEADER_BYTES: usize = 56;

/// The kernel looks at this many bytes of a `#!` line.
const SCRIPT_LINE_BYTES: usize = 256;

/// This much is read at once. It is looked at before every start, and linkers put the program headers and the name of the loader
/// here.
const START_BYTES: usize = 1024;

/// More program headers than any linker writes.
const MAX_PROGRAM_HEADERS: usize = 1024;

/// ELF's number for the processor of this build.
pub(crate) const NATIVE_MACHINE: u16 = if cfg!(target_arch = "x86_64") {
    62
} else if cfg!(target_arch = "aarch64") {
    183
} else if cfg!(target_arch = "riscv64") {
    243
} else {
    0
};

impl Executable {
    /// Never waits: what is no regular file is not read.
    pub(crate) fn read(path: &Path) -> io::Result<Self> {
        let mut file = attune_sys::open_at_once(path)?;
        if !file.metadata()?.is_file() {
            return Ok(Self::Unknown);
        }
        let mut start = Vec::with_capacity(START_BYTES);
        file.by_ref().take(START_BYTES as u64).read_to_end(&mut start)?;
        Ok(if start.starts_with(b"#!") {
            Self::script(&start[2..start.len().min(SCRIPT_LINE_BYTES)])
        } else if start.starts_with(ELF_MAGIC) {
            Self::elf(&start, &mut file)
        } else {
            Self::Unknown
        })
    }

    fn script(line: &[u8]) -> Self {
        let line = line.split(|byte| *byte == b'\n').next().unwrap_or(line);
        // Only blanks separate for the kernel: a carriage return before the line feed belongs to the name.
        let name = line.split(|byte| matches!(byte, b' ' | b'\t')).find(|word| !word.is_empty());
        name.map_or(Self::Unknown, |name| Self::Script { interpreter: PathBuf::from(OsStr::from_bytes(name)) })
    }

    fn elf(start: &[u8], file: &mut File) -> Self {
        let (Some(class), Some(order)) = (start.get(4), start.get(5)) else {
            return Self::Unknown;
        };
        let big_endian = *order == 2;
        let number = |bytes: [u8; 2]| {
            if big_endian { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) }
        };
        let Some(machine) = array(start, 18).map(number) else {
            return Self::Unknown;
        };
        let native_layout = *class == if cfg!(target_pointer_width = "64") { 2 } else { 1 }
            && big_endian == cfg!(target_endian = "big");
        let loader = if native_layout && *class == 2 {
            // A broken table leaves the kind of processor, which is what matters then.
            loader(start, file).ok().flatten()
        } else {
            None
        };
        Self::Elf { machine, native_layout, loader }
    }
}

/// The `PT_INTERP` of a 64-bit program in this machine's byte order.
fn loader(start: &[u8], file: &mut File) -> io::Result<Option<PathBuf>> {
    let (Some(table), Some(size), Some(count)) = (
        array(start, 32).map(u64::from_ne_bytes),
        array(start, 54).map(u16::from_ne_bytes).map(usize::from),
        array(start, 56).map(u16::from_ne_bytes).map(usize::from),
    ) else {
        return Ok(None);
    };
    if size != PROGRAM_HEADER_BYTES {
        return Ok(None);
    }
    let headers = read_at(start, file, table, size * count.min(MAX_PROGRAM_HEADERS))?;
    for header in headers.chunks_exact(size) {
        if array(header, 0).map(u32::from_ne_bytes) != Some(PROGRAM_HEADER_INTERPRETER) {
            continue;
        }
        let offset = array(header, 8).map_or(0, u64::from_ne_bytes);
        let length = array(header, 32).map_or(0, u64::from_ne_bytes);
        let path = read_at(start, file, offset, usize::try_from(length.min(4096)).unwrap_or(0))?;
        let path = path.split(|byte| *byte == 0).next().unwrap_or_default();
        return Ok(Some(PathBuf::from(OsStr::from_bytes(path))));
    }
    Ok(None)
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

/// `length` bytes from `offset` on, or as many as there are; from the file only what `start`, its beginning, does not have.
fn read_at<'a>(start: &'a [u8], file: &mut File, offset: u64, length: usize) -> io::Result<Cow<'a, [u8]>> {
    let first = usize::try_from(offset).unwrap_or(usize::MAX);
    if let Some(bytes) = start.get(first..first.saturating_add(length)) {
        return Ok(Cow::Borrowed(bytes));
    }
    let mut bytes = Vec::with_capacity(length);
    file.seek(SeekFrom::Start(offset))?;
    file.take(length as u64).read_to_end(&mut bytes)?;
    Ok(Cow::Owned(bytes))
}

/// The usual name of a processor that ELF numbers.
pub(crate) fn machine_name(machine: u16) -> String {
    let name = match machine {
        3 => "x86 (32 bit)",
        8 => "mips",
        20 => "powerpc",
        21 => "ppc64",
        22 => "s390x",
        40 => "arm (32 bit)",
        62 => "x86_64",
        183 => "aarch64",
        243 => "riscv",
        258 => "loongarch",
        other => return format!("processor number {other}"),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(bytes: &[u8]) -> Executable {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        Executable::read(file.path()).unwrap()
    }

    #[test]
    fn a_script_is_its_interpreter_as_the_kernel_reads_it() {
        for (line, interpreter) in [
            ("#!/bin/sh\necho", "/bin/sh"),
            ("#! \t/usr/bin/env python3\n", "/usr/bin/env"),
            ("#!/bin/sh\r\n", "/bin/sh\r"),
            ("#!/bin/sh", "/bin/sh"),
        ] {
            let interpreter = PathBuf::from(interpreter);
            assert_eq!(written(line.as_bytes()), Executable::Script { interpreter });
        }
        assert_eq!(written(b"#!\n/bin/sh"), Executable::Unknown);
        assert_eq!(written(b"echo"), Executable::Unknown);
        assert_eq!(written(b""), Executable::Unknown);
    }

    #[test]
    fn the_running_program_is_for_this_machine() {
        let own = Executable::read(Path::new("/proc/self/exe")).unwrap();
        let Executable::Elf { machine, native_layout, .. } = own else { panic!("{own:?}") };
        assert_eq!(machine, NATIVE_MACHINE);
        assert!(native_layout);
    }

    /// A program for this machine with a table of three headers at `table`, of which the last names a loader at `path`.
    fn program(table: usize, path: usize, loader: &[u8]) -> Vec<u8> {
        let mut file = vec![0; 8192];
        let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, ELF_MAGIC);
        put(4, &[2, if cfg!(target_endian = "big") { 2 } else { 1 }]);
        put(18, &NATIVE_MACHINE.to_ne_bytes());
        put(32, &(table as u64).to_ne_bytes());
        put(54, &56_u16.to_ne_bytes());
        put(56, &3_u16.to_ne_bytes());
        put(table + 2 * PROGRAM_HEADER_BYTES, &PROGRAM_HEADER_INTERPRETER.to_ne_bytes());
        put(table + 2 * PROGRAM_HEADER_BYTES + 8, &(path as u64).to_ne_bytes());
        put(table + 2 * PROGRAM_HEADER_BYTES + 32, &(loader.len() as u64).to_ne_bytes());
        put(path, loader);
        file
    }

    #[test]
    fn a_loader_is_found_wherever_it_is_named() {
        let loader = b"/lib/ld-some.so.1\0";
        for (table, path) in [(64, 300), (64, 1010), (64, 8000), (1000, 64), (4000, 64), (4000, 6000)] {
            let read = written(&program(table, path, loader));
            let Executable::Elf { loader: Some(found), .. } = read else { panic!("{table} {path}: {read:?}") };
            assert_eq!(found, Path::new("/lib/ld-some.so.1"), "headers at {table}, name at {path}");
        }
        for beyond in [1 << 13, u64::MAX - 3] {
            let mut file = program(64, 300, loader);
            file[64 + 2 * PROGRAM_HEADER_BYTES + 8..][..8].copy_from_slice(&beyond.to_ne_bytes());
            let Executable::Elf { machine, .. } = written(&file) else { panic!("it is a program") };
            assert_eq!(machine, NATIVE_MACHINE);
        }
    }

    #[test]
    fn of_the_line_of_a_script_as_much_counts_as_for_the_kernel() {
        let line = format!("#!/{} -x\n", "d".repeat(2 * SCRIPT_LINE_BYTES));
        let read = written(line.as_bytes());
        let Executable::Script { interpreter } = read else { panic!("{read:?}") };
        assert_eq!(interpreter.as_os_str().len(), SCRIPT_LINE_BYTES - "#!".len());
    }

    proptest! {
        #[test]
        fn any_bytes_after_the_magic_are_read_without_a_panic(
            mut bytes in prop::collection::vec(any::<u8>(), 0..200),
            native in any::<bool>(),
        ) {
            let mut file = ELF_MAGIC.to_vec();
            if native && bytes.len() > 2 {
                bytes[0] = 2;
                bytes[1] = 1;
            }
            file.extend(bytes);
            written(&file);
        }
    }
}
