//! From an error number of the kernel to what is really wrong.
//!
//! The kernel says ENOENT for a missing program, a missing interpreter, a missing loader and a missing working directory
//! alike. This looks at the files, after the failure and only then, and finds which one it was.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::executable::{Executable, NATIVE_MACHINE, machine_name};
use crate::spawn::{NULL_DEVICE, Request};
use crate::start_error::StartError;

/// The kernel follows this many interpreters of interpreters.
const MAX_SCRIPT_DEPTH: u8 = 5;

/// Why `request` failed with `error`.
pub(crate) fn diagnose(request: &Request<'_>, error: io::Error) -> StartError {
    let program = request.program.to_owned();
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            missing_directory(request).unwrap_or_else(|| missing(request, error))
        }
        io::ErrorKind::PermissionDenied => missing_directory(request)
            .or_else(|| first_wrong(request, not_executable, |_, _| None))
            .unwrap_or(StartError::Permission { program, source: error }),
        io::ErrorKind::ExecutableFileBusy => StartError::TextFileBusy { program },
        io::ErrorKind::ArgumentListTooLong => too_long(request),
        io::ErrorKind::OutOfMemory => StartError::NoMemory { program },
        io::ErrorKind::WouldBlock => StartError::ProcessLimit { program },
        io::ErrorKind::InvalidInput => zero_byte(request).unwrap_or(StartError::Other { program, source: error }),
        _ => match error.raw_os_error() {
            Some(ENOEXEC | ELIBBAD) => foreign_format(&program).unwrap_or(StartError::Other { program, source: error }),
            Some(EMFILE | ENFILE) => StartError::FileLimit { program, source: error },
            _ => StartError::Other { program, source: error },
        },
    }
}

/// What the kernel would say about the program, for a child that becomes it only later.
///
/// A file that cannot be read is left to the kernel: it may be executable all the same, or for another user.
pub(crate) fn preflight(request: &Request<'_>) -> Result<(), StartError> {
    // A path with a zero byte is not looked up by the kernel at all.
    if let Some(error) = zero_byte_in_a_path(request).or_else(|| missing_directory(request)) {
        return Err(error);
    }
    let program = request.program;
    if let Err(error) = fs::metadata(program) {
        return match error.kind() {
            io::ErrorKind::PermissionDenied => Ok(()),
            _ => Err(StartError::NotFound { program: program.to_owned() }),
        };
    }
    // Not its format: this kernel may be able to run more than it seems.
    let refused = first_wrong(request, not_executable, |file, content| missing_behind(request, file, content));
    refused.map_or(Ok(()), Err)
}

// The same on every processor that Linux runs on, except ELIBBAD on mips and sparc.
const ENOEXEC: i32 = 8;
const ENFILE: i32 = 23;
const EMFILE: i32 = 24;
const ELIBBAD: i32 = 80;

fn missing_directory(request: &Request<'_>) -> Option<StartError> {
    let path = request.cwd?;
    // Entering needs search permission, which reading "." in it needs too.
    let source = match fs::metadata(path.join(".")) {
        Ok(found) if found.is_dir() => return None,
        Ok(_) => io::Error::from(io::ErrorKind::NotADirectory),
        Err(error) => error,
    };
    Some(StartError::WorkingDirectory { program: request.program.to_owned(), path: path.to_owned(), source })
}

/// The program, or something that it needs, does not exist.
fn missing(request: &Request<'_>, error: io::Error) -> StartError {
    let program = request.program.to_owned();
    if fs::metadata(&program).is_err() {
        return StartError::NotFound { program };
    }
    if let Some(found) = first_wrong(request, |_| None, |file, content| missing_behind(request, file, content)) {
        return found;
    }
    match fs::metadata(NULL_DEVICE) {
        Err(source) => StartError::NullDevice { program, source },
        Ok(_) => StartError::Other { program, source: error },
    }
}

/// Where the kernel looks for the interpreter that a script names: a relative path begins in the child's working directory.
fn located(request: &Request<'_>, interpreter: &Path) -> PathBuf {
    request.cwd.map_or_else(|| interpreter.to_owned(), |cwd| cwd.join(interpreter))
}

/// What is wrong with the program or with one of the interpreters behind it, which are looked at in turn and each once: first
/// at the file, then at what is in it.
fn first_wrong(
    request: &Request<'_>,
    with_file: impl Fn(&Path) -> Option<StartError>,
    with_content: impl Fn(&Path, &Executable) -> Option<StartError>,
) -> Option<StartError> {
    let mut file = request.program.to_owned();
    for _ in 0..=MAX_SCRIPT_DEPTH {
        if let Some(error) = with_file(&file) {
            return Some(error);
        }
        let content = Executable::read(&file).ok()?;
        if let Some(error) = with_content(&file, &content) {
            return Some(error);
        }
        let Executable::Script { interpreter } = content else { return None };
        file = located(request, &interpreter);
    }
    None
}

/// What the file needs does not exist.
fn missing_behind(request: &Request<'_>, file: &Path, content: &Executable) -> Option<StartError> {
    match content {
        Executable::Script { interpreter } if !located(request, interpreter).exists() => {
            let interpreter = interpreter.to_string_lossy().into_owned();
            let advice = if interpreter.ends_with('\r') {
                "the line ends with a carriage return: save the file with Unix line ends"
            } else {
                "use an image that has it, or change the line"
            };
            Some(StartError::NoSuchInterpreter { program: file.to_owned(), interpreter, advice })
        }
        // One for another machine is refused for that, or run by an emulator that has its loaders elsewhere.
        Executable::Elf { machine, native_layout, .. } if *machine != NATIVE_MACHINE || !native_layout => None,
        Executable::Elf { loader: Some(loader), .. } if !loader.exists() => Some(StartError::LoaderMissing {
            program: file.to_owned(),
            advice: if loader.to_string_lossy().contains("ld-musl") {
                "it was built for musl: use a build for this image's glibc, or an Alpine image"
            } else {
                "it was built for glibc: use a build for musl or a static one, or an image with glibc"
            },
            loader: loader.to_string_lossy().into_owned(),
        }),
        _ => None,
    }
}

/// The file is no regular one or lacks the executable bit.
fn not_executable(file: &Path) -> Option<StartError> {
    let found = fs::metadata(file).ok()?;
    let reason = if found.is_dir() {
        "it is a folder; name the file in it"
    } else if !found.is_file() {
        "it is no file but a pipe, a socket or a device; name a program"
    } else if found.permissions().mode() & 0o111 == 0 {
        "the executable bit is not set; run chmod +x on it"
    } else {
        return None;
    };
    Some(StartError::NotExecutable { program: file.to_owned(), reason })
}

/// The program is no program at all, or one for another machine.
fn foreign_format(program: &Path) -> Option<StartError> {
    match Executable::read(program).ok()? {
        Executable::Elf { machine, native_layout, .. } if machine != NATIVE_MACHINE || !native_layout => {
            Some(StartError::WrongArchitecture {
                program: program.to_owned(),
                found: machine_name(machine),
                expected: std::env::consts::ARCH,
            })
        }
        Executable::Unknown => Some(StartError::NotExecutable {
            program: program.to_owned(),
            reason: "it is neither a program nor a script whose first line is #! with an interpreter",
        }),
        _ => None,
    }
}

fn too_long(request: &Request<'_>) -> StartError {
    string_too_long(request).unwrap_or_else(|| together_too_long(request.program.to_owned(), strings_bytes(request)))
}

/// One string that is longer than the kernel takes any.
pub(crate) fn string_too_long(request: &Request<'_>) -> Option<StartError> {
    // execve(2): 32 pages for one string with the byte that ends it.
    let limit = 32 * attune_sys::page_size() - 1;
    let (what, bytes) = strings(request).find(|(_, bytes)| *bytes > limit)?;
    Some(StartError::StringTooLong { program: request.program.to_owned(), what: what.to_string(), bytes, limit })
}

/// All that the kernel has to take over for `request`.
pub(crate) fn strings_bytes(request: &Request<'_>) -> u64 {
    // Every string has its end and a pointer to it.
    let overhead = 1 + size_of::<usize>() as u64;
    strings(request).map(|(_, bytes)| bytes + overhead).sum()
}

/// More than the kernel takes over.
pub(crate) fn together_too_long(program: PathBuf, bytes: u64) -> StartError {
    StartError::ArgumentsTooLong { program, bytes, limit: attune_sys::argument_bytes_limit().unwrap_or(0) }
}

fn zero_byte(request: &Request<'_>) -> Option<StartError> {
    let found = |what: What<'_>| zero_byte_found(request, &what);
    zero_byte_in_a_path(request).or_else(|| {
        if let Some(at) = request.args.iter().position(|arg| has_zero(arg)) {
            return Some(found(What::Argument(at + 1)));
        }
        let (name, _) = request.env.iter().find(|(name, value)| has_zero(name) || has_zero(value))?;
        Some(found(What::Variable(name)))
    })
}

/// In what is looked at before a start; the rest is refused by the start itself.
fn zero_byte_in_a_path(request: &Request<'_>) -> Option<StartError> {
    let what = if has_zero(request.program.as_os_str()) {
        What::Path
    } else if request.cwd.is_some_and(|cwd| has_zero(cwd.as_os_str())) {
        What::Directory
    } else {
        return None;
    };
    Some(zero_byte_found(request, &what))
}

fn has_zero(text: &OsStr) -> bool {
    text.as_encoded_bytes().contains(&0)
}

fn zero_byte_found(request: &Request<'_>, what: &What<'_>) -> StartError {
    StartError::ZeroByte { program: request.program.to_owned(), what: what.to_string() }
}

/// One string that is handed to the child. Printed without its value, which may be a secret.
enum What<'a> {
    Path,
    Directory,
    Argument(usize),
    Variable(&'a OsString),
}

impl std::fmt::Display for What<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Path => f.write_str("the path"),
            Self::Directory => f.write_str("the working directory"),
            Self::Argument(number) => write!(f, "argument {number}"),
            Self::Variable(name) => write!(f, "the variable {}", name.display()),
        }
    }
}

/// What the kernel counts: the path, the arguments with the program's name, the variables.
fn strings<'a>(request: &'a Request<'_>) -> impl Iterator<Item = (What<'a>, u64)> {
    let path = request.program.as_os_str().len() as u64;
    let args = request.args.iter().zip(1..);
    let env = request.env.iter();
    [(What::Path, path), (What::Argument(0), path)]
        .into_iter()
        .chain(args.map(|(arg, number)| (What::Argument(number), arg.len() as u64)))
        .chain(env.map(|(name, value)| {
            let bytes = name.len() as u64 + 1 + value.len() as u64;
            (What::Variable(name), bytes)
        }))
}
