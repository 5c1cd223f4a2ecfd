//! Merging an adapter into the weights of its backbone, and unmerging it.
//!
//! Deltas, output scales, heads and the backbone's own tuned tensors become part of the weights and cost nothing
//! afterwards. Gates and context are no weights: they stay in a residual adapter of the merged backbone.
//!
//! Weights are merged in f32, whatever the type they were read from. Writing them as f16 or bf16 rounds the sum: a
//! delta below about 2^-11 (bf16: 2^-8) of its weight is lost, and unmerging needs the originals.

use crate::tensors::{Tensors, get};
use crate::{
    AdaptedParams, AdapterConfig, AdapterKind, Backbone, Error, ParamGroup, Result, save_adapter,
};
use candle_core::DType;
use std::path::Path;

/// Name of the residual adapter folder inside the folder of a merged backbone, for gates and context.
pub const RESIDUAL_ADAPTER: &str = "adapter";

/// Backbone with an adapter merged into its weights.
#[derive(Debug, Clone)]
pub struct Merged {
    /// Merged weights. Tensors that the adapter does not change are those of the original, not copies.
    pub backbone: Backbone,
    /// Residual adapter: gates and context, which work on the merged backbone as on the original. Without any of them
    /// it adds nothing.
    pub residual: AdaptedParams,
    /// Tensors that merging replaced.
    originals: Tensors,
    /// Fingerprint of the original.
    fingerprint: String,
}

/// Merges an adapter into the weights of the backbone it was trained on.
///
/// # Errors
/// A kind that is no change of weights; tensors that do not fit the backbone.
pub fn merge(backbone: &Backbone, tuned: &AdaptedParams) -> Result<Merged> {
    if tuned.adapter_config.kind == AdapterKind::Bottleneck {
        let reason = "is no change of weights and cannot be merged; keep the adapter folder";
        return Err(Error::config("kind", tuned.adapter_config.kind.name(), reason));
    }
    let wanted = tuned.adapter_config.param_shapes(&backbone.config)?;
    crate::tensors::check("the adapter", &tuned.tensors, &wanted)?;
    let mut tensors = backbone.tensors.clone();
    for (name, tensor) in &tuned.tensors {
        if let ParamGroup::Head | ParamGroup::Backbone = AdaptedParams::param_group(name) {
            tensors.insert(name.clone(), tensor.detach());
        }
    }
    if let Some(adapter) = tuned.adapter_config.adapter() {
        for site in tuned.adapter_config.sites(&backbone.config)? {
            let names = ["weight", "bias"].map(|part| format!("{}.{part}", site.path));
            let [weight, bias] = [get(&tensors, &names[0])?, get(&tensors, &names[1])?];
            let layer_delta = adapter.layer_delta(&site, &weight, &tuned.tensors)?;
            let (weight, changed_bias) = layer_delta.merged(&weight, &bias)?;
            let [weight_name, bias_name] = names;
            tensors.insert(weight_name, weight);
            if layer_delta.scale.is_some_and(|scale| scale.bias) {
                tensors.insert(bias_name, changed_bias);
            }
        }
    }
    let replaced = |(name, tensor): &(&String, &candle_core::Tensor)| {
        tensors.get(*name).is_some_and(|merged| merged.id() != tensor.id())
    };
    let originals = backbone.tensors.iter().filter(replaced);
    Ok(Merged {
        originals: originals.map(|(name, tensor)| (name.clone(), tensor.clone())).collect(),
        fingerprint: backbone.fingerprint()?,
        residual: residual_adapter(tuned, backbone)?,
        backbone: Backbone { config: backbone.config.clone(), tensors },
    })
}

/// Residual adapter: gates and context alone.
fn residual_adapter(tuned: &AdaptedParams, backbone: &Backbone) -> Result<AdaptedParams> {
    let adapter_config = AdapterConfig {
        gated_query: tuned.adapter_config.gated_query,
        context_slots: tuned.adapter_config.context_slots,
        frame_aware: tuned.adapter_config.frame_aware,
        modules_to_save: Vec::new(),
        ..AdapterConfig::new(AdapterKind::Heads, tuned.adapter_config.variant, 0)
    };
    let wanted = adapter_config.param_shapes(&backbone.config)?;
    let kept = |name: String| Ok((name.clone(), get(&tuned.tensors, &name)?.detach()));
    let tensors = wanted.into_iter().map(|(name, _)| kept(name)).collect::<Result<_>>()?;
    AdaptedParams::from_tensors(adapter_config, &backbone.config, "gates and context", tensors)
}

impl Merged {
    /// Unmerged backbone, equal to the original to the byte.
    ///
    /// # Errors
    /// Weights that were changed after merging, by their fingerprint.
    pub fn unmerge(&self) -> Result<Backbone> {
        let mut original = self.backbone.clone();
        original.tensors.extend(self.originals.clone());
        let found = original.fingerprint()?;
        if found != self.fingerprint {
            let reason = format!(
                "is not the {} of the backbone before merging; its weights were changed afterwards",
                self.fingerprint
            );
            return Err(Error::config("fingerprint", found, reason));
        }
        Ok(original)
    }

    /// Names of the tensors that merging replaced.
    pub fn replaced(&self) -> impl Iterator<Item = &str> {
        self.originals.keys().map(String::as_str)
    }

    /// True if there are gates, a context or frame-aware attention: the merged backbone alone is then not the whole
    /// model.
    pub fn has_residual(&self) -> bool {
        let adapter_config = &self.residual.adapter_config;
        adapter_config.gated_query
            || adapter_config.has_context(&self.backbone.config)
            || adapter_config.frame_aware
    }

    /// Writes a backbone folder with weights as `dtype`. A residual adapter goes to its folder [`RESIDUAL_ADAPTER`],
    /// for the backbone as it is read back. `base` names that backbone for people. A vocabulary beside the original's
    /// weights is not copied.
    ///
    /// # Errors
    /// Errors of writing.
    pub fn write(&self, folder: &Path, dtype: DType, base: &str) -> Result<()> {
        self.backbone.write(folder, dtype)?;
        self.write_beside(folder, dtype, base)
    }

    /// Writes the merged backbone as a Hugging Face folder, f32 weights in one file, like [`Self::write`].
    ///
    /// # Errors
    /// Errors of writing.
    pub fn write_hugging_face(&self, folder: &Path, base: &str) -> Result<()> {
        self.backbone.write_hugging_face(folder, None)?;
        self.write_beside(folder, DType::F32, base)
    }

    /// Writes the residual adapter, if there is one, for the backbone as it is stored in this folder.
    fn write_beside(&self, folder: &Path, dtype: DType, base: &str) -> Result<()> {
        if !self.has_residual() {
            return Ok(());
        }
        // The fingerprint has to be that of the rounded values.
        let rounded = self.backbone.tensors.iter().map(|(name, tensor)| {
            Ok((name.clone(), tensor.detach().to_dtype(dtype)?.to_dtype(DType::F32)?))
        });
        let stored = Backbone {
            config: self.backbone.config.clone(),
            tensors: rounded.collect::<Result<_>>()?,
        };
        let card = "# Gates and context\n\nWhat remained beside the weights when an adapter was merged into the \
                    backbone of the folder above.\n";
        save_adapter(&folder.join(RESIDUAL_ADAPTER), &self.residual, &stored, base, card)
    }
}
