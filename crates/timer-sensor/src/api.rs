//! The platform's API as the timer sensor uses it: rules of a trigger, new events.

use std::path::PathBuf;
use std::time::Duration;

use attune_http::{Client, Decision, HttpError, Request, Response};
use attune_lifecycle::Backoff;
use attune_model::Secret;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::schedule::TimerKind;
use crate::timers::{Firing, TimerRule};

/// The platform's largest page.
const PAGE_SIZE: usize = 100;
/// A hundred thousand rules on one trigger: a listing without end is somebody's bug.
const MOST_PAGES: usize = 1_000;
const CALL_LIMIT: Duration = Duration::from_secs(5);
/// Tries of one call, the first included: about six seconds of an API that is down.
const MOST_TRIES: u32 = 7;
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);
/// A refused token stays refused; the tries bridge an API that has just restarted with the same key.
const MOST_TRIES_UNAUTHORIZED: u32 = 3;

/// As whom: the token of the start, or the one that the host has put in its place.
#[derive(Debug, Clone)]
pub(crate) struct Token {
    first: Secret,
    file: Option<PathBuf>,
}

impl Token {
    pub(crate) fn new(first: Secret, file: Option<PathBuf>) -> Self {
        Self { first, file }
    }

    /// A few hundred bytes on a local file system: not worth a thread.
    fn current(&self) -> Secret {
        let read = self.file.as_ref().and_then(|file| std::fs::read_to_string(file).ok());
        let token = read.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
        token.map_or_else(|| self.first.clone(), Secret::new)
    }
}

/// Where and as whom.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    client: Client,
    base_url: String,
    token: Token,
}

/// Disabled rules and fields that we do not use are dropped on the way.
#[derive(Debug, Deserialize)]
struct RuleItem {
    id: i64,
    r#ref: String,
    trigger_ref: String,
    #[serde(default)]
    trigger_params: Value,
    enabled: bool,
}

/// A page, bare or inside `data`.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Page {
    Wrapped { data: PageBody },
    Bare(PageBody),
}

#[derive(Debug, Deserialize)]
struct PageBody {
    items: Vec<RuleItem>,
    #[serde(default)]
    pagination: Pagination,
}

#[derive(Debug, Default, Deserialize)]
struct Pagination {
    #[serde(default)]
    has_next: bool,
}

impl Api {
    pub(crate) fn new(client: Client, base_url: &str, token: Token) -> Self {
        Self { client, base_url: base_url.trim_end_matches('/').to_owned(), token }
    }

    /// The enabled rules of our triggers. A trigger that the platform does not know has none.
    pub(crate) async fn rules(&self) -> Result<Vec<TimerRule>, HttpError> {
        let mut rules = Vec::new();
        for kind in TimerKind::ALL {
            match self.rules_of(kind).await {
                Ok(found) => rules.extend(found),
                Err(error) if error.status() == Some(404) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(rules)
    }

    async fn rules_of(&self, kind: TimerKind) -> Result<Vec<TimerRule>, HttpError> {
        let url = format!("{}/api/v1/triggers/{}/rules", self.base_url, kind.trigger_ref());
        let mut rules = Vec::new();
        for page in 1..=MOST_PAGES {
            let request = Request::get(url.clone())
                .query("page", page.to_string())
                .query("page_size", PAGE_SIZE.to_string())
                .bearer(&self.token.current())
                .timeout(CALL_LIMIT);
            let (Page::Wrapped { data: body } | Page::Bare(body)) = self.call(&request).await?.json()?;
            let items = body.items.into_iter().filter(|item| item.enabled && item.trigger_ref == kind.trigger_ref());
            rules.extend(items.map(|item| TimerRule {
                id: item.id,
                r#ref: item.r#ref,
                kind,
                params: object_or_empty(item.trigger_params),
            }));
            if !body.pagination.has_next {
                break;
            }
        }
        Ok(rules)
    }

    /// Sends an event for one rule.
    pub(crate) async fn emit(&self, firing: &Firing) -> Result<(), HttpError> {
        let body = json!({
            "trigger_ref": firing.kind.trigger_ref(),
            "payload": firing.payload,
            "trigger_instance_id": format!("rule_{}", firing.rule_id),
        });
        let request = Request::post_json(format!("{}/api/v1/events", self.base_url), &body)?
            .bearer(&self.token.current())
            .timeout(CALL_LIMIT);
        self.call(&request).await.map(drop)
    }

    /// Sends a request until it is answered with 2xx or no more tries are left.
    async fn call(&self, request: &Request) -> Result<Response, HttpError> {
        let mut backoff = Backoff::new(RETRY_MIN, RETRY_MAX);
        loop {
            let error = match self.client.send(request).await.and_then(Response::success) {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let most = match error.decision() {
                _ if is_unauthorized(&error) => MOST_TRIES_UNAUTHORIZED,
                Decision::Retry => MOST_TRIES,
                Decision::Fail => return Err(error),
            };
            if backoff.attempts() + 1 >= most {
                return Err(error);
            }
            tokio::time::sleep(backoff.next_delay()).await;
        }
    }
}

/// Whether the platform refused the token itself.
pub(crate) fn is_unauthorized(error: &HttpError) -> bool {
    error.status() == Some(401)
}

/// No parameters are the same as empty ones.
pub(crate) fn object_or_empty(params: Value) -> Value {
    if params.is_null() { json!({}) } else { params }
}
