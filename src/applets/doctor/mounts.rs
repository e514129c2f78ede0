//! With which options a folder is mounted.

use std::path::Path;

/// Lines of `/proc/self/mountinfo`.
pub(super) struct Mounts(String);

impl Mounts {
    pub(super) fn read() -> Self {
        Self(std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default())
    }

    /// Whether `path` is on a mount with this option, such as `ro` or `noexec`.
    pub(super) fn has(&self, path: &Path, option: &str) -> bool {
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        // Of several mounts at one place the last one counts.
        let options = self.0.lines().filter_map(parts).filter(|(place, _)| path.starts_with(place));
        let nearest = options.max_by_key(|(place, _)| place.len());
        nearest.is_some_and(|(_, options)| options.iter().any(|it| it == option))
    }
}

/// The mount point, and the options of the mount and of its file system.
fn parts(line: &str) -> Option<(String, Vec<String>)> {
    let (front, back) = line.split_once(" - ")?;
    let mut fields = front.split(' ').skip(4);
    let (place, own) = (fields.next()?, fields.next()?);
    let file_system = back.split(' ').nth(2).unwrap_or_default();
    // The kernel writes a space, a tab, a line's end and a backslash by their numbers.
    let place = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(place.to_owned(), |place, (code, character)| place.replace(code, character));
    Some((place, own.split(',').chain(file_system.split(',')).map(str::to_owned).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_mount_counts() {
        let mounts = Mounts(
            "1 0 8:1 / / rw,relatime - ext4 /dev/sda rw\n2 1 8:2 / /nowhere\\040x ro,noexec shared:1 - ext4 /dev/sdb rw\n\
             3 2 8:3 / /nowhere\\040x/deep rw - tmpfs tmpfs ro\nrubbish\n"
                .to_owned(),
        );
        assert!(mounts.has(Path::new("/nowhere x/a"), "noexec"));
        assert!(mounts.has(Path::new("/nowhere x"), "ro"));
        assert!(!mounts.has(Path::new("/nowhere x/deep/a"), "noexec"));
        assert!(mounts.has(Path::new("/nowhere x/deep/a"), "ro"), "options of the file system count too");
        assert!(!mounts.has(Path::new("/nowhere"), "ro"));
    }

    #[test]
    fn this_machine_has_a_writable_mount() {
        assert!(Mounts::read().has(Path::new("/proc"), "rw"));
    }
}
