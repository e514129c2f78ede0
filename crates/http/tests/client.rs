//! The client against a real server on this host.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use attune_http::{Body, Client, ClientConfig, Decision, Method, Problem, Redirects, Request, described};
use attune_lifecycle::Tasks;
use attune_model::Secret;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Query};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Redirect;
use axum::routing::{get, post, put};
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::TcpListener;

async fn serve() -> (SocketAddr, Tasks) {
    let app = Router::new()
        .route(
            "/echo",
            post(|headers: HeaderMap, Query(query): Query<Value>, Json(body): Json<Value>| async move {
                let token = headers.get("authorization").map(|value| value.to_str().unwrap().to_owned());
                Json(json!({ "token": token, "query": query, "body": body }))
            }),
        )
        .route(
            "/length",
            put(|headers: HeaderMap, body: Bytes| async move {
                Json(json!([
                    headers["content-length"].to_str().unwrap(),
                    body.len(),
                    body.iter().map(|byte| u64::from(*byte)).sum::<u64>()
                ]))
            }),
        )
        .route("/refused", get(|| async { (StatusCode::FORBIDDEN, "not for you") }))
        .route("/busy", get(|| async { StatusCode::SERVICE_UNAVAILABLE }))
        .route("/never", get(std::future::pending::<String>))
        .route("/long", get(|| async { "x".repeat(10_000) }))
        .route("/away", get(|| async { Redirect::temporary("/text") }))
        .route("/text", get(|| async { "arrived" }))
        .layer(DefaultBodyLimit::disable());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let tasks = Tasks::default();
    tasks.spawn(async move { axum::serve(listener, app).await.unwrap() });
    (address, tasks)
}

fn client() -> Client {
    Client::build(&ClientConfig::default()).unwrap()
}

#[tokio::test]
async fn json_goes_out_with_query_and_token_and_comes_back() {
    let (address, _tasks) = serve().await;
    let request = Request::post_json(format!("http://{address}/echo"), &json!({"a": 1}))
        .unwrap()
        .query("page", "2 & 3")
        .bearer(&Secret::new("t0ken".to_owned()));
    let answer: Value = client().send_for_json(&request).await.unwrap();
    assert_eq!(answer, json!({"token": "Bearer t0ken", "query": {"page": "2 & 3"}, "body": {"a": 1}}));
}

#[tokio::test]
async fn a_refusal_names_the_call_the_status_and_the_beginning_of_the_answer() {
    let (address, _tasks) = serve().await;
    let request = Request::get(format!("http://{address}/refused"));
    let error = client().send_for_json::<Value>(&request).await.unwrap_err();
    assert_eq!(error.to_string(), format!("GET http://{address}/refused"));
    assert_eq!(error.problem.to_string(), "status 403: not for you");
    assert_eq!((error.status(), error.decision()), (Some(403), Decision::Fail));
    let busy = client().send_for_json::<Value>(&Request::get(format!("http://{address}/busy"))).await.unwrap_err();
    assert_eq!((busy.status(), busy.decision()), (Some(503), Decision::Retry));
}

#[tokio::test]
async fn a_server_that_never_answers_is_given_up_at_the_time_limit() {
    let (address, _tasks) = serve().await;
    let request = Request::get(format!("http://{address}/never")).timeout(Duration::from_millis(50));
    let error = client().send(&request).await.unwrap_err();
    assert!(matches!(error.problem, Problem::TimedOut(_)), "{error:?}");
    assert_eq!(error.decision(), Decision::Retry);
}

#[tokio::test]
async fn an_answer_beyond_the_bound_is_an_error_and_not_memory() {
    let (address, _tasks) = serve().await;
    let small = Client::build(&ClientConfig { response_limit_bytes: 1_000, ..ClientConfig::default() }).unwrap();
    let error = small.send(&Request::get(format!("http://{address}/long"))).await.unwrap_err();
    assert!(matches!(error.problem, Problem::TooLong { limit_bytes: 1_000 }), "{error:?}");
}

#[tokio::test]
async fn a_port_where_nobody_listens_is_worth_a_retry() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let error = client().send(&Request::get(format!("http://{address}/"))).await.unwrap_err();
    assert!(matches!(error.problem, Problem::Connect(_)), "{error:?}");
    assert_eq!(error.decision(), Decision::Retry);
}

#[tokio::test]
async fn redirects_are_followed_only_when_asked_for() {
    let (address, _tasks) = serve().await;
    let request = Request::get(format!("http://{address}/away"));
    assert_eq!(client().send(&request).await.unwrap().status, 307);
    let config = ClientConfig { redirects: Redirects::Follow { limit: 3 }, ..ClientConfig::default() };
    let answer = Client::build(&config).unwrap().send(&request).await.unwrap();
    assert_eq!((answer.status, answer.body.as_slice()), (200, b"arrived".as_slice()));
    assert!(answer.url.ends_with("/text"), "{}", answer.url);
}

#[tokio::test]
async fn an_impossible_url_is_refused_without_being_shown() {
    let error = client().send(&Request::get("not a url with s3cret")).await.unwrap_err();
    assert!(matches!(error.problem, Problem::Invalid(_)), "{error:?}");
    assert!(!format!("{error} {error:?}").contains("s3cret"), "{error:?}");
}

#[tokio::test]
async fn a_host_in_other_letters_is_refused_with_a_hint_and_nothing_else_gets_it() {
    for (url, is_host) in [
        ("http://b\u{fc}cher.example/", true),
        ("http://b%C3%BCcher.example/", true),
        ("http://api.example:99999/b\u{fc}cher", false),
    ] {
        let error = client().send(&Request::get(url)).await.unwrap_err();
        let Problem::Invalid(reason) = &error.problem else { panic!("{error:?}") };
        assert_eq!(reason.contains("names of hosts are written in ASCII"), is_host, "{url}: {reason}");
    }
}

#[tokio::test]
async fn a_described_request_is_made_and_its_answer_described() {
    let (address, _tasks) = serve().await;
    let description = json!({
        "url": format!("http://{address}/echo"),
        "method": "post",
        "headers": {"x-a": 1},
        "query_params": {"q": "a b", "none": null},
        "body": {"deep": [1, 2.5]},
        "auth": {"username": "me", "password": "pw"},
        "timeout_seconds": 5,
    });
    let answer = described(description.to_string().as_bytes(), None).await.unwrap();
    assert_eq!((&answer["status_code"], &answer["success"]), (&json!(200), &json!(true)));
    assert_eq!(answer["json"]["body"], json!({"deep": [1, 2.5]}));
    assert_eq!(answer["json"]["query"], json!({"q": "a b"}));
    assert_eq!(answer["json"]["token"], "Basic bWU6cHc=");
    assert_eq!(answer["headers"]["content-type"], "application/json");
    assert!(answer["elapsed_ms"].is_u64());
}

#[tokio::test]
async fn a_refusal_is_an_answer_unless_the_description_asks_to_fail() {
    let (address, _tasks) = serve().await;
    let mut description = json!({"url": format!("http://{address}/refused")});
    let answer = described(description.to_string().as_bytes(), None).await.unwrap();
    assert_eq!((&answer["status_code"], &answer["body"]), (&json!(403), &json!("not for you")));
    assert!(answer.get("json").is_none());
    description["fail_on_error"] = json!(true);
    let error = described(description.to_string().as_bytes(), None).await.unwrap_err();
    assert_eq!(error.to_string(), format!("http://{address}/refused answered with status 403"));
}

#[tokio::test]
async fn a_description_that_is_none_names_the_parameter() {
    for (description, expected) in [
        (json!({}), "parameter `url` is missing"),
        (json!({"url": "http://x/", "method": "a b"}), "parameter `method`"),
        (json!({"url": "http://x/", "timeout_seconds": -1}), "parameter `timeout_seconds`"),
        (json!([]), "not a JSON object"),
    ] {
        let error = described(description.to_string().as_bytes(), None).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{description}: {error}");
    }
}

#[tokio::test]
async fn a_file_is_sent_with_its_length_as_often_as_it_is_tried_and_breaks_off_when_it_is_too_short() {
    let (address, _tasks) = serve().await;
    let mut file = tempfile::tempfile().unwrap();
    let content: Vec<u8> = (0..3_000_001_u32).map(|number| number.to_le_bytes()[0]).collect();
    file.write_all(&content).unwrap();
    let file = Arc::new(file);
    let mut request = Request::new(Method::PUT, format!("http://{address}/length"));
    request.body = Body::File(file.clone(), 3_000_000);
    let sum: u64 = content[..3_000_000].iter().map(|byte| u64::from(*byte)).sum();
    for _ in 0..2 {
        let answer: Value = client().send_for_json(&request).await.unwrap();
        assert_eq!(answer, json!(["3000000", 3_000_000, sum]));
    }
    request.body = Body::File(file, 3_000_002);
    let error = client().send(&request).await.unwrap_err();
    assert!(matches!(error.problem, Problem::Transport(_)), "{error:?}");
}
