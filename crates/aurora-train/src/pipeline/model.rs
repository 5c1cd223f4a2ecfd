//! Model loading: from `[model]` to a backbone with its tokenizer.

use aurora_data::Tokenizer;
use aurora_layers::checkpoint::{LoadReport, PretrainedSource};
use aurora_layers::{Architecture, Backbone, DecoderTokens};
use candle_core::Device;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::{DecoderSource, ModelSection, Task};
use crate::error::{Error, Result};

/// Tokenizer files beside a backbone's weights; the first that exists is taken.
pub const TOKENIZER_FILES: [&str; 2] = ["tokenizer.json", "vocab.txt"];

/// Backbone with its tokenizer.
#[derive(Debug)]
pub struct Model {
    /// Name in configurations and adapters.
    pub name: String,
    /// Frozen weights.
    pub backbone: Backbone,
    /// Tokenizer that the backbone was trained with.
    pub tokens: Arc<Tokenizer>,
    /// Load report: the outcome for every tensor of the file.
    pub report: LoadReport,
}

impl Model {
    /// Opens the backbone at the section's path, of any kind that [`PretrainedSource`] knows, for a task and the
    /// section's image size, with its tokenizer, its weights on `device`.
    ///
    /// # Errors
    /// A file that is missing, cut or contradicts the others; a tokenizer that is missing or of another size; a
    /// backbone that is for another task.
    pub fn open(section: &ModelSection, task: Task, device: &Device) -> Result<Self> {
        let path = Path::new(&section.backbone);
        let mut pretrained = PretrainedSource::open(path)?;
        if let Some(size) = section.other_image_size() {
            pretrained = pretrained.with_image_size(size)?;
        }
        // Tokenizer before the weights, which may take a while.
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

    /// Takes a backbone that was loaded elsewhere, for a task and the section's image size; `tokens` is its own
    /// tokenizer, which the section may replace.
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

/// Start, end and padding tokens of a decoder over this vocabulary.
fn decoder_tokens(tokens: &Tokenizer) -> DecoderTokens {
    let special = tokens.special();
    DecoderTokens {
        start_token_id: special.dec,
        end_token_id: special.sep,
        pad_token_id: special.pad,
    }
}

/// True if the task needs a decoder initialized from the text encoder of a backbone of this architecture.
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

/// Tokenizer file of a backbone: in its folder, or beside its file.
///
/// # Errors
/// [`Error::NoTokenizer`] with the files that were looked for.
pub fn tokenizer_beside(backbone: &Path) -> Result<PathBuf> {
    let folder = if backbone.is_dir() { Some(backbone) } else { backbone.parent() };
    let looked = TOKENIZER_FILES.map(|name| folder.unwrap_or(Path::new("")).join(name));
    match looked.iter().find(|path| path.is_file()) {
        Some(path) => Ok(path.clone()),
        None => Err(Error::NoTokenizer { looked: looked.to_vec() }),
    }
}

/// Checks that every row of the word embeddings has its word piece, and every word piece its row.
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
