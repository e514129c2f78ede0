//! A tree to a value. Parts of the variables are borrowed until something new is made from them.

use std::borrow::Cow;
use std::cell::Cell;
use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde_json::Value;

use super::ExpressionError;
use super::ast::{Kind, Node, Operator};
use super::functions;
use super::value::{Num, equal, is_true, order, type_name};

/// How much data one evaluation may look at and produce, in bytes and list items together.
pub(super) const FUEL: usize = 4 * 1024 * 1024;

/// Evaluates `root`.
pub(super) fn evaluate(root: &Node, variables: &BTreeMap<&str, Value>) -> Result<Value, ExpressionError> {
    Evaluator { variables, fuel: Fuel::new(FUEL) }.value(root).map(Cow::into_owned)
}

/// What is left of the data that an evaluation may produce.
#[derive(Debug)]
pub(super) struct Fuel(Cell<usize>);

impl Fuel {
    fn new(amount: usize) -> Self {
        Self(Cell::new(amount))
    }

    /// Takes `amount`, or fails with the reason.
    pub(super) fn burn(&self, amount: usize) -> Result<(), String> {
        let left = self.0.get().checked_sub(amount).ok_or("the expression works on too much data")?;
        self.0.set(left);
        Ok(())
    }

    /// Takes the size of `value`.
    pub(super) fn burn_value(&self, value: &Value) -> Result<(), String> {
        match value {
            Value::Null | Value::Bool(_) | Value::Number(_) => self.burn(1),
            Value::String(text) => self.burn(1 + text.len()),
            Value::Array(items) => {
                self.burn(1)?;
                items.iter().try_for_each(|item| self.burn_value(item))
            }
            Value::Object(entries) => {
                self.burn(1)?;
                entries.iter().try_for_each(|(key, value)| {
                    self.burn(key.len())?;
                    self.burn_value(value)
                })
            }
        }
    }
}

struct Evaluator<'a> {
    variables: &'a BTreeMap<&'a str, Value>,
    fuel: Fuel,
}

type Evaluated<'a> = Result<Cow<'a, Value>, ExpressionError>;

impl<'a> Evaluator<'a> {
    /// Recursion goes through here. Every arm is a call, because the frame of a function has room for all of its arms.
    fn value(&self, node: &Node) -> Evaluated<'a> {
        match &node.kind {
            Kind::Literal(value) => self.new_value(node, value.clone()),
            Kind::List(items) => self.list(items),
            Kind::Object(entries) => self.object(entries),
            Kind::Variable(name) => self.variable(node, name),
            Kind::Field(base, name) => self.field(node, base, name),
            Kind::Index(base, index) => self.index(node, base, index),
            Kind::Call(name, arguments) => self.call(node, name, arguments),
            Kind::Negate(operand) => self.negate(node, operand),
            Kind::Not(operand) => self.not(operand),
            Kind::And(left, right) => self.either(left, right, false),
            Kind::Or(left, right) => self.either(left, right, true),
            Kind::Binary(operator, left, right) => self.binary(node, *operator, (left, right)),
        }
    }

    fn list(&self, items: &[Node]) -> Evaluated<'a> {
        Ok(Cow::Owned(Value::Array(self.owned(items)?)))
    }

    fn object(&self, entries: &[(Node, Node)]) -> Evaluated<'a> {
        let mut object = attune_model::JsonMap::new();
        for (key, value) in entries {
            let name = match self.owned_value(key)? {
                Value::String(name) => name,
                other => {
                    let message = format!("a key must be a string, not {}", type_name(&other));
                    return Err(ExpressionError::new(key.at, message));
                }
            };
            object.insert(name, self.owned_value(value)?);
        }
        Ok(Cow::Owned(Value::Object(object)))
    }

    fn variable(&self, node: &Node, name: &str) -> Evaluated<'a> {
        self.variables.get(name).map(Cow::Borrowed).ok_or_else(|| {
            let known: Vec<&str> = self.variables.keys().copied().collect();
            fail(node, format!("unknown name {name:?}, known are {}", known.join(", ")))
        })
    }

    fn field(&self, node: &Node, base: &Node, name: &str) -> Evaluated<'a> {
        field(self.value(base)?, name).map_err(|message| fail(node, message))
    }

    fn index(&self, node: &Node, base: &Node, index: &Node) -> Evaluated<'a> {
        let base = self.value(base)?;
        let index = self.value(index)?;
        element(base, &index).map_err(|message| fail(node, message))
    }

    fn call(&self, node: &Node, name: &str, arguments: &[Node]) -> Evaluated<'a> {
        let arguments = self.owned(arguments)?;
        let result = functions::call(name, arguments, &self.fuel).map_err(|message| fail(node, message))?;
        self.new_value(node, result)
    }

    fn negate(&self, node: &Node, operand: &Node) -> Evaluated<'a> {
        let operand = self.value(operand)?;
        negated(&operand).map(Cow::Owned).map_err(|message| fail(node, message))
    }

    fn not(&self, operand: &Node) -> Evaluated<'a> {
        let operand = self.value(operand)?;
        Ok(Cow::Owned(Value::Bool(!is_true(&operand))))
    }

    /// The left operand when its truth is `decisive`, else the right one.
    fn either(&self, left: &Node, right: &Node, decisive: bool) -> Evaluated<'a> {
        let left = self.value(left)?;
        if is_true(&left) == decisive { Ok(left) } else { self.value(right) }
    }

    fn binary(&self, node: &Node, operator: Operator, operands: (&Node, &Node)) -> Evaluated<'a> {
        let left = self.value(operands.0)?;
        let right = self.value(operands.1)?;
        let burnt = self.fuel.burn_value(&left).and_then(|()| self.fuel.burn_value(&right));
        let result = burnt.and_then(|()| binary(operator, &left, &right));
        result.map(Cow::Owned).map_err(|message| fail(node, message))
    }

    fn new_value(&self, node: &Node, value: Value) -> Evaluated<'a> {
        self.fuel.burn_value(&value).map_err(|message| ExpressionError::new(node.at, message))?;
        Ok(Cow::Owned(value))
    }

    fn owned(&self, nodes: &[Node]) -> Result<Vec<Value>, ExpressionError> {
        let mut values = Vec::with_capacity(nodes.len());
        for node in nodes {
            values.push(self.owned_value(node)?);
        }
        Ok(values)
    }

    fn owned_value(&self, node: &Node) -> Result<Value, ExpressionError> {
        let value = self.value(node)?;
        if let Cow::Borrowed(value) = &value {
            self.fuel.burn_value(value).map_err(|message| fail(node, message))?;
        }
        Ok(value.into_owned())
    }
}

fn fail(node: &Node, message: String) -> ExpressionError {
    ExpressionError::new(node.at, message)
}

fn field<'a>(base: Cow<'a, Value>, name: &str) -> Result<Cow<'a, Value>, String> {
    if let (Value::Array(items), Ok(index)) = (&*base, name.parse::<usize>()) {
        return if index < items.len() {
            Ok(part(base, |base| base.get(index), |base| base.get_mut(index).map(Value::take)))
        } else {
            Err(format!("index {index} is outside of a list of {}", items.len()))
        };
    }
    match &*base {
        Value::Null => Ok(Cow::Owned(Value::Null)),
        Value::Object(_) => Ok(part(base, |base| base.get(name), |base| base.get_mut(name).map(Value::take))),
        other => Err(format!("{} has no field {name:?}", type_name(other))),
    }
}

/// A part of `base`, borrowed when `base` is; null when there is none.
fn part<'a>(
    base: Cow<'a, Value>,
    get: impl FnOnce(&'a Value) -> Option<&'a Value>,
    take: impl FnOnce(&mut Value) -> Option<Value>,
) -> Cow<'a, Value> {
    match base {
        Cow::Borrowed(base) => get(base).map_or(Cow::Owned(Value::Null), Cow::Borrowed),
        Cow::Owned(mut base) => Cow::Owned(take(&mut base).unwrap_or(Value::Null)),
    }
}

fn element<'a>(base: Cow<'a, Value>, index: &Value) -> Result<Cow<'a, Value>, String> {
    match (&*base, index) {
        (Value::Null | Value::Object(_), Value::String(name)) => field(base, name),
        (Value::Array(items), Value::Number(_)) => {
            let place = position(index, items.len())?;
            field(base, &place.to_string())
        }
        (Value::String(text), Value::Number(_)) => {
            let characters: Vec<char> = text.chars().collect();
            let place = position(index, characters.len())?;
            Ok(Cow::Owned(Value::String(characters[place].to_string())))
        }
        (base, index) => Err(format!("{} cannot be indexed with {}", type_name(base), type_name(index))),
    }
}

/// An index from the front, or from the end when it is negative.
fn position(index: &Value, length: usize) -> Result<usize, String> {
    let outside = || format!("index {index} is outside of {length} elements");
    let whole = index.as_i64().ok_or_else(|| format!("index {index} is not a whole number"))?;
    let from_front = usize::try_from(whole).ok();
    let from_end = usize::try_from(whole.unsigned_abs()).ok().and_then(|back| length.checked_sub(back));
    let place = if whole < 0 { from_end } else { from_front };
    place.filter(|place| *place < length).ok_or_else(outside)
}

fn negated(operand: &Value) -> Result<Value, String> {
    let number = match Num::of(operand).ok_or_else(|| format!("- does not work on {}", type_name(operand)))? {
        Num::Int(value) => Num::Int(value.checked_neg().ok_or("the number is too large")?),
        Num::Float(value) => Num::Float(-value),
    };
    number.into_value().ok_or_else(|| "the number is too large".to_owned())
}

fn binary(operator: Operator, left: &Value, right: &Value) -> Result<Value, String> {
    use Operator as O;
    Ok(Value::Bool(match operator {
        O::Add | O::Subtract | O::Multiply | O::Divide | O::Remainder => {
            return arithmetic(operator, left, right);
        }
        O::Equal => equal(left, right),
        O::NotEqual => !equal(left, right),
        O::Less => compared(operator, left, right)? == Ordering::Less,
        O::LessOrEqual => compared(operator, left, right)? != Ordering::Greater,
        O::Greater => compared(operator, left, right)? == Ordering::Greater,
        O::GreaterOrEqual => compared(operator, left, right)? != Ordering::Less,
        O::In => contains(right, left)?,
        O::NotIn => !contains(right, left)?,
    }))
}

fn compared(operator: Operator, left: &Value, right: &Value) -> Result<Ordering, String> {
    order(left, right).ok_or_else(|| misfit(operator, left, right))
}

fn misfit(operator: Operator, left: &Value, right: &Value) -> String {
    format!("{} does not work on {} and {}", operator.text(), type_name(left), type_name(right))
}

/// Whether `whole` has `part`: a text in a text, an item in a list, a key in an object.
pub(super) fn contains(whole: &Value, part: &Value) -> Result<bool, String> {
    match (whole, part) {
        (Value::String(whole), Value::String(part)) => Ok(whole.contains(part.as_str())),
        (Value::Array(items), _) => Ok(items.iter().any(|item| equal(item, part))),
        (Value::Object(entries), Value::String(key)) => Ok(entries.contains_key(key)),
        _ => Err(format!("{} cannot be looked for in {}", type_name(part), type_name(whole))),
    }
}

fn arithmetic(operator: Operator, left: &Value, right: &Value) -> Result<Value, String> {
    match (operator, left, right) {
        (Operator::Add, Value::String(left), Value::String(right)) => {
            return Ok(Value::String(format!("{left}{right}")));
        }
        (Operator::Add, Value::Array(left), Value::Array(right)) => {
            return Ok(Value::Array(left.iter().chain(right).cloned().collect()));
        }
        _ => {}
    }
    let (Some(left_number), Some(right_number)) = (Num::of(left), Num::of(right)) else {
        return Err(misfit(operator, left, right));
    };
    calculate(operator, left_number, right_number)?.into_value().ok_or_else(|| "the result is too large".to_owned())
}

/// Whole numbers stay whole, but for `/`.
pub(super) fn calculate(operator: Operator, left: Num, right: Num) -> Result<Num, String> {
    use Operator as O;
    if matches!(operator, O::Divide | O::Remainder) && right.as_f64() == 0.0 {
        return Err("division by zero".to_owned());
    }
    let (a, b) = (left.as_f64(), right.as_f64());
    if let (Num::Int(left), Num::Int(right)) = (left, right) {
        let whole = match operator {
            O::Add => Some(left.checked_add(right)),
            O::Subtract => Some(left.checked_sub(right)),
            O::Multiply => Some(left.checked_mul(right)),
            O::Remainder => Some(left.checked_rem(right).map(|rest| with_sign_of(rest, right))),
            _ => None,
        };
        if let Some(whole) = whole {
            return whole.map(Num::Int).ok_or_else(|| "the result is too large".to_owned());
        }
    }
    Ok(Num::Float(match operator {
        O::Add => a + b,
        O::Subtract => a - b,
        O::Multiply => a * b,
        O::Divide => a / b,
        _ => {
            let rest = a % b;
            if rest != 0.0 && (rest < 0.0) != (b < 0.0) { rest + b } else { rest }
        }
    }))
}

fn with_sign_of(rest: i64, divisor: i64) -> i64 {
    if rest != 0 && (rest < 0) != (divisor < 0) { rest + divisor } else { rest }
}
