//! The core pack's native timer sensor: interval, cron, date and recurrence timers.
//!
//! It takes its rules from the environment it was started with and from the API, which it asks again slowly, and sends one
//! event per firing, bound to its rule. It needs nothing but HTTP. The sensor host restarts it when rules change and when
//! it ends, so it keeps nothing on disk: a time that passed while it was not running is not made up for.

mod api;
mod engine;
mod recurrence;
mod rule;
mod schedule;
mod table;
mod timers;
mod zone;

use std::path::PathBuf;
use std::time::Duration;

use attune_http::{BuildError, Client, ClientConfig, HttpError};
use attune_lifecycle::CancellationToken;
use attune_model::Secret;
use chrono::Utc;
use serde::Deserialize;
use serde_json::Value;
use thiserror::Error;

use api::{Api, Token};
use engine::Engine;
pub use schedule::ParamError;
use schedule::{Schedule, TimerKind};
use timers::TimerRule;

/// What the sensor is told by its environment.
#[derive(Debug, Clone)]
pub struct TimerSensorConfig {
    /// `ATTUNE_API_URL`.
    pub api_url: String,
    /// PEM certificates that may vouch for it besides the built-in roots.
    pub ca_file: Option<PathBuf>,
    /// `ATTUNE_API_TOKEN`.
    pub api_token: Secret,
    /// `ATTUNE_API_TOKEN_FILE`: holds the token of the moment, which the host renews.
    pub api_token_file: Option<PathBuf>,
    /// `ATTUNE_SENSOR_TRIGGERS`: the rules at the start, as JSON.
    pub triggers: Option<String>,
    /// `ATTUNE_SENSOR_TRIGGER_REFS`: the trigger of each of those rules, as JSON.
    pub trigger_refs: Option<String>,
    /// How often the rules are read again.
    pub poll_interval: Duration,
}

/// Why the sensor ended by itself.
#[derive(Debug, Error)]
pub enum TimerError {
    /// The HTTP client cannot be made.
    #[error("failed to make an HTTP client")]
    Client {
        /// Why.
        #[source]
        source: BuildError,
    },
    /// The token is refused: only a new start brings a new one.
    #[error("the API refuses the sensor's token; a restart brings a new one")]
    Unauthorized {
        /// The refused call.
        #[source]
        source: HttpError,
    },
}

/// Whether a rule on `trigger_ref` makes a timer. Rules of other triggers are no concern of this sensor.
pub fn check(trigger_ref: &str, params: &Value) -> Result<(), ParamError> {
    let Some(kind) = TimerKind::of(trigger_ref) else { return Ok(()) };
    Schedule::parse(kind, &api::object_or_empty(params.clone()), Utc::now()).map(drop)
}

/// Runs the timers until `stop`.
pub async fn run(config: TimerSensorConfig, stop: &CancellationToken) -> Result<(), TimerError> {
    let TimerSensorConfig { api_url, ca_file, api_token, api_token_file, triggers, trigger_refs, poll_interval } =
        config;
    let client = Client::build(&ClientConfig { ca_file, ..ClientConfig::default() })
        .map_err(|source| TimerError::Client { source })?;
    let rules = match (triggers, trigger_refs) {
        (Some(triggers), Some(trigger_refs)) => initial_rules(&triggers, &trigger_refs),
        _ => None,
    };
    Engine::new(Api::new(client, &api_url, Token::new(api_token, api_token_file)), poll_interval, rules).run(stop).await
}

#[derive(Debug, Deserialize)]
struct InitialRule {
    id: i64,
    r#ref: String,
    config: Value,
}

/// The rules of the environment; none when it does not tell their triggers (then the API is asked first).
fn initial_rules(triggers: &str, trigger_refs: &str) -> Option<Vec<TimerRule>> {
    let rules: Vec<InitialRule> = serde_json::from_str(triggers).ok()?;
    let refs: Vec<String> = serde_json::from_str(trigger_refs).ok()?;
    if rules.len() != refs.len() {
        return None;
    }
    let known = rules.into_iter().zip(refs).filter_map(|(rule, trigger_ref)| {
        let kind = TimerKind::of(&trigger_ref)?;
        Some(TimerRule { id: rule.id, r#ref: rule.r#ref, kind, params: api::object_or_empty(rule.config) })
    });
    Some(known.collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rules_of_the_environment_need_their_triggers() {
        let triggers = r#"[{"id":1,"ref":"demo.a","config":{"interval":5}},{"id":2,"ref":"demo.b","config":{}}]"#;
        let rules = initial_rules(triggers, r#"["core.intervaltimer","other.trigger"]"#).unwrap();
        assert_eq!(rules.len(), 1);
        assert_eq!((rules[0].id, rules[0].kind), (1, TimerKind::Interval));
        assert!(initial_rules(triggers, r#"["core.intervaltimer"]"#).is_none());
        assert!(initial_rules("nonsense", "[]").is_none());
    }
    #[test]
    fn parameters_are_checked_without_a_running_sensor() {
        let of = |trigger_ref: &str, params: Value| check(trigger_ref, &params).map_err(|error| error.to_string());
        of("core.crontimer", json!({"expression": "*/5 * * * * *"})).unwrap();
        of("other.trigger", json!({"expression": "whenever"})).unwrap();
        let error = of("core.crontimer", json!({"expression": "* * * * *"})).unwrap_err();
        assert!(error.contains("expression") && error.contains("seconds first"), "{error}");
        of("core.intervaltimer", Value::Null).unwrap_err();
    }
}
