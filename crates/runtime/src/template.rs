//! The placeholders of `execution_config` (names: facts of the platform). One pass: what a value contains is not looked at
//! again.

use std::ffi::{OsStr, OsString};
use std::path::Path;

/// The values.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Templates<'a> {
    /// `{pack_dir}`.
    pub(crate) pack_dir: &'a Path,
    /// `{env_dir}`.
    pub(crate) env_dir: &'a Path,
    /// `{interpreter}`.
    pub(crate) interpreter: Option<&'a Path>,
    /// `{manifest_path}`, when dependencies are configured.
    pub(crate) manifest: Option<&'a Path>,
}

impl Templates<'_> {
    /// `text` with its placeholders filled; unknown ones and those without a value stay as they are.
    pub(crate) fn fill(&self, text: &str) -> OsString {
        let mut filled = OsString::new();
        let mut rest = text;
        while let Some(at) = rest.find('{') {
            let (before, from) = rest.split_at(at);
            filled.push(before);
            let (value, after) = self.placeholder(from).unwrap_or((OsStr::new("{"), &from[1..]));
            filled.push(value);
            rest = after;
        }
        filled.push(rest);
        filled
    }

    fn placeholder<'t>(&self, from: &'t str) -> Option<(&OsStr, &'t str)> {
        let values = [
            ("{pack_dir}", Some(self.pack_dir)),
            ("{env_dir}", Some(self.env_dir)),
            ("{interpreter}", self.interpreter),
            ("{manifest_path}", self.manifest),
        ];
        values.into_iter().find_map(|(name, value)| Some((value?.as_os_str(), from.strip_prefix(name)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_filled_once_and_others_stay() {
        let templates = Templates {
            pack_dir: Path::new("/packs/{env_dir}"),
            env_dir: Path::new("/envs/demo"),
            interpreter: None,
            manifest: Some(Path::new("/packs/demo/requirements.txt")),
        };
        let filled = templates.fill("{pack_dir}/lib:{env_dir}{env_dir} {{x} {interpreter} {manifest_path} {");
        let expected = "/packs/{env_dir}/lib:/envs/demo/envs/demo {{x} {interpreter} /packs/demo/requirements.txt {";
        assert_eq!(filled, expected);
    }
}
