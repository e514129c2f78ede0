//! Each kind of image becomes a worker, whoever the user is, and nothing is asked of the image.

use serde_json::json;

use crate::site::{AGENT, Role, Site};

/// Users as `docker run` takes them. Only the first and the last are known to any of the images, busybox and scratch know
/// none. Who builds an environment is the second one; the others may use it, and belong to its group.
const USERS: [(&str, &str); 3] = [("1000:1000", "1000"), ("65534:65534", "65534"), ("0:0", "0")];

/// The image's runtimes, the action that shows the last of them, and what has to be named because it is never detected.
async fn works(image: &str, detected: &str, action: &str, named: Option<&str>) {
    let Some(site) = Site::new(&["busybox", image], &["packs/core", "tests/containers/packs/reach"]).await else {
        return;
    };
    for (user, short) in USERS {
        let name = format!("{image}-{short}");
        let named = named.map(|runtimes| format!("--env=ATTUNE_WORKER_RUNTIMES={runtimes}"));
        let user = format!("--user={user}");
        let options: Vec<&str> = [user.as_str(), "--group-add=1000"].into_iter().chain(named.as_deref()).collect();
        let worker = site.agent(Role::Worker, image, &name, &options);
        site.ready(&worker, Role::Worker, &name).await;
        site.heartbeat(&name).await;
        let report = worker.exec(&[], &[&format!("{AGENT}/attune-agents"), "detect", "--json"]);
        let report: serde_json::Value = serde_json::from_slice(&report.stdout).unwrap();
        let found: Vec<&str> =
            report["runtimes"].as_array().unwrap().iter().filter_map(|runtime| runtime["name"].as_str()).collect();
        assert_eq!(found.join(","), detected, "{name}");

        let id = site.ask(action, &json!({ "word": name })).await;
        site.until(id, "completed").await;
        assert_eq!(site.result(id).await["data"]["word"], name.as_str(), "{name}");

        assert_eq!(worker.stop(), 0, "{name}: {:?}", worker.logs());
        assert_eq!(site.status(&name).await, "inactive", "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_python_image_works_for_root_and_for_users_it_does_not_know() {
    works("python", "shell,python,perl", "reach.python", None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_image_works_for_root_and_for_users_it_does_not_know() {
    works("node", "shell,node,perl", "reach.node", None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ruby_image_works_for_root_and_for_users_it_does_not_know() {
    works("ruby", "shell,ruby,perl", "reach.ruby", None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_with_nothing_but_busybox_works_for_root_and_for_users_it_does_not_know() {
    works("busybox", "shell", "reach.shell", None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_with_nothing_in_it_works_for_root_and_for_users_it_does_not_know() {
    works("scratch", "", "reach.native", Some("native")).await;
}
