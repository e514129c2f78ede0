//! What an agent says it can run: the operator's list, else what was detected, else the configuration, else what the
//! runtimes' own verification finds (keys and order of the sources: facts of the platform).

use std::collections::{BTreeMap, BTreeSet};

use attune_model::JsonMap;
use attune_model::capabilities::DetectedInterpreter;
use attune_model::order;
use attune_model::rows::{Runtime, RuntimeVersion};
use attune_model::runtime_name::{NATIVE, fold, is_advertised, lookup, names_of};
use attune_model::version::Version;
use serde_json::Value;

use crate::detect::Detected;
use crate::probe_table::PROBES;

/// Everything the decision looks at.
#[derive(Debug, Clone, Copy)]
pub struct Sources<'a> {
    /// `ATTUNE_WORKER_RUNTIMES` or `ATTUNE_SENSOR_RUNTIMES`, for warnings.
    pub variable: &'a str,
    /// Its value, when it is set; an empty one is a choice too.
    pub override_value: Option<&'a str>,
    /// What this machine has.
    pub detected: &'a [Detected],
    /// `worker.capabilities` or `sensor.capabilities` of the configuration.
    pub configured: &'a JsonMap,
}

/// Where the list of runtimes came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tier {
    /// The operator's variable.
    Override,
    /// Detection.
    Detected,
    /// The configuration.
    Configured,
    /// Nowhere yet: the runtimes of the database are to be verified, see [`Advertised::verified`].
    Database,
}

/// The part of the capabilities that is about runtimes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advertised {
    /// Where the list came from.
    pub tier: Tier,
    /// Folded names, without duplicates.
    pub runtimes: Vec<String>,
    /// Folded name to versions, newest first.
    pub runtime_versions: BTreeMap<String, Vec<String>>,
    /// The interpreters of those runtimes.
    pub detected_interpreters: Vec<DetectedInterpreter>,
    /// What the agent's children see under the variable's name; none when it stays unset.
    pub handed_on: Option<String>,
    /// What the operator should know.
    pub warnings: Vec<String>,
}

/// Decides what to advertise.
pub fn advertise(sources: &Sources<'_>) -> Advertised {
    if let Some(value) = sources.override_value {
        let runtimes = folded(value.split(','));
        let warnings = warnings_about(value, &runtimes, sources);
        return Advertised { handed_on: Some(value.to_owned()), warnings, ..of(Tier::Override, runtimes, sources) };
    }
    if !sources.detected.is_empty() {
        let runtimes = folded(sources.detected.iter().map(|detected| detected.name));
        return Advertised { handed_on: Some(runtimes.join(",")), ..of(Tier::Detected, runtimes, sources) };
    }
    let configured = sources.configured.get("runtimes").and_then(Value::as_array);
    let runtimes = folded(configured.into_iter().flatten().filter_map(Value::as_str));
    let tier = if runtimes.is_empty() { Tier::Database } else { Tier::Configured };
    of(tier, runtimes, sources)
}

impl Advertised {
    /// Completes [`Tier::Database`] with the runtimes that were verified.
    #[must_use]
    pub fn verified(self, names: impl IntoIterator<Item = String>) -> Self {
        let names: Vec<String> = names.into_iter().collect();
        Self { runtimes: folded(names.iter().map(String::as_str)), ..self }
    }

    /// Whether the operator lets this machine run it. Only a list of the operator's can say no, and never to native code; what is
    /// not on a list of another source may still be here.
    pub fn admits(&self, runtime: &Runtime) -> bool {
        let is_limited = self.tier == Tier::Override && !self.runtimes.is_empty();
        !is_limited || names_of(runtime).contains(NATIVE) || is_advertised(runtime, &self.runtimes)
    }

    /// Adds versions that were verified on this machine to those that were detected. Versions of runtimes that are not
    /// advertised are left out.
    pub fn add_versions<'a>(&mut self, verified: impl IntoIterator<Item = &'a RuntimeVersion>) {
        for row in verified {
            let name = fold(row.runtime_ref.rsplit('.').next().unwrap_or_default());
            if self.runtimes.contains(&name) {
                self.runtime_versions.entry(name).or_default().push(row.version.clone());
            }
        }
        self.runtime_versions.values_mut().for_each(newest_first);
    }
}

fn of(tier: Tier, runtimes: Vec<String>, sources: &Sources<'_>) -> Advertised {
    let ours = || sources.detected.iter().filter(|detected| runtimes.iter().any(|name| name == detected.name));
    let mut runtime_versions: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, version) in ours().filter_map(|detected| Some((detected.name, detected.version.clone()?))) {
        runtime_versions.entry(name.to_owned()).or_default().push(version);
    }
    let detected_interpreters = ours().map(Detected::interpreter).collect();
    Advertised { tier, runtimes, runtime_versions, detected_interpreters, handed_on: None, warnings: Vec::new() }
}

/// Folded names without empty ones and duplicates, in their order.
fn folded<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let names = names.into_iter().map(fold).filter(|name| !name.is_empty());
    names.filter(|name| seen.insert(name.clone())).collect()
}

fn warnings_about(value: &str, runtimes: &[String], sources: &Sources<'_>) -> Vec<String> {
    let variable = sources.variable;
    if runtimes.is_empty() {
        return vec![format!(
            "{variable} is set to {value:?}: no runtime is offered; unset it to use what is detected"
        )];
    }
    runtimes.iter().filter_map(|name| warning_about(name, variable, sources.detected)).collect()
}

fn warning_about(name: &str, variable: &str, detected: &[Detected]) -> Option<String> {
    if name == NATIVE || detected.iter().any(|detected| detected.name == name) {
        return None;
    }
    if let Some(probe) = PROBES.iter().find(|probe| probe.name == name) {
        let binaries = probe.binaries.join(" or ");
        return Some(format!("{variable} names {name}, but {binaries} was not found on this machine"));
    }
    debug_assert!(lookup(name).is_none(), "every known runtime but native has a probe");
    Some(format!("{variable} names {name:?}, which is no runtime that can be detected; it is offered unchecked"))
}

fn newest_first(versions: &mut Vec<String>) {
    order::sort_by(versions, |a, b| Version::parse(b).cmp(&Version::parse(a)).then_with(|| a.cmp(b)));
    versions.dedup();
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::Duration;

    use attune_model::{RuntimeId, RuntimeVersionId};
    use serde_json::json;

    use super::*;
    use crate::image::Image;

    fn detected(name: &'static str, version: Option<&str>) -> Detected {
        Detected {
            name,
            path: PathBuf::from("/usr/bin").join(name),
            real_path: PathBuf::from("/usr/bin").join(name),
            version: version.map(str::to_owned),
            image: Image::Unknown,
            tools: Vec::new(),
            took: Duration::ZERO,
            problem: None,
        }
    }

    fn decide(override_value: Option<&str>, detected: &[Detected], configured: &Value) -> Advertised {
        let configured = configured.as_object().unwrap();
        advertise(&Sources { variable: "ATTUNE_WORKER_RUNTIMES", override_value, detected, configured })
    }

    fn machine() -> Vec<Detected> {
        vec![detected("shell", None), detected("python", Some("3.12.1")), detected("node", Some("20.19.0"))]
    }

    #[test]
    fn unset_means_what_was_detected_and_that_is_handed_on() {
        let advertised = decide(None, &machine(), &json!({"runtimes": ["ruby"]}));
        assert_eq!(advertised.tier, Tier::Detected);
        assert_eq!(advertised.runtimes, ["shell", "python", "node"]);
        assert_eq!(advertised.handed_on.as_deref(), Some("shell,python,node"));
        assert_eq!(json!(advertised.runtime_versions), json!({"node": ["20.19.0"], "python": ["3.12.1"]}));
        assert_eq!(advertised.detected_interpreters.len(), 3);
    }

    #[test]
    fn the_override_is_folded_keeps_native_and_restricts_what_is_told_about_interpreters() {
        let advertised = decide(Some(" NodeJS, native ,node,bash,"), &machine(), &json!({}));
        assert_eq!(advertised.tier, Tier::Override);
        assert_eq!(advertised.runtimes, ["node", "native", "shell"]);
        assert_eq!(advertised.handed_on.as_deref(), Some(" NodeJS, native ,node,bash,"));
        let names: Vec<_> = advertised.detected_interpreters.iter().map(|found| found.name.as_str()).collect();
        assert_eq!(names, ["shell", "node"]);
        assert_eq!(json!(advertised.runtime_versions), json!({"node": ["20.19.0"]}));
        assert!(advertised.warnings.is_empty());
    }

    #[test]
    fn an_operators_list_admits_what_is_on_it_in_any_spelling_and_native_code() {
        let runtime = |name: &str, alias: &str| Runtime {
            id: RuntimeId(1),
            r#ref: format!("core.{alias}"),
            pack: None,
            pack_ref: None,
            description: None,
            name: name.into(),
            aliases: vec![alias.into()],
            distributions: json!({}),
            execution_config: json!({}),
        };
        let advertised = decide(Some("nodejs,shell"), &machine(), &json!({}));
        for (name, alias, expected) in [
            ("Node.js", "node", true),
            ("Shell", "bash", true),
            ("Native", "native", true),
            ("Python", "python3", false),
            ("Lua", "lua", false),
        ] {
            assert_eq!(advertised.admits(&runtime(name, alias)), expected, "{name}");
        }
        for nobodys_list in [decide(None, &machine(), &json!({})), decide(Some(""), &machine(), &json!({}))] {
            assert!(nobodys_list.admits(&runtime("Lua", "lua")));
        }
    }

    #[test]
    fn missing_and_unknown_names_are_offered_with_a_warning() {
        let advertised = decide(Some("ruby,pyhton"), &machine(), &json!({}));
        assert_eq!(advertised.runtimes, ["ruby", "pyhton"]);
        assert_eq!(
            advertised.warnings,
            [
                "ATTUNE_WORKER_RUNTIMES names ruby, but ruby was not found on this machine",
                "ATTUNE_WORKER_RUNTIMES names \"pyhton\", which is no runtime that can be detected; it is offered unchecked",
            ]
        );
    }

    #[test]
    fn an_empty_override_offers_nothing_and_says_so() {
        let advertised = decide(Some(""), &machine(), &json!({"runtimes": ["python"]}));
        assert_eq!((advertised.tier, advertised.runtimes.len()), (Tier::Override, 0));
        assert_eq!(advertised.warnings.len(), 1);
    }

    #[test]
    fn configuration_and_then_the_database_speak_when_nothing_was_detected() {
        let advertised = decide(None, &[], &json!({"runtimes": ["Python3", 7]}));
        assert_eq!((advertised.tier, &advertised.runtimes[..]), (Tier::Configured, &["python".to_owned()][..]));
        assert_eq!(advertised.handed_on, None);
        let advertised = decide(None, &[], &json!({"runtimes": []}));
        assert_eq!(advertised.tier, Tier::Database);
        assert_eq!(advertised.verified(["Node.js".to_owned(), "Native".to_owned()]).runtimes, ["node", "native"]);
    }

    #[test]
    fn verified_versions_join_the_detected_ones_newest_first() {
        let row = |runtime: &str, version: &str| RuntimeVersion {
            id: RuntimeVersionId(1),
            runtime: RuntimeId(1),
            runtime_ref: runtime.into(),
            version: version.into(),
            execution_config: json!({}),
            distributions: json!({}),
            is_default: false,
            available: true,
        };
        let mut advertised = decide(None, &machine(), &json!({}));
        let rows =
            [row("core.python", "3.9"), row("core.python", "3.13"), row("core.python", "3.9"), row("core.ruby", "3")];
        advertised.add_versions(&rows);
        assert_eq!(advertised.runtime_versions["python"], ["3.13", "3.12.1", "3.9"]);
        assert!(!advertised.runtime_versions.contains_key("ruby"));
    }
}
