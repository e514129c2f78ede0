//! What is answered to which request.

use std::fmt::Write as _;

use attune_model::condition::Condition;
use hyper::header::{ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{HeaderMap, Method, Request, Response, StatusCode};

use crate::health::Health;

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Answers a request. Its body, if it has one, is not read.
pub(crate) fn answer<B>(health: &Health, request: &Request<B>) -> Response<String> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refused = respond(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET and HEAD are answered\n".to_owned());
        refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    let verbose = request.uri().query().is_some_and(asks_for_everything);
    match request.uri().path() {
        "/livez" => live(health),
        "/readyz" => ready(&health.conditions(), verbose),
        "/status.json" => respond(StatusCode::OK, JSON, format!("{:#}\n", health.status())),
        "/metrics" => metrics(health, request.headers()),
        _ => respond(StatusCode::NOT_FOUND, TEXT, "there are /livez, /readyz, /status.json and /metrics\n".to_owned()),
    }
}

fn asks_for_everything(query: &str) -> bool {
    query.split('&').any(|part| part == "verbose" || part.starts_with("verbose="))
}

fn live(health: &Health) -> Response<String> {
    match health.fatal() {
        None => respond(StatusCode::OK, TEXT, "alive\n".to_owned()),
        Some(reason) => respond(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("not alive: {reason}\n")),
    }
}

fn ready(conditions: &[Condition], verbose: bool) -> Response<String> {
    let ready = conditions.iter().all(Condition::is_well);
    let mut text = if ready { "ready\n" } else { "not ready\n" }.to_owned();
    for condition in conditions.iter().filter(|condition| verbose || !condition.is_well()) {
        let Condition { name, problem, since } = condition;
        let (mark, state) = match problem {
            None => ('+', "ok"),
            Some(problem) => ('-', problem.as_ref()),
        };
        // Writing into a text cannot fail.
        if writeln!(text, "[{mark}] {name}: {state} (for {:.1} s)", since.elapsed().as_secs_f64()).is_err() {
            break;
        }
    }
    respond(if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, TEXT, text)
}

/// One text is good for both formats: what the newer one adds is a comment in the older one.
fn metrics(health: &Health, headers: &HeaderMap) -> Response<String> {
    let accepts = |value: &HeaderValue| value.to_str().is_ok_and(|text| text.contains("application/openmetrics-text"));
    let format = if headers.get_all(ACCEPT).iter().any(accepts) { OPEN_METRICS } else { PROMETHEUS };
    match health.exposition() {
        Ok(text) => respond(StatusCode::OK, format, text),
        Err(_) => respond(StatusCode::INTERNAL_SERVER_ERROR, TEXT, "metrics cannot be written\n".to_owned()),
    }
}

fn respond(status: StatusCode, content_type: &'static str, body: String) -> Response<String> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
