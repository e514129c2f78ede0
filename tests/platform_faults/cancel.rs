//! Cancelling at every stage of an execution, as a person does it: through the API.

use serde_json::json;

use crate::database::row_lock::held_at_its_end;
use crate::rig::Rig;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancelled_before_there_is_a_worker() {
    let rig = Rig::new().await;
    let hub = rig.hub().await;
    let asked = rig.ask_gated(2);
    assert_eq!(rig.cancel(asked[0]), 200);
    rig.open();
    let worker = rig.worker().await;
    rig.completed(&asked[1..]).await;
    rig.ended(&asked).await;
    rig.until(&asked[..1], "cancelled").await;
    rig.never_begun(&asked[..1]);
    assert_eq!(rig.cancel(asked[1]), 409, "it has ended");
    assert_eq!(rig.cancel(4_711_000), 404);
    worker.stop();
    hub.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancelled_between_dispatch_and_worker() {
    let rig = Rig::new().await;
    let hub = rig.hub().await;
    let worker = rig.worker().await;
    // Frozen: dispatches and cancels are there together when it comes back, in whatever order it takes them.
    worker.signal("STOP");
    let asked = rig.ask(6);
    rig.until(&asked, "scheduled").await;
    let (cancelled, kept) = asked.split_at(3);
    for id in cancelled {
        assert_eq!(rig.cancel(*id), 200);
    }
    worker.signal("CONT");
    rig.ended(&asked).await;
    rig.completed(kept).await;
    rig.until(cancelled, "cancelled").await;
    rig.never_begun(cancelled);
    worker.stop();
    hub.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancelled_while_it_waits_for_a_slot() {
    let rig = Rig::new().await;
    let hub = rig.hub().await;
    let worker = rig.worker_with(&[("ATTUNE__WORKER__MAX_CONCURRENT_TASKS", "1")]).await;
    let running = rig.ask_gated(1);
    rig.begun(&running).await;
    let queued = rig.ask(3);
    rig.until(&queued, "scheduled").await;
    assert_eq!(rig.cancel(queued[0]), 200);
    assert_eq!(rig.cancel(queued[2]), 200);
    rig.open();
    rig.completed(&[running[0], queued[1]]).await;
    rig.ended(&queued).await;
    rig.until(&[queued[0], queued[2]], "cancelled").await;
    rig.never_begun(&[queued[0], queued[2]]);
    worker.stop();
    hub.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancelled_while_it_runs() {
    let rig = Rig::new().await;
    let hub = rig.hub().await;
    let worker = rig.worker().await;
    let obedient = rig.ask_gated(2);
    // One that has to be killed.
    let stubborn = rig.ask_with(&json!({ "GATE": rig.gate(), "STUBBORN": "1" }));
    let running = [obedient[0], obedient[1], stubborn];
    rig.begun(&running).await;
    for id in running {
        assert_eq!(rig.cancel(id), 200);
        assert_ne!(rig.cancel(id), 500, "twice is the same as once");
    }
    rig.ended(&running).await;
    rig.until(&running, "cancelled").await;
    rig.no_action().await;
    let result = rig.result(stubborn).await;
    assert_eq!(result["cancelled"], true, "{result}");
    worker.stop();
    hub.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancelled_while_its_end_is_written() {
    let rig = Rig::new().await;
    let hub = rig.hub().await;
    let worker = rig.worker().await;
    let (running, held) = held_at_its_end(&rig).await;
    // The cancel waits for the row as the end does; whoever is first decides.
    let answer = std::thread::scope(|scope| {
        let cancel = scope.spawn(|| rig.cancel(running[0]));
        drop(held);
        cancel.join().unwrap()
    });
    rig.ended(&running).await;
    let expected = if answer == 200 { "cancelled" } else { "completed" };
    rig.until(&running, expected).await;
    assert!(matches!(answer, 200 | 409), "{answer}");
    rig.completed(&rig.ask(1)).await;
    worker.stop();
    hub.stop();
}

/// The worker has only the row to see it by: no message comes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_that_the_row_alone_knows_is_kept() {
    let rig = Rig::new().await;
    let hub = rig.hub().await;
    let worker = rig.worker().await;
    let (running, held) = held_at_its_end(&rig).await;
    held.commit(running[0], "canceling");
    rig.ended(&running).await;
    rig.until(&running, "cancelled").await;
    let result = rig.result(running[0]).await;
    assert_eq!((&result["cancelled"], &result["exit_code"]), (&json!(true), &json!(0)), "{result}");
    worker.stop();
    hub.stop();
}
