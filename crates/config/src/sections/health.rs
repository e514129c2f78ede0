//! `health.*`: where an agent answers questions about its health.

use attune_model::listen::Listen;

use crate::Source;
use crate::key::{Described, Given, Key, Kind};
use crate::kinds::scalar;
use crate::problem::Problem;
use crate::reader::Reader;

/// The variable of [`LISTEN`].
const VARIABLE: &str = "ATTUNE__HEALTH__LISTEN";

/// A valid `health` section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthConfig {
    /// None: where agents of this role and name listen by themselves.
    pub listen: Option<Listen>,
}

impl HealthConfig {
    /// Where the agent `name` in `role` listens; see [`Listen::of_agent`].
    pub fn listen_of(&self, role: &str, name: &str, space: &str) -> Listen {
        self.listen.clone().unwrap_or_else(|| Listen::of_agent(role, name, space))
    }
}

/// Where a program that reads no configuration files tells its health, if its environment says so.
pub fn health_listen(source: &dyn Source) -> Result<Option<Listen>, Problem> {
    let Some(text) = source.text(VARIABLE) else {
        return Ok(None);
    };
    let problem = |message: &str| Problem { place: VARIABLE.to_owned(), message: message.to_owned() };
    text.parse().map(Some).map_err(problem)
}

/// An address.
struct Address;

impl Kind for Address {
    type Value = Listen;

    fn describe(&self) -> String {
        "`address:port`, `unix:/path`, `unix:@name` or `off`".to_owned()
    }

    fn read(&self, given: Given<'_>) -> Result<Listen, String> {
        scalar(given).unwrap_or_default().parse().map_err(str::to_owned)
    }
}

const LISTEN: Key<Address> = Key {
    path: "health.listen",
    kind: Address,
    default: "",
    doc: "Where `/livez`, `/readyz`, `/status.json` and `/metrics` are served.",
    reason: "without it: an abstract Unix socket named after role, name and container, which `attune-agents health` finds by itself",
};

/// Every key of the section.
pub(crate) const KEYS: &[&dyn Described] = &[&LISTEN];

/// Reads the section.
pub(crate) fn read(reader: &mut Reader<'_>) -> HealthConfig {
    HealthConfig { listen: reader.optional(&LISTEN) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::variable_of;

    #[test]
    fn the_variable_is_that_of_the_key() {
        assert_eq!(variable_of(LISTEN.path), VARIABLE);
    }
}
