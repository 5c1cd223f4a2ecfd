//! PyTorch's `.pth`: a pickle that describes tensors, and their numbers beside it.
//!
//! Two containers: since PyTorch 1.6 a zip archive whose members are stored as they are, before that pickles one after
//! another with the storages behind them. Both are mapped into memory; a tensor's numbers are copied once, when it is
//! read, and a tensor that is stored in another order than its own is put in order then.

use std::collections::{BTreeMap, HashMap};
use std::io::Cursor;
use std::ops::Range;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};

use super::pickle::{Id, Pickle, PickleError, Storage, StridedTensor, Value};
use crate::{Error, Result};

/// `0x1950a86a20f9469cfc6c`, which a file of the old kind begins with, as a pickle holds it.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];

/// Keys under which training scripts keep the weights beside other things.
const WEIGHTS: &[&str] = &["model", "state_dict", "model_state_dict"];

/// A `.pth` file: which tensors it has and where their numbers are.
#[derive(Debug)]
pub struct Pth {
    path: PathBuf,
    map: memmap2::Mmap,
    tensors: BTreeMap<String, StridedTensor>,
    storages: HashMap<String, Range<usize>>, // bytes of the map
    /// Entries beside the weights: optimiser state, epoch, entries that are no tensor.
    pub ignored: Vec<String>,
}

impl Pth {
    /// Whether a file that begins with these bytes is of this kind.
    pub fn recognises(start: &[u8]) -> bool {
        start.starts_with(b"PK\x03\x04")
            || (start.first() == Some(&0x80) && start.get(1).is_some_and(|v| (2..=5).contains(v)))
    }

    /// Maps a file and reads its description.
    ///
    /// # Errors
    /// A file that is cut, no archive of PyTorch's, or whose pickle calls something that is no tensor.
    pub fn open(path: &Path) -> Result<Self> {
        let failed = |source| Error::File { action: "read", path: path.into(), source };
        let map = aurora_kernels::memory::map_file(path).map_err(failed)?;
        let (pickle, storages) = if map.starts_with(b"PK\x03\x04") {
            zip(&map).map_err(|reason| wrong(path, reason))?
        } else {
            legacy(&map).map_err(|reason| wrong(path, reason))?
        };
        let (tensors, ignored) = state_dict(&pickle).map_err(|reason| wrong(path, reason))?;
        let pth = Self { path: path.into(), map, tensors, storages, ignored };
        for (name, tensor) in &pth.tensors {
            pth.window(name, tensor)?;
        }
        Ok(pth)
    }

    /// Names and shapes.
    pub fn shapes(&self) -> impl Iterator<Item = (&str, &[usize])> {
        self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor.shape.as_slice()))
    }

    /// A tensor in the type it is stored in, its numbers in order.
    ///
    /// # Errors
    /// A name that is not there, a type that no weight has.
    pub fn tensor(&self, name: &str, device: &Device) -> Result<Tensor> {
        let Some(tensor) = self.tensors.get(name) else {
            return Err(wrong(&self.path, format!("there is no tensor {name}")));
        };
        let (dtype, size, bytes) = self.window(name, tensor)?;
        let (shape, stride) = (&tensor.shape, &tensor.stride);
        let count: usize = shape.iter().product();
        if in_order(shape, stride) {
            let start = tensor.offset * size;
            return Ok(Tensor::from_raw_buffer(
                &bytes[start..start + count * size],
                dtype,
                shape,
                device,
            )?);
        }
        let mut ordered = Vec::with_capacity(count * size);
        let mut place = vec![0usize; shape.len()];
        for _ in 0..count {
            let at = tensor.offset + place.iter().zip(stride).map(|(p, s)| p * s).sum::<usize>();
            ordered.extend_from_slice(&bytes[at * size..(at + 1) * size]);
            for axis in (0..shape.len()).rev() {
                place[axis] += 1;
                if place[axis] < shape[axis] {
                    break;
                }
                place[axis] = 0;
            }
        }
        Ok(Tensor::from_raw_buffer(&ordered, dtype, shape, device)?)
    }

    /// Type, bytes of a number and bytes of the storage of a tensor, all of whose numbers are in it.
    fn window(&self, name: &str, tensor: &StridedTensor) -> Result<(DType, usize, &[u8])> {
        let wrong = |reason: String| wrong(&self.path, format!("{name}: {reason}"));
        let StridedTensor { storage, offset, shape, stride } = tensor;
        let (dtype, size) = match storage.kind.as_str() {
            "FloatStorage" => (DType::F32, 4),
            "HalfStorage" => (DType::F16, 2),
            "BFloat16Storage" => (DType::BF16, 2),
            "DoubleStorage" => (DType::F64, 8),
            "LongStorage" => (DType::I64, 8),
            "IntStorage" => (DType::I32, 4),
            "ByteStorage" | "BoolStorage" => (DType::U8, 1),
            other => return Err(wrong(format!("is kept as {other}, a type that no weight has"))),
        };
        let bytes = self.storages.get(&storage.key).and_then(|range| self.map.get(range.clone()));
        let Some(bytes) = bytes else {
            return Err(wrong(format!(
                "its numbers (storage {}) are not in the file",
                storage.key
            )));
        };
        let last = shape.iter().zip(stride).try_fold(*offset, |last, (&length, &stride)| {
            last.checked_add(length.checked_sub(1)?.checked_mul(stride)?)
        });
        let empty = shape.contains(&0);
        let whole = last.is_some_and(|last| last < bytes.len() / size);
        let count = shape.iter().try_fold(1usize, |count, &length| count.checked_mul(length));
        // Overlapping strides would let a short file ask for any amount of memory.
        let honest = count.is_some_and(|count| count <= bytes.len() / size);
        if !honest || (!empty && !whole) {
            return Err(wrong(format!(
                "{shape:?} with strides {stride:?} from {offset} does not lie in the {} numbers of storage {}",
                bytes.len() / size,
                storage.key
            )));
        }
        if storage.count > bytes.len() / size {
            return Err(wrong(format!(
                "storage {} should have {} numbers and has {}; the file is cut, fetch or write it again",
                storage.key,
                storage.count,
                bytes.len() / size
            )));
        }
        Ok((dtype, size, bytes))
    }
}

fn wrong(path: &Path, reason: impl Into<String>) -> Error {
    Error::Format { path: path.into(), reason: reason.into() }
}

/// Whether rows follow each other without gaps. Dimensions of one do not count.
fn in_order(shape: &[usize], stride: &[usize]) -> bool {
    let mut expected = 1;
    for (&length, &stride) in shape.iter().zip(stride).rev() {
        if length != 1 && stride != expected {
            return false;
        }
        expected *= length;
    }
    true
}

type Container = (Pickle, HashMap<String, Range<usize>>);

fn zip(bytes: &[u8]) -> std::result::Result<Container, String> {
    let broken = |error: zip::result::ZipError| {
        format!("not a whole zip archive ({error}); the file is cut, fetch or write it again")
    };
    let mut archive = zip::ZipArchive::new(Cursor::new(bytes)).map_err(broken)?;
    let mut members: HashMap<String, Range<usize>> = HashMap::new();
    for index in 0..archive.len() {
        let member = archive.by_index_raw(index).map_err(broken)?;
        let name = member.name().map_err(broken)?.into_owned();
        if member.compression() != zip::CompressionMethod::Stored {
            return Err(format!(
                "member {name} is compressed; torch.save stores members as they are"
            ));
        }
        let start = member.data_start().and_then(|start| usize::try_from(start).ok());
        let range = start.zip(usize::try_from(member.size()).ok()).and_then(|(start, size)| {
            let end = start.checked_add(size).filter(|&end| end <= bytes.len())?;
            Some(start..end)
        });
        let range = range
            .ok_or_else(|| format!("member {name} reaches past the end of the file; it is cut"))?;
        members.insert(name, range);
    }
    // Members lie in a folder named after the file at the time it was written.
    let described = members.keys().find(|name| *name == "data.pkl" || name.ends_with("/data.pkl"));
    let Some(described) = described.cloned() else {
        return Err("a zip archive without data.pkl, so not one of torch.save".to_owned());
    };
    let folder = described.trim_end_matches("data.pkl");
    if let Some(order) = members.get(&format!("{folder}byteorder"))
        && bytes.get(order.clone()).is_some_and(|order| order != b"little")
    {
        return Err("written on a big-endian machine; load and save it again on another".to_owned());
    }
    let pickle = members.get(&described).and_then(|range| bytes.get(range.clone()));
    let pickle = Pickle::parse(pickle.unwrap_or_default())
        .map_err(|error| format!("{described}: {error}"))?;
    let data = format!("{folder}data/");
    let storages = members
        .into_iter()
        .filter_map(|(name, range)| Some((name.strip_prefix(&data)?.to_owned(), range)))
        .collect();
    Ok((pickle, storages))
}

fn legacy(bytes: &[u8]) -> std::result::Result<Container, String> {
    let mut at = 0;
    let mut next = |what: &str| -> std::result::Result<(Pickle, usize), String> {
        let rest = bytes.get(at..).unwrap_or_default();
        let pickle = Pickle::parse(rest).map_err(|PickleError { offset, reason }| {
            format!("{what}, byte {}: {reason}", at + offset)
        })?;
        at += pickle.length;
        Ok((pickle, at))
    };
    let (magic, _) = next("the first pickle")?;
    if *magic.value(magic.root) != Value::Long(MAGIC.to_vec()) {
        return Err("a pickle, but not one of torch.save".to_owned());
    }
    next("the protocol version")?;
    let (system, _) = next("the system's description")?;
    if let Some(little) = system.entry(system.root, "little_endian")
        && *system.value(little) == Value::Bool(false)
    {
        return Err("written on a big-endian machine; load and save it again on another".to_owned());
    }
    let (pickle, _) = next("the description of the tensors")?;
    let (keys, mut end) = next("the list of storages")?;
    let size: HashMap<&str, usize> = pickle.values.iter().filter_map(storage_size).collect();
    let Value::List(ids) = keys.value(keys.root) else {
        return Err("the list of storages is no list".to_owned());
    };
    let mut storages = HashMap::new();
    for &id in ids {
        let Value::Text(key) = keys.value(id) else {
            return Err("the list of storages names one by something that is no text".to_owned());
        };
        let cut = || {
            format!(
                "storage {key} reaches past the end of the file; it is cut, fetch or write it again"
            )
        };
        let head = bytes.get(end..).and_then(|rest| rest.first_chunk::<8>()).ok_or_else(cut)?;
        let count = usize::try_from(i64::from_le_bytes(*head)).map_err(|_| cut())?;
        let size = size.get(key.as_str()).copied().unwrap_or(1);
        let start = end + 8;
        end = count.checked_mul(size).and_then(|n| n.checked_add(start)).ok_or_else(cut)?;
        if end > bytes.len() {
            return Err(cut());
        }
        storages.insert(key.clone(), start..end);
    }
    drop(size);
    Ok((pickle, storages))
}

/// Key and bytes per number of a storage.
fn storage_size(value: &Value) -> Option<(&str, usize)> {
    let Value::Storage(Storage { key, kind, .. }) = value else { return None };
    let size = match kind.as_str() {
        "DoubleStorage" | "LongStorage" => 8,
        "FloatStorage" | "IntStorage" => 4,
        "HalfStorage" | "BFloat16Storage" | "ShortStorage" => 2,
        _ => 1,
    };
    Some((key, size))
}

type StateDict = (BTreeMap<String, StridedTensor>, Vec<String>);

/// The tensors of the root, or of its entry that holds the weights, by name.
fn state_dict(pickle: &Pickle) -> std::result::Result<StateDict, String> {
    let mut ignored = Vec::new();
    let mut root = pickle.root;
    if let Some((key, inner)) =
        WEIGHTS.iter().find_map(|key| Some((*key, pickle.entry(root, key)?)))
        && matches!(pickle.value(inner), Value::Dict(_))
    {
        ignored.extend(names(pickle, root).filter(|(name, _)| name != key).map(|(name, _)| name));
        root = inner;
    }
    let Value::Dict(_) = pickle.value(root) else {
        return Err("does not hold a dictionary of tensors; save a state dict".to_owned());
    };
    let mut tensors = BTreeMap::new();
    for (name, id) in names(pickle, root) {
        match pickle.value(id) {
            Value::Tensor(tensor) => drop(tensors.insert(name, tensor.clone())),
            _ => ignored.push(name),
        }
    }
    if tensors.is_empty() {
        return Err(
            "no tensor in its dictionary; save a state dict, or {\"model\": state dict}".to_owned()
        );
    }
    Ok((tensors, ignored))
}

fn names(pickle: &Pickle, dict: Id) -> impl Iterator<Item = (String, Id)> {
    let entries = match pickle.value(dict) {
        Value::Dict(entries) => entries.as_slice(),
        _ => &[],
    };
    entries.iter().filter_map(|&(key, value)| match pickle.value(key) {
        Value::Text(name) => Some((name.clone(), value)),
        _ => None,
    })
}
