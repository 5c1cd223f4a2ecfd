//! From a configuration's words for a model to a backbone with its vocabulary.

use aurora_data::Tokenizer;
use aurora_layers::checkpoint::{LoadReport, PretrainedSource};
use aurora_layers::{Architecture, Backbone, DecoderTokens};
use candle_core::Device;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::{DecoderSource, ModelSection, Task};
use crate::error::{Error, Result};

/// Names of a vocabulary beside a backbone's weights; the first that is there is taken.
pub const TOKENIZER_FILES: [&str; 2] = ["tokenizer.json", "vocab.txt"];

/// A backbone with its vocabulary.
#[derive(Debug)]
pub struct Model {
    /// What configurations and adapters call it.
    pub name: String,
    /// The frozen weights.
    pub backbone: Backbone,
    /// The tokenizer that the backbone was trained with.
    pub tokens: Arc<Tokenizer>,
    /// What became of every tensor of the file.
    pub report: LoadReport,
}

impl Model {
    /// Opens the backbone at the path that the section gives, of any kind that [`PretrainedSource`] knows, for a task and the
    /// section's image size and with its vocabulary, its weights on `device`.
    ///
    /// # Errors
    /// A file that is missing, cut or contradicts the others; a vocabulary that is nowhere or of another size; a
    /// backbone that is for another task.
    pub fn open(section: &ModelSection, task: Task, device: &Device) -> Result<Self> {
        let path = Path::new(&section.backbone);
        let mut pretrained = PretrainedSource::open(path)?;
        if let Some(size) = section.other_image_size() {
            pretrained = pretrained.with_image_size(size)?;
        }
        // Before the weights, which may take a while.
        let vocabulary = match section.tokenizer_file() {
            Some(file) => file.to_owned(),
            None => tokenizer_beside(path)?,
        };
        let tokens = Tokenizer::from_file(&vocabulary)?;
        fits(&tokens, &vocabulary, pretrained.config.text.vocab_size)?;
        if task == Task::Vqa && section.decoder == DecoderSource::Checkpoint {
            pretrained = pretrained.for_vqa(decoder_tokens(&tokens));
        }
        let begins = begins_decoder(pretrained.config.architecture, section, task)?;
        let (backbone, report) = pretrained.read(device)?;
        let backbone = match begins {
            true => backbone.init_decoder_from_encoder(decoder_tokens(&tokens))?,
            false => backbone,
        };
        Ok(Self { name: section.backbone.clone(), backbone, tokens: Arc::new(tokens), report })
    }

    /// A backbone that came from elsewhere, for a task and the section's image size; `tokens` are its own vocabulary,
    /// which the section may replace.
    ///
    /// # Errors
    /// An image size that patches do not tile, a vocabulary of another size, a backbone that is for another task.
    pub fn from_backbone(
        section: &ModelSection,
        task: Task,
        backbone: Backbone,
        tokens: Tokenizer,
    ) -> Result<Self> {
        let backbone = match section.other_image_size() {
            Some(size) => backbone.with_image_size(size)?,
            None => backbone,
        };
        let (tokens, path) = match section.tokenizer_file() {
            Some(file) => (Tokenizer::from_file(file)?, file),
            None => (tokens, Path::new(&section.backbone)),
        };
        fits(&tokens, path, backbone.config.text.vocab_size)?;
        let backbone = match begins_decoder(backbone.config.architecture, section, task)? {
            true => backbone.init_decoder_from_encoder(decoder_tokens(&tokens))?,
            false => backbone,
        };
        let report = LoadReport { loaded: backbone.tensors.len(), ..LoadReport::default() };
        Ok(Self { name: section.backbone.clone(), backbone, tokens: Arc::new(tokens), report })
    }
}

/// The tokens that a decoder over this vocabulary writes with.
fn decoder_tokens(tokens: &Tokenizer) -> DecoderTokens {
    let special = tokens.special();
    DecoderTokens {
        start_token_id: special.dec,
        end_token_id: special.sep,
        pad_token_id: special.pad,
    }
}

/// Whether a decoder is to be begun for the task, from the text encoder of a backbone of this form.
fn begins_decoder(architecture: Architecture, section: &ModelSection, task: Task) -> Result<bool> {
    match (task, architecture, section.decoder) {
        (Task::Retrieval, Architecture::Retrieval, _)
        | (Task::Vqa, Architecture::QuestionAnswering(_), _) => Ok(false),
        (Task::Vqa, Architecture::Retrieval, DecoderSource::FromEncoder) => Ok(true),
        _ => Err(Error::ModelTaskMismatch {
            architecture: architecture.to_string(),
            task: task.name(),
        }),
    }
}

/// The vocabulary of a backbone: in its folder, or beside its file.
///
/// # Errors
/// [`Error::NoTokenizer`] with the places that were looked at.
pub fn tokenizer_beside(backbone: &Path) -> Result<PathBuf> {
    let folder = if backbone.is_dir() { Some(backbone) } else { backbone.parent() };
    let looked = TOKENIZER_FILES.map(|name| folder.unwrap_or(Path::new("")).join(name));
    match looked.iter().find(|path| path.is_file()) {
        Some(path) => Ok(path.clone()),
        None => Err(Error::NoTokenizer { looked: looked.to_vec() }),
    }
}

/// That every row of the word embeddings has its piece, and no piece is without a row.
fn fits(tokens: &Tokenizer, path: &Path, rows: usize) -> Result<()> {
    let pieces = tokens.vocab_size();
    if pieces == rows {
        return Ok(());
    }
    Err(Error::VocabSizeMismatch { path: path.into(), pieces, rows })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vocabulary_is_found_beside_the_weights_or_the_error_says_where_it_was_looked_for() {
        let folder = tempfile::tempdir().unwrap();
        let weights = folder.path().join("model.pth");
        std::fs::write(&weights, "").unwrap();
        for path in [folder.path(), weights.as_path()] {
            let message = tokenizer_beside(path).unwrap_err().to_string();
            for part in ["vocab.txt", "tokenizer.json", "model.tokenizer"] {
                assert!(message.contains(part), "{message}");
            }
        }
        for name in ["vocab.txt", "tokenizer.json"] {
            std::fs::write(folder.path().join(name), "").unwrap();
            assert_eq!(tokenizer_beside(&weights).unwrap(), folder.path().join(name));
        }
    }
}
