//! Interpreters of this image, and whether the shared environments fit it.

use std::collections::BTreeSet;
use std::path::Path;

use attune_model::JsonMap;
use attune_model::runtime_name::fold;
use attune_runtime::environment::{State, Surveyed, survey};

use super::finding::Finding;
use crate::applets::agent::Role;
use crate::applets::detect::Detection;

/// What is offered here, and from what.
pub(super) fn detected(role: Role, detection: &Detection) -> Vec<Finding> {
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

/// Every environment in the shared folder. Those of other images are as they should be; what this image offers and has none of its
/// own for, it builds when it is needed.
pub(super) fn environments(folder: &Path, role: Role, detection: &Detection) -> Vec<Finding> {
    let offered = detection.advertise(role, &JsonMap::new()).runtimes;
    let is_offered = |runtime: &str| offered.iter().any(|name| fold(name) == runtime);
    let surveyed = survey(folder, detection.detected());
    let is_fit = |environment: &&Surveyed| environment.state == State::Fit;
    let served: BTreeSet<&Path> = surveyed.iter().filter(is_fit).map(|environment| &*environment.shared).collect();
    let others = surveyed.iter().filter(|environment| matches!(environment.state, State::Unfit(_))).count();
    let total = format!("{} built in {}, {others} of them by other images", surveyed.len(), folder.display());
    // One that is for images of another kind is nothing to this one.
    let shared = surveyed.iter().filter(|environment| environment.folder == environment.shared);
    let needed = shared.filter(|Surveyed { shared, runtime, .. }| !served.contains(&**shared) && is_offered(runtime));
    let to_build = needed.filter_map(|Surveyed { folder, state, .. }| {
        let (reason, then) = match state {
            State::Fit => return None,
            State::Unfit(reason) => (format!("does not fit this image: {reason}"), "it gets one of its own"),
            State::Broken(reason) => (format!("is not whole: {reason}"), "it is built anew"),
        };
        let found = format!("{} {reason}", folder.display());
        // Builds lie beside each other in the folder of the pack.
        Some(if folder.parent().is_some_and(attune_sys::may_write) {
            Finding::fine("environments", format!("{found}; {then} when it is needed"))
        } else {
            Finding::warning(
                "environments",
                found,
                "let this user write to the folder of the pack, so that one can be built",
            )
        })
    });
    std::iter::once(Finding::fine("environments", total)).chain(to_build).collect()
}
