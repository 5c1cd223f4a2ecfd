//! Tensor names of the reference PyTorch code (`CP_*`), and their translation to ours.
//!
//! The translation is linear (renaming, transposing, splitting), so it serves weights and gradients alike.

use crate::adapter::{u_name, v_name};
use crate::tensors::Tensors;
use crate::{Error, Result};
use candle_core::Tensor;

/// Name of the reference code's core.
pub(crate) const CORE: &str = "CP_C";

/// True if a tensor of this name belongs to the adapter of a reference checkpoint. Momentum copies do not.
pub fn is_adapter(name: &str) -> bool {
    let part = |part: &str| part.starts_with("CP_") || part.ends_with("_CP");
    let momentum = name.split('.').next().is_some_and(|first| first.ends_with("_m"));
    !momentum && name.split('.').any(part)
}

/// Translates a state dict of the reference code. Names without `CP_` or `_CP` pass unchanged.
pub fn translate(reference: &Tensors) -> Result<Tensors> {
    let mut ours = Tensors::new();
    for (name, tensor) in reference {
        let translated = entry(name, tensor).map_err(|error| Error::Mismatch {
            what: name.clone(),
            report: format!("{:?} is no shape of the reference code ({error})", tensor.dims()),
        })?;
        for (name, tensor) in translated {
            ours.insert(name, tensor.contiguous()?);
        }
    }
    Ok(ours)
}

/// Columns `from..from + slices` of a (rank, columns) tensor as modes (slices, rank).
fn modes(path: &str, tensor: &Tensor, from: usize, slices: usize) -> Result<(String, Tensor)> {
    Ok((format!("{path}.aurora_modes"), tensor.narrow(1, from, slices)?.t()?))
}

fn entry(name: &str, tensor: &Tensor) -> Result<Vec<(String, Tensor)>> {
    let (path, last) = name.rsplit_once('.').unwrap_or(("", name));
    let text_map =
        |map: &str| -> Result<Vec<_>> { Ok(vec![modes(&format!("{path}.{map}"), tensor, 0, 1)?]) };
    let gate = |part: &str, branch: &str| {
        Ok(vec![(format!("{path}.aurora_{part}_{branch}"), tensor.clone())])
    };
    match (name, last) {
        ("CP_U.weight", _) => Ok(vec![(u_name(tensor.dim(1)?), tensor.t()?)]),
        ("CP_V.weight", _) => Ok(vec![(v_name(tensor.dim(0)?), tensor.clone())]),
        (CORE, _) => Ok(vec![(crate::adapter::CORE.into(), tensor.clone())]),
        (_, "CP_attention") => Ok(vec![
            modes(&format!("{path}.qkv"), tensor, 0, 3)?,
            modes(&format!("{path}.proj"), tensor, 3, 1)?,
        ]),
        (_, "mlp_CP") => {
            let slices = tensor.dim(1)? / 2;
            Ok(vec![
                modes(&format!("{path}.fc1"), tensor, 0, slices)?,
                modes(&format!("{path}.fc2"), tensor, slices, slices)?,
            ])
        }
        (_, "q_CP") => text_map("query"),
        (_, "k_CP") => text_map("key"),
        (_, "v_CP") => text_map("value"),
        (_, "CP_scaleself") => gate("scale", "self"),
        (_, "CP_shiftself") => gate("shift", "self"),
        (_, "CP_scalecross") => gate("scale", "cross"),
        (_, "CP_shiftcross") => gate("shift", "cross"),
        _ => Ok(vec![(name.into(), tensor.clone())]),
    }
}
