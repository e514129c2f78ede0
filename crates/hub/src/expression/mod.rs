//! The expression language of rule conditions: pure, bounded, without effects.
//!
//! ```text
//!   or → and → not → comparison (== != < <= > >= in, not in) → + - → * / % → unary - → .name [index]
//! ```
//!
//! Truthiness and operators follow Python: `and` and `or` yield one of their operands, `/` is true division, `%` takes
//! the sign of the divisor. A field that an object does not have is null, and so is any field of null; every other
//! misfit is an error. Text length, nesting and the amount of data that an evaluation may produce are limited, so that
//! no expression can stop the hub.

mod ast;
mod evaluate;
mod functions;
mod lexer;
mod lists;
mod parser;
mod texts;
mod value;

use std::collections::BTreeMap;

use serde_json::Value;
use thiserror::Error;

use value::is_true;
pub(crate) use value::{equal, text_of};

/// Longest text of an expression, in bytes.
const LONGEST_TEXT: usize = 16 * 1024;

/// Why an expression has no value.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{message} (at character {position})")]
pub struct ExpressionError {
    /// What is wrong.
    pub message: String,
    /// Where, from 1.
    pub position: usize,
}

impl ExpressionError {
    fn new(position: usize, message: impl Into<String>) -> Self {
        Self { message: message.into(), position: position + 1 }
    }
}

/// An expression that was understood.
#[derive(Debug, Clone, PartialEq)]
pub struct Expression {
    root: ast::Node,
}

impl Expression {
    /// Reads `text`; one pair of double braces around the whole is ignored.
    pub fn parse(text: &str) -> Result<Self, ExpressionError> {
        if text.len() > LONGEST_TEXT {
            return Err(ExpressionError::new(0, format!("expression is longer than {LONGEST_TEXT} bytes")));
        }
        let tokens = lexer::tokens(unwrapped(text))?;
        Ok(Self { root: parser::parse(&tokens)? })
    }

    /// Its value with these variables.
    pub fn evaluate(&self, variables: &BTreeMap<&str, Value>) -> Result<Value, ExpressionError> {
        evaluate::evaluate(&self.root, variables)
    }

    /// Whether its value counts as true.
    pub fn holds(&self, variables: &BTreeMap<&str, Value>) -> Result<bool, ExpressionError> {
        self.evaluate(variables).map(|value| is_true(&value))
    }
}

fn unwrapped(text: &str) -> &str {
    let trimmed = text.trim();
    let inner = trimmed.strip_prefix("{{").and_then(|rest| rest.strip_suffix("}}"));
    inner.unwrap_or(trimmed)
}

#[cfg(test)]
mod tests;
