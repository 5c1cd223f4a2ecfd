//! Named tensors: writing, fingerprint, and the strict check of names and shapes.

use crate::{Error, Result};
use candle_core::{DType, Device, Shape, Storage, Tensor, WithDType};
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use sha2::{Digest, Sha256};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::Path;

/// Tensors by name, sorted.
pub type Tensors = BTreeMap<String, Tensor>;

/// Writes a safetensors file atomically: aside first, then renamed into place.
///
/// The bytes depend on names, shapes and values alone.
///
/// # Errors
/// [`Error::File`] when it cannot be written.
pub fn write(tensors: &Tensors, path: &Path) -> Result<()> {
    let named = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    write_named(named, None, path)
}

/// Writes a safetensors file of borrowed or owned tensors, with one metadata entry (key, value) in the header.
pub(crate) fn write_named(
    mut tensors: Vec<(&str, &Tensor)>,
    note: Option<(&str, &str)>,
    path: &Path,
) -> Result<()> {
    let failed = |source| Error::File { action: "write", path: path.into(), source };
    let wrong = |reason: String| Error::Format { path: path.into(), reason };
    // Wide types come first, so that all are aligned.
    tensors.sort_by_key(|(name, tensor)| (Reverse(stored_type(tensor)), *name));
    let (mut infos, mut end) = (Vec::new(), 0);
    for (name, tensor) in &tensors {
        let (dtype, start) = (stored_type(tensor), end);
        end += tensor.elem_count() * dtype.bitsize() / 8;
        let shape = tensor.dims().to_vec();
        infos.push(((*name).to_owned(), TensorInfo { dtype, shape, data_offsets: (start, end) }));
    }
    let note = note.map(|(key, value)| [(key.to_owned(), value.to_owned())].into());
    let header = Metadata::new(note, infos).map_err(|error| wrong(error.to_string()))?;
    let mut header = serde_json::to_vec(&header).map_err(|error| wrong(error.to_string()))?;
    header.resize(header.len().next_multiple_of(8), b' ');

    let aside = path.with_extension("safetensors.partial");
    let mut file = std::fs::File::create(&aside).map_err(failed)?;
    file.write_all(&(header.len() as u64).to_le_bytes()).map_err(failed)?;
    file.write_all(&header).map_err(failed)?;
    for (_, tensor) in &tensors {
        pieces(tensor, |piece| file.write_all(piece).map_err(failed))?;
    }
    drop(file);
    std::fs::rename(&aside, path).map_err(failed)
}

fn stored_type(tensor: &Tensor) -> Dtype {
    match tensor.dtype() {
        DType::F16 => Dtype::F16,
        DType::BF16 => Dtype::BF16,
        DType::F64 => Dtype::F64,
        DType::I64 => Dtype::I64,
        DType::U32 => Dtype::U32,
        _ => Dtype::F32,
    }
}

/// Values per chunk when a tensor is written or hashed, so that it is not copied whole.
const PIECE: usize = 1 << 16;

/// Values of a tensor as little-endian bytes, row-major, in chunks.
fn pieces(tensor: &Tensor, take: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
    match stored_type(tensor) {
        Dtype::F16 => pieces_of(tensor, half::f16::to_le_bytes, take),
        Dtype::BF16 => pieces_of(tensor, half::bf16::to_le_bytes, take),
        Dtype::F64 => pieces_of(tensor, f64::to_le_bytes, take),
        Dtype::I64 => pieces_of(tensor, i64::to_le_bytes, take),
        Dtype::U32 => pieces_of(tensor, u32::to_le_bytes, take),
        _ => pieces_of(&tensor.to_dtype(DType::F32)?, f32::to_le_bytes, take),
    }
}

fn pieces_of<T: WithDType, const N: usize>(
    tensor: &Tensor,
    bytes: fn(T) -> [u8; N],
    mut take: impl FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    values(tensor, |values: &[T]| {
        let mut piece = Vec::with_capacity(values.len().min(PIECE) * N);
        for part in values.chunks(PIECE) {
            piece.clear();
            piece.extend(part.iter().flat_map(|&value| bytes(value)));
            take(&piece)?;
        }
        Ok(())
    })
}

/// Calls `read` with the values of a tensor, row-major; a contiguous CPU tensor is not copied.
fn values<T: WithDType, R>(tensor: &Tensor, read: impl FnOnce(&[T]) -> Result<R>) -> Result<R> {
    let tensor = tensor.to_device(&Device::Cpu)?.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    let (start, end) = layout.contiguous_offsets().unwrap_or((0, 0));
    match &*storage {
        Storage::Cpu(cpu) => read(&T::cpu_storage_as_slice(cpu)?[start..end]),
        _ => read(&[]), // the tensor was moved to the CPU above
    }
}

/// Row-major index of the first value of an f32 tensor that satisfies `is_so`.
pub(crate) fn position(tensor: &Tensor, is_so: impl Fn(f32) -> bool) -> Result<Option<usize>> {
    values(tensor, |values: &[f32]| Ok(values.iter().position(|&value| is_so(value))))
}

/// True if two f32 tensors have the same shape and values.
pub(crate) fn same(a: &Tensor, b: &Tensor) -> Result<bool> {
    let equal = |a: &[f32]| values(b, |b: &[f32]| Ok(a == b));
    Ok(a.shape() == b.shape() && values(a, equal)?)
}

/// Names for an error: the first dozen, and the number of the others.
pub(crate) fn listed(names: &[String]) -> String {
    let shown = names.iter().take(12).cloned().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(12) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// Checks `tensors` against the names and shapes that are wanted; the error lists every difference.
pub fn check(what: &str, tensors: &Tensors, wanted: &[(String, Shape)]) -> Result<()> {
    let mut problems = Vec::new();
    let mut list = |title: &str, names: Vec<String>| {
        if !names.is_empty() {
            problems.push(format!("{title}: {}", listed(&names)));
        }
    };
    let known: BTreeSet<&str> = wanted.iter().map(|(name, _)| name.as_str()).collect();
    let missing =
        wanted.iter().filter(|(name, _)| !tensors.contains_key(name)).map(|(name, _)| name.clone());
    list("missing", missing.collect());
    let unexpected = tensors.keys().filter(|name| !known.contains(name.as_str())).cloned();
    list("unexpected", unexpected.collect());
    let misshapen = wanted.iter().filter_map(|(name, shape)| {
        let found = tensors.get(name)?.shape();
        (found != shape).then(|| format!("{name} is {found:?}, not {shape:?}"))
    });
    list("of another shape", misshapen.collect());
    if problems.is_empty() {
        return Ok(());
    }
    Err(Error::Mismatch { what: what.into(), report: problems.join("; ") })
}

/// Tensor of this name; [`check`] has made sure that it is there.
pub(crate) fn get(tensors: &Tensors, name: &str) -> Result<Tensor> {
    tensors.get(name).cloned().ok_or_else(|| Error::Mismatch {
        what: "the set of tensors".into(),
        report: format!("missing: {name}"),
    })
}

/// Fingerprint: SHA-256 over names, shapes and f32 values, independent of the type they are stored in.
pub fn fingerprint(tensors: &Tensors) -> Result<String> {
    let mut hash = Sha256::new();
    for (name, tensor) in tensors {
        hash.update(name.as_bytes());
        hash.update([0]);
        for size in tensor.dims() {
            hash.update((*size as u64).to_le_bytes());
        }
        pieces(&tensor.to_dtype(DType::F32)?, |piece| {
            hash.update(piece);
            Ok(())
        })?;
    }
    Ok(hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect())
}

/// Tensors detached from the graph: values shared, no gradient.
pub fn detached(tensors: &Tensors) -> Tensors {
    tensors.iter().map(|(name, tensor)| (name.clone(), tensor.detach())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::{Shards, read_tensors};

    fn sample() -> Tensors {
        let device = Device::Cpu;
        Tensors::from([
            ("a".to_string(), Tensor::new(&[[1f32, 2.], [3., 4.]], &device).unwrap()),
            ("b".to_string(), Tensor::new(&[1i64, -2], &device).unwrap()),
        ])
    }

    #[test]
    fn what_is_written_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        write(&sample(), &path).unwrap();
        let back = read_tensors(&path, DType::F32, &Device::Cpu).unwrap();
        assert_eq!(back["a"].to_vec2::<f32>().unwrap(), sample()["a"].to_vec2::<f32>().unwrap());
        assert_eq!(back["b"].to_vec1::<i64>().unwrap(), [1, -2]);
        assert_eq!(fingerprint(&sample()).unwrap(), fingerprint(&back).unwrap());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left aside");
    }

    #[test]
    fn every_cut_of_a_file_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        write(&sample(), &path).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        for length in 0..bytes.len() {
            let error = Shards::from_bytes(bytes[..length].to_vec(), &path).unwrap_err();
            assert!(error.to_string().contains("x.safetensors"), "{error}");
        }
    }

    #[test]
    fn check_lists_missing_unexpected_and_misshapen() {
        let wanted =
            vec![("a".to_string(), Shape::from((2, 3))), ("c".to_string(), Shape::from(1))];
        let message = check("the model", &sample(), &wanted).unwrap_err().to_string();
        for part in ["missing: c", "unexpected: b", "a is [2, 2], not [2, 3]"] {
            assert!(message.contains(part), "{message}");
        }
    }
}
