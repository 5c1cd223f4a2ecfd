//! Pickle parser for tensors; it never executes anything.
//!
//! A pickle is a program for a stack machine. This machine knows the opcodes that build plain data, and of the
//! functions a pickle may name only those that PyTorch writes for tensors: they become entries of a table and are never
//! called. Any other call is an error that names it. Opcodes are those of Python's `pickletools`.
//!
//! Values lie in one flat table, so nesting has no depth limit. Anything a pickle can repeat cheaply (texts, storages,
//! names) is shared or bounded: memory stays within a few hundred times the pickle's length, and within a few hundred
//! megabytes.

mod machine;

use std::sync::Arc;

/// Error of a pickle that cannot be read, with its position.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("pickle, byte {offset}: {reason}")]
pub struct PickleError {
    /// Offset of the instruction from the start of the pickle, in bytes.
    pub offset: usize,
    /// Reason.
    pub reason: String,
    /// True if the bytes end before the pickle does.
    pub cut: bool,
}

/// Index of a value in [`Pickle::values`]; a value that occurs twice is stored once.
pub type Id = usize;

/// Value of a pickle.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `None`.
    None,
    /// Boolean.
    Bool(bool),
    /// Integer.
    Int(i64),
    /// Integer of more than 64 bits, little-endian two's complement.
    Long(Vec<u8>),
    /// Floating-point number.
    Float(f64),
    /// String.
    Text(Arc<str>),
    /// Bytes.
    Bytes(Vec<u8>),
    /// Tuple.
    Tuple(Vec<Id>),
    /// List.
    List(Vec<Id>),
    /// Dictionary, ordered or not.
    Dict(Vec<(Id, Id)>),
    /// Name of a function or class, "module name".
    Global(String),
    /// Storage outside of the pickle.
    Storage(Arc<Storage>),
    /// Tensor over a storage.
    Tensor(Arc<StridedTensor>),
}

/// Storage: a run of numbers outside of the pickle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Storage {
    /// Key that names it.
    pub key: Arc<str>,
    /// Type name of PyTorch, such as `FloatStorage`.
    pub kind: String,
    /// Count of numbers.
    pub count: usize,
}

/// Strided tensor: a view of a storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StridedTensor {
    /// Storage of its numbers.
    pub storage: Arc<Storage>,
    /// Index of the first number.
    pub offset: usize,
    /// Shape.
    pub shape: Vec<usize>,
    /// Strides, in numbers.
    pub stride: Vec<usize>,
}

/// Parsed pickle.
#[derive(Debug)]
pub struct Pickle {
    /// All values it built.
    pub values: Vec<Value>,
    /// Value it returns.
    pub root: Id,
    /// Length in bytes.
    pub length: usize,
}

impl Pickle {
    /// Parses the pickle at the start of `bytes`.
    ///
    /// # Errors
    /// A pickle that is truncated, uses an opcode that pickles of tensors do not need, or calls something that is no
    /// tensor.
    pub fn parse(bytes: &[u8]) -> Result<Self, PickleError> {
        machine::run(bytes)
    }

    /// Value with this id. Ids of a pickle are always in it.
    pub fn value(&self, id: Id) -> &Value {
        self.values.get(id).unwrap_or(&Value::None)
    }

    /// Value of a string key in a dictionary.
    pub fn entry(&self, dict: Id, key: &str) -> Option<Id> {
        let Value::Dict(entries) = self.value(dict) else { return None };
        let is = |id: Id| matches!(self.value(id), Value::Text(text) if **text == *key);
        entries.iter().rev().find(|(k, _)| is(*k)).map(|&(_, value)| value)
    }
}
