//! Why a child did not start. Each reason names the path and says what to do.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Why a child did not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// A bare name was given.
    #[error("{program} is a name and not a path; give the path of the program", program = program.display())]
    NotAPath {
        /// What was given.
        program: PathBuf,
    },
    /// There is no such file.
    #[error("{program} does not exist; check the path, and that its package is installed in this image", program = program.display())]
    NotFound {
        /// The path that was tried.
        program: PathBuf,
    },
    /// The file is there and is not meant to be run.
    #[error("{program} cannot be executed: {reason}", program = program.display())]
    NotExecutable {
        /// The file: the program, or the interpreter that its first line names.
        program: PathBuf,
        /// What is wrong with it and what to do.
        reason: &'static str,
    },
    /// The first line of a script names an interpreter that is not there.
    #[error("{program} asks for the interpreter {interpreter:?} in its first line, which does not exist here; {advice}", program = program.display())]
    NoSuchInterpreter {
        /// The script.
        program: PathBuf,
        /// What its first line says.
        interpreter: String,
        /// What to do.
        advice: &'static str,
    },
    /// The program was built for another kind of processor.
    #[error("{program} is a program for {found}, this machine is {expected}; use the build for this machine", program = program.display())]
    WrongArchitecture {
        /// The program.
        program: PathBuf,
        /// What it was built for.
        found: String,
        /// What this machine runs.
        expected: &'static str,
    },
    /// The dynamic loader of the program is not there.
    #[error("{program} needs the dynamic loader {loader}, which does not exist here; {advice}", program = program.display())]
    LoaderMissing {
        /// The program.
        program: PathBuf,
        /// The loader that it names.
        loader: String,
        /// What to do.
        advice: &'static str,
    },
    /// The kernel forbids it although the file looks executable.
    #[error("not allowed to execute {program}; check the folders above it for search permission, its owner, and its file system for noexec", program = program.display())]
    Permission {
        /// The program.
        program: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The working directory cannot be entered.
    #[error("cannot enter the working directory {path} of {program}", path = path.display(), program = program.display())]
    WorkingDirectory {
        /// The program.
        program: PathBuf,
        /// The directory.
        path: PathBuf,
        /// Why it cannot be entered.
        source: io::Error,
    },
    /// Somebody still has the program open for writing.
    #[error("{program} is still being written by another process; start it again when that is done", program = program.display())]
    TextFileBusy {
        /// The program.
        program: PathBuf,
    },
    /// One argument or variable is longer than the kernel allows for one string.
    #[error("{what} of {program} has {bytes} bytes, the kernel allows {limit} for one string; hand it over by standard input or a file", program = program.display())]
    StringTooLong {
        /// The program.
        program: PathBuf,
        /// Which one: the number of an argument or the name of a variable.
        what: String,
        /// Its size.
        bytes: u64,
        /// The limit, without the byte that ends the string.
        limit: u64,
    },
    /// Arguments and environment together are longer than the kernel allows.
    #[error("arguments and environment of {program} have {bytes} bytes together, the kernel allows about {limit}; hand data over by standard input or a file", program = program.display())]
    ArgumentsTooLong {
        /// The program.
        program: PathBuf,
        /// Their size.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// An argument or a variable contains a zero byte, which ends a string.
    #[error("{what} of {program} contains a zero byte; hand it over by standard input or a file", program = program.display())]
    ZeroByte {
        /// The program.
        program: PathBuf,
        /// Which one: the number of an argument, the name of a variable, the working directory.
        what: String,
    },
    /// No memory for another process.
    #[error("no memory to start {program}; raise the memory limit or run less at a time", program = program.display())]
    NoMemory {
        /// The program.
        program: PathBuf,
    },
    /// The limit of processes is reached.
    #[error("no more processes allowed when starting {program}; raise the pids limit or ulimit -u, or run less at a time", program = program.display())]
    ProcessLimit {
        /// The program.
        program: PathBuf,
    },
    /// The limit of open files is reached.
    #[error("no more open files allowed when starting {program}; raise ulimit -n or run less at a time", program = program.display())]
    FileLimit {
        /// The program.
        program: PathBuf,
        /// Which limit.
        source: io::Error,
    },
    /// The null device, which stands for an unused stream, cannot be opened.
    #[error("cannot open /dev/null to start {program}; this container lacks the usual devices", program = program.display())]
    NullDevice {
        /// The program.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The binary that sets the child up cannot be started.
    #[error("cannot start {launcher}, which sets {program} up; /proc must be mounted and executable", launcher = launcher.display(), program = program.display())]
    Launcher {
        /// The program.
        program: PathBuf,
        /// What sets it up.
        launcher: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A part of its policy without which it must not run was refused.
    #[error("cannot {step} for {program}; give the agent the right to do so, or change the setting", program = program.display())]
    SetUp {
        /// The program.
        program: PathBuf,
        /// What was refused.
        step: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The child started and could not be watched; it has been killed.
    #[error("{program} was started and ended at once, because it could not be watched", program = program.display())]
    Watch {
        /// The program.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Anything else.
    #[error("cannot start {program}", program = program.display())]
    Other {
        /// The program.
        program: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

impl PartialEq for StartError {
    /// The same kind with the same values.
    fn eq(&self, other: &Self) -> bool {
        // An io::Error has no comparison of its own.
        format!("{self:?}") == format!("{other:?}")
    }
}

impl Eq for StartError {}
