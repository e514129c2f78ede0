//! The text of a recurrence rule (RFC 5545, section 3.3.10), read into the library's type.
//!
//! The library reads texts as well: with regular expressions, which nothing else of a timer needs and which are half a
//! megabyte, and an end without an offset is to it one in the zone of this machine.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::str::FromStr;

use chrono::{DateTime, Month, NaiveDate, NaiveDateTime, NaiveTime, Utc, Weekday};
use recurrence::{Frequency, NWeekday, RRule, Unvalidated};

/// A rule, with its end beside it.
pub(crate) struct Written {
    pub(crate) rule: RRule<Unvalidated>,
    pub(crate) end: Option<End>,
}

/// When a rule ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    At(DateTime<Utc>),
    /// In the zone of the timer.
    Local(NaiveDateTime),
}

impl FromStr for Written {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut written = Self { rule: RRule::new(Frequency::Daily), end: None };
        let mut seen = BTreeSet::new();
        for part in text.split(';').map(str::trim).filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').ok_or_else(|| format!("{part} has no value"))?;
            // Two names for the same.
            let name = match name.to_ascii_uppercase() {
                name if name == "BYWEEKDAY" => "BYDAY".to_owned(),
                name => name,
            };
            written.add(&name, value)?;
            if !seen.insert(name) {
                return Err(format!("{part} comes second"));
            }
        }
        if seen.contains("FREQ") { Ok(written) } else { Err("FREQ is missing".to_owned()) }
    }
}

impl Written {
    fn add(&mut self, name: &str, value: &str) -> Result<(), String> {
        let wrong = |what: &str| format!("{name}={value} is not {what}");
        let rule = self.rule.clone();
        self.rule = match name {
            "FREQ" => rule.freq(value.parse().map_err(|_| wrong("a frequency such as DAILY"))?),
            "INTERVAL" => rule.interval(value.parse().map_err(|_| wrong("a number of periods"))?),
            "COUNT" => rule.count(value.parse().map_err(|_| wrong("a number of occurrences"))?),
            "UNTIL" => {
                self.end = Some(end(value).ok_or_else(|| wrong("a time such as 20300131T080000Z"))?);
                rule
            }
            "WKST" => rule.week_start(weekday(value).ok_or_else(|| wrong("a day such as MO"))?),
            "BYDAY" => rule.by_weekday(days(value).ok_or_else(|| wrong("a list of days such as MO,-1FR"))?),
            "BYMONTH" => rule.by_month(&months(value).ok_or_else(|| wrong("a list of months from 1 to 12"))?),
            "BYMONTHDAY" => {
                rule.by_month_day(numbers(value, -31..=31).ok_or_else(|| wrong("a list of days of a month"))?)
            }
            "BYYEARDAY" => {
                rule.by_year_day(numbers(value, -366..=366).ok_or_else(|| wrong("a list of days of a year"))?)
            }
            "BYWEEKNO" => rule.by_week_no(numbers(value, -53..=53).ok_or_else(|| wrong("a list of weeks of a year"))?),
            "BYHOUR" => rule.by_hour(numbers(value, 0..=23).ok_or_else(|| wrong("a list of hours from 0 to 23"))?),
            "BYMINUTE" => {
                rule.by_minute(numbers(value, 0..=59).ok_or_else(|| wrong("a list of minutes from 0 to 59"))?)
            }
            "BYSECOND" => {
                rule.by_second(numbers(value, 0..=59).ok_or_else(|| wrong("a list of seconds from 0 to 59"))?)
            }
            "BYSETPOS" => {
                rule.by_set_pos(numbers(value, i32::MIN..=i32::MAX).ok_or_else(|| wrong("a list of numbers"))?)
            }
            _ => return Err(format!("{name} is not a part of a rule")),
        };
        Ok(())
    }
}

/// In order, each once. Nothing is none.
fn numbers<T: FromStr + Ord + Copy>(value: &str, allowed: RangeInclusive<T>) -> Option<Vec<T>> {
    if value.trim().is_empty() {
        return Some(Vec::new());
    }
    let each = value.split(',').map(|item| item.trim().parse().ok().filter(|number| allowed.contains(number)));
    let found: BTreeSet<T> = each.collect::<Option<_>>()?;
    Some(found.into_iter().collect())
}

fn months(value: &str) -> Option<Vec<Month>> {
    numbers(value, 1..=12)?.into_iter().map(|number: u8| Month::try_from(number).ok()).collect()
}

/// Each perhaps with a number before it: of that month or year, from its end if negative.
fn days(value: &str) -> Option<Vec<NWeekday>> {
    let day = |item: &str| {
        let (number, name) = item.split_at_checked(item.len().checked_sub(2)?)?;
        let number = match number {
            "" => None,
            number => Some(number.parse().ok().filter(|number| *number != 0)?),
        };
        Some(NWeekday::new(number, weekday(name)?))
    };
    value.split(',').map(|item| day(item.trim())).collect()
}

fn weekday(name: &str) -> Option<Weekday> {
    Some(match name.to_ascii_uppercase().as_str() {
        "MO" => Weekday::Mon,
        "TU" => Weekday::Tue,
        "WE" => Weekday::Wed,
        "TH" => Weekday::Thu,
        "FR" => Weekday::Fri,
        "SA" => Weekday::Sat,
        "SU" => Weekday::Sun,
        _ => return None,
    })
}

/// A day alone means its beginning. Each digit has to be there: the library for times would read another day without one.
fn end(value: &str) -> Option<End> {
    let is_of_digits = |text: &str, count| text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
    let Some((day, time)) = value.split_once('T') else {
        let day = NaiveDate::parse_from_str(value, "%Y%m%d").ok().filter(|_| is_of_digits(value, 8))?;
        return Some(End::Local(day.and_time(NaiveTime::MIN)));
    };
    let local = time.strip_suffix('Z').unwrap_or(time);
    if !is_of_digits(day, 8) || !is_of_digits(local, 6) {
        return None;
    }
    let end = NaiveDateTime::parse_from_str(&format!("{day}{local}"), "%Y%m%d%H%M%S").ok()?;
    Some(if local.len() == time.len() { End::Local(end) } else { End::At(end.and_utc()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every rule means what the library reads in the same text.
    #[test]
    fn a_text_means_what_the_library_reads_in_it() {
        for text in [
            "FREQ=DAILY",
            "freq=weekly;byday=mo,TH;wkst=SU;interval=2",
            "FREQ=MONTHLY;BYDAY=MO,-1FR,+2SA;BYSETPOS=-1,1;COUNT=12",
            "FREQ=YEARLY;BYMONTH=12,1,2,1;BYMONTHDAY=-1,31;BYHOUR=0,23;BYMINUTE=59;BYSECOND=0,30",
            "FREQ=YEARLY;BYWEEKNO=20,-1;BYYEARDAY=1,-366;BYWEEKDAY=SU",
            "FREQ=SECONDLY;INTERVAL=65535",
            "FREQ=MINUTELY;",
            "FREQ=HOURLY;COUNT=4294967295",
            "FREQ=DAILY;BYHOUR=;BYMONTH=;BYSETPOS=",
        ] {
            let library: RRule<Unvalidated> = text.trim_end_matches(';').parse().unwrap();
            let ours: Written = text.parse().unwrap();
            assert_eq!(ours.rule, library, "{text}");
            assert_eq!(ours.end, None, "{text}");
        }
    }

    #[test]
    fn an_end_is_an_instant_or_a_local_time() {
        let end = |value: &str| format!("FREQ=DAILY;UNTIL={value}").parse::<Written>().unwrap().end.unwrap();
        let time = NaiveDate::from_ymd_opt(2026, 1, 31).unwrap().and_hms_opt(8, 30, 0).unwrap();
        assert_eq!(end("20260131T083000Z"), End::At(time.and_utc()));
        assert_eq!(end("20260131T083000"), End::Local(time));
        assert_eq!(end("20260131"), End::Local(time.date().and_time(NaiveTime::MIN)));
    }

    #[test]
    fn what_is_no_rule_is_named() {
        let misses_digits = [
            "2026111",
            "2026101T080000Z",
            "20260131T08305Z",
            "20260131T",
            "20260131Z",
            "+2026013",
            "2026 131",
            " 20260131",
        ];
        for value in misses_digits {
            let error = format!("FREQ=DAILY;UNTIL={value}").parse::<Written>().err().unwrap();
            assert!(error.contains(&format!("UNTIL={value} is not a time")), "{error}");
        }
        for (text, named) in [
            ("", "FREQ is missing"),
            ("INTERVAL=2", "FREQ is missing"),
            ("FREQ", "FREQ has no value"),
            ("FREQ=SOMETIMES", "FREQ=SOMETIMES is not a frequency"),
            ("FREQ=DAILY;FREQ=WEEKLY", "FREQ=WEEKLY comes second"),
            ("FREQ=DAILY;BYDAY=MO;BYWEEKDAY=TU", "BYWEEKDAY=TU comes second"),
            ("FREQ=DAILY;BYHOUR=24", "BYHOUR=24 is not a list of hours"),
            ("FREQ=DAILY;BYMONTH=0", "BYMONTH=0 is not"),
            ("FREQ=DAILY;BYMONTHDAY=32", "BYMONTHDAY=32 is not"),
            ("FREQ=DAILY;BYDAY=XMO", "BYDAY=XMO is not"),
            ("FREQ=DAILY;BYDAY=0MO", "BYDAY=0MO is not"),
            ("FREQ=DAILY;BYDAY=é", "BYDAY=é is not"),
            ("FREQ=DAILY;INTERVAL=-1", "INTERVAL=-1 is not"),
            ("FREQ=DAILY;UNTIL=tomorrow", "UNTIL=tomorrow is not a time"),
            ("FREQ=DAILY;UNTIL=20260230T000000Z", "UNTIL=20260230T000000Z is not a time"),
            ("FREQ=DAILY;BYEASTER=1", "BYEASTER is not a part of a rule"),
        ] {
            let error = text.parse::<Written>().err().unwrap();
            assert!(error.contains(named), "{text:?}: {error}");
        }
    }
}
