//! What the hub answers about artifacts and files, byte for byte beside what is expected. The file was held against the
//! platform's contract by hand; a change of it is a change of what others read.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::support::ask;
use crate::support::http::{Answer, send};
use crate::support::place::{API, Place, running};

/// Questions and answers, one after the other.
struct Transcript {
    place: Place,
    /// Of the action that speaks.
    token: String,
    text: String,
}

impl Transcript {
    async fn new() -> Self {
        let place = Place::new().await;
        let execution = ask(&place.world, "web.greet").await;
        Self { place, token: running(execution, "web.greet", &["standard"]), text: String::new() }
    }

    /// A question with a JSON body.
    async fn json(&mut self, method: &str, path: &str, body: Value) {
        let token = self.token.clone();
        self.json_as(&token, method, path, body).await;
    }

    /// … by somebody else.
    async fn json_as(&mut self, token: &str, method: &str, path: &str, body: Value) {
        let answer = self.place.send(method, path, token, body.clone()).await;
        self.note(method, path, &body.to_string(), &answer);
    }

    /// A question without a body.
    async fn plain(&mut self, method: &str, path: &str) {
        self.bytes(method, path, "").await;
    }

    /// A question with a body of any kind.
    async fn bytes(&mut self, method: &str, path: &str, body: &str) {
        let url = format!("{API}{path}");
        let answer = send(self.place.world.address, method, &url, &self.token, "", body.as_bytes()).await;
        self.note(method, path, body, &answer);
    }

    /// A form; the last field is the file.
    async fn form(&mut self, path: &str, fields: &[(&str, &str)], file: &str) {
        let answer = self.place.upload(path, &self.token, fields, file.as_bytes()).await;
        let fields: Vec<String> = fields.iter().map(|(name, value)| format!("{name}={value}")).collect();
        self.note("POST", path, &format!("{} file={file}", fields.join(" ")), &answer);
    }

    fn note(&mut self, method: &str, path: &str, body: &str, answer: &Answer) {
        let Answer { status, head, text } = answer;
        let body = if body.len() > 1000 { "(more than is taken)" } else { body };
        writeln!(self.text, "=== {method} {path}\n{body}\n--- {status}").unwrap();
        let is_json = head.contains("content-type: application/json") && !text.is_empty();
        for line in head.lines().skip(1) {
            // Times differ, and with them the length of what has some.
            let differs = line.starts_with("date:") || line.starts_with("connection:");
            if !(differs || is_json && line.starts_with("content-length:")) {
                writeln!(self.text, "{line}").unwrap();
            }
        }
        if is_json {
            let body = named(answer.json());
            writeln!(self.text, "{}", serde_json::to_string_pretty(&body).unwrap()).unwrap();
        } else {
            writeln!(self.text, "{text}").unwrap();
        }
    }
}

/// Times are checked for their form and then named.
fn named(mut value: Value) -> Value {
    fn walk(value: &mut Value) {
        match value {
            Value::Object(map) => map.values_mut().for_each(walk),
            Value::Array(items) => items.iter_mut().for_each(walk),
            Value::String(text) if chrono::DateTime::parse_from_rfc3339(text).is_ok() => "<time>".clone_into(text),
            _ => {}
        }
    }
    walk(&mut value);
    value
}

#[tokio::test]
async fn artifacts_are_answered_as_the_platform_answers() {
    let mut said = Transcript::new().await;
    descriptions(&mut said).await;
    versions(&mut said).await;
    files(&mut said).await;
    refusals(&mut said).await;
    said.place.world.stop().await;
    let expected = include_str!("golden/artifacts.txt");
    assert_eq!(said.text, expected, "what is answered has changed:\n{}", said.text);
}

async fn descriptions(said: &mut Transcript) {
    said.json("POST", "/artifacts", json!({"ref": "web.report", "name": "Report"})).await;
    said.plain("GET", "/artifacts/1").await;
    said.plain("GET", "/artifacts/ref/web.report").await;
    said.json("PUT", "/artifacts/1", json!({"description": "Daily", "retention_limit": 2})).await;
    said.json("POST", "/artifacts", json!({"ref": "web.progress", "type": "progress"})).await;
    said.json("POST", "/artifacts/2/progress", json!({"entry": {"percent": 10}})).await;
    said.json("PUT", "/artifacts/2/data", json!({"data": [{"percent": 100}]})).await;
    said.plain("GET", "/artifacts/2/download").await;
    said.json("DELETE", "/artifacts/2", json!(null)).await;
}

async fn versions(said: &mut Transcript) {
    let fields = [("description", "Rows"), ("meta", r#"{"rows":2}"#), ("retention_limit", "3")];
    said.form("/artifacts/ref/web.table/versions/upload", &fields, "a,b").await;
    said.form("/artifacts/3/versions/upload", &[("content_type", "text/plain")], "plain").await;
    said.json("POST", "/artifacts/3/versions", json!({"content": {"b": [1, null]}})).await;
    said.json("POST", "/artifacts/3/versions/file", json!({"content_type": "text/csv"})).await;
    said.json("POST", "/artifacts/ref/web.build_log/versions/file", json!({})).await;
    said.plain("GET", "/artifacts/3/versions?page_size=1").await;
    said.plain("GET", "/artifacts/3/versions/latest").await;
    said.plain("GET", "/artifacts/3/versions/2").await;
    said.plain("GET", "/artifacts/3/versions/2/download").await;
    said.plain("HEAD", "/artifacts/3/versions/2/download").await;
    said.plain("GET", "/artifacts/3/versions/3/download").await;
    said.plain("GET", "/executions/1/artifacts").await;
}

async fn files(said: &mut Transcript) {
    let path = "/internal/files/web/build_log/v1.txt";
    said.plain("HEAD", path).await;
    said.bytes("PUT", path, "one").await;
    said.bytes("PATCH", path, " two").await;
    said.plain("HEAD", path).await;
    said.plain("GET", path).await;
    said.plain("GET", "/artifacts/4/download").await;
    said.plain("DELETE", path).await;
    said.plain("GET", path).await;
    said.bytes("PUT", "/internal/files/..%2fetc", "x").await;
    said.bytes("PUT", "/internal/files/large", &"x".repeat(1001)).await;
}

async fn refusals(said: &mut Transcript) {
    said.json("POST", "/artifacts", json!({"ref": "web.report"})).await;
    said.json("POST", "/artifacts", json!({"ref": "a b", "retention_limit": 0})).await;
    said.json("POST", "/artifacts", json!({"ref": "core.theirs"})).await;
    said.json("POST", "/artifacts/1/progress", json!({"entry": 1})).await;
    said.json("POST", "/artifacts/1/versions", json!({})).await;
    said.json("POST", "/artifacts/ref/web.report/versions/upload", json!({})).await;
    said.form("/artifacts/1/versions/upload", &[("meta", "{")], "x").await;
    said.form("/artifacts/1/versions/upload", &[("execution", "8")], "x").await;
    said.plain("GET", "/artifacts/4711").await;
    said.plain("GET", "/artifacts/one").await;
    said.plain("GET", "/artifacts/1/download").await;
    said.plain("GET", "/artifacts/3/versions/9").await;
    said.plain("GET", "/executions/4711/artifacts").await;
    let other = running(8, "core.echo", &["standard"]);
    said.json_as(&other, "PUT", "/artifacts/1", json!({"name": "x"})).await;
    said.json_as("rubbish", "GET", "/artifacts/1", json!(null)).await;
    said.plain("PATCH", "/artifacts/1").await;
}
