//! A sensor host that shares no folder with the platform: its logs come through the API, also after it was killed.

use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use attune_testkit::{Direction, Proxy, eventually};

use crate::sensor_packs::Zoo;
use crate::support::{Installation, Program};

/// Prints what the test writes into a file, a line at a time.
const PARROT: &str = "#!/bin/sh\nexec tail -n +1 -F \"$ATTUNE_ARTIFACTS_DIR/say\"\n";

fn say(installation: &Installation, text: &str) {
    let path = installation.path("far/say");
    OpenOptions::new().append(true).create(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
}

fn lines(from: u32, count: u32) -> String {
    (from..from + count).fold(String::new(), |mut text, number| {
        writeln!(text, "line {number}").unwrap();
        text
    })
}

async fn holds(file: &Path, text: &str) {
    let what = format!("{} with {} bytes", file.display(), text.len());
    eventually(&what, async || fs::read_to_string(file).is_ok_and(|found| found == text).then_some(())).await;
}

fn far_host(installation: &Installation, way: &Proxy) -> Program {
    installation.host("far", |command| {
        command.env("ATTUNE__ARTIFACTS_DIR", installation.path("far"));
        command.env("ATTUNE_API_URL", format!("http://{}", way.authority()));
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_of_a_host_without_a_shared_folder_come_through_the_api_also_after_it_was_killed() {
    let installation = Installation::bare().await;
    let zoo = Zoo::new(&installation);
    zoo.sensor("parrot", "shell", PARROT);
    zoo.load();
    fs::create_dir(installation.path("far")).unwrap();
    let hub = installation.start("hub", &["hub"]);
    let way = Proxy::start(&installation.hub_address().to_string());
    let host = far_host(&installation, &way);
    let there =
        |version: u32| -> PathBuf { installation.path(&format!("artifacts/sensor/zoo/parrot/stdout/v{version}.txt")) };
    say(&installation, &lines(0, 3));
    holds(&there(1), &lines(0, 3)).await;
    // Killed in the middle of a call that nobody answers.
    let worker = installation.database.number("SELECT id FROM worker WHERE name = 'far'").await;
    let here = installation.path(&format!("far/_pending/sensors/{worker}/sensor/zoo/parrot/stdout/v1.txt"));
    way.black_hole(Direction::ToClient);
    say(&installation, &lines(3, 20_000));
    holds(&here, &lines(0, 20_003)).await;
    eventually("a part of it there", async || fs::metadata(there(1)).is_ok_and(|file| file.len() > 1000).then_some(()))
        .await;
    host.kill();
    way.resume();
    fs::write(installation.path("far/say"), "").unwrap();
    let host = far_host(&installation, &way);
    let sized = "SELECT count(*) FROM artifact_version WHERE file_path LIKE '%/stdout/v%' AND size_bytes IS NOT NULL";
    installation.wait_for("the size of the first version", sized, |count| count == 1).await;
    assert_eq!(fs::read_to_string(there(1)).unwrap(), lines(0, 20_003));
    say(&installation, "another life\n");
    holds(&there(2), "another life\n").await;
    eventually("the old file to go", async || (!here.exists()).then_some(())).await;
    // An API that hangs does not keep the host.
    way.black_hole_both();
    say(&installation, "last words\n");
    holds(&here.with_file_name("v2.txt"), "another life\nlast words\n").await;
    let begun = Instant::now();
    host.stop();
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    way.resume();
    let host = far_host(&installation, &way);
    installation.wait_for("the size of the second version", sized, |count| count == 2).await;
    host.stop();
    assert_eq!(fs::read_to_string(there(2)).unwrap(), "another life\nlast words\n");
    hub.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_of_sensors_are_in_the_log_of_their_host_which_says_when_it_is_ready() {
    let installation = Installation::bare().await;
    let zoo = Zoo::new(&installation);
    zoo.sensor("talker", "shell", "echo \"token $ATTUNE_API_TOKEN\"; echo beware >&2; exec sleep 1000\n");
    zoo.load();
    let hub = installation.start("hub", &["hub"]);
    let host = installation.host("one", |_| {});
    for (level, words) in [
        (" INFO ", ": Sensor zoo.talker stdout: token [redacted]"),
        (" WARN ", ": Sensor zoo.talker stderr: beware"),
        (" INFO ", ": Attune Sensor Agent is ready"),
    ] {
        let is_said = |log: &str| log.lines().any(|line| line.contains(level) && line.ends_with(words));
        eventually(words, async || is_said(&host.log()).then_some(())).await;
    }
    host.stop();
    hub.stop();
}
