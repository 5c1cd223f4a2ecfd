//! Names of the released PyTorch code (`CP_*`), and how its tensors map to ours.
//!
//! The mapping is linear (renaming, transposing, splitting), so it serves weights and gradients alike.

use crate::adapter::{u_name, v_name};
use crate::checkpoint::{Checkpoint, LoadReport};
use crate::tensors::Tensors;
use crate::{
    AdapterKind, Backbone, BlipConfig, Error, Flavour, Form, Result, TuneSpec, Tuned, gate,
};
use candle_core::{Device, Tensor};

const CORE: &str = "CP_C";

/// Whether a tensor of this name belongs to the adapter of a released checkpoint. Momentum copies do not.
pub fn is_adapter(name: &str) -> bool {
    let part = |part: &str| part.starts_with("CP_") || part.ends_with("_CP");
    let momentum = name.split('.').next().is_some_and(|first| first.ends_with("_m"));
    !momentum && name.split('.').any(part)
}

impl Checkpoint {
    /// A checkpoint of the released code as the backbone it was tuned from, with the tuning: flavour released, the rank
    /// that the core has, gates where there are any. Trained heads are in both.
    ///
    /// The released code does not say whether informative context enhancement was on; it is here, as in its training.
    ///
    /// # Errors
    /// A checkpoint without an adapter or without its core; what [`Checkpoint::backbone`] reports; factors that are
    /// missing, unexpected or of another shape, all listed.
    pub fn released(
        &self,
        config: &BlipConfig,
        device: &Device,
    ) -> Result<(Backbone, Tuned, LoadReport)> {
        let what = self.path().display().to_string();
        let (backbone, mut report) = self.backbone_beside(config, device, is_adapter)?;
        let mut stored = Tensors::new();
        for name in self.names().filter(|name| is_adapter(name)) {
            stored.insert(name.to_owned(), self.weight(name, device)?);
        }
        let Some(rank) = stored.get(CORE).and_then(|core| core.dims().first().copied()) else {
            let report =
                format!("missing: {CORE}; without it this is no adapter, load the backbone alone");
            return Err(Error::Mismatch { what, report });
        };
        report.loaded += stored.len();
        let mut tensors = translate(&stored)?;
        let mut spec = TuneSpec::new(AdapterKind::Tucker, Flavour::Released, rank);
        if config.form != Form::Retrieval {
            spec.context_slots = 0;
        }
        spec.gate = tensors.keys().any(|name| gate::is_name(name));
        for (name, _) in spec.wanted(config)? {
            if let Some(weight) = backbone.tensors.get(&name) {
                tensors.entry(name).or_insert_with(|| weight.clone());
            }
        }
        Ok((backbone, Tuned::from_tensors(spec, config, &what, tensors)?, report))
    }
}

/// Translate a state dict of the released code. Names without `CP_` or `_CP` pass unchanged.
pub fn translate(released: &Tensors) -> Result<Tensors> {
    let mut ours = Tensors::new();
    for (name, tensor) in released {
        let translated = entry(name, tensor).map_err(|error| Error::Mismatch {
            what: name.clone(),
            report: format!("{:?} is no shape of the released code ({error})", tensor.dims()),
        })?;
        for (name, tensor) in translated {
            ours.insert(name, tensor.contiguous()?);
        }
    }
    Ok(ours)
}

/// The columns `from..from + slices` of a (rank, columns) tensor as modes (slices, rank).
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
