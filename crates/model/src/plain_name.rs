//! Names that become names of files.

use std::path::{Component, Path};

/// Whether `name` is one ordinary path component.
pub fn is_plain_name(name: &str) -> bool {
    let mut components = Path::new(name).components();
    matches!(components.next(), Some(Component::Normal(first)) if first == name)
        && components.next().is_none()
        && !name.contains('\0')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_name_leads_nowhere_else() {
        assert!(is_plain_name("demo") && is_plain_name(".demo") && is_plain_name("a..b"));
        for bad in ["", ".", "..", "../etc", "a/b", "/etc", "a/", "a/.", "a\0b"] {
            assert!(!is_plain_name(bad), "{bad:?}");
        }
    }
}
