//! Workers in containers that are stopped, killed, handed orphans, and whose volume is upgraded.

use std::thread;

use attune_testkit::containers::Container;
use attune_testkit::eventually;
use serde_json::json;

use crate::site::{AGENT, Role, Site, is_an_earlier_file};

const NAME: &str = "worker-1";
const PACKS: [&str; 2] = ["packs/core", "tests/containers/packs/reach"];
const ARTIFACTS: &str = "/opt/attune/artifacts";

async fn site() -> Option<Site> {
    Site::new(&["busybox", "python"], &PACKS).await
}

async fn worker(site: &Site) -> Container {
    let container = site.agent(Role::Worker, "python", NAME, &["--user=1000:1000"]);
    site.ready(&container, Role::Worker, NAME).await;
    container
}

/// Asks for an execution that waits for [`open`]; it has begun.
async fn held(site: &Site, worker: &Container) -> i64 {
    let id = site.ask("reach.gate", &json!({ "name": "gate" })).await;
    let begun = format!("{ARTIFACTS}/begun-{id}");
    let exists = async || worker.exec(&[], &["test", "-e", &begun]).status.success().then_some(());
    eventually("the action to begin", exists).await;
    id
}

fn open(worker: &Container) {
    let opened = worker.exec(&[], &["touch", &format!("{ARTIFACTS}/open")]);
    assert!(opened.status.success(), "{opened:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn docker_stop_lets_a_worker_finish_and_takes_it_off_the_list() {
    let Some(site) = site().await else { return };
    let worker = worker(&site).await;
    let id = held(&site, &worker).await;
    thread::scope(|scope| {
        let stop = scope.spawn(|| worker.stop());
        let agent = format!("{AGENT}/attune-agents");
        attune_testkit::eventually_blocking("the worker to take nothing new", || {
            let asked = worker.exec(&[], &[&agent, "health", "worker", "--name", NAME]);
            (asked.status.code() == Some(1)).then_some(())
        });
        open(&worker);
        assert_eq!(stop.join().unwrap(), 0, "{:?}", worker.logs());
    });
    site.until(id, "completed").await;
    assert_eq!(site.status(NAME).await, "inactive");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_worker_ran_that_docker_kills_is_ended_by_its_next_start() {
    let Some(site) = site().await else { return };
    let worker = worker(&site).await;
    let id = held(&site, &worker).await;
    worker.kill("KILL");
    assert_eq!(worker.wait(), 137);
    worker.start();
    site.until(id, "abandoned").await;
    site.ready(&worker, Role::Worker, NAME).await;
    open(&worker);
    let next = site.ask("reach.gate", &json!({ "name": "gate" })).await;
    site.until(next, "completed").await;
    let rows = "SELECT count(*) FROM worker WHERE worker_role = 'action'";
    assert_eq!(site.database.number(rows).await, 1, "the row is taken over by its name");
    assert_eq!(worker.stop(), 0, "{:?}", worker.logs());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_is_process_1_reaps_orphans_that_are_not_its_own() {
    let Some(site) = site().await else { return };
    let worker = worker(&site).await;
    let orphans = worker.exec(&[], &["sh", "-c", "i=0; while [ $i -lt 200 ]; do (sleep 0.3 &); i=$((i+1)); done"]);
    assert!(orphans.status.success(), "{orphans:?}");
    // A zombie has an entry, too.
    let none_left = async || {
        let listed = worker.exec(&[], &["sh", "-c", "cat /proc/[0-9]*/stat 2>/dev/null"]);
        let text = String::from_utf8_lossy(&listed.stdout).into_owned();
        assert!(text.starts_with("1 ("), "{listed:?}");
        (!text.contains("(sleep)")).then_some(())
    };
    eventually("no orphan is left, dead or alive", none_left).await;
    let id = site.ask("reach.python", &json!({ "word": "still here" })).await;
    site.until(id, "completed").await;
    assert_eq!(worker.stop(), 0, "{:?}", worker.logs());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_go_on_while_their_volume_is_upgraded_and_start_as_the_new_file() {
    let Some(site) = site().await else { return };
    let worker = worker(&site).await;
    let sum = || {
        let output = worker.exec(&[], &["sha256sum", &format!("{AGENT}/attune-agents")]);
        String::from_utf8(output.stdout).unwrap()
    };
    let id = held(&site, &worker).await;
    let before = sum();
    site.upgrade();
    assert_ne!(sum(), before);

    // The running one keeps its file, and starts children as before.
    assert!(is_an_earlier_file(&worker));
    open(&worker);
    site.until(id, "completed").await;
    let during = site.ask("reach.python", &json!({ "word": "during" })).await;
    site.until(during, "completed").await;
    site.ready(&worker, Role::Worker, NAME).await;

    assert_eq!(worker.stop(), 0, "{:?}", worker.logs());
    worker.start();
    site.ready(&worker, Role::Worker, NAME).await;
    assert!(!is_an_earlier_file(&worker));
    let after = site.ask("reach.python", &json!({ "word": "after" })).await;
    site.until(after, "completed").await;
    assert_eq!(worker.stop(), 0, "{:?}", worker.logs());
}
