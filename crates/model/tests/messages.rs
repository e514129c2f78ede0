//! Golden files of every message: the platform's other services read and write exactly these shapes.

#![expect(clippy::unwrap_used, reason = "tests")]

use attune_model::message::{
    EnforcementCreated, Envelope, EventCreated, ExecutionCancelRequested, ExecutionCompleted, ExecutionDispatch,
    ExecutionRequested, ExecutionStatusChanged, MessageType, PackDeleted, PackRegistered, Payload, RuleCreated,
    RuleDisabled, RuleEnabled,
};
use chrono::{DateTime, Utc};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

/// The golden file reads as `P`, writes back as the same JSON, and goes the documented way.
fn round_trip<P: Payload + DeserializeOwned>(golden: &str, exchange: &str, key: &str, kind: &str) {
    let expected: Value = serde_json::from_str(golden).unwrap();
    let payload: P = serde_json::from_value(expected.clone()).unwrap();
    assert_eq!(serde_json::to_value(&payload).unwrap(), expected);
    assert_eq!(P::EXCHANGE.name(), exchange);
    assert_eq!(payload.routing_key(), key);
    let envelope = payload.envelope("worker", at("2026-01-02T03:04:05Z")).unwrap();
    let written = serde_json::to_value(&envelope).unwrap();
    assert_eq!(written["message_type"], kind);
    assert_eq!(written["version"], "1.0");
    assert_eq!(written["message_id"], written["correlation_id"]);
    assert_eq!(written["timestamp"], "2026-01-02T03:04:05Z");
    assert_eq!(written["headers"], json!({ "retry_count": 0, "source_service": "worker" }));
    assert_eq!(written["payload"], expected);
}

macro_rules! golden {
    ($($name:ident: $payload:ty, $exchange:literal, $key:literal, $kind:literal;)*) => {$(
        #[test]
        fn $name() {
            let golden = include_str!(concat!("golden/", stringify!($name), ".json"));
            round_trip::<$payload>(golden, $exchange, $key, $kind);
        }
    )*};
}

golden! {
    event_created: EventCreated, "attune.events", "event.created", "EventCreated";
    enforcement_created: EnforcementCreated, "attune.executions", "enforcement.created", "EnforcementCreated";
    execution_requested: ExecutionRequested, "attune.executions", "execution.requested", "ExecutionRequested";
    execution_dispatch: ExecutionDispatch, "attune.executions", "execution.dispatch.worker.42", "ExecutionRequested";
    execution_status_changed: ExecutionStatusChanged, "attune.executions", "execution.status.changed",
        "ExecutionStatusChanged";
    execution_completed: ExecutionCompleted, "attune.executions", "execution.completed", "ExecutionCompleted";
    execution_cancel_requested: ExecutionCancelRequested, "attune.executions", "execution.cancel.worker.42",
        "ExecutionCancelRequested";
    rule_created: RuleCreated, "attune.events", "rule.created", "RuleCreated";
    rule_enabled: RuleEnabled, "attune.events", "rule.enabled", "RuleEnabled";
    rule_disabled: RuleDisabled, "attune.events", "rule.disabled", "RuleDisabled";
    pack_registered: PackRegistered, "attune.events", "pack.registered", "PackRegistered";
    pack_deleted: PackDeleted, "attune.events", "pack.deleted", "PackDeleted";
}

#[test]
fn a_sparse_envelope_of_another_service_is_read() {
    let envelope: Envelope = serde_json::from_value(json!({
        "message_id": null,
        "message_type": "RuleEnabled",
        "timestamp": "2026-01-02T03:04:05.123456789+02:00",
        "payload": {},
        "unknown": 1,
    }))
    .unwrap();
    assert_eq!(envelope.message_type, MessageType::RuleEnabled);
    assert_eq!(envelope.version, "1.0");
    assert_eq!(envelope.headers.retry_count, 0);
    assert!(!envelope.message_id.is_nil());
}

#[test]
fn unknown_headers_are_kept() {
    let text = json!({
        "message_id": "6f6f0d5e-2a60-4f52-9a5b-0b7c7f1d9a10",
        "correlation_id": "6f6f0d5e-2a60-4f52-9a5b-0b7c7f1d9a10",
        "message_type": "PackDeleted",
        "version": "1.0",
        "timestamp": "2026-01-02T03:04:05Z",
        "headers": { "retry_count": 2, "source_service": "api-service", "x-trace": "abc" },
        "payload": { "pack_id": 1, "pack_ref": "demo" },
    });
    let envelope: Envelope = serde_json::from_value(text.clone()).unwrap();
    assert_eq!(serde_json::to_value(&envelope).unwrap(), text);
}

#[test]
fn an_unknown_type_or_a_missing_payload_is_refused() {
    for bad in [
        json!({ "message_type": "RuleDeleted", "timestamp": "2026-01-02T03:04:05Z", "payload": {} }),
        json!({ "message_type": "RuleCreated", "timestamp": "2026-01-02T03:04:05Z" }),
        json!({ "message_type": "RuleCreated", "timestamp": "yesterday", "payload": {} }),
    ] {
        assert!(serde_json::from_value::<Envelope>(bad.clone()).is_err(), "{bad}");
    }
}
