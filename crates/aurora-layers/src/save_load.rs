//! Adapter folder in PEFT's layout: `adapter_model.safetensors`, `adapter_config.json`, `README.md`.

use crate::checkpoint::read_tensors;
use crate::io::{read_json, write_text};
use crate::tensors::{self, Tensors};
use crate::{AdaptedParams, AdapterConfig, Backbone, Error, Result};
use candle_core::{DType, Device};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

pub(crate) const WEIGHTS: &str = "adapter_model.safetensors";
pub(crate) const CONFIG: &str = "adapter_config.json";
const PEFT_TYPE: &str = "AURORA";

/// Content of `adapter_config.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AdapterFolder {
    /// Always "AURORA".
    pub peft_type: String,
    /// Configuration of the adapter.
    #[serde(flatten)]
    pub adapter_config: AdapterConfig,
    /// Name or folder of the backbone, for people.
    pub base_model_name_or_path: String,
    /// Fingerprint of the backbone's weights; loading on others is refused.
    pub base_model_fingerprint: String,
}

impl AdapterFolder {
    /// Reads `adapter_config.json`, without the weights.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(CONFIG);
        let config: Self = read_json(&path, "an adapter configuration")?;
        if config.peft_type != PEFT_TYPE {
            let reason =
                format!("peft_type is {:?}; this loader reads {PEFT_TYPE:?}", config.peft_type);
            return Err(Error::Format { path, reason });
        }
        Ok(config)
    }

    /// Tensors of the folder, under the names of [`AdaptedParams`].
    pub fn read_tensors(folder: &Path, device: &Device) -> Result<Tensors> {
        let path = folder.join(WEIGHTS);
        let stored = read_tensors(&path, DType::F32, device)?;
        let strip = |name: &str| {
            Some(
                name.strip_prefix("base_model.model.")
                    .or(name.strip_prefix("base_model."))?
                    .to_string(),
            )
        };
        stored
            .into_iter()
            .map(|(name, tensor)| match strip(&name) {
                Some(short) => Ok((short, tensor)),
                None => Err(Error::Mismatch {
                    what: path.display().to_string(),
                    report: format!("unexpected: {name} (every name begins with base_model.)"),
                }),
            })
            .collect()
    }

    /// Path of the weights in an adapter folder.
    pub fn weights_path(folder: &Path) -> PathBuf {
        folder.join(WEIGHTS)
    }
}

fn stored_name(name: &str) -> String {
    if name.starts_with("aurora_") {
        format!("base_model.{name}")
    } else {
        format!("base_model.model.{name}")
    }
}

/// Writes an adapter folder. `base` names the backbone for people, `card` is the text of its `README.md`.
///
/// Every file is written aside and renamed; the configuration comes last, so a folder that has one is complete.
pub fn save_adapter(
    folder: &Path,
    tuned: &AdaptedParams,
    backbone: &Backbone,
    base: &str,
    card: &str,
) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(|source| Error::File {
        action: "create",
        path: folder.into(),
        source,
    })?;
    let stored = tuned.tensors.iter().map(|(name, tensor)| (stored_name(name), tensor.detach()));
    tensors::write(&stored.collect(), &folder.join(WEIGHTS))?;
    let config = AdapterFolder {
        peft_type: PEFT_TYPE.into(),
        adapter_config: tuned.adapter_config.clone(),
        base_model_name_or_path: base.into(),
        base_model_fingerprint: backbone.fingerprint()?,
    };
    let path = folder.join(CONFIG);
    let text = serde_json::to_string_pretty(&config)
        .map_err(|error| Error::Format { path: path.clone(), reason: error.to_string() })?;
    write_text(&folder.join("README.md"), card)?;
    write_text(&path, &format!("{text}\n"))
}

/// Loads an adapter onto the backbone it was made for.
///
/// # Errors
/// [`Error::OtherBackbone`] for another backbone; [`Error::Mismatch`] that lists every missing, unexpected or
/// misshapen tensor.
pub fn load_adapter(folder: &Path, backbone: &Backbone, device: &Device) -> Result<AdaptedParams> {
    let config = AdapterFolder::read(folder)?;
    let found = backbone.fingerprint()?;
    if found != config.base_model_fingerprint {
        return Err(Error::OtherBackbone {
            path: folder.into(),
            expected: config.base_model_fingerprint,
            found,
        });
    }
    let tensors = AdapterFolder::read_tensors(folder, device)?;
    AdaptedParams::from_tensors(
        config.adapter_config,
        &backbone.config,
        &folder.join(WEIGHTS).display().to_string(),
        tensors,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::tiny;
    use crate::{AdapterKind, Variant};

    fn saved() -> (tempfile::TempDir, Backbone, AdaptedParams) {
        let backbone = Backbone::random(tiny(), 1, &Device::Cpu).unwrap();
        let adapter_config = AdapterConfig::new(AdapterKind::Cp, Variant::Paper, 4);
        let tuned = AdaptedParams::init(adapter_config, &backbone, 2, &Device::Cpu).unwrap();
        let folder = tempfile::tempdir().unwrap();
        save_adapter(folder.path(), &tuned, &backbone, "tiny", "card").unwrap();
        (folder, backbone, tuned)
    }

    fn rewrite(folder: &Path, change: impl FnOnce(&mut Tensors)) {
        let path = folder.join(WEIGHTS);
        let mut stored = read_tensors(&path, DType::F32, &Device::Cpu).unwrap();
        change(&mut stored);
        tensors::write(&stored, &path).unwrap();
    }

    #[test]
    fn comes_back_as_it_was() {
        let (folder, backbone, tuned) = saved();
        let back = load_adapter(folder.path(), &backbone, &Device::Cpu).unwrap();
        assert_eq!(back.adapter_config, tuned.adapter_config);
        assert_eq!(
            tensors::fingerprint(&back.tensors).unwrap(),
            tensors::fingerprint(&tuned.tensors).unwrap()
        );
    }

    #[test]
    fn missing_extra_and_misshapen_tensors_are_named() {
        for (change, name) in [
            (
                Box::new(|t: &mut Tensors| drop(t.remove("base_model.aurora_lambda")))
                    as Box<dyn FnOnce(&mut Tensors)>,
                "missing: aurora_lambda",
            ),
            (
                Box::new(|t: &mut Tensors| {
                    drop(t.insert("base_model.extra".into(), t["base_model.aurora_lambda"].clone()))
                }),
                "unexpected: extra",
            ),
            (
                Box::new(|t: &mut Tensors| {
                    drop(t.insert(
                        "base_model.aurora_lambda".into(),
                        t["base_model.aurora_u.16"].clone(),
                    ))
                }),
                "aurora_lambda is [16, 4], not [4]",
            ),
            (
                Box::new(|t: &mut Tensors| {
                    drop(t.insert("stray".into(), t["base_model.aurora_lambda"].clone()))
                }),
                "unexpected: stray",
            ),
        ] {
            let (folder, backbone, _) = saved();
            rewrite(folder.path(), change);
            let message =
                load_adapter(folder.path(), &backbone, &Device::Cpu).unwrap_err().to_string();
            assert!(message.contains(name) && message.contains(WEIGHTS), "{message}");
        }
    }

    #[test]
    fn another_backbone_is_refused() {
        let (folder, _, _) = saved();
        let other = Backbone::random(tiny(), 2, &Device::Cpu).unwrap();
        let error = load_adapter(folder.path(), &other, &Device::Cpu).unwrap_err();
        assert!(matches!(error, Error::OtherBackbone { .. }), "{error}");
    }
}
