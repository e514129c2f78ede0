//! What kind of file a program is: which libc and machine it was made for, read from its first bytes.
//!
//! Nothing is started. What cannot be read or understood is unknown, never guessed.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Enough for the header of any ELF file and for a `#!` line.
const HEAD_BYTES: usize = 512;
const PT_INTERP: u32 = 3;
/// More than any real loader path or program header needs.
const SANE_BYTES: u64 = 4096;

/// The C library that a program needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Libc {
    /// GNU.
    Glibc,
    /// musl.
    Musl,
    /// None: everything is linked in.
    Static,
    /// Not known.
    Unknown,
}

impl Libc {
    /// As in the report.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Glibc => "glibc",
            Self::Musl => "musl",
            Self::Static => "static",
            Self::Unknown => "unknown",
        }
    }
}

/// What a program file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Image {
    /// A native program.
    Elf {
        /// Which C library it needs.
        libc: Libc,
        /// The machine it was made for, named as in `std::env::consts::ARCH`; an unknown one by its number.
        architecture: String,
        /// The loader it names; none when it is static.
        loader: Option<PathBuf>,
    },
    /// A script.
    Script {
        /// What its first line starts.
        interpreter: PathBuf,
        /// The argument on that line, as `bash` after `/usr/bin/env`.
        argument: Option<String>,
    },
    /// Neither, or not readable.
    Unknown,
}

impl Image {
    /// Looks at the file.
    pub fn of(program: &Path) -> Self {
        read(program).ok().flatten().unwrap_or(Self::Unknown)
    }

    /// The C library, where it is known.
    pub fn libc(&self) -> Libc {
        match self {
            Self::Elf { libc, .. } => *libc,
            _ => Libc::Unknown,
        }
    }

    /// The machine, where it is known.
    pub fn architecture(&self) -> Option<&str> {
        match self {
            Self::Elf { architecture, .. } => Some(architecture),
            _ => None,
        }
    }

    /// Major and minor version of the glibc that this image has for it: the newest of its symbols, which is the most that
    /// anything built here can ask for. The library is read; nothing is started.
    pub fn glibc(&self) -> Option<[u32; 2]> {
        let Self::Elf { libc: Libc::Glibc, loader: Some(loader), .. } = self else {
            return None;
        };
        // The loader's well-known name is a link to where the libraries are.
        let library = fs::canonicalize(loader).ok()?.with_file_name("libc.so.6");
        let bytes = fs::read(library).ok()?;
        bytes.split(|&byte| byte == 0).filter_map(|text| release(text.strip_prefix(b"GLIBC_")?)).max()
    }

    /// Why this host cannot start it; none when nothing speaks against it.
    pub fn misfit(&self) -> Option<String> {
        match self {
            Self::Elf { architecture, .. } if !runs_here(architecture) => {
                Some(format!("it was made for {architecture}, this machine is {}", std::env::consts::ARCH))
            }
            Self::Elf { libc, loader: Some(loader), .. } if !loader.exists() => Some(format!(
                "it was made for an image with {} (loader {}), which this image does not have",
                libc.as_str(),
                loader.display()
            )),
            Self::Script { interpreter, .. } if !interpreter.exists() => {
                Some(format!("its first line starts {}, which this image does not have", interpreter.display()))
            }
            _ => None,
        }
    }
}

/// `2.36`, also of `2.2.5`.
fn release(text: &[u8]) -> Option<[u32; 2]> {
    let mut parts = std::str::from_utf8(text).ok()?.split('.').map(str::parse);
    Some([parts.next()?.ok()?, parts.next()?.ok()?])
}

/// A 64-bit x86 kernel runs 32-bit programs too; 64-bit Arm often does.
fn runs_here(architecture: &str) -> bool {
    matches!((std::env::consts::ARCH, architecture), ("x86_64", "x86" | "x86_64") | ("aarch64", "arm" | "aarch64"))
        || architecture == std::env::consts::ARCH
}

fn read(program: &Path) -> io::Result<Option<Image>> {
    let file = File::open(program)?;
    let mut head = [0_u8; HEAD_BYTES];
    let length = file.read_at(&mut head, 0)?;
    let head = &head[..length];
    if let Some(line) = head.strip_prefix(b"#!") {
        return Ok(script(line));
    }
    let Some(elf) = Elf::parse(head) else {
        return Ok(None);
    };
    let loader = elf.loader(&file)?;
    let libc = loader.as_deref().map_or(Libc::Static, libc_of);
    Ok(Some(Image::Elf { libc, architecture: elf.architecture(), loader }))
}

fn script(line: &[u8]) -> Option<Image> {
    let line = line.split(|&byte| byte == b'\n').next()?;
    let line = std::str::from_utf8(line).ok()?.trim();
    let (interpreter, argument) = line.split_once([' ', '\t']).map_or((line, ""), |(first, rest)| (first, rest.trim()));
    let argument = (!argument.is_empty()).then(|| argument.to_owned());
    (!interpreter.is_empty()).then(|| Image::Script { interpreter: PathBuf::from(interpreter), argument })
}

fn libc_of(loader: &Path) -> Libc {
    let name = loader.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if name.starts_with("ld-musl") {
        Libc::Musl
    } else if name.starts_with("ld-linux") || name.starts_with("ld64.so") || name == "ld.so.1" {
        Libc::Glibc
    } else {
        Libc::Unknown
    }
}

/// The parts of an ELF header that tell where the loader's name is.
#[derive(Debug, Clone, Copy)]
struct Elf {
    wide: bool,
    little: bool,
    machine: u16,
    headers_at: u64,
    header_bytes: u16,
    headers: u16,
}

impl Elf {
    fn parse(head: &[u8]) -> Option<Self> {
        if head.get(..4)? != b"\x7fELF" {
            return None;
        }
        let wide = *head.get(4)? == 2;
        let mut elf = Self { wide, little: *head.get(5)? == 1, machine: 0, headers_at: 0, header_bytes: 0, headers: 0 };
        elf.machine = elf.short(head, 18)?;
        elf.headers_at = if wide { elf.long(head, 32)? } else { elf.word(head, 28)?.into() };
        let sizes = if wide { 54 } else { 42 };
        elf.header_bytes = elf.short(head, sizes)?;
        elf.headers = elf.short(head, sizes + 2)?;
        Some(elf)
    }

    fn loader(&self, file: &File) -> io::Result<Option<PathBuf>> {
        for index in 0..u64::from(self.headers) {
            let mut header = [0_u8; 56];
            let size = if self.wide { 56 } else { 32 };
            file.read_exact_at(&mut header[..size], self.headers_at + index * u64::from(self.header_bytes))?;
            if self.word(&header, 0) != Some(PT_INTERP) {
                continue;
            }
            let place = if self.wide {
                self.long(&header, 8).zip(self.long(&header, 32))
            } else {
                self.word(&header, 4).zip(self.word(&header, 16)).map(|(at, size)| (at.into(), size.into()))
            };
            return place.filter(|(_, size)| *size <= SANE_BYTES).map(|(at, size)| text_at(file, at, size)).transpose();
        }
        Ok(None)
    }

    fn architecture(&self) -> String {
        let name = match (self.machine, self.wide, self.little) {
            (3, ..) => "x86",
            (21, true, _) => "powerpc64",
            (22, true, _) => "s390x",
            (40, ..) => "arm",
            (62, ..) => "x86_64",
            (183, ..) => "aarch64",
            (243, true, _) => "riscv64",
            (243, false, _) => "riscv32",
            (258, true, _) => "loongarch64",
            (number, ..) => return format!("machine {number}"),
        };
        name.to_owned()
    }

    fn short(&self, bytes: &[u8], at: usize) -> Option<u16> {
        let bytes = *bytes.get(at..)?.first_chunk()?;
        Some(if self.little { u16::from_le_bytes(bytes) } else { u16::from_be_bytes(bytes) })
    }

    fn word(&self, bytes: &[u8], at: usize) -> Option<u32> {
        let bytes = *bytes.get(at..)?.first_chunk()?;
        Some(if self.little { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) })
    }

    fn long(&self, bytes: &[u8], at: usize) -> Option<u64> {
        let bytes = *bytes.get(at..)?.first_chunk()?;
        Some(if self.little { u64::from_le_bytes(bytes) } else { u64::from_be_bytes(bytes) })
    }
}

fn text_at(file: &File, at: u64, size: u64) -> io::Result<PathBuf> {
    let mut bytes = vec![0_u8; usize::try_from(size).map_err(io::Error::other)?];
    file.read_exact_at(&mut bytes, at)?;
    let text = bytes.split(|&byte| byte == 0).next().unwrap_or_default();
    Ok(PathBuf::from(String::from_utf8_lossy(text).into_owned()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::tests_support::program;

    /// A 64-bit little-endian ELF file with one program header, which names `loader`.
    fn elf(machine: u16, loader: Option<&str>) -> Vec<u8> {
        let mut bytes = vec![0_u8; 64 + 56];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[18..20].copy_from_slice(&machine.to_le_bytes());
        bytes[32..40].copy_from_slice(&64_u64.to_le_bytes());
        bytes[54..56].copy_from_slice(&56_u16.to_le_bytes());
        bytes[56..58].copy_from_slice(&1_u16.to_le_bytes());
        if let Some(loader) = loader {
            bytes[64..68].copy_from_slice(&PT_INTERP.to_le_bytes());
            bytes[72..80].copy_from_slice(&120_u64.to_le_bytes());
            bytes[96..104].copy_from_slice(&(loader.len() as u64 + 1).to_le_bytes());
            bytes.extend_from_slice(loader.as_bytes());
            bytes.push(0);
        }
        bytes
    }

    fn image_of(bytes: &[u8]) -> Image {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), bytes).unwrap();
        Image::of(file.path())
    }

    #[test]
    fn the_libc_is_told_by_the_loader() {
        assert_eq!(image_of(&elf(62, Some("/lib64/ld-linux-x86-64.so.2"))).libc(), Libc::Glibc);
        assert_eq!(image_of(&elf(183, Some("/lib/ld-musl-aarch64.so.1"))).libc(), Libc::Musl);
        assert_eq!(image_of(&elf(62, Some("/system/bin/linker64"))).libc(), Libc::Unknown);
        let fixed = image_of(&elf(183, None));
        assert_eq!((fixed.libc(), fixed.architecture()), (Libc::Static, Some("aarch64")));
    }

    #[test]
    fn the_shell_of_this_machine_fits_it() {
        let shell = Image::of(Path::new("/bin/sh"));
        assert_eq!(shell.architecture(), Some(std::env::consts::ARCH));
        assert_ne!(shell.libc(), Libc::Unknown);
        assert_eq!(shell.misfit(), None);
    }

    #[test]
    fn the_release_of_glibc_is_that_of_the_library_beside_the_loader() {
        let dir = tempfile::tempdir().unwrap();
        let (lib, link) = (dir.path().join("lib"), dir.path().join("ld-linux-x86-64.so.2"));
        fs::create_dir(&lib).unwrap();
        fs::write(lib.join("ld-2.so"), "").unwrap();
        symlink(lib.join("ld-2.so"), &link).unwrap();
        let program = image_of(&elf(62, link.to_str()));
        assert_eq!(program.glibc(), None, "no library");
        fs::write(lib.join("libc.so.6"), b"\0GLIBC_2.9\0x\0GLIBC_2.36\0GLIBC_2.2.5\0GLIBC_PRIVATE\0GLIBC_9\0").unwrap();
        assert_eq!(program.glibc(), Some([2, 36]));
        assert_eq!(image_of(&elf(62, Some("/lib/ld-musl-x86_64.so.1"))).glibc(), None);
        let shell = Image::of(Path::new("/bin/sh"));
        assert_eq!(shell.glibc().is_some(), shell.libc() == Libc::Glibc, "{shell:?}");
    }

    #[test]
    fn a_program_for_another_machine_or_image_says_why_it_does_not_fit() {
        let other = if std::env::consts::ARCH == "aarch64" { 62 } else { 183 };
        assert!(image_of(&elf(other, None)).misfit().unwrap().contains("it was made for"));
        let here: u16 = if std::env::consts::ARCH == "aarch64" { 183 } else { 62 };
        let misfit = image_of(&elf(here, Some("/nowhere/ld-musl-x.so.1"))).misfit().unwrap();
        assert!(misfit.contains("with musl (loader /nowhere/ld-musl-x.so.1)"), "{misfit}");
    }

    #[test]
    fn a_script_names_its_interpreter() {
        let dir = tempfile::tempdir().unwrap();
        let script = program(&dir.path().join("script"), "");
        assert_eq!(Image::of(&script), Image::Script { interpreter: "/bin/sh".into(), argument: None });
        let through_env = image_of(b"#! /usr/bin/env bash\nexit\n");
        assert_eq!(
            through_env,
            Image::Script { interpreter: "/usr/bin/env".into(), argument: Some("bash".to_owned()) }
        );
        assert!(image_of(b"#!/nowhere/interpreter\n").misfit().is_some());
    }

    #[test]
    fn garbage_is_unknown() {
        for bytes in [&b""[..], b"\x7fELF", b"\x7fELF\x02\x01", b"hello", b"#!\n"] {
            assert_eq!(image_of(bytes), Image::Unknown, "{bytes:?}");
        }
        let mut endless = elf(62, Some("/lib/ld-linux.so.2"));
        endless[96..104].copy_from_slice(&u64::MAX.to_le_bytes());
        assert_eq!(image_of(&endless).architecture(), Some("x86_64"));
        assert_eq!(Image::of(Path::new("/nowhere")), Image::Unknown);
    }
}
