//! `attune-agents http-request`: one HTTP request, described by a JSON object on standard input.
//!
//! The action `core.http_request` is this, so that it works in an image that has nothing but a shell.

use std::io::{self, Read};
use std::path::PathBuf;

use argh::FromArgs;
use attune_config::{Source, process_env};
use attune_http::{DescribedError, described};
use serde_json::Value;

use crate::call::Call;
use crate::exit::{Exit, Failure};
use crate::{output, rt};

/// More than any action's parameters.
const INPUT_LIMIT_BYTES: u64 = 64 * 1024 * 1024;

/// Makes the HTTP request that a JSON object on standard input describes, and prints the answer as another.
/// Keys: url, method, headers, `query_params`, body, json, `timeout_seconds`, `verify_ssl`, `follow_redirects`,
/// `max_redirects`, auth, `fail_on_error`.
#[derive(Debug, FromArgs)]
struct HttpRequestArguments {}

/// Runs it.
pub(crate) fn run(call: Call) -> Result<Exit, Failure> {
    call.with(|HttpRequestArguments {}| {
        let parameters = read_input()?;
        // What OpenSSL and curl read, and what children of an agent are let through.
        let ca_file = process_env().get("SSL_CERT_FILE").filter(|path| !path.is_empty()).map(PathBuf::from);
        let answer = rt::one_thread()?.block_on(described(&parameters, ca_file)).map_err(failure)?;
        output::print(&format!("{}\n", Value::Object(answer)))
    })
}

fn read_input() -> Result<Vec<u8>, Failure> {
    let mut parameters = Vec::new();
    io::stdin()
        .lock()
        .take(INPUT_LIMIT_BYTES)
        .read_to_end(&mut parameters)
        .map_err(|error| Failure::message(Exit::Failed, format!("failed to read standard input: {error}")))?;
    Ok(parameters)
}

fn failure(error: DescribedError) -> Failure {
    let exit = match error {
        DescribedError::Description(_) | DescribedError::Parameter { .. } => Exit::Usage,
        DescribedError::Client(_) | DescribedError::Request(_) | DescribedError::Status { .. } => Exit::Failed,
    };
    Failure::new(exit, error)
}
