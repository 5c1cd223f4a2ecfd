//! Named tensors: reading and writing them, and the strict check of a set against what a model wants.

use crate::{Error, Result};
use candle_core::{DType, Device, Shape, Tensor};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Tensors by name, in the order of their names.
pub type Tensors = BTreeMap<String, Tensor>;

/// Read a safetensors file into `dtype` on `device`.
///
/// # Errors
/// [`Error::File`] when it cannot be opened, [`Error::Format`] when it is cut or no safetensors file.
pub fn read(path: &Path, dtype: DType, device: &Device) -> Result<Tensors> {
    let bytes = std::fs::read(path).map_err(|source| Error::File {
        action: "read",
        path: path.into(),
        source,
    })?;
    from_bytes(&bytes, path, dtype, device)
}

/// The same from memory; `path` only names the source in errors.
pub fn from_bytes(bytes: &[u8], path: &Path, dtype: DType, device: &Device) -> Result<Tensors> {
    let wrong = |reason: String| Error::Format { path: path.into(), reason };
    let file = safetensors::SafeTensors::deserialize(bytes).map_err(|error| {
        wrong(format!("not a whole safetensors file ({error}); fetch or write it again"))
    })?;
    let mut tensors = Tensors::new();
    for (name, view) in file.tensors() {
        let stored = match view.dtype() {
            safetensors::Dtype::F32 => DType::F32,
            safetensors::Dtype::F16 => DType::F16,
            safetensors::Dtype::BF16 => DType::BF16,
            safetensors::Dtype::F64 => DType::F64,
            safetensors::Dtype::I64 => DType::I64,
            safetensors::Dtype::U32 => DType::U32,
            safetensors::Dtype::U8 => DType::U8,
            other => {
                return Err(wrong(format!(
                    "{name} is stored as {other:?}; f32, f16, bf16, f64, i64, u32 or u8 can be read"
                )));
            }
        };
        let tensor = Tensor::from_raw_buffer(view.data(), stored, view.shape(), device)?;
        let tensor = if stored.is_float() { tensor.to_dtype(dtype)? } else { tensor };
        tensors.insert(name, tensor);
    }
    Ok(tensors)
}

/// Write a safetensors file aside and rename it into place, so that no reader ever meets half a file.
///
/// The bytes depend on the names, shapes and values alone.
pub fn write(tensors: &Tensors, path: &Path) -> Result<()> {
    let failed = |action| move |source| Error::File { action, path: path.into(), source };
    let mut raw: BTreeMap<&str, (safetensors::Dtype, Vec<usize>, Vec<u8>)> = BTreeMap::new();
    for (name, tensor) in tensors {
        let (dtype, bytes) = raw_bytes(tensor)?;
        raw.insert(name, (dtype, tensor.dims().to_vec(), bytes));
    }
    let mut views = Vec::with_capacity(raw.len());
    for (name, (dtype, shape, bytes)) in &raw {
        let view = safetensors::tensor::TensorView::new(*dtype, shape.clone(), bytes).map_err(
            |error| Error::Format { path: path.into(), reason: format!("{name}: {error}") },
        )?;
        views.push((*name, view));
    }
    let bytes = safetensors::serialize(views, None)
        .map_err(|error| Error::Format { path: path.into(), reason: error.to_string() })?;
    let aside = path.with_extension("safetensors.partial");
    std::fs::write(&aside, bytes).map_err(failed("write"))?;
    std::fs::rename(&aside, path).map_err(failed("write"))
}

fn raw_bytes(tensor: &Tensor) -> Result<(safetensors::Dtype, Vec<u8>)> {
    let flat = tensor.flatten_all()?.to_device(&Device::Cpu)?;
    fn le<T: Copy, const N: usize>(values: Vec<T>, bytes: fn(T) -> [u8; N]) -> Vec<u8> {
        values.into_iter().flat_map(bytes).collect()
    }
    Ok(match tensor.dtype() {
        DType::F16 => (safetensors::Dtype::F16, le(flat.to_vec1()?, half::f16::to_le_bytes)),
        DType::BF16 => (safetensors::Dtype::BF16, le(flat.to_vec1()?, half::bf16::to_le_bytes)),
        DType::F64 => (safetensors::Dtype::F64, le(flat.to_vec1()?, f64::to_le_bytes)),
        DType::I64 => (safetensors::Dtype::I64, le(flat.to_vec1()?, i64::to_le_bytes)),
        DType::U32 => (safetensors::Dtype::U32, le(flat.to_vec1()?, u32::to_le_bytes)),
        _ => (safetensors::Dtype::F32, le(flat.to_dtype(DType::F32)?.to_vec1()?, f32::to_le_bytes)),
    })
}

/// Compare `tensors` with the names and shapes that are wanted; the error lists every difference.
pub fn check(what: &str, tensors: &Tensors, wanted: &[(String, Shape)]) -> Result<()> {
    let mut problems = Vec::new();
    let mut list = |title: &str, names: Vec<String>| {
        if names.is_empty() {
            return;
        }
        let shown = names.iter().take(12).cloned().collect::<Vec<_>>().join(", ");
        let more = if names.len() > 12 {
            format!(" and {} more", names.len() - 12)
        } else {
            String::new()
        };
        problems.push(format!("{title}: {shown}{more}"));
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

/// The tensor of that name; [`check`] has made sure that it is there.
pub(crate) fn get(tensors: &Tensors, name: &str) -> Result<Tensor> {
    tensors.get(name).cloned().ok_or_else(|| Error::Mismatch {
        what: "the set of tensors".into(),
        report: format!("missing: {name}"),
    })
}

/// SHA-256 over names, shapes and f32 values: the same for the same weights, however they are stored.
pub fn fingerprint(tensors: &Tensors) -> Result<String> {
    let mut hash = Sha256::new();
    for (name, tensor) in tensors {
        hash.update(name.as_bytes());
        hash.update([0]);
        for size in tensor.dims() {
            hash.update((*size as u64).to_le_bytes());
        }
        hash.update(raw_bytes(&tensor.to_dtype(DType::F32)?)?.1);
    }
    Ok(hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect())
}

/// The same tensors cut from the graph: they share their values, take no gradient and cost none.
pub fn detached(tensors: &Tensors) -> Tensors {
    tensors.iter().map(|(name, tensor)| (name.clone(), tensor.detach())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let back = read(&path, DType::F32, &Device::Cpu).unwrap();
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
            let error = from_bytes(&bytes[..length], &path, DType::F32, &Device::Cpu).unwrap_err();
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
