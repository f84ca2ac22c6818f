//! From a YAML tree to API types, keeping the place of every mistake: the path and line of what has the wrong type,
//! and of every field that the type does not have.

use std::cell::RefCell;
use std::fmt::{self, Display};

use serde::de::value::StrDeserializer;
use serde::de::{self, Deserialize, DeserializeSeed, Expected, IntoDeserializer, Unexpected, Visitor};
use serde::forward_to_deserialize_any;

use super::yaml::{self, Entry, Node, Value};

/// A field that the type does not have.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unknown {
    pub(super) path: String,
    pub(super) line: usize,
    /// A field that the type has, of similar name.
    pub(super) similar: Option<&'static str>,
}

/// What does not fit the type, and where.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Misfit {
    pub(super) path: String,
    /// From 1; 0 = not known.
    pub(super) line: usize,
    pub(super) message: String,
}

/// Reads a tree as a `T`, and tells which fields were not understood.
pub(super) fn read<T: for<'de> Deserialize<'de>>(node: &Node<'_>) -> (Result<T, Misfit>, Vec<Unknown>) {
    let unknown = RefCell::default();
    let cursor = Cursor { node, line: node.line, path: &Path::Root, siblings: &[], unknown: &unknown };
    let result = T::deserialize(cursor).map_err(|misfit| misfit.at(node.line, &Path::Root));
    (result, unknown.into_inner())
}

/// The known name that is similar to a mistyped one.
pub(super) fn similar<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let distance = |known: &&str| strsim::damerau_levenshtein(&name.to_lowercase(), &known.to_lowercase());
    let most = 1 + name.len() / 4;
    known.into_iter().filter(|known| distance(known) <= most).min_by_key(distance)
}

enum Path<'a> {
    Root,
    Key(&'a Path<'a>, &'a str),
    Item(&'a Path<'a>, usize),
}

impl Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Key(Self::Root, key) => f.write_str(key),
            Self::Key(parent, key) => write!(f, "{parent}.{key}"),
            Self::Item(parent, i) => write!(f, "{parent}[{i}]"),
        }
    }
}

#[derive(Clone, Copy)]
struct Cursor<'c> {
    node: &'c Node<'c>,
    /// The line of its key, or its own.
    line: usize,
    path: &'c Path<'c>,
    siblings: &'static [&'static str],
    unknown: &'c RefCell<Vec<Unknown>>,
}

impl Cursor<'_> {
    fn unexpected(&self) -> Unexpected<'_> {
        match &self.node.value {
            Value::Null => Unexpected::Unit,
            Value::Bool(value) => Unexpected::Bool(*value),
            Value::Integer(value) => Unexpected::Signed(*value),
            Value::Float(value) => Unexpected::Float(*value),
            Value::String(text) => Unexpected::Str(text),
            Value::List(_) => Unexpected::Seq,
            Value::Map(_) => Unexpected::Map,
        }
    }

    fn map<'de, V: Visitor<'de>>(self, fields: &'static [&'static str], visitor: V) -> Result<V::Value, Misfit> {
        let Value::Map(entries) = &self.node.value else {
            return Err(de::Error::invalid_type(self.unexpected(), &visitor));
        };
        visitor.visit_map(Entries { entries: entries.iter(), value: None, fields, of: self })
    }
}

impl<'de> de::Deserializer<'de> for Cursor<'_> {
    type Error = Misfit;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        match &self.node.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Integer(value) => visitor.visit_i64(*value),
            Value::Float(value) => match yaml::whole(*value) {
                Some(whole) => visitor.visit_i64(whole),
                None => visitor.visit_f64(*value),
            },
            Value::String(text) => visitor.visit_str(text),
            Value::List(items) => visitor.visit_seq(Items { items: items.iter().enumerate(), of: self }),
            Value::Map(_) => self.map(&[], visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        if self.node.value == Value::Null { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Misfit> {
        self.map(fields, visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _name: &'static str, visitor: V) -> Result<V::Value, Misfit> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Misfit> {
        let Value::String(text) = &self.node.value else {
            return Err(de::Error::unknown_variant(&scalar(self.node), variants));
        };
        let text: StrDeserializer<'_, Misfit> = text.as_ref().into_deserializer();
        visitor.visit_enum(text)
    }

    /// The type has no such field: every visitor asks for the value of one that it does not know in this way.
    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        let at_root = matches!(self.path, Path::Key(Path::Root, "apiVersion" | "kind"));
        if let (Path::Key(_, name), false) = (self.path, at_root) {
            let similar = similar(name, self.siblings.iter().copied());
            let unknown = Unknown { path: self.path.to_string(), line: self.line, similar };
            self.unknown.borrow_mut().push(unknown);
        }
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq
        tuple tuple_struct map identifier
    }
}

struct Entries<'c> {
    entries: std::slice::Iter<'c, Entry<'c>>,
    value: Option<&'c Entry<'c>>,
    fields: &'static [&'static str],
    of: Cursor<'c>,
}

impl<'de> de::MapAccess<'de> for Entries<'_> {
    type Error = Misfit;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Misfit> {
        // A field that is null counts as absent, as it does for a server.
        let absent = |entry: &&Entry<'_>| entry.node.value == Value::Null && self.fields.contains(&&*entry.key);
        self.value = self.entries.by_ref().find(|entry| !absent(entry));
        let Some(entry) = self.value else { return Ok(None) };
        let key: StrDeserializer<'_, Misfit> = entry.key.as_ref().into_deserializer();
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Misfit> {
        let Some(entry) = self.value.take() else { return Err(de::Error::custom("a value without a key")) };
        let path = Path::Key(self.of.path, &entry.key);
        let cursor = Cursor {
            node: &entry.node,
            line: entry.line,
            path: &path,
            siblings: self.fields,
            unknown: self.of.unknown,
        };
        seed.deserialize(cursor).map_err(|misfit| misfit.at(entry.line, &path))
    }
}

struct Items<'c> {
    items: std::iter::Enumerate<std::slice::Iter<'c, Node<'c>>>,
    of: Cursor<'c>,
}

impl<'de> de::SeqAccess<'de> for Items<'_> {
    type Error = Misfit;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Misfit> {
        let Some((i, node)) = self.items.next() else { return Ok(None) };
        let path = Path::Item(self.of.path, i);
        let cursor = Cursor { node, line: node.line, path: &path, siblings: &[], unknown: self.of.unknown };
        seed.deserialize(cursor).map(Some).map_err(|misfit| misfit.at(node.line, &path))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len())
    }
}

fn scalar(node: &Node<'_>) -> String {
    match &node.value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Integer(value) => value.to_string(),
        Value::Float(value) => value.to_string(),
        Value::String(text) => text.to_string(),
        Value::List(_) => "[...]".to_owned(),
        Value::Map(_) => "{...}".to_owned(),
    }
}

impl Misfit {
    /// Sets the place, unless it was set further in.
    fn at(mut self, line: usize, path: &Path<'_>) -> Self {
        if self.line == 0 {
            self.line = line;
            self.path = path.to_string();
        }
        self
    }
}

impl std::error::Error for Misfit {}

impl Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl de::Error for Misfit {
    fn custom<T: Display>(message: T) -> Self {
        Self { path: String::new(), line: 0, message: message.to_string() }
    }

    fn invalid_type(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let expected = for_people(&expected.to_string());
        let cure = match (unexpected, expected.as_str()) {
            (Unexpected::Signed(_) | Unexpected::Float(_) | Unexpected::Bool(_), "a string") => "; put it in quotes",
            (Unexpected::Str(text), "a whole number") if text.parse::<i64>().is_ok() => "; leave out the quotes",
            _ => "",
        };
        let is = if unexpected == Unexpected::Unit {
            "nothing".to_owned()
        } else if unexpected == Unexpected::Map {
            "an object".to_owned()
        } else if unexpected == Unexpected::Seq {
            "a list".to_owned()
        } else {
            format!("the {unexpected}")
        };
        Self::custom(format!("this is {is}, but must be {expected}{cure}"))
    }

    fn invalid_value(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::custom(format!("this is the {unexpected}, but must be {}", for_people(&expected.to_string())))
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        let hint = similar(variant, expected.iter().copied());
        let hint = hint.map(|known| format!("did you mean `{known}`? ")).unwrap_or_default();
        Self::custom(format!("`{variant}` is no value of this field; {hint}write one of {}", expected.join(", ")))
    }

    fn missing_field(field: &'static str) -> Self {
        Self::custom(format!("the field `{field}` is missing; add it"))
    }
}

fn for_people(expected: &str) -> String {
    match expected {
        "i8" | "i16" | "i32" | "i64" | "u8" | "u16" | "u32" | "u64" => "a whole number".to_owned(),
        "a sequence" => "a list".to_owned(),
        "a map" => "an object".to_owned(),
        _ if expected.starts_with("struct ") => "an object with fields".to_owned(),
        _ => expected.to_owned(),
    }
}
