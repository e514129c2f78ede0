//! Recurrence rules of calendars (`core.rruletimer`).
//!
//! The rule is worked out on what the clocks of its zone show, as if that were UTC, and each local time is then looked up
//! in the zone. One that is skipped because clocks go forward counts as if they had not (RFC 5545, section 3.3.5); one
//! that comes twice counts once, except for rules that repeat within the day: they must not be silent for an hour.
//!
//! The library's iterator starts at `dtstart` and is kept between calls, so a timer pays for each occurrence once. Two
//! bounds keep a careless rule from eating the processor: the beginning of fast rules is moved forward by whole periods,
//! and a search over too many occurrences is an error that says what to change.

use std::collections::VecDeque;
use std::fmt;

use chrono::{DateTime, Days, Utc};
use recurrence::{Frequency, RRule, RRuleSet, RRuleSetIter, Tz, Unvalidated};
use serde_json::{Map, Value};

use crate::rule::{End, Written};
use crate::schedule::{ParamError, instant, text, timezone, whole_number};
use crate::zone::{Instants, Zone};

/// Most occurrences that are skipped to reach the present.
const MOST_SKIPPED: usize = 200_000;
const DAY_SECONDS: u64 = 86_400;

/// Parameter names (both spellings that are in use) and the parts of a rule they become.
const LIST_PARTS: [(&[&str], &str); 9] = [
    (&["by_month"], "BYMONTH"),
    (&["by_month_day", "by_monthday"], "BYMONTHDAY"),
    (&["by_year_day", "by_yearday"], "BYYEARDAY"),
    (&["by_week_no", "by_weekno"], "BYWEEKNO"),
    (&["by_day", "by_weekday"], "BYDAY"),
    (&["by_hour"], "BYHOUR"),
    (&["by_minute"], "BYMINUTE"),
    (&["by_second"], "BYSECOND"),
    (&["by_set_pos", "by_setpos"], "BYSETPOS"),
];

/// A rule with its place in time.
pub(crate) struct Recurrence {
    rule: String,
    set: RRuleSet,
    zone: Zone,
    until: Option<DateTime<Utc>>,
    /// Whether a local time that comes twice counts twice.
    twice: bool,
    course: Course,
}

/// How far the occurrences have been taken.
struct Course {
    local: RRuleSetIter,
    /// The next one of `local`, looked up.
    next: Option<DateTime<Utc>>,
    /// The second instants of local times whose first ones have been taken.
    again: VecDeque<DateTime<Utc>>,
    /// The last one that was taken.
    last: Option<DateTime<Utc>>,
}

impl fmt::Debug for Recurrence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Recurrence({} in {}, last {:?})", self.rule, self.zone, self.course.last)
    }
}

impl Recurrence {
    /// Reads the parameters: the parts of a rule, or a whole one in `rule`.
    pub(crate) fn parse(params: &Map<String, Value>, now: DateTime<Utc>) -> Result<Self, ParamError> {
        let zone = timezone(params)?;
        let start = instant(params, "dtstart", &zone)?.ok_or(ParamError::Missing("dtstart"))?;
        let rule = match text(params, "rule")? {
            Some(written) => written.strip_prefix("RRULE:").unwrap_or(written).to_owned(),
            None => rule_of_parts(params)?,
        };
        let Written { rule: mut parsed, end } =
            rule.parse().map_err(|error| ParamError::invalid("rule", format!("{error}, in {rule:?}")))?;
        let shown = |name, time| {
            let local = zone.local(time).ok_or_else(|| ParamError::invalid(name, "is too far away"))?;
            Ok::<_, ParamError>(local.and_utc().with_timezone(&UTC))
        };
        let until = match (instant(params, "until", &zone)?, end) {
            (Some(until), _) | (None, Some(End::At(until))) => Some(until),
            (None, Some(End::Local(until))) => instant_of(zone.instants(until)),
            (None, None) => None,
        };
        if let Some(until) = until {
            parsed = parsed.until(shown("until", until)?);
        }
        let start = shown("dtstart", start)?;
        let endless = until.is_none() && parsed.get_count().is_none();
        let start = if endless { nearer_start(&parsed, start, shown("now", now)?) } else { start };
        let twice = period_seconds(&parsed).is_some() && parsed.get_count().is_none();
        let set =
            parsed.build(start).map_err(|error| ParamError::invalid("rule", format!("{error} in {rule:?}")))?.limit();
        let course = Course::new(&set);
        Ok(Self { rule, set, zone, until, twice, course })
    }

    /// The rule as text.
    pub(crate) fn rule(&self) -> &str {
        &self.rule
    }

    /// The first occurrence after `after`.
    pub(crate) fn next_after(&mut self, after: DateTime<Utc>) -> Result<Option<DateTime<Utc>>, ParamError> {
        if self.course.last.is_some_and(|last| last > after) {
            // The clock went back: what was taken counts again.
            self.course = Course::new(&self.set);
        }
        for _ in 0..MOST_SKIPPED {
            let Some(time) = self.take().filter(|time| self.until.is_none_or(|until| *time <= until)) else {
                return Ok(None);
            };
            self.course.last = Some(time);
            if time > after {
                return Ok(Some(time));
            }
        }
        Err(ParamError::invalid(
            "dtstart",
            format!("more than {MOST_SKIPPED} occurrences lie between it and now; give a later one"),
        ))
    }

    /// The next occurrence, in the order of time.
    fn take(&mut self) -> Option<DateTime<Utc>> {
        let course = &mut self.course;
        if course.next.is_none() {
            let instants = self.zone.instants(course.local.next()?.naive_local());
            if let (true, Instants::Twice(_, second)) = (self.twice, instants) {
                course.again.push_back(second);
            }
            course.next = instant_of(instants);
        }
        match (course.again.front(), course.next) {
            (Some(second), Some(next)) if *second <= next => course.again.pop_front(),
            _ => course.next.take(),
        }
    }
}

impl Course {
    fn new(set: &RRuleSet) -> Self {
        Self { local: set.into_iter(), next: None, again: VecDeque::new(), last: None }
    }
}

/// The zone of local times while a rule is worked out.
const UTC: Tz = Tz::from_static(chrono_tz::UTC);

/// The instant that counts.
const fn instant_of(instants: Instants) -> Option<DateTime<Utc>> {
    match instants {
        Instants::Once(time) | Instants::Twice(time, _) | Instants::Skipped(time) => Some(time),
        Instants::Unknown => None,
    }
}

fn rule_of_parts(params: &Map<String, Value>) -> Result<String, ParamError> {
    let frequency = text(params, "freq")?.ok_or(ParamError::Missing("freq"))?;
    let mut parts = vec![format!("FREQ={}", frequency.to_uppercase())];
    for (name, part) in [("interval", "INTERVAL"), ("count", "COUNT")] {
        if let Some(number) = whole_number(params, name)? {
            parts.push(format!("{part}={number}"));
        }
    }
    if let Some(day) = text(params, "week_start")? {
        parts.push(format!("WKST={}", weekday(day)));
    }
    for (names, part) in LIST_PARTS {
        for name in names {
            if let Some(value) = params.get(*name) {
                let items = list(name, value)?;
                if !items.is_empty() {
                    parts.push(format!("{part}={}", items.join(",")));
                }
            }
        }
    }
    Ok(parts.join(";"))
}

/// Items of a list, of a text with commas, or of one value.
fn list(name: &'static str, value: &Value) -> Result<Vec<String>, ParamError> {
    let item = |value: &Value| match value {
        Value::Number(number) => Ok(number.to_string()),
        Value::String(text) => Ok(weekday(text)),
        _ => Err(ParamError::invalid(name, "must be a list of numbers or texts")),
    };
    match value {
        Value::Null => Ok(Vec::new()),
        Value::Array(values) => values.iter().map(item).collect(),
        Value::String(text) => Ok(text.split(',').filter(|part| !part.trim().is_empty()).map(weekday).collect()),
        other => item(other).map(|one| vec![one]),
    }
}

/// `monday` as `MO`; everything else in upper case.
fn weekday(text: &str) -> String {
    let upper = text.trim().to_uppercase();
    let days = ["MONDAY", "TUESDAY", "WEDNESDAY", "THURSDAY", "FRIDAY", "SATURDAY", "SUNDAY"];
    match days.iter().find(|day| **day == upper || (upper.len() == 3 && day.starts_with(&upper))) {
        Some(day) => day[..2].to_owned(),
        None => upper,
    }
}

/// Seconds from one occurrence to the next of a rule that repeats within the day.
fn period_seconds(rule: &RRule<Unvalidated>) -> Option<u64> {
    let unit = match rule.get_freq() {
        Frequency::Hourly => 3_600,
        Frequency::Minutely => 60,
        Frequency::Secondly => 1,
        Frequency::Daily | Frequency::Weekly | Frequency::Monthly | Frequency::Yearly => return None,
    };
    Some(u64::from(rule.get_interval().max(1)) * unit)
}

/// Moves the start of an endless rule that repeats within the day close to `now`: by whole days that are also whole
/// periods, in local time, so that no occurrence changes.
fn nearer_start(rule: &RRule<Unvalidated>, start: DateTime<Tz>, now: DateTime<Tz>) -> DateTime<Tz> {
    let Some(period) = period_seconds(rule) else {
        return start;
    };
    let step_days = period / greatest_common_divisor(period, DAY_SECONDS);
    // Two days of margin: local times are up to a day from instants, and one that comes twice must not lie behind.
    let age_days = u64::try_from((now - start).num_days().saturating_sub(2)).unwrap_or(0);
    start.checked_add_days(Days::new(age_days / step_days * step_days)).unwrap_or(start)
}

fn greatest_common_divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::schedule::rfc3339;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn times(params: &Value, now: &str, count: usize) -> Vec<String> {
        let mut recurrence = Recurrence::parse(params.as_object().unwrap(), at(now)).unwrap();
        let mut after = at(now);
        let mut found = Vec::new();
        while found.len() < count {
            let Some(next) = recurrence.next_after(after).unwrap() else {
                break;
            };
            found.push(rfc3339(next));
            after = next;
        }
        found
    }

    #[test]
    fn parts_and_a_written_rule_mean_the_same() {
        let expected = ["2026-01-05T08:00:00.000Z", "2026-01-08T08:00:00.000Z", "2026-01-12T08:00:00.000Z"];
        let parts = json!({"freq": "weekly", "by_day": ["monday", "TH"], "dtstart": "2026-01-01T09:00:00",
                           "timezone": "Europe/Berlin", "by_hour": [], "interval": 1});
        assert_eq!(times(&parts, "2026-01-02T00:00:00Z", 3), expected);
        let written = json!({"rule": "RRULE:FREQ=WEEKLY;BYDAY=MO,TH", "dtstart": "2026-01-01T09:00:00",
                             "timezone": "Europe/Berlin"});
        assert_eq!(times(&written, "2026-01-02T00:00:00Z", 3), expected);
    }

    #[test]
    fn count_and_until_end_a_rule() {
        let count = json!({"freq": "DAILY", "count": 3, "dtstart": "2026-01-01T00:00:00Z"});
        assert_eq!(times(&count, "2025-12-31T00:00:00Z", 9).len(), 3);
        let until = json!({"freq": "DAILY", "until": "2026-01-02T00:00:00Z", "dtstart": "2026-01-01T00:00:00Z"});
        assert_eq!(times(&until, "2025-12-31T00:00:00Z", 9).len(), 2);
        assert!(times(&until, "2026-06-01T00:00:00Z", 9).is_empty());
    }

    #[test]
    fn a_fast_rule_that_began_years_ago_keeps_its_phase_and_is_found_at_once() {
        let params = json!({"freq": "SECONDLY", "interval": 7, "dtstart": "2015-01-01T00:00:03Z"});
        let found = times(&params, "2026-01-01T00:00:00Z", 2);
        for time in &found {
            let since = at(time) - at("2015-01-01T00:00:03Z");
            assert_eq!(since.num_seconds() % 7, 0, "{time}");
        }
        assert!(at(&found[0]) - at("2026-01-01T00:00:00Z") <= chrono::TimeDelta::seconds(7), "{found:?}");
    }

    #[test]
    fn a_search_without_end_is_an_error_that_says_what_to_change() {
        let params = json!({"freq": "SECONDLY", "count": 4_000_000, "dtstart": "2015-01-01T00:00:00Z"});
        let mut recurrence = Recurrence::parse(params.as_object().unwrap(), at("2026-01-01T00:00:00Z")).unwrap();
        let error = recurrence.next_after(at("2026-01-01T00:00:00Z")).unwrap_err().to_string();
        assert!(error.contains("give a later one"), "{error}");
    }

    #[test]
    fn a_clock_that_went_back_finds_the_same_occurrences_again() {
        let params = json!({"freq": "HOURLY", "dtstart": "2026-01-01T00:00:00Z"});
        let mut recurrence = Recurrence::parse(params.as_object().unwrap(), at("2026-01-01T05:30:00Z")).unwrap();
        let first = recurrence.next_after(at("2026-01-01T05:30:00Z")).unwrap();
        assert!(recurrence.next_after(at("2026-01-01T09:30:00Z")).unwrap() > first);
        assert_eq!(recurrence.next_after(at("2026-01-01T05:30:00Z")).unwrap(), first);
    }

    #[test]
    fn a_time_that_clocks_skip_comes_as_if_they_had_not() {
        let daily = json!({"freq": "DAILY", "dtstart": "2026-03-28T02:30:00", "timezone": "Europe/Berlin"});
        let expected = ["2026-03-28T01:30:00.000Z", "2026-03-29T01:30:00.000Z", "2026-03-30T00:30:00.000Z"];
        assert_eq!(times(&daily, "2026-03-28T00:00:00Z", 3), expected);
        let half_hours = json!({"freq": "MINUTELY", "interval": 30, "dtstart": "2026-01-01T00:00:00",
                                "timezone": "Europe/Berlin"});
        let expected = [
            "2026-03-29T00:30:00.000Z",
            "2026-03-29T01:00:00.000Z",
            "2026-03-29T01:30:00.000Z",
            "2026-03-29T02:00:00.000Z",
        ];
        assert_eq!(times(&half_hours, "2026-03-29T00:00:00Z", 4), expected);
    }

    #[test]
    fn an_hour_that_comes_twice_has_one_daily_time_and_all_half_hours() {
        let daily = json!({"freq": "DAILY", "dtstart": "2026-10-24T02:30:00", "timezone": "Europe/Berlin"});
        let expected = ["2026-10-24T00:30:00.000Z", "2026-10-25T00:30:00.000Z", "2026-10-26T01:30:00.000Z"];
        assert_eq!(times(&daily, "2026-10-24T00:00:00Z", 3), expected);
        let half_hours = json!({"freq": "MINUTELY", "interval": 30, "dtstart": "2026-01-01T00:00:00",
                                "timezone": "Europe/Berlin"});
        let expected = [
            "2026-10-25T00:00:00.000Z",
            "2026-10-25T00:30:00.000Z",
            "2026-10-25T01:00:00.000Z",
            "2026-10-25T01:30:00.000Z",
            "2026-10-25T02:00:00.000Z",
        ];
        assert_eq!(times(&half_hours, "2026-10-24T23:45:00Z", 5), expected);
        // Also when the search begins within it.
        assert_eq!(times(&half_hours, "2026-10-25T01:15:00Z", 2), expected[3..]);
    }

    #[test]
    fn a_rule_may_name_its_end_in_utc_and_in_local_time() {
        for rule in ["FREQ=DAILY;UNTIL=20260103T080000Z", "FREQ=DAILY;UNTIL=20260103T090000"] {
            let params = json!({"rule": rule, "dtstart": "2026-01-01T09:00:00", "timezone": "Europe/Berlin"});
            let found = times(&params, "2025-12-31T00:00:00Z", 9);
            assert_eq!(found.last().unwrap(), "2026-01-03T08:00:00.000Z", "{rule}");
            assert_eq!(found.len(), 3, "{rule}");
        }
    }

    #[test]
    fn a_rule_that_is_none_is_shown() {
        let params = json!({"freq": "SOMETIMES", "dtstart": "2026-01-01T00:00:00Z"});
        let error = Recurrence::parse(params.as_object().unwrap(), at("2026-01-01T00:00:00Z")).unwrap_err().to_string();
        assert!(error.contains("FREQ=SOMETIMES"), "{error}");
    }
}
