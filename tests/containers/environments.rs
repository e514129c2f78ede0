//! One volume of environments, used by images and users of several kinds.

use attune_testkit::containers::Container;
use attune_testkit::eventually;
use serde_json::{Value, json};

use crate::site::{AGENT, Role, Site};

const PACKS: [&str; 2] = ["packs/core", "tests/containers/packs/shared"];
const ENVS: &str = "/opt/attune/runtime_envs/shared";

/// Runs an action of the pack to its end.
async fn done(site: &Site, action: &str) -> Value {
    let id = site.ask(action, &json!({})).await;
    site.until(id, "completed").await;
    site.result(id).await["data"].clone()
}

/// What a shell in the container says to `script`, without the end of the line; panics unless it succeeds.
fn told(container: &Container, script: &str) -> String {
    let output = container.exec(&[], &["sh", "-c", script]);
    assert!(output.status.success(), "{script}: {output:?} {:?}", container.logs());
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// The build that is linked, and its owner.
fn current(container: &Container, name: &str) -> (String, String) {
    let folder = told(container, &format!("readlink {ENVS}/{name}"));
    let owner = told(container, &format!("stat -c %u {ENVS}/{name}/"));
    (folder, owner)
}

/// How many builds there have been.
fn builds(container: &Container, name: &str) -> String {
    told(container, &format!("ls -dA {ENVS}/.{name}.????????/ | wc -l"))
}

async fn worker(site: &Site, image: &str, name: &str, user: &str) -> Container {
    let user = format!("--user={user}");
    let container = site.agent(Role::Worker, image, name, &[&user, "--group-add=1000"]);
    site.ready(&container, Role::Worker, name).await;
    container
}

const PYTHON: &str = "python-3.11";

/// The sensor runs in the build that `container` sees as the current one, and every container sees that it does.
async fn sensor_is_in(site: &Site, container: &Container, folder: &str) {
    let running = "SELECT count(*) FROM sensor_process WHERE sensor_ref = 'shared.watch' AND status = 'running'";
    site.wait_for("the sensor runs", running, |count| count == 1).await;
    let locked = format!("! flock -n -x {ENVS}/{folder}/.attune_origin true");
    let held = async || container.exec(&[], &["sh", "-c", &locked]).status.success().then_some(());
    eventually("the sensor to use the build", held).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_worker_builds_a_sensor_host_uses_and_back_also_at_once_and_as_other_users() {
    let Some(site) = Site::new(&["busybox", "python"], &PACKS).await else { return };
    // The worker builds.
    let first = worker(&site, "python", "worker-1000", "1000:1000").await;
    let answer = done(&site, "shared.answer").await;
    assert_eq!(answer["answer"], 42);
    let (built, owner) = current(&first, PYTHON);
    assert!(answer["environment"].as_str().unwrap().ends_with(&built), "{answer} {built}");
    assert_eq!(owner, "1000");

    // The sensor host uses it, as root.
    let options = ["--user=0:0", "--group-add=1000", "--env=ATTUNE__SENSOR__RECONCILE_INTERVAL=1"];
    let sensor = site.agent(Role::Sensor, "python", "sensor-0", &options);
    site.ready(&sensor, Role::Sensor, "sensor-0").await;
    sensor_is_in(&site, &first, &built).await;
    assert_eq!((current(&first, PYTHON).0, builds(&first, PYTHON)), (built.clone(), "1".to_owned()));
    assert_eq!(first.stop(), 0, "{:?}", first.logs());

    // The sensor host builds for a changed manifest, and a worker uses it, as a third user.
    site.change("shared/requirements.txt", "# changed\n--no-index\n./thing-1.0-py3-none-any.whl\n");
    let rebuilt = async || Some(current(&sensor, PYTHON)).filter(|(folder, _)| *folder != built);
    let (again, owner) = eventually("the sensor host to build", rebuilt).await;
    assert_eq!(owner, "0");
    let second = worker(&site, "python", "worker-65534", "65534:65534").await;
    let answer = done(&site, "shared.answer").await;
    assert!(answer["environment"].as_str().unwrap().ends_with(&again), "{answer} {again}");
    sensor_is_in(&site, &second, &again).await;
    assert_eq!(builds(&second, PYTHON), "2");

    // Both want the next one at once.
    site.change("shared/requirements.txt", "# changed again\n--no-index\n./thing-1.0-py3-none-any.whl\n");
    let answers = tokio::join!(done(&site, "shared.answer"), done(&site, "shared.answer"));
    assert_eq!(answers.0, answers.1);
    let (last, _) = current(&second, PYTHON);
    assert!(last != again && answers.0["environment"].as_str().unwrap().ends_with(&last), "{answers:?} {last}");
    sensor_is_in(&site, &second, &last).await;
    assert_eq!(builds(&second, PYTHON), "3", "one of them built, the other waited");

    assert_eq!(sensor.stop(), 0, "{:?}", sensor.logs());
    told(&second, &format!("flock -n -x {ENVS}/{last}/.attune_origin true"));
    assert_eq!(second.stop(), 0, "{:?}", second.logs());
}

/// What an image has as Node.
fn node_in(container: &Container) -> Value {
    let found = container.exec(&[], &[&format!("{AGENT}/attune-agents"), "detect", "--json"]);
    let found: Value = serde_json::from_slice(&found.stdout).unwrap();
    let node = found["runtimes"].as_array().unwrap().iter().find(|interpreter| interpreter["name"] == "node");
    node.unwrap_or_else(|| panic!("no Node: {found:#}")).clone()
}

/// One image builds, another builds its own beside it, and the first one goes on with what it has. Returns what each has as
/// Node; none where containers are not wanted.
async fn take_turns(images: [(&str, &str); 2]) -> Option<[Value; 2]> {
    let [(first, first_version), (second, second_version)] = images;
    let site = Site::new(&["busybox", first, second], &PACKS).await?;
    let stays = worker(&site, first, "first", "1000:1000").await;
    let of_first = done(&site, "shared.node").await;
    assert!(of_first["version"].as_str().unwrap().starts_with(first_version), "{of_first}");
    let shared = current(&stays, "node.js");
    let first_node = node_in(&stays);
    assert_eq!(stays.stop(), 0, "{:?}", stays.logs());

    let next = worker(&site, second, "second", "1000:1000").await;
    let of_second = done(&site, "shared.node").await;
    assert!(of_second["version"].as_str().unwrap().starts_with(second_version), "{of_second}");
    assert_ne!(of_second["environment"], of_first["environment"]);
    assert!(of_second["environment"].as_str().unwrap().contains("/.node.js.for-"), "{of_second}");
    assert_eq!((current(&next, "node.js"), builds(&next, "node.js")), (shared.clone(), "1".to_owned()));
    let second_node = node_in(&next);
    assert_eq!(next.stop(), 0, "{:?}", next.logs());

    stays.start();
    site.ready(&stays, Role::Worker, "first").await;
    assert_eq!(done(&site, "shared.node").await, of_first);
    assert_eq!(builds(&stays, "node.js"), "1", "nothing was built in turns");
    assert_eq!(stays.stop(), 0, "{:?}", stays.logs());
    Some([first_node, second_node])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn images_with_another_version_and_libc_share_a_volume_and_leave_each_other_s_environments_alone() {
    drop(take_turns([("node", "v18."), ("node-next", "v20.")]).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_with_musl_and_one_with_glibc_leave_each_other_s_environments_alone() {
    let Some([glibc, musl]) = take_turns([("node-next", "v20."), ("musl", "v20.")]).await else { return };
    // The version counts by its major number: what is left to tell them apart is the C library.
    assert_eq!((&glibc["real_path"], &glibc["architecture"]), (&musl["real_path"], &musl["architecture"]));
    assert_eq!((glibc["libc"].as_str(), musl["libc"].as_str()), (Some("glibc"), Some("musl")));
}
