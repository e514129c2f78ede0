//! The alert about a sensor that fails again and again (payload: a fact of the platform).

use std::time::Duration;

use attune_model::rows::Sensor;
use attune_model::{JsonMap, WorkerId};
use attune_store::ProcessEnd;
use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Value, json};

/// Failures in a row from which on it is worth an alert.
pub(crate) const FAILURES: i32 = 3;

/// What the alert is about.
#[derive(Debug)]
pub(crate) struct Failing<'a> {
    pub(crate) sensor: &'a Sensor,
    pub(crate) worker: (WorkerId, &'a str),
    pub(crate) end: &'a ProcessEnd,
    pub(crate) delay: Duration,
    pub(crate) active_rules: i32,
    pub(crate) now: DateTime<Utc>,
}

/// Whether an alert is due: something waits for the sensor, and nobody was told about this many failures.
pub(crate) fn is_due(active_rules: i32, failures: i32, alerted: i32) -> bool {
    active_rules > 0 && failures >= FAILURES && failures > alerted
}

/// The payload of the `core.alert` event.
pub(crate) fn payload(failing: &Failing<'_>) -> JsonMap {
    let Failing { sensor, worker: (worker_id, worker_name), end, delay, active_rules, now } = failing;
    let time = |time: DateTime<Utc>| time.to_rfc3339_opts(SecondsFormat::Micros, true);
    let payload = json!({
        "severity": "error",
        "category": "sensor_process_health",
        "failure_type": "sensor_process_repeated_failure",
        "component_type": "sensor",
        "component_id": sensor.id,
        "component_ref": sensor.r#ref,
        "worker_role": "sensor",
        "observed_at": time(*now),
        "summary": format!(
            "sensor {} failed {} times in a row on {worker_name}; it is started again in {} s",
            sensor.r#ref, end.consecutive_failures, delay.as_secs()
        ),
        "details": {
            "sensor_id": sensor.id,
            "sensor_ref": sensor.r#ref,
            "worker_id": worker_id,
            "worker_name": worker_name,
            "process_status": "backoff",
            "consecutive_failures": end.consecutive_failures,
            "last_exit_code": end.exit_code,
            "last_signal": end.signal,
            "backoff_delay_seconds": delay.as_secs(),
            "next_restart_at": end.next_restart_at.map(time),
            "active_rule_count": active_rules,
            "stderr_excerpt": end.stderr_excerpt,
        },
        "correlation_id": format!("sensor:{}:worker:{worker_id}:repeated_failure", sensor.id),
    });
    match payload {
        Value::Object(map) => map,
        _ => JsonMap::new(),
    }
}

#[cfg(test)]
mod tests {
    use attune_model::SensorId;

    use super::*;
    use crate::files::tests::sensor;

    #[test]
    fn an_alert_is_due_from_the_third_failure_and_once_per_count() {
        assert!(!is_due(1, 2, 0));
        assert!(is_due(1, 3, 0));
        assert!(!is_due(1, 3, 3));
        assert!(is_due(1, 4, 3));
        assert!(!is_due(0, 9, 0), "nobody waits for it");
    }

    #[test]
    fn the_payload_is_that_of_the_platform() {
        let sensor = Sensor { id: SensorId(7), ..sensor("one") };
        let now: DateTime<Utc> = "2026-03-01T10:20:30Z".parse().unwrap();
        let delay = Duration::from_millis(19_400);
        let end = ProcessEnd {
            consecutive_failures: 5,
            exit_code: None,
            signal: Some(9),
            stderr_excerpt: None,
            next_restart_at: Some(now + delay),
        };
        let worker = (WorkerId(3), "host");
        let payload = payload(&Failing { sensor: &sensor, worker, end: &end, delay, active_rules: 4, now });
        let expected = json!({
            "severity": "error",
            "category": "sensor_process_health",
            "failure_type": "sensor_process_repeated_failure",
            "component_type": "sensor",
            "component_id": 7,
            "component_ref": "demo.one",
            "worker_role": "sensor",
            "observed_at": "2026-03-01T10:20:30.000000Z",
            "summary": "sensor demo.one failed 5 times in a row on host; it is started again in 19 s",
            "details": {
                "sensor_id": 7,
                "sensor_ref": "demo.one",
                "worker_id": 3,
                "worker_name": "host",
                "process_status": "backoff",
                "consecutive_failures": 5,
                "last_exit_code": null,
                "last_signal": 9,
                "backoff_delay_seconds": 19,
                "next_restart_at": "2026-03-01T10:20:49.400000Z",
                "active_rule_count": 4,
                "stderr_excerpt": null,
            },
            "correlation_id": "sensor:7:worker:3:repeated_failure",
        });
        assert_eq!(Value::Object(payload), expected);
    }
}
