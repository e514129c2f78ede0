//! Tokens of sensors, one per start, from the API.

use std::time::Duration;

use attune_http::HttpError;
use attune_model::Secret;
use attune_model::measure::{Measure, Success};
use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::json;
use uuid::Uuid;

use crate::context::Context;
use crate::delay::shortened;
use crate::target::Target;

const CALL_LIMIT: Duration = Duration::from_secs(10);

/// A sensor's token.
#[derive(Debug)]
pub(crate) struct Token {
    /// For `ATTUNE_API_TOKEN`.
    pub(crate) value: Secret,
    /// After which time a new one is fetched: 80 % of its life, a little less by chance.
    pub(crate) renew_after: Duration,
    /// For how long it is good.
    pub(crate) life: Duration,
}

#[derive(Deserialize)]
struct Reply {
    data: ReplyData,
}

#[derive(Deserialize)]
struct ReplyData {
    token: String,
    expires_at: DateTime<Utc>,
}

/// Asks the API for a token.
pub(crate) async fn fetch(context: &Context, target: &Target) -> Result<Token, HttpError> {
    // Never closed.
    let _turn = context.turns.token.acquire().await;
    let fetched = ask(context, target).await;
    let success = if fetched.is_ok() { Success::Ok } else { Success::Failed };
    context.observer.measure(Measure::SensorToken(success));
    fetched
}

/// Request and answer are facts of the platform.
async fn ask(context: &Context, target: &Target) -> Result<Token, HttpError> {
    let lifetime = context.config.timing.token_lifetime;
    let body = json!({
        "sensor_ref": target.sensor.r#ref,
        "trigger_types": target.input.trigger_refs,
        "ttl_seconds": lifetime.as_secs(),
    });
    // The platform's API wants no token of the host here; the hub asks for one of hosts on other machines.
    let Reply { data } = context.api.post("/auth/internal/sensor-token", &body, CALL_LIMIT).await?;
    // A clock of the API that is far from ours must not make us renew without end.
    let remaining = (data.expires_at - context.clock.now()).to_std().unwrap_or(lifetime).min(lifetime);
    let renew_after = shortened(remaining * 8 / 10, Uuid::new_v4().as_bytes()[0]);
    Ok(Token { value: Secret::new(data.token), renew_after, life: remaining })
}
