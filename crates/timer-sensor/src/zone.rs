//! Time zones, and what a local time means in one.

use std::fmt;

use chrono::{DateTime, Datelike as _, NaiveDateTime, TimeDelta, Timelike as _, Utc};
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{Timestamp, Zoned, civil};

use crate::table;

/// A time zone of the IANA database that is part of the binary.
#[derive(Debug, Clone)]
pub(crate) struct Zone(TimeZone);

/// When a clock on the wall shows a local time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Instants {
    Once(DateTime<Utc>),
    /// Clocks go back over it.
    Twice(DateTime<Utc>, DateTime<Utc>),
    /// Clocks go forward over it; the instant is what it would be had they not (RFC 5545, section 3.3.5).
    Skipped(DateTime<Utc>),
    /// Beyond the years that can be told.
    Unknown,
}

impl Zone {
    pub(crate) const fn utc() -> Self {
        Self(TimeZone::UTC)
    }

    /// The zone of that name, in upper or lower case.
    pub(crate) fn named(name: &str) -> Option<Self> {
        table::zone(name).map(Self)
    }

    /// A time as clocks of this zone show it.
    pub(crate) fn zoned(&self, time: DateTime<Utc>) -> Option<Zoned> {
        Some(timestamp(time)?.to_zoned(self.0.clone()))
    }

    /// What clocks of this zone show at a time.
    pub(crate) fn local(&self, time: DateTime<Utc>) -> Option<NaiveDateTime> {
        let offset = self.0.to_offset(timestamp(time)?).seconds();
        time.naive_utc().checked_add_signed(TimeDelta::seconds(offset.into()))
    }

    /// When clocks of this zone show a local time.
    pub(crate) fn instants(&self, local: NaiveDateTime) -> Instants {
        let Some(local) = civil(local) else {
            return Instants::Unknown;
        };
        let at = |offset: jiff::tz::Offset| utc(offset.to_timestamp(local).ok()?);
        let found = match self.0.to_ambiguous_timestamp(local).offset() {
            AmbiguousOffset::Unambiguous { offset } => at(offset).map(Instants::Once),
            AmbiguousOffset::Gap { before, .. } => at(before).map(Instants::Skipped),
            AmbiguousOffset::Fold { before, after } => {
                at(before).zip(at(after)).map(|(first, second)| Instants::Twice(first, second))
            }
        };
        found.unwrap_or(Instants::Unknown)
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.iana_name().unwrap_or("UTC"))
    }
}

/// The same instant in the type of messages and rows.
pub(crate) fn utc(time: Timestamp) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp(time.as_second(), u32::try_from(time.subsec_nanosecond()).ok()?)
}

fn timestamp(time: DateTime<Utc>) -> Option<Timestamp> {
    Timestamp::new(time.timestamp(), i32::try_from(time.timestamp_subsec_nanos()).ok()?).ok()
}

fn civil(local: NaiveDateTime) -> Option<civil::DateTime> {
    let part = |value: u32| i8::try_from(value).ok();
    // A leap second is nanoseconds beyond the last second here, and that last second there.
    let nanoseconds = local.nanosecond().min(999_999_999);
    civil::DateTime::new(
        local.year().try_into().ok()?,
        part(local.month())?,
        part(local.day())?,
        part(local.hour())?,
        part(local.minute())?,
        part(local.second())?,
        nanoseconds.try_into().ok()?,
    )
    .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn instants(zone: &str, local: &str) -> Instants {
        Zone::named(zone).unwrap().instants(local.parse().unwrap())
    }

    #[test]
    fn a_local_time_is_once_twice_or_skipped() {
        assert_eq!(instants("Europe/Berlin", "2026-01-01T09:00:00"), Instants::Once(at("2026-01-01T08:00:00Z")));
        assert_eq!(instants("Europe/Berlin", "2026-03-29T02:30:00"), Instants::Skipped(at("2026-03-29T01:30:00Z")));
        assert_eq!(
            instants("Europe/Berlin", "2026-10-25T02:30:00"),
            Instants::Twice(at("2026-10-25T00:30:00Z"), at("2026-10-25T01:30:00Z"))
        );
        assert_eq!(instants("Australia/Lord_Howe", "2040-07-01T12:00:00"), Instants::Once(at("2040-07-01T01:30:00Z")));
        assert_eq!(Zone::utc().instants(NaiveDateTime::MAX), Instants::Unknown);
    }

    #[test]
    fn old_names_and_any_case_are_known_and_places_of_other_worlds_are_not() {
        for name in ["UTC", "Etc/UTC", "US/Pacific", "Asia/Calcutta", "EST5EDT", "europe/berlin", "GMT"] {
            assert!(Zone::named(name).is_some(), "{name}");
        }
        assert!(Zone::named("Mars/Crater").is_none());
        assert_eq!(Zone::named("europe/berlin").unwrap().to_string(), "Europe/Berlin");
    }

    #[test]
    fn what_clocks_show_is_told_to_the_nanosecond() {
        let zone = Zone::named("Asia/Kathmandu").unwrap();
        let shown = zone.local(at("2026-01-01T00:00:00.123456789Z")).unwrap();
        assert_eq!(shown.to_string(), "2026-01-01 05:45:00.123456789");
        assert_eq!(zone.instants(shown), Instants::Once(at("2026-01-01T00:00:00.123456789Z")));
    }
}
