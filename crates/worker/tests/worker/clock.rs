//! Nothing between the message of an execution and its last announcement waits for a clock.

use std::sync::mpsc;

use attune_model::status::ExecutionStatus;
use attune_testkit::PATIENCE;

use crate::support::rig::{Backend, Rig};

/// A worker that is idle, then a clock that stands still: whatever waits for a timer waits for ever.
async fn runs_while_the_clock_stands_still(on: Backend) {
    let actions = [("talk", "cat; echo out; echo err >&2"), ("bad", "exit 3")];
    let mut rig = Rig::new(on, &actions.map(|(name, code)| (name, code.to_owned()))).await;
    let life = rig.live().await;
    // The first one makes what later ones find: connections, folders, rows of logs.
    let warm = rig.submit(life.id, "talk").await;
    rig.told(warm).await;
    // A clock that stands still goes on by itself when nothing else is to be done, unless a blocking task is under way.
    let (running, over) = mpsc::channel::<()>();
    let holder = tokio::task::spawn_blocking(move || over.recv().unwrap_err());
    let (gave_up, mut too_late) = tokio::sync::oneshot::channel();
    let (done, ended) = mpsc::channel::<()>();
    let watch = std::thread::spawn(move || {
        if ended.recv_timeout(PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout) {
            gave_up.send(()).unwrap();
        }
    });
    tokio::time::pause();
    let begun = tokio::time::Instant::now();
    for (action, status) in [("talk", ExecutionStatus::Completed), ("bad", ExecutionStatus::Failed)] {
        let told = async {
            let id = rig.submit(life.id, action).await;
            (id, rig.told(id).await)
        };
        let (id, told) = tokio::select! {
            told = told => told,
            Ok(()) = &mut too_late => panic!("{action} waits for a timer"),
        };
        assert_eq!((told.len(), rig.row(id).await.status), (3, status));
    }
    assert_eq!(begun.elapsed(), std::time::Duration::ZERO, "the clock stood still");
    tokio::time::resume();
    drop((running, done));
    holder.await.unwrap();
    watch.join().unwrap();
    life.finish().await;
}

#[tokio::test]
async fn no_step_of_an_execution_waits_for_a_timer() {
    runs_while_the_clock_stands_still(Backend::Embedded).await;
}

#[tokio::test]
async fn no_step_of_an_execution_waits_for_a_timer_on_servers() {
    runs_while_the_clock_stands_still(Backend::Servers).await;
}
