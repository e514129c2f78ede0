//! Tokens: HS256 JSON web tokens with the platform's claims.

use std::time::Duration;

use attune_model::{ExecutionId, IdentityId, Secret};
use chrono::{DateTime, TimeDelta, Utc};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, errors::ErrorKind};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use thiserror::Error;
use uuid::Uuid;

/// How long after its expiry a token is still accepted, because clocks differ.
pub const LEEWAY: Duration = Duration::from_mins(1);

/// How long a worker token lives.
const WORKER_TOKEN_LIFE: Duration = Duration::from_hours(24);

/// Why a token was not made or not accepted.
#[derive(Debug, Error)]
pub enum TokenError {
    /// The configured secret is empty.
    #[error("the signing secret is empty")]
    EmptySecret,
    /// The claims could not be encoded.
    #[error("failed to sign a token for {login}")]
    Sign {
        /// Whose.
        login: String,
        /// Why.
        #[source]
        source: jsonwebtoken::errors::Error,
    },
    /// Signed with another secret or another algorithm.
    #[error("token signature is not valid")]
    Signature,
    /// Its time is over.
    #[error("token has expired")]
    Expired,
    /// Not a token, or without the claims that one has.
    #[error("token is malformed")]
    Malformed(#[source] jsonwebtoken::errors::Error),
}

/// `token_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenType {
    /// A person.
    #[default]
    Access,
    /// Good for getting an access token only.
    Refresh,
    /// A sensor process.
    Sensor,
    /// A running action.
    Execution,
    /// An agent.
    Worker,
}

/// What a token says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Claims {
    /// Identity id as text.
    pub sub: String,
    /// Login; the bare ref for sensors, `execution:<id>` and `worker:<id>` for those.
    pub login: String,
    /// Issued, seconds since 1970.
    pub iat: i64,
    /// Expires, seconds since 1970.
    pub exp: i64,
    /// Kind; a token without it is a person's.
    #[serde(default)]
    pub token_type: TokenType,
    /// Area it is made for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// By kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Value>,
}

impl Claims {
    /// Claims without scope and metadata that expire `lifetime` after `now`.
    pub fn new(kind: TokenType, sub: String, login: String, now: DateTime<Utc>, lifetime: Duration) -> Self {
        let iat = now.timestamp();
        let exp = TimeDelta::from_std(lifetime).ok().and_then(|life| now.checked_add_signed(life));
        let exp = exp.map_or(i64::MAX, |end| end.timestamp());
        Self { sub, login, iat, exp, token_type: kind, scope: None, metadata: None }
    }

    /// When it expires.
    pub fn expires_at(&self) -> Option<DateTime<Utc>> {
        DateTime::from_timestamp(self.exp, 0)
    }

    /// The trigger refs of a sensor token.
    pub fn trigger_types(&self) -> Vec<&str> {
        let types = self.metadata.as_ref().and_then(|metadata| metadata["trigger_types"].as_array());
        types.into_iter().flatten().filter_map(Value::as_str).collect()
    }

    /// The execution of an execution token.
    pub fn execution(&self) -> Option<ExecutionId> {
        let id = &self.metadata.as_ref()?["execution_id"];
        id.as_i64().or_else(|| id.as_str()?.parse().ok()).map(ExecutionId)
    }

    /// The identity it acts for.
    pub fn identity(&self) -> Option<IdentityId> {
        self.sub.parse().ok().map(IdentityId)
    }
}

/// `security.jwt_secret`, ready to sign and verify.
#[derive(Clone)]
pub struct TokenKey {
    signing: EncodingKey,
    verifying: DecodingKey,
}

impl std::fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenKey([redacted])")
    }
}

impl TokenKey {
    /// Takes the configured secret.
    pub fn new(secret: &Secret) -> Result<Self, TokenError> {
        let bytes = secret.expose().as_bytes();
        if bytes.is_empty() {
            return Err(TokenError::EmptySecret);
        }
        Ok(Self { signing: EncodingKey::from_secret(bytes), verifying: DecodingKey::from_secret(bytes) })
    }

    /// Signs.
    pub fn sign(&self, claims: &Claims) -> Result<Secret, TokenError> {
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &self.signing)
            .map(Secret::new)
            .map_err(|source| TokenError::Sign { login: claims.login.clone(), source })
    }

    /// Reads a token: algorithm, signature and expiry (with [`LEEWAY`]) must be right.
    pub fn verify(&self, token: &str, now: DateTime<Utc>) -> Result<Claims, TokenError> {
        let mut validation = Validation::new(Algorithm::HS256);
        // Judged below by the caller's clock. Issuer and audience do not exist on the platform.
        validation.validate_exp = false;
        validation.validate_aud = false;
        let token = jsonwebtoken::decode::<Claims>(token, &self.verifying, &validation);
        let claims = token.map_err(|error| match error.kind() {
            ErrorKind::InvalidSignature | ErrorKind::InvalidAlgorithm => TokenError::Signature,
            _ => TokenError::Malformed(error),
        })?;
        let leeway = i64::try_from(LEEWAY.as_secs()).unwrap_or(i64::MAX);
        if claims.claims.exp.saturating_add(leeway) < now.timestamp() {
            return Err(TokenError::Expired);
        }
        Ok(claims.claims)
    }
}

/// A person's token.
pub fn sign_access_token(
    key: &TokenKey,
    identity: IdentityId,
    login: &str,
    now: DateTime<Utc>,
    lifetime: Duration,
) -> Result<Secret, TokenError> {
    key.sign(&Claims::new(TokenType::Access, identity.to_string(), login.to_owned(), now, lifetime))
}

/// The token of a sensor process. `identity` is that of the login `sensor:<ref>`.
pub fn sign_sensor_token(
    key: &TokenKey,
    identity: IdentityId,
    sensor: (&str, &[String]),
    now: DateTime<Utc>,
    lifetime: Duration,
) -> Result<(Secret, Claims), TokenError> {
    let (sensor_ref, trigger_types) = sensor;
    let mut claims = Claims::new(TokenType::Sensor, identity.to_string(), sensor_ref.to_owned(), now, lifetime);
    claims.scope = Some("sensor".to_owned());
    claims.metadata = Some(json!({ "trigger_types": trigger_types }));
    Ok((key.sign(&claims)?, claims))
}

/// What an execution token is made from.
#[derive(Debug, Clone, Copy)]
pub struct ExecutionToken<'a> {
    /// The execution.
    pub execution: ExecutionId,
    /// `execution.executor`; none counts as identity 1.
    pub executor: Option<IdentityId>,
    /// Its action.
    pub action_ref: &'a str,
    /// Its parent's action, for workflow tasks only.
    pub parent_action_ref: Option<&'a str>,
    /// `execution.permission_set_refs`; without any an execution gets no token at all.
    pub permission_set_refs: &'a [String],
    /// Time limit of the run and a minute.
    pub lifetime: Duration,
}

/// The token of a running action.
pub fn sign_execution_token(
    key: &TokenKey,
    token: &ExecutionToken<'_>,
    now: DateTime<Utc>,
) -> Result<Secret, TokenError> {
    let mut actions = vec![token.action_ref];
    actions.extend(token.parent_action_ref);
    actions.sort_unstable();
    actions.dedup();
    let packs: Vec<&str> = actions.iter().map(|action| action.split('.').next().unwrap_or(action)).collect();
    let sub = token.executor.unwrap_or(IdentityId(1)).to_string();
    let login = format!("execution:{}", token.execution);
    let mut claims = Claims::new(TokenType::Execution, sub, login, now, token.lifetime);
    claims.scope = Some("execution".to_owned());
    claims.metadata = Some(json!({
        "execution_id": token.execution,
        "action_ref": token.action_ref,
        "permission_set_refs": token.permission_set_refs,
        "standard_access_action_refs": actions,
        "standard_access_pack_refs": packs,
    }));
    key.sign(&claims)
}

/// Which agent a worker token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Agent {
    /// The action worker.
    Worker,
    /// The sensor host.
    Sensor,
}

/// The token of an agent, good for files and pack archives.
pub fn sign_worker_token(key: &TokenKey, agent: Agent, now: DateTime<Utc>) -> Result<Secret, TokenError> {
    let kind = match agent {
        Agent::Worker => "worker",
        Agent::Sensor => "sensor",
    };
    let id = format!("{kind}-{}", Uuid::new_v4());
    let login = format!("worker:{id}");
    let mut claims = Claims::new(TokenType::Worker, "1".to_owned(), login, now, WORKER_TOKEN_LIFE);
    claims.scope = Some("internal_files".to_owned());
    claims.metadata = Some(json!({ "worker_id": id }));
    key.sign(&claims)
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::*;

    fn key(secret: &str) -> TokenKey {
        TokenKey::new(&Secret::new(secret.to_owned())).unwrap()
    }

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_700_000_000 + seconds, 0).unwrap()
    }

    #[test]
    fn a_token_is_good_until_a_minute_after_its_expiry() {
        let key = key("secret");
        let token = sign_access_token(&key, IdentityId(7), "ada", at(0), Duration::from_hours(1)).unwrap();
        let claims = key.verify(token.expose(), at(3660)).unwrap();
        assert_eq!((claims.identity(), claims.token_type), (Some(IdentityId(7)), TokenType::Access));
        assert!(matches!(key.verify(token.expose(), at(3661)), Err(TokenError::Expired)));
    }

    #[test]
    fn another_secret_another_algorithm_or_rubbish_is_refused() {
        let ours = key("secret");
        let claims = Claims::new(TokenType::Access, "1".into(), "x".into(), at(0), Duration::from_mins(1));
        let foreign = key("other").sign(&claims).unwrap();
        assert!(matches!(ours.verify(foreign.expose(), at(0)), Err(TokenError::Signature)));
        let wide = jsonwebtoken::encode(&Header::new(Algorithm::HS512), &claims, &ours.signing).unwrap();
        assert!(matches!(ours.verify(&wide, at(0)), Err(TokenError::Signature)));
        let body = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&claims).unwrap());
        let unsigned = format!("{}.{body}.", URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#));
        assert!(ours.verify(&unsigned, at(0)).is_err());
        for rubbish in ["", "a.b.c", "a", "....", "\u{0}"] {
            assert!(matches!(ours.verify(rubbish, at(0)), Err(TokenError::Malformed(_))), "{rubbish:?}");
        }
    }

    #[test]
    fn a_token_without_type_is_a_persons_and_one_without_expiry_is_none() {
        let key = key("secret");
        let sign = |claims: &Value| jsonwebtoken::encode(&Header::default(), claims, &key.signing).unwrap();
        let plain = sign(&json!({"sub": "3", "login": "ada", "iat": 0, "exp": at(0).timestamp()}));
        assert_eq!(key.verify(&plain, at(0)).unwrap().token_type, TokenType::Access);
        let endless = sign(&json!({"sub": "3", "login": "ada", "iat": 0}));
        assert!(matches!(key.verify(&endless, at(0)), Err(TokenError::Malformed(_))));
        let unknown = sign(&json!({"sub": "3", "login": "a", "iat": 0, "exp": i64::MAX, "token_type": "root"}));
        assert!(matches!(key.verify(&unknown, at(0)), Err(TokenError::Malformed(_))));
    }

    #[test]
    fn a_sensor_token_names_its_triggers() {
        let key = key("secret");
        let types = ["core.intervaltimer".to_owned()];
        let (token, _) =
            sign_sensor_token(&key, IdentityId(5), ("core.timer", &types), at(0), Duration::from_hours(1)).unwrap();
        let claims = key.verify(token.expose(), at(0)).unwrap();
        assert_eq!(claims.trigger_types(), ["core.intervaltimer"]);
        assert_eq!((claims.login.as_str(), claims.scope.as_deref()), ("core.timer", Some("sensor")));
        assert_eq!(claims.sub, "5");
    }

    #[test]
    fn an_execution_token_names_its_rights() {
        let key = key("secret");
        let request = ExecutionToken {
            execution: ExecutionId(9),
            executor: None,
            action_ref: "web.deploy",
            parent_action_ref: Some("app.flow"),
            permission_set_refs: &["standard".to_owned()],
            lifetime: Duration::from_mins(6),
        };
        let claims = key.verify(sign_execution_token(&key, &request, at(0)).unwrap().expose(), at(0)).unwrap();
        assert_eq!(claims.execution(), Some(ExecutionId(9)));
        assert_eq!((claims.sub.as_str(), claims.login.as_str()), ("1", "execution:9"));
        assert_eq!(
            claims.metadata.unwrap(),
            json!({
                "execution_id": 9,
                "action_ref": "web.deploy",
                "permission_set_refs": ["standard"],
                "standard_access_action_refs": ["app.flow", "web.deploy"],
                "standard_access_pack_refs": ["app", "web"],
            })
        );
    }

    #[test]
    fn a_worker_token_names_its_agent() {
        let key = key("secret");
        let token = sign_worker_token(&key, Agent::Sensor, at(0)).unwrap();
        let claims = key.verify(token.expose(), at(0)).unwrap();
        assert!(claims.login.starts_with("worker:sensor-"), "{}", claims.login);
        assert_eq!(claims.exp - claims.iat, 86_400);
    }

    #[test]
    fn an_empty_secret_is_refused_and_keys_do_not_print() {
        assert!(matches!(TokenKey::new(&Secret::default()), Err(TokenError::EmptySecret)));
        assert_eq!(format!("{:?}", key("secret")), "TokenKey([redacted])");
    }
}
