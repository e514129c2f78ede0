//! JSON columns to placement, with errors that name the entry.

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Affinity, PlacementError, Preferred};

pub(super) fn whole<T: DeserializeOwned + Default>(place: &str, value: &Value) -> Result<T, PlacementError> {
    if value.is_null() {
        return Ok(T::default());
    }
    T::deserialize(value).map_err(|error| PlacementError { place: place.to_owned(), detail: error.to_string() })
}

pub(super) fn list<T: DeserializeOwned>(place: &str, value: &Value) -> Result<Vec<T>, PlacementError> {
    let entries = match value {
        Value::Null => return Ok(Vec::new()),
        Value::Array(entries) => entries,
        _ => {
            return Err(PlacementError { place: place.to_owned(), detail: "must be a list".to_owned() });
        }
    };
    let entry = |(index, entry): (usize, &Value)| {
        T::deserialize(entry)
            .map_err(|error| PlacementError { place: format!("{place}[{index}]"), detail: error.to_string() })
    };
    entries.iter().enumerate().map(entry).collect()
}

pub(super) fn affinity(value: &Value) -> Result<Affinity, PlacementError> {
    const COLUMN: &str = "worker_affinity";
    let refuse = |place: String, detail: &str| PlacementError { place, detail: detail.to_owned() };
    let map = match value {
        Value::Null => return Ok(Affinity::default()),
        Value::Object(map) => map,
        _ => return Err(refuse(COLUMN.to_owned(), "must be an object")),
    };
    if let Some(key) = map.keys().find(|key| !["required", "preferred", "anti_affinity"].contains(&key.as_str())) {
        return Err(refuse(format!("{COLUMN}.{key}"), "is not one of required, preferred, anti_affinity"));
    }
    let part = |name: &str| (format!("{COLUMN}.{name}"), map.get(name).unwrap_or(&Value::Null));
    let (place, preferred) = part("preferred");
    let preferred: Vec<Preferred> = list(&place, preferred)?;
    if let Some(index) = preferred.iter().position(|preferred| !(1..=100).contains(&preferred.weight)) {
        return Err(refuse(format!("{place}[{index}].weight"), "must be 1 to 100"));
    }
    let (place, required) = part("required");
    let required = list(&place, required)?;
    let (place, anti_affinity) = part("anti_affinity");
    Ok(Affinity { required, preferred, anti_affinity: list(&place, anti_affinity)? })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::Placement;
    use crate::rows::RawPlacement;

    #[test]
    fn malformed_placement_is_an_error_that_names_the_entry() {
        let error = |selector: Value, tolerations: Value, affinity: Value| {
            Placement::parse(&RawPlacement { selector, tolerations, affinity }).unwrap_err().to_string()
        };
        assert!(error(json!({"zone": 1}), json!([]), json!({})).starts_with("worker_selector: "));
        let toleration = json!([{"key": "a"}, {"key": "b", "effect": "NoSchedule"}]);
        assert!(error(json!({}), toleration, json!({})).starts_with("worker_tolerations[1]: "));
        let term = json!({"required": [{"matchLabels": {"zone": "eu"}}]});
        assert!(error(json!({}), json!([]), term).starts_with("worker_affinity.required[0]: unknown field"));
        let weight = json!({"preferred": [{"weight": 0, "preference": {}}]});
        assert_eq!(error(json!({}), json!([]), weight), "worker_affinity.preferred[0].weight: must be 1 to 100");
        let key = json!({"antiAffinity": []});
        assert!(error(json!({}), json!([]), key).starts_with("worker_affinity.antiAffinity: is not one of"));
        assert_eq!(error(json!({}), json!("x"), json!({})), "worker_tolerations: must be a list");
    }
}
