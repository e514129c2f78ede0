//! What was asked for, and what became of it.

use std::collections::HashMap;
use std::fs;

use super::installation::Installation;

/// The executions that were asked for.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    asked: Vec<i64>,
}

/// The end of the matter.
#[derive(Debug)]
pub(crate) struct Verdict {
    /// Nothing was lost and nothing ran twice.
    pub(crate) is_good: bool,
    /// In words.
    pub(crate) text: String,
}

impl Ledger {
    /// Writes them down.
    pub(crate) fn asked(&mut self, ids: Vec<i64>) {
        self.asked.extend(ids);
    }

    /// How many.
    pub(crate) fn count(&self) -> usize {
        self.asked.len()
    }

    /// Compares rows, marks that the actions left, and what was asked for.
    pub(crate) async fn verdict(&self, place: &Installation) -> Result<Verdict, String> {
        let path = place.marks();
        let text = fs::read_to_string(&path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        let mut marks = HashMap::<i64, usize>::new();
        for id in text.lines().filter_map(|line| line.parse().ok()) {
            *marks.entry(id).or_default() += 1;
        }
        let rows: HashMap<i64, String> = place.statuses().await?.into_iter().collect();
        let mut by_status = HashMap::<&str, usize>::new();
        for id in &self.asked {
            *by_status.entry(rows.get(id).map_or("no row", String::as_str)).or_default() += 1;
        }
        let is_end = |status: &str| ["completed", "failed", "cancelled", "timeout", "abandoned"].contains(&status);
        let lost = by_status.iter().filter(|(status, _)| !is_end(status)).map(|(_, count)| count).sum::<usize>();
        let twice = marks.values().filter(|count| **count > 1).count();
        let completed = |id: &&i64| rows.get(*id).is_some_and(|status| status == "completed");
        let unfounded = self.asked.iter().filter(completed).filter(|id| !marks.contains_key(*id)).count();
        let mut statuses: Vec<String> = by_status.iter().map(|(status, count)| format!("{count} {status}")).collect();
        statuses.sort();
        let failed = by_status.get("failed").copied().unwrap_or(0);
        let text = format!(
            "executions: {} asked for; {}; lost {lost}; ran twice {twice}; completed without having run {unfounded}\n",
            self.asked.len(),
            statuses.join(", ")
        );
        Ok(Verdict { is_good: lost + twice + unfounded + failed == 0 && !self.asked.is_empty(), text })
    }
}
