//! Tables of tensors: listed, and summed by part.

use std::collections::BTreeMap;

use aurora_layers::checkpoint::Checkpoint;
use aurora_layers::{Blip, BlipConfig};
use candle_core::DType;

use crate::output::{self, Table};

/// Name, shape, type and size of a stored tensor.
pub struct TensorEntry {
    /// Original name.
    pub name: String,
    shape: Vec<usize>,
    dtype: String,
    bytes: u64,
}

impl TensorEntry {
    fn new(name: &str, shape: &[usize], dtype: Option<DType>) -> Self {
        let values: usize = shape.iter().product();
        Self {
            name: name.to_owned(),
            shape: shape.to_vec(),
            dtype: dtype.map_or("other".to_owned(), |dtype| format!("{dtype:?}").to_lowercase()),
            bytes: (values * dtype.map_or(0, |dtype| dtype.size_in_bytes())) as u64,
        }
    }

    /// Tensors of a checkpoint, by name.
    pub fn of_checkpoint(checkpoint: &Checkpoint) -> Vec<Self> {
        let tensor = |name| {
            let (shape, dtype) = checkpoint.tensor_info(name)?;
            Some(Self::new(name, shape, dtype))
        };
        checkpoint.names().filter_map(tensor).collect()
    }

    /// Tensors of a model of these sizes, as f32.
    pub fn of_config(config: &BlipConfig) -> Vec<Self> {
        let wanted = Blip::param_shapes(config).into_iter();
        wanted.map(|(name, shape)| Self::new(&name, shape.dims(), Some(DType::F32))).collect()
    }

    /// Number of values.
    pub fn values(&self) -> u64 {
        self.shape.iter().map(|size| *size as u64).product()
    }
}

/// Subtotal of the tensors under one heading.
#[derive(Default)]
struct Subtotal {
    tensors: u64,
    values: u64,
    bytes: u64,
    dtypes: Vec<String>,
}

impl Subtotal {
    fn add(&mut self, tensor: &TensorEntry) {
        self.tensors += 1;
        self.values += tensor.values();
        self.bytes += tensor.bytes;
        if !self.dtypes.contains(&tensor.dtype) {
            self.dtypes.push(tensor.dtype.clone());
        }
    }

    fn cells(&self, name: &str, whole: u64) -> [String; 6] {
        [
            name.to_owned(),
            self.tensors.to_string(),
            output::count(self.values),
            output::share(self.values, whole),
            self.dtypes.join(" "),
            output::bytes(self.bytes),
        ]
    }
}

/// Table of subtotals in key order, each with its share of the total, which comes last.
pub fn part_table<'a, K: Ord>(
    list: impl IntoIterator<Item = &'a TensorEntry>,
    key: impl Fn(&TensorEntry) -> K,
    name: impl Fn(&K) -> &str,
) -> Table {
    let mut groups: BTreeMap<K, Subtotal> = BTreeMap::new();
    let mut total = Subtotal::default();
    for tensor in list {
        groups.entry(key(tensor)).or_default().add(tensor);
        total.add(tensor);
    }
    let mut table = Table::new(["part", "tensors", "parameters", "share", "type", "size"]);
    for (key, group) in &groups {
        table.row(group.cells(name(key), total.values));
    }
    table.row(total.cells("total", total.values));
    table
}

/// Table of every tensor.
pub fn tensor_table(list: &[TensorEntry]) -> Table {
    let mut table = Table::new(["tensor", "shape", "type", "parameters"]);
    for tensor in list {
        let shape = format!("{:?}", tensor.shape);
        let values = output::count(tensor.values());
        table.row([tensor.name.clone(), shape, tensor.dtype.clone(), values]);
    }
    table
}
