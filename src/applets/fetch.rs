//! `attune-agents fetch`: gets the agents from a hub or from the platform's API, for images that hold one already.

use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::time::Duration;

use argh::FromArgs;
use attune_artefact::{InstallError, Installed, Machine, Order};
use attune_config::{Source, process_env};
use attune_http::{BuildError, Client, ClientConfig, Decision, HttpError, Problem, Redirects, Request, Response};
use attune_lifecycle::Backoff;
use attune_model::Secret;
use thiserror::Error;

use crate::applets::install::{DEFAULT_FOLDER, failure, machine, said};
use crate::applets::machine::api_ca_file;
use crate::call::Call;
use crate::exit::{Exit, Failure};
use crate::{output, rt};

/// The token of the download, and the file it may stand in instead.
const TOKEN: (&str, &str) = ("ATTUNE_AGENT_TOKEN", "ATTUNE_AGENT_TOKEN_FILE");

/// What a hub tells of the file; the length of the answer is told by every server.
const SHA256: &str = "x-agent-sha256";
const SIZES: [&str; 2] = ["x-agent-size", "content-length"];

/// Far more than what is shipped; a build for development with all its symbols fits.
const MOST_BYTES: usize = 256 * 1024 * 1024;

/// For one attempt, from the connection to the last byte.
const ATTEMPT_LIMIT: Duration = Duration::from_mins(5);

/// Between attempts, at first and at most.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Downloads the agents from URL (…/api/v1/agent/binary), verifies and installs them. The token is read from
/// `ATTUNE_AGENT_TOKEN`, or from the file that `ATTUNE_AGENT_TOKEN_FILE` names; it never is an argument.
#[derive(Debug, FromArgs)]
struct FetchArguments {
    /// print one JSON object
    #[argh(switch)]
    json: bool,
    #[argh(option, arg_name = "ARCH", description = "architecture: x86_64 or aarch64 (default: this machine's)")]
    arch: Option<String>,
    #[argh(option, arg_name = "N", default = "10", description = "how often it is tried (default: 10)")]
    attempts: u32,
    #[argh(positional, arg_name = "URL", description = "where the binary is")]
    url: String,
    #[argh(positional, arg_name = "DIR", description = "the folder (default: /opt/attune/agent)")]
    folder: Option<PathBuf>,
}

/// Why nothing was fetched.
#[derive(Debug, Error)]
enum FetchError {
    #[error("failed to set the HTTP client up")]
    Client(#[from] BuildError),
    #[error("failed to download the agents")]
    Http(#[from] HttpError),
    #[error("the token file {path} cannot be read")]
    Token {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the server gave {found} bytes and announced {announced}")]
    Size { found: usize, announced: String },
}

/// Runs it.
pub(crate) fn run(call: Call) -> Result<Exit, Failure> {
    call.with(|FetchArguments { json, arch, attempts, url, folder }| {
        if !url.starts_with("http://") && !url.starts_with("https://") {
            return Err(Failure::usage("URL must begin with http:// or https://"));
        }
        let machine = machine(arch.as_deref())?;
        let folder = folder.unwrap_or_else(|| PathBuf::from(DEFAULT_FOLDER));
        let environment = process_env();
        let token = token(&environment).map_err(refused)?;
        let ca_file = api_ca_file(&url);
        let request = request(&url, machine, token.as_ref());
        let answer = rt::one_thread()?.block_on(download(&request, ca_file, attempts)).map_err(refused)?;
        let installed = place(&answer, &folder, machine)?;
        if let Some(unchecked) = unchecked(&answer) {
            output::tell(format!("{url} {unchecked}\n").as_bytes());
        }
        output::print(&said(&installed, json))
    })
}

fn token(environment: &dyn Source) -> Result<Option<Secret>, FetchError> {
    if let Some(token) = environment.text(TOKEN.0) {
        return Ok(Some(Secret::new(token)));
    }
    let Some(path) = environment.text(TOKEN.1).map(PathBuf::from) else {
        return Ok(None);
    };
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(Some(Secret::new(text.trim().to_owned()))),
        Err(source) => Err(FetchError::Token { path, source }),
    }
}

fn request(url: &str, machine: Machine, token: Option<&Secret>) -> Request {
    let mut request = Request::get(url).query("arch", machine.as_str()).timeout(ATTEMPT_LIMIT);
    if let Some(token) = token {
        request = request.header("x-agent-token", token.expose());
    }
    request
}

/// Tries until it works, or until it is clear that it never will.
async fn download(request: &Request, ca_file: Option<PathBuf>, attempts: u32) -> Result<Response, FetchError> {
    let config = ClientConfig {
        ca_file,
        // A token is not carried to another host: the platform answers itself.
        redirects: Redirects::Return,
        response_limit_bytes: MOST_BYTES,
        ..ClientConfig::default()
    };
    let client = Client::build(&config)?;
    let mut backoff = Backoff::new(PAUSES.0, PAUSES.1);
    loop {
        let error = match client.send(request).await.and_then(Response::success) {
            Ok(answer) => return whole(answer),
            Err(error) => error,
        };
        // Not found: the volume of the server may be filled a moment later.
        let hopeless = error.decision() == Decision::Fail && error.status() != Some(404);
        let pause = backoff.next_delay();
        if hopeless || backoff.attempts() >= attempts {
            return Err(error.into());
        }
        tokio::time::sleep(pause).await;
    }
}

/// A proxy may have cut it or put something in its place.
fn whole(answer: Response) -> Result<Response, FetchError> {
    for name in SIZES {
        if let Some(announced) = header(&answer, name).filter(|size| *size != answer.body.len().to_string()) {
            return Err(FetchError::Size { found: answer.body.len(), announced: announced.to_owned() });
        }
    }
    Ok(answer)
}

/// What a server that tells less than a hub leaves open.
fn unchecked(answer: &Response) -> Option<&'static str> {
    if header(answer, SHA256).is_some() {
        return None;
    }
    Some(if SIZES.iter().any(|name| header(answer, name).is_some()) {
        "tells no checksum: only the size and the ELF header were checked"
    } else {
        "tells no checksum: only the ELF header was checked"
    })
}

fn header<'a>(answer: &'a Response, name: &str) -> Option<&'a str> {
    answer.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
}

fn place(answer: &Response, folder: &Path, machine: Machine) -> Result<Installed, Failure> {
    let order = Order { folder, source: Path::new(&answer.url), machine, sha256: header(answer, SHA256) };
    attune_artefact::install_from(&order, &mut Cursor::new(&answer.body)).map_err(|error| match error {
        InstallError::NotAProgram { why, .. } => {
            Failure::message(Exit::Data, format!("what {} gave is not the agents' binary: {why}", answer.url))
        }
        other => failure(other),
    })
}

fn refused(error: FetchError) -> Failure {
    let exit = match &error {
        FetchError::Http(error) if error.decision() == Decision::Retry || error.status() == Some(404) => {
            Exit::Unavailable
        }
        FetchError::Http(HttpError { problem: Problem::TooLong { .. }, .. }) | FetchError::Size { .. } => Exit::Data,
        FetchError::Http(_) | FetchError::Client(_) | FetchError::Token { .. } => Exit::Configuration,
    };
    Failure::new(exit, error)
}
