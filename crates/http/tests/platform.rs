//! Calls to the platform's API.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use attune_http::{AgentToken, Client, ClientConfig, PlatformApi};
use attune_lifecycle::Tasks;
use attune_model::Secret;
use attune_model::clock::SystemClock;
use attune_security::{Agent, TokenKey};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// An API that wants a token or does not, and remembers which calls had one.
async fn api(wants_token: bool, servers: &Tasks) -> (PlatformApi, Arc<Mutex<Vec<bool>>>) {
    let calls = Arc::<Mutex<Vec<bool>>>::default();
    let seen = calls.clone();
    let answer = move |headers: HeaderMap| async move {
        let has_token = headers.contains_key("authorization");
        seen.lock().unwrap().push(has_token);
        if wants_token && !has_token { Err(StatusCode::UNAUTHORIZED) } else { Ok(Json(json!({"data": 7}))) }
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let routes = Router::new().route("/auth/internal/sensor-token", post(answer));
    servers.spawn(async move { axum::serve(listener, routes).await.unwrap() });
    let key = TokenKey::new(&Secret::new("signing secret of the tests".to_owned())).unwrap();
    let token = AgentToken::new(Agent::Sensor, Some(key), Arc::new(SystemClock));
    (PlatformApi::new(Client::build(&ClientConfig::default()).unwrap(), &url, token), calls)
}

#[tokio::test]
async fn a_token_is_shown_to_an_api_that_asks_for_it_and_to_no_other() {
    let servers = Tasks::default();
    for (wants_token, expected) in [(false, vec![false, false]), (true, vec![false, true, true])] {
        let (api, calls) = api(wants_token, &servers).await;
        for _ in 0..2 {
            let limit = Duration::from_mins(1);
            let answer: Value = api.post("/auth/internal/sensor-token", &json!({}), limit).await.unwrap();
            assert_eq!(answer["data"], 7);
        }
        assert_eq!(*calls.lock().unwrap(), expected);
    }
}
