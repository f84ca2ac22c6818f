//! YAML as a tree that knows the line of every node.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use saphyr::Scalar;
use saphyr_parser::{Event, Parser};

/// Nodes that aliases may copy in one text: more is an attack, or no manifest.
const MOST_COPIES: usize = 100_000;
/// Depth of nesting.
const MOST_DEPTH: usize = 100;

/// A node and the line that it starts in, from 1.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node<'a> {
    pub(super) line: usize,
    pub(super) value: Value<'a>,
}

/// What a node holds.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value<'a> {
    Null,
    Bool(bool),
    Integer(i64),
    Float(f64),
    String(Cow<'a, str>),
    List(Vec<Node<'a>>),
    Map(Vec<Entry<'a>>),
}

/// A key and its value.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry<'a> {
    pub(super) key: Cow<'a, str>,
    /// The key's line.
    pub(super) line: usize,
    pub(super) node: Node<'a>,
}

/// Why a text is no YAML, and where.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NotYaml {
    pub(super) line: usize,
    pub(super) message: String,
}

impl<'a> Node<'a> {
    /// The value of a key.
    pub(super) fn get(&self, key: &str) -> Option<&Node<'a>> {
        let Value::Map(entries) = &self.value else { return None };
        entries.iter().find(|entry| entry.key == key).map(|entry| &entry.node)
    }

    /// The same without a key.
    pub(super) fn without(&self, key: &str) -> Self {
        let mut node = self.clone();
        if let Value::Map(entries) = &mut node.value {
            entries.retain(|entry| entry.key != key);
        }
        node
    }

    /// The text of a string.
    pub(super) fn text(&self) -> Option<&str> {
        if let Value::String(text) = &self.value { Some(text) } else { None }
    }

    /// The line of a field such as `spec.ports[0].port`; of what encloses it where there is no such field.
    pub(super) fn line_of(&self, path: &str) -> usize {
        let (mut node, mut line) = (self, self.line);
        for step in path.split(['.', '[', ']']).filter(|step| !step.is_empty()) {
            let next = match &node.value {
                Value::Map(entries) => {
                    entries.iter().find(|entry| entry.key == step).map(|entry| (&entry.node, entry.line))
                }
                Value::List(items) => step.parse().ok().and_then(|i: usize| items.get(i)).map(|item| (item, item.line)),
                Value::Null | Value::Bool(_) | Value::Integer(_) | Value::Float(_) | Value::String(_) => None,
            };
            let Some(found) = next else { break };
            (node, line) = found;
        }
        line
    }
}

/// Parses a text of one or more documents.
pub(super) fn parse(text: &str) -> Result<Vec<Node<'_>>, NotYaml> {
    let mut builder = Builder::default();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| NotYaml {
            line: error.marker().line(),
            message: format!("this is no YAML: {}; mind indentation, quotes and tabs", error.info()),
        })?;
        let line = span.start.line();
        builder.take(event, line).map_err(|error| if error.line == 0 { NotYaml { line, ..error } } else { error })?;
    }
    Ok(builder.documents)
}

#[derive(Default)]
struct Builder<'a> {
    documents: Vec<Node<'a>>,
    open: Vec<Open<'a>>,
    anchors: HashMap<usize, Node<'a>>,
    copies: usize,
}

struct Open<'a> {
    anchor: usize,
    line: usize,
    content: Content<'a>,
}

enum Content<'a> {
    List(Vec<Node<'a>>),
    Map { entries: Vec<Entry<'a>>, key: Option<(Cow<'a, str>, usize)> },
}

impl<'a> Builder<'a> {
    fn take(&mut self, event: Event<'a>, line: usize) -> Result<(), NotYaml> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let value = match Scalar::parse_from_cow_and_metadata(text, style, tag.as_ref()) {
                    Some(Scalar::Null) => Value::Null,
                    Some(Scalar::Boolean(value)) => Value::Bool(value),
                    Some(Scalar::Integer(value)) => Value::Integer(value),
                    Some(Scalar::FloatingPoint(value)) => Value::Float(value.into_inner()),
                    Some(Scalar::String(text)) => Value::String(text),
                    None => return Err(here("the value does not fit its tag; leave out the tag")),
                };
                self.put(Node { line, value }, anchor)
            }
            Event::SequenceStart(anchor, _) => self.open(anchor, line, Content::List(Vec::new())),
            Event::MappingStart(anchor, _) => self.open(anchor, line, Content::Map { entries: Vec::new(), key: None }),
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            Event::Alias(anchor) => {
                let missing = || here("the alias names no anchor that is complete; write it out");
                let node = self.anchors.get(&anchor).ok_or_else(missing)?;
                self.copies += size(node);
                if self.copies > MOST_COPIES {
                    return Err(here(format!("aliases copy more than {MOST_COPIES} nodes; write some of them out")));
                }
                let node = Node { line, ..node.clone() };
                self.put(node, 0)
            }
            Event::DocumentEnd => {
                self.anchors.clear();
                Ok(())
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) => Ok(()),
        }
    }

    fn open(&mut self, anchor: usize, line: usize, content: Content<'a>) -> Result<(), NotYaml> {
        if self.open.len() == MOST_DEPTH {
            return Err(here(format!("this is nested more than {MOST_DEPTH} deep; no manifest is")));
        }
        self.open.push(Open { anchor, line, content });
        Ok(())
    }

    fn close(&mut self) -> Result<(), NotYaml> {
        let Some(Open { anchor, line, content }) = self.open.pop() else { return Ok(()) };
        let value = match content {
            Content::List(items) => Value::List(items),
            Content::Map { entries, .. } => {
                refuse_twins(&entries)?;
                Value::Map(entries)
            }
        };
        self.put(Node { line, value }, anchor)
    }

    fn put(&mut self, node: Node<'a>, anchor: usize) -> Result<(), NotYaml> {
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        match self.open.last_mut().map(|open| &mut open.content) {
            None => self.documents.push(node),
            Some(Content::List(items)) => items.push(node),
            Some(Content::Map { entries, key }) => match key.take() {
                Some((key, line)) => entries.push(Entry { key, line, node }),
                None => {
                    let line = node.line;
                    *key = Some((as_key(node.value)?, line));
                }
            },
        }
        Ok(())
    }
}

fn as_key(value: Value<'_>) -> Result<Cow<'_, str>, NotYaml> {
    match value {
        Value::String(text) => Ok(text),
        Value::Integer(number) => Ok(number.to_string().into()),
        Value::Bool(value) => Ok(value.to_string().into()),
        Value::Float(number) => Ok(number.to_string().into()),
        Value::Null | Value::List(_) | Value::Map(_) => Err(here("a key must be a word; quote it if it is one")),
    }
}

fn refuse_twins(entries: &[Entry<'_>]) -> Result<(), NotYaml> {
    let mut seen = HashSet::with_capacity(entries.len());
    for entry in entries {
        if !seen.insert(&entry.key) {
            let message = format!("the key `{}` is there twice; remove one of the two", entry.key);
            return Err(NotYaml { line: entry.line, message });
        }
    }
    Ok(())
}

/// A number without a fraction: to JSON, 80.0 is 80.
pub(super) fn whole(number: f64) -> Option<i64> {
    const EXACT: f64 = 9_007_199_254_740_992.0; // 2^53
    (number.fract() == 0.0 && number.abs() <= EXACT).then_some(number as i64)
}

/// An error in the line that is being read.
fn here(message: impl Into<String>) -> NotYaml {
    NotYaml { line: 0, message: message.into() }
}

fn size(node: &Node<'_>) -> usize {
    match &node.value {
        Value::List(items) => items.iter().map(size).sum::<usize>() + 1,
        Value::Map(entries) => entries.iter().map(|entry| size(&entry.node)).sum::<usize>() + 1,
        Value::Null | Value::Bool(_) | Value::Integer(_) | Value::Float(_) | Value::String(_) => 1,
    }
}
