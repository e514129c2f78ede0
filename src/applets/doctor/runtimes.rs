//! Interpreters of this image, and whether the shared environments fit it.

use std::path::Path;

use attune_config::Source;
use attune_model::JsonMap;
use attune_runtime::environment::survey;

use super::finding::Finding;
use crate::applets::agent::Role;
use crate::applets::detect::Detection;

/// What is offered here, and from what.
pub(super) fn detected(role: Role, environment: &dyn Source) -> Vec<Finding> {
    let detection = Detection::of(environment);
    let advertised = detection.advertise(role, &JsonMap::new());
    let mut findings: Vec<Finding> = advertised
        .warnings
        .iter()
        .map(|warning| Finding::warning("runtimes", warning.clone(), format!("correct {}", role.runtimes_variable())))
        .collect();
    if advertised.runtimes.is_empty() {
        let remedy = format!("use an image with an interpreter, or name what it has in {}", role.runtimes_variable());
        findings.push(Finding::warning("runtimes", "none: nothing can run here", remedy));
    } else {
        let offered = advertised.runtimes.join(", ");
        let why =
            if detection.is_overridden(role) { format!("by {}", role.runtimes_variable()) } else { "found".into() };
        findings.push(Finding::fine("runtimes", format!("{offered} ({why})")));
    }
    findings
}

/// Every environment in the shared folder.
pub(super) fn environments(folder: &Path) -> Vec<Finding> {
    let surveyed = survey(folder);
    let total = surveyed.len();
    let mut findings: Vec<Finding> = surveyed
        .into_iter()
        .filter_map(|(path, unfit)| Some((path, unfit?)))
        .map(|(path, reason)| {
            let found = format!("{} does not fit this image: {reason}", path.display());
            Finding::warning(
                "environments",
                found,
                "nothing: this image gets one of its own; remove it if no other image uses it",
            )
        })
        .collect();
    if findings.is_empty() {
        findings.push(Finding::fine("environments", format!("{total} built in {}, none unfit here", folder.display())));
    }
    findings
}
