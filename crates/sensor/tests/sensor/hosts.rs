//! Several hosts on one store: at no moment two processes of one sensor, whatever happens to the hosts.
//!
//! The hosts are processes of their own: this test program, started again with the name of one ignored test. The sensors
//! are witnesses of their own lives.
#![expect(clippy::print_stdout, reason = "the time of a takeover is for people")]

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use attune_model::status::{SensorProcessStatus, WorkerStatus};
use attune_process::{Child, Command, Ending, Guard, Keep, Launcher, SIGKILL, SIGTERM, Stream, guard_main, start};
use attune_store::{HubStore as _, PageRequest};
use attune_testkit::{Testimonies, WITNESS, eventually};

use crate::support;
use crate::support::{World, is_alive};

const LEASE: Duration = Duration::from_millis(2400);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a host of another test"]
async fn host_process() {
    let Ok(settings) = fs::read_to_string("host.json") else { return };
    let name = std::env::args().find_map(|word| word.strip_prefix("host-name=").map(str::to_owned));
    let name = name.unwrap_or_else(|| "one".to_owned());
    // Of the test, where it has another one.
    let lease = fs::read_to_string("lease").map_or(LEASE, |ms| Duration::from_millis(ms.parse().unwrap()));
    support::run_host_from(&settings, &name, lease, guard()).await;
}

#[test]
#[ignore = "the guardian of a host"]
fn guardian_process() {
    guard_main();
}

fn guard() -> std::sync::Arc<Guard> {
    let args = ["--exact", "hosts::guardian_process", "--ignored", "--nocapture"].map(Into::into).into();
    Guard::start(Some(Launcher { program: std::env::current_exe().unwrap(), args })).unwrap()
}

/// A host that runs as a process.
struct Host {
    name: &'static str,
    child: Child,
}

impl Host {
    fn start(world: &World, name: &'static str) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        let words = ["--exact", "hosts::host_process", "--ignored", "--nocapture", "--skip"];
        command.args = words.map(Into::into).into();
        // Taken by libtest for one more name to skip, and by the child for what it is.
        command.args.push(format!("host-name={name}").into());
        command.cwd = Some(world.dir.path().to_owned());
        command.env = vec![("PATH".into(), "/usr/local/bin:/usr/bin:/bin".into())];
        command.stdout = Stream::keep(Keep::Tail { limit_bytes: 16 * 1024 });
        command.stderr = Stream::keep(Keep::Tail { limit_bytes: 16 * 1024 });
        command.ending = Ending { signal: SIGTERM, grace: Duration::from_secs(15), ..Ending::default() };
        Self { name, child: start(command).unwrap() }
    }

    fn signal(&self, signal: i32) {
        let pid = attune_sys::Pid::new(self.child.pid()).unwrap();
        attune_sys::kill(pid, signal).unwrap();
    }

    async fn stop(self) {
        let report = self.child.supervise(None, std::future::ready(())).await;
        let text = String::from_utf8_lossy(&report.stderr.bytes).into_owned();
        let out = String::from_utf8_lossy(&report.stdout.bytes).into_owned();
        assert!(
            matches!(report.outcome, attune_process::Outcome::Cancelled { exit_code: Some(0) }),
            "host {}: {:?}\n{out}\n{text}",
            self.name,
            report.outcome
        );
    }
}

fn testimonies(world: &World) -> Testimonies {
    Testimonies::in_folder(world.path("facts"))
}

async fn world(sensors: &[&str]) -> World {
    let mut world = World::new().await;
    for sensor in sensors {
        world.add_sensor(sensor, "python", WITNESS);
    }
    world.load().await;
    fs::write(world.path("host.json"), world.settings()).unwrap();
    world
}

/// How long nobody ran the sensor, for people.
fn report(what: &str, begun: Instant) {
    println!("{what}: another host runs the sensor after {:?} (lease {LEASE:?})", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_host_is_replaced_and_two_never_run_at_once() {
    let world = world(&["a", "b"]).await;
    let one = Host::start(&world, "one");
    testimonies(&world).another_runner("demo.a", 0).await;
    testimonies(&world).another_runner("demo.b", 0).await;
    let other = Host::start(&world, "other");
    let third = Host::start(&world, "third");
    let begun = Instant::now();
    one.signal(SIGKILL);
    let pids = testimonies(&world).another_runner("demo.a", 1).await;
    report("kill -9", begun);
    testimonies(&world).another_runner("demo.b", 1).await;
    assert!(!is_alive(&pids[0].to_string()), "the guardian left nothing");
    // The host comes back under its name and takes nothing away.
    let again = Host::start(&world, "one");
    eventually("the first host again", async || {
        let row = world.row_of("one", "demo.a").await?;
        (row.status == SensorProcessStatus::Stopped && row.pid.is_none()).then_some(())
    })
    .await;
    for host in [other, third, again] {
        host.stop().await;
    }
    for sensor in ["demo.a", "demo.b"] {
        testimonies(&world).assert_no_overlap(sensor);
        for pid in testimonies(&world).runners(sensor) {
            assert!(!is_alive(&pid.to_string()));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_host_loses_its_sensors_before_another_starts_them() {
    let world = world(&["a"]).await;
    let one = Host::start(&world, "one");
    testimonies(&world).another_runner("demo.a", 0).await;
    let other = Host::start(&world, "other");
    // Not in the middle of a write: the file would stay locked for everybody, as with any store in one file.
    let lock = world.lock_store().await;
    let begun = Instant::now();
    one.signal(attune_sys::SIGSTOP);
    drop(lock);
    let pids = testimonies(&world).another_runner("demo.a", 1).await;
    report("SIGSTOP", begun);
    // It wakes up and finds that the world went on without it.
    one.signal(attune_sys::SIGCONT);
    eventually("what the woken host says", async || {
        let row = world.row_of("one", "demo.a").await?;
        (row.status == SensorProcessStatus::Stopped && row.pid.is_none()).then_some(())
    })
    .await;
    assert_eq!(testimonies(&world).runners("demo.a"), pids, "nothing more has started");
    // And may take over again.
    other.stop().await;
    testimonies(&world).another_runner("demo.a", 2).await;
    one.stop().await;
    testimonies(&world).assert_no_overlap("demo.a");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_host_that_wakes_up_says_nothing_about_what_a_later_one_of_its_name_runs() {
    let world = world(&["a"]).await;
    let one = Host::start(&world, "one");
    testimonies(&world).another_runner("demo.a", 0).await;
    let lock = world.lock_store().await;
    one.signal(attune_sys::SIGSTOP);
    drop(lock);
    let later = Host::start(&world, "one");
    let pids = testimonies(&world).another_runner("demo.a", 1).await;
    let row_of_later = async || {
        let row = world.row_of("one", "demo.a").await?;
        (row.status == SensorProcessStatus::Running && row.pid == pids.last().map(|pid| pid.cast_signed()))
            .then_some(row)
    };
    let row = eventually("the row", row_of_later).await;
    let worker = world.worker_id("one").await.unwrap();
    one.signal(attune_sys::SIGCONT);
    // It looks at its lease more often than that.
    let before = world.heartbeat_of(worker).await;
    eventually("renewals of the later one", async || {
        (world.heartbeat_of(worker).await - before >= chrono::TimeDelta::from_std(LEASE * 2).unwrap()).then_some(())
    })
    .await;
    assert_eq!(world.row_of("one", "demo.a").await.as_ref(), Some(&row));
    one.stop().await;
    let workers = world.store.workers(PageRequest { page: 1, page_size: 10 }).await.unwrap();
    assert_eq!(workers.items[0].status, WorkerStatus::Active, "it leaves without a word");
    assert_eq!(world.row_of("one", "demo.a").await, Some(row));
    later.stop().await;
    testimonies(&world).assert_no_overlap("demo.a");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_host_ran_is_not_said_to_run_when_it_comes_back_although_nobody_wants_it() {
    let mut world = world(&["a", "b"]).await;
    let one = Host::start(&world, "one");
    for sensor in ["demo.a", "demo.b"] {
        testimonies(&world).another_runner(sensor, 0).await;
        eventually("the row", async || (!world.running_rows(sensor).await.is_empty()).then_some(())).await;
    }
    one.signal(SIGKILL);
    world.pack.sensors[0].enabled = false;
    world.load().await;
    let again = Host::start(&world, "one");
    testimonies(&world).another_runner("demo.b", 1).await;
    let row = world.row_of("one", "demo.a").await.unwrap();
    assert_eq!((row.status, row.pid), (SensorProcessStatus::Stopped, None));
    again.stop().await;
    drop(one);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_ending_when_its_host_begins_anew_and_freezes_ends_in_the_time_that_was_promised() {
    let mut world = World::new().await;
    let stubborn = r#"open(os.path.join(facts, "asked"), "a").write("to end\n")"#;
    let script = WITNESS.replace(r#"None if os.environ.get("STUBBORN") else os._exit(0)"#, stubborn);
    assert_ne!(script, WITNESS);
    world.add_sensor("a", "python", &script);
    world.load().await;
    fs::write(world.path("host.json"), world.settings()).unwrap();
    // A quarter of it is what the sensor takes, and enough for what is to happen meanwhile.
    fs::write(world.path("lease"), "8000").unwrap();
    let session_of = async |name: &str| {
        let mut database = world.database().await.acquire().await.unwrap();
        let query = sqlx::query_scalar("SELECT json_extract(meta, '$.attune_session.id') FROM worker WHERE name = ?1");
        query.bind(name.to_owned()).fetch_one(&mut *database).await.unwrap_or(None::<String>)
    };
    let one = Host::start(&world, "one");
    testimonies(&world).another_runner("demo.a", 0).await;
    let other = Host::start(&world, "other");
    eventually("the other host", async || session_of("other").await).await;
    let before = session_of("one").await;
    // Its renewals are refused until its sensor has to end, which takes its time.
    let mut database = world.database().await.acquire().await.unwrap();
    for statement in [
        "CREATE TABLE closed (why TEXT)",
        "INSERT INTO closed VALUES ('the test')",
        "CREATE TRIGGER no_renewals BEFORE UPDATE OF last_heartbeat ON worker
         WHEN NEW.name = 'one' AND EXISTS (SELECT * FROM closed) BEGIN SELECT RAISE(ABORT, 'not now'); END",
    ] {
        sqlx::query(statement).execute(&mut *database).await.unwrap();
    }
    world.eventually_facts("asked", 1).await;
    sqlx::query("DELETE FROM closed").execute(&mut *database).await.unwrap();
    eventually("another session", async || (session_of("one").await != before).then_some(())).await;
    let lock = world.lock_store().await;
    one.signal(attune_sys::SIGSTOP);
    drop(lock);
    testimonies(&world).another_runner("demo.a", 1).await;
    one.signal(attune_sys::SIGCONT);
    other.stop().await;
    one.stop().await;
    testimonies(&world).assert_no_overlap("demo.a");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_hands_over_without_waiting_for_the_lease() {
    let world = world(&["a", "b", "c"]).await;
    let mut hosts = vec![Host::start(&world, "one"), Host::start(&world, "other")];
    for sensor in ["demo.a", "demo.b", "demo.c"] {
        testimonies(&world).another_runner(sensor, 0).await;
    }
    for name in ["third", "fourth"] {
        hosts.push(Host::start(&world, name));
        eventually("the new host", async || world.worker_id(name).await.map(drop)).await;
        let begun = Instant::now();
        hosts.remove(0).stop().await;
        let row_is_true = async || {
            let running = world.running_rows("demo.a").await;
            (running.len() == 1 && is_alive(&running[0].to_string())).then_some(())
        };
        eventually("one runner", row_is_true).await;
        report("rolling restart", begun);
    }
    for host in hosts {
        host.stop().await;
    }
    for sensor in ["demo.a", "demo.b", "demo.c"] {
        testimonies(&world).assert_no_overlap(sensor);
        assert_eq!(world.running_rows(sensor).await, Vec::<i32>::new());
    }
    assert!(Path::new(&world.path("attune.db")).exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_is_cut_off_from_the_store_ends_its_sensors_and_takes_them_again() {
    let world = world(&["a"]).await;
    let one = Host::start(&world, "one");
    testimonies(&world).another_runner("demo.a", 0).await;
    // Nobody can write: the renewals fail, and so does everybody else.
    let lock = world.lock_store().await;
    let pid = testimonies(&world).runners("demo.a")[0].to_string();
    eventually("the end of the sensor", async || (!is_alive(&pid)).then_some(())).await;
    drop(lock);
    testimonies(&world).another_runner("demo.a", 1).await;
    eventually("the row", async || {
        let running = world.running_rows("demo.a").await;
        (running.len() == 1 && is_alive(&running[0].to_string())).then_some(())
    })
    .await;
    one.stop().await;
    testimonies(&world).assert_no_overlap("demo.a");
}
