//! Parameter count of an adapter, from sizes alone.

use std::collections::BTreeMap;

use crate::{AdaptedParams, AdapterConfig, BlipConfig, ParamGroup, Result};

impl AdapterConfig {
    /// Trained values per parameter group on a backbone of these sizes; buffers do not count.
    ///
    /// # Errors
    /// As [`AdapterConfig::param_shapes`].
    pub fn count_trained(&self, config: &BlipConfig) -> Result<BTreeMap<ParamGroup, usize>> {
        let mut counts = BTreeMap::new();
        for (name, shape) in self.param_shapes(config)? {
            match AdaptedParams::param_group(&name) {
                ParamGroup::Buffer => {}
                part => *counts.entry(part).or_default() += shape.elem_count(),
            }
        }
        Ok(counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::tiny;
    use crate::{AdapterKind, Backbone, Variant};
    use candle_core::Device;

    #[test]
    fn what_is_counted_is_what_becomes_a_variable() {
        let backbone = Backbone::random(tiny(), 1, &Device::Cpu).unwrap();
        for kind in [AdapterKind::Cp, AdapterKind::Vera, AdapterKind::Heads, AdapterKind::Full] {
            for variant in [Variant::Paper, Variant::Reference] {
                let adapter_config = AdapterConfig::new(kind, variant, 4);
                let counted: usize = adapter_config.count_trained(&tiny()).unwrap().values().sum();
                let start =
                    AdaptedParams::init(adapter_config, &backbone, 1, &Device::Cpu).unwrap();
                let (_, variables) = start.into_variables().unwrap();
                let trained: usize = variables.iter().map(|(_, var)| var.elem_count()).sum();
                assert_eq!(counted, trained, "{kind:?} {variant:?}");
            }
        }
    }
}
