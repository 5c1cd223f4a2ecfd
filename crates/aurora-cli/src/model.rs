//! A model by its name: the embedded backbone or a folder, bare or with an adapter.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use aurora_data::Tokens;
use aurora_layers::{Backbone, Blip, Prepared, load_adapter};
use aurora_train::config::{Beta, Config};
use aurora_train::pipeline::{Evaluation, measure};
use aurora_train::progress::Progress;
use candle_core::Device;

use crate::failure::bad_input;
use crate::nano;

/// A backbone with its vocabulary.
#[derive(Debug)]
pub struct Model {
    /// What configurations and adapters call it.
    pub name: String,
    /// The frozen weights.
    pub backbone: Backbone,
    /// The tokenizer that the backbone was trained with.
    pub tokens: Arc<Tokens>,
}

impl Model {
    /// Opens `nano` or a folder with config.json, model.safetensors and vocab.txt.
    ///
    /// # Errors
    /// A file that is missing, cut or contradicts the others.
    pub fn open(name: &str) -> Result<Self> {
        let (backbone, tokens) = if name == nano::NAME {
            (nano::backbone()?, Tokens::new(nano::VOCABULARY)?)
        } else {
            let folder = Path::new(name);
            if !folder.is_dir() {
                return Err(bad_input(format!(
                    "`model.backbone` is {name:?}, which is no folder; allowed: {:?}, or a folder \
                     with config.json, model.safetensors and vocab.txt",
                    nano::NAME
                )));
            }
            let backbone = Backbone::read(folder, &Device::Cpu)?;
            (backbone, Tokens::from_file(&folder.join("vocab.txt"))?)
        };
        let (pieces, rows) = (tokens.vocab_size(), backbone.config.text.vocab_size);
        if pieces != rows {
            return Err(bad_input(format!(
                "{name}: vocab.txt has {pieces} word pieces, but config.json says \
                 text.vocab_size = {rows}"
            )));
        }
        Ok(Self { name: name.to_owned(), backbone, tokens: Arc::new(tokens) })
    }

    /// The model ready to encode, with an adapter if there is one.
    ///
    /// # Errors
    /// An adapter that is missing, damaged or made for another backbone.
    pub fn ready(&self, adapter: Option<&Path>) -> Result<Ready> {
        let frozen = Arc::new(self.backbone.model()?);
        let Some(folder) = adapter else {
            let prepared = frozen.bare()?;
            return Ok(Ready { blip: frozen, prepared });
        };
        let tuned = load_adapter(folder, &self.backbone, &Device::Cpu)?;
        let blip = tuned.model(&frozen)?;
        let prepared = tuned.prepare(&blip, None)?;
        Ok(Ready { blip, prepared })
    }
}

/// A model that can encode and match.
pub struct Ready {
    /// The towers.
    pub blip: Arc<Blip>,
    /// What an adapter adds to them.
    pub prepared: Prepared,
}

impl Ready {
    /// Retrieval of a dataset, as a run measures it.
    ///
    /// # Errors
    /// A picture that does not decode, a caption that is missing.
    pub fn measure(
        &self,
        dataset: &aurora_data::Dataset,
        tokens: &Tokens,
        config: &Config,
        beta: Option<f64>,
        progress: &mut dyn Progress,
    ) -> Result<Evaluation> {
        let keywords = config.data.evaluation_keywords;
        let (blip, prepared) = (self.blip.as_ref(), &self.prepared);
        let section = &config.evaluation;
        Ok(measure((blip, prepared), dataset, tokens, keywords, section, beta, progress)?)
    }

    /// The weight of the similarity beside the matching logit: the one in the configuration, or of
    /// several the one that does best on the validation pairs.
    ///
    /// # Errors
    /// Validation pairs that cannot be read.
    pub fn beta(
        &self,
        tokens: &Tokens,
        config: &Config,
        progress: &mut dyn Progress,
    ) -> Result<f64> {
        match &config.evaluation.beta {
            Beta::One(beta) => Ok(*beta),
            Beta::Candidates(betas) if betas.len() == 1 || config.evaluation.k_test == 0 => {
                Ok(betas.first().copied().unwrap_or(0.0))
            }
            Beta::Candidates(_) => {
                let split = aurora_data::Split::Validation;
                let validation = aurora_train::pipeline::open(&config.data.validation, split)?;
                progress.message("choosing the weight of the similarity on the validation pairs");
                Ok(self.measure(&validation, tokens, config, None, progress)?.beta)
            }
        }
    }
}
