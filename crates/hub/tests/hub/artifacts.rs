//! Artifacts over real sockets: descriptions, versions of every kind, progress, downloads, and who may do what.

use std::fs;

use serde_json::{Value, json};

use crate::support;
use crate::support::ask;
use crate::support::http::send;
use crate::support::place::{API, Place, running};

#[tokio::test]
async fn an_artifact_is_described_changed_and_removed() {
    let place = Place::new().await;
    let user = &place.user;
    let made =
        place.post("/artifacts", user, json!({"ref": "web.report", "owner": "web.greet", "name": "Report"})).await;
    assert_eq!(made.status, 201);
    let made = made.data();
    let id = &made["id"];
    for (column, wanted) in [
        ("scope", json!("action")),
        ("owner", json!("web.greet")),
        ("type", json!("file_text")),
        ("visibility", json!("private")),
        ("retention_policy", json!("versions")),
        ("retention_limit", json!(10)),
        ("data", json!(null)),
    ] {
        assert_eq!(made[column], wanted, "{column}");
    }
    let again = place.post("/artifacts", user, json!({"ref": "web.report"})).await.error(409, "CONFLICT");
    assert!(again.contains("web.report exists"), "{again}");
    assert_eq!(place.get(&format!("/artifacts/{id}"), user).await.data(), made);
    assert_eq!(place.get("/artifacts/ref/web.report", user).await.data(), made);
    let path = format!("/artifacts/{id}");
    let changed = place.send("PUT", &path, user, json!({"description": "Daily", "retention_limit": 2})).await.data();
    assert_eq!((&changed["name"], &changed["description"]), (&json!("Report"), &json!("Daily")));
    assert_eq!(changed["retention_limit"], 2);
    for (body, part) in [
        (json!({"owner": "core.else"}), "unknown field `owner`"),
        (json!({"retention_limit": 0}), "above 0"),
        (json!({"content_type": "a\nb/c"}), "content_type must be"),
        (json!({"visibility": "secret"}), "unknown variant"),
    ] {
        let message = place.send("PUT", &path, user, body).await.error(422, "VALIDATION_ERROR");
        assert!(message.contains(part), "{message}");
    }
    for bad in ["", "..", "a/b", "a..b", "a b"] {
        place.post("/artifacts", user, json!({"ref": bad})).await.error(422, "VALIDATION_ERROR");
    }
    assert_eq!(place.send("DELETE", &path, user, json!(null)).await.status, 204);
    for method in ["GET", "DELETE"] {
        place.send(method, &path, user, json!(null)).await.error(404, "NOT_FOUND");
    }
    place.get("/artifacts/ref/web.report", user).await.error(404, "NOT_FOUND");
    place.get("/artifacts/x", user).await.error(400, "BAD_REQUEST");
    place.world.stop().await;
}

#[tokio::test]
async fn an_upload_is_kept_and_given_back_byte_for_byte() {
    let place = Place::new().await;
    let execution = ask(&place.world, "web.greet").await;
    let token = running(execution, "web.greet", &["standard"]);
    let bytes: Vec<u8> = (0..=255).chain(*b"\r\n--frontie\r\n").collect();
    let upload = "/artifacts/ref/web.table/versions/upload";
    let fields = [("description", "Rows"), ("meta", r#"{"rows":2}"#), ("retention_limit", "2"), ("execution", "")];
    let first = place.upload(upload, &token, &fields, b"a,b").await;
    assert_eq!(first.status, 201, "{first:?}");
    let version = first.data();
    let artifact = version["artifact"].as_i64().unwrap();
    for (column, wanted) in [
        ("version", json!(1)),
        ("execution", json!(execution)),
        ("content_type", json!("text/csv")),
        ("size_bytes", json!(3)),
        ("meta", json!({"rows": 2})),
        ("created_by", json!(format!("execution:{execution}"))),
        ("file_path", json!(null)),
    ] {
        assert_eq!(version[column], wanted, "{column}");
    }
    let described = place.get("/artifacts/ref/web.table", &token).await.data();
    assert_eq!((&described["owner"], &described["description"]), (&json!("web.greet"), &json!("Rows")));
    assert_eq!((&described["retention_limit"], &described["size_bytes"]), (&json!(2), &json!(3)));
    let second = place.upload(upload, &token, &[("content_type", "application/x-thing")], &bytes).await.data();
    assert_eq!((&second["version"], &second["artifact"]), (&json!(2), &json!(artifact)));
    for path in ["versions/latest/download", "versions/2/download", "download"] {
        let url = format!("{API}/artifacts/{artifact}/{path}");
        let headers =
            format!("GET {url} HTTP/1.1\r\nhost: h\r\nconnection: close\r\nauthorization: Bearer {token}\r\n\r\n");
        let (head, body) = support::http::bytes(place.world.address, headers.as_bytes()).await;
        assert_eq!(body, bytes, "{path}");
        assert!(head.contains("content-type: application/x-thing"), "{head}");
        assert!(head.contains("content-disposition: attachment; filename=\"web.table-v2.bin\""), "{head}");
        assert!(head.contains("x-content-type-options: nosniff"), "{head}");
    }
    let third = place.upload(&format!("/artifacts/{artifact}/versions/upload"), &token, &[], b"c").await.data();
    assert_eq!(third["version"], 3);
    let list = place.get(&format!("/artifacts/{artifact}/versions?page_size=1"), &token).await.json();
    assert_eq!((&list["items"][0]["version"], &list["pagination"]["total_items"]), (&json!(3), &json!(2)));
    place.get(&format!("/artifacts/{artifact}/versions/1"), &token).await.error(404, "NOT_FOUND");
    place.get(&format!("/artifacts/{artifact}/versions/one"), &token).await.error(400, "BAD_REQUEST");
    let of = place.get(&format!("/executions/{execution}/artifacts"), &token).await.json();
    assert_eq!((&of["items"][0]["ref"], &of["pagination"]["total_items"]), (&json!("web.table"), &json!(1)));
    place.get("/executions/4711/artifacts", &token).await.error(404, "NOT_FOUND");
    place.world.stop().await;
}

#[tokio::test]
async fn a_file_is_registered_written_by_its_maker_and_downloaded() {
    let place = Place::new().await;
    let token = running(7, "web.greet", &["standard"]);
    let register =
        async |body: Value| place.post("/artifacts/ref/web.build_log/versions/file", &token, body).await.data();
    let version = register(json!({"retention_limit": 1})).await;
    assert_eq!(version["file_path"], "web/build_log/v1.txt");
    assert_eq!((&version["size_bytes"], &version["content_type"]), (&json!(null), &json!("text/plain")));
    let artifact = version["artifact"].as_i64().unwrap();
    let download = format!("/artifacts/{artifact}/versions/1/download");
    let missing = place.get(&download, &token).await.error(404, "NOT_FOUND");
    assert!(missing.contains("no content yet"), "{missing}");
    // One that shares no folder sends it through the API.
    let url = format!("{API}/internal/files/web/build_log/v1.txt");
    assert_eq!(send(place.world.address, "PUT", &url, &token, "", b"built").await.status, 201);
    assert_eq!(place.get(&download, &token).await.text, "built");
    let file = place.dir.path().join("artifacts/web/build_log/v1.txt");
    assert!(file.exists());
    let second = register(json!({"content_type": "application/json"})).await;
    assert_eq!(second["file_path"], "web/build_log/v2.json");
    assert!(!file.exists(), "the file of an expired version goes with it");
    let third = place.post(&format!("/artifacts/{artifact}/versions/file"), &token, json!({})).await.data();
    assert_eq!(third["file_path"], "web/build_log/v3.json", "the type of the version before");
    let document = json!({"content": {"b": [1, null]}});
    let fourth = place.post(&format!("/artifacts/{artifact}/versions"), &token, document).await.data();
    assert_eq!(
        (&fourth["content_json"], &fourth["content_type"]),
        (&json!({"b": [1, null]}), &json!("application/json"))
    );
    assert_eq!(place.get(&format!("/artifacts/{artifact}/download"), &token).await.json(), json!({"b": [1, null]}));
    let without = place.post(&format!("/artifacts/{artifact}/versions"), &token, json!({})).await;
    assert!(without.error(422, "VALIDATION_ERROR").contains("content is missing"));
    assert_eq!(send(place.world.address, "PUT", &url, &token, "", b"again").await.status, 201);
    let left = place.post(&format!("/artifacts/{artifact}/versions/file"), &token, json!({})).await.data();
    fs::write(place.dir.path().join("artifacts").join(left["file_path"].as_str().unwrap()), "left").unwrap();
    assert_eq!(place.send("DELETE", &format!("/artifacts/{artifact}"), &token, json!(null)).await.status, 204);
    let rest: Vec<_> = fs::read_dir(file.parent().unwrap()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(rest, ["v1.txt"], "only what was put without a version stays");
    place.world.stop().await;
}

#[tokio::test]
async fn progress_grows_entry_by_entry() {
    let place = Place::new().await;
    let token = running(7, "web.greet", &["standard"]);
    let body = json!({"ref": "web.progress", "type": "progress"});
    let made = place.post("/artifacts", &token, body).await.data();
    assert_eq!((&made["visibility"], &made["owner"]), (&json!("public"), &json!("web.greet")));
    let path = format!("/artifacts/{}", made["id"]);
    for percent in [10, 20] {
        let body = json!({"entry": {"percent": percent}});
        assert_eq!(place.post(&format!("{path}/progress"), &token, body).await.status, 200);
    }
    assert_eq!(place.get(&path, &token).await.data()["data"], json!([{"percent": 10}, {"percent": 20}]));
    let data = place.send("PUT", &format!("{path}/data"), &token, json!({"data": [{"percent": 100}]})).await.data();
    assert_eq!(data["data"], json!([{"percent": 100}]));
    assert_eq!(place.get(&format!("{path}/download"), &token).await.json(), json!([{"percent": 100}]));
    let half = json!({"entry": "x".repeat(1_100_000)});
    assert_eq!(place.post(&format!("{path}/progress"), &token, half.clone()).await.status, 200);
    let message = place.post(&format!("{path}/progress"), &token, half).await.error(413, "PAYLOAD_TOO_LARGE");
    assert!(message.contains("2097152"), "{message}");
    let text = place.post("/artifacts", &token, json!({"ref": "web.text"})).await.data();
    let refused = place.post(&format!("/artifacts/{}/progress", text["id"]), &token, json!({"entry": 1})).await;
    assert!(refused.error(422, "VALIDATION_ERROR").contains("not progress"));
    place.world.stop().await;
}

#[tokio::test]
async fn forms_that_are_too_large_or_none_are_refused() {
    let place = Place::new().await;
    let path = "/artifacts/ref/web.big/versions/upload";
    let message = place.upload(path, &place.user, &[], &vec![0; 2 * 1024 * 1024]).await.error(413, "PAYLOAD_TOO_LARGE");
    assert!(message.contains("2097152"), "{message}");
    let json = place.post(path, &place.user, json!({})).await.error(415, "UNSUPPORTED_MEDIA_TYPE");
    assert!(json.contains("multipart/form-data"), "{json}");
    for (field, value, part) in [
        ("meta", "{", "meta is not valid JSON"),
        ("type", "picture", "unknown variant"),
        ("retention_limit", "-1", "above 0"),
        ("content_type", "text", "content_type must be"),
    ] {
        let message = place.upload(path, &place.user, &[(field, value)], b"x").await.error(422, "VALIDATION_ERROR");
        assert!(message.contains(part), "{message}");
    }
    let headers = "content-type: multipart/form-data; boundary=b\r\n";
    let url = format!("{API}{path}");
    for (body, status) in [(&b"--b\r\n"[..], 400), (b"--b--", 422)] {
        assert_eq!(send(place.world.address, "POST", &url, &place.user, headers, body).await.status, status);
    }
    place.get("/artifacts/ref/web.big", &place.user).await.error(404, "NOT_FOUND");
    place.world.stop().await;
}

#[tokio::test]
async fn a_running_action_touches_only_what_it_was_granted() {
    let place = Place::new().await;
    let (own, other) = (running(7, "web.greet", &["standard"]), running(8, "core.echo", &["standard"]));
    let bare = running(7, "web.greet", &["admin"]);
    let sensor = support::sensor_token(&["web.hook"]);
    let private = place.post("/artifacts", &own, json!({"ref": "web.mine"})).await.data();
    let public = json!({"ref": "web.shown", "scope": "pack", "visibility": "public"});
    let public = place.post("/artifacts", &own, public).await.data();
    assert_eq!(public["owner"], "web");
    let path = |artifact: &Value| format!("/artifacts/{}", artifact["id"]);
    for (token, artifact, status) in [
        (&own, &private, 200),
        (&place.user, &private, 200),
        (&other, &private, 403),
        (&other, &public, 403),
        (&bare, &private, 403),
        (&bare, &public, 200),
        (&sensor, &private, 403),
        (&sensor, &public, 200),
    ] {
        assert_eq!(place.get(&path(artifact), token).await.status, status, "{artifact}");
    }
    for token in [&other, &bare, &sensor] {
        place.send("PUT", &path(&private), token, json!({"name": "x"})).await.error(403, "FORBIDDEN");
        place.send("DELETE", &path(&private), token, json!(null)).await.error(403, "FORBIDDEN");
        let versions = "/artifacts/ref/web.mine/versions/upload";
        place.upload(versions, token, &[], b"x").await.error(403, "FORBIDDEN");
    }
    for body in [
        json!({"ref": "core.theirs"}),
        json!({"ref": "sensor.web.sensor.stdout"}),
        json!({"ref": "execution.1.stdout"}),
        json!({"ref": "web.new", "owner": "core.echo"}),
        json!({"ref": "web.new", "scope": "system", "owner": ""}),
    ] {
        place.post("/artifacts", &own, body).await.error(403, "FORBIDDEN");
    }
    assert_eq!(place.post("/artifacts", &own, json!({"ref": "no_pack.report"})).await.status, 201);
    let made = place.post("/artifacts", &sensor, json!({"ref": "web.seen"})).await.data();
    assert_eq!((&made["scope"], &made["owner"]), (&json!("sensor"), &json!("web.sensor")));
    let forged = place.upload("/artifacts/ref/web.mine/versions/upload", &own, &[("execution", "8")], b"x").await;
    assert!(forged.error(403, "FORBIDDEN").contains("another execution"));
    for path in ["/artifacts/1", "/artifacts/ref/web.mine", "/artifacts/1/download", "/executions/1/artifacts"] {
        assert_eq!(place.get(path, "rubbish").await.status, 401);
    }
    place.world.stop().await;
}
