//! Files that sensors wrote themselves, each on its own way to the platform.

use std::fs::{self, OpenOptions};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use attune_model::clock::Clock;
use attune_store::LogStore;
use attune_testkit::eventually;
use axum::http::Method;
use chrono::{DateTime, TimeDelta, Utc};

use crate::support::Running;
use crate::support::relay::Relay;
use crate::support::remote::Remote;

/// Writes what the test says into two files that are registered, ends, and does nothing in its next lives.
const WRITER: &str = r#"
if [ -e "$FACTS/first" ]; then
    cd "$ATTUNE_ARTIFACTS_DIR" && mkdir -p demo/first demo/second
    mv "$FACTS/first" demo/first/v1.txt
    cp "$FACTS/second" demo/second/v1.txt
    exit 0
fi
echo ready >> "$FACTS/ready"
exec sleep 1000"#;

/// A clock that is wrong.
#[derive(Debug)]
struct Off(TimeDelta);

impl Clock for Off {
    fn now(&self) -> DateTime<Utc> {
        Utc::now() + self.0
    }
}

struct Files {
    remote: Remote,
    relay: Arc<Relay>,
    address: String,
}

impl Files {
    async fn new() -> Self {
        let mut remote = Remote::new(&[]).await;
        remote.world.add_sensor("one", "shell", WRITER);
        remote.world.load().await;
        for name in ["first", "second"] {
            remote.register_file(name).await;
        }
        let (relay, address) = Relay::start(format!("http://{}", remote.way.authority()), &remote.tasks).await;
        Self { remote, relay, address: format!("http://{address}") }
    }

    /// With a clock that is slow: whatever a test writes is of the time of the process that runs.
    async fn start(&self) -> Running {
        self.start_at(TimeDelta::seconds(-10)).await
    }

    async fn start_at(&self, off: TimeDelta) -> Running {
        let mut config = self.remote.config();
        config.api_url.clone_from(&self.address);
        self.remote.world.start_host_with(config, Arc::new(Off(off))).await
    }

    /// As if it had been written before; that it was changed shows.
    fn date_back(&self, name: &str, by: Duration) {
        let here = self.remote.world.path(&format!("artifacts/demo/{name}/v1.txt"));
        OpenOptions::new().append(true).open(here).unwrap().set_modified(SystemTime::now() - by).unwrap();
    }

    fn say(&self, first: &str, second: &str) {
        fs::write(self.remote.world.path("facts/second"), second).unwrap();
        fs::write(self.remote.world.path("facts/first.new"), first).unwrap();
        fs::rename(self.remote.world.path("facts/first.new"), self.remote.world.path("facts/first")).unwrap();
    }

    fn place(&self, name: &str) -> PathBuf {
        self.remote.folder.join(format!("demo/{name}/v1.txt"))
    }

    async fn arrives(&self, name: &str, text: &str) {
        let place = self.place(name);
        eventually(name, async || fs::read_to_string(&place).is_ok_and(|found| found == text).then_some(())).await;
    }

    async fn row(&self, name: &str) -> (i64, Option<u64>) {
        let files = self.remote.world.store.sensor_files(&["demo.one".to_owned()]).await.unwrap();
        let file = files.into_iter().find(|file| file.file_path == format!("demo/{name}/v1.txt")).unwrap();
        (file.id, file.size_bytes)
    }

    /// As if another host had delivered this.
    async fn deliver(&self, name: &str, text: &str) {
        fs::create_dir_all(self.place(name).parent().unwrap()).unwrap();
        fs::write(self.place(name), text).unwrap();
        let id = self.row(name).await.0;
        self.remote.world.store.set_log_sizes(&[(id, text.len() as u64)]).await.unwrap();
    }
}

#[tokio::test]
async fn a_file_that_the_api_does_not_take_now_holds_up_no_other_and_is_sent_alone_again() {
    let files = Files::new().await;
    files.relay.fail(Some((Method::PUT, "demo/first")));
    files.say("first", "second");
    let host = files.start().await;
    files.arrives("second", "second").await;
    eventually("several attempts", async || (files.relay.calls("demo/first") > 2).then_some(())).await;
    assert_eq!(files.relay.calls("demo/second"), 1);
    files.relay.fail(None);
    files.arrives("first", "first").await;
    host.stop().await;
    assert_eq!((files.row("first").await.1, files.row("second").await.1), (Some(5), Some(6)));
    assert_eq!(files.relay.calls("demo/second"), 1, "nothing has changed");
    files.remote.end().await;
}

#[tokio::test]
async fn what_a_host_owes_follows_in_its_next_life_and_nothing_else() {
    let files = Files::new().await;
    files.relay.hold(Some((Method::PUT, "demo/first")));
    files.say("first", "second");
    let host = files.start().await;
    files.arrives("second", "second").await;
    eventually("its size", async || files.row("second").await.1).await;
    host.stop().await;
    assert!(!files.place("first").exists());
    files.relay.hold(None);
    let calls = files.relay.calls("demo/second");
    let host = files.start().await;
    files.arrives("first", "first").await;
    host.stop().await;
    assert_eq!(files.relay.calls("demo/second"), calls);
    files.remote.end().await;
}

#[tokio::test]
async fn a_file_that_was_written_anew_with_the_same_length_follows_in_the_next_life_of_its_host() {
    let files = Files::new().await;
    files.say("first", "second");
    let host = files.start().await;
    files.arrives("second", "second").await;
    host.stop().await;
    files.relay.fail(Some((Method::PUT, "demo/second")));
    let before = files.relay.calls("demo/second");
    files.say("first", "SECOND");
    let host = files.start().await;
    eventually("an attempt", async || (files.relay.calls("demo/second") > before).then_some(())).await;
    host.stop().await;
    files.date_back("second", Duration::from_secs(5));
    files.relay.fail(None);
    let host = files.start().await;
    files.arrives("second", "SECOND").await;
    host.stop().await;
    files.remote.end().await;
}

#[tokio::test]
async fn a_size_that_the_store_did_not_get_follows_without_the_file() {
    let files = Files::new().await;
    files.say("first", "second");
    let host = files.start().await;
    files.arrives("second", "second").await;
    host.stop().await;
    // As if the host had been killed in between.
    let database = files.remote.world.database().await;
    sqlx::query("UPDATE artifact_version SET size_bytes = NULL").execute(&database).await.unwrap();
    database.close().await;
    let calls = files.relay.calls("demo/second");
    let ready = files.remote.world.facts("ready").len();
    let host = files.start().await;
    files.remote.world.eventually_facts("ready", ready + 1).await;
    host.stop().await;
    assert_eq!(files.row("second").await.1, Some(6));
    assert_eq!(files.relay.calls("demo/second"), calls);
    files.remote.end().await;
}

#[tokio::test]
async fn an_old_copy_never_takes_the_place_of_what_another_host_has_delivered() {
    let files = Files::new().await;
    files.say("first", "second");
    let host = files.start().await;
    files.arrives("first", "first").await;
    files.arrives("second", "second").await;
    host.stop().await;
    // The sensor was on another host meanwhile, and does nothing with this file here.
    files.deliver("first", "a newer one").await;
    // Somebody else has changed it since, and the process that begins then does not.
    files.date_back("first", Duration::from_hours(1));
    let ready = files.remote.world.facts("ready").len();
    let host = files.start_at(TimeDelta::hours(1)).await;
    files.remote.world.eventually_facts("ready", ready + 1).await;
    host.stop().await;
    files.arrives("first", "a newer one").await;
    // What waits here gives way to what was delivered meanwhile: the attempt that is under way then fails.
    files.relay.hold(Some((Method::PUT, "demo/first")));
    files.relay.fail(Some((Method::PUT, "demo/first")));
    files.say("of an outage", "second again");
    let before = files.relay.calls("demo/first");
    let ready = files.remote.world.facts("ready").len();
    let host = files.start().await;
    eventually("an attempt", async || (files.relay.calls("demo/first") > before).then_some(())).await;
    files.deliver("first", "newer than that").await;
    files.relay.hold(None);
    eventually("its end", async || (files.relay.under_way("demo/first") == 0).then_some(())).await;
    files.relay.fail(None);
    files.arrives("second", "second again").await;
    // Nor when another process has ended, which did nothing with it.
    files.remote.world.eventually_facts("ready", ready + 1).await;
    host.stop().await;
    assert_eq!(fs::read_to_string(files.place("first")).unwrap(), "newer than that");
    files.remote.end().await;
}
