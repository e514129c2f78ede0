//! Which binaries stand for which runtime, and how their version is asked and read (names, order and rules: facts of the
//! platform).

use std::sync::LazyLock;

use attune_model::FirstGroup;

/// One runtime that can be detected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    /// Folded runtime name.
    pub name: &'static str,
    /// Its binaries; the first one that is found wins.
    pub binaries: &'static [&'static str],
    /// The arguments that print the version.
    pub version_args: &'static [&'static str],
}

/// In the order of reports and of the runtimes variable. `native` is not here: it is never detected.
pub const PROBES: &[Probe] = &[
    probe("shell", &["bash", "sh"], &["--version"]),
    probe("python", &["python3", "python"], &["--version"]),
    probe("node", &["node", "nodejs"], &["--version"]),
    probe("ruby", &["ruby"], &["--version"]),
    probe("go", &["go"], &["version"]),
    probe(JAVA, &["java"], &["-version"]),
    probe("r", &["Rscript"], &["--version"]),
    probe("perl", &["perl"], &["--version"]),
];

/// Its version stands in quotes.
pub(crate) const JAVA: &str = "java";

const fn probe(name: &'static str, binaries: &'static [&'static str], version_args: &'static [&'static str]) -> Probe {
    Probe { name, binaries, version_args }
}

impl Probe {
    /// The version in what the binary printed: standard output followed by standard error. The exit code does not count.
    pub fn version_in(&self, stdout: &[u8], stderr: &[u8]) -> Option<String> {
        let text = format!("{}\n{}", String::from_utf8_lossy(stdout), String::from_utf8_lossy(stderr));
        let quoted = (self.name == JAVA).then(|| QUOTED.find(&text)).flatten();
        quoted.or_else(|| NUMBERS.find(&text)).map(str::to_owned)
    }
}

static NUMBERS: LazyLock<FirstGroup> = LazyLock::new(|| pattern(r"(?:v|go)?(\d+\.\d+(?:\.\d+)?)"));
static QUOTED: LazyLock<FirstGroup> = LazyLock::new(|| pattern(r#"version\s+"([^"]+)""#));

fn pattern(text: &str) -> FirstGroup {
    FirstGroup::new(text).expect("a constant that the tests use")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(name: &str, stdout: &str, stderr: &str) -> Option<String> {
        let probe = PROBES.iter().find(|probe| probe.name == name).unwrap();
        probe.version_in(stdout.as_bytes(), stderr.as_bytes())
    }

    #[test]
    fn versions_are_read_from_what_interpreters_print() {
        for (name, stdout, stderr, expected) in [
            ("shell", "GNU bash, version 5.2.15(1)-release (x86_64-pc-linux-gnu)\n", "", "5.2.15"),
            ("python", "Python 3.12.1\n", "", "3.12.1"),
            ("python", "", "Python 2.7.18\n", "2.7.18"),
            ("node", "v20.11.0\n", "", "20.11.0"),
            ("ruby", "ruby 3.3.0 (2023-12-25 revision 5124f9ac75) [x86_64-linux]\n", "", "3.3.0"),
            ("go", "go version go1.22.0 linux/amd64\n", "", "1.22.0"),
            ("java", "", "openjdk version \"21.0.1\" 2023-10-17\n", "21.0.1"),
            ("java", "", "java version \"1.8.0_402\"\n", "1.8.0_402"),
            ("java", "", "openjdk version \"17\" 2021-09-14\n", "17"),
            ("java", "java 11.0.2 2019-01-15 LTS\n", "", "11.0.2"),
            ("r", "", "Rscript (R) version 4.3.1 (2023-06-16)\n", "4.3.1"),
            ("perl", "\nThis is perl 5, version 36, subversion 0 (v5.36.0) built for x86_64\n", "", "5.36.0"),
        ] {
            assert_eq!(version(name, stdout, stderr).as_deref(), Some(expected), "{name}");
        }
    }

    #[test]
    fn output_without_a_version_has_none() {
        assert_eq!(version("shell", "", "sh: 0: Illegal option --\n"), None);
    }
}
