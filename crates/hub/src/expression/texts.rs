//! Functions on texts.

use attune_model::Pattern;
use serde_json::Value;

use super::evaluate::{FUEL, Fuel};
use super::functions::Arguments;
use super::value::text_of;

/// Longest pattern, in bytes. It is read as a whole before anything else limits it, and there are classes of a few letters that
/// take ten milliseconds, as `(?i)\p{any}` does.
const LONGEST_PATTERN: usize = 1024;
/// What each of its bytes costs: so all patterns of an evaluation are read in two or three seconds.
const FUEL_PER_PATTERN_BYTE: usize = FUEL / 2048;
/// Largest compiled pattern, in bytes.
const LARGEST_PATTERN: usize = 1024 * 1024;
/// Steps of a search that cost as much as one byte of data: so the longest search takes a second or two.
const STEPS_PER_FUEL: usize = 32;

/// Calls one of them; the number of arguments was checked.
pub(super) fn call(name: &str, arguments: &Arguments, fuel: &Fuel) -> Result<Value, String> {
    Ok(match name {
        "lower" => arguments.text(0)?.to_lowercase().into(),
        "upper" => arguments.text(0)?.to_uppercase().into(),
        "trim" => arguments.text(0)?.trim().into(),
        "starts_with" => arguments.text(0)?.starts_with(arguments.text(1)?).into(),
        "ends_with" => arguments.text(0)?.ends_with(arguments.text(1)?).into(),
        "split" => split(arguments)?,
        "join" => join(arguments, fuel)?,
        "replace" => replace(arguments, fuel)?,
        _ => matches(arguments, fuel)?,
    })
}

/// `split(text)` at white space, `split(text, separator)` at every separator.
fn split(arguments: &Arguments) -> Result<Value, String> {
    let text = arguments.text(0)?;
    if arguments.get(1).is_none() {
        return Ok(text.split_whitespace().map(Value::from).collect());
    }
    let separator = arguments.text(1)?;
    if separator.is_empty() {
        return Err("the separator is empty".to_owned());
    }
    Ok(text.split(separator).map(Value::from).collect())
}

/// `join(list)` or `join(list, separator)`.
fn join(arguments: &Arguments, fuel: &Fuel) -> Result<Value, String> {
    let items = arguments.list(0)?;
    let separator = if arguments.get(1).is_some() { arguments.text(1)? } else { "" };
    fuel.burn(items.len().saturating_mul(separator.len()))?;
    let texts: Vec<String> = items.iter().map(text_of).collect();
    Ok(texts.join(separator).into())
}

/// `replace(text, old, new)`, everywhere.
fn replace(arguments: &Arguments, fuel: &Fuel) -> Result<Value, String> {
    let (text, old, new) = (arguments.text(0)?, arguments.text(1)?, arguments.text(2)?);
    if old.is_empty() {
        return Err("the text to replace is empty".to_owned());
    }
    fuel.burn(text.matches(old).count().saturating_mul(new.len()))?;
    Ok(text.replace(old, new).into())
}

/// `match(pattern, text)`: whether the regular expression is found anywhere; `^` and `$` anchor it.
fn matches(arguments: &Arguments, fuel: &Fuel) -> Result<Value, String> {
    let (pattern, text) = (arguments.text(0)?, arguments.text(1)?);
    if pattern.len() > LONGEST_PATTERN {
        return Err(format!("the pattern is longer than {LONGEST_PATTERN} bytes"));
    }
    fuel.burn(pattern.len().saturating_mul(FUEL_PER_PATTERN_BYTE))?;
    let pattern = Pattern::with_limit(pattern, LARGEST_PATTERN).map_err(|error| error.to_string())?;
    fuel.burn(text.len().saturating_mul(pattern.states()) / STEPS_PER_FUEL)?;
    Ok(pattern.is_match(text).into())
}
