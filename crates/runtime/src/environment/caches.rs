//! Where package managers keep what they load, during a build whose home folder cannot be written.
//!
//! They insist on such a place, in `HOME` unless they are told otherwise; in a container with a read-only root, or for a
//! user without a home, there is none.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use attune_process::may_write;

use super::generation::Generation;
use crate::host::Host;

/// What says where, with the place below the folder of the build. pip, Go, and node-gyp follow the first one.
const CACHES: &[(&str, &str)] = &[
    ("XDG_CACHE_HOME", "cache"),
    ("npm_config_cache", "npm"),
    ("BUNDLE_USER_HOME", "bundle"),
    ("PERL_CPANM_HOME", "cpanm"),
];

/// The folder of one build. It goes with the build: what it holds belongs to nobody's home, and its user may be another
/// than that of the next build.
pub(super) fn folder(generation: &Generation) -> PathBuf {
    let mut name = generation.path.clone().into_os_string();
    name.push(".cache");
    PathBuf::from(name)
}

/// The variables for the commands of a build; none when there is a home folder for all this. What the operator has set
/// stays, and so does a home that can at least be read: settings are in it.
pub(super) fn variables(host: &Host, folder: &Path) -> Vec<(OsString, OsString)> {
    let home = host.home().filter(|home| home.is_dir());
    if home.is_some_and(may_write) {
        return Vec::new();
    }
    let missing_home = home.is_none().then(|| ("HOME".into(), folder.into()));
    let unset = CACHES.iter().filter(|(name, _)| host.var(name).is_none_or(OsStr::is_empty));
    let caches = unset.map(|(name, place)| (OsString::from(name), folder.join(place).into_os_string()));
    missing_home.into_iter().chain(caches).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(env: &[(&str, &str)]) -> Vec<String> {
        let host = Host::new(env.iter().map(|&(name, value)| (name.into(), value.into())).collect());
        let variables = variables(&host, Path::new("/envs/.x"));
        variables.into_iter().map(|(name, _)| name.into_string().unwrap()).collect()
    }

    #[test]
    fn a_home_that_can_be_written_is_used_as_it_is() {
        let home = tempfile::tempdir().unwrap();
        assert_eq!(names(&[("HOME", home.path().to_str().unwrap())]), [""; 0]);
    }

    #[test]
    fn a_read_only_home_is_kept_and_one_that_is_missing_is_replaced() {
        let caches = ["XDG_CACHE_HOME", "npm_config_cache", "BUNDLE_USER_HOME", "PERL_CPANM_HOME"];
        assert_eq!(names(&[("HOME", "/proc/sys")]), caches);
        assert_eq!(names(&[("HOME", "/nonexistent")]), [&["HOME"], &caches[..]].concat());
        assert_eq!(names(&[])[0], "HOME");
    }

    #[test]
    fn what_the_operator_has_set_stays() {
        assert!(!names(&[("npm_config_cache", "/cache")]).contains(&"npm_config_cache".to_owned()));
    }
}
