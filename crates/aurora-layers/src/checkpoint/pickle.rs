//! Pickles, parsed and never executed.
//!
//! A pickle is a program for a stack machine. This machine knows the instructions that build plain data, and of the
//! functions a pickle may name only those that PyTorch writes for tensors: they become entries of a table, and nothing
//! is ever called. Any other call is an error that says which. Instructions are those of Python's `pickletools`.
//!
//! Values lie in one flat table, so no depth of nesting is too deep, and what a pickle can repeat at little cost to
//! itself (texts, storages, names) is shared or bounded: memory stays within a few hundred times the pickle's length,
//! and within a few hundred megabytes.

mod machine;

use std::sync::Arc;

/// Why a pickle cannot be read, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("pickle, byte {offset}: {reason}")]
pub struct PickleError {
    /// Byte of the instruction from the start of the pickle.
    pub offset: usize,
    /// What is wrong with it.
    pub reason: String,
    /// Whether the bytes end before the pickle does.
    pub cut: bool,
}

/// A value by its place in [`Pickle::values`]; a value that occurs twice is stored once.
pub type Id = usize;

/// Something a pickle says.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Nothing.
    None,
    /// A truth value.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A whole number of more than 64 bits, little-endian two's complement.
    Long(Vec<u8>),
    /// A real number.
    Float(f64),
    /// A text.
    Text(Arc<str>),
    /// Bytes.
    Bytes(Vec<u8>),
    /// A tuple.
    Tuple(Vec<Id>),
    /// A list.
    List(Vec<Id>),
    /// A dictionary, ordered or not.
    Dict(Vec<(Id, Id)>),
    /// The name of a function or class, "module name".
    Global(String),
    /// A storage of numbers kept outside of the pickle.
    Storage(Arc<Storage>),
    /// A tensor over a storage.
    Tensor(Arc<StridedTensor>),
}

/// A run of numbers kept outside of the pickle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Storage {
    /// Its name.
    pub key: Arc<str>,
    /// The type as PyTorch names it, `FloatStorage`.
    pub kind: String,
    /// Numbers in it.
    pub count: usize,
}

/// A tensor as a window on a storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StridedTensor {
    /// Where its numbers are.
    pub storage: Arc<Storage>,
    /// First number.
    pub offset: usize,
    /// Sizes of the dimensions.
    pub shape: Vec<usize>,
    /// Numbers between neighbors of each dimension.
    pub stride: Vec<usize>,
}

/// A parsed pickle.
#[derive(Debug)]
pub struct Pickle {
    /// Everything it built.
    pub values: Vec<Value>,
    /// What it ends with.
    pub root: Id,
    /// Bytes it took.
    pub length: usize,
}

impl Pickle {
    /// Parses the pickle at the start of `bytes`.
    ///
    /// # Errors
    /// A pickle that is cut, that does what no pickle of tensors does, or that calls something that is no tensor.
    pub fn parse(bytes: &[u8]) -> Result<Self, PickleError> {
        machine::run(bytes)
    }

    /// The value with that id. Ids of a pickle are always in it.
    pub fn value(&self, id: Id) -> &Value {
        self.values.get(id).unwrap_or(&Value::None)
    }

    /// The value of a text key in a dictionary.
    pub fn entry(&self, dict: Id, key: &str) -> Option<Id> {
        let Value::Dict(entries) = self.value(dict) else { return None };
        let is = |id: Id| matches!(self.value(id), Value::Text(text) if **text == *key);
        entries.iter().rev().find(|(k, _)| is(*k)).map(|&(_, value)| value)
    }
}
