//! Where the interpreter of a configuration is in this image.

use std::path::{Path, PathBuf};

use attune_model::execution_config::ExecutionConfig;

use crate::host::Host;
use crate::places::is_executable;
use crate::probe_table::PROBES;

/// The binary as configured; it is not in this image.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NotFound(pub(super) String);

/// None for code that is executed itself.
///
/// Where the configured binary does not exist, another name of the same runtime will do: an image may have only `sh` and
/// not `/bin/bash`, only `nodejs` and not `node`. A name with a version in it, such as `python3.12`, has no substitute.
pub(super) fn locate(
    config: &ExecutionConfig,
    names: &[String],
    pack_dir: &Path,
    host: &Host,
) -> Result<Option<PathBuf>, NotFound> {
    if config.is_native() {
        return Ok(None);
    }
    let binary = config.interpreter.binary.as_str();
    let exact = if binary.contains('/') { by_path(&pack_dir.join(binary), host) } else { by_name(binary, host) };
    let found = exact.or_else(|| substitutes(binary, names).find_map(|name| by_name(name, host)));
    found.map(Some).ok_or_else(|| NotFound(binary.to_owned()))
}

fn by_path(path: &Path, host: &Host) -> Option<PathBuf> {
    if !is_executable(path) {
        return None;
    }
    host.resolve(path.to_owned()).map(|found| found.program)
}

fn by_name(name: &str, host: &Host) -> Option<PathBuf> {
    host.find(name).map(|found| found.program)
}

fn substitutes<'a>(binary: &'a str, names: &'a [String]) -> impl Iterator<Item = &'static str> + 'a {
    let file_name = binary.rsplit('/').next().unwrap_or(binary);
    PROBES
        .iter()
        .filter(move |probe| names.iter().any(|name| name == probe.name) && probe.binaries.contains(&file_name))
        .flat_map(|probe| probe.binaries.iter().copied())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests_support::program;

    fn located(binary: &str, runtime: &str, present: &[&str]) -> Result<Option<String>, NotFound> {
        let dir = tempfile::tempdir().unwrap();
        for name in present {
            program(&dir.path().join(name), "");
        }
        let host = Host::new(vec![("PATH".into(), dir.path().into())]).path_only();
        let mut config = ExecutionConfig::default();
        config.interpreter.binary = binary.to_owned();
        let found = locate(&config, &[runtime.to_owned()], Path::new("/packs/demo"), &host)?;
        Ok(found.map(|path| path.file_name().unwrap().to_string_lossy().into_owned()))
    }

    #[test]
    fn a_shell_or_node_under_its_other_name_will_do() {
        assert_eq!(located("/nowhere/bash", "shell", &["sh"]), Ok(Some("sh".into())));
        assert_eq!(located("/nowhere/bash", "shell", &["sh", "bash"]), Ok(Some("bash".into())));
        assert_eq!(located("node", "node", &["nodejs"]), Ok(Some("nodejs".into())));
    }

    #[test]
    fn a_version_in_the_name_is_meant() {
        assert_eq!(located("python3.12", "python", &["python3"]), Err(NotFound("python3.12".into())));
        assert_eq!(located("bash", "python", &["sh"]), Err(NotFound("bash".into())));
    }

    #[test]
    fn native_code_needs_none() {
        assert_eq!(located("", "native", &[]), Ok(None));
    }
}
