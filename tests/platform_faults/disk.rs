//! Disks that are full.

use std::fs;

use attune_testkit::{SmallDisk, eventually};

use crate::database::{said, take_no_writes, take_writes};
use crate::rig::Rig;

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_for_kept_results_costs_none_and_is_used_again_when_there_is_room() {
    let rig = Rig::new().await;
    let Some(disk) = SmallDisk::mount(&rig.installation.path("artifacts/_spool")) else { return };
    let hub = rig.hub().await;
    let worker = rig.worker().await;
    let running = rig.ask_gated(2);
    rig.begun(&running).await;
    rig.until(&running, "running").await;
    disk.fill();
    take_no_writes(&rig).await;
    rig.open();
    said(&worker, "result is kept in memory only: the disk does not take it").await;
    assert!(worker.log().contains("No space left"), "the cause is named: {}", worker.log());
    take_writes(&rig).await;
    rig.completed(&running).await;

    // There is room: what is kept now outlives the worker.
    disk.free();
    fs::remove_file(rig.gate()).unwrap();
    let running = rig.ask_gated(2);
    rig.begun(&running).await;
    rig.until(&running, "running").await;
    take_no_writes(&rig).await;
    rig.open();
    rig.no_action().await;
    let spool = rig.installation.path(&format!("artifacts/_spool/{}", rig.worker_id().await));
    eventually("both are kept", async || {
        let entries = fs::read_dir(&spool).ok()?.flatten().map(|entry| entry.path());
        (entries.filter(|path| path.extension().is_some_and(|name| name == "result")).count() == 2).then_some(())
    })
    .await;
    worker.kill();
    take_writes(&rig).await;
    let worker = rig.worker().await;
    rig.completed(&running).await;
    worker.stop();
    hub.stop();
}
