//! Checkpoints of the reference PyTorch code: a backbone and its adapter in one file.

use candle_core::Device;

use super::{Checkpoint, LoadReport};
use crate::reference_checkpoint::{CORE, is_adapter, translate};
use crate::{
    AdaptedParams, AdapterConfig, AdapterKind, Architecture, Backbone, BlipConfig, Error, Result,
    Tensors, Variant, gate,
};

impl Checkpoint {
    /// Reads a checkpoint of the reference code as backbone and adapter: variant reference, the rank of the core, gates
    /// where there are any. Trained heads are in both.
    ///
    /// The reference code does not store whether informative context enhancement was on; here it is on, as in its
    /// training.
    ///
    /// # Errors
    /// A checkpoint without an adapter or without its core; what [`Checkpoint::backbone`] reports; factors that are
    /// missing, unexpected or of another shape, all listed.
    pub fn backbone_and_adapter(
        &self,
        config: &BlipConfig,
        device: &Device,
    ) -> Result<(Backbone, AdaptedParams, LoadReport)> {
        let what = self.path().display().to_string();
        let (backbone, mut report) = self.backbone_with_extra(config, device, is_adapter)?;
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
        let mut adapter_config = AdapterConfig::new(AdapterKind::Tucker, Variant::Reference, rank);
        if config.architecture != Architecture::Retrieval {
            adapter_config.context_slots = 0;
        }
        adapter_config.gated_query = tensors.keys().any(|name| gate::is_name(name));
        for (name, _) in adapter_config.param_shapes(config)? {
            if let Some(weight) = backbone.tensors.get(&name) {
                tensors.entry(name).or_insert_with(|| weight.clone());
            }
        }
        Ok((backbone, AdaptedParams::from_tensors(adapter_config, config, &what, tensors)?, report))
    }
}
