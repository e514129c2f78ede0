//! What a benchmark found, and how it is printed.

use std::time::Duration;

use serde_json::json;

/// How figures are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OutputMode {
    /// One line for people.
    Text,
    /// One object for programs.
    Json,
}

/// How large our time may be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Goal {
    /// So many times the floor.
    Ratio(f64),
    /// So much more than the floor.
    Difference(Duration),
    /// So much, whatever the floor.
    Time(Duration),
}

/// Our time beside the floor, both medians.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Figure {
    /// The benchmark.
    pub(crate) name: &'static str,
    /// What was measured, in words.
    pub(crate) what: String,
    /// Our time.
    pub(crate) ours: Duration,
    /// What the floor is, in words.
    pub(crate) floor_is: String,
    /// The floor's time.
    pub(crate) floor: Duration,
    /// What is wanted.
    pub(crate) goal: Goal,
    /// Over how many rounds.
    pub(crate) rounds: usize,
}

impl Figure {
    /// Ours to the floor.
    pub(crate) fn ratio(&self) -> f64 {
        self.ours.as_secs_f64() / self.floor.as_secs_f64()
    }

    /// How much longer ours takes than the floor.
    pub(crate) fn difference(&self) -> Duration {
        self.ours.saturating_sub(self.floor)
    }

    fn reached(&self) -> bool {
        match self.goal {
            Goal::Ratio(most) => self.ratio() <= most,
            Goal::Difference(most) => self.difference() <= most,
            Goal::Time(most) => self.ours <= most,
        }
    }

    /// As one line or one object, with a line end.
    pub(crate) fn print(&self, mode: OutputMode) -> String {
        let (ours, floor) = (milliseconds(self.ours), milliseconds(self.floor));
        let (ratio, difference) = (rounded(self.ratio()), milliseconds(self.difference()));
        let goal = match self.goal {
            Goal::Ratio(most) => format!("ratio at most {most}"),
            Goal::Difference(most) => format!("at most {} ms more", milliseconds(most)),
            Goal::Time(most) => format!("at most {} ms", milliseconds(most)),
        };
        match mode {
            OutputMode::Text => format!(
                "{}: {} {ours} ms, {} {floor} ms, ratio {ratio}, difference {difference} ms \
                 (goal: {goal}: {}; median of {} rounds)\n",
                self.name,
                self.what,
                self.floor_is,
                if self.reached() { "reached" } else { "missed" },
                self.rounds
            ),
            OutputMode::Json => {
                let object = json!({
                    "name": self.name, "what": self.what, "ours_ms": ours, "floor": self.floor_is, "floor_ms": floor,
                    "ratio": ratio, "difference_ms": difference, "goal": goal, "reached": self.reached(),
                    "rounds": self.rounds,
                });
                format!("{object}\n")
            }
        }
    }
}

/// The middle one; zero for none.
pub(crate) fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn milliseconds(time: Duration) -> f64 {
    rounded(time.as_secs_f64() * 1e3)
}

fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}
