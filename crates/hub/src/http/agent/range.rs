//! One range of a file (RFC 9110, 14.2). Several at once, other units and what cannot be read are answered with the whole.

/// What to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// Everything.
    All,
    /// From `first` to `last`, both included.
    Some {
        /// First byte.
        first: u64,
        /// Last byte.
        last: u64,
    },
    /// The range begins behind the end.
    Nothing,
}

/// Reads the header `Range` for a file of `size` bytes.
pub(super) fn part(range: Option<&str>, size: u64) -> Part {
    let Some((first, last)) =
        range.and_then(|range| range.trim().strip_prefix("bytes=")).and_then(|range| range.split_once('-'))
    else {
        return Part::All;
    };
    let (Ok(first), Ok(last)) = (number(first), number(last)) else {
        return Part::All;
    };
    let end = size.saturating_sub(1);
    match (first, last) {
        (None, None) => Part::All,
        (Some(first), Some(last)) if last < first => Part::All,
        (Some(first), _) if first >= size => Part::Nothing,
        (Some(first), last) => Part::Some { first, last: last.map_or(end, |last| last.min(end)) },
        (None, Some(0)) => Part::Nothing,
        (None, Some(_)) if size == 0 => Part::Nothing,
        (None, Some(count)) => Part::Some { first: size.saturating_sub(count), last: end },
    }
}

/// None for an empty text; an error for what is no number.
fn number(text: &str) -> Result<Option<u64>, ()> {
    if text.is_empty() {
        return Ok(None);
    }
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(());
    }
    // More than fits is behind every end.
    Ok(Some(text.parse().unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_the_standard_says() {
        let some = |first, last| Part::Some { first, last };
        for (range, wanted) in [
            ("bytes=0-0", some(0, 0)),
            ("bytes=2-5", some(2, 5)),
            ("bytes=2-", some(2, 9)),
            ("bytes=2-99999999999999999999999", some(2, 9)),
            ("bytes=-3", some(7, 9)),
            ("bytes=-30", some(0, 9)),
            ("bytes=10-", Part::Nothing),
            ("bytes=99999999999999999999999-", Part::Nothing),
            ("bytes=-0", Part::Nothing),
            ("bytes=5-2", Part::All),
            ("bytes=-", Part::All),
            ("bytes=0-1,3-4", Part::All),
            ("bytes=+1-2", Part::All),
            ("lines=0-1", Part::All),
            ("", Part::All),
        ] {
            assert_eq!(part(Some(range), 10), wanted, "{range}");
        }
        assert_eq!(part(None, 10), Part::All);
        assert_eq!(part(Some("bytes=-1"), 0), Part::Nothing);
        assert_eq!(part(Some("bytes=0-"), 0), Part::Nothing);
    }
}
