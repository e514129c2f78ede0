//! A hub that keeps artifacts, and how clients speak to it.

use attune_security::TokenType;
use chrono::TimeDelta;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::http::{Answer, get, post, send};
use super::{World, config_with_folders, load, token};

/// Where its paths begin.
pub(crate) const API: &str = "/api/v1";

/// A hub with a folder of artifacts and the packs of the tests.
pub(crate) struct Place {
    pub(crate) world: World,
    pub(crate) dir: TempDir,
    pub(crate) user: String,
}

impl Place {
    pub(crate) async fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let world = World::with(config_with_folders(dir.path(), 1000)).await;
        load(&world, vec![]).await;
        let user = world.user();
        Self { world, dir, user }
    }

    pub(crate) async fn post(&self, path: &str, token: &str, body: Value) -> Answer {
        post(self.world.address, &format!("{API}{path}"), Some(token), &body).await
    }

    pub(crate) async fn get(&self, path: &str, token: &str) -> Answer {
        get(self.world.address, &format!("{API}{path}"), Some(token)).await
    }

    pub(crate) async fn send(&self, method: &str, path: &str, token: &str, body: Value) -> Answer {
        let headers = "content-type: application/json\r\n";
        let path = format!("{API}{path}");
        send(self.world.address, method, &path, token, headers, body.to_string().as_bytes()).await
    }

    /// A form as clients write it; the last field is the file.
    pub(crate) async fn upload(&self, path: &str, token: &str, fields: &[(&str, &str)], file: &[u8]) -> Answer {
        let mut body = Vec::new();
        for (name, value) in fields {
            let part = format!("--frontier\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
            body.extend_from_slice(part.as_bytes());
        }
        body.extend_from_slice(b"--frontier\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f.csv\"\r\n");
        body.extend_from_slice(b"Content-Type: text/csv\r\n\r\n");
        body.extend_from_slice(file);
        body.extend_from_slice(b"\r\n--frontier--\r\n");
        let headers = "content-type: multipart/form-data; boundary=frontier\r\n";
        send(self.world.address, "POST", &format!("{API}{path}"), token, headers, &body).await
    }
}

/// The token of a running action of that name.
pub(crate) fn running(execution: i64, action: &str, sets: &[&str]) -> String {
    let pack = action.split('.').next().unwrap();
    let metadata = json!({
        "execution_id": execution,
        "action_ref": action,
        "permission_set_refs": sets,
        "standard_access_action_refs": [action],
        "standard_access_pack_refs": [pack],
    });
    token(TokenType::Execution, &format!("execution:{execution}"), metadata, TimeDelta::zero())
}
