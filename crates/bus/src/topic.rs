//! Topic patterns as AMQP defines them.

/// Whether `key` matches `pattern`: words between dots, `*` is one word, `#` is any number of words.
pub fn matches(pattern: &str, key: &str) -> bool {
    let pattern: Vec<&str> = pattern.split('.').collect();
    let key: Vec<&str> = key.split('.').collect();
    words_match(&pattern, &key)
}

fn words_match(pattern: &[&str], key: &[&str]) -> bool {
    match (pattern.split_first(), key.split_first()) {
        (None, None) => true,
        (Some((&"#", rest)), _) => (0..=key.len()).any(|skip| words_match(rest, &key[skip..])),
        (None, Some(_)) | (Some(_), None) => false,
        (Some((word, pattern_rest)), Some((key_word, key_rest))) => {
            (*word == "*" || word == key_word) && words_match(pattern_rest, key_rest)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn patterns_match_as_amqp_says() {
        for (pattern, key, expected) in [
            ("rule.created", "rule.created", true),
            ("rule.created", "rule.deleted", false),
            ("rule.*", "rule.created", true),
            ("rule.*", "rule", false),
            ("rule.*", "rule.a.b", false),
            ("#", "anything.at.all", true),
            ("execution.#", "execution", true),
            ("execution.#", "execution.dispatch.worker.7", true),
            ("#.worker.*", "execution.dispatch.worker.7", true),
            ("#.worker.*", "execution.dispatch.worker", false),
        ] {
            assert_eq!(matches(pattern, key), expected, "{pattern} {key}");
        }
    }
}
