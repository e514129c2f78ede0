//! The types of values. Each reads the text of a variable and the node of a file alike, so that the two cannot differ.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use attune_model::Secret;
use attune_yaml::Value;

use crate::key::{Given, Kind, Shape};

/// Text, as written: `0012` stays `0012`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Text;

impl Kind for Text {
    type Value = String;

    fn describe(&self) -> String {
        "text".to_owned()
    }

    fn read(&self, given: Given<'_>) -> Result<String, String> {
        let text = scalar(given).ok_or_else(|| expected("a text", given))?;
        if text.contains('\0') { Err("must not contain a NUL character".to_owned()) } else { Ok(text) }
    }
}

/// Yes or no.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flag;

impl Kind for Flag {
    type Value = bool;

    fn describe(&self) -> String {
        "`true` or `false`".to_owned()
    }

    fn read(&self, given: Given<'_>) -> Result<bool, String> {
        let text = scalar(given).unwrap_or_default().to_ascii_lowercase();
        match text.as_str() {
            "true" | "yes" | "on" | "1" => Ok(true),
            "false" | "no" | "off" | "0" => Ok(false),
            _ => Err(expected("true or false", given)),
        }
    }
}

/// A whole number within limits.
#[derive(Debug, Clone)]
pub(crate) struct Whole<T>(pub(crate) RangeInclusive<T>);

impl<T: FromStr + PartialOrd + Display> Kind for Whole<T> {
    type Value = T;

    fn describe(&self) -> String {
        format!("whole number from {} to {}", self.0.start(), self.0.end())
    }

    fn read(&self, given: Given<'_>) -> Result<T, String> {
        scalar(given)
            .and_then(|text| text.trim().parse().ok())
            .filter(|number| self.0.contains(number))
            .ok_or_else(|| expected(&format!("a {}", self.describe()), given))
    }
}

/// A length of time, between two numbers of seconds. A number alone counts seconds.
#[derive(Debug, Clone)]
pub(crate) struct Seconds(pub(crate) RangeInclusive<u64>);

const TIME_UNITS: &[(&str, u64)] = &[("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

impl Kind for Seconds {
    type Value = Duration;

    fn describe(&self) -> String {
        format!("duration from {} s to {} s", self.0.start(), self.0.end())
    }

    fn read(&self, given: Given<'_>) -> Result<Duration, String> {
        let range = Duration::from_secs(*self.0.start())..=Duration::from_secs(*self.0.end());
        scalar(given)
            .and_then(|text| with_unit(&text, 1000, TIME_UNITS))
            .map(Duration::from_millis)
            .filter(|duration| range.contains(duration))
            .ok_or_else(|| expected(&format!("a {}, such as 30, 500ms or 2m", self.describe()), given))
    }
}

/// Reads a duration as the configuration does: seconds, or a number with `ms`, `s`, `m`, `h` or `d`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    with_unit(text, 1000, TIME_UNITS)
        .map(Duration::from_millis)
        .ok_or_else(|| format!("expected a duration such as 30, 500ms or 2m, not {text:?}"))
}

/// A number of bytes, up to a limit. A number alone counts bytes.
#[derive(Debug, Clone)]
pub(crate) struct Bytes(pub(crate) RangeInclusive<u64>);

const SIZE_UNITS: &[(&str, u64)] = &[
    ("B", 1),
    ("KB", 1000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
];

impl Kind for Bytes {
    type Value = u64;

    fn describe(&self) -> String {
        format!("size from {} to {} bytes", self.0.start(), self.0.end())
    }

    fn read(&self, given: Given<'_>) -> Result<u64, String> {
        scalar(given)
            .and_then(|text| with_unit(&text, 1, SIZE_UNITS))
            .filter(|bytes| self.0.contains(bytes))
            .ok_or_else(|| expected(&format!("a {}, such as 4096, 512KiB or 10MiB", self.describe()), given))
    }
}

/// One of a few words.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Choice<T: 'static>(pub(crate) &'static [(&'static str, T)]);

impl<T: Copy> Kind for Choice<T> {
    type Value = T;

    fn describe(&self) -> String {
        let words: Vec<String> = self.0.iter().map(|(word, _)| format!("`{word}`")).collect();
        words.join(", ")
    }

    fn read(&self, given: Given<'_>) -> Result<T, String> {
        let text = scalar(given).unwrap_or_default().trim().to_ascii_lowercase();
        self.0
            .iter()
            .find(|(word, _)| *word == text)
            .map(|(_, value)| *value)
            .ok_or_else(|| expected(&format!("one of {}", self.describe()), given))
    }
}

/// A folder. A relative one is meant from the working folder of the start.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Folder;

impl Kind for Folder {
    type Value = PathBuf;

    fn describe(&self) -> String {
        "folder".to_owned()
    }

    fn read(&self, given: Given<'_>) -> Result<PathBuf, String> {
        Text.read(given).map(PathBuf::from)
    }
}

/// A file. A relative one is meant from the working folder of the start.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FilePath;

impl Kind for FilePath {
    type Value = PathBuf;

    fn describe(&self) -> String {
        "file".to_owned()
    }

    fn read(&self, given: Given<'_>) -> Result<PathBuf, String> {
        Text.read(given).map(PathBuf::from)
    }
}

/// Text that is never shown. It may also stand in a file, named by the same key with `_file` at the end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SecretText {
    /// Fewer characters are refused.
    pub(crate) least_characters: usize,
    /// When not empty, it is a URL with one of these schemes.
    pub(crate) schemes: &'static [&'static str],
}

impl Kind for SecretText {
    type Value = Secret;

    fn describe(&self) -> String {
        if self.schemes.is_empty() { "secret".to_owned() } else { format!("secret URL ({})", self.schemes.join(", ")) }
    }

    fn read(&self, given: Given<'_>) -> Result<Secret, String> {
        let text = Text.read(given).map_err(|_shown| "must be a text".to_owned())?;
        if text.is_empty() && self.least_characters == 1 {
            return Err("must not be empty".to_owned());
        }
        if text.chars().count() < self.least_characters {
            return Err(format!("must have at least {} characters", self.least_characters));
        }
        let rest = text.split_once("://").filter(|(scheme, _)| self.schemes.contains(scheme)).map(|(_, rest)| rest);
        if !self.schemes.is_empty() && rest.is_none_or(str::is_empty) {
            return Err(format!("must be a URL that begins with {}", self.schemes.map_join("://")));
        }
        Ok(Secret::new(text))
    }

    fn shape(&self) -> Shape {
        Shape::Secret
    }
}

trait MapJoin {
    fn map_join(&self, ending: &str) -> String;
}

impl MapJoin for [&str] {
    fn map_join(&self, ending: &str) -> String {
        let words: Vec<String> = self.iter().map(|word| format!("{word}{ending}")).collect();
        words.join(" or ")
    }
}

/// The text of a scalar as written; none for lists and mappings.
pub(crate) fn scalar(given: Given<'_>) -> Option<String> {
    match given {
        Given::Text(text) => Some(text.to_owned()),
        Given::Json(serde_json::Value::String(text)) => Some(text.clone()),
        Given::Json(_) => None,
        Given::Node(node) => match &node.value {
            Value::String(text) | Value::Number { source: text, .. } => Some(text.clone()),
            Value::Bool(value) => Some(value.to_string()),
            Value::Null | Value::Sequence(_) | Value::Mapping(_) => None,
        },
    }
}

/// `must be …, not …`, for values that may be shown.
pub(crate) fn expected(wanted: &str, given: Given<'_>) -> String {
    match (given, scalar(given)) {
        (_, Some(text)) => format!("must be {wanted}, not {text:?}"),
        (Given::Node(node), None) => format!("must be {wanted}, not {}", node.kind()),
        (Given::Text(_) | Given::Json(_), None) => format!("must be {wanted}"),
    }
}

/// `12`, `12s`, `12 s` as a count of the smallest unit; a number alone counts `alone` of them.
fn with_unit(text: &str, alone: u64, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    let unit = unit.trim_start();
    let factor = if unit.is_empty() { alone } else { units.iter().find(|(name, _)| *name == unit)?.1 };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_seconds_unless_it_says_otherwise() {
        let kind = Seconds(0..=100_000);
        for (text, expected) in
            [("30", 30_000), ("30s", 30_000), ("30 s", 30_000), ("500ms", 500), ("2m", 120_000), ("1h", 3_600_000)]
        {
            assert_eq!(kind.read(Given::Text(text)), Ok(Duration::from_millis(expected)), "{text}");
        }
        for text in ["", "s", "-1", "1.5", "5 weeks", "200000", "99999999999999999999", "1d 2h"] {
            let problem = kind.read(Given::Text(text)).unwrap_err();
            assert!(problem.starts_with("must be a duration from 0 s to 100000 s"), "{text}: {problem}");
        }
    }

    #[test]
    fn the_command_line_takes_durations_like_the_configuration() {
        assert_eq!(parse_duration("1500ms"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_duration("2"), Ok(Duration::from_secs(2)));
        assert_eq!(parse_duration("soon"), Err("expected a duration such as 30, 500ms or 2m, not \"soon\"".to_owned()));
    }

    #[test]
    fn a_size_is_bytes_unless_it_says_otherwise() {
        let kind = Bytes(0..=1 << 30);
        for (text, expected) in [("4096", 4096), ("512KiB", 524_288), ("10 MB", 10_000_000), ("1GiB", 1 << 30)] {
            assert_eq!(kind.read(Given::Text(text)), Ok(expected), "{text}");
        }
        for text in ["1 GiB2", "2GiB", "10mib", "MiB", "18446744073709551615KiB"] {
            assert!(kind.read(Given::Text(text)).is_err(), "{text}");
        }
    }

    #[test]
    fn numbers_have_limits_and_text_keeps_its_form() {
        assert_eq!(Whole(1..=10_u32).read(Given::Text("007")), Ok(7));
        assert_eq!(
            Whole(1..=10_u32).read(Given::Text("11")),
            Err("must be a whole number from 1 to 10, not \"11\"".to_owned())
        );
        assert_eq!(Text.read(Given::Text("0012")), Ok("0012".to_owned()));
        let node = attune_yaml::parse("0012").unwrap();
        assert_eq!(Text.read(Given::Node(&node)), Ok("0012".to_owned()));
        let list = attune_yaml::parse("[1]").unwrap();
        assert_eq!(Text.read(Given::Node(&list)), Err("must be a text, not a list".to_owned()));
    }

    #[test]
    fn a_refused_secret_is_not_shown() {
        let kind = SecretText { least_characters: 0, schemes: &["amqp", "amqps"] };
        for text in ["http://user:hunter2@host", "hunter2", "amqp://"] {
            assert_eq!(
                kind.read(Given::Text(text)).unwrap_err(),
                "must be a URL that begins with amqp:// or amqps://",
                "{text}"
            );
        }
        assert_eq!(kind.read(Given::Text("amqp://u:p@host")).unwrap().expose(), "amqp://u:p@host");
        let short = SecretText { least_characters: 32, schemes: &[] };
        assert_eq!(short.read(Given::Text("hunter2")).unwrap_err(), "must have at least 32 characters");
        let any = SecretText { least_characters: 1, schemes: &[] };
        assert_eq!(any.read(Given::Text("")).unwrap_err(), "must not be empty");
    }
}
