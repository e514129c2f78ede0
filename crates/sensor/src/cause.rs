//! Why a sensor ended, as far as its end and its last words tell, and what would help.

/// What is known about an end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct End<'a> {
    pub(crate) exit_code: Option<i32>,
    pub(crate) signal: Option<i32>,
    /// What it had when the kernel killed it because memory was out; none when it did not.
    pub(crate) out_of_memory: Option<u64>,
    /// How many processes of this host the kernel killed for that reason meanwhile, where it says so.
    pub(crate) oom_kills: Option<u64>,
    /// The last lines of standard error.
    pub(crate) stderr: &'a str,
}

const SIGKILL: i32 = 9;
const SIGSEGV: i32 = 11;
const SIGPIPE: i32 = 13;
/// Codes of `sysexits.h`, by which our own sensors and many others say what is wrong.
const NO_PERMISSION: i32 = 77;
const CONFIGURATION: i32 = 78;
/// Codes of shells.
const NOT_EXECUTABLE: i32 = 126;
const NOT_FOUND: i32 = 127;

/// Words before the name of what is missing, what kind of thing that is, and where it is to be named.
const MISSING: [(&str, &str, &str); 5] = [
    ("No module named ", "Python module", "add it to the pack's requirements.txt"),
    ("Cannot find module ", "Node.js module", "add it to the pack's package.json"),
    ("Cannot find package ", "Node.js package", "add it to the pack's package.json"),
    ("cannot load such file -- ", "Ruby library", "add it to the pack's Gemfile"),
    ("error while loading shared libraries: ", "shared library", "this image does not have it"),
];

const OUT_OF_MEMORY: [&str; 4] =
    ["MemoryError", "JavaScript heap out of memory", "Cannot allocate memory", "failed to allocate memory"];

const REFUSED: [&str; 5] = ["401 Unauthorized", "HTTP Error 401", "status 401", "401 Client Error", "Unauthorized"];

/// One line for people; none when nothing is known beyond the code or signal itself.
pub(crate) fn hint(end: End<'_>) -> Option<String> {
    let End { exit_code, signal, out_of_memory, oom_kills, stderr } = end;
    if let Some(bytes) = out_of_memory {
        let peak = bytes >> 20;
        return Some(format!(
            "out of memory: the kernel killed it when it had {peak} MiB; give the host or the sensor more"
        ));
    }
    if let Some(missing) = missing(stderr) {
        return Some(missing);
    }
    if OUT_OF_MEMORY.iter().any(|words| stderr.contains(words)) {
        return Some("out of memory: it could not get what it asked for; give the host or the sensor more".to_owned());
    }
    let by_code = match (exit_code, signal) {
        (Some(CONFIGURATION), _) => "bad configuration: the sensor refused its settings or the parameters of its rules",
        (Some(NO_PERMISSION), _) => "not allowed: the sensor may not do what it has to",
        (Some(NOT_EXECUTABLE), _) => "not executable: a program that it calls could not be executed in this image",
        (Some(NOT_FOUND), _) => "missing program: a program that it calls is not in this image",
        (Some(0), _) => "it ended by itself without an error; a sensor has to run until it is stopped",
        (_, Some(SIGKILL)) if oom_kills == Some(0) => "killed from outside, and not for lack of memory",
        (_, Some(SIGKILL)) => "killed from outside, or by the kernel when memory was out",
        (_, Some(SIGSEGV)) => "it crashed in native code",
        (_, Some(SIGPIPE)) => "it wrote to a closed pipe or connection and did not expect that",
        _ if REFUSED.iter().any(|words| stderr.contains(words)) => {
            "not authorised: the API refused its token; a new start brings a new one"
        }
        _ => return None,
    };
    Some(by_code.to_owned())
}

/// The last thing that was missing.
fn missing(stderr: &str) -> Option<String> {
    stderr.lines().rev().find_map(|line| {
        MISSING.iter().find_map(|(words, kind, advice)| {
            let (_, rest) = line.split_once(words)?;
            let marks = ['\'', '"', '`'];
            let name = match rest.strip_prefix(marks) {
                Some(quoted) => quoted.split(marks).next()?,
                None => rest.split([':', ',', ' ']).next()?,
            };
            (!name.is_empty()).then(|| format!("missing dependency: {kind} {name}; {advice}"))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(exit_code: Option<i32>, signal: Option<i32>, stderr: &str) -> String {
        hint(End { exit_code, signal, out_of_memory: None, oom_kills: None, stderr }).unwrap_or_default()
    }

    #[test]
    fn what_interpreters_print_about_missing_modules_is_understood() {
        let python = "Traceback (most recent call last):\n  File \"x.py\", line 1\nModuleNotFoundError: No module named 'requests'";
        assert_eq!(
            of(Some(1), None, python),
            "missing dependency: Python module requests; add it to the pack's requirements.txt"
        );
        let node = "Error: Cannot find module 'axios'\nRequire stack:\n- /x.js";
        assert!(of(Some(1), None, node).starts_with("missing dependency: Node.js module axios;"));
        let ruby = "in `require': cannot load such file -- bunny (LoadError)";
        assert!(of(Some(1), None, ruby).contains("Ruby library bunny"));
        for (stderr, name) in [
            (
                "Error [ERR_MODULE_NOT_FOUND]: Cannot find package 'got' imported from /packs/demo/sensors/x.mjs",
                "Node.js package got;",
            ),
            ("ModuleNotFoundError: No module named 'yaml.x'; 'yaml' is not a package", "Python module yaml.x;"),
            ("ImportError: No module named requests", "Python module requests;"),
            (ruby, "Ruby library bunny;"),
        ] {
            assert!(of(Some(1), None, stderr).contains(name), "{}", of(Some(1), None, stderr));
        }
        let linker = "app: error while loading shared libraries: libfoo.so.1: cannot open shared object file";
        assert!(of(Some(127), None, linker).contains("shared library libfoo.so.1;"));
    }

    #[test]
    fn codes_signals_and_words_are_told_apart() {
        for (code, signal, stderr, beginning) in [
            (Some(78), None, "", "bad configuration"),
            (Some(77), None, "", "not allowed"),
            (Some(127), None, "sh: jq: not found", "missing program"),
            (Some(126), None, "", "not executable"),
            (Some(0), None, "bye", "it ended by itself"),
            (None, Some(9), "", "killed from outside"),
            (None, Some(11), "", "it crashed"),
            (Some(1), None, "urllib.error.HTTPError: HTTP Error 401: Unauthorized", "not authorised"),
            (Some(1), None, "MemoryError", "out of memory"),
            (None, Some(6), "FATAL ERROR: JavaScript heap out of memory", "out of memory"),
        ] {
            let hint = of(code, signal, stderr);
            assert!(hint.starts_with(beginning), "{code:?} {signal:?} {stderr}: {hint}");
        }
        assert_eq!(of(Some(3), None, "odd"), "");
    }

    #[test]
    fn what_the_kernel_counts_decides_about_memory() {
        let killed = End { exit_code: None, signal: Some(9), out_of_memory: None, oom_kills: Some(0), stderr: "" };
        assert_eq!(hint(killed).unwrap(), "killed from outside, and not for lack of memory");
        let out = End { out_of_memory: Some(250 << 20), oom_kills: Some(1), ..killed };
        assert!(hint(out).unwrap().starts_with("out of memory: the kernel killed it when it had 250 MiB"));
    }
}
