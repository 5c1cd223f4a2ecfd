//! PyTorch's `.pth`: a pickle that describes tensors, and their storages beside it.
//!
//! Two containers: since PyTorch 1.6 a zip archive of uncompressed members, before that pickles one after another with
//! the storages behind them. Opening a file reads the description only. A tensor is read on request, and made
//! contiguous then.

use std::collections::{BTreeMap, HashMap};
use std::io::BufReader;
use std::ops::Range;
use std::path::Path;

use candle_core::{DType, Device, Tensor};

use super::byte_source::{ByteSource, TensorView};
use super::pickle::{Id, Pickle, PickleError, StridedTensor, Value};
use crate::Result;

/// Magic bytes of a zip archive.
const ZIP: &[u8] = b"PK\x03\x04";

/// Magic number of the legacy container, `0x1950a86a20f9469cfc6c`, as a pickle holds it.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];

/// Keys under which training scripts store the weights.
const WEIGHTS: &[&str] = &["model", "state_dict", "model_state_dict"];

/// Maximum length of the description of the tensors, in bytes; a thousand tensors take a quarter of a million.
const LONGEST_DESCRIPTION: u64 = 1 << 26;

/// Bytes of a legacy file that are read first, in case its description ends within them.
const FIRST_LOOK: u64 = 1 << 20;

/// Maximum length of a tensor's name, in bytes. The pickle's memo could otherwise repeat a long one at no cost to the
/// file.
const LONGEST_NAME: usize = 256;

const BIG_ENDIAN: &str = "written on a big-endian machine; load and save it again on another";

/// `.pth` file: its tensors and where their numbers are.
#[derive(Debug)]
pub struct Pth {
    source: ByteSource,
    tensors: BTreeMap<String, StridedTensor>,
    storages: Storages,
    /// Entries beside the weights: optimizer state, epoch, entries that are no tensor.
    pub ignored: Vec<String>,
}

/// Byte range of each storage in the file.
type Storages = HashMap<String, Range<u64>>;

impl Pth {
    /// True if a file that begins with these bytes is a `.pth`.
    pub fn recognizes(start: &[u8]) -> bool {
        start.starts_with(ZIP)
            || (start.first() == Some(&0x80) && start.get(1).is_some_and(|v| (2..=5).contains(v)))
    }

    /// Opens a file and reads its description.
    ///
    /// # Errors
    /// A file that is truncated, no archive of PyTorch's, or whose pickle calls something that is no tensor.
    pub fn open(path: &Path) -> Result<Self> {
        Self::read(ByteSource::open(path)?)
    }

    /// File from bytes in memory; `path` only names them in errors.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn from_bytes(bytes: Vec<u8>, path: &Path) -> Result<Self> {
        Self::read(ByteSource::from_bytes(bytes, path))
    }

    pub(super) fn read(source: ByteSource) -> Result<Self> {
        let (pickle, storages) = if source.length() >= 4 && source.bytes(0, 4)? == ZIP {
            zip(&source)?
        } else {
            legacy(&source)?
        };
        let (tensors, ignored) = state_dict(&pickle).map_err(|reason| source.wrong(reason))?;
        let pth = Self { source, tensors, storages, ignored };
        for (name, tensor) in &pth.tensors {
            pth.view(name, tensor)?;
        }
        Ok(pth)
    }

    /// Names and shapes of the tensors.
    pub fn shapes(&self) -> impl Iterator<Item = (&str, &[usize])> {
        self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor.shape.as_slice()))
    }

    /// Path of the file.
    pub(super) fn path(&self) -> &Path {
        self.source.path()
    }

    /// Shape of a tensor, and its type where candle has it.
    pub(super) fn tensor_info(&self, name: &str) -> Option<(&[usize], Option<DType>)> {
        let tensor = self.tensors.get(name)?;
        Some((&tensor.shape, dtype(&tensor.storage.kind)))
    }

    /// Reads a tensor in the type it is stored in, contiguous.
    ///
    /// # Errors
    /// A name that is not there, a type that no weight has.
    pub fn tensor(&self, name: &str, device: &Device) -> Result<Tensor> {
        let Some(tensor) = self.tensors.get(name) else {
            return Err(self.source.wrong(format!("there is no tensor {name}")));
        };
        let (dtype, view) = self.view(name, tensor)?;
        self.source.tensor(view, dtype, device)
    }

    /// Type and view of a tensor, checked to lie within its storage.
    fn view<'a>(&self, name: &str, tensor: &'a StridedTensor) -> Result<(DType, TensorView<'a>)> {
        let wrong = |reason: String| self.source.wrong(format!("{name}: {reason}"));
        let StridedTensor { storage, offset, shape, stride } = tensor;
        let Some(dtype) = dtype(&storage.kind) else {
            return Err(wrong(format!("is kept as {}, a type that no weight has", storage.kind)));
        };
        let key = storage.key.as_ref();
        let Some(bytes) = self.storages.get(key) else {
            return Err(wrong(format!(
                "its numbers (storage {key}) are not in the file; it is cut, fetch or write it again"
            )));
        };
        let size = dtype.size_in_bytes();
        let kept = usize::try_from((bytes.end - bytes.start) / size as u64).unwrap_or(usize::MAX);
        // Numbers from the first to the last; none where a dimension is empty.
        let span = if shape.contains(&0) {
            Some(0)
        } else {
            let last = shape.iter().zip(stride).try_fold(0usize, |last, (&length, &stride)| {
                last.checked_add((length - 1).checked_mul(stride)?)
            });
            last.and_then(|last| last.checked_add(1))
        };
        let inside = span.filter(|span| offset.checked_add(*span).is_some_and(|end| end <= kept));
        // Overlapping strides would let a short file ask for any amount of memory.
        let count = shape.iter().try_fold(1usize, |count, &length| count.checked_mul(length));
        let (Some(span), true) = (inside, count.is_some_and(|count| count <= kept)) else {
            return Err(wrong(format!(
                "{shape:?} with strides {stride:?} from {offset} does not lie in the {kept} numbers of storage {key}"
            )));
        };
        if storage.count > kept {
            return Err(wrong(format!(
                "storage {key} should have {} numbers and has {kept}; the file is cut, fetch or write it again",
                storage.count
            )));
        }
        let at = bytes.start + (*offset as u64) * size as u64;
        let stride = (!in_order(shape, stride)).then_some(stride.as_slice());
        Ok((dtype, TensorView { at, span, shape, stride }))
    }
}

/// Type with this name in PyTorch.
fn dtype(kind: &str) -> Option<DType> {
    Some(match kind {
        "FloatStorage" => DType::F32,
        "HalfStorage" => DType::F16,
        "BFloat16Storage" => DType::BF16,
        "DoubleStorage" => DType::F64,
        "LongStorage" => DType::I64,
        "IntStorage" => DType::I32,
        "ByteStorage" | "BoolStorage" => DType::U8,
        _ => return None,
    })
}

/// True if the layout is contiguous. Dimensions of one do not count.
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

/// Content of a container of either kind.
type Container = (Pickle, Storages);

fn zip(source: &ByteSource) -> Result<Container> {
    let broken = |error: zip::result::ZipError| {
        source.wrong(format!(
            "not a whole zip archive ({error}); the file is cut, fetch or write it again"
        ))
    };
    let mut members: BTreeMap<String, Range<u64>> = BTreeMap::new();
    let mut stream = source.stream();
    let reader = BufReader::new(&mut **stream);
    let mut archive = zip::ZipArchive::new(reader).map_err(broken)?;
    for index in 0..archive.len() {
        let member = archive.by_index_raw(index).map_err(broken)?;
        let name = member.name().map_err(broken)?.into_owned();
        if member.compression() != zip::CompressionMethod::Stored {
            return Err(source.wrong(format!(
                "member {name} is compressed; torch.save stores members as they are"
            )));
        }
        let range = member.data_start().and_then(|start| {
            let end = start.checked_add(member.size())?;
            (end <= source.length()).then_some(start..end)
        });
        let Some(range) = range else {
            return Err(source.wrong(format!(
                "member {name} reaches past the end of the file; it is cut, fetch or write it again"
            )));
        };
        if members.insert(name.clone(), range).is_some() {
            return Err(source.wrong(format!("has the member {name} twice; write it again")));
        }
    }
    drop(archive);
    drop(stream);
    // Members lie in a folder named after the file at the time it was written.
    let mut described =
        members.keys().filter(|name| *name == "data.pkl" || name.ends_with("/data.pkl"));
    let (Some(described), None) = (described.next(), described.next()) else {
        return Err(source.wrong(
            "a zip archive with no data.pkl or with several, so not one of torch.save; save a state dict with it",
        ));
    };
    let folder = described.trim_end_matches("data.pkl");
    let read = |range: &Range<u64>| {
        let length = range.end - range.start;
        if length > LONGEST_DESCRIPTION {
            return Err(source.wrong(format!(
                "{described} has {length} bytes, and at most {LONGEST_DESCRIPTION} are read; save the state dict alone"
            )));
        }
        source.bytes(range.start, length as usize)
    };
    if let Some(order) = members.get(&format!("{folder}byteorder"))
        && read(order)? != b"little"
    {
        return Err(source.wrong(BIG_ENDIAN));
    }
    let pickle = members.get(described).map(read).transpose()?.unwrap_or_default();
    let pickle =
        Pickle::parse(&pickle).map_err(|error| source.wrong(format!("{described}: {error}")))?;
    let data = format!("{folder}data/");
    let storages = members
        .iter()
        .filter_map(|(name, range)| Some((name.strip_prefix(&data)?.to_owned(), range.clone())))
        .collect();
    Ok((pickle, storages))
}

fn legacy(source: &ByteSource) -> Result<Container> {
    // The pickles' length shows only when they are read: if the bytes read so far end inside them, more are read.
    let whole = source.length().min(LONGEST_DESCRIPTION);
    let mut length = whole.min(FIRST_LOOK);
    loop {
        let bytes = source.bytes(0, length as usize)?;
        match legacy_pickles(&bytes) {
            Err(error) if error.cut && length < whole => {
                length = length.saturating_mul(8).min(whole);
            }
            Err(PickleError { reason, .. }) => return Err(source.wrong(reason)),
            Ok((pickle, keys, end)) => {
                let storages = legacy_storages(source, &pickle, &keys, end)?;
                return Ok((pickle, storages));
            }
        }
    }
}

/// Description of the tensors, the list of storages, and the byte offset of the storages.
fn legacy_pickles(bytes: &[u8]) -> std::result::Result<(Pickle, Pickle, usize), PickleError> {
    let mut at = 0;
    let mut next = |what: &str| -> std::result::Result<(Pickle, usize), PickleError> {
        let rest = bytes.get(at..).unwrap_or_default();
        let pickle = Pickle::parse(rest).map_err(|error| {
            let offset = at + error.offset;
            let reason = format!("{what}, byte {offset}: {}", error.reason);
            PickleError { offset, reason, cut: error.cut }
        })?;
        at += pickle.length;
        Ok((pickle, at))
    };
    let stop = |reason: &str| Err(PickleError { offset: 0, reason: reason.to_owned(), cut: false });
    let (magic, _) = next("the first pickle")?;
    if *magic.value(magic.root) != Value::Long(MAGIC.to_vec()) {
        return stop("a pickle, but not one of torch.save; save a state dict with it");
    }
    next("the protocol version")?;
    let (system, _) = next("the system's description")?;
    if let Some(little) = system.entry(system.root, "little_endian")
        && *system.value(little) == Value::Bool(false)
    {
        return stop(BIG_ENDIAN);
    }
    let (pickle, _) = next("the description of the tensors")?;
    let (keys, end) = next("the list of storages")?;
    Ok((pickle, keys, end))
}

/// Byte ranges of the storages, which follow the pickles in the order of the list, each behind its count of numbers.
fn legacy_storages(
    source: &ByteSource,
    pickle: &Pickle,
    keys: &Pickle,
    end: usize,
) -> Result<Storages> {
    let Value::List(ids) = keys.value(keys.root) else {
        return Err(source.wrong("the list of storages is no list; write the file again"));
    };
    let size: HashMap<&str, u64> = pickle.values.iter().filter_map(storage_size).collect();
    let mut end = end as u64;
    let mut storages = HashMap::new();
    for &id in ids {
        let Value::Text(key) = keys.value(id) else {
            let reason = "the list of storages names one by something that is no text";
            return Err(source.wrong(reason));
        };
        let start = end.saturating_add(8);
        let cut = || {
            source.wrong(format!(
                "storage {key} reaches past the end of the file; it is cut, fetch or write it again"
            ))
        };
        if start > source.length() {
            return Err(cut());
        }
        let mut count = [0; 8];
        count.copy_from_slice(&source.bytes(end, 8)?);
        let count = u64::try_from(i64::from_le_bytes(count)).map_err(|_| cut())?;
        let size = size.get(key.as_ref()).copied().unwrap_or(1);
        let bytes = count.checked_mul(size).filter(|&bytes| bytes <= source.length() - start);
        end = start + bytes.ok_or_else(cut)?;
        storages.insert(key.to_string(), start..end);
    }
    Ok(storages)
}

/// Key and bytes per number of a storage.
fn storage_size(value: &Value) -> Option<(&str, u64)> {
    let Value::Storage(storage) = value else { return None };
    let size = match dtype(&storage.kind) {
        Some(dtype) => dtype.size_in_bytes() as u64,
        None if storage.kind == "ShortStorage" => 2,
        None => 1,
    };
    Some((&storage.key, size))
}

type StateDict = (BTreeMap<String, StridedTensor>, Vec<String>);

/// Tensors by name, from the root or from its entry that holds the weights.
fn state_dict(pickle: &Pickle) -> std::result::Result<StateDict, String> {
    let mut ignored = Vec::new();
    let mut root = pickle.root;
    if let Some((key, inner)) =
        WEIGHTS.iter().find_map(|key| Some((*key, pickle.entry(root, key)?)))
        && matches!(pickle.value(inner), Value::Dict(_))
    {
        let beside = names(pickle, root)?.into_iter().map(|(name, _)| name);
        ignored.extend(beside.filter(|name| name != key));
        root = inner;
    }
    let Value::Dict(_) = pickle.value(root) else {
        return Err("does not hold a dictionary of tensors; save a state dict".to_owned());
    };
    let mut tensors = BTreeMap::new();
    for (name, id) in names(pickle, root)? {
        match pickle.value(id) {
            Value::Tensor(tensor) => drop(tensors.insert(name, (**tensor).clone())),
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

/// Entries of a dictionary that have a name.
fn names(pickle: &Pickle, dict: Id) -> std::result::Result<Vec<(String, Id)>, String> {
    let Value::Dict(entries) = pickle.value(dict) else { return Ok(Vec::new()) };
    let mut names = Vec::new();
    for &(key, value) in entries {
        let Value::Text(name) = pickle.value(key) else { continue };
        if name.len() > LONGEST_NAME {
            let length = name.len();
            return Err(format!("has a name of {length} bytes; at most {LONGEST_NAME} are read"));
        }
        names.push((name.to_string(), value));
    }
    Ok(names)
}
