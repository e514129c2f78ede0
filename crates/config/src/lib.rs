//! YAML and environment into one validated struct per section; the only reader of the environment.

mod child;
mod source;

pub use child::{OWN_PREFIX, PASSED_NAMES, PASSED_PREFIXES, child_env};
pub use source::{MapSource, ProcessEnvironment, Source, process_env};
