//! What the launcher is asked for.

use std::ffi::{CString, c_char};
use std::ptr;

use super::word::{Word, Words};

/// The settings in front of `--`, as the launcher reads them; see [`super::become_program`].
#[derive(Default, Clone, Copy)]
#[expect(missing_debug_implementations, reason = "formatting needs tables of addresses; see the module")]
pub struct ChildSetup {
    /// Whose death ends this process.
    pub parent: Option<u64>,
    /// What every line begins with that the launcher writes.
    pub(super) token: Option<Word>,
    /// The `cgroup.procs` of the control group to enter.
    pub(super) cgroup: Option<Word>,
    /// Everything is set up, and that is all.
    pub is_trial: bool,
    /// A session of its own.
    pub new_session: bool,
    /// `RLIMIT_AS`.
    pub memory_bytes: Option<u64>,
    /// `RLIMIT_CPU`.
    pub cpu_seconds: Option<u64>,
    /// `RLIMIT_NOFILE`.
    pub open_files: Option<u64>,
    /// `RLIMIT_NPROC`.
    pub processes: Option<u64>,
    /// `RLIMIT_CORE`.
    pub core_bytes: Option<u64>,
    /// The permission bits that new files do not get.
    pub umask: Option<u64>,
    /// From -20 to 19.
    pub nice: Option<i32>,
    /// As it is written to `oom_score_adj`.
    pub(super) oom_score: Option<Word>,
    /// No rights from set-user-id files.
    pub no_new_privileges: bool,
    /// The user to become.
    pub uid: Option<u64>,
    /// Its main group.
    pub gid: Option<u64>,
    /// Its other groups, with commas between them.
    pub(super) groups: Option<Word>,
}

impl ChildSetup {
    /// Reads settings up to and including `--`; none when it is anything else.
    pub(super) fn read(words: &mut Words) -> Option<Self> {
        let mut setup = Self::default();
        loop {
            let word = words.take()?;
            // Without the stars the right side would be the address of an address, which is a constant that holds one.
            if *word.bytes() == *b"--" {
                return Some(setup);
            }
            let (name, value) = word.split()?;
            setup.set(name, value)?;
        }
    }

    fn set(&mut self, name: &[u8], value: Word) -> Option<()> {
        match name {
            b"parent" => self.parent = Some(value.number()?),
            b"notes" => self.token = Some(value),
            b"cgroup" => self.cgroup = Some(value),
            b"trial" => self.is_trial = true,
            b"session" => self.new_session = true,
            b"memory" => self.memory_bytes = Some(value.number()?),
            b"cpu" => self.cpu_seconds = Some(value.number()?),
            b"files" => self.open_files = Some(value.number()?),
            b"processes" => self.processes = Some(value.number()?),
            b"core" => self.core_bytes = Some(value.number()?),
            b"umask" => self.umask = Some(value.number()?),
            b"nice" => self.nice = Some(value.signed()?),
            b"oom" => {
                value.signed()?;
                self.oom_score = Some(value);
            }
            b"no-new-privileges" => self.no_new_privileges = true,
            b"uid" => self.uid = Some(value.number()?),
            b"gid" => self.gid = Some(value.number()?),
            b"groups" => self.groups = Some(value),
            _ => return None,
        }
        Some(())
    }

    /// What the launcher makes of these words, and how many it takes with `--`. For tests of whoever writes them.
    pub fn of(words: &'static [CString]) -> Option<(Self, usize)> {
        let pointers: Vec<*const c_char> = words.iter().map(|word| word.as_ptr()).chain([ptr::null()]).collect();
        // SAFETY: an array of strings that ends with a null pointer and lives until the end of this function; the strings live
        // for ever.
        let mut left = unsafe { Words::new(pointers.as_ptr()) };
        let setup = Self::read(&mut left)?;
        let remaining = std::iter::from_fn(|| left.take()).count();
        Some((setup, words.len() - remaining))
    }

    /// [`Self::token`] as text.
    pub fn token(&self) -> Option<String> {
        text(self.token)
    }

    /// [`Self::cgroup`] as text.
    pub fn cgroup(&self) -> Option<String> {
        text(self.cgroup)
    }

    /// [`Self::oom_score`] as text.
    pub fn oom_score(&self) -> Option<String> {
        text(self.oom_score)
    }

    /// [`Self::groups`] as text.
    pub fn groups(&self) -> Option<String> {
        text(self.groups)
    }
}

fn text(word: Option<Word>) -> Option<String> {
    word.map(|word| String::from_utf8_lossy(word.bytes()).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &[&str]) -> Option<(ChildSetup, usize)> {
        let words: Vec<CString> = words.iter().map(|word| CString::new(*word).unwrap()).collect();
        ChildSetup::of(words.leak())
    }

    #[test]
    fn numbers_are_read_whole_or_not_at_all() {
        let (setup, taken) = read(&["memory=18446744073709551615", "nice=-20", "oom=-1000", "--", "/bin/x"]).unwrap();
        assert_eq!(taken, 4);
        assert_eq!((setup.memory_bytes, setup.nice), (Some(u64::MAX), Some(-20)));
        assert_eq!(setup.oom_score().as_deref(), Some("-1000"));
        for wrong in ["memory=18446744073709551616", "memory=", "memory=-1", "memory=1x", "nice=-", "nice=2147483648"] {
            assert!(read(&[wrong, "--"]).is_none(), "{wrong}");
        }
        assert_eq!(read(&["nice=-2147483648", "--"]).unwrap().0.nice, Some(i32::MIN));
    }

    #[test]
    fn anything_else_is_refused() {
        for words in [&["umask=18"][..], &["umask=x", "--"], &["unknown=1", "--"], &["word", "--"], &["", "--"], &[]] {
            assert!(read(words).is_none(), "{words:?}");
        }
    }
}
