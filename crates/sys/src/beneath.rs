//! Opening files for others: nothing outside of one folder.

use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use crate::folder::{open, open_again, plain};

/// How many links one name may lead through, as for the kernel.
const MOST_LINKS: usize = 40;

/// `openat2(2)`, `RESOLVE_BENEATH`: opens `name` in `folder` for reading. A link is followed as long as it stays in the
/// folder; a way out is `EXDEV`. A pipe without a writer is opened and not waited for.
///
/// Kernels before 5.6, and containers that forbid the call, get the same by a walk, name by name; so does a way with `..` in it, or in a
/// link, while anybody on the machine renames or mounts anything, because the kernel cannot tell then where that leads.
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
            Some(libc::ENOSYS | libc::EPERM | libc::EAGAIN) => walk(directory.into(), name),
            _ => Err(error),
        };
    };
    // SAFETY: the kernel has just made this descriptor for us, and nobody else has it.
    let owned = unsafe { OwnedFd::from_raw_fd(descriptor) };
    Ok(File::from(owned))
}

/// One name after the other, each in the folder that is open already and no link followed by the kernel: who changes folders
/// meanwhile gains nothing.
fn walk(folder: OwnedFd, name: &Path) -> io::Result<File> {
    let outside = || io::Error::from_raw_os_error(libc::EXDEV);
    if name.as_os_str().is_empty() {
        return Err(io::Error::from_raw_os_error(libc::ENOENT));
    }
    // The way back of each `..`: what is above a folder may have changed since.
    let mut way = Vec::new();
    let mut here = folder;
    // What is still to be done, the next one last.
    let mut steps = Vec::new();
    push(&mut steps, name);
    let mut links = 0;
    while let Some(step) = steps.pop() {
        match step {
            Step::Outside => return Err(outside()),
            Step::Here => {}
            Step::Up => here = way.pop().ok_or_else(outside)?,
            Step::Into(name) => {
                if let Some(target) = link_in(here.as_fd(), &name)? {
                    links += 1;
                    if links > MOST_LINKS {
                        return Err(io::Error::from_raw_os_error(libc::ELOOP));
                    }
                    push(&mut steps, &target);
                } else if steps.is_empty() {
                    let flags = libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_NOCTTY;
                    return open(here.as_fd(), &name, flags, 0).map(File::from);
                } else {
                    let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_CLOEXEC;
                    let below = open(here.as_fd(), &name, flags, 0)?;
                    way.push(std::mem::replace(&mut here, below));
                }
            }
        }
    }
    open_again(here.as_fd()).map(File::from)
}

enum Step {
    Into(OsString),
    /// What was before it has to be a folder.
    Here,
    Up,
    Outside,
}

fn push(steps: &mut Vec<Step>, path: &Path) {
    // `components` passes over these at the end, where they tell a folder from a file.
    let bytes = path.as_os_str().as_bytes();
    if bytes.ends_with(b"/") || bytes.ends_with(b"/.") {
        steps.push(Step::Here);
    }
    steps.extend(path.components().rev().filter_map(|component| match component {
        Component::Normal(name) => Some(Step::Into(name.to_owned())),
        Component::ParentDir => Some(Step::Up),
        Component::CurDir => None,
        Component::RootDir | Component::Prefix(_) => Some(Step::Outside),
    }));
}

/// `readlinkat(2)`: where `name` leads; none if it is no link.
fn link_in(folder: BorrowedFd<'_>, name: &OsStr) -> io::Result<Option<PathBuf>> {
    let name = plain(name)?;
    let mut target = vec![0_u8; libc::PATH_MAX.unsigned_abs() as usize];
    // SAFETY: the name has a NUL at its end; the kernel writes at most as many bytes as the buffer has. Both outlive the call.
    let length =
        unsafe { libc::readlinkat(folder.as_raw_fd(), name.as_ptr(), target.as_mut_ptr().cast(), target.len()) };
    let Ok(length) = usize::try_from(length) else {
        let error = io::Error::last_os_error();
        return if error.raw_os_error() == Some(libc::EINVAL) { Ok(None) } else { Err(error) };
    };
    target.truncate(length);
    Ok(Some(OsString::from_vec(target).into()))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read as _;
    use std::os::unix::fs::symlink;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    type Open = fn(&Path, &Path) -> io::Result<File>;

    fn walk_from(folder: &Path, name: &Path) -> io::Result<File> {
        walk(File::open(folder)?.into(), name)
    }

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
        symlink("../link", folder.join("below/back")).unwrap();
        symlink("round", folder.join("round")).unwrap();
        for open in [open_beneath as Open, walk_from] {
            let mut text = String::new();
            for way in ["link", "below/file", "./below/../link", "below/back"] {
                text.clear();
                open(&folder, Path::new(way)).unwrap().read_to_string(&mut text).unwrap();
                assert_eq!(text, "inside", "{way}");
            }
            assert_eq!(open(&folder, Path::new("round")).unwrap_err().raw_os_error(), Some(libc::ELOOP));
            assert_eq!(open(&folder, Path::new("link/x")).unwrap_err().kind(), io::ErrorKind::NotADirectory);
            for way in ["out", "absolute", "up/outside", "../outside", "below/../../outside", "/etc/passwd"] {
                assert_eq!(open(&folder, Path::new(way)).unwrap_err().raw_os_error(), Some(libc::EXDEV), "{way}");
            }
            assert_eq!(open(&folder, Path::new("gone")).unwrap_err().kind(), io::ErrorKind::NotFound);
        }
    }

    #[test]
    fn a_name_that_ends_like_one_of_a_folder_opens_folders_only() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("below")).unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        for (target, link) in [("file", "link"), ("file/", "slash"), ("below/.", "to_below")] {
            symlink(target, dir.path().join(link)).unwrap();
        }
        for open in [open_beneath as Open, walk_from] {
            let open = |way| open(dir.path(), Path::new(way));
            for way in [".", "./", "below", "below/", "below/.", "below/..", "below/../", "to_below", "to_below/"] {
                assert!(open(way).unwrap().metadata().unwrap().is_dir(), "{way}");
            }
            for way in ["file/", "file//", "file/.", "file/..", "link/", "link/.", "slash", "slash/"] {
                assert_eq!(open(way).unwrap_err().raw_os_error(), Some(libc::ENOTDIR), "{way}");
            }
            for (way, error) in [("", libc::ENOENT), ("gone/", libc::ENOENT), ("/", libc::EXDEV), ("..", libc::EXDEV)] {
                assert_eq!(open(way).unwrap_err().raw_os_error(), Some(error), "{way}");
            }
        }
    }

    /// What comes of `work` while somebody makes these moves in `folder`, over and over.
    fn while_renaming<T>(folder: &Path, moves: &[(&str, &str)], work: impl FnOnce() -> T) -> T {
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    for (from, to) in moves {
                        fs::rename(folder.join(from), folder.join(to)).unwrap();
                    }
                }
            });
            let result = work();
            done.store(true, Ordering::Relaxed);
            result
        })
    }

    #[test]
    fn what_is_renamed_elsewhere_keeps_no_name_from_being_opened() {
        let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir(dir.path().join("below")).unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        fs::write(elsewhere.path().join("a"), "").unwrap();
        let open = || open_beneath(dir.path(), Path::new("below/../file"));
        let errors: Vec<io::Error> = while_renaming(elsewhere.path(), &[("a", "b"), ("b", "a")], || {
            (0..20_000).filter_map(|_| open().err()).collect()
        });
        assert!(errors.is_empty(), "{} of 20,000: {}", errors.len(), errors[0]);
    }

    #[test]
    fn a_folder_that_somebody_exchanges_for_a_link_leads_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, outside) = (dir.path().join("folder"), dir.path().join("outside"));
        for (place, text) in [(&folder.join("below"), "inside"), (&outside, "secret")] {
            fs::create_dir_all(place).unwrap();
            fs::write(place.join("file"), text).unwrap();
        }
        symlink(&outside, folder.join("lure")).unwrap();
        let moves = [("below", "aside"), ("lure", "below"), ("below", "lure"), ("aside", "below")];
        let open = |open: Open| open(&folder, Path::new("below/file")).and_then(io::read_to_string);
        let texts: Vec<String> = while_renaming(&folder, &moves, || {
            (0..20_000).flat_map(|_| [open(open_beneath), open(walk_from)]).flatten().collect()
        });
        assert!(!texts.is_empty(), "the file was never where it is looked for");
        assert!(texts.iter().all(|text| text == "inside"), "somebody read what is outside");
    }
}
