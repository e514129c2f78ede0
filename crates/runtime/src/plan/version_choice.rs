//! Which row of `runtime_version` is used. What this agent found decides; the row's global `available` flag is written by
//! agents on other images and says nothing about this one.

use attune_model::order;
use attune_model::rows::RuntimeVersion;
use attune_model::version::{Constraint, Version, covers};

use super::Kind;

/// The rows to try, best first.
pub(super) fn candidates<'a>(
    kind: Kind,
    rows: &'a [RuntimeVersion],
    local: &[String],
    constraint: &Constraint,
) -> Vec<&'a RuntimeVersion> {
    let mut fitting: Vec<(bool, Version, &RuntimeVersion)> = rows
        .iter()
        .filter(|row| fits(kind, row, local, constraint))
        .filter_map(|row| Some((constraint.is_any() && row.is_default, Version::parse(&row.version)?, row)))
        .collect();
    order::sort_by(&mut fitting, |(a_default, a, _), (b_default, b, _)| (b_default, b).cmp(&(a_default, a)));
    fitting.into_iter().map(|(_, _, row)| row).collect()
}

/// The constraint is held against what was found, not against the row: row `3.12` stands for 3.12.4 when that is here.
fn fits(kind: Kind, row: &RuntimeVersion, local: &[String], constraint: &Constraint) -> bool {
    if local.is_empty() {
        // Nothing is known of this machine. A sensor may still be started by a row whose interpreter turns out to exist.
        return kind == Kind::Sensor && row.available && constraint.matches_text(&row.version);
    }
    local.iter().any(|version| covers(&row.version, version) && constraint.matches_text(version))
}

#[cfg(test)]
mod tests {
    use attune_model::{RuntimeId, RuntimeVersionId};
    use serde_json::json;

    use super::*;

    fn row(version: &str) -> RuntimeVersion {
        RuntimeVersion {
            id: RuntimeVersionId(1),
            runtime: RuntimeId(1),
            runtime_ref: "core.node".into(),
            version: version.into(),
            execution_config: json!({}),
            distributions: json!({}),
            is_default: version == "20",
            available: version != "18",
        }
    }

    fn chosen(kind: Kind, local: &[&str], constraint: &str) -> Vec<String> {
        let rows = ["18", "20", "22"].map(row);
        let local: Vec<String> = local.iter().map(|&version| version.to_owned()).collect();
        let candidates = candidates(kind, &rows, &local, &Constraint::parse(constraint).unwrap());
        candidates.into_iter().map(|row| row.version.clone()).collect()
    }

    #[test]
    fn rows_stand_for_what_was_found_whatever_the_global_flag_says() {
        assert_eq!(chosen(Kind::Action, &["20.19.0"], ""), ["20"]);
        assert_eq!(chosen(Kind::Action, &["18.1.0"], ""), ["18"]);
        assert_eq!(chosen(Kind::Action, &["18.1.0", "22.0.1", "20.3.0"], ""), ["20", "22", "18"]);
        assert!(chosen(Kind::Action, &["21.0.0"], "").is_empty());
    }

    #[test]
    fn a_constraint_is_held_against_the_version_that_was_found() {
        assert_eq!(chosen(Kind::Action, &["20.19.0", "22.1.0"], ">=20.10"), ["22", "20"]);
        assert_eq!(chosen(Kind::Action, &["20.19.0", "22.1.0"], "20"), ["20"]);
        assert!(chosen(Kind::Action, &["20.9.0"], ">=20.10").is_empty());
    }

    #[test]
    fn on_an_unknown_machine_only_sensors_try_the_rows() {
        assert!(chosen(Kind::Action, &[], "").is_empty());
        assert_eq!(chosen(Kind::Sensor, &[], ""), ["20", "22"]);
        assert_eq!(chosen(Kind::Sensor, &[], ">20"), ["22"]);
    }
}
