//! What an action gets from the worker, and what is kept of its secrets: by rows that the platform's own services would have
//! written, on PostgreSQL and RabbitMQ.

use std::fs;
use std::process::Command;

use attune_model::Secret;
use attune_security::{SealingKey, TokenKey};
use serde_json::{Value, json};

use crate::executor::{Action, Executor};
use crate::support::JWT_SECRET;

/// What the installations of these tests encrypt with.
const ENCRYPTION_KEY: &str = "a secret of the tests, for other secrets";

/// An encrypted value and the hash of its key, as SQL.
fn sealed(value: &Value) -> (String, String) {
    let key = SealingKey::new(&Secret::new(ENCRYPTION_KEY.to_owned())).unwrap();
    let hash = format!("encode(sha256('{ENCRYPTION_KEY}'), 'hex')");
    (format!("'{}'::jsonb", key.seal(value).unwrap()), hash)
}

/// What the platform's own worker does not give.
const OURS: [&str; 3] = ["ATTUNE_AGENT_BIN=", "ATTUNE_PROCESS_TREE=", "ATTUNE_WORKER_RUNTIMES="];

/// Leaves what it gets in files, because secrets are masked in what it prints.
const ENVIRONMENT: &str = "tr '\\0' '\\n' < /proc/$$/environ | sort > \"$ATTUNE_ARTIFACTS_DIR/environment\"";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_environment_of_a_child_is_that_of_the_platform_and_nothing_of_the_agents() {
    let actions = [Action { name: "env", manifest: "output_format: text\n", code: ENVIRONMENT }];
    let platform = Executor::new(&actions).await;
    platform
        .sql(
            "INSERT INTO enforcement (rule_ref, trigger_ref, payload) VALUES ('drop.rule', 'core.webhook', '{}');
             INSERT INTO key (ref, owner_type, name, encrypted, value) VALUES ('everybody', 'system', 'everybody', false, '\"hush-hush\"')",
        )
        .await;
    let config = r#"'{"context": {"user": "me", "count": 3, "deep": {"a": 1}}, "secretive": "no"}'"#;
    let columns = [
        ("config", config),
        ("enforcement", "(SELECT max(id) FROM enforcement)"),
        ("permission_set_refs", "ARRAY['standard', 'other']"),
        ("env_vars", r#"'{"EXTRA": "more"}'"#),
    ];
    let (_, row) = platform.run("env", &columns).await;
    let written = fs::read_to_string(platform.installation.path("artifacts/environment")).unwrap();
    let (tokens, rest): (Vec<&str>, Vec<&str>) =
        written.lines().partition(|line| line.starts_with("ATTUNE_API_TOKEN="));
    let path = |name: &str| platform.installation.path(name).display().to_string();
    let id = row["id"].as_i64().unwrap();
    let expected = [
        "ATTUNE_ACTION=drop.env".to_owned(),
        format!("ATTUNE_API_URL=http://{}", platform.installation.hub_address()),
        format!("ATTUNE_ARTIFACTS_DIR={}", path("artifacts")),
        "ATTUNE_CONTEXT_COUNT=3".to_owned(),
        r#"ATTUNE_CONTEXT_DEEP={"a":1}"#.to_owned(),
        "ATTUNE_CONTEXT_USER=me".to_owned(),
        format!("ATTUNE_EXEC_ID={id}"),
        "ATTUNE_PACK_REF=drop".to_owned(),
        "ATTUNE_PARAMETER_DELIVERY=stdin".to_owned(),
        "ATTUNE_PARAMETER_FORMAT=json".to_owned(),
        "ATTUNE_RULE=drop.rule".to_owned(),
        format!("ATTUNE_RUNTIME_ENVS_DIR={}", path("envs")),
        "ATTUNE_TRIGGER=core.webhook".to_owned(),
        "EXTRA=more".to_owned(),
    ];
    let is_ours = |line: &str| OURS.iter().any(|name| line.starts_with(name));
    let platforms = |line: &&&str| line.starts_with("ATTUNE_") && !is_ours(line) || line.starts_with("EXTRA=");
    assert_eq!(rest.iter().filter(platforms).copied().collect::<Vec<_>>(), expected);
    for secret in [ENCRYPTION_KEY, JWT_SECRET, "postgres", "guest", "hush-hush", "ATTUNE__"] {
        assert!(!written.contains(secret), "{secret} is in the environment:\n{written}");
    }
    token(&platform, tokens[0].strip_prefix("ATTUNE_API_TOKEN=").unwrap(), id).await;
    // Without permission sets there is none.
    platform.run("env", &[]).await;
    let written = fs::read_to_string(platform.installation.path("artifacts/environment")).unwrap();
    assert!(!written.contains("ATTUNE_API_TOKEN") && !written.contains("ATTUNE_RULE"), "{written}");
    platform.worker.stop();
}

/// Reads the token with the database's functions.
async fn token(platform: &Executor, token: &str, id: i64) {
    let parts: Vec<&str> = token.split('.').collect();
    assert_eq!(parts.len(), 3, "{token}");
    let mut claims = Vec::new();
    for part in &parts[..2] {
        let padded = format!("{part}{}", "=".repeat((4 - part.len() % 4) % 4));
        let sql = format!("SELECT convert_from(decode(translate('{padded}', '-_', '+/'), 'base64'), 'utf8')");
        claims.push(platform.json(&sql).await);
    }
    assert_eq!(claims[0], json!({"typ": "JWT", "alg": "HS256"}));
    let claims = claims[1].as_object_mut().unwrap();
    let [issued, expires] = ["iat", "exp"].map(|key| claims.remove(key).unwrap().as_i64().unwrap());
    assert_eq!(expires - issued, 360, "the time limit and a minute");
    let expected = json!({
        "sub": "1", "login": format!("execution:{id}"), "token_type": "execution", "scope": "execution",
        "metadata": {
            "execution_id": id, "action_ref": "drop.env", "permission_set_refs": ["standard", "other"],
            "standard_access_action_refs": ["drop.env"], "standard_access_pack_refs": ["drop"],
        },
    });
    assert_eq!(json!(claims), expected);
    let key = TokenKey::new(&Secret::new(JWT_SECRET.to_owned())).unwrap();
    key.verify(token, chrono::Utc::now()).unwrap();
}

const BY_STDIN: &str = "cat > \"$ATTUNE_ARTIFACTS_DIR/got\"; env > \"$ATTUNE_ARTIFACTS_DIR/environment\"";
const BY_FILE: &str =
    "cat \"$ATTUNE_PARAMETER_FILE\" > \"$ATTUNE_ARTIFACTS_DIR/got\"; env > \"$ATTUNE_ARTIFACTS_DIR/environment\"
    stat -c %a \"$ATTUNE_PARAMETER_FILE\"; wc -c";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parameters_and_secrets_reach_a_child_byte_for_byte_in_every_format_and_delivery() {
    let actions = [
        ("json_stdin", "parameter_delivery: stdin\nparameter_format: json\n", BY_STDIN),
        ("json_file", "parameter_delivery: file\nparameter_format: json\n", BY_FILE),
        ("dotenv_stdin", "parameter_delivery: stdin\nparameter_format: dotenv\n", BY_STDIN),
        ("dotenv_file", "parameter_delivery: file\nparameter_format: dotenv\n", BY_FILE),
        ("yaml_stdin", "parameter_delivery: stdin\nparameter_format: yaml\n", BY_STDIN),
        ("yaml_file", "parameter_delivery: file\nparameter_format: yaml\n", BY_FILE),
    ];
    let actions = actions.map(|(name, manifest, code)| Action { name, manifest, code });
    let platform = Executor::new(&actions).await;
    keys(&platform).await;
    let (password, hash) = sealed(&json!("pa'ss"));
    let config = r#"'{"a": "plain", "deep": {"b": [1, null]}, "none": null, "password": {"$attune_secret": true, "redacted": true}, "shared": "parameter"}'"#;
    for Action { name, .. } in &actions {
        let id = platform.schedule(name, &[("config", config)]).await;
        platform
            .sql(&format!(
                "INSERT INTO execution_secret_value
                    (entity_type, entity_id, json_path, source_kind, source_ref, encrypted_value, encryption_key_hash)
                 VALUES ('execution_config', {id}, '/password', 'parameter_schema', '/password', {password}, {hash})"
            ))
            .await;
        platform.dispatch(id).await;
        let (_, row) = platform.ended(id).await;
        assert_eq!(row["status"], "completed", "{row}");
        if name.ends_with("_file") {
            assert_eq!(row["result"]["stdout"], "400\n0\n", "mode of the file, length of standard input");
        }
        let got = fs::read_to_string(platform.installation.path("artifacts/got")).unwrap();
        let (format, delivery) = name.split_once('_').unwrap();
        let got = if delivery == "stdin" { got.strip_suffix('\n').unwrap() } else { &got };
        assert_parameters(format, got);
        let environment = fs::read_to_string(platform.installation.path("artifacts/environment")).unwrap();
        for secret in ["pa'ss", "of the action", "opened"] {
            assert!(!environment.contains(secret), "{secret}: {environment}");
        }
    }
    platform.worker.stop();
}

/// Of the installation, the pack and an action, the later over the earlier, one of them encrypted.
async fn keys(platform: &Executor) {
    let (opened, hash) = sealed(&json!({"opened": true}));
    platform
        .sql(&format!(
            "INSERT INTO key (ref, owner_type, name, encrypted, value) VALUES ('shared', 'system', 'shared', false, '\"of all\"');
             INSERT INTO key (ref, owner_type, owner_pack, owner_pack_ref, name, encrypted, value)
                SELECT 'drop.shared', 'pack', id, ref, 'shared', false, '\"of the pack\"' FROM pack WHERE ref = 'drop';
             INSERT INTO key (ref, owner_type, owner_pack, owner_pack_ref, name, encrypted, encryption_key_hash, value)
                SELECT 'drop.sealed', 'pack', id, ref, 'sealed', true, {hash}, {opened} FROM pack WHERE ref = 'drop';
             INSERT INTO key (ref, owner_type, owner_action, owner_action_ref, name, encrypted, value)
                SELECT ref || '.shared', 'action', id, ref, 'shared', false, '\"of the action\"' FROM action WHERE pack_ref = 'drop'"
        ))
        .await;
    // Nobody else's.
    let (sealed, hash) = sealed(&json!("of another execution"));
    platform
        .sql(&format!(
            "INSERT INTO pack (ref, label, version) VALUES ('other', 'Other', '1.0.0');
             INSERT INTO action (ref, pack, pack_ref, label, entrypoint)
                SELECT 'other.act', id, ref, 'Act', 'act.sh' FROM pack WHERE ref = 'other';
             INSERT INTO key (ref, owner_type, owner_pack, owner_pack_ref, name, encrypted, value)
                SELECT 'other.key', 'pack', id, ref, 'of_another_pack', false, '1' FROM pack WHERE ref = 'other';
             INSERT INTO key (ref, owner_type, owner_action, owner_action_ref, name, encrypted, value)
                SELECT 'other.act.key', 'action', id, ref, 'of_another_action', false, '1' FROM action WHERE ref = 'other.act';
             INSERT INTO execution_secret_value
                (entity_type, entity_id, json_path, source_kind, source_ref, encrypted_value, encryption_key_hash)
             VALUES ('execution_config', 4711000, '/a', 'parameter_schema', '/a', {sealed}, {hash})"
        ))
        .await;
}

fn assert_parameters(format: &str, got: &str) {
    match format {
        "json" => {
            assert_eq!(got.lines().count(), 1, "{got}");
            let expected = json!({
                "a": "plain", "deep": {"b": [1, null]}, "none": null, "password": "pa'ss", "sealed": {"opened": true},
                "shared": "of the action",
            });
            assert_eq!(serde_json::from_str::<Value>(got).unwrap(), expected);
        }
        "dotenv" => assert_eq!(
            got,
            "a='plain'\ndeep.b='[1,null]'\nnone=''\npassword='pa'\\''ss'\nsealed.opened='true'\nshared='of the action'"
        ),
        _ => {
            assert!(got.ends_with('\n') && got.contains("pa'ss"), "{got:?}");
            for line in ["a: plain", "none: null", "shared: of the action"] {
                assert!(got.lines().any(|has| has == line), "{line}: {got}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secret_output_is_kept_sealed_and_is_nowhere_else() {
    let manifest = "output_format: json\noutput:\n  token: {type: string, secret: true}\n  count: {type: integer}\n";
    let code = r#"echo '{"token": "hush-hush", "count": 3}'"#;
    let platform = Executor::new(&[Action { name: "make", manifest, code }]).await;
    let (said, row) = platform.run("make", &[]).await;
    let marker = json!({"$attune_secret": true, "redacted": true});
    assert_eq!(row["result"]["data"], json!({"token": marker, "count": 3}));
    let kept =
        "SELECT json_build_array(entity_type, json_path, source_kind, source_ref, encryption_key_hash, encrypted_value)
                FROM execution_secret_value";
    let mut kept = platform.json(kept).await;
    let value = kept.as_array_mut().unwrap().pop().unwrap();
    let (_, hash) = sealed(&json!(null));
    let hash = platform.json(&format!("SELECT to_json({hash})")).await;
    assert_eq!(kept, json!(["execution_result", "/data/token", "parameter_schema", "/token", hash]));
    let key = SealingKey::new(&Secret::new(ENCRYPTION_KEY.to_owned())).unwrap();
    assert_eq!(key.open(&value, hash.as_str()).unwrap(), json!("hush-hush"));
    assert!(!json!([said, row]).to_string().contains("hush"), "{said:?} {row}");
    let mut grep = Command::new("grep");
    grep.args(["-rl", "hush-hush"]).args(["artifacts", "worker.log"].map(|name| platform.installation.path(name)));
    assert_eq!(String::from_utf8_lossy(&grep.output().unwrap().stdout), "");
    platform.worker.stop();
}
