//! The table of applets and the choice between them.
//!
//! The exact file name of `argv[0]` decides; any other name leaves it to the first argument. Adding an applet means one
//! file in `applets/` and one entry in [`APPLETS`]; dispatch, `--list` and `--help` read the same table.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use crate::applets;
use crate::call::{Call, did_you_mean, quoted};
use crate::exit::{Exit, Failure};
use crate::init;
use crate::output;

/// The name of the multi-call binary itself.
pub(crate) const PROGRAM: &str = "attune-agents";

/// The version of everything in the binary.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The version as it is found in the file without starting it: a hub reads it from binaries for other architectures.
/// See `attune_artefact::MARKER_PREFIX`.
pub(crate) static MARKER: &str = concat!("attune-agents-version=", env!("CARGO_PKG_VERSION"), ";");

/// One entry of the table.
#[derive(Debug)]
pub(crate) struct Applet {
    /// The subcommand.
    pub(crate) name: &'static str,
    /// Other subcommands for the same.
    pub(crate) aliases: &'static [&'static str],
    /// The file name that chooses it, for those that are installed as programs of their own.
    pub(crate) program: Option<&'static str>,
    /// One line for `--help`; none keeps it out of `--help` and `--list`.
    pub(crate) about: Option<&'static str>,
    /// Whether other people's programs run below it.
    pub(crate) hosts: Hosts,
    /// What it does.
    pub(crate) run: fn(Call) -> Result<Exit, Failure>,
}

/// Whether other people's programs run below an applet: then it has duties as process 1, see [`init`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hosts {
    /// They do.
    UserCode,
    /// They do not.
    Nothing,
}

impl Applet {
    /// The answer to `--version`.
    pub(crate) fn version(&self) -> String {
        format!("{} {VERSION}", self.program.unwrap_or(PROGRAM))
    }

    fn subcommands(&self) -> impl Iterator<Item = &'static str> {
        std::iter::once(self.name).chain(self.aliases.iter().copied())
    }
}

/// Every applet, in the order of `--help`.
static APPLETS: &[Applet] = &[
    Applet {
        name: "dev",
        aliases: &[],
        program: None,
        about: Some("run packs on this machine, with nothing else installed"),
        hosts: Hosts::UserCode,
        run: applets::dev::run,
    },
    Applet {
        name: "run",
        aliases: &[],
        program: None,
        about: Some("run one action on this machine, exactly as a worker would"),
        hosts: Hosts::UserCode,
        run: applets::run::run,
    },
    Applet {
        name: "worker",
        aliases: &["agent"],
        program: Some("attune-agent"),
        about: Some("take executions from the platform and run their actions"),
        hosts: Hosts::UserCode,
        run: applets::worker::run,
    },
    Applet {
        name: "sensor",
        aliases: &[],
        program: Some("attune-sensor-agent"),
        about: Some("keep the platform's sensor processes alive"),
        hosts: Hosts::UserCode,
        run: applets::sensor::run,
    },
    Applet {
        name: "hub",
        aliases: &[],
        program: None,
        about: Some("serve the API, match rules and schedule, where the platform's own services are not"),
        hosts: Hosts::Nothing,
        run: applets::hub::run,
    },
    Applet {
        name: "timer-sensor",
        aliases: &[],
        program: Some("attune-core-timer-sensor"),
        about: Some("emit the events of timers; started by a sensor host"),
        hosts: Hosts::Nothing,
        run: applets::timer_sensor::run,
    },
    Applet {
        name: "migrate",
        aliases: &[],
        program: None,
        about: Some("make the database schema of a self-contained installation"),
        hosts: Hosts::Nothing,
        run: applets::migrate::run,
    },
    Applet {
        name: "packs",
        aliases: &[],
        program: None,
        about: Some("check pack folders, show what is in them, or load them into an installation"),
        hosts: Hosts::Nothing,
        run: applets::packs::run,
    },
    Applet {
        name: "health",
        aliases: &[],
        program: None,
        about: Some("ask an agent on this machine how it is; for health checks of containers"),
        hosts: Hosts::Nothing,
        run: applets::health::run,
    },
    Applet {
        name: "doctor",
        aliases: &[],
        program: None,
        about: Some("look at everything that an agent needs here, and say what to do"),
        hosts: Hosts::Nothing,
        run: applets::doctor::run,
    },
    Applet {
        name: "detect",
        aliases: &[],
        program: None,
        about: Some("report the runtimes found on this system"),
        hosts: Hosts::Nothing,
        run: applets::detect::run,
    },
    Applet {
        name: "install",
        aliases: &[],
        program: None,
        about: Some("copy this program and its links into a volume, for other containers"),
        hosts: Hosts::Nothing,
        run: applets::install::run,
    },
    Applet {
        name: "fetch",
        aliases: &[],
        program: None,
        about: Some("download the agents from a hub or the platform's API, and install them"),
        hosts: Hosts::Nothing,
        run: applets::fetch::run,
    },
    Applet {
        name: "config",
        aliases: &[],
        program: None,
        about: Some("check the configuration, or print the reference of all keys"),
        hosts: Hosts::Nothing,
        run: applets::config::run,
    },
    Applet {
        name: "http-request",
        aliases: &[],
        program: None,
        about: Some("make one HTTP request, described as JSON on standard input"),
        hosts: Hosts::Nothing,
        run: applets::http_request::run,
    },
    Applet {
        name: "notify",
        aliases: &[],
        program: None,
        about: Some("say how a sensor is to the host that started it, for sensors that are scripts"),
        hosts: Hosts::Nothing,
        run: applets::notify::run,
    },
    Applet {
        name: "attune",
        aliases: &[],
        program: Some("attune"),
        about: None,
        hosts: Hosts::Nothing,
        run: applets::elsewhere::run,
    },
    Applet {
        name: "attune-mcp",
        aliases: &[],
        program: Some("attune-mcp"),
        about: None,
        hosts: Hosts::Nothing,
        run: applets::elsewhere::run,
    },
    Applet {
        name: attune_process::EXEC_APPLET,
        aliases: &[],
        program: None,
        about: None,
        hosts: Hosts::Nothing,
        run: applets::exec::run,
    },
    Applet {
        name: attune_process::INIT_APPLET,
        aliases: &[],
        program: None,
        about: None,
        hosts: Hosts::Nothing,
        run: applets::init::run,
    },
    Applet {
        name: attune_process::GUARD_APPLET,
        aliases: &[],
        program: None,
        about: None,
        hosts: Hosts::Nothing,
        run: applets::guard::run,
    },
    Applet {
        name: "__panic",
        aliases: &[],
        program: None,
        about: None,
        hosts: Hosts::Nothing,
        run: applets::panic::run,
    },
];

/// What the command line asks for.
#[derive(Debug)]
pub(crate) enum Request {
    /// An applet.
    Run(Call),
    /// The list of applets, for people.
    Help,
    /// The list of applets, for programs.
    List,
    /// The version.
    Version,
}

impl Request {
    /// Does it.
    pub(crate) fn answer(self) -> Result<Exit, Failure> {
        match self {
            Self::Run(call) if call.applet.hosts == Hosts::Nothing => (call.applet.run)(call),
            Self::Run(call) => {
                let call = init::enter(call)?;
                let is_by_name = call.applet.program == Some(&*call.command);
                (call.applet.run)(call)
                    .map_err(|failure| if is_by_name { failure.told_as_the_platform() } else { failure })
            }
            Self::Help => output::print(&help()),
            Self::List => output::print(&list()),
            Self::Version => output::print(&format!("{PROGRAM} {VERSION}\n")),
        }
    }
}

/// Chooses by `argv` alone.
pub(crate) fn resolve(argv: &[OsString]) -> Result<Request, Failure> {
    let called = argv.first().and_then(|path| Path::new(path).file_name()).map(without_architecture);
    let by_name = APPLETS.iter().find(|applet| applet.program.is_some_and(|program| called == Some(program.as_ref())));
    if let (Some(applet), Some(program)) = (by_name, by_name.and_then(|applet| applet.program)) {
        let arguments = argv.iter().skip(1).cloned().collect();
        return Ok(Request::Run(Call { applet, command: program.to_owned(), arguments }));
    }
    let Some(first) = argv.get(1) else {
        return Err(Failure::usage(format!("no applet given\n\n{}", help().trim_end())));
    };
    let Some(name) = first.to_str() else {
        return Err(unknown(&quoted(first), ""));
    };
    match name {
        "--help" | "-h" | "help" => return Ok(Request::Help),
        "--list" => return Ok(Request::List),
        "--version" | "-V" => return Ok(Request::Version),
        _ => {}
    }
    let Some(applet) = APPLETS.iter().find(|applet| applet.subcommands().any(|subcommand| subcommand == name)) else {
        return Err(unknown(&format!("`{name}`"), &suggestion(name)));
    };
    let arguments = argv.iter().skip(2).cloned().collect();
    Ok(Request::Run(Call { applet, command: format!("{PROGRAM} {name}"), arguments }))
}

/// `attune-agent-aarch64` is how a hub calls the file that is handed out as `attune-agent`.
fn without_architecture(name: &OsStr) -> &OsStr {
    let architecture = name.to_str().and_then(|name| name.strip_suffix(std::env::consts::ARCH)?.strip_suffix('-'));
    architecture.map_or(name, OsStr::new)
}

fn unknown(name: &str, hint: &str) -> Failure {
    Failure::usage(format!("unknown applet {name}{hint}\nRun `{PROGRAM} --help` for more information."))
}

fn suggestion(name: &str) -> String {
    if let Some(applet) = APPLETS.iter().find(|applet| applet.program == Some(name)) {
        return format!(", did you mean `{}`?", applet.name);
    }
    let flags = ["--help", "--list", "--version"].into_iter().filter(|_| name.starts_with('-'));
    did_you_mean(name, shown().flat_map(|(applet, _)| applet.subcommands()).chain(flags))
}

fn shown() -> impl Iterator<Item = (&'static Applet, &'static str)> {
    APPLETS.iter().filter_map(|applet| Some((applet, applet.about?)))
}

fn help() -> String {
    let entries = shown().map(|(applet, about)| {
        let aliases = applet.aliases.iter().map(|alias| format!("  {:<14} also `{alias}`\n", ""));
        let program = applet.program.map(|program| format!("  {:<14} also as the program `{program}`\n", ""));
        let lines: String = aliases.chain(program).collect();
        format!("  {:<14} {about}\n{lines}", applet.name)
    });
    let entries: String = entries.collect();
    format!(
        "Usage: {PROGRAM} APPLET [ARGUMENTS]\n   or: a link to it with the name of a program below\n\n\
         Workers and sensor hosts for Attune, and what packs need to be tried out.\n\nApplets:\n{entries}\n\
         Options:\n  --list         print each applet and, after it, the program that it is\n  \
         --help         print this; after an applet: its own help\n  \
         --version      print the version; after an applet: of that program\n"
    )
}

fn list() -> String {
    let lines = shown().map(|(applet, _)| match applet.program {
        Some(program) => format!("{} {program}\n", applet.name),
        None => format!("{}\n", applet.name),
    });
    lines.collect()
}
