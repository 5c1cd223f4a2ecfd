//! Model loading by name: the embedded backbone or a user's, bare or with an adapter.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use aurora_data::{Dataset, Split, Tokenizer};
use aurora_layers::checkpoint::PretrainedSource;
use aurora_layers::{Backbone, Blip, BoundModel, load_adapter};
use aurora_train::config::{Config, ModelSection, RunConfig, SimilarityWeight, Task};
use aurora_train::pipeline::{DataModule, EvalResult, Evaluator, Model, open as open_data};
use aurora_train::progress::Progress;
use candle_core::Device;

use crate::args::BaseArgs;
use crate::exit_code::bad_input;
use crate::{embedded_backbone, output};

/// Loads `nano` or the backbone at a path onto a device, for a task; reports on standard error how its tensors were
/// used.
///
/// # Errors
/// A missing path; a file that is missing, truncated or contradicts the others; a backbone for another task.
pub fn open(section: &ModelSection, task: Task, device: &Device) -> Result<Model> {
    let name = &section.backbone;
    if name == embedded_backbone::NAME {
        let tokens = Tokenizer::new(embedded_backbone::VOCABULARY)?;
        return Ok(Model::from_backbone(section, task, embedded_backbone::load(device)?, tokens)?);
    }
    if !Path::new(name).exists() {
        return Err(missing_backbone("`model.backbone`", name));
    }
    let model = Model::open(section, task, device)?;
    output::note(&format!("{name}: {}", model.report.summary()));
    Ok(model)
}

/// Loads the backbone of an adapter: the given one, else the one that the adapter names.
///
/// # Errors
/// A missing path; a file that is missing, truncated or contradicts the others.
pub fn open_backbone(args: &BaseArgs, named: &str) -> Result<(String, Backbone)> {
    let name = args.backbone.as_deref().unwrap_or(named);
    if name == embedded_backbone::NAME {
        let backbone = embedded_backbone::load(&Device::Cpu)?;
        return Ok((
            name.to_owned(),
            match args.image_size {
                Some(size) => backbone.with_image_size(size)?,
                None => backbone,
            },
        ));
    }
    if !Path::new(name).exists() {
        return Err(match &args.backbone {
            Some(_) => missing_backbone("`--backbone`", name),
            None => bad_input(format!(
                "the adapter's backbone is {name:?}, and there is no such file or folder here; say \
                 where it is with --backbone"
            )),
        });
    }
    let mut pretrained = PretrainedSource::open(Path::new(name))?;
    if let Some(size) = args.image_size {
        pretrained = pretrained.with_image_size(size)?;
    }
    let (backbone, report) = pretrained.read(&Device::Cpu)?;
    output::note(&format!("{name}: {}", report.summary()));
    Ok((name.to_owned(), backbone))
}

/// Opens the configured device; notes about it go to standard error.
///
/// # Errors
/// A GPU that was asked for by name and cannot be used here.
pub fn device(config: &impl RunConfig) -> Result<Device> {
    let opened = config.device_choice()?.open()?;
    if let Some(note) = &opened.note {
        output::note(note);
    }
    Ok(opened.device)
}

/// Error for a missing backbone; `what` is where its path was given.
pub fn missing_backbone(what: &str, path: &str) -> anyhow::Error {
    bad_input(format!(
        "{what} is {path:?}, and there is no such file or folder; allowed: {:?}, a folder with \
         config.json and model.safetensors as transformers has them, or a .pth file",
        embedded_backbone::NAME
    ))
}

/// Loaded model, ready to encode and match.
pub struct LoadedModel {
    /// BLIP towers.
    pub blip: Arc<Blip>,
    /// Bound parameters, those of the adapter included.
    pub bound: BoundModel,
}

impl LoadedModel {
    /// Binds the adapter, if there is one, to the model.
    ///
    /// # Errors
    /// An adapter that is missing, damaged or made for another backbone.
    pub fn new(model: &Model, adapter: Option<&Path>) -> Result<Self> {
        let frozen = Arc::new(model.backbone.model()?);
        let Some(folder) = adapter else {
            let bound = frozen.bind_frozen()?;
            return Ok(Self { blip: frozen, bound });
        };
        let tuned = load_adapter(folder, &model.backbone, &model.backbone.device())?;
        let blip = tuned.model(&frozen)?;
        let bound = tuned.bind(&blip, None)?;
        Ok(Self { blip, bound })
    }

    /// Evaluates a dataset at the run's task, as a run does.
    ///
    /// # Errors
    /// An image that does not decode, a caption or question that is missing.
    pub fn measure(
        &self,
        evaluator: &Evaluator,
        dataset: &Dataset,
        similarity_weight: Option<f64>,
        progress: &mut dyn Progress,
    ) -> Result<EvalResult> {
        Ok(evaluator.evaluate((&self.blip, &self.bound), dataset, similarity_weight, progress)?)
    }

    /// Similarity weight: the factor of the similarity added to the matching logit. The configured one, or of several
    /// the best on the validation pairs; meaningless for tasks without retrieval.
    ///
    /// # Errors
    /// Validation pairs that cannot be read.
    pub fn similarity_weight(
        &self,
        evaluator: &Evaluator,
        config: &Config,
        progress: &mut dyn Progress,
    ) -> Result<f64> {
        match &config.evaluation.similarity_weight {
            SimilarityWeight::One(similarity_weight) => Ok(*similarity_weight),
            SimilarityWeight::Candidates(betas)
                if betas.len() == 1
                    || config.evaluation.k_test == 0
                    || config.task != Task::Retrieval =>
            {
                Ok(betas.first().copied().unwrap_or(0.0))
            }
            SimilarityWeight::Candidates(_) => {
                let data = &config.data;
                let skips = &evaluator.data_module().skips;
                let validation =
                    open_data(&data.validation, Split::Validation, &data.reading(), skips)?;
                progress.message("choosing the weight of the similarity on the validation pairs");
                let found = self.measure(evaluator, &validation, None, progress)?;
                Ok(found.similarity_weight().unwrap_or(0.0))
            }
        }
    }
}

/// Evaluator of a configuration. Candidate answers taken from the training questions are read here.
///
/// # Errors
/// As the readers of data.
pub fn evaluator(config: &Config, model: &Model) -> Result<Evaluator> {
    let data = &config.data;
    let skips = Arc::new(data.skips());
    let data_module = DataModule::new(config, &model.backbone.config, &model.tokens, &skips);
    let train = || open_data(&data.train, Split::Train, &data.reading(), &skips);
    Ok(Evaluator::new(config, data_module, train)?)
}
