//! Pretrained source: a backbone at a path, in any of the known formats.

use std::path::{Path, PathBuf};

use candle_core::Device;

use super::{Checkpoint, HEAD_WIDTH, LoadReport, POSITIONS, resize_positions};
use crate::tensors::get;
use crate::{
    Architecture, Backbone, BlipConfig, DecoderTokens, Error, Result, reference_checkpoint,
};

/// Reason to ignore tensors that a reference checkpoint has beside its backbone.
const ADAPTER: &str = "adapter of the reference code";

/// Known formats, in the words of the errors.
const KINDS: &str = "a backbone is a folder with config.json and model.safetensors as transformers has them, \
                     or a .pth file";

/// Format of a backbone, by the code that wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckpointFormat {
    /// Hugging Face's transformers, as ours: `config.json` with `model_type` "blip".
    HuggingFace,
    /// PyTorch code of BLIP or Aurora: one file, its sizes inferred from shapes.
    Original,
}

/// Pretrained backbone on disk: its configuration is known, its tensors are not read yet.
#[derive(Debug)]
pub struct PretrainedSource {
    /// Path that was opened.
    pub path: PathBuf,
    /// Format.
    pub format: CheckpointFormat,
    /// Configuration of the model.
    pub config: BlipConfig,
    /// Checkpoint; none where the path is a `config.json`, which describes a model without its weights.
    pub checkpoint: Option<Checkpoint>,
}

impl PretrainedSource {
    /// Opens a backbone's folder (one file, shards or `pytorch_model.bin`), a `.pth` or safetensors file, or a lone
    /// `config.json`. The sizes of a file are those of the `config.json` beside it, or inferred from its shapes.
    ///
    /// # Errors
    /// A path that is none of these, an invalid configuration, a file that is truncated: each names the file.
    pub fn open(path: &Path) -> Result<Self> {
        let wrong = |reason: String| Error::Format { path: path.into(), reason };
        let config = match (path.is_dir(), path.is_file()) {
            (true, _) => path.join("config.json"),
            (_, true) if path.extension().is_some_and(|extension| extension == "json") => {
                return Self::described(path, path, None);
            }
            (_, true) => path.with_file_name("config.json"),
            _ => return Err(wrong(format!("is not there; {KINDS}"))),
        };
        if path.is_dir() && !config.is_file() {
            return Err(wrong(format!("holds no config.json; {KINDS}")));
        }
        let torch = path.join("pytorch_model.bin");
        let is_torch = torch.is_file()
            && !["model.safetensors", "model.safetensors.index.json"]
                .iter()
                .any(|name| path.join(name).is_file());
        let weights = if is_torch { &torch } else { path };
        let checkpoint = Checkpoint::open(weights)?;
        if config.is_file() {
            return Self::described(path, &config, Some(checkpoint));
        }
        let config = checkpoint.infer_config(HEAD_WIDTH).map_err(|error| {
            wrong(format!("{error}; or put a config.json with the sizes beside it"))
        })?;
        Ok(Self {
            path: path.into(),
            format: CheckpointFormat::Original,
            config,
            checkpoint: Some(checkpoint),
        })
    }

    fn described(path: &Path, config: &Path, checkpoint: Option<Checkpoint>) -> Result<Self> {
        let text = std::fs::read_to_string(config).map_err(|source| Error::File {
            action: "read",
            path: config.into(),
            source,
        })?;
        let config = BlipConfig::from_json(&text, config)?;
        let format = CheckpointFormat::HuggingFace;
        Ok(Self { path: path.into(), format, config, checkpoint })
    }

    /// Changes the image size, in pixels: position embeddings are resized when the tensors are read.
    ///
    /// # Errors
    /// A size that patches do not tile.
    pub fn with_image_size(mut self, size: usize) -> Result<Self> {
        self.config = resized(&self.config, size)?;
        Ok(self)
    }

    /// Turns the source into one for question answering, if it was taken for retrieval and the checkpoint has a decoder
    /// too, as those of BLIP's pretraining have.
    #[must_use]
    pub fn for_vqa(mut self, tokens: DecoderTokens) -> Self {
        let word = "text_decoder.bert.embeddings.word_embeddings.weight";
        let decodes =
            self.checkpoint.as_ref().is_some_and(|stored| stored.tensor_info(word).is_some());
        if self.config.architecture == Architecture::Retrieval && decodes {
            self.config.architecture = Architecture::QuestionAnswering(tokens);
        }
        self
    }

    /// Reads the backbone. The adapter in a checkpoint of the reference code is ignored;
    /// [`Checkpoint::backbone_and_adapter`] reads both.
    ///
    /// # Errors
    /// A `config.json` alone; a report of everything that does not fit, which names the path.
    pub fn read(&self, device: &Device) -> Result<(Backbone, LoadReport)> {
        let wrong = |reason: String| Error::Format { path: self.path.clone(), reason };
        let Some(checkpoint) = &self.checkpoint else {
            return Err(wrong(format!("describes a model, and its weights are needed; {KINDS}")));
        };
        let (backbone, mut report) = checkpoint.backbone_with_extra(
            &self.config,
            device,
            reference_checkpoint::is_adapter,
        )?;
        let adapter = checkpoint.names().filter(|name| reference_checkpoint::is_adapter(name));
        report.ignored.extend(adapter.map(|name| (name.to_owned(), ADAPTER)));
        Ok((backbone, report))
    }
}

impl Backbone {
    /// Resizes the position embeddings for another image size, in pixels.
    ///
    /// # Errors
    /// A size that patches do not tile.
    pub fn with_image_size(mut self, size: usize) -> Result<Self> {
        let (from, config) = (self.config.vision.grid(), resized(&self.config, size)?);
        let positions = get(&self.tensors, POSITIONS)?;
        let positions = resize_positions(&positions, from, config.vision.grid())?;
        self.tensors.insert(POSITIONS.to_owned(), positions);
        Ok(Self { config, ..self })
    }
}

fn resized(config: &BlipConfig, size: usize) -> Result<BlipConfig> {
    let patch = config.vision.patch_size;
    if size == 0 || !size.is_multiple_of(patch) {
        let reason = format!(
            "must be a multiple of the patch size {patch}, such as {} or {}",
            (size / patch).max(1) * patch,
            (size / patch + 1) * patch
        );
        return Err(Error::config("image_size", size, reason));
    }
    let mut config = config.clone();
    config.vision.image_size = size;
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::tiny;
    use candle_core::DType;

    fn refused(path: &Path) -> String {
        PretrainedSource::open(path).unwrap_err().to_string()
    }

    #[test]
    fn a_folder_of_ours_is_read_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let backbone = Backbone::random(tiny(), 1, &Device::Cpu).unwrap();
        backbone.write(folder.path(), DType::F32).unwrap();
        let pretrained = PretrainedSource::open(folder.path()).unwrap();
        assert_eq!(
            (pretrained.format, &pretrained.config),
            (CheckpointFormat::HuggingFace, &tiny())
        );
        let (read, report) = pretrained.read(&Device::Cpu).unwrap();
        assert_eq!(read.fingerprint().unwrap(), backbone.fingerprint().unwrap());
        assert!(report.complete() && report.reshaped.is_empty() && report.ignored.is_empty());
        // The weights' own path is enough: the configuration lies beside it.
        let pretrained = PretrainedSource::open(&folder.path().join("model.safetensors")).unwrap();
        assert_eq!(pretrained.config, tiny());
    }

    #[test]
    fn another_image_size_is_the_same_on_the_way_in_and_afterwards() {
        let folder = tempfile::tempdir().unwrap();
        let backbone = Backbone::random(tiny(), 1, &Device::Cpu).unwrap();
        backbone.write(folder.path(), DType::F32).unwrap();
        let pretrained =
            PretrainedSource::open(folder.path()).unwrap().with_image_size(32).unwrap();
        let (read, report) = pretrained.read(&Device::Cpu).unwrap();
        let later = backbone.with_image_size(32).unwrap();
        assert_eq!((&read.config, read.config.vision.tokens()), (&later.config, 17));
        assert_eq!(read.fingerprint().unwrap(), later.fingerprint().unwrap());
        assert!(report.reshaped[0].contains("pos_embed [1, 5, 24] to [1, 17, 24]"), "{report}");
        let message = later.with_image_size(20).unwrap_err().to_string();
        assert!(message.contains("image_size = 20") && message.contains("16 or 24"), "{message}");
    }

    #[test]
    fn a_decoder_beside_the_heads_is_read_for_answering() {
        let folder = tempfile::tempdir().unwrap();
        let tokens = DecoderTokens { start_token_id: 18, end_token_id: 3, pad_token_id: 0 };
        let retrieval = Backbone::random(tiny(), 1, &Device::Cpu).unwrap();
        retrieval.write(folder.path(), DType::F32).unwrap();
        let pretrained = PretrainedSource::open(folder.path()).unwrap().for_vqa(tokens);
        assert_eq!(pretrained.config.architecture, Architecture::Retrieval, "there is no decoder");
        let started = retrieval.clone().init_decoder_from_encoder(tokens).unwrap();
        started.model().unwrap();
        assert!(started.clone().init_decoder_from_encoder(tokens).is_err());
        let both = retrieval.tensors.into_iter().chain(started.tensors.clone()).collect();
        Backbone { config: tiny(), tensors: both }.write(folder.path(), DType::F32).unwrap();
        let pretrained = PretrainedSource::open(folder.path()).unwrap();
        assert_eq!(pretrained.read(&Device::Cpu).unwrap().0.config, tiny());
        let (read, _) = pretrained.for_vqa(tokens).read(&Device::Cpu).unwrap();
        assert_eq!(read.fingerprint().unwrap(), started.fingerprint().unwrap());
    }

    #[test]
    fn a_configuration_alone_has_sizes_and_no_numbers() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        std::fs::write(&path, tiny().to_json().to_string()).unwrap();
        let pretrained = PretrainedSource::open(&path).unwrap();
        assert!(pretrained.checkpoint.is_none() && pretrained.config == tiny());
        let message = pretrained.read(&Device::Cpu).unwrap_err().to_string();
        assert!(message.contains("config.json") && message.contains("weights"), "{message}");
        // A folder has to have weights.
        assert!(refused(folder.path()).contains("model.safetensors"));
    }

    #[test]
    fn what_is_no_backbone_says_what_would_be() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        assert!(refused(&folder.path().join("nothing")).contains("is not there"));
        assert!(refused(folder.path()).contains("holds no config.json"));
        for (text, wanted) in [
            ("{\"a\": 1}", "none of model_type"),
            ("[1", "not a Hugging Face BLIP configuration"),
            ("{\"model_type\": \"bert\"}", "only \"blip\""),
            ("{\"vision\": 1}", "not a BLIP configuration"),
        ] {
            std::fs::write(&path, text).unwrap();
            let message = refused(&path);
            assert!(message.contains("config.json") && message.contains(wanted), "{message}");
        }
    }

    #[test]
    fn weights_that_do_not_fit_are_told_with_their_path() {
        let folder = tempfile::tempdir().unwrap();
        let mut backbone = Backbone::random(tiny(), 1, &Device::Cpu).unwrap();
        backbone.tensors.remove("itm_head.bias");
        backbone.write(folder.path(), DType::F32).unwrap();
        let message =
            PretrainedSource::open(folder.path()).unwrap().read(&Device::Cpu).unwrap_err();
        let message = message.to_string();
        let path = folder.path().display().to_string();
        assert!(message.contains(&path) && message.contains("missing: itm_head.bias"), "{message}");
    }
}
