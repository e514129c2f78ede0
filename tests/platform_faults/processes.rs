//! Faults of the worker's own process.

use crate::rig::Rig;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_worker_is_cleaned_up_by_its_next_life() {
    let rig = Rig::new().await;
    let hub = rig.hub().await;
    let slots = [("ATTUNE__WORKER__MAX_CONCURRENT_TASKS", "3")];
    let worker = rig.worker_with(&slots).await;
    let running = rig.ask_gated(3);
    rig.begun(&running).await;
    let queued = rig.ask(4);
    rig.until(&queued, "scheduled").await;

    worker.kill();
    rig.no_action().await;
    let worker = rig.worker_with(&slots).await;
    rig.until(&running, "abandoned").await;
    rig.ended(&running).await;
    rig.completed(&queued).await;
    let result = rig.result(running[0]).await;
    assert!(result["error"].as_str().unwrap().contains("restarted"), "{result}");
    let rows = rig.installation.database.number("SELECT count(*) FROM worker").await;
    assert_eq!(rows, 1, "the row is taken over by its name");
    worker.stop();
    hub.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_of_one_name_end_nothing_of_each_other() {
    let rig = Rig::new().await;
    let hub = rig.hub().await;
    let first = rig.worker().await;
    let running = rig.ask_gated(3);
    rig.begun(&running).await;

    let second = rig.worker().await;
    attune_testkit::eventually("the second to have seen the first", async || {
        second.log().contains("another process of this worker's name is alive").then_some(())
    })
    .await;
    let both = rig.ask(6);
    rig.completed(&both).await;
    rig.until(&running, "running").await;

    first.kill();
    rig.no_action().await;
    rig.until(&running, "abandoned").await;
    rig.ended(&running).await;
    let after = rig.ask(2);
    rig.completed(&after).await;
    second.stop();
    hub.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_worker_does_not_overwrite_what_was_decided_without_it() {
    let rig = Rig::new().await;
    let hub = rig.hub_with(&[("ATTUNE__EXECUTOR__HEARTBEAT_LIMIT", "3")]).await;
    let worker = rig.worker().await;
    let running = rig.ask_gated(2);
    rig.begun(&running).await;
    worker.signal("STOP");
    rig.until(&running, "abandoned").await;
    let inactive = "SELECT count(*) FROM worker WHERE status = 'inactive'";
    rig.installation.wait_for("the worker to count as lost", inactive, |count| count == 1).await;
    // Asked for while nobody is there.
    let waiting = rig.ask(2);

    // The actions end while their worker is frozen; it finds their results when it comes back.
    rig.open();
    worker.signal("CONT");
    rig.active().await;
    rig.completed(&waiting).await;
    attune_testkit::eventually("both results to be dropped", async || {
        (worker.log().matches("result dropped").count() == 2).then_some(())
    })
    .await;
    rig.until(&running, "abandoned").await;
    rig.ended(&running).await;
    assert!(running.iter().all(|id| rig.spy.ends_of(*id).len() == 1), "announced by the hub alone");
    worker.stop();
    hub.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn actions_get_the_session_and_the_mask_that_the_worker_is_told() {
    let rig = Rig::new().await;
    let hub = rig.hub().await;
    for (is_new, mask) in [("true", "0027"), ("false", "0002")] {
        let settings = [("ATTUNE__WORKER__NEW_SESSION", is_new), ("ATTUNE__WORKER__UMASK", mask)];
        let worker = rig.worker_with(&settings).await;
        let running = rig.ask_gated(1);
        rig.begun(&running).await;
        let action = rig.actions()[0];
        let read = |name: &str| std::fs::read_to_string(format!("/proc/{action}/{name}")).unwrap();
        let stat = read("stat");
        let session = stat.rsplit_once(") ").unwrap().1.split(' ').nth(3).unwrap();
        assert_eq!((session == action.to_string()).to_string(), is_new, "{stat}");
        assert!(read("status").contains(&format!("Umask:\t{mask}\n")));
        rig.open();
        rig.completed(&running).await;
        std::fs::remove_file(rig.gate()).unwrap();
        worker.stop();
    }
    hub.stop();
}
