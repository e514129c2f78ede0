//! The writer with a store that behaves badly.

use std::collections::VecDeque;
use std::fs;
use std::sync::Mutex;

use async_trait::async_trait;
use attune_model::ExecutionId;
use attune_process::Sink;
use attune_store::{EndedLog, FiledLogs, SensorFile, StoreError};

use super::super::queue::{LogSink, queue};
use super::*;

/// What the store does with the next version; none gives one.
#[derive(Debug, Clone, Copy)]
enum Answer {
    Unavailable,
    Refused,
}

#[derive(Debug, Default)]
struct Moody {
    answers: Mutex<VecDeque<Answer>>,
    sizes: Mutex<Vec<(i64, u64)>>,
    versions: Mutex<i32>,
}

#[async_trait]
impl LogStore for Moody {
    async fn add_log_version(&self, artifact: &LogArtifact) -> Result<LogVersion, StoreError> {
        let operation = "add a version".to_owned();
        match self.answers.lock().unwrap().pop_front() {
            Some(Answer::Unavailable) => {
                return Err(StoreError::Unavailable { operation, source: "busy".into() });
            }
            Some(Answer::Refused) => {
                return Err(StoreError::Refused { operation, source: "constraint".into() });
            }
            None => {}
        }
        let mut version = self.versions.lock().unwrap();
        *version += 1;
        Ok(LogVersion {
            id: i64::from(*version),
            version: *version,
            file_path: format!("{}/v{version}.txt", artifact.r#ref.replace('.', "/")),
            expired_files: Vec::new(),
        })
    }

    async fn file_logs(&self, _: &[EndedLog], _: &[ExecutionId]) -> Result<FiledLogs, StoreError> {
        unreachable!("sensors write to logs that have versions already")
    }

    async fn log_versions(&self, _: ExecutionId) -> Result<Vec<(String, LogVersion)>, StoreError> {
        unreachable!("executions have those")
    }

    async fn sensor_files(&self, _: &[String]) -> Result<Vec<SensorFile>, StoreError> {
        unreachable!("that is the courier's question")
    }

    async fn set_log_sizes(&self, sizes: &[(i64, u64)]) -> Result<(), StoreError> {
        self.sizes.lock().unwrap().extend_from_slice(sizes);
        Ok(())
    }
}

fn target(root: &Path, limits: LogLimits) -> LogTarget {
    LogTarget {
        sensor_ref: "demo.one".to_owned(),
        stream: LogStream::Stderr,
        home: LogHome::shared(root.to_owned(), limits),
        artifact: LogArtifact {
            r#ref: "sensor.demo.one.stderr".to_owned(),
            scope: OwnerType::Sensor,
            owner: "demo.one".to_owned(),
            name: String::new(),
            description: String::new(),
            retention_policy: RetentionPolicy::Versions,
            retention_limit: 4,
            execution: None,
            meta: json!({}),
            created_by: "sensor",
        },
    }
}

fn writer(store: &Arc<Moody>, root: &Path, limits: LogLimits) -> (LogSink, LogWriter) {
    let (sink, source) = queue();
    (sink, LogWriter::new(store.clone(), target(root, limits), source, LaterTokens::default()))
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_for_a_while_costs_no_line() {
    let root = tempfile::tempdir().unwrap();
    let store = Arc::new(Moody::default());
    store.answers.lock().unwrap().extend([Answer::Unavailable; 3]);
    let (mut sink, writer) = writer(&store, root.path(), LogLimits::default());
    sink.write(b"one\ntwo\nthr");
    sink.write(b"ee");
    drop(sink);
    writer.run().await;
    let log = fs::read_to_string(root.path().join("sensor/demo/one/stderr/v1.txt")).unwrap();
    assert_eq!(log, "one\ntwo\nthree\n");
    assert_eq!(*store.sizes.lock().unwrap(), [(1, 14)]);
}

#[tokio::test(start_paused = true)]
async fn lines_that_had_to_be_given_up_are_counted_in_the_log() {
    let root = tempfile::tempdir().unwrap();
    let store = Arc::new(Moody::default());
    store.answers.lock().unwrap().extend([Answer::Unavailable; MOST_TRIES as usize]);
    let (mut sink, writer) = writer(&store, root.path(), LogLimits::default());
    sink.write(b"lost\n");
    drop(sink);
    writer.run().await;
    let log = fs::read_to_string(root.path().join("sensor/demo/one/stderr/v1.txt")).unwrap();
    assert_eq!(log, "[attune: 5 bytes of output were lost here]\n");
}

#[tokio::test]
async fn a_store_that_refuses_versions_leaves_a_plain_file_that_is_rotated() {
    let root = tempfile::tempdir().unwrap();
    let store = Arc::new(Moody::default());
    store.answers.lock().unwrap().push_back(Answer::Refused);
    let limits = LogLimits { max_bytes: 10, max_files: 1 };
    let (mut sink, writer) = writer(&store, root.path(), limits);
    let current = writer.current_file();
    sink.write(b"line 1\nline 2\nline 3\n");
    drop(sink);
    writer.run().await;
    let file = root.path().join("sensors/demo.one/stderr.log");
    assert_eq!(fs::read_to_string(&file).unwrap(), "line 3\n");
    assert_eq!(fs::read_to_string(root.path().join("sensors/demo.one/stderr.log.1")).unwrap(), "line 2\n");
    assert!(!root.path().join("sensors/demo.one/stderr.log.2").exists());
    assert_eq!(current.lock().unwrap().as_ref(), Some(&file));
    assert_eq!(*store.versions.lock().unwrap(), 0, "it is not asked again");
}

#[tokio::test]
async fn a_silent_stream_makes_no_version() {
    let root = tempfile::tempdir().unwrap();
    let store = Arc::new(Moody::default());
    let (sink, writer) = writer(&store, root.path(), LogLimits::default());
    drop(sink);
    writer.run().await;
    assert_eq!(*store.versions.lock().unwrap(), 0);
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_line_larger_than_a_file_gets_a_file_of_its_own() {
    let root = tempfile::tempdir().unwrap();
    let store = Arc::new(Moody::default());
    let (mut sink, writer) = writer(&store, root.path(), LogLimits { max_bytes: 8, max_files: 4 });
    sink.write(b"a\nlonger than eight\nb\n");
    drop(sink);
    writer.run().await;
    let sizes = store.sizes.lock().unwrap().clone();
    assert_eq!(sizes, [(1, 2), (2, 18), (3, 2)]);
}

#[tokio::test(start_paused = true)]
async fn a_file_that_cannot_be_opened_costs_one_version_and_not_all_that_are_kept() {
    let root = tempfile::tempdir().unwrap();
    let store = Arc::new(Moody::default());
    let (mut sink, writer) = writer(&store, root.path(), LogLimits::default());
    // In the place of the folder.
    fs::create_dir_all(root.path().join("sensor/demo/one")).unwrap();
    fs::write(root.path().join("sensor/demo/one/stderr"), "").unwrap();
    sink.write(b"one\ntwo\nthree\n");
    drop(sink);
    writer.run().await;
    assert_eq!(*store.versions.lock().unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_file_that_somebody_removes_is_followed_by_another_one() {
    for (refused, removed, next) in [
        (None, "sensor/demo/one/stderr/v1.txt", "sensor/demo/one/stderr/v2.txt"),
        (Some(Answer::Refused), "sensors/demo.one/stderr.log", "sensors/demo.one/stderr.log"),
    ] {
        let root = tempfile::tempdir().unwrap();
        let store = Arc::new(Moody::default());
        store.answers.lock().unwrap().extend(refused);
        let (_sink, mut writer) = writer(&store, root.path(), LogLimits::default());
        writer.write(b"before\n").await;
        tokio::time::advance(LOOK_INTERVAL).await;
        writer.write(b"seen\n").await;
        fs::remove_file(root.path().join(removed)).unwrap();
        writer.write(b"gone\n").await;
        tokio::time::advance(LOOK_INTERVAL).await;
        writer.write(b"after\n").await;
        writer.report_loss().await;
        let log = fs::read_to_string(root.path().join(next)).unwrap();
        assert_eq!(log, "after\n[attune: 10 bytes of output were lost here]\n");
        // The first version has no file any more, and the next one its length.
        let before = store.sizes.lock().unwrap().clone();
        assert_eq!(before, refused.map_or(vec![(1, 0)], |_| Vec::new()));
    }
}

#[tokio::test]
async fn a_file_that_somebody_has_removed_when_it_ends_leaves_no_version() {
    let root = tempfile::tempdir().unwrap();
    let store = Arc::new(Moody::default());
    let (_sink, mut writer) = writer(&store, root.path(), LogLimits { max_bytes: 8, max_files: 4 });
    for version in ["v1", "v2"] {
        writer.write(b"12345\n").await;
        fs::remove_file(root.path().join(format!("sensor/demo/one/stderr/{version}.txt"))).unwrap();
    }
    writer.close().await;
    assert_eq!(*store.sizes.lock().unwrap(), [(1, 0), (2, 0)]);
}

#[tokio::test]
async fn a_version_that_stays_empty_goes_with_its_file() {
    let root = tempfile::tempdir().unwrap();
    let store = Arc::new(Moody::default());
    let (_sink, mut writer) = writer(&store, root.path(), LogLimits::default());
    let open = writer.open_segment().await.unwrap();
    let file = open.segment.path().to_owned();
    writer.open = Some(open);
    writer.close().await;
    assert_eq!(*store.sizes.lock().unwrap(), [(1, 0)]);
    assert!(!file.exists());
}

/// What is said in our own log.
#[derive(Debug, Clone, Default)]
struct OwnLog(Arc<Mutex<Vec<String>>>);

impl tracing::Subscriber for OwnLog {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        event.record(&mut self.clone());
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

impl tracing::field::Visit for OwnLog {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            self.0.lock().unwrap().push(format!("{value:?}"));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_flood_is_in_the_log_of_the_sensor_and_not_in_our_own() {
    let root = tempfile::tempdir().unwrap();
    let own = OwnLog::default();
    let _listening = tracing::subscriber::set_default(own.clone());
    let store = Arc::new(Moody::default());
    let (mut sink, writer) = writer(&store, root.path(), LogLimits::default());
    let flood = "line\n".repeat(100_000);
    sink.write(flood.as_bytes());
    drop(sink);
    writer.run().await;
    assert_eq!(fs::read_to_string(root.path().join("sensor/demo/one/stderr/v1.txt")).unwrap(), flood);
    let said = own.0.lock().unwrap().clone();
    assert_eq!(said.iter().filter(|text| *text == "Sensor demo.one stderr: line").count(), 100);
    let left_out = "Sensor demo.one stderr: [attune: 99900 more lines, in its own log only]";
    assert_eq!(said.last().unwrap(), left_out);
}

#[tokio::test(start_paused = true)]
async fn a_log_that_cannot_be_written_is_told_once_and_so_is_that_it_can_again() {
    let root = tempfile::tempdir().unwrap();
    let own = OwnLog::default();
    let _listening = tracing::subscriber::set_default(own.clone());
    let store = Arc::new(Moody::default());
    let (_sink, mut writer) = writer(&store, root.path(), LogLimits::default());
    let folder = root.path().join("sensor/demo/one");
    fs::create_dir_all(&folder).unwrap();
    for _ in 0..2 {
        // In the place of the folder.
        fs::write(folder.join("stderr"), "").unwrap();
        for _ in 0..3 {
            writer.write(b"lost\n").await;
        }
        fs::remove_file(folder.join("stderr")).unwrap();
        writer.write(b"kept\n").await;
        writer.write(b"kept\n").await;
        writer.open = None;
        fs::remove_dir_all(folder.join("stderr")).unwrap();
    }
    let told = ["lines of a sensor's log are given up", "the log of a sensor is written again"];
    assert_eq!(*own.0.lock().unwrap(), [told, told].concat());
}
