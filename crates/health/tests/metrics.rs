//! The metrics as Prometheus sees them: well formed, described by the page, and bounded whatever is counted.
#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use attune_model::activity::{Activity, Observer};
use attune_model::measure::{
    CancelTarget, ClaimAnswer, ConnectionState, ConsumerChange, FinishAnswer, Kind, LeaseChange, Measure, RestartCause,
    SensorState, Server, Success,
};
use attune_model::status::ExecutionStatus;

use crate::support::exposition::{Exposition, parse};
use crate::support::{Running, get};

async fn scrape(running: &Running) -> Exposition {
    let answer = get(running, "/metrics").await;
    assert_eq!(answer.status, 200);
    parse(&answer.body).unwrap_or_else(|problem| panic!("{problem}\n{}", answer.body))
}

/// One of everything.
fn count_everything(observer: &dyn Observer) {
    let took = Duration::from_millis(7);
    for answer in ClaimAnswer::ALL {
        observer.measure(Measure::Claim { answer: *answer, took });
    }
    for answer in FinishAnswer::ALL {
        observer.measure(Measure::Finish { answer: *answer, took });
    }
    for status in ExecutionStatus::ALL {
        observer.measure(Measure::ExecutionEnded { status: *status, took: Some(took) });
    }
    for state in SensorState::ALL {
        observer.measure(Measure::SensorMoved { from: None, to: Some(*state) });
    }
    for success in Success::ALL {
        observer.measure(Measure::Heartbeat { success: *success, took });
        observer.measure(Measure::SensorToken(*success));
    }
    for server in Server::ALL {
        for state in ConnectionState::ALL {
            observer.measure(Measure::Connection { server: *server, state: *state });
        }
    }
    for change in ConsumerChange::ALL {
        observer.measure(Measure::Consumer(*change));
    }
    for target in CancelTarget::ALL {
        observer.measure(Measure::Cancel(*target));
    }
    for cause in RestartCause::ALL {
        observer.measure(Measure::SensorRestarted(*cause));
    }
    for change in LeaseChange::ALL {
        observer.measure(Measure::Lease(*change));
    }
    for measure in [
        Measure::Slots(4),
        Measure::ExecutionStarted,
        Measure::ExecutionLeft,
        Measure::PublishRetried,
        Measure::ResultSpooled,
        Measure::FileRefused,
        Measure::ChildStarted { took },
        Measure::ChildNotStarted,
        Measure::OutputDropped { bytes: 12 },
    ] {
        observer.measure(measure);
    }
}

#[tokio::test]
async fn no_input_adds_a_series() {
    let running = Running::start().await;
    let before = scrape(&running).await;
    let metrics = running.health.metrics();
    for number in 0..500 {
        count_everything(&*metrics);
        metrics.observe(Activity::EnvironmentFinished {
            pack_ref: format!("pack_{number}"),
            runtime: format!("runtime_{number}"),
            took: Duration::from_millis(number),
            error: (number % 2 == 0).then(|| format!("error {number}")),
        });
    }
    let after = scrape(&running).await;
    assert_eq!(before.series(), after.series());
    assert!(after.series().len() < 350, "{}", after.series().len());
    running.stop().await;
}

#[tokio::test]
async fn what_is_counted_is_seen() {
    let running = Running::start().await;
    let metrics = running.health.metrics();
    count_everything(&*metrics);
    metrics.measure(Measure::ExecutionStarted);
    metrics.measure(Measure::SensorMoved { from: Some(SensorState::Starting), to: Some(SensorState::Running) });
    let seen = scrape(&running).await;
    for (series, value) in [
        ("attune_agent_info{role=\"worker\",version=\"1.2.3\"}", 1.0),
        ("attune_ready", 1.0),
        ("attune_heartbeats_total{result=\"failed\"}", 1.0),
        ("attune_heartbeat_duration_seconds_count", 2.0),
        ("attune_connected{server=\"bus\"}", 0.0),
        ("attune_connection_changes_total{server=\"store\",state=\"connected\"}", 2.0),
        ("attune_consumer_changes_total{change=\"lost\"}", 1.0),
        ("attune_children_total{result=\"ok\"}", 1.0),
        ("attune_child_output_dropped_bytes_total", 12.0),
        ("attune_worker_slots", 4.0),
        ("attune_worker_executions_running", 1.0),
        ("attune_worker_executions_started_total", 2.0),
        ("attune_worker_executions_ended_total{status=\"abandoned\"}", 1.0),
        ("attune_worker_claims_total{answer=\"not_ours\"}", 1.0),
        ("attune_worker_claim_duration_seconds_bucket{le=\"0.005\"}", 0.0),
        ("attune_worker_claim_duration_seconds_bucket{le=\"0.01\"}", 5.0),
        ("attune_worker_finishes_total{answer=\"given_up\"}", 1.0),
        ("attune_worker_publish_retries_total", 1.0),
        ("attune_worker_results_spooled_total", 1.0),
        ("attune_worker_files_refused_total", 1.0),
        ("attune_worker_cancels_total{target=\"unknown\"}", 1.0),
        ("attune_sensor_sensors{state=\"running\"}", 2.0),
        ("attune_sensor_sensors{state=\"starting\"}", 0.0),
        ("attune_sensor_restarts_total{cause=\"token\"}", 1.0),
        ("attune_sensor_tokens_total{result=\"ok\"}", 1.0),
        ("attune_sensor_leases_held", -1.0),
    ] {
        assert_eq!(seen.value(series), Some(value), "{series}");
    }
    assert!(seen.value("process_resident_memory_bytes").unwrap() > 1e6);
    assert!(seen.value("process_open_fds").unwrap() >= 3.0);
    assert!(seen.value("process_max_fds").unwrap() > seen.value("process_open_fds").unwrap());
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    let age = now - seen.value("process_start_time_seconds").unwrap();
    assert!((-5.0..3600.0).contains(&age), "{age}");
    running.stop().await;
}

#[tokio::test]
async fn the_page_and_the_registry_are_equal() {
    let running = Running::start().await;
    let expected: BTreeSet<[String; 4]> = scrape(&running)
        .await
        .families
        .into_iter()
        .map(|(name, family)| {
            let name = if family.kind == "counter" { format!("{name}_total") } else { name };
            let labels: Vec<String> = family.labels.iter().map(|label| format!("`{label}`")).collect();
            [name, family.kind, labels.join(", "), family.help.trim_end_matches('.').to_owned()]
        })
        .collect();
    let page = include_str!("../../../docs/metrics.md");
    let rows: BTreeSet<[String; 4]> = page
        .lines()
        .filter_map(|line| {
            let cells: Vec<&str> = line.strip_prefix("| `")?.trim_end_matches('|').split('|').map(str::trim).collect();
            let [name, kind, labels, help, ..] = cells[..] else { return None };
            Some([name.trim_end_matches('`').to_owned(), kind.to_owned(), labels.to_owned(), help.to_owned()])
        })
        .collect();
    let missing: Vec<String> =
        expected.difference(&rows).map(|row| format!("| `{}` | {} |", row[0], row[1..].join(" | "))).collect();
    let stale: Vec<_> = rows.difference(&expected).collect();
    assert!(
        missing.is_empty() && stale.is_empty(),
        "missing in docs/metrics.md:\n{}\nnot metrics: {stale:?}",
        missing.join("\n")
    );
    running.stop().await;
}

#[tokio::test]
async fn a_client_that_asks_for_open_metrics_gets_its_name() {
    let running = Running::start().await;
    let plain = get(&running, "/metrics").await;
    assert_eq!(plain.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let head = "GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5\r\n\r\n";
    let open = support::exchange(&running, head.as_bytes()).await.unwrap();
    assert_eq!(open.header("content-type"), Some("application/openmetrics-text; version=1.0.0; charset=utf-8"));
    assert!(open.body.ends_with("# EOF\n"));
    running.stop().await;
}
