//! Runtime names: many spellings, one folded form. Which spellings belong together is a fact of the platform.

use std::collections::BTreeSet;

use crate::rows::Runtime;

/// What the platform knows about one kind of runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownRuntime {
    /// The folded name.
    pub name: &'static str,
    /// Every spelling, the folded one first.
    pub aliases: &'static [&'static str],
    /// Extension of its code files, with the dot.
    pub file_extension: Option<&'static str>,
}

/// The runtimes that have more than one spelling or a customary file extension.
pub const KNOWN: &[KnownRuntime] = &[
    known("shell", &["shell", "bash", "sh"], Some(".sh")),
    known("python", &["python", "python3"], Some(".py")),
    known("node", &["node", "nodejs", "node.js"], Some(".js")),
    known("ruby", &["ruby", "rb"], Some(".rb")),
    known("go", &["go", "golang"], Some(".go")),
    known("java", &["java", "jdk", "openjdk"], Some(".java")),
    known("r", &["r", "rscript"], Some(".R")),
    known("perl", &["perl", "perl5"], Some(".pl")),
    known(NATIVE, &[NATIVE, "builtin", "standalone"], None),
];

/// Code that is executed itself. Never detected, only named.
pub const NATIVE: &str = "native";

const fn known(
    name: &'static str,
    aliases: &'static [&'static str],
    file_extension: Option<&'static str>,
) -> KnownRuntime {
    KnownRuntime { name, aliases, file_extension }
}

/// The entry of [`KNOWN`] that has this spelling.
pub fn lookup(name: &str) -> Option<&'static KnownRuntime> {
    let name = name.trim();
    KNOWN.iter().find(|runtime| runtime.aliases.iter().any(|alias| alias.eq_ignore_ascii_case(name)))
}

/// The folded form: `NodeJS` and `node.js` are `node`; an unknown name is only trimmed and lower-cased.
pub fn fold(name: &str) -> String {
    lookup(name).map_or_else(|| name.trim().to_lowercase(), |runtime| runtime.name.to_owned())
}

/// The folded names that a runtime answers to: its aliases and its display name.
pub fn names_of(runtime: &Runtime) -> BTreeSet<String> {
    runtime
        .aliases
        .iter()
        .chain(std::iter::once(&runtime.name))
        .map(|name| fold(name))
        .filter(|name| !name.is_empty())
        .collect()
}

/// Whether one of the advertised names, in any spelling, is one that the runtime answers to.
pub fn is_advertised(runtime: &Runtime, advertised: &[String]) -> bool {
    let names = names_of(runtime);
    advertised.iter().any(|name| names.contains(&fold(name)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::RuntimeId;

    fn runtime(name: &str, aliases: &[&str]) -> Runtime {
        Runtime {
            id: RuntimeId(1),
            r#ref: format!("core.{}", name.to_lowercase()),
            pack: None,
            pack_ref: None,
            description: None,
            name: name.into(),
            aliases: aliases.iter().map(|&alias| alias.into()).collect(),
            distributions: json!({}),
            execution_config: json!({}),
        }
    }

    #[test]
    fn every_spelling_folds_to_the_first_one() {
        for known in KNOWN {
            assert_eq!(known.aliases[0], known.name);
            for alias in known.aliases {
                assert_eq!(fold(&format!(" {} ", alias.to_uppercase())), known.name);
            }
        }
        assert_eq!(fold(" Deno "), "deno");
    }

    #[test]
    fn a_runtime_is_recognised_by_any_spelling_of_its_name_or_aliases() {
        let node = runtime("Node.js", &[]);
        assert!(is_advertised(&node, &["python".into(), "NodeJS".into()]));
        assert!(!is_advertised(&node, &["python".into()]));
        let own = runtime("Deno", &["deno-2"]);
        assert!(is_advertised(&own, &["DENO-2".into()]));
        assert!(!is_advertised(&own, &[]));
    }
}
