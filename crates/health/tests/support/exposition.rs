//! A strict reader of the `OpenMetrics` text format, as far as the agent uses it: every deviation is an error.

use std::collections::{BTreeMap, BTreeSet};

/// What stands in a text.
#[derive(Debug, Default)]
pub(crate) struct Exposition {
    pub(crate) families: BTreeMap<String, Family>,
    samples: BTreeMap<String, f64>,
}

/// One metric with all its series.
#[derive(Debug, Default)]
pub(crate) struct Family {
    pub(crate) kind: String,
    pub(crate) help: String,
    pub(crate) unit: Option<String>,
    /// Without `le`.
    pub(crate) labels: BTreeSet<String>,
}

impl Exposition {
    /// Name and labels of every series.
    pub(crate) fn series(&self) -> BTreeSet<&str> {
        self.samples.keys().map(String::as_str).collect()
    }

    pub(crate) fn value(&self, series: &str) -> Option<f64> {
        self.samples.get(series).copied()
    }
}

/// Reads all of it.
pub(crate) fn parse(text: &str) -> Result<Exposition, String> {
    let body = text.strip_suffix("# EOF\n").ok_or("no end mark")?;
    let mut all = Exposition::default();
    let mut current = String::new();
    for line in body.lines() {
        let wrong = |what: &str| format!("{what}: {line:?}");
        if let Some(comment) = line.strip_prefix("# ") {
            let (keyword, rest) = comment.split_once(' ').ok_or_else(|| wrong("no keyword"))?;
            let (name, value) = rest.split_once(' ').ok_or_else(|| wrong("no value"))?;
            if !is_name(name) {
                return Err(wrong("not a name"));
            }
            if name != current {
                if all.families.contains_key(name) {
                    return Err(wrong("its lines are not together"));
                }
                name.clone_into(&mut current);
                all.families.insert(name.to_owned(), Family::default());
            }
            let family = all.families.get_mut(name).ok_or("lost")?;
            match keyword {
                "HELP" if family.help.is_empty() => value.clone_into(&mut family.help),
                "TYPE" if family.kind.is_empty() => value.clone_into(&mut family.kind),
                "UNIT" if family.unit.is_none() && name.ends_with(&format!("_{value}")) => {
                    family.unit = Some(value.to_owned());
                }
                _ => return Err(wrong("unknown, repeated or not the unit of the name")),
            }
            continue;
        }
        let family = all.families.get_mut(&current).ok_or_else(|| wrong("no description"))?;
        sample(line, &current, family, &mut all.samples).map_err(wrong_text(line))?;
    }
    check_histograms(&all)?;
    match all.families.iter().find(|(_, family)| family.help.is_empty() || family.kind.is_empty()) {
        Some((name, _)) => Err(format!("{name} has no help or no type")),
        None => Ok(all),
    }
}

fn wrong_text(line: &str) -> impl Fn(&str) -> String + '_ {
    move |what| format!("{what}: {line:?}")
}

fn sample(
    line: &str,
    current: &str,
    family: &mut Family,
    samples: &mut BTreeMap<String, f64>,
) -> Result<(), &'static str> {
    let (series, value) = line.rsplit_once(' ').ok_or("no value")?;
    let value: f64 = value.parse().map_err(|_| "not a number")?;
    let (name, labels) = match series.split_once('{') {
        Some((name, labels)) => (name, labels.strip_suffix('}').ok_or("no closing brace")?),
        None => (series, ""),
    };
    let suffix = name.strip_prefix(current).ok_or("it belongs to another metric")?;
    let allowed: &[&str] = match family.kind.as_str() {
        "counter" => &["_total"],
        "gauge" => &[""],
        "histogram" => &["_bucket", "_sum", "_count"],
        "info" => &["_info"],
        _ => return Err("unknown type"),
    };
    if !allowed.contains(&suffix) {
        return Err("not a name of this type");
    }
    if (family.kind == "counter" || family.kind == "histogram") && (value.is_nan() || value < 0.0) {
        return Err("it cannot be less than nothing");
    }
    for label in labels.split(',').filter(|label| !label.is_empty()) {
        let (key, quoted) = label.split_once('=').ok_or("no label value")?;
        let inner = quoted.strip_prefix('"').and_then(|text| text.strip_suffix('"')).ok_or("no quotes")?;
        if !is_name(key) || inner.is_empty() || inner.contains(['"', '\\', '\n', ',']) {
            return Err("not a label");
        }
        if key != "le" {
            family.labels.insert(key.to_owned());
        } else if suffix != "_bucket" {
            return Err("`le` is for buckets");
        }
    }
    if samples.insert(series.to_owned(), value).is_some() { Err("twice") } else { Ok(()) }
}

/// Buckets grow, the last one is infinite and equals the count.
fn check_histograms(all: &Exposition) -> Result<(), String> {
    for (name, _) in all.families.iter().filter(|(_, family)| family.kind == "histogram") {
        let prefix = format!("{name}_bucket{{le=\"");
        let mut buckets: Vec<(f64, f64)> = Vec::new();
        for (series, value) in all.samples.iter().filter(|(series, _)| series.starts_with(&prefix)) {
            let bound = series[prefix.len()..].trim_end_matches("\"}");
            let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().map_err(|_| series.clone())? };
            buckets.push((bound, *value));
        }
        buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
        let grows = buckets.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1);
        let (bound, last) = buckets.last().ok_or_else(|| format!("{name} has no buckets"))?;
        let count = all.value(&format!("{name}_count"));
        if !grows || bound.is_finite() || count.is_none_or(|count| (count - last).abs() > 0.5) {
            return Err(format!("{name} is no histogram: {buckets:?}, {count:?}"));
        }
        all.value(&format!("{name}_sum")).ok_or_else(|| format!("{name} has no sum"))?;
    }
    Ok(())
}

fn is_name(text: &str) -> bool {
    text.starts_with(|letter: char| letter.is_ascii_alphabetic() || letter == '_')
        && text.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
}
