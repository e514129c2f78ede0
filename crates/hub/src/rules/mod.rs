//! From an event and a rule to an enforcement: conditions, templates, secrets. Pure; storage calls it inside its unit of
//! work.

mod condition;
mod enforce;
mod secrets;
mod template;

pub(crate) use enforce::RuleEngine;
pub(crate) use secrets::protect;
