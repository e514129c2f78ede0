//! The last lines of a sensor's standard error, as they go into its row (form: a fact of the platform).

/// How much of standard error is remembered.
pub(crate) const LIMIT_BYTES: usize = 16 * 1024;
const LIMIT_LINES: usize = 80;

/// The excerpt of `tail`, the last bytes of a stream of which `dropped_bytes` came before; none when there is nothing to
/// see. Free of NUL, which PostgreSQL's text cannot hold.
pub(crate) fn excerpt(tail: &[u8], dropped_bytes: u64) -> Option<String> {
    // A cut through a character leaves continuation bytes in front.
    let cut = dropped_bytes > 0;
    let begin = if cut { tail.iter().take_while(|byte| **byte & 0xC0 == 0x80).count() } else { 0 };
    let text = String::from_utf8_lossy(&tail[begin..]).replace('\0', "");
    let text = text.trim_end_matches(['\n', '\r']);
    if text.trim_matches(['\n', '\r']).is_empty() {
        return None;
    }
    let mut last: Vec<&str> = text.rsplitn(LIMIT_LINES + 1, '\n').take(LIMIT_LINES).collect();
    last.reverse();
    let lines = last.join("\n");
    Some(if cut { format!("…\n{lines}") } else { lines })
}

/// The excerpt with what the host makes of it as its last line.
pub(crate) fn with_hint(excerpt: Option<String>, hint: Option<&str>) -> Option<String> {
    let Some(hint) = hint else { return excerpt };
    let hint = format!("[attune: {hint}]");
    Some(excerpt.map_or_else(|| hint.clone(), |excerpt| format!("{excerpt}\n{hint}")))
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    fn numbered(count: usize) -> String {
        (1..=count).fold(String::new(), |mut text, number| {
            writeln!(text, "line-{number}").unwrap();
            text
        })
    }

    #[test]
    fn the_last_eighty_lines_are_kept() {
        let text = excerpt(numbered(100).as_bytes(), 0).unwrap();
        assert_eq!(text.lines().count(), 80);
        assert!(text.starts_with("line-21\n") && text.ends_with("line-100"), "{text}");
    }

    #[test]
    fn a_cut_by_bytes_is_marked_and_leaves_whole_characters() {
        let tail = "ß last".as_bytes();
        assert_eq!(excerpt(&tail[1..], 7).unwrap(), "…\n last");
        assert!(excerpt(numbered(100).as_bytes(), 1).unwrap().lines().count() <= 81);
    }

    #[test]
    fn nul_and_invalid_bytes_do_not_reach_the_row() {
        assert_eq!(excerpt(b"a\0b\xff\n", 0).unwrap(), "ab\u{fffd}");
    }

    #[test]
    fn nothing_to_see_is_none() {
        assert_eq!(excerpt(b"", 0), None);
        assert_eq!(excerpt(b"\n\r\n\n", 0), None);
    }
}
