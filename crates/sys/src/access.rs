//! What this process may do with a file.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// `access(2)`: whether this process may execute the file `path`, or search the folder. Symlinks are followed.
pub fn may_execute(path: &Path) -> bool {
    may(path, libc::X_OK)
}

/// Whether this process may write the file `path`, or make files in the folder: what it is allowed, and what the mount is.
pub fn may_write(path: &Path) -> bool {
    may(path, libc::W_OK)
}

fn may(path: &Path, what: libc::c_int) -> bool {
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else {
        return false;
    };
    // SAFETY: the pointer is to a text with a NUL at its end that lives until after the call.
    unsafe { libc::access(path.as_ptr(), what) == 0 }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_may_be_executed_once_somebody_may() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("program");
        fs::write(&file, "").unwrap();
        let may = |mode| {
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            may_execute(&file)
        };
        assert!(!may(0o644));
        assert!(may(0o755));
        assert!(!may_execute(&dir.path().join("gone")));
        assert!(!may_execute(Path::new("a\0b")));
    }

    #[test]
    fn a_folder_may_be_written_unless_the_kernel_says_otherwise() {
        let dir = tempfile::tempdir().unwrap();
        assert!(may_write(dir.path()));
        assert!(!may_write(Path::new("/proc/sys")), "not even root makes files there");
        assert!(!may_write(&dir.path().join("gone")));
    }
}
