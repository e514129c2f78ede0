//! The shapes in which a secret may show up in output.
//!
//! Not covered, because the cut positions cannot be known: base64 that is wrapped into lines.

use std::fmt::Write as _;

use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

use super::MIN_SECRET_BYTES;

/// Whether there is anything to look for.
pub(super) fn has_shapes(secret: &[u8]) -> bool {
    texts(secret).next().is_some()
}

/// All shapes of `secret` as a whole and of each of its lines. Each has at least [`MIN_SECRET_BYTES`].
pub(super) fn shapes_of(secret: &[u8]) -> Vec<Vec<u8>> {
    let mut shapes = Vec::new();
    for text in texts(secret) {
        add_shapes(text, &mut shapes);
    }
    shapes
}

/// The secret and its lines, those that are long enough.
fn texts(secret: &[u8]) -> impl Iterator<Item = &[u8]> {
    let lines = secret.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    let all = [secret, secret.trim_ascii()].into_iter().chain(lines);
    all.filter(|text| text.trim_ascii().len() >= MIN_SECRET_BYTES)
}

fn add_shapes(text: &[u8], shapes: &mut Vec<Vec<u8>>) {
    shapes.push(text.to_vec());
    for phase in 0..3 {
        shapes.push(base64(&STANDARD_NO_PAD, text, phase));
        shapes.push(base64(&URL_SAFE_NO_PAD, text, phase));
    }
    // By the RFC, by encodeURIComponent, by forms, by PHP and by .NET; then as a path, by Python's quote and by encodeURI.
    for unreserved in [&b"-_.~"[..], b"-_.!~*'()", b"-_.*", b"-_.", b"-_.!*()", b"-_.~/", b"-_.!~*'();/?:@&=+$,#"] {
        for hex in [Hex::Upper, Hex::Lower] {
            shapes.push(percent(text, unreserved, hex, b"%20"));
            shapes.push(percent(text, unreserved, hex, b"+"));
        }
    }
    if let Ok(text) = str::from_utf8(text) {
        // Plain, by Python, by Go, by PHP, by .NET.
        shapes.push(json(text, Hex::Lower, "/", |_| false));
        shapes.push(json(text, Hex::Lower, "/", |letter| !letter.is_ascii()));
        shapes.push(json(text, Hex::Lower, "/", |letter| matches!(letter, '<' | '>' | '&')));
        shapes.push(json(text, Hex::Lower, "\\/", |letter| !letter.is_ascii()));
        shapes.push(json(text, Hex::Upper, "/", |letter| !letter.is_ascii() || "<>&+'\"`".contains(letter)));
    }
}

/// The characters that depend on `text` alone when it stands `phase` bytes after a multiple of three in a longer text.
fn base64(engine: &impl base64::Engine, text: &[u8], phase: usize) -> Vec<u8> {
    let mut padded = vec![0; phase];
    padded.extend_from_slice(text);
    let mut encoded = engine.encode(&padded).into_bytes();
    // The last character also carries bits of what follows, unless it ends with a whole byte.
    if !padded.len().is_multiple_of(3) {
        encoded.pop();
    }
    // The first ones also carry bits of what stands before.
    let foreign = [0, 2, 3][phase];
    encoded.drain(..foreign);
    encoded
}

#[derive(Clone, Copy)]
enum Hex {
    Upper,
    Lower,
}

/// URL escapes, except for letters, digits and `unreserved`.
fn percent(text: &[u8], unreserved: &[u8], hex: Hex, space: &[u8]) -> Vec<u8> {
    let digits: &[u8; 16] = match hex {
        Hex::Upper => b"0123456789ABCDEF",
        Hex::Lower => b"0123456789abcdef",
    };
    let mut escaped = Vec::with_capacity(text.len());
    for byte in text {
        match byte {
            b' ' => escaped.extend_from_slice(space),
            byte if byte.is_ascii_alphanumeric() || unreserved.contains(byte) => {
                escaped.push(*byte);
            }
            byte => {
                let (high, low) = (usize::from(byte >> 4), usize::from(byte & 15));
                escaped.extend_from_slice(&[b'%', digits[high], digits[low]]);
            }
        }
    }
    escaped
}

/// The inside of a JSON string, with `slash` for a slash; also characters that `as_number` chooses are written as numbers.
fn json(text: &str, hex: Hex, slash: &str, as_number: impl Fn(char) -> bool) -> Vec<u8> {
    let mut inside = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '"' if !as_number('"') => inside.push_str("\\\""),
            '/' => inside.push_str(slash),
            '\\' => inside.push_str("\\\\"),
            '\n' => inside.push_str("\\n"),
            '\r' => inside.push_str("\\r"),
            '\t' => inside.push_str("\\t"),
            '\u{8}' => inside.push_str("\\b"),
            '\u{c}' => inside.push_str("\\f"),
            letter if letter < ' ' || as_number(letter) => {
                for unit in letter.encode_utf16(&mut [0; 2]) {
                    match hex {
                        Hex::Lower => write!(inside, "\\u{unit:04x}"),
                        Hex::Upper => write!(inside, "\\u{unit:04X}"),
                    }
                    .expect("a String takes everything");
                }
            }
            letter => inside.push(letter),
        }
    }
    inside.into_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As `urllib.parse.quote`, `encodeURI` and `JsonSerializer` write it.
    #[test]
    fn a_secret_with_signs_is_known_in_addresses_and_in_json_of_net() {
        let shapes = shapes_of(b"ab/cd+ef==12<x>");
        for known in ["ab/cd%2Bef%3D%3D12%3Cx%3E", "ab/cd+ef==12%3Cx%3E", "ab/cd\\u002Bef==12\\u003Cx\\u003E"] {
            assert!(shapes.iter().any(|shape| shape == known.as_bytes()), "{known}");
        }
    }

    /// As PHP's `urlencode` and .NET's `HttpUtility.UrlEncode` write it.
    #[test]
    fn a_secret_is_known_in_the_addresses_of_php_and_of_net() {
        let shapes = shapes_of(b"a b~c*d(e)");
        for known in ["a+b%7Ec%2Ad%28e%29", "a+b%7ec*d(e)"] {
            assert!(shapes.iter().any(|shape| shape == known.as_bytes()), "{known}");
        }
    }

    proptest! {
        #[test]
        fn no_shape_is_shorter_than_the_shortest_secret(
            secret in prop::collection::vec(any::<u8>(), 0..30),
        ) {
            for shape in shapes_of(&secret) {
                prop_assert!(shape.len() >= MIN_SECRET_BYTES, "{shape:?}");
            }
        }

        #[test]
        fn a_secret_is_known_as_other_languages_write_it(text in "[!-~]{6,20}") {
            let shapes = shapes_of(text.as_bytes());
            let php = serde_json::to_string(&text).unwrap().replace('/', "\\/");
            prop_assert!(shapes.iter().any(|shape| *shape == php.as_bytes()[1..php.len() - 1]));
        }

        #[test]
        fn the_plain_json_shape_is_what_json_is(text in "\\PC{6,20}|[\\x00-\\x7f]{6,20}") {
            let encoded = json(&text, Hex::Lower, "/", |_| false);
            let decoded: String = serde_json::from_slice(&[b"\"", &encoded[..], b"\""].concat()).unwrap();
            prop_assert_eq!(decoded, text);
        }
    }
}
