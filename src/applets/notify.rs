//! `attune-agents notify VARIABLE=VALUE…`: says how a sensor is, for sensors that are scripts.
//!
//! The same that `systemd-notify` does, which images of user code do not have.

use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

use argh::FromArgs;
use attune_config::{Source, process_env};

use crate::call::Call;
use crate::exit::{Exit, Failure};

/// Says something to the sensor host that started this sensor: READY=1, STATUS=text, STOPPING=1, WATCHDOG=1,
/// `X_ATTUNE_KEEPS=token,rules`. Does nothing when nobody listens.
#[derive(Debug, FromArgs)]
struct NotifyArguments {
    /// what to say, each as VARIABLE=VALUE
    #[argh(positional)]
    words: Vec<String>,
}

/// Runs it.
pub(crate) fn run(call: Call) -> Result<Exit, Failure> {
    call.with(|NotifyArguments { words }| {
        if words.is_empty() {
            return Err(Failure::usage("say something, such as READY=1"));
        }
        if let Some(word) = words.iter().find(|word| !word.contains('=') || word.contains('\n')) {
            return Err(Failure::usage(format!("expected VARIABLE=VALUE on one line, not {word:?}")));
        }
        say(&process_env(), &words.join("\n"))
            .map_err(|error| Failure::message(Exit::Failed, format!("the sensor host does not listen: {error}")))?;
        Ok(Exit::Success)
    })
}

/// Says `text` to the host, if one listens.
pub(crate) fn say(environment: &dyn Source, text: &str) -> std::io::Result<()> {
    let Some(path) = environment.get("NOTIFY_SOCKET").filter(|path| !path.is_empty()) else {
        return Ok(());
    };
    UnixDatagram::unbound()?.send_to(text.as_bytes(), PathBuf::from(path)).map(drop)
}
