//! All timers of all rules: which fires next, what a firing is, what changes when the rules change.
//!
//! Pure: time is passed in, nothing is sent. Invariant: every live timer is in exactly one of the two queues, or in none
//! when it has no next time.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use attune_model::order;
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Map, Value, json};

use crate::schedule::{ParamError, Schedule, TimerKind, rfc3339};

/// Longest sleep: how late a change of the wall clock is noticed at most.
const LONGEST_SLEEP: Duration = Duration::from_secs(5);
/// A difference between the two clocks that counts as a change of the wall clock.
const CLOCK_CHANGE: TimeDelta = TimeDelta::seconds(2);
/// A time of day that was missed by more than this (the host slept, the clock was set forward) is not made up for.
const LATEST: TimeDelta = TimeDelta::seconds(60);

/// Both clocks, read together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Now {
    /// Time of day.
    pub(crate) wall: DateTime<Utc>,
    /// Since the start of the program.
    pub(crate) monotonic: Duration,
}

/// An enabled rule on one of our triggers.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TimerRule {
    pub(crate) id: i64,
    pub(crate) r#ref: String,
    pub(crate) kind: TimerKind,
    pub(crate) params: Value,
}

/// A timer that fired.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Firing {
    pub(crate) rule_id: i64,
    pub(crate) rule_ref: String,
    pub(crate) kind: TimerKind,
    pub(crate) payload: Map<String, Value>,
}

/// What became of a rule in [`Timers::sync`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    Added {
        rule_ref: String,
    },
    Removed {
        rule_ref: String,
    },
    /// It never fires again.
    Over {
        rule_ref: String,
    },
    Invalid {
        rule_ref: String,
        error: ParamError,
    },
}

#[derive(Debug)]
struct Timer {
    rule: TimerRule,
    /// None when the parameters make no timer.
    schedule: Option<Schedule>,
    next: Next,
    count: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Monotonic(Duration),
    Wall(DateTime<Utc>),
    Never,
}

/// The timers.
#[derive(Debug)]
pub(crate) struct Timers {
    by_rule: HashMap<i64, Timer>,
    monotonic: BTreeSet<(Duration, i64)>,
    wall: BTreeSet<(DateTime<Utc>, i64)>,
    last_seen: Now,
}

impl Timers {
    /// None yet.
    pub(crate) fn new(now: Now) -> Self {
        Self { by_rule: HashMap::new(), monotonic: BTreeSet::new(), wall: BTreeSet::new(), last_seen: now }
    }

    /// Takes the rules over. Timers whose rule did not change keep their phase and their count.
    pub(crate) fn sync(&mut self, rules: Vec<TimerRule>, now: Now) -> Vec<Change> {
        let wanted: HashMap<i64, TimerRule> = rules.into_iter().map(|rule| (rule.id, rule)).collect();
        let gone: Vec<i64> = self
            .by_rule
            .iter()
            .filter(|(id, timer)| wanted.get(*id).is_none_or(|rule| *rule != timer.rule))
            .map(|(id, _)| *id)
            .collect();
        let mut changes = Vec::new();
        for id in gone {
            self.unqueue(id);
            if let Some(timer) = self.by_rule.remove(&id)
                && !wanted.contains_key(&id)
            {
                changes.push(Change::Removed { rule_ref: timer.rule.r#ref });
            }
        }
        let mut fresh: Vec<TimerRule> =
            wanted.into_values().filter(|rule| !self.by_rule.contains_key(&rule.id)).collect();
        order::sort_by_key(&mut fresh, |rule| rule.id);
        for rule in fresh {
            changes.push(self.add(rule, now));
        }
        changes
    }

    /// How long nothing happens.
    pub(crate) fn sleep(&self, now: Now) -> Duration {
        let by_monotonic = self.monotonic.first().map(|(at, _)| at.saturating_sub(now.monotonic));
        let by_wall = self.wall.first().map(|(at, _)| (*at - now.wall).to_std().unwrap_or_default());
        [by_monotonic, by_wall].into_iter().flatten().fold(LONGEST_SLEEP, Duration::min)
    }

    /// Everything that is due, and the timers that will not fire again.
    pub(crate) fn due(&mut self, now: Now) -> (Vec<Firing>, Vec<Change>) {
        let mut changes = Vec::new();
        self.follow_the_wall_clock(now, &mut changes);
        let mut firings = Vec::new();
        while let Some((at, id)) = self.monotonic.first().copied()
            && at <= now.monotonic
        {
            let late = now.monotonic.saturating_sub(at);
            let scheduled = now.wall - TimeDelta::from_std(late).unwrap_or_default();
            firings.extend(self.fire(id, scheduled, now));
            self.advance_interval(id, at, now.monotonic);
        }
        while let Some((at, id)) = self.wall.first().copied()
            && at <= now.wall
        {
            if now.wall - at <= LATEST {
                firings.extend(self.fire(id, at, now));
            }
            // From now on, not from the missed time: what was missed is not made up for one by one.
            let after = if now.wall - at <= LATEST { at } else { now.wall };
            changes.extend(self.schedule_wall(id, after));
        }
        (firings, changes)
    }

    /// How many timers will fire again.
    pub(crate) fn live(&self) -> usize {
        self.monotonic.len() + self.wall.len()
    }

    fn add(&mut self, rule: TimerRule, now: Now) -> Change {
        let (id, rule_ref) = (rule.id, rule.r#ref.clone());
        let schedule = Schedule::parse(rule.kind, &rule.params, now.wall);
        let (schedule, error) = match schedule {
            Ok(schedule) => (Some(schedule), None),
            Err(error) => (None, Some(error)),
        };
        let every = match &schedule {
            Some(Schedule::Interval(every)) => Some(*every),
            _ => None,
        };
        self.by_rule.insert(id, Timer { rule, schedule, next: Next::Never, count: 0 });
        if let Some(error) = error {
            return Change::Invalid { rule_ref, error };
        }
        match every {
            Some(every) => {
                self.queue(id, Next::Monotonic(now.monotonic + every));
                Change::Added { rule_ref }
            }
            None => self.schedule_wall(id, now.wall).unwrap_or(Change::Added { rule_ref }),
        }
    }

    /// Recomputes every time of day when the clock was changed. Intervals do not care.
    fn follow_the_wall_clock(&mut self, now: Now, changes: &mut Vec<Change>) {
        let elapsed = now.monotonic.saturating_sub(self.last_seen.monotonic);
        let expected = self.last_seen.wall + TimeDelta::from_std(elapsed).unwrap_or_default();
        self.last_seen = now;
        if now.wall - expected > -CLOCK_CHANGE {
            // Forward is seen as lateness by `due` itself.
            return;
        }
        let ids: Vec<i64> = self.wall.iter().map(|(_, id)| *id).collect();
        for id in ids {
            changes.extend(self.schedule_wall(id, now.wall));
        }
    }

    fn fire(&mut self, id: i64, scheduled: DateTime<Utc>, now: Now) -> Option<Firing> {
        let timer = self.by_rule.get_mut(&id)?;
        timer.count += 1;
        let (about, value) = timer.schedule.as_ref()?.describe();
        let payload = json!({
            "type": timer.rule.kind.as_str(),
            "scheduled_at": rfc3339(scheduled),
            "fired_at": rfc3339(now.wall),
            "rule_id": id,
            "rule_ref": timer.rule.r#ref,
            "count": timer.count,
            about: value,
        });
        let Value::Object(payload) = payload else {
            return None;
        };
        Some(Firing { rule_id: id, rule_ref: timer.rule.r#ref.clone(), kind: timer.rule.kind, payload })
    }

    /// The next time is the last one plus the interval, so that lateness does not add up; whole intervals that were
    /// missed are left out.
    fn advance_interval(&mut self, id: i64, at: Duration, now: Duration) {
        self.unqueue(id);
        let Some(Timer { schedule: Some(Schedule::Interval(every)), .. }) = self.by_rule.get(&id) else {
            return;
        };
        let missed = (now.saturating_sub(at)).as_nanos() / every.as_nanos().max(1);
        let steps = u32::try_from(missed).unwrap_or(u32::MAX).saturating_add(1);
        let next = at.saturating_add(every.saturating_mul(steps));
        self.queue(id, Next::Monotonic(next));
    }

    fn schedule_wall(&mut self, id: i64, after: DateTime<Utc>) -> Option<Change> {
        self.unqueue(id);
        let timer = self.by_rule.get_mut(&id)?;
        let rule_ref = timer.rule.r#ref.clone();
        match timer.schedule.as_mut()?.next_after(after) {
            Ok(Some(next)) => {
                self.queue(id, Next::Wall(next));
                None
            }
            Ok(None) => Some(Change::Over { rule_ref }),
            Err(error) => Some(Change::Invalid { rule_ref, error }),
        }
    }

    fn queue(&mut self, id: i64, next: Next) {
        match next {
            Next::Monotonic(at) => drop(self.monotonic.insert((at, id))),
            Next::Wall(at) => drop(self.wall.insert((at, id))),
            Next::Never => {}
        }
        if let Some(timer) = self.by_rule.get_mut(&id) {
            timer.next = next;
        }
    }

    fn unqueue(&mut self, id: i64) {
        let Some(timer) = self.by_rule.get_mut(&id) else {
            return;
        };
        match std::mem::replace(&mut timer.next, Next::Never) {
            Next::Monotonic(at) => drop(self.monotonic.remove(&(at, id))),
            Next::Wall(at) => drop(self.wall.remove(&(at, id))),
            Next::Never => {}
        }
    }
}

#[cfg(test)]
mod tests;
