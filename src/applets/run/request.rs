//! From the words on the command line to an execution that is claimed.

use std::time::Duration;

use attune_model::rows::Execution;
use attune_model::schema::{Values, apply_defaults, secret_pointers, validate};
use attune_model::status::{ExecutionStatus, OwnerType};
use attune_model::{ExecutionId, JsonMap, Secret, WorkerId};
use attune_security::{SealError, SealingKey, random_secret, redacted};
use attune_store::{ClaimedExecution, Fence, KeyRow, SecretValue};
use serde_json::{Value, json};

use crate::exit::{Exit, Failure};

use super::rows::Loaded;

/// What was asked for.
#[derive(Debug)]
pub(super) struct Request {
    /// `--param`.
    pub(super) param: Vec<String>,
    /// `--params`.
    pub(super) params: Option<String>,
    /// `--secret`.
    pub(super) secret: Vec<String>,
    /// `--env`.
    pub(super) env: Vec<String>,
    /// `--timeout`.
    pub(super) timeout: Option<Duration>,
}

impl Request {
    /// The execution, and the key that its secrets are sealed with: one that is used for nothing else.
    pub(super) fn claim(&self, loaded: &Loaded) -> Result<(ClaimedExecution, Secret), Failure> {
        let schema = loaded.action.param_schema.as_ref().unwrap_or(&Value::Null);
        let mut parameters = self.parameters(schema)?;
        let secrets = pairs("--secret", &self.secret)?;
        check(schema, &parameters, &secrets)?;
        let text = random_secret()
            .ok_or_else(|| Failure::message(Exit::OperatingSystem, "the system has no random bytes to give"))?;
        let unsealed = |error: SealError| Failure::new(Exit::Internal, error);
        let key = SealingKey::new(&text).map_err(unsealed)?;
        let keys = secrets.into_iter().map(|(name, value)| key_row(name, &value, &key));
        let keys = keys.collect::<Result<Vec<KeyRow>, SealError>>().map_err(unsealed)?;
        let secret_values = seal_parameters(&mut parameters, schema, &key).map_err(unsealed)?;
        let execution = self.execution(loaded, parameters)?;
        let claimed = ClaimedExecution {
            fence: Fence { execution: execution.id, worker: WorkerId(1), started_at: execution.created },
            execution,
            action: Some(loaded.action.clone()),
            pack: Some(loaded.pack.clone()),
            runtime: loaded.runtime.clone(),
            runtime_versions: loaded.versions.clone(),
            enforcement: None,
            parent_action_ref: None,
            keys,
            secret_values,
        };
        Ok((claimed, text))
    }

    fn parameters(&self, schema: &Value) -> Result<JsonMap, Failure> {
        let mut parameters = match &self.params {
            None => JsonMap::new(),
            Some(given) => object(given)?,
        };
        for (name, text) in pairs("--param", &self.param)? {
            let value = typed(schema, &name, text);
            parameters.insert(name, value);
        }
        Ok(parameters)
    }

    fn execution(&self, loaded: &Loaded, parameters: JsonMap) -> Result<Execution, Failure> {
        let variables: JsonMap =
            pairs("--env", &self.env)?.into_iter().map(|(name, value)| (name, Value::String(value))).collect();
        let now = chrono::Utc::now();
        Ok(Execution {
            id: ExecutionId(1),
            action: Some(loaded.action.id),
            action_ref: loaded.action.r#ref.clone(),
            config: Some(Value::Object(parameters)),
            env_vars: Some(Value::Object(variables)),
            parent: None,
            enforcement: None,
            executor: None,
            permission_set_refs: Vec::new(),
            worker: Some(WorkerId(1)),
            status: ExecutionStatus::Running,
            result: None,
            started_at: Some(now),
            workflow_task: self.timeout.map(|limit| json!({"timeout_seconds": limit.as_secs_f64()})),
            created: now,
            updated: now,
        })
    }
}

/// `name=value` of every word after `option`.
fn pairs(option: &str, words: &[String]) -> Result<Vec<(String, String)>, Failure> {
    let pair = |word: &String| match word.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        // The word is not repeated: it may be a secret whose name was forgotten.
        _ => Err(Failure::usage(format!("{option} needs name=value"))),
    };
    words.iter().map(pair).collect()
}

fn object(given: &str) -> Result<JsonMap, Failure> {
    let text = match given.strip_prefix('@') {
        None => given.to_owned(),
        Some(file) => std::fs::read_to_string(file)
            .map_err(|error| Failure::usage(format!("--params: {file} cannot be read: {error}")))?,
    };
    match serde_json::from_str(&text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(Failure::usage("--params needs a JSON object")),
        Err(error) => Err(Failure::usage(format!("--params is not JSON: {error}"))),
    }
}

/// Text for a text, JSON for everything else that is JSON.
fn typed(schema: &Value, name: &str, text: String) -> Value {
    let fields = schema.get("properties").filter(|_| schema.get("type").is_some_and(|kind| kind == "object"));
    let kind = fields.unwrap_or(schema).get(name).and_then(|field| field.get("type"));
    if kind.is_some_and(|kind| kind == "string") {
        return Value::String(text);
    }
    serde_json::from_str(&text).unwrap_or(Value::String(text))
}

/// What the API would refuse is refused here too. A secret stands for the parameter of its name.
fn check(schema: &Value, parameters: &JsonMap, secrets: &[(String, String)]) -> Result<(), Failure> {
    let mut all = parameters.clone();
    apply_defaults(schema, &mut all);
    all.extend(secrets.iter().map(|(name, value)| (name.clone(), Value::String(value.clone()))));
    let violations = validate(schema, &all, Values::Final);
    if violations.is_empty() {
        return Ok(());
    }
    let lines: Vec<String> = violations.iter().map(|violation| format!("parameter {violation}")).collect();
    Err(Failure::usage(lines.join("\n")))
}

fn key_row(name: String, value: &str, key: &SealingKey) -> Result<KeyRow, SealError> {
    Ok(KeyRow {
        name,
        owner_type: OwnerType::System,
        encrypted: true,
        encryption_key_hash: Some(key.hash().to_owned()),
        value: key.seal(&value.into())?,
    })
}

/// Parameters that the schema calls secret travel as they do on the platform: sealed, with a marker in their place.
fn seal_parameters(parameters: &mut JsonMap, schema: &Value, key: &SealingKey) -> Result<Vec<SecretValue>, SealError> {
    let mut document = Value::Object(std::mem::take(parameters));
    let mut sealed = Vec::new();
    for pointer in secret_pointers(schema) {
        let Some(place) = document.pointer_mut(&pointer).filter(|place| !place.is_null()) else {
            continue;
        };
        let plain = std::mem::replace(place, redacted());
        sealed.push(SecretValue {
            json_path: pointer.clone(),
            source_kind: "parameter_schema".to_owned(),
            source_ref: Some(pointer),
            encrypted_value: key.seal(&plain)?,
            encryption_key_hash: Some(key.hash().to_owned()),
        });
    }
    if let Value::Object(map) = document {
        *parameters = map;
    }
    Ok(sealed)
}
