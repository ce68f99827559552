//! Pickles of PyTorch checkpoints, read without running anything.
//!
//! A pickle is a program for a stack machine, and Python's own reader lets it call any function. This one builds a
//! picture of what the program describes: numbers, texts, lists, dictionaries, tensors. The few functions that
//! checkpoints call are known by name and stand for a value here; any other is refused by name.

mod machine;
mod source;

use std::collections::BTreeMap;

pub(crate) use machine::read;
pub(crate) use source::Source;

use crate::storage::ElementType;

/// The place of a node in a [`Pickle`].
pub(crate) type Id = usize;

/// What a pickle describes: nodes that name one another by number, so that a pickle which contains itself, or is nested
/// a million levels deep, costs no more than its bytes.
#[derive(Debug)]
pub(crate) struct Pickle {
    nodes: Vec<Node>,
    root: Id,
}

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Node {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    Bytes(Vec<u8>),
    List(Vec<Id>),
    Tuple(Vec<Id>),
    /// A dictionary, or an object by its attributes, in order.
    Dict(Vec<(Id, Id)>),
    /// A class or function by its full name.
    Global(String),
    Storage(StorageRef),
    Tensor(TensorRef),
    /// Something that checkpoints hold and nobody here needs.
    Other,
}

/// Where the numbers of tensors lie.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct StorageRef {
    pub(crate) key: String,
    /// The element type's class, such as `FloatStorage`.
    pub(crate) class: String,
    /// Number of elements that the pickle announces.
    pub(crate) elements: u64,
}

impl StorageRef {
    /// The type of its elements, where it is a known one.
    pub(crate) fn element_type(&self) -> Option<ElementType> {
        ElementType::of_storage_class(&self.class)
    }
}

/// A view on a storage.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TensorRef {
    pub(crate) storage: StorageRef,
    /// First element.
    pub(crate) offset: u64,
    pub(crate) shape: Vec<u64>,
    /// Elements from one index to the next, for each dimension.
    pub(crate) strides: Vec<u64>,
}

impl Pickle {
    pub(crate) fn root(&self) -> Id {
        self.root
    }

    pub(crate) fn node(&self, id: Id) -> &Node {
        self.nodes.get(id).unwrap_or(&Node::None)
    }

    pub(crate) fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter()
    }

    /// The entries of a dictionary whose keys are texts, in order.
    pub(crate) fn entries(&self, id: Id) -> Vec<(&str, Id)> {
        let Node::Dict(entries) = self.node(id) else { return Vec::new() };
        let text = |(key, value): &(Id, Id)| match self.node(*key) {
            Node::Text(key) => Some((key.as_str(), *value)),
            _ => None,
        };
        entries.iter().filter_map(text).collect()
    }

    /// The value of a key. The last one counts, as in Python.
    pub(crate) fn get(&self, id: Id, key: &str) -> Option<Id> {
        self.entries(id).into_iter().rev().find(|(k, _)| *k == key).map(|(_, value)| value)
    }

    /// The entries of a dictionary whose keys are whole numbers.
    pub(crate) fn numbered(&self, id: Id) -> BTreeMap<i64, Id> {
        let Node::Dict(entries) = self.node(id) else { return BTreeMap::new() };
        let numbered = |(key, value): &(Id, Id)| match self.node(*key) {
            Node::Int(key) => Some((*key, *value)),
            _ => None,
        };
        entries.iter().filter_map(numbered).collect()
    }

    /// The members of a list or tuple.
    pub(crate) fn members(&self, id: Id) -> &[Id] {
        match self.node(id) {
            Node::List(members) | Node::Tuple(members) => members,
            _ => &[],
        }
    }

    /// Numbers, texts, lists and dictionaries as JSON; what is none of these is left out. Nothing is followed deeper
    /// than a few levels, and no more than [`MOST_VALUES`] values are made: a pickle may name one node many times.
    pub(crate) fn to_json(&self, id: Id) -> serde_json::Value {
        self.json(id, 6, &mut 0).unwrap_or_default()
    }

    fn json(&self, id: Id, depth: usize, made: &mut usize) -> Option<serde_json::Value> {
        use serde_json::Value;
        *made += 1;
        if *made > MOST_VALUES {
            return None;
        }
        Some(match self.node(id) {
            Node::None => Value::Null,
            Node::Bool(value) => Value::from(*value),
            Node::Int(value) => Value::from(*value),
            Node::Float(value) => Value::from(*value),
            Node::Text(text) => Value::from(text.as_str()),
            Node::List(members) | Node::Tuple(members) if depth > 0 => {
                members.iter().filter_map(|m| self.json(*m, depth - 1, made)).collect()
            }
            Node::Dict(_) if depth > 0 => {
                let entries = self.entries(id).into_iter();
                entries.filter_map(|(k, v)| Some((k.to_owned(), self.json(v, depth - 1, made)?))).collect()
            }
            _ => return None,
        })
    }
}

/// The most values that [`Pickle::to_json`] makes.
const MOST_VALUES: usize = 10_000;
