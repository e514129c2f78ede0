//! Versions of log artifacts.

use attune_model::ExecutionId;
use attune_model::status::{OwnerType, RetentionPolicy};
use attune_store::{EndedLog, LogArtifact, RegisteredFile, SensorFile};
use futures_util::future::join_all;
use serde_json::json;

use super::Lab;

fn artifact(policy: RetentionPolicy, limit: i32) -> LogArtifact {
    LogArtifact {
        r#ref: "demo.echo.stdout.log".to_owned(),
        scope: OwnerType::Action,
        owner: "demo.echo".to_owned(),
        name: "demo.echo stdout".to_owned(),
        description: "Captured stdout for action 'demo.echo'".to_owned(),
        retention_policy: policy,
        retention_limit: limit,
        execution: Some(ExecutionId(7)),
        meta: json!({"stream": "stdout", "execution_id": 7}),
        created_by: "worker",
    }
}

/// The artifact is made by the first one.
pub async fn versions_count_from_one_and_name_their_file(lab: &dyn Lab) {
    let store = lab.store();
    for number in 1..=3 {
        let version = store.add_log_version(&artifact(RetentionPolicy::Versions, 10)).await.unwrap();
        assert_eq!(version.version, number);
        assert_eq!(version.file_path, format!("demo/echo/stdout/log/v{number}.txt"));
        assert_eq!(version.expired_files, Vec::<String>::new());
    }
    let mut other = artifact(RetentionPolicy::Versions, 10);
    other.r#ref = String::from("sensor.demo.clock.stderr");
    let version = store.add_log_version(&other).await.unwrap();
    assert_eq!((version.version, version.file_path.as_str()), (1, "sensor/demo/clock/stderr/v1.txt"));
    assert_eq!(lab.number("SELECT count(*) FROM artifact").await, 2);
    let complete = "SELECT count(*) FROM artifact_version WHERE execution = 7 AND created_by = 'worker' \
                    AND content_type = 'text/plain' AND file_path IS NOT NULL AND size_bytes IS NULL";
    assert_eq!(lab.number(complete).await, 4);
}

/// Executions of one action end at the same time.
pub async fn versions_asked_for_at_once_differ(lab: &dyn Lab) {
    let store = lab.store();
    let artifact = artifact(RetentionPolicy::Versions, 100);
    let added = join_all((0..20).map(|_| store.add_log_version(&artifact))).await;
    let mut numbers: Vec<i32> = added.into_iter().map(|version| version.unwrap().version).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=20).collect::<Vec<_>>());
    assert_eq!(lab.number("SELECT count(*) FROM artifact").await, 1);
}

/// The limit of the last call counts.
pub async fn the_oldest_versions_beyond_the_limit_go_with_their_files(lab: &dyn Lab) {
    let store = lab.store();
    for _ in 0..3 {
        store.add_log_version(&artifact(RetentionPolicy::Versions, 3)).await.unwrap();
    }
    let version = store.add_log_version(&artifact(RetentionPolicy::Versions, 3)).await.unwrap();
    assert_eq!(version.expired_files, ["demo/echo/stdout/log/v1.txt"]);
    let version = store.add_log_version(&artifact(RetentionPolicy::Versions, 1)).await.unwrap();
    assert_eq!(version.version, 5);
    assert_eq!(
        version.expired_files,
        ["demo/echo/stdout/log/v2.txt", "demo/echo/stdout/log/v3.txt", "demo/echo/stdout/log/v4.txt"]
    );
    assert_eq!(lab.number("SELECT count(*) FROM artifact_version").await, 1);
    assert_eq!(lab.number("SELECT retention_limit FROM artifact").await, 1);
}

/// Somebody else removes by time.
pub async fn retention_by_time_removes_nothing_here(lab: &dyn Lab) {
    let store = lab.store();
    for _ in 0..3 {
        let version = store.add_log_version(&artifact(RetentionPolicy::Days, 1)).await.unwrap();
        assert_eq!(version.expired_files, Vec::<String>::new());
    }
    assert_eq!(lab.number("SELECT count(*) FROM artifact_version").await, 3);
    assert_eq!(lab.number("SELECT count(*) FROM artifact WHERE retention_policy = 'days'").await, 1);
}

/// An empty log is no log; the artifact shows the size of its newest version.
pub async fn a_size_of_zero_removes_the_version(lab: &dyn Lab) {
    let store = lab.store();
    let first = store.add_log_version(&artifact(RetentionPolicy::Versions, 2)).await.unwrap();
    let second = store.add_log_version(&artifact(RetentionPolicy::Versions, 2)).await.unwrap();
    store.set_log_sizes(&[]).await.unwrap();
    store.set_log_sizes(&[(second.id, 20), (first.id, 10)]).await.unwrap();
    assert_eq!(lab.number("SELECT sum(size_bytes) FROM artifact_version").await, 30);
    assert_eq!(lab.number("SELECT size_bytes FROM artifact").await, 20);
    store.set_log_sizes(&[(second.id, 0)]).await.unwrap();
    assert_eq!(lab.number("SELECT count(*) FROM artifact_version").await, 1);
    assert_eq!(lab.number("SELECT size_bytes FROM artifact").await, 10);
    // Retention may have removed it while its log was written.
    store.set_log_sizes(&[(second.id, 5), (4711, 0), (first.id, 11)]).await.unwrap();
    assert_eq!(lab.number("SELECT size_bytes FROM artifact").await, 11);
}

fn ended(policy: RetentionPolicy, limit: i32, size_bytes: u64) -> EndedLog {
    EndedLog { artifact: artifact(policy, limit), size_bytes }
}

/// One unit for the logs of many; what a later one pushes out is told with it.
pub async fn logs_that_ended_together_are_filed_together(lab: &dyn Lab) {
    let store = lab.store();
    assert_eq!(store.file_logs(&[], &[]).await.unwrap().versions, []);
    let mut other = ended(RetentionPolicy::Days, 7, 30);
    other.artifact.r#ref = String::from("demo.echo.stderr.log");
    let logs = [ended(RetentionPolicy::Versions, 2, 10), other, ended(RetentionPolicy::Versions, 2, 20)];
    let filed = store.file_logs(&logs, &[ExecutionId(7)]).await.unwrap();
    let told: Vec<(i32, &str)> =
        filed.versions.iter().map(|version| (version.version, version.file_path.as_str())).collect();
    assert_eq!(
        told,
        [(1, "demo/echo/stdout/log/v1.txt"), (1, "demo/echo/stderr/log/v1.txt"), (2, "demo/echo/stdout/log/v2.txt")]
    );
    assert_eq!(filed.registered, [], "they have sizes");
    let filed = store.file_logs(&[ended(RetentionPolicy::Versions, 2, 40)], &[]).await.unwrap();
    assert_eq!(filed.versions[0].expired_files, ["demo/echo/stdout/log/v1.txt"]);
    assert_eq!(lab.number("SELECT sum(size_bytes) FROM artifact_version").await, 90);
    assert_eq!(lab.number("SELECT sum(size_bytes) FROM artifact").await, 70, "that of the newest version");
    let complete = "SELECT count(*) FROM artifact_version WHERE execution = 7 AND created_by = 'worker' \
                    AND content_type = 'text/plain' AND file_path IS NOT NULL";
    assert_eq!(lab.number(complete).await, 3);

    // Callers at once get different versions, also of an artifact that neither of them has seen.
    let mut fresh = ended(RetentionPolicy::Days, 7, 1);
    fresh.artifact.r#ref = String::from("demo.plain.stdout.log");
    let pair = [fresh.clone(), fresh];
    let filed = join_all((0..10).map(|_| store.file_logs(&pair, &[]))).await;
    let mut numbers: Vec<i32> =
        filed.into_iter().flat_map(|filed| filed.unwrap().versions).map(|version| version.version).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=20).collect::<Vec<_>>());
    assert_eq!(lab.number("SELECT count(*) FROM artifact WHERE ref = 'demo.plain.stdout.log'").await, 1);
}

/// Whoever filed them may have died before the files were in their places.
pub async fn logs_that_have_versions_already_are_found_by_their_execution(lab: &dyn Lab) {
    let store = lab.store();
    let mut others = ended(RetentionPolicy::Days, 7, 20);
    others.artifact.execution = Some(ExecutionId(8));
    let mut by_action = artifact(RetentionPolicy::Days, 7);
    by_action.created_by = "demo.echo";
    store.add_log_version(&by_action).await.unwrap();
    let filed = store.file_logs(&[others, ended(RetentionPolicy::Days, 7, 10)], &[]).await.unwrap();
    let expected = vec![("demo.echo.stdout.log".to_owned(), filed.versions[1].clone())];
    assert_eq!(store.log_versions(ExecutionId(7)).await.unwrap(), expected);
    assert_eq!(store.log_versions(ExecutionId(9)).await.unwrap(), []);
}

/// The action asked for a version and wrote the file itself; its size is the worker's to write.
pub async fn files_that_actions_registered_are_found_until_they_have_a_size(lab: &dyn Lab) {
    let store = lab.store();
    let mut report = artifact(RetentionPolicy::Versions, 10);
    report.r#ref = String::from("demo.report");
    let mine = store.add_log_version(&report).await.unwrap();
    report.execution = Some(ExecutionId(8));
    let others = store.add_log_version(&report).await.unwrap();
    let registered = |id, execution, file_path: &str| RegisteredFile {
        id,
        execution: ExecutionId(execution),
        file_path: file_path.to_owned(),
    };
    let find = async |logs: &[EndedLog], executions: &[ExecutionId]| {
        store.file_logs(logs, executions).await.unwrap().registered
    };
    assert_eq!(find(&[], &[ExecutionId(7)]).await, [registered(mine.id, 7, "demo/report/v1.txt")]);
    let log = ended(RetentionPolicy::Days, 7, 5);
    assert_eq!(
        find(&[log], &[ExecutionId(8), ExecutionId(7)]).await,
        [registered(mine.id, 7, "demo/report/v1.txt"), registered(others.id, 8, "demo/report/v2.txt")]
    );
    // As good as none: a file of that size is no file.
    lab.execute("UPDATE artifact_version SET size_bytes = 0 WHERE file_path = 'demo/report/v1.txt'").await;
    assert_eq!(find(&[], &[ExecutionId(7)]).await, [registered(mine.id, 7, "demo/report/v1.txt")]);
    store.set_log_sizes(&[(mine.id, 12), (others.id, 0)]).await.unwrap();
    assert_eq!(find(&[], &[ExecutionId(8), ExecutionId(7)]).await, []);
    assert_eq!(lab.number("SELECT size_bytes FROM artifact WHERE ref = 'demo.report'").await, 12);
}

/// Their logs, and what they registered themselves.
pub async fn files_of_sensors_are_found_by_their_owners(lab: &dyn Lab) {
    let store = lab.store();
    let of = |owner: &str, scope, name: &str| LogArtifact {
        r#ref: name.to_owned(),
        scope,
        owner: owner.to_owned(),
        execution: None,
        ..artifact(RetentionPolicy::Versions, 10)
    };
    let log = store.add_log_version(&of("demo.clock", OwnerType::Sensor, "sensor.demo.clock.stderr")).await.unwrap();
    let other = store.add_log_version(&of("demo.bell", OwnerType::Sensor, "demo.bell.report")).await.unwrap();
    store.add_log_version(&of("demo.quiet", OwnerType::Sensor, "demo.quiet.report")).await.unwrap();
    store.add_log_version(&of("demo.clock", OwnerType::Action, "demo.clock.stdout.log")).await.unwrap();
    let again = store.add_log_version(&of("demo.clock", OwnerType::Sensor, "sensor.demo.clock.stderr")).await.unwrap();
    store.set_log_sizes(&[(log.id, 7)]).await.unwrap();
    let file = |id, owner: &str, path: &str, size_bytes| {
        let (owner, file_path) = (owner.to_owned(), path.to_owned());
        SensorFile { id, owner, file_path, size_bytes }
    };
    let sensors = ["demo.clock", "demo.bell", "demo.none"].map(str::to_owned);
    let expected = [
        file(log.id, "demo.clock", "sensor/demo/clock/stderr/v1.txt", Some(7)),
        file(other.id, "demo.bell", "demo/bell/report/v1.txt", None),
        file(again.id, "demo.clock", "sensor/demo/clock/stderr/v2.txt", None),
    ];
    assert_eq!(store.sensor_files(&sensors).await.unwrap(), expected);
    assert_eq!(store.sensor_files(&[]).await.unwrap(), []);
}
