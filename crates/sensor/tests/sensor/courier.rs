//! Logs of sensors that reach the platform through the API of a real hub, whatever becomes of the way there.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use attune_model::clock::Clock;
use attune_model::rows::SensorProcess;
use attune_model::status::SensorProcessStatus;
use attune_sensor::{LogLimits, SensorConfig};
use attune_store::LogStore;
use attune_testkit::{Direction, eventually};
use chrono::{DateTime, TimeDelta, Utc};
use tokio::time::Instant;

use crate::support::remote::{Remote, lines};

#[tokio::test]
async fn lines_of_a_sensor_arrive_live_and_its_versions_get_their_sizes() {
    let remote = Remote::new(&["one"]).await;
    let host = remote.start().await;
    remote.say("one", "first\n");
    remote.arrives("one", 1, "first\n").await;
    remote.say("one", "second\n");
    remote.arrives("one", 1, "first\nsecond\n").await;
    assert_eq!(remote.size_of("one", 1).await, None, "it is not complete");
    let mode = |path: &str| remote.folder.join(path).metadata().unwrap().permissions().mode() & 0o7777;
    assert_eq!([mode("sensor/demo/one/stdout/v1.txt"), mode("sensor/demo/one/stdout")], [0o664, 0o2775]);
    // Nothing of it is where the platform would look on a shared folder.
    assert!(!remote.world.path("artifacts/sensor").exists());
    // The last line is the host's last word.
    remote.say("one", "third\n");
    let current = remote.here(&host, "one");
    eventually("the line here", async || fs::read_to_string(&current[0]).unwrap().ends_with("third\n").then_some(()))
        .await;
    let here = remote.here(&host, "one");
    host.stop().await;
    assert_eq!(remote.there("one", 1).unwrap(), "first\nsecond\nthird\n");
    assert_eq!(remote.size_of("one", 1).await, Some(19));
    assert_eq!(here.len(), 1);
    assert!(here[0].exists(), "the last version stays for people on this host");
    // The next life begins another version, and knows that nothing is left to send.
    let host = remote.start().await;
    let text = "first\nsecond\nthird\n";
    remote.arrives("one", 2, text).await;
    assert!(!here[0].exists());
    assert_eq!(remote.there("one", 1).unwrap(), text);
    host.stop().await;
    assert_eq!(remote.world.store.sensor_files(&["demo.one".to_owned()]).await.unwrap().len(), 2, "nothing on stderr");
    remote.end().await;
}

#[tokio::test]
async fn an_api_that_goes_and_comes_back_loses_nothing_and_gets_nothing_twice() {
    let remote = Remote::new(&["one"]).await;
    let host = remote.start().await;
    let (mut said, mut next) = (String::new(), 0);
    let mut say = |count: u32| {
        let text = lines(next..next + count);
        next += count;
        remote.say("one", &text);
        said.push_str(&text);
        said.clone()
    };
    let all = say(3);
    remote.arrives("one", 1, &all).await;
    let here = remote.here(&host, "one")[0].clone();
    let is_written = async |all: &str| {
        eventually("the lines here", async || (fs::read_to_string(&here).unwrap() == all).then_some(())).await;
    };
    // Refused.
    remote.way.refuse();
    remote.way.cut();
    is_written(&say(10)).await;
    remote.way.resume();
    let all = say(1);
    remote.arrives("one", 1, &all).await;
    // Cut again and again, in the middle of large calls.
    remote.way.delay(Direction::ToServer, Duration::from_millis(5));
    // More than a pipe's buffer holds at once is lost before it is a log.
    for _ in 0..3 {
        is_written(&say(15_000)).await;
    }
    let all = say(1);
    for size in [200_000, 700_000, 1_300_000] {
        eventually("a part of it there", async || {
            remote.there("one", 1).is_some_and(|text| text.len() > size).then_some(())
        })
        .await;
        remote.way.cut();
    }
    remote.arrives("one", 1, &all).await;
    // Nothing is answered, and what was sent is done later: calls end by their time limit.
    for direction in [Direction::ToServer, Direction::ToClient] {
        remote.way.resume();
        remote.way.black_hole(direction);
        let before = remote.way.connections();
        is_written(&say(10)).await;
        is_written(&say(15_000)).await;
        eventually("calls that were given up", async || (remote.way.connections() > before + 1).then_some(())).await;
        remote.way.resume();
        let all = say(1);
        remote.arrives("one", 1, &all).await;
    }
    let all = say(1);
    is_written(&all).await;
    host.stop().await;
    let there = remote.there("one", 1).unwrap();
    assert!(there == all, "{} bytes instead of {} at the end", there.len(), all.len());
    remote.end().await;
}

#[tokio::test]
async fn what_is_rotated_away_while_the_api_is_away_is_told_in_one_line() {
    let mut remote = Remote::new(&["one"]).await;
    remote.world.logs = LogLimits { max_bytes: 1000, max_files: 4 };
    let host = remote.start().await;
    let first = lines(0..5);
    remote.say("one", &first);
    remote.arrives("one", 1, &first).await;
    remote.way.refuse();
    remote.way.cut();
    let rest = lines(5..1000);
    remote.say("one", &rest);
    // As much as retention keeps, whatever is said.
    let last_line = lines(999..1000);
    let ends = |path: &PathBuf| fs::read_to_string(path).unwrap_or_default().ends_with(&last_line);
    eventually("the last line here", async || remote.here(&host, "one").iter().any(ends).then_some(())).await;
    let versions: Vec<_> =
        remote.here(&host, "one").into_iter().filter(|path| path.extension().unwrap() == "txt").collect();
    assert_eq!(versions.len(), 4, "{versions:?}");
    let kept: String = versions.iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    let name = versions[0].file_stem().unwrap().to_str().unwrap();
    let oldest: u32 = name.strip_prefix('v').unwrap().parse().unwrap();
    remote.way.resume();
    host.stop().await;
    let there: Vec<String> = (1..oldest + 9).filter_map(|version| remote.there("one", version)).collect();
    assert_eq!(there.len(), 4, "what is outdated goes there as well");
    let missing = rest.len() - kept.len();
    let told = |missing| format!("[attune: {missing} bytes of output before this never reached the platform]\n{kept}");
    // The cut may have come between the first lines and the answer that they were there.
    let text = there.concat();
    assert!(text == told(missing) || text == told(missing + first.len()), "{missing} {text:.80}");
    assert_eq!(remote.size_of("one", oldest).await, Some(there[0].len() as u64), "with what is said before");
    remote.end().await;
}

#[tokio::test]
async fn an_api_that_hangs_delays_neither_sensors_nor_the_stop_and_the_next_life_sends_the_rest() {
    let remote = Remote::new(&["one"]).await;
    let change = |config: &mut SensorConfig| config.timing.delivery.call_limit = Duration::from_mins(5);
    let host = remote.start_with(change).await;
    let first = lines(0..3);
    remote.say("one", &first);
    remote.arrives("one", 1, &first).await;
    let row = remote.world.eventually_running(host.worker, "demo.one").await;
    remote.way.black_hole_both();
    let all = first + &lines(3..15_000);
    remote.say("one", &lines(3..15_000));
    let here = remote.here(&host, "one")[0].clone();
    let is_here = async || (fs::read_to_string(&here).unwrap() == all).then_some(());
    eventually("the lines here", is_here).await;
    assert_eq!(remote.world.row(host.worker, "demo.one").await.unwrap().pid, row.pid, "it runs on");
    let begun = Instant::now();
    let worker = host.worker;
    host.stop().await;
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert_eq!(remote.world.row(worker, "demo.one").await.unwrap().status, SensorProcessStatus::Stopped);
    assert!(here.exists());
    // What was held back arrives when nobody thinks of it any more.
    remote.way.resume();
    fs::write(remote.world.path("facts/say.demo.one"), "").unwrap();
    let host = remote.start().await;
    remote.arrives("one", 1, &all).await;
    eventually("its size", async || remote.size_of("one", 1).await).await;
    remote.say("one", "another life\n");
    remote.arrives("one", 2, "another life\n").await;
    eventually("the old file to go", async || (!here.exists()).then_some(())).await;
    host.stop().await;
    remote.end().await;
}

#[tokio::test]
async fn a_log_that_the_api_refuses_holds_up_no_other() {
    let remote = Remote::with_limit(&["much", "little"], 1000).await;
    let host = remote.start().await;
    remote.say("much", &lines(0..10));
    remote.arrives("much", 1, &lines(0..10)).await;
    remote.say("much", &lines(10..100));
    remote.say("little", "hello\n");
    remote.arrives("little", 1, "hello\n").await;
    assert_eq!(remote.there("much", 1).unwrap(), lines(0..10));
    // The next process of it tells.
    let row = remote.world.eventually_running(host.worker, "demo.much").await;
    fs::remove_file(remote.world.path("facts/say.demo.much")).unwrap();
    let pid = attune_sys::Pid::new(row.pid.unwrap().unsigned_abs()).unwrap();
    attune_sys::kill(pid, attune_sys::SIGTERM).unwrap();
    let runs_anew = |new: &SensorProcess| new.status == SensorProcessStatus::Running && new.pid != row.pid;
    remote.world.eventually_row(host.worker, "demo.much", runs_anew).await;
    fs::write(remote.world.path("facts/say.demo.much"), "new\n").unwrap();
    let missing = lines(10..100).len();
    let note = format!("[attune: {missing} bytes of output before this never reached the platform]\n");
    remote.arrives("much", 2, &(note + "new\n")).await;
    host.stop().await;
    assert_eq!(remote.size_of("much", 1).await, Some(lines(0..10).len() as u64));
    remote.end().await;
}

#[tokio::test]
async fn a_log_that_cannot_be_read_holds_up_no_other() {
    let remote = Remote::new(&["bad", "good"]).await;
    let change = |config: &mut SensorConfig| {
        config.timing.delivery.backoff = (Duration::from_millis(20), Duration::from_hours(1));
    };
    let host = remote.start_with(change).await;
    remote.say("bad", "first\n");
    remote.arrives("bad", 1, "first\n").await;
    let here = remote.here(&host, "bad")[0].clone();
    fs::remove_file(&here).unwrap();
    fs::create_dir(&here).unwrap();
    remote.say("bad", "second\n");
    let mut said = String::new();
    // More often than the delay may double.
    for number in 0..14 {
        let line = lines(number..number + 1);
        remote.say("good", &line);
        said.push_str(&line);
        remote.arrives("good", 1, &said).await;
    }
    host.stop().await;
    remote.end().await;
}

/// A clock that can be set, and how often it was looked at.
#[derive(Debug, Default)]
struct Shifted(Mutex<(TimeDelta, usize)>);

impl Shifted {
    fn set(&self, shift: TimeDelta) {
        *self.0.lock().unwrap() = (shift, 0);
    }
}

impl Clock for Shifted {
    fn now(&self) -> DateTime<Utc> {
        let mut state = self.0.lock().unwrap();
        state.1 += 1;
        Utc::now() + state.0
    }
}

#[tokio::test]
async fn a_token_that_the_api_refuses_is_made_anew() {
    let remote = Remote::new(&["one"]).await;
    let clock = Arc::<Shifted>::default();
    let host = remote.world.start_host_with(remote.config(), clock.clone()).await;
    remote.say("one", "first\n");
    remote.arrives("one", 1, "first\n").await;
    // Its next token, two days ago, is none any more.
    clock.set(TimeDelta::days(-2));
    remote.say("one", "second\n");
    let here = remote.here(&host, "one")[0].clone();
    eventually("the line here", async || (fs::read_to_string(&here).unwrap() == "first\nsecond\n").then_some(())).await;
    // Each call needs two tokens, and one follows another.
    eventually("several tokens", async || (clock.0.lock().unwrap().1 > 6).then_some(())).await;
    assert_eq!(remote.there("one", 1).unwrap(), "first\n");
    clock.set(TimeDelta::zero());
    remote.arrives("one", 1, "first\nsecond\n").await;
    host.stop().await;
    remote.end().await;
}

/// Copies what the test says into a file that is registered, leads another one to something else, and waits.
const REPORTER: &str = r#"
cd "$ATTUNE_ARTIFACTS_DIR" && mkdir -p demo/report demo/link
if [ -e "$FACTS/report" ]; then cp "$FACTS/report" demo/report/v1.txt; fi
ln -sf "$FACTS/secret" demo/link/v1.txt
echo ready >> "$FACTS/ready"
exec sleep 1000"#;

#[tokio::test]
async fn files_that_a_sensor_wrote_itself_follow_when_it_has_ended_if_they_have_changed() {
    let mut remote = Remote::new(&[]).await;
    remote.world.add_sensor("one", "shell", REPORTER);
    remote.world.load().await;
    fs::write(remote.world.path("facts/secret"), "not below the folder").unwrap();
    for name in ["report", "link"] {
        remote.register_file(name).await;
    }
    let there = remote.folder.join("demo/report/v1.txt");
    let runs_once = async |count: usize, report: Option<&str>| {
        let path = remote.world.path("facts/report");
        match report {
            Some(text) => fs::write(path, text).unwrap(),
            None => fs::remove_file(path).unwrap(),
        }
        let host = remote.start().await;
        remote.world.eventually_facts("ready", count).await;
        host.stop().await;
        let files = remote.world.store.sensor_files(&["demo.one".to_owned()]).await.unwrap();
        files.into_iter().map(|file| file.size_bytes).collect::<Vec<_>>()
    };
    assert_eq!(runs_once(1, Some("first")).await, [Some(5), None]);
    assert_eq!(fs::read_to_string(&there).unwrap(), "first");
    assert!(!remote.folder.join("demo/link").exists());
    // What has not changed is not sent, what is as long as before is.
    fs::write(&there, "found").unwrap();
    let here = remote.world.path("artifacts/demo/report/v1.txt");
    runs_once(2, None).await;
    assert_eq!(fs::read_to_string(&there).unwrap(), "found");
    assert_eq!(runs_once(3, Some("other")).await, [Some(5), None]);
    assert_eq!(fs::read_to_string(&there).unwrap(), "other");
    assert!(here.exists(), "it stays here");
    remote.end().await;
}

#[tokio::test]
async fn the_mark_of_the_api_makes_the_folder_of_a_sensor_host_shared() {
    let remote = Remote::new(&["one"]).await;
    fs::write(remote.world.path("artifacts/.attune-api-sentinel"), "whatever").unwrap();
    let host = remote.start().await;
    remote.say("one", "shared\n");
    let file = remote.world.path("artifacts/sensor/demo/one/stdout/v1.txt");
    eventually("the line in its place", async || {
        fs::read_to_string(&file).is_ok_and(|text| text == "shared\n").then_some(())
    })
    .await;
    host.stop().await;
    assert_eq!(remote.size_of("one", 1).await, Some(7));
    assert!(!remote.folder.join("sensor").exists(), "nothing was sent");
    assert!(!remote.world.path("artifacts/_pending").exists());
    remote.end().await;
}

#[tokio::test]
async fn what_a_deleted_host_has_left_is_sent_by_the_next_one_and_what_a_living_one_has_is_not_touched() {
    let remote = Remote::new(&["one"]).await;
    let change = |config: &mut SensorConfig| config.timing.delivery.call_limit = Duration::from_mins(5);
    let host = remote.start_with(change).await;
    remote.say("one", "first\n");
    remote.arrives("one", 1, "first\n").await;
    remote.way.black_hole_both();
    remote.say("one", "second\n");
    let here = remote.here(&host, "one")[0].clone();
    eventually("the line here", async || fs::read_to_string(&here).unwrap().ends_with("second\n").then_some(())).await;
    let old = host.worker;
    host.stop().await;
    remote.way.resume();
    let hosts = remote.world.path("artifacts/_pending/sensors");
    assert!(hosts.join(old.to_string()).exists());
    // Of another installation, or of a row that was deleted under a host that runs.
    let living = hosts.join("4711");
    fs::create_dir_all(&living).unwrap();
    let lock = fs::File::create(living.join("lock")).unwrap();
    lock.lock().unwrap();
    let database = remote.world.database().await;
    sqlx::query("DELETE FROM worker").execute(&database).await.unwrap();
    fs::write(remote.world.path("facts/say.demo.one"), "").unwrap();
    let host = remote.start().await;
    remote.arrives("one", 1, "first\nsecond\n").await;
    eventually("its size", async || remote.size_of("one", 1).await).await;
    assert!(host.worker != old && !hosts.join(old.to_string()).exists());
    assert!(living.exists());
    drop(lock);
    host.stop().await;
    let host = remote.start().await;
    assert!(!living.exists());
    host.stop().await;
    remote.end().await;
}
