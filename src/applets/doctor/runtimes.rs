//! Interpreters of this image, and whether the shared environments fit it.

use std::path::Path;

use attune_model::JsonMap;
use attune_model::runtime_name::fold;
use attune_runtime::environment::{Surveyed, survey};

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

/// Every environment in the shared folder. Those of other images are as they should be: one that runs what this image offers as
/// well is named, since this image needs one of its own beside it.
pub(super) fn environments(folder: &Path, role: Role, detection: &Detection) -> Vec<Finding> {
    let offered = detection.advertise(role, &JsonMap::new()).runtimes;
    let is_offered = |runtime: &str| offered.iter().any(|name| fold(name) == runtime);
    let surveyed = survey(folder, detection.detected());
    let unfit = surveyed.iter().filter(|environment| environment.unfit.is_some()).count();
    let total = format!("{} built in {}, {unfit} of them by other images", surveyed.len(), folder.display());
    let needed = surveyed.into_iter().filter(|environment| is_offered(&environment.runtime));
    let can_build = attune_sys::may_write(folder);
    let others = needed.filter_map(|Surveyed { folder, unfit, .. }| {
        let found = format!("{} does not fit this image: {}", folder.display(), unfit?);
        Some(if can_build {
            Finding::fine("environments", format!("{found}; it gets one of its own"))
        } else {
            let remedy = "mount runtime_envs_dir writable, so that this image gets one of its own";
            Finding::warning("environments", found, remedy)
        })
    });
    std::iter::once(Finding::fine("environments", total)).chain(others).collect()
}
