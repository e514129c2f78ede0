//! The functions of expressions: which exist, how many arguments they take, numbers and conversions.

use serde_json::Value;

use super::ast::Operator;
use super::evaluate::{Fuel, calculate, contains};
use super::value::{Num, is_true, order, text_of, type_name};
use super::{lists, texts};

/// The arguments of one call.
pub(super) struct Arguments {
    values: Vec<Value>,
}

impl Arguments {
    fn new(name: &str, values: Vec<Value>) -> Result<Self, String> {
        let &(_, least, most) = FUNCTIONS.iter().find(|(known, ..)| *known == name).ok_or_else(|| unknown(name))?;
        let given = values.len();
        if given < least || given > most {
            let wanted = match (least, most) {
                (least, usize::MAX) => format!("at least {least}"),
                (least, most) if least == most => least.to_string(),
                (least, most) => format!("{least} to {most}"),
            };
            return Err(format!("{name}() takes {wanted} arguments, not {given}"));
        }
        Ok(Self { values })
    }

    /// All of them.
    pub(super) fn all(&self) -> &[Value] {
        &self.values
    }

    /// The argument at `index`, if given.
    pub(super) fn get(&self, index: usize) -> Option<&Value> {
        self.values.get(index)
    }

    /// The argument at `index`; null for one that may be left out.
    pub(super) fn value(&self, index: usize) -> &Value {
        self.values.get(index).unwrap_or(&Value::Null)
    }

    /// A text.
    pub(super) fn text(&self, index: usize) -> Result<&str, String> {
        self.value(index).as_str().ok_or_else(|| self.wrong(index, "a string"))
    }

    /// A list.
    pub(super) fn list(&self, index: usize) -> Result<&Vec<Value>, String> {
        self.value(index).as_array().ok_or_else(|| self.wrong(index, "a list"))
    }

    /// A whole number.
    pub(super) fn whole(&self, index: usize) -> Result<i64, String> {
        self.value(index).as_i64().ok_or_else(|| self.wrong(index, "a whole number"))
    }

    /// A number.
    pub(super) fn number(&self, index: usize) -> Result<Num, String> {
        Num::of(self.value(index)).ok_or_else(|| self.wrong(index, "a number"))
    }

    /// The error for an argument of the wrong kind.
    pub(super) fn wrong(&self, index: usize, wanted: &str) -> String {
        format!("argument {} must be {wanted}, not {}", index + 1, type_name(self.value(index)))
    }
}

/// Name, least and most arguments.
const FUNCTIONS: [(&str, usize, usize); 36] = [
    ("abs", 1, 1),
    ("bool", 1, 1),
    ("ceil", 1, 1),
    ("chunks", 2, 2),
    ("contains", 2, 2),
    ("count", 1, 2),
    ("ends_with", 2, 2),
    ("flat", 1, 1),
    ("floor", 1, 1),
    ("index_of", 2, 2),
    ("int", 1, 1),
    ("join", 1, 2),
    ("keys", 1, 1),
    ("length", 1, 1),
    ("lower", 1, 1),
    ("match", 2, 2),
    ("max", 1, usize::MAX),
    ("merge", 1, usize::MAX),
    ("min", 1, usize::MAX),
    ("number", 1, 1),
    ("range", 1, 3),
    ("replace", 3, 3),
    ("reversed", 1, 1),
    ("round", 1, 2),
    ("slice", 2, 3),
    ("sort", 1, 1),
    ("split", 1, 2),
    ("starts_with", 2, 2),
    ("string", 1, 1),
    ("sum", 1, 1),
    ("trim", 1, 1),
    ("type_of", 1, 1),
    ("unique", 1, 1),
    ("upper", 1, 1),
    ("values", 1, 1),
    ("zip", 1, usize::MAX),
];

/// The names alone.
#[cfg(test)]
pub(super) const NAMES: [&str; FUNCTIONS.len()] = {
    let mut names = [""; FUNCTIONS.len()];
    let mut next = 0;
    while next < names.len() {
        names[next] = FUNCTIONS[next].0;
        next += 1;
    }
    names
};

/// Calls `name`. Results are measured by the caller; functions that can produce much from little burn `fuel` first.
pub(super) fn call(name: &str, values: Vec<Value>, fuel: &Fuel) -> Result<Value, String> {
    let arguments = Arguments::new(name, values)?;
    let described = |message: String| format!("{name}(): {message}");
    dispatch(name, &arguments, fuel).map_err(described)
}

fn dispatch(name: &str, arguments: &Arguments, fuel: &Fuel) -> Result<Value, String> {
    match name {
        "abs" | "ceil" | "floor" | "round" | "int" | "number" => number(name, arguments),
        "min" | "max" => extreme(name, arguments),
        "sum" => sum(arguments),
        "bool" => Ok(Value::Bool(is_true(arguments.value(0)))),
        "string" => Ok(Value::String(text_of(arguments.value(0)))),
        "type_of" => Ok(type_name(arguments.value(0)).into()),
        "length" => length(arguments),
        "contains" => contains(arguments.value(0), arguments.value(1)).map(Value::Bool),
        "lower" | "upper" | "trim" | "split" | "join" | "replace" | "starts_with" | "ends_with" | "match" => {
            texts::call(name, arguments, fuel)
        }
        _ => lists::call(name, arguments, fuel),
    }
}

fn unknown(name: &str) -> String {
    let known: Vec<&str> = FUNCTIONS.iter().map(|(name, ..)| *name).collect();
    format!("unknown function {name}(), known are {}", known.join(", "))
}

fn length(arguments: &Arguments) -> Result<Value, String> {
    Ok(Value::from(match arguments.value(0) {
        Value::String(text) => text.chars().count(),
        Value::Array(items) => items.len(),
        Value::Object(entries) => entries.len(),
        _ => return Err(arguments.wrong(0, "a string, a list or an object")),
    }))
}

fn number(name: &str, arguments: &Arguments) -> Result<Value, String> {
    let number = match arguments.value(0) {
        Value::String(text) if matches!(name, "int" | "number") => parsed(text)?,
        Value::Bool(value) if matches!(name, "int" | "number") => Num::Int(i64::from(*value)),
        _ => arguments.number(0)?,
    };
    let result = match (name, number) {
        ("number", number) => number,
        ("abs", Num::Int(value)) => Num::Int(value.checked_abs().ok_or("the number is too large")?),
        ("abs", Num::Float(value)) => Num::Float(value.abs()),
        ("round", number) if arguments.get(1).is_some() => rounded(number, arguments.whole(1)?)?,
        (_, whole @ Num::Int(_)) => whole,
        ("ceil", Num::Float(value)) => whole(value.ceil())?,
        ("floor", Num::Float(value)) => whole(value.floor())?,
        ("round", Num::Float(value)) => whole(value.round_ties_even())?,
        (_, Num::Float(value)) => whole(value.trunc())?,
    };
    result.into_value().ok_or_else(|| "the result is too large".to_owned())
}

fn parsed(text: &str) -> Result<Num, String> {
    let text = text.trim();
    if let Ok(whole) = text.parse() {
        return Ok(Num::Int(whole));
    }
    let number = text.parse::<f64>().ok().filter(|number| number.is_finite());
    number.map(Num::Float).ok_or_else(|| "the string is not a number".to_owned())
}

/// The whole number in a float without fraction.
fn whole(value: f64) -> Result<Num, String> {
    // Exactly the floats in this range fit; the upper end itself is one too large.
    const END: f64 = 9_223_372_036_854_775_808.0;
    if (-END..END).contains(&value) {
        #[expect(clippy::cast_possible_truncation, reason = "the range was checked and there is no fraction")]
        return Ok(Num::Int(value as i64));
    }
    Err("the number is too large".to_owned())
}

fn rounded(number: Num, digits: i64) -> Result<Num, String> {
    let Num::Float(value) = number else {
        return Ok(number);
    };
    let digits = i32::try_from(digits).ok().filter(|digits| (0..=15).contains(digits));
    let scale = 10_f64.powi(digits.ok_or("the number of digits must be 0 to 15")?);
    let scaled = (value * scale).round_ties_even() / scale;
    // A scale that overflows leaves nothing to round.
    Ok(Num::Float(if scaled.is_finite() { scaled } else { value }))
}

/// Of one list, or of several arguments.
fn extreme(name: &str, arguments: &Arguments) -> Result<Value, String> {
    let items: &[Value] = match arguments.all() {
        [Value::Array(items)] => items,
        [_] => return Err(arguments.wrong(0, "a list")),
        several => several,
    };
    let (first, rest) = items.split_first().ok_or("the list is empty")?;
    let mut best = first;
    for item in rest {
        let ordering = order(item, best)
            .ok_or_else(|| format!("{} and {} cannot be compared", type_name(item), type_name(best)))?;
        if (name == "min" && ordering.is_lt()) || (name == "max" && ordering.is_gt()) {
            best = item;
        }
    }
    Ok(best.clone())
}

fn sum(arguments: &Arguments) -> Result<Value, String> {
    let mut total = Num::Int(0);
    for item in arguments.list(0)? {
        let number = Num::of(item).ok_or_else(|| format!("{} cannot be added", type_name(item)))?;
        total = calculate(Operator::Add, total, number)?;
    }
    total.into_value().ok_or_else(|| "the result is too large".to_owned())
}
