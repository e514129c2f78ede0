//! YAML with positions: a tree that knows the line of every node, a reader that reports every problem, and a writer.
//!
//! Values follow the core schema of YAML 1.2, limited to what JSON can carry. Parsing never recurses, so a hostile
//! document can neither exhaust the stack nor, through aliases, the memory.

mod core_schema;
mod emit;
mod fields;
mod node;
mod parse;
mod report;

pub use emit::emit;
pub use fields::Fields;
pub use node::{Entry, Mapping, Node, Value};
pub use parse::{ParseError, parse};
pub use report::{Problem, Report, Severity};
