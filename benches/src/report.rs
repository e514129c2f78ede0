//! What was found, as one table or one object.

use serde_json::{Map, Value, json};

use crate::figure::OutputMode;

/// Which way is good.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Goal {
    /// Nothing is asked.
    None,
    /// So much or less.
    Most(f64),
    /// So much or more.
    Least(f64),
}

/// One figure.
#[derive(Debug)]
struct Row {
    key: &'static str,
    what: String,
    value: f64,
    unit: &'static str,
    goal: Goal,
}

impl Row {
    fn verdict(&self) -> Option<(String, bool)> {
        match self.goal {
            Goal::None => None,
            Goal::Most(most) => Some((format!("at most {most}"), self.value <= most)),
            Goal::Least(least) => Some((format!("at least {least}"), self.value >= least)),
        }
    }
}

/// All figures.
#[derive(Debug, Default)]
pub(crate) struct Report {
    rows: Vec<Row>,
}

impl Report {
    /// Adds a figure.
    pub(crate) fn add(
        &mut self,
        key: &'static str,
        what: impl Into<String>,
        value: f64,
        unit: &'static str,
        goal: Goal,
    ) {
        self.rows.push(Row { key, what: what.into(), value, unit, goal });
    }

    /// As one or the other.
    pub(crate) fn print(&self, mode: OutputMode) -> String {
        match mode {
            OutputMode::Text => self.text(),
            OutputMode::Json => format!("{}\n", self.json()),
        }
    }

    /// As a table.
    fn text(&self) -> String {
        let width = self.rows.iter().map(|row| row.what.chars().count()).max().unwrap_or_default();
        let line = |row: &Row| {
            let goal = row.verdict().map_or_else(String::new, |(goal, reached)| {
                format!("  (goal: {goal}: {})", if reached { "reached" } else { "missed" })
            });
            let Row { what, unit, .. } = row;
            format!("{what:<width$}  {:>9} {unit}{goal}\n", number(row.value))
        };
        self.rows.iter().map(line).collect()
    }

    /// As an object.
    fn json(&self) -> Value {
        let rows = self.rows.iter().map(|row| {
            let verdict = row.verdict();
            let (goal, reached) = verdict.map_or((Value::Null, Value::Null), |(goal, met)| (goal.into(), met.into()));
            let figure =
                json!({"what": row.what, "value": row.value, "unit": row.unit, "goal": goal, "reached": reached});
            (row.key.to_owned(), figure)
        });
        Value::Object(rows.collect::<Map<_, _>>())
    }
}

fn number(value: f64) -> String {
    if value.abs() >= 100.0 { format!("{value:.0}") } else { format!("{value:.3}") }
}
