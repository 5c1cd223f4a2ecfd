//! Backbone folder in the layout of transformers: `config.json`, `model.safetensors`, and beside them a vocabulary.

use crate::checkpoint::Checkpoint;
use crate::decoder::Decoder;
use crate::layers::is_norm;
use crate::tensors::{self, Tensors};
use crate::{Architecture, Blip, BlipConfig, DecoderTokens, Error, HEADS, Result};
use aurora_kernels::random::Stream;
use candle_core::{DType, Device, Tensor};
use std::path::Path;

/// Backbone: the frozen weights of a BLIP model and its configuration.
#[derive(Debug, Clone)]
pub struct Backbone {
    /// Configuration of the model.
    pub config: BlipConfig,
    /// Tensors under their original BLIP names, f32.
    pub tensors: Tensors,
}

impl Backbone {
    /// Reads a backbone folder. Weights stored as f16 or bf16 become f32.
    ///
    /// # Errors
    /// A file that is missing, truncated or contradicts the configuration, by name.
    pub fn read(folder: &Path, device: &Device) -> Result<Self> {
        let config = folder.join("config.json");
        let text = std::fs::read_to_string(&config).map_err(|source| Error::File {
            action: "read",
            path: config.clone(),
            source,
        })?;
        let config = BlipConfig::from_json(&text, &config)?;
        let weights = Checkpoint::open(&folder.join("model.safetensors"))?;
        Ok(weights.backbone(&config, device)?.0)
    }

    /// Backbone from bytes in memory; `path` only names the source in errors.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn from_bytes(config: &str, weights: &[u8], path: &Path, device: &Device) -> Result<Self> {
        let config = BlipConfig::from_json(config, &path.with_file_name("config.json"))?;
        let weights = Checkpoint::from_bytes(weights.to_vec(), path)?;
        Ok(weights.backbone(&config, device)?.0)
    }

    /// Random backbone, as pretraining starts from: initialization of BERT and ViT without truncation (normal 0.02,
    /// norms one, biases zero).
    pub fn random(config: BlipConfig, seed: u64, device: &Device) -> Result<Self> {
        config.check()?;
        let mut tensors = Tensors::new();
        for (name, shape) in Blip::param_shapes(&config) {
            let tensor = match (is_norm(&name), name.ends_with("bias")) {
                (_, true) => Tensor::zeros(shape, DType::F32, device)?,
                (true, false) => Tensor::ones(shape, DType::F32, device)?,
                (false, false) => {
                    Stream::new(seed, &name, 0, 0).normal_tensor(shape, 0.02)?.to_device(device)?
                }
            };
            tensors.insert(name, tensor);
        }
        Ok(Self { config, tensors })
    }

    /// Question answering model whose untrained decoder is initialized from the text encoder of this retrieval model;
    /// the heads of retrieval are dropped. Deterministic.
    ///
    /// # Errors
    /// A backbone of another architecture; tokens outside of its vocabulary.
    pub fn init_decoder_from_encoder(self, tokens: DecoderTokens) -> Result<Self> {
        let Self { mut config, mut tensors } = self;
        if config.architecture != Architecture::Retrieval {
            let reason = "must be retrieval for a decoder to be started from its text encoder";
            return Err(Error::config("architecture", config.architecture, reason));
        }
        config.architecture = Architecture::QuestionAnswering(tokens);
        config.check()?;
        let device = tensors.values().next().map_or(Device::Cpu, |tensor| tensor.device().clone());
        tensors.extend(Decoder::init_from_encoder(&config.text, &tensors, &device)?);
        tensors.retain(|name, _| !HEADS.iter().any(|head| name.starts_with(head)));
        Ok(Self { config, tensors })
    }

    /// Model over these tensors.
    pub fn model(&self) -> Result<Blip> {
        Blip::new(&self.config, &self.tensors)
    }

    /// Device of the weights.
    pub fn device(&self) -> Device {
        self.tensors.values().next().map_or(Device::Cpu, |tensor| tensor.device().clone())
    }

    /// Number of parameters.
    pub fn parameters(&self) -> usize {
        self.tensors.values().map(|tensor| tensor.elem_count()).sum()
    }

    /// Fingerprint of the weights, independent of the type they are stored in.
    pub fn fingerprint(&self) -> Result<String> {
        tensors::fingerprint(&self.tensors)
    }
}
