//! `attune`, `attune-mcp`: two programs of the platform that are not part of this one.
//!
//! Deployments that exist copy four programs out of the agents' image and ask each for its version; without these two
//! names their init container fails. They are here to be found and to say where the real ones are. `install` does not
//! make them; the image `agent-compat` does.

use argh::FromArgs;

use crate::call::Call;
use crate::exit::{Exit, Failure};

/// Stands in for a program of the platform that is not part of attune-agents: it answers --version and nothing else.
#[derive(Debug, FromArgs)]
struct ElsewhereArguments {}

/// Says so.
pub(crate) fn run(mut call: Call) -> Result<Exit, Failure> {
    let program = call.applet.program.unwrap_or(call.applet.name);
    // Whatever else is asked for, the answer is the same.
    call.arguments.retain(|word| ["--version", "-V", "--help", "-h"].iter().any(|known| word == known));
    call.with(|ElsewhereArguments {}| {
        let text = format!(
            "`{program}` is part of the platform and not of attune-agents, which only holds its place in this folder: \
             copy it from the platform's own image"
        );
        Err(Failure::message(Exit::Unavailable, text))
    })
}
