//! A deserializer from TOML values whose errors know the key they belong to.
//!
//! `toml` reports positions in one text; a resolved config is made of several (defaults, a file, `--set`), so errors
//! carry the path of the key instead and [`super::Tree`] knows where that key was written.

use std::fmt::{self, Display};

use serde::de::value::{MapAccessDeserializer, StrDeserializer};
use serde::de::{DeserializeOwned, DeserializeSeed, Expected, IntoDeserializer, Unexpected, Visitor};
use serde::forward_to_deserialize_any;
use toml::{Table, Value};

/// What is wrong with a value, and at which key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    /// From the inside out while it is being built, from the outside in when [`from_value`] returns it.
    pub(super) path: Vec<String>,
    pub(super) kind: ProblemKind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ProblemKind {
    /// `key` is not one of `known` below the path.
    UnknownKey { key: String, known: Vec<String> },
    /// The value at the path is of the wrong type, or out of its type's range.
    WrongType { found: String, expected: String },
    /// The name at the path is not one of `known`.
    UnknownName { name: String, known: Vec<String> },
    /// `key` must be given below the path.
    Missing { key: String },
    /// A type's own complaint about the value at the path.
    Other(String),
}

/// Read `value`, which stands at `path`.
pub(super) fn from_value<T: DeserializeOwned>(value: &Value, path: &[&str]) -> Result<T, Problem> {
    T::deserialize(Deserializer(value)).map_err(|mut problem| {
        problem.path.extend(path.iter().rev().map(|&key| key.to_owned()));
        problem.path.reverse();
        problem.descend_to_culprit(value, path.len());
        problem
    })
}

impl Problem {
    fn new(kind: ProblemKind) -> Self {
        Self { path: Vec::new(), kind }
    }

    fn below(mut self, key: impl Into<String>) -> Self {
        self.path.push(key.into());
        self
    }

    /// Serde buffers the fields of a tagged enum, which loses the key of a wrong value. Find it again: it is the only
    /// value of that kind below the enum.
    fn descend_to_culprit(&mut self, root: &Value, root_depth: usize) {
        let ProblemKind::WrongType { found, .. } = &self.kind else { return };
        let mut here = root;
        for key in self.path.iter().skip(root_depth) {
            match here.get(key.as_str()) {
                Some(next) => here = next,
                None => return,
            }
        }
        let Value::Table(table) = here else { return };
        let mut matches = table.iter().filter(|(_, v)| unexpected(v).to_string() == *found);
        if let (Some((key, _)), None) = (matches.next(), matches.next()) {
            self.path.push(key.clone());
        }
    }
}

impl Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} at `{}`", self.kind, self.path.join("."))
    }
}

impl std::error::Error for Problem {}

fn owned(names: &'static [&'static str]) -> Vec<String> {
    names.iter().map(|&n| n.to_owned()).collect()
}

impl serde::de::Error for Problem {
    fn custom<T: Display>(message: T) -> Self {
        Self::new(ProblemKind::Other(message.to_string()))
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new(ProblemKind::WrongType { found: found.to_string(), expected: expected.to_string() })
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::invalid_type(found, expected)
    }

    fn unknown_variant(name: &str, known: &'static [&'static str]) -> Self {
        Self::new(ProblemKind::UnknownName { name: name.to_owned(), known: owned(known) })
    }

    fn unknown_field(key: &str, known: &'static [&'static str]) -> Self {
        Self::new(ProblemKind::UnknownKey { key: key.to_owned(), known: owned(known) })
    }

    fn missing_field(key: &'static str) -> Self {
        Self::new(ProblemKind::Missing { key: key.to_owned() })
    }
}

/// How serde words a value of this kind.
fn unexpected(value: &Value) -> Unexpected<'_> {
    match value {
        Value::String(s) => Unexpected::Str(s),
        Value::Integer(i) => Unexpected::Signed(*i),
        Value::Float(x) => Unexpected::Float(*x),
        Value::Boolean(b) => Unexpected::Bool(*b),
        Value::Datetime(_) => Unexpected::Other("date"),
        Value::Array(_) => Unexpected::Seq,
        Value::Table(_) => Unexpected::Map,
    }
}

struct Deserializer<'a>(&'a Value);

impl<'de> serde::Deserializer<'de> for Deserializer<'_> {
    type Error = Problem;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        match self.0 {
            Value::String(s) => visitor.visit_str(s),
            Value::Integer(i) => visitor.visit_i64(*i),
            Value::Float(x) => visitor.visit_f64(*x),
            Value::Boolean(b) => visitor.visit_bool(*b),
            Value::Datetime(d) => visitor.visit_string(d.to_string()),
            Value::Array(items) => visitor.visit_seq(Items { items: items.iter().enumerate() }),
            Value::Table(table) => visitor.visit_map(Entries::new(table, None)),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Problem> {
        match self.0 {
            Value::Table(table) => visitor.visit_map(Entries::new(table, Some(fields))),
            // An array would be taken as a list of the fields' values.
            other => Err(serde::de::Error::invalid_type(unexpected(other), &visitor)),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _name: &'static str, visitor: V) -> Result<V::Value, Problem> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Problem> {
        match self.0 {
            Value::String(name) => {
                let name: StrDeserializer<'_, Problem> = name.as_str().into_deserializer();
                visitor.visit_enum(name)
            }
            Value::Table(table) if table.len() == 1 => {
                visitor.visit_enum(MapAccessDeserializer::new(Entries::new(table, None)))
            }
            other => Err(serde::de::Error::invalid_type(unexpected(other), &"a name")),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        seq tuple tuple_struct map identifier ignored_any
    }
}

struct Items<'a> {
    items: std::iter::Enumerate<std::slice::Iter<'a, Value>>,
}

impl<'de> serde::de::SeqAccess<'de> for Items<'_> {
    type Error = Problem;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Problem> {
        let Some((index, value)) = self.items.next() else { return Ok(None) };
        seed.deserialize(Deserializer(value)).map(Some).map_err(|p| p.below(index.to_string()))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len())
    }
}

struct Entries<'a> {
    entries: toml::map::Iter<'a, String, Value>,
    current: Option<(&'a str, &'a Value)>,
    /// The fields of the struct that is read: other keys are refused whether or not the type asks for it.
    fields: Option<&'static [&'static str]>,
}

impl<'a> Entries<'a> {
    fn new(table: &'a Table, fields: Option<&'static [&'static str]>) -> Self {
        Self { entries: table.iter(), current: None, fields }
    }
}

impl<'de> serde::de::MapAccess<'de> for Entries<'_> {
    type Error = Problem;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Problem> {
        let Some((key, value)) = self.entries.next() else { return Ok(None) };
        if let Some(fields) = self.fields.filter(|fields| !fields.contains(&key.as_str())) {
            return Err(serde::de::Error::unknown_field(key, fields));
        }
        self.current = Some((key, value));
        let key: StrDeserializer<'_, Problem> = key.as_str().into_deserializer();
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Problem> {
        let Some((key, value)) = self.current.take() else {
            return Err(serde::de::Error::custom("a value was asked for before its key"));
        };
        seed.deserialize(Deserializer(value)).map_err(|p| p.below(key))
    }
}
