//! What the helper child says after it has attacked the agent that started it.

/// What must be refused to code without the privilege to trace, whoever it runs as.
const REFUSED: &[&str] =
    &["environment", "environment of a thread", "maps", "memory", "descriptors", "working directory", "root", "trace"];

pub struct Attack {
    pub text: String,
}

impl Attack {
    /// Panics when the attack did not take place.
    pub fn new(output: &[u8]) -> Self {
        let text = String::from_utf8_lossy(output).into_owned();
        assert!(text.contains("own environment: found") && text.contains("Exited(0) []"), "{text}");
        Self { text }
    }

    pub fn line(&self, attempt: &str) -> &str {
        let line = self.text.lines().find(|line| line.starts_with(&format!("{attempt}: ")));
        line.unwrap_or_else(|| panic!("no {attempt} in {}", self.text))
    }

    /// Nothing of `secrets` is seen, except by the attempts `allowed`.
    pub fn assert_nothing_leaks(&self, secrets: &[&str], allowed: &[&str]) {
        for attempt in REFUSED {
            assert!(self.line(attempt).contains(": refused, "), "{}", self.text);
        }
        assert_eq!(self.line("inherited descriptors"), "inherited descriptors: found ", "{}", self.text);
        for line in self.text.lines().filter(|line| secrets.iter().any(|secret| line.contains(secret))) {
            assert!(allowed.iter().any(|attempt| line.starts_with(&format!("{attempt}: "))), "{line} in {}", self.text);
        }
    }
}
