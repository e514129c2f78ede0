//! A disk that fills up quickly.

#![expect(clippy::disallowed_methods, reason = "disks are mounted the way operators do it")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::lacking;

/// A file system of one megabyte; gone with its handle.
#[derive(Debug)]
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounted; none where nobody may mount.
    ///
    /// # Panics
    ///
    /// When the folder cannot be made.
    pub fn mount(place: &Path) -> Option<Self> {
        fs::create_dir_all(place).expect("a folder to mount on");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(place).status();
        if !mounted.expect("mount runs").success() {
            lacking("mounts", "run as root with CAP_SYS_ADMIN");
            return None;
        }
        Some(Self(place.to_owned()))
    }

    /// Fills it to the last byte.
    ///
    /// # Panics
    ///
    /// When it does not get full.
    pub fn fill(&self) {
        let filler = format!("of={}", self.0.join("filler").display());
        let full = Command::new("dd").args(["if=/dev/zero", &filler, "bs=4k"]).output().expect("dd runs");
        assert!(!full.status.success(), "it has an end");
    }

    /// Nobody can write to it any more.
    ///
    /// # Panics
    ///
    /// When it cannot be mounted anew.
    pub fn make_read_only(&self) {
        let status = Command::new("mount").args(["-o", "remount,ro"]).arg(&self.0).status();
        assert!(status.expect("mount runs").success(), "it was mounted before");
    }

    /// Makes room again.
    ///
    /// # Panics
    ///
    /// When it was not full.
    pub fn free(&self) {
        fs::remove_file(self.0.join("filler")).expect("it was full");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(&self.0).status());
    }
}
