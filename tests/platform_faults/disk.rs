//! Disks that are full.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::rig::{Rig, path};

/// A file system of one megabyte; gone with its handle.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounted; none where nobody may mount.
    fn mount(place: &Path) -> Option<Self> {
        fs::create_dir_all(place).unwrap();
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "tmpfs", path(place)]).status().unwrap();
        if !mounted.success() {
            attune_testkit::lacking("mounts", "run as root with CAP_SYS_ADMIN");
            return None;
        }
        Some(Self(place.to_owned()))
    }

    /// Fills it to the last byte.
    fn fill(&self) {
        let full = Command::new("dd").args(["if=/dev/zero", &format!("of={}/filler", path(&self.0)), "bs=4k"]).output();
        assert!(!full.unwrap().status.success(), "it has an end");
    }

    fn free(&self) {
        fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(Command::new("umount").args(["-l", path(&self.0)]).status());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_for_logs_costs_the_logs_only() {
    let rig = Rig::new().await;
    let Some(disk) = SmallDisk::mount(&rig.installation.path("artifacts")) else { return };
    let hub = rig.hub().await;
    let worker = rig.worker().await;
    let running = rig.ask_gated(3);
    rig.begun(&running).await;
    disk.fill();
    rig.open();
    rig.completed(&running).await;
    let asked = rig.ask(3);
    rig.completed(&asked).await;
    let result = rig.result(asked[0]).await;
    assert!(result["stdout"].as_str().unwrap_or_default().contains("done"), "the result has it: {result}");
    disk.free();
    rig.completed(&rig.ask(2)).await;
    worker.stop();
    hub.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_for_scratch_files_fails_executions_with_the_cause() {
    let rig = Rig::new().await;
    let Some(disk) = SmallDisk::mount(&rig.installation.path("tmp")) else { return };
    let hub = rig.hub().await;
    let worker = rig.worker().await;
    rig.completed(&rig.ask(1)).await;
    disk.fill();
    let asked = rig.ask(2);
    rig.ended(&asked).await;
    rig.until(&asked, "failed").await;
    rig.never_begun(&asked);
    let result = rig.result(asked[0]).await.to_string();
    assert!(result.contains("No space left"), "{result}");
    disk.free();
    rig.completed(&rig.ask(2)).await;
    worker.stop();
    hub.stop();
}
