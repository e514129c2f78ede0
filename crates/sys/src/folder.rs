//! Files below an open folder, one name after the other and no link followed: what is looked at is what is opened, even
//! when somebody changes the folders meanwhile.

use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use libc::c_int;

use crate::check::{check, retry};

/// What a file is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    /// Reading one that exists. A pipe without a writer is opened and not waited for.
    Read,
    /// Writing at the end; one that does not exist is made.
    Append,
    /// Writing one that must not exist yet.
    CreateNew,
}

impl Opening {
    fn flags(self) -> c_int {
        let flags = match self {
            Self::Read => libc::O_RDONLY,
            Self::Append => libc::O_WRONLY | libc::O_APPEND | libc::O_CREAT,
            Self::CreateNew => libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL,
        };
        flags | libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_NOCTTY
    }
}

/// `openat(2)`, `O_NOFOLLOW`: the file `name` in `folder`. A file that is made gets `mode`, less the umask.
///
/// A link is `ENOTDIR`, as it is for a folder; the call itself says `ELOOP`, of which std has no kind.
pub fn open_in(folder: BorrowedFd<'_>, name: &OsStr, opening: Opening, mode: u32) -> io::Result<File> {
    open(folder, name, opening.flags(), mode).map(File::from).map_err(|error| match error.raw_os_error() {
        Some(libc::ELOOP) => io::Error::from_raw_os_error(libc::ENOTDIR),
        _ => error,
    })
}

/// `openat(2)`, `O_DIRECTORY | O_NOFOLLOW`: the folder `name` in `folder`. A link is `ENOTDIR`.
pub fn folder_in(folder: BorrowedFd<'_>, name: &OsStr) -> io::Result<OwnedFd> {
    open(folder, name, libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_CLOEXEC, 0)
}

/// `mkdirat(2)`: makes the folder `name` in `folder` with `mode`, less the umask.
pub fn make_folder_in(folder: BorrowedFd<'_>, name: &OsStr, mode: u32) -> io::Result<()> {
    let name = plain(name)?;
    // SAFETY: the name has a NUL at its end and lives until after the call.
    check(unsafe { libc::mkdirat(folder.as_raw_fd(), name.as_ptr(), mode) }).map(drop)
}

/// `renameat(2)`: gives what is called `from` in `folder` the name `to`, in place of what has it.
pub fn rename_in(folder: BorrowedFd<'_>, from: &OsStr, to: &OsStr) -> io::Result<()> {
    let (from, to, folder) = (plain(from)?, plain(to)?, folder.as_raw_fd());
    // SAFETY: both names have a NUL at their end and live until after the call.
    check(unsafe { libc::renameat(folder, from.as_ptr(), folder, to.as_ptr()) }).map(drop)
}

/// `unlinkat(2)`: removes the file `name` in `folder`; of a link the link.
pub fn remove_in(folder: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    let name = plain(name)?;
    // SAFETY: the name has a NUL at its end and lives until after the call.
    check(unsafe { libc::unlinkat(folder.as_raw_fd(), name.as_ptr(), 0) }).map(drop)
}

/// `openat(2)`: the folder itself, for reading; `folder` may be one that only stands for its place (`O_PATH`).
pub(crate) fn open_again(folder: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    open_at(folder, c".", libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC, 0)
}

/// `openat(2)` of something in the folder itself.
pub(crate) fn open(folder: BorrowedFd<'_>, name: &OsStr, flags: c_int, mode: u32) -> io::Result<OwnedFd> {
    open_at(folder, &plain(name)?, flags, mode)
}

fn open_at(folder: BorrowedFd<'_>, name: &CStr, flags: c_int, mode: u32) -> io::Result<OwnedFd> {
    // SAFETY: the name has a NUL at its end and lives until after the call.
    let descriptor = retry(|| unsafe { libc::openat(folder.as_raw_fd(), name.as_ptr(), flags, mode) })?;
    // SAFETY: the kernel has just made this descriptor for us, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// A name of something in the folder itself.
pub(crate) fn plain(name: &OsStr) -> io::Result<CString> {
    let bytes = name.as_bytes();
    if matches!(bytes, b"" | b"." | b"..") || bytes.contains(&b'/') {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    CString::new(bytes).map_err(|_nul| io::Error::from_raw_os_error(libc::EINVAL))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::{Read as _, Write as _};
    use std::os::fd::AsFd;
    use std::os::unix::fs::symlink;

    use super::*;

    fn name(text: &str) -> &OsStr {
        OsStr::new(text)
    }

    #[test]
    fn files_are_made_once_grown_renamed_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let root = File::open(dir.path()).unwrap();
        make_folder_in(root.as_fd(), name("below"), 0o775).unwrap();
        let below = folder_in(root.as_fd(), name("below")).unwrap();
        open_in(below.as_fd(), name("new"), Opening::CreateNew, 0o664).unwrap().write_all(b"one ").unwrap();
        let again = open_in(below.as_fd(), name("new"), Opening::CreateNew, 0o664).unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
        rename_in(below.as_fd(), name("new"), name("file")).unwrap();
        open_in(below.as_fd(), name("file"), Opening::Append, 0o664).unwrap().write_all(b"two").unwrap();
        let mut text = String::new();
        open_in(below.as_fd(), name("file"), Opening::Read, 0).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "one two");
        remove_in(below.as_fd(), name("file")).unwrap();
        let gone = open_in(below.as_fd(), name("file"), Opening::Read, 0).unwrap_err();
        assert_eq!(gone.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn no_link_is_followed_and_no_name_leads_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("outside"), "secret").unwrap();
        let folder = dir.path().join("folder");
        fs::create_dir(&folder).unwrap();
        symlink("../outside", folder.join("link")).unwrap();
        symlink("..", folder.join("up")).unwrap();
        let root = File::open(&folder).unwrap();
        for opening in [Opening::Read, Opening::Append] {
            let refused = open_in(root.as_fd(), name("link"), opening, 0o664).unwrap_err();
            assert_eq!(refused.raw_os_error(), Some(libc::ENOTDIR), "{opening:?}");
        }
        assert_eq!(folder_in(root.as_fd(), name("up")).unwrap_err().raw_os_error(), Some(libc::ENOTDIR));
        for bad in ["", ".", "..", "../outside", "/etc/passwd", "a\0b"] {
            for opening in [Opening::Read, Opening::Append, Opening::CreateNew] {
                let refused = open_in(root.as_fd(), name(bad), opening, 0o664).unwrap_err();
                assert_eq!(refused.raw_os_error(), Some(libc::EINVAL), "{bad:?}");
            }
            folder_in(root.as_fd(), name(bad)).unwrap_err();
            make_folder_in(root.as_fd(), name(bad), 0o775).unwrap_err();
            remove_in(root.as_fd(), name(bad)).unwrap_err();
            rename_in(root.as_fd(), name("link"), name(bad)).unwrap_err();
        }
        remove_in(root.as_fd(), name("link")).unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("outside")).unwrap(), "secret");
    }
}
