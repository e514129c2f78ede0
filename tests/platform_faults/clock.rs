//! A host whose clock is wrong. What is compared between hosts are times of the database, so nothing comes of it.

use std::fs;
use std::path::Path;

use attune_model::Secret;
use attune_security::TokenKey;
use chrono::{DateTime, Utc};
use serde_json::json;

use crate::rig::Rig;
use crate::support::JWT_SECRET;

async fn works_with_a_clock_that_is_off(by: &str) {
    // Gives a program another time of day.
    let library = format!("/usr/lib/{}-linux-gnu/faketime/libfaketime.so.1", std::env::consts::ARCH);
    assert!(Path::new(&library).exists(), "{library} is not there: run scripts/setup");
    let rig = Rig::new().await;
    let hub = rig.hub_with(&[("ATTUNE__EXECUTOR__HEARTBEAT_LIMIT", "3")]).await;
    let fake = [("LD_PRELOAD", library.as_str()), ("FAKETIME", by), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")];
    let worker = rig.worker_with(&fake).await;
    let log = worker.log();
    let said: DateTime<Utc> = log.split_whitespace().next().unwrap().parse().unwrap();
    let wrong_by = said.signed_duration_since(Utc::now()).num_minutes().abs();
    assert!((50..70).contains(&wrong_by), "the worker's clock is off: {wrong_by} min");
    let running = rig.ask_gated(2);
    rig.begun(&running).await;
    // Longer than the hub's limit, on a clock that is right.
    let looked =
        "SELECT count(*) FROM worker WHERE status = 'active' AND last_heartbeat > created + interval '4 seconds'";
    rig.installation.wait_for("heartbeats", looked, |count| count == 1).await;
    rig.open();
    rig.completed(&running).await;
    let file = rig.installation.path("token");
    let asked = rig.ask_with(&json!({ "TOKEN": file }));
    rig.completed(&[asked]).await;
    let token = fs::read_to_string(file).unwrap();
    let key = TokenKey::new(&Secret::new(JWT_SECRET.to_owned())).unwrap();
    key.verify(token.trim(), Utc::now()).expect("a token is good where the clock is right");
    worker.stop();
    hub.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_is_an_hour_fast_changes_nothing() {
    works_with_a_clock_that_is_off("+1h").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_is_an_hour_slow_changes_nothing() {
    works_with_a_clock_that_is_off("-1h").await;
}
