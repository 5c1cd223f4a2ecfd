//! Adapter set: several named adapters on one backbone.

use crate::tensors::check;
use crate::{AdaptedParams, Blip, BoundModel, Error, Result};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Named adapters over one frozen model, at most one of them active. The model is shared: an adapter costs its own
/// tensors only.
///
/// ```
/// # fn example(
/// #     backbone: &aurora_layers::Backbone,
/// #     emoji: aurora_layers::AdaptedParams,
/// #     photographs: aurora_layers::AdaptedParams,
/// # ) -> aurora_layers::Result<()> {
/// use aurora_layers::AdapterSet;
/// use std::sync::Arc;
///
/// let mut set = AdapterSet::new(Arc::new(backbone.model()?));
/// set.add("emoji", emoji)?;
/// set.add("photographs", photographs)?;
/// set.activate("emoji")?;
/// let (blip, bound) = set.bind()?;
/// # let _ = (blip, bound);
/// set.disable(); // the frozen backbone
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct AdapterSet {
    frozen: Arc<Blip>,
    adapters: BTreeMap<String, AdaptedParams>,
    active: Option<String>,
}

impl AdapterSet {
    /// Empty set over a frozen model.
    pub fn new(frozen: Arc<Blip>) -> Self {
        Self { frozen, adapters: BTreeMap::new(), active: None }
    }

    /// Adds an adapter under a name, not yet active.
    ///
    /// # Errors
    /// A name that is taken; tensors that do not fit the model.
    pub fn add(&mut self, name: &str, tuned: AdaptedParams) -> Result<()> {
        if self.adapters.contains_key(name) {
            return Err(self.error(name, "is taken"));
        }
        check(
            &format!("adapter {name:?}"),
            &tuned.tensors,
            &tuned.adapter_config.param_shapes(self.frozen.config())?,
        )?;
        self.adapters.insert(name.to_owned(), tuned);
        Ok(())
    }

    /// Removes an adapter and returns it. If it was active, none is active afterwards.
    ///
    /// # Errors
    /// A name that no adapter has.
    pub fn remove(&mut self, name: &str) -> Result<AdaptedParams> {
        let tuned = self.adapters.remove(name).ok_or_else(|| self.error(name, "is no adapter"))?;
        self.active.take_if(|active| active == name);
        Ok(tuned)
    }

    /// Activates an adapter in place of the active one.
    ///
    /// # Errors
    /// A name that no adapter has.
    pub fn activate(&mut self, name: &str) -> Result<()> {
        self.get(name)?;
        self.active = Some(name.to_owned());
        Ok(())
    }

    /// Deactivates the active adapter: the model is the frozen backbone.
    pub fn disable(&mut self) {
        self.active = None;
    }

    /// Name of the active adapter.
    pub fn active(&self) -> Option<&str> {
        self.active.as_deref()
    }

    /// Names of all adapters, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.adapters.keys().map(String::as_str)
    }

    /// Adapter of this name.
    ///
    /// # Errors
    /// A name that no adapter has.
    pub fn get(&self, name: &str) -> Result<&AdaptedParams> {
        self.adapters.get(name).ok_or_else(|| self.error(name, "is no adapter"))
    }

    /// Model and bound parameters of the active adapter: bind once, use for many passes.
    ///
    /// # Errors
    /// Errors of candle.
    pub fn bind(&self) -> Result<(Arc<Blip>, BoundModel)> {
        let Some(name) = &self.active else {
            return Ok((self.frozen.clone(), self.frozen.bind_frozen()?));
        };
        let tuned = self.get(name)?;
        let blip = tuned.model(&self.frozen)?;
        let bound = tuned.bind(&blip, None)?;
        Ok((blip, bound))
    }

    fn error(&self, name: &str, reason: &str) -> Error {
        let names: Vec<&str> = self.names().collect();
        let there = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        Error::config("adapter", format!("{name:?}"), format!("{reason}; there are: {there}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::tiny;
    use crate::{AdapterConfig, AdapterKind, Backbone, Variant};
    use candle_core::Device;

    fn set() -> AdapterSet {
        let backbone = Backbone::random(tiny(), 1, &Device::Cpu).unwrap();
        let mut set = AdapterSet::new(Arc::new(backbone.model().unwrap()));
        for (name, kind) in [("a", AdapterKind::Cp), ("b", AdapterKind::Norms)] {
            let adapter_config = AdapterConfig::new(kind, Variant::Paper, 2);
            set.add(name, AdaptedParams::init(adapter_config, &backbone, 1, &Device::Cpu).unwrap())
                .unwrap();
        }
        set
    }

    #[test]
    fn one_is_active_and_the_backbone_is_shared() {
        let mut set = set();
        let shared = |set: &AdapterSet| Arc::ptr_eq(&set.bind().unwrap().0, &set.frozen);
        assert!(set.active().is_none() && shared(&set));
        assert!(set.bind().unwrap().1.deltas.is_empty());
        set.activate("a").unwrap();
        assert!(shared(&set) && !set.bind().unwrap().1.deltas.is_empty());
        set.activate("b").unwrap();
        let (blip, bound) = set.bind().unwrap();
        assert!(bound.deltas.is_empty());
        for (name, tensor) in blip.tensors() {
            let same = tensor.id() == set.frozen.tensors()[name].id();
            assert_ne!(same, crate::layers::is_norm(name), "{name}");
        }
        set.disable();
        assert!(set.active().is_none() && shared(&set));
        set.activate("b").unwrap();
        set.remove("b").unwrap();
        assert!(set.active().is_none());
        assert_eq!(set.names().collect::<Vec<_>>(), ["a"]);
    }

    #[test]
    fn errors_name_the_adapter_and_those_there_are() {
        let mut set = set();
        let taken = set.get("a").unwrap().clone();
        for error in [
            set.activate("c").unwrap_err(),
            set.remove("c").unwrap_err(),
            set.get("c").unwrap_err(),
            set.add("a", taken.clone()).unwrap_err(),
        ] {
            let message = error.to_string();
            assert!(message.contains("there are: a, b"), "{message}");
        }
        let mut short = taken;
        short.tensors.remove("aurora_lambda");
        let message = set.add("c", short).unwrap_err().to_string();
        assert!(
            message.contains("adapter \"c\"") && message.contains("aurora_lambda"),
            "{message}"
        );
    }
}
