//! Opening files for others: nothing outside of one folder.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// `openat2(2)`, `RESOLVE_BENEATH`: opens `name` in `folder` for reading. A link is followed as long as it stays in the
/// folder; a way out is `EXDEV`. A pipe without a writer is opened and not waited for.
///
/// Kernels before 5.6, and containers that forbid the call, get the same from `opened_and_compared`.
pub fn open_beneath(folder: &Path, name: &Path) -> io::Result<File> {
    let directory = File::open(folder)?;
    let text = CString::new(name.as_os_str().as_bytes())?;
    // SAFETY: all zeros are a valid open_how.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = u64::from((libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_NOCTTY).unsigned_abs());
    how.resolve = libc::RESOLVE_BENEATH | libc::RESOLVE_NO_MAGICLINKS;
    // SAFETY: openat2 reads one text with a NUL at its end and one open_how of the given size; both live until after the call.
    let returned = unsafe {
        libc::syscall(
            libc::SYS_openat2,
            directory.as_raw_fd(),
            text.as_ptr(),
            &raw const how,
            size_of::<libc::open_how>(),
        )
    };
    let Ok(descriptor @ 0..) = libc::c_int::try_from(returned) else {
        let error = io::Error::last_os_error();
        return match error.raw_os_error() {
            Some(libc::ENOSYS | libc::EPERM) => opened_and_compared(folder, name),
            _ => Err(error),
        };
    };
    // SAFETY: the kernel has just made this descriptor for us, and nobody else has it.
    let owned = unsafe { OwnedFd::from_raw_fd(descriptor) };
    Ok(File::from(owned))
}

/// Follows everything, and then asks where that led.
fn opened_and_compared(folder: &Path, name: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    let outside = || io::Error::from_raw_os_error(libc::EXDEV);
    let path = folder.join(name).canonicalize()?;
    if !path.starts_with(folder.canonicalize()?) {
        return Err(outside());
    }
    // What was resolved has no links any more; one that appears meanwhile is not followed.
    File::options().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY).open(path)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read as _;
    use std::os::unix::fs::symlink;

    use super::*;

    type Open = fn(&Path, &Path) -> io::Result<File>;

    #[test]
    fn links_inside_are_followed_and_ways_out_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("folder");
        fs::create_dir_all(folder.join("below")).unwrap();
        fs::write(dir.path().join("outside"), "secret").unwrap();
        fs::write(folder.join("below/file"), "inside").unwrap();
        symlink("below/file", folder.join("link")).unwrap();
        symlink("../outside", folder.join("out")).unwrap();
        symlink(dir.path().join("outside"), folder.join("absolute")).unwrap();
        symlink("..", folder.join("up")).unwrap();
        for open in [open_beneath as Open, opened_and_compared] {
            let mut text = String::new();
            open(&folder, Path::new("link")).unwrap().read_to_string(&mut text).unwrap();
            assert_eq!(text, "inside");
            for way in ["out", "absolute", "up/outside", "../outside"] {
                assert_eq!(open(&folder, Path::new(way)).unwrap_err().raw_os_error(), Some(libc::EXDEV), "{way}");
            }
            assert_eq!(open(&folder, Path::new("gone")).unwrap_err().kind(), io::ErrorKind::NotFound);
        }
    }
}
