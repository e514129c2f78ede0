//! Functions on lists and objects.

use attune_model::order;
use serde_json::Value;

use super::evaluate::{Fuel, contains};
use super::functions::Arguments;
use super::value::{Num, equal};

/// Calls one of them; the number of arguments was checked.
pub(super) fn call(name: &str, arguments: &Arguments, fuel: &Fuel) -> Result<Value, String> {
    match name {
        "keys" | "values" => entries(name, arguments),
        "merge" => merge(arguments),
        "reversed" => reversed(arguments),
        "sort" => sort(arguments),
        "unique" => unique(arguments, fuel),
        "flat" => flat(arguments),
        "range" => range(arguments, fuel),
        "slice" => slice(arguments),
        "index_of" => index_of(arguments),
        "count" => count(arguments),
        "zip" => zip(arguments),
        _ => chunks(arguments),
    }
}

fn entries(name: &str, arguments: &Arguments) -> Result<Value, String> {
    let object = arguments.value(0).as_object().ok_or_else(|| arguments.wrong(0, "an object"))?;
    Ok(match name {
        "keys" => object.keys().map(|key| Value::from(key.as_str())).collect(),
        _ => object.values().cloned().collect(),
    })
}

/// `merge(a, b, …)`: later objects win.
fn merge(arguments: &Arguments) -> Result<Value, String> {
    let mut merged = attune_model::JsonMap::new();
    for (index, value) in arguments.all().iter().enumerate() {
        let object = value.as_object().ok_or_else(|| arguments.wrong(index, "an object"))?;
        merged.extend(object.iter().map(|(key, value)| (key.clone(), value.clone())));
    }
    Ok(Value::Object(merged))
}

fn reversed(arguments: &Arguments) -> Result<Value, String> {
    match arguments.value(0) {
        Value::String(text) => Ok(text.chars().rev().collect::<String>().into()),
        _ => Ok(arguments.list(0)?.iter().rev().cloned().collect()),
    }
}

/// Lists of numbers and lists of texts can be sorted.
fn sort(arguments: &Arguments) -> Result<Value, String> {
    let mut items = arguments.list(0)?.clone();
    if items.iter().all(Value::is_string) {
        order::sort_by(&mut items, |left, right| left.as_str().cmp(&right.as_str()));
        return Ok(Value::Array(items));
    }
    let numbers: Option<Vec<Num>> = items.iter().map(Num::of).collect();
    let mut numbers = numbers.ok_or("only numbers or only strings can be sorted")?;
    order::sort_by(&mut numbers, |left, right| left.total_order(*right));
    Ok(numbers.into_iter().filter_map(Num::into_value).collect())
}

fn unique(arguments: &Arguments, fuel: &Fuel) -> Result<Value, String> {
    let mut seen: Vec<Value> = Vec::new();
    for item in arguments.list(0)? {
        fuel.burn(seen.len())?;
        if !seen.iter().any(|known| equal(known, item)) {
            seen.push(item.clone());
        }
    }
    Ok(Value::Array(seen))
}

/// `flat(list)`: lists inside it are replaced by their items, one level.
fn flat(arguments: &Arguments) -> Result<Value, String> {
    let mut items = Vec::new();
    for item in arguments.list(0)? {
        match item {
            Value::Array(inner) => items.extend(inner.iter().cloned()),
            other => items.push(other.clone()),
        }
    }
    Ok(Value::Array(items))
}

/// `range(end)`, `range(begin, end)`, `range(begin, end, step)`.
fn range(arguments: &Arguments, fuel: &Fuel) -> Result<Value, String> {
    let (begin, end) = match arguments.get(1) {
        None => (0, arguments.whole(0)?),
        Some(_) => (arguments.whole(0)?, arguments.whole(1)?),
    };
    let step = if arguments.get(2).is_some() { arguments.whole(2)? } else { 1 };
    if step == 0 {
        return Err("the step is 0".to_owned());
    }
    let mut items = Vec::new();
    let mut next = Some(begin);
    while let Some(value) = next.filter(|value| if step > 0 { *value < end } else { *value > end }) {
        fuel.burn(1)?;
        items.push(Value::from(value));
        next = value.checked_add(step);
    }
    Ok(Value::Array(items))
}

/// `slice(list or text, begin)` or `slice(…, begin, end)`, negative from the end, as in Python.
fn slice(arguments: &Arguments) -> Result<Value, String> {
    let bounds = |length: usize| -> Result<(usize, usize), String> {
        let begin = bound(arguments.whole(1)?, length);
        let end = if arguments.get(2).is_some() { bound(arguments.whole(2)?, length) } else { length };
        Ok((begin, end.max(begin)))
    };
    match arguments.value(0) {
        Value::String(text) => {
            let (begin, end) = bounds(text.chars().count())?;
            Ok(text.chars().skip(begin).take(end - begin).collect::<String>().into())
        }
        Value::Array(items) => {
            let (begin, end) = bounds(items.len())?;
            Ok(Value::Array(items[begin..end].to_vec()))
        }
        _ => Err(arguments.wrong(0, "a list or a string")),
    }
}

fn bound(place: i64, length: usize) -> usize {
    let distance = usize::try_from(place.unsigned_abs()).unwrap_or(usize::MAX);
    if place < 0 { length.saturating_sub(distance) } else { distance.min(length) }
}

/// The first place of an item in a list or of a text in a text, or -1.
fn index_of(arguments: &Arguments) -> Result<Value, String> {
    let place = match arguments.value(0) {
        Value::String(text) => {
            let byte = text.find(arguments.text(1)?);
            byte.and_then(|byte| text.get(..byte)).map(|before| before.chars().count())
        }
        _ => arguments.list(0)?.iter().position(|item| equal(item, arguments.value(1))),
    };
    Ok(place.map_or(Value::from(-1), Value::from))
}

/// `count(list)`, `count(list, item)`, `count(text, part)`.
fn count(arguments: &Arguments) -> Result<Value, String> {
    match (arguments.value(0), arguments.get(1)) {
        (Value::String(text), Some(_)) => {
            let part = arguments.text(1)?;
            if part.is_empty() {
                return Err("the text to count is empty".to_owned());
            }
            Ok(text.matches(part).count().into())
        }
        (Value::Array(items), Some(wanted)) => Ok(items.iter().filter(|item| equal(item, wanted)).count().into()),
        (whole, None) => match whole {
            Value::Array(items) => Ok(items.len().into()),
            Value::Object(entries) => Ok(entries.len().into()),
            _ => Err(arguments.wrong(0, "a list or an object")),
        },
        (whole, Some(wanted)) => contains(whole, wanted).map(|found| usize::from(found).into()),
    }
}

/// `chunks(list, size)`: lists of that size, the last one perhaps shorter.
fn chunks(arguments: &Arguments) -> Result<Value, String> {
    let size = usize::try_from(arguments.whole(1)?).ok().filter(|size| *size > 0);
    let size = size.ok_or("the size must be above 0")?;
    Ok(arguments.list(0)?.chunks(size).map(|chunk| Value::Array(chunk.to_vec())).collect())
}

/// `zip(a, b, …)`: lists of the items at the same place, as long as the shortest.
fn zip(arguments: &Arguments) -> Result<Value, String> {
    let lists: Vec<&Vec<Value>> =
        (0..arguments.all().len()).map(|index| arguments.list(index)).collect::<Result<_, _>>()?;
    let shortest = lists.iter().map(|list| list.len()).min().unwrap_or(0);
    Ok((0..shortest).map(|place| lists.iter().map(|list| list[place].clone()).collect::<Value>()).collect())
}
