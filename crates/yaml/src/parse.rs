//! Text into the tree, from the parser's events: one document, unique keys, bounded depth and size.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span, Tag};

use crate::core_schema;
use crate::node::{Entry, Mapping, Node, Value};

/// Deeper documents are refused: everything after the parser may recurse.
const MAX_DEPTH: usize = 128;

/// How much anchors and aliases may copy, so that a few lines cannot grow to gigabytes.
const MAX_COPIED_BYTES: usize = 8 << 20;

/// What a value costs beside its text.
const NODE_BYTES: usize = size_of::<Entry>();

/// Why a text is not one usable YAML document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {message}")]
pub struct ParseError {
    /// Line, from 1.
    pub line: u32,
    /// Column, from 1.
    pub column: u32,
    /// What is wrong there.
    pub message: String,
}

impl ParseError {
    fn at(marker: Marker, message: impl Into<String>) -> Self {
        let (line, column) = position(marker);
        Self { line, column, message: message.into() }
    }
}

/// Reads one document. An empty text is a null on line 1.
pub fn parse(text: &str) -> Result<Node, ParseError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut parser = Parser::new_from_str(text);
    let mut builder = Builder::default();
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| ParseError::at(*error.marker(), error.info()))?;
        builder.take(event, span)?;
    }
    Ok(builder.document.unwrap_or(Node { line: 1, column: 1, value: Value::Null }))
}

fn position(marker: Marker) -> (u32, u32) {
    let line = u32::try_from(marker.line()).unwrap_or(u32::MAX).max(1);
    let column = u32::try_from(marker.col()).unwrap_or(u32::MAX).saturating_add(1);
    (line, column)
}

/// What is open at the moment, from the outside in.
#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    copied_bytes: usize,
    document: Option<Node>,
}

struct Open {
    anchor: usize,
    line: u32,
    column: u32,
    collection: Collection,
}

enum Collection {
    Sequence(Vec<Node>),
    Mapping(OpenMapping),
}

#[derive(Default)]
struct OpenMapping {
    entries: Vec<Entry>,
    seen: HashSet<String>,
    /// A key that waits for its value.
    key: Option<Key>,
    /// Values of merge keys, applied at the end because own keys win wherever they stand.
    merged: Vec<Node>,
}

struct Key {
    text: String,
    line: u32,
    column: u32,
    is_merge: bool,
}

impl Builder {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), ParseError> {
        match event {
            Event::DocumentStart(_) if self.document.is_some() => {
                Err(ParseError::at(span.start, "a second document begins here; only one is expected"))
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) | Event::DocumentEnd => {
                Ok(())
            }
            Event::SequenceStart(anchor, tag) => {
                accept_collection_tag(tag.as_deref(), "seq", span.start)?;
                self.open(anchor, span.start, Collection::Sequence(Vec::new()))
            }
            Event::MappingStart(anchor, tag) => {
                accept_collection_tag(tag.as_deref(), "map", span.start)?;
                self.open(anchor, span.start, Collection::Mapping(OpenMapping::default()))
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(span.start),
            Event::Scalar(text, style, anchor, tag) => {
                if tag.is_none() && anchor == 0 && self.take_key(&text, style, span.start)? {
                    return Ok(());
                }
                let (line, column) = position(span.start);
                let value = scalar(text, style, tag.as_deref(), span.start)?;
                self.insert(Node { line, column, value }, anchor, span.start)
            }
            Event::Alias(anchor) => self.alias(anchor, span.start),
        }
    }

    fn open(&mut self, anchor: usize, start: Marker, collection: Collection) -> Result<(), ParseError> {
        if self.open.len() >= MAX_DEPTH {
            return Err(ParseError::at(start, format!("nested deeper than {MAX_DEPTH} levels")));
        }
        let (line, column) = position(start);
        self.open.push(Open { anchor, line, column, collection });
        Ok(())
    }

    fn close(&mut self, end: Marker) -> Result<(), ParseError> {
        let Some(Open { anchor, line, column, collection }) = self.open.pop() else {
            return Err(ParseError::at(end, "nothing is open here"));
        };
        let value = match collection {
            Collection::Sequence(items) => Value::Sequence(items),
            Collection::Mapping(mapping) => Value::Mapping(mapping.finish()?),
        };
        self.insert(Node { line, column, value }, anchor, end)
    }

    /// Takes a plain or quoted scalar in the place of a key as its text, without typing it.
    fn take_key(&mut self, text: &str, style: ScalarStyle, start: Marker) -> Result<bool, ParseError> {
        let Some(Open { collection: Collection::Mapping(mapping), .. }) = self.open.last_mut() else {
            return Ok(false);
        };
        if mapping.key.is_some() {
            return Ok(false);
        }
        let is_merge = text == "<<" && style == ScalarStyle::Plain;
        mapping.begin(text.to_owned(), is_merge, start)?;
        Ok(true)
    }

    fn alias(&mut self, anchor: usize, start: Marker) -> Result<(), ParseError> {
        let Some(target) = self.anchors.get(&anchor) else {
            return Err(ParseError::at(start, "this alias stands inside the value that it names"));
        };
        let node = copy(target, &mut self.copied_bytes, start)?;
        if self.open.len() + depth(&node) > MAX_DEPTH {
            return Err(ParseError::at(start, format!("nested deeper than {MAX_DEPTH} levels")));
        }
        self.insert(node, 0, start)
    }

    fn insert(&mut self, node: Node, anchor: usize, at: Marker) -> Result<(), ParseError> {
        if anchor > 0 {
            self.anchors.insert(anchor, copy(&node, &mut self.copied_bytes, at)?);
        }
        match self.open.last_mut() {
            None => self.document = Some(node),
            Some(Open { collection: Collection::Sequence(items), .. }) => items.push(node),
            Some(Open { collection: Collection::Mapping(mapping), .. }) => mapping.insert(node, at)?,
        }
        Ok(())
    }
}

impl OpenMapping {
    fn begin(&mut self, text: String, is_merge: bool, start: Marker) -> Result<(), ParseError> {
        if !is_merge && !self.seen.insert(text.clone()) {
            let first = self.entries.iter().find(|entry| entry.key == text).map_or(0, |entry| entry.line);
            return Err(ParseError::at(start, format!("the key {text:?} stands here twice, first on line {first}")));
        }
        let (line, column) = position(start);
        self.key = Some(Key { text, line, column, is_merge });
        Ok(())
    }

    fn insert(&mut self, node: Node, at: Marker) -> Result<(), ParseError> {
        let Some(Key { text, line, column, is_merge }) = self.key.take() else {
            return self.begin_from_node(node, at);
        };
        if is_merge {
            self.merged.push(node);
        } else {
            self.entries.push(Entry { key: text, line, column, value: node });
        }
        Ok(())
    }

    /// A key with a tag, an anchor or an alias has been built as a node.
    fn begin_from_node(&mut self, node: Node, at: Marker) -> Result<(), ParseError> {
        let text = match node.value {
            Value::String(text) | Value::Number { source: text, .. } => text,
            Value::Bool(value) => value.to_string(),
            Value::Null => "null".to_owned(),
            Value::Sequence(_) | Value::Mapping(_) => {
                return Err(ParseError::at(at, format!("a key must be a text, this one is {}", node.kind())));
            }
        };
        self.begin(text, false, at)
    }

    fn finish(mut self) -> Result<Mapping, ParseError> {
        for source in std::mem::take(&mut self.merged) {
            let (line, column) = (source.line, source.column);
            let sources = match source.value {
                Value::Sequence(items) => items,
                _ => vec![source],
            };
            for node in sources {
                let Value::Mapping(mapping) = node.value else {
                    let message = format!("<< takes a mapping or a list of mappings, this is {}", node.kind());
                    return Err(ParseError { line, column, message });
                };
                for entry in mapping.entries {
                    if self.seen.insert(entry.key.clone()) {
                        self.entries.push(entry);
                    }
                }
            }
        }
        Ok(Mapping { entries: self.entries })
    }
}

fn accept_collection_tag(tag: Option<&Tag>, own: &str, start: Marker) -> Result<(), ParseError> {
    match tag {
        Some(tag) if !(tag.is_yaml_core_schema() && tag.suffix == own) => Err(unsupported(tag, start)),
        _ => Ok(()),
    }
}

fn unsupported(tag: &Tag, start: Marker) -> ParseError {
    ParseError::at(start, format!("the tag {tag} is not supported here"))
}

fn scalar(text: Cow<'_, str>, style: ScalarStyle, tag: Option<&Tag>, start: Marker) -> Result<Value, ParseError> {
    let Some(tag) = tag else {
        return Ok(match style {
            ScalarStyle::Plain => core_schema::resolve(&text),
            _ => Value::String(text.into_owned()),
        });
    };
    if !tag.is_yaml_core_schema() {
        return Err(unsupported(tag, start));
    }
    let number = |number| Value::Number { number, source: text.to_string() };
    let value = match tag.suffix.as_str() {
        "str" => Some(Value::String(text.to_string())),
        "null" => core_schema::null(&text),
        "bool" => core_schema::boolean(&text),
        "int" => core_schema::integer(&text).map(number),
        "float" => core_schema::float(&text).map(number),
        _ => return Err(unsupported(tag, start)),
    };
    value.ok_or_else(|| ParseError::at(start, format!("{text:?} is not a value of the type {}", tag.suffix)))
}

/// A copy of `node`, within what the document may copy altogether.
fn copy(node: &Node, copied_bytes: &mut usize, at: Marker) -> Result<Node, ParseError> {
    *copied_bytes = copied_bytes.saturating_add(bytes_of(node));
    if *copied_bytes > MAX_COPIED_BYTES {
        return Err(ParseError::at(at, format!("anchors and aliases copy more than {MAX_COPIED_BYTES} bytes")));
    }
    Ok(node.clone())
}

/// Roughly what a copy takes.
fn bytes_of(node: &Node) -> usize {
    let held = match &node.value {
        Value::Sequence(items) => items.iter().map(bytes_of).sum(),
        Value::Mapping(mapping) => mapping.iter().map(|entry| entry.key.len() + bytes_of(&entry.value)).sum(),
        Value::String(text) | Value::Number { source: text, .. } => text.len(),
        Value::Null | Value::Bool(_) => 0,
    };
    NODE_BYTES + held
}

fn depth(node: &Node) -> usize {
    match &node.value {
        Value::Sequence(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Mapping(mapping) => 1 + mapping.iter().map(|entry| depth(&entry.value)).max().unwrap_or(0),
        _ => 0,
    }
}
