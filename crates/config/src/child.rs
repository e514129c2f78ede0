//! The variables of this process that user code may see.
//!
//! A child's environment is built from nothing: this allow list, then what the platform promises, then what the runtime
//! adds. The agent's own settings and secrets all start with `ATTUNE_` and never pass, whatever is asked for.

use std::ffi::OsString;

use crate::Source;

/// Names that always pass, if they are set.
pub const PASSED_NAMES: &[&str] = &[
    "PATH",
    "HOME",
    "LANG",
    "LANGUAGE",
    "TZ",
    "TMPDIR",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "CURL_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
    "NODE_EXTRA_CA_CERTS",
    "PIP_CERT",
];

/// Beginnings of names that always pass.
pub const PASSED_PREFIXES: &[&str] = &["LC_"];

/// The beginning of names that never pass.
pub const OWN_PREFIX: &str = "ATTUNE_";

/// What of `source` a child gets: the allow list and the names in `pass`, where a `*` at the end stands for any ending.
pub fn child_env(source: &dyn Source, pass: &[String]) -> Vec<(OsString, OsString)> {
    source.all().into_iter().filter(|(name, _)| name.to_str().is_some_and(|name| passes(name, pass))).collect()
}

fn passes(name: &str, pass: &[String]) -> bool {
    if name.starts_with(OWN_PREFIX) {
        return false;
    }
    PASSED_NAMES.contains(&name)
        || PASSED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        || pass.iter().any(|entry| match entry.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix),
            None => name == entry,
        })
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;
    use crate::MapSource;

    fn names(source: &MapSource, pass: &[&str]) -> Vec<String> {
        let pass: Vec<String> = pass.iter().map(|name| (*name).to_owned()).collect();
        child_env(source, &pass).into_iter().filter_map(|(name, _)| name.into_string().ok()).collect()
    }

    #[test]
    fn only_listed_names_reach_a_child() {
        let source = MapSource::default()
            .with("PATH", "/bin")
            .with("LC_ALL", "C")
            .with("https_proxy", "http://proxy:3128")
            .with("AWS_SECRET_ACCESS_KEY", "x")
            .with("LD_PRELOAD", "/evil.so");
        assert_eq!(names(&source, &[]), ["LC_ALL", "PATH", "https_proxy"]);
        assert_eq!(names(&source, &["AWS_*"]), ["AWS_SECRET_ACCESS_KEY", "LC_ALL", "PATH", "https_proxy"]);
    }

    #[test]
    fn the_agents_own_variables_never_reach_a_child() {
        let source =
            MapSource::default().with("ATTUNE__SECURITY__JWT_SECRET", "x").with("ATTUNE_MQ_URL", "x").with("CUDA", "1");
        assert_eq!(names(&source, &["*", "ATTUNE_MQ_URL"]), ["CUDA"]);
    }

    #[test]
    fn values_that_are_not_utf_8_pass_unchanged_and_such_names_do_not() {
        let odd = OsString::from_vec(vec![b'/', 0xff]);
        let source = MapSource::default().with("HOME", odd.clone()).with(odd.clone(), "x");
        assert_eq!(child_env(&source, &["*".to_owned()]), [(OsString::from("HOME"), odd)]);
    }
}
