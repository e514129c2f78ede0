//! When one timer fires: a pure function of its parameters and a time.
//!
//! Intervals follow the monotonic clock, so a change of the time of day neither hurries nor delays them. Everything that
//! names times of day follows the wall clock.

use std::time::Duration;

use chrono::{DateTime, NaiveDateTime, SecondsFormat, Utc};
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use serde_json::{Map, Value, json};
use thiserror::Error;

use crate::recurrence::Recurrence;
use crate::zone::{Instants, Zone, utc};

/// Longest interval: beyond it a mistake is likelier than a wish.
const LONGEST_INTERVAL: Duration = Duration::from_hours(10 * 366 * 24);

/// The four triggers of the core pack that are timers (names and parameters: facts of the platform).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum TimerKind {
    Interval,
    Cron,
    Date,
    Recurrence,
}

impl TimerKind {
    /// All of them.
    pub(crate) const ALL: [Self; 4] = [Self::Interval, Self::Cron, Self::Date, Self::Recurrence];

    /// The trigger it belongs to.
    pub(crate) const fn trigger_ref(self) -> &'static str {
        match self {
            Self::Interval => "core.intervaltimer",
            Self::Cron => "core.crontimer",
            Self::Date => "core.datetimetimer",
            Self::Recurrence => "core.rruletimer",
        }
    }

    /// The value of `type` in payloads.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Interval => "interval",
            Self::Cron => "cron",
            Self::Date => "date",
            Self::Recurrence => "rrule",
        }
    }

    /// The kind of a trigger, if it is one of ours.
    pub(crate) fn of(trigger_ref: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.trigger_ref() == trigger_ref)
    }
}

/// Parameters that make no timer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ParamError {
    /// Nothing was given for it.
    #[error("parameter `{0}` is missing")]
    Missing(&'static str),
    /// What was given cannot be used.
    #[error("parameter `{name}`: {detail}")]
    Invalid {
        /// Which one.
        name: &'static str,
        /// What is wrong with it.
        detail: String,
    },
}

impl ParamError {
    pub(crate) fn invalid(name: &'static str, detail: impl Into<String>) -> Self {
        Self::Invalid { name, detail: detail.into() }
    }
}

/// A parsed timer.
#[derive(Debug)]
pub(crate) enum Schedule {
    Interval(Duration),
    Cron { cron: Box<Cron>, zone: Zone, expression: String },
    Date(DateTime<Utc>),
    Recurrence(Box<Recurrence>),
}

impl Schedule {
    /// Reads the parameters of a rule; `now` keeps the search for the next occurrence short.
    pub(crate) fn parse(kind: TimerKind, params: &Value, now: DateTime<Utc>) -> Result<Self, ParamError> {
        let empty = Map::new();
        let params = match params {
            Value::Object(map) => map,
            Value::Null => &empty,
            _ => return Err(ParamError::invalid("trigger_params", "must be an object")),
        };
        match kind {
            TimerKind::Interval => interval(params).map(Self::Interval),
            TimerKind::Cron => cron(params),
            TimerKind::Date => {
                let zone = timezone(params)?;
                Ok(Self::Date(instant(params, "fire_at", &zone)?.ok_or(ParamError::Missing("fire_at"))?))
            }
            TimerKind::Recurrence => Recurrence::parse(params, now).map(|found| Self::Recurrence(Box::new(found))),
        }
    }

    /// The first time of day after `after`; none for intervals, and when there is no more.
    pub(crate) fn next_after(&mut self, after: DateTime<Utc>) -> Result<Option<DateTime<Utc>>, ParamError> {
        match self {
            Self::Interval(_) => Ok(None),
            // The library's only other error is that nothing comes within its search limit.
            Self::Cron { cron, zone, .. } => Ok(zone
                .zoned(after)
                .and_then(|after| cron.find_next_occurrence(&after, false).ok())
                .and_then(|time| utc(time.timestamp()))),
            Self::Date(at) => Ok(Some(*at).filter(|at| *at > after)),
            Self::Recurrence(recurrence) => recurrence.next_after(after),
        }
    }

    /// What a payload says about the timer itself.
    pub(crate) fn describe(&self) -> (&'static str, Value) {
        match self {
            Self::Interval(every) => ("interval_seconds", json!(every.as_secs())),
            Self::Cron { expression, .. } => ("expression", json!(expression)),
            Self::Date(at) => ("fire_at", json!(rfc3339(*at))),
            Self::Recurrence(recurrence) => ("rule", json!(recurrence.rule())),
        }
    }
}

/// The one form in which times are written.
pub(crate) fn rfc3339(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}

fn interval(params: &Map<String, Value>) -> Result<Duration, ParamError> {
    let count = whole_number(params, "interval")?.ok_or(ParamError::Missing("interval"))?;
    let seconds_per_unit = match text(params, "unit")?.unwrap_or("seconds") {
        "seconds" | "second" => 1,
        "minutes" | "minute" => 60,
        "hours" | "hour" => 3_600,
        other => {
            return Err(ParamError::invalid("unit", format!("must be seconds, minutes or hours, not {other:?}")));
        }
    };
    let every = Duration::from_secs(count.saturating_mul(seconds_per_unit));
    if every.is_zero() || every > LONGEST_INTERVAL {
        return Err(ParamError::invalid("interval", "must be at least 1 and at most ten years"));
    }
    Ok(every)
}

fn cron(params: &Map<String, Value>) -> Result<Schedule, ParamError> {
    let expression = text(params, "expression")?.ok_or(ParamError::Missing("expression"))?;
    let cron = CronParser::builder()
        .seconds(Seconds::Required)
        .year(Year::Disallowed)
        .build()
        .parse(expression)
        .map_err(|error| ParamError::invalid("expression", format!("{error} (six fields, seconds first)")))?;
    Ok(Schedule::Cron { cron: Box::new(cron), zone: timezone(params)?, expression: expression.to_owned() })
}

/// The value of a text parameter; empty counts as absent.
pub(crate) fn text<'a>(params: &'a Map<String, Value>, name: &'static str) -> Result<Option<&'a str>, ParamError> {
    match params.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.trim()).filter(|text| !text.is_empty())),
        Some(_) => Err(ParamError::invalid(name, "must be a text")),
    }
}

/// The value of a number parameter, also when it was written as a text.
pub(crate) fn whole_number(params: &Map<String, Value>, name: &'static str) -> Result<Option<u64>, ParamError> {
    let value = match params.get(name) {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Number(number)) => number.as_u64(),
        Some(Value::String(text)) => text.trim().parse().ok(),
        Some(_) => None,
    };
    value.map(Some).ok_or_else(|| ParamError::invalid(name, "must be a whole number"))
}

/// `timezone`, UTC when absent.
pub(crate) fn timezone(params: &Map<String, Value>) -> Result<Zone, ParamError> {
    let Some(name) = text(params, "timezone")? else {
        return Ok(Zone::utc());
    };
    Zone::named(name)
        .ok_or_else(|| ParamError::invalid("timezone", format!("{name:?} is not a name such as Europe/Berlin")))
}

/// A point in time: with an offset as it stands, without one in `zone`.
pub(crate) fn instant(
    params: &Map<String, Value>,
    name: &'static str,
    zone: &Zone,
) -> Result<Option<DateTime<Utc>>, ParamError> {
    let Some(written) = text(params, name)? else {
        return Ok(None);
    };
    if let Ok(time) = DateTime::parse_from_rfc3339(written) {
        return Ok(Some(time.with_timezone(&Utc)));
    }
    let local = ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M"]
        .into_iter()
        .find_map(|format| NaiveDateTime::parse_from_str(written, format).ok())
        .ok_or_else(|| ParamError::invalid(name, format!("{written:?} is not a time such as 2030-01-31T08:00:00Z")))?;
    // Of an hour that occurs twice the first one is meant.
    match zone.instants(local) {
        Instants::Once(time) | Instants::Twice(time, _) => Ok(Some(time)),
        Instants::Skipped(_) => {
            Err(ParamError::invalid(name, format!("{written} does not exist in {zone}: clocks go forward then")))
        }
        Instants::Unknown => Err(ParamError::invalid(name, format!("{written} is too far away"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn parse(kind: TimerKind, params: &Value) -> Result<Schedule, ParamError> {
        Schedule::parse(kind, params, at("2026-01-01T00:00:00Z"))
    }

    fn after(schedule: &mut Schedule, time: &str) -> Option<String> {
        schedule.next_after(at(time)).unwrap().map(rfc3339)
    }

    fn assert_refused(kind: TimerKind, params: &Value, expected: &str) {
        let error = parse(kind, params).unwrap_err().to_string();
        assert!(error.contains(expected), "{params}: {error}");
    }

    #[test]
    fn an_interval_is_a_number_of_units() {
        for (params, seconds) in [
            (json!({"unit": "seconds", "interval": 5}), 5),
            (json!({"unit": "minutes", "interval": "2"}), 120),
            (json!({"unit": "hours", "interval": 1}), 3600),
            (json!({"interval": 7}), 7),
        ] {
            assert!(
                matches!(parse(TimerKind::Interval, &params), Ok(Schedule::Interval(every)) if every.as_secs() == seconds)
            );
        }
    }

    #[test]
    fn parameters_that_make_no_timer_are_named() {
        for (kind, params, expected) in [
            (TimerKind::Interval, json!({}), "parameter `interval` is missing"),
            (TimerKind::Interval, json!({"interval": 0}), "parameter `interval`: must be at least 1"),
            (TimerKind::Interval, json!({"interval": -3}), "parameter `interval`: must be a whole number"),
            (TimerKind::Interval, json!({"interval": u64::MAX, "unit": "hours"}), "at most ten years"),
            (TimerKind::Interval, json!({"interval": 1, "unit": "weeks"}), "parameter `unit`"),
            (TimerKind::Interval, json!([1]), "parameter `trigger_params`"),
        ] {
            assert_refused(kind, &params, expected);
        }
    }

    #[test]
    fn times_that_do_not_exist_are_named() {
        for (kind, params, expected) in [
            (TimerKind::Cron, json!({"expression": "* * * * *"}), "parameter `expression`"),
            (TimerKind::Cron, json!({"expression": "61 * * * * *"}), "parameter `expression`"),
            (TimerKind::Cron, json!({"expression": "0 * * * * *", "timezone": "Mars/Crater"}), "parameter `timezone`"),
            (TimerKind::Date, json!({"fire_at": "tomorrow"}), "parameter `fire_at`"),
            (
                TimerKind::Date,
                json!({"fire_at": "2026-03-29T02:30:00", "timezone": "Europe/Berlin"}),
                "does not exist in Europe/Berlin",
            ),
            (TimerKind::Recurrence, json!({"freq": "DAILY"}), "parameter `dtstart` is missing"),
        ] {
            assert_refused(kind, &params, expected);
        }
    }

    #[test]
    fn cron_has_seconds_and_follows_its_time_zone() {
        let mut every_five = parse(TimerKind::Cron, &json!({"expression": "*/5 * * * * *"})).unwrap();
        assert_eq!(after(&mut every_five, "2026-01-01T00:00:02.5Z").unwrap(), "2026-01-01T00:00:05.000Z");
        assert_eq!(after(&mut every_five, "2026-01-01T00:00:05Z").unwrap(), "2026-01-01T00:00:10.000Z");
        let nine = json!({"expression": "0 0 9 * * *", "timezone": "Europe/Berlin"});
        let mut nine = parse(TimerKind::Cron, &nine).unwrap();
        assert_eq!(after(&mut nine, "2026-01-01T09:00:00Z").unwrap(), "2026-01-02T08:00:00.000Z");
        assert_eq!(after(&mut nine, "2026-07-01T00:00:00Z").unwrap(), "2026-07-01T07:00:00.000Z");
    }

    #[test]
    fn a_cron_that_never_comes_is_quiet_instead_of_wrong() {
        let mut never = parse(TimerKind::Cron, &json!({"expression": "0 0 0 30 2 *"})).unwrap();
        assert_eq!(after(&mut never, "2026-01-01T00:00:00Z"), None);
    }

    #[test]
    fn a_date_comes_once_and_a_past_one_never() {
        let params = json!({"fire_at": "2026-06-01T12:00:00", "timezone": "Europe/Berlin"});
        let mut date = parse(TimerKind::Date, &params).unwrap();
        assert_eq!(after(&mut date, "2026-01-01T00:00:00Z").unwrap(), "2026-06-01T10:00:00.000Z");
        assert_eq!(after(&mut date, "2026-06-01T10:00:00Z"), None);
    }
}
