//! Resume: a run saves its training state and continues in another process.

use aurora_data::{Loader, LoaderState};
use aurora_layers::tensors::{Tensors, check, fingerprint};
use aurora_layers::{AdaptedParams, GradientCheckpointing};
use candle_core::Tensor;

use super::training_checkpoint::{
    self, BestMeta, CheckpointMeta, InputFingerprints, TrainingCheckpoint, VERSION,
};
use super::{Best, EvalResult, History, Run, baseline};
use crate::error::{Error, Result};
use crate::progress::Progress;

/// Prefix of the names of the best state's tensors.
const BEST: &str = "best.";

impl Run<'_> {
    /// Saves a checkpoint after `step` steps.
    pub(super) fn save(&mut self, step: u64, baseline: &EvalResult) -> Result<()> {
        let checkpoints = self.folder.checkpoints();
        if !checkpoints.baseline().exists() {
            checkpoints.write_baseline(|folder| baseline::write(folder, baseline))?;
        }
        // The checkpoint counts on its lines.
        self.history.metrics.to_disk()?;
        let fingerprints = match &self.fingerprints {
            Some(fingerprints) => fingerprints.clone(),
            None => self.fingerprints.insert(self.fingerprint_inputs()?).clone(),
        };
        let best = self.best.as_ref();
        let mut state = self.trainer.state()?;
        let of_best = best.iter().flat_map(|best| &best.tuned.tensors);
        state.extend(of_best.map(|(name, tensor)| (format!("{BEST}{name}"), tensor.clone())));
        let meta = CheckpointMeta {
            version: VERSION,
            step,
            seconds: self.seconds(),
            metrics_lines: self.history.records.len(),
            best: best.map(|best| BestMeta {
                primary: best.primary,
                similarity_weight: best.similarity_weight,
            }),
            gradient_checkpointing: self
                .trainer
                .checkpointing()
                .unwrap_or(GradientCheckpointing::None)
                .into(),
            skipped: self.inputs.splits.skips.list(),
            loader_state: self.loader.state(step),
            inputs: fingerprints,
            tensors: fingerprint(&state)?,
            config: serde_json::to_value(self.config)
                .map_err(|e| Error::io("write", self.folder.path(), e.into()))?,
        };
        checkpoints.write(step, self.config.checkpoint.keep_last, |folder| {
            training_checkpoint::write(folder, &meta, &state)
        })
    }

    /// Restores a checkpoint before the first step; gives the bare backbone's evaluation and the step to continue from.
    pub(super) fn restore(
        &mut self,
        saved: TrainingCheckpoint,
        progress: &mut dyn Progress,
    ) -> Result<(EvalResult, u64)> {
        let meta = &saved.meta;
        saved.check(self.config)?;
        self.verify_inputs(&saved)?;
        let tensors = saved.tensors()?;
        let fingerprint = fingerprint(&tensors)?;
        let (best, tensors): (Tensors, Tensors) =
            tensors.into_iter().partition(|(name, _)| name.starts_with(BEST));
        self.best = self.best_of(&saved, best)?;
        let file = saved.tensors_path().display().to_string();
        let loaded = self.trainer.load_state(&file, &tensors);
        loaded.map_err(|error| saved.damaged(&error))?;
        // After the names, whose errors tell more.
        saved.check_values(&fingerprint)?;
        self.trainer.fix_checkpointing(meta.gradient_checkpointing.into());
        self.inputs.splits.skips.restore(&saved.skipped(self.config));
        self.earlier = meta.seconds;
        let folder = self.folder.checkpoints().baseline();
        let baseline = match folder.exists() {
            true => baseline::read(&folder)?,
            // A removed baseline is evaluated anew.
            false => {
                let [_, baseline] = self.measure_backbone(progress)?;
                baseline
            }
        };
        self.history = History::cut(self.folder, meta.metrics_lines)?;
        let steps = self.config.schedule.steps;
        progress.message(&format!("going on after step {} of {steps}", meta.step));
        Ok((baseline, meta.step))
    }

    /// Best state so far, of tensors under their saved names, on the backbone's device.
    fn best_of(&self, saved: &TrainingCheckpoint, tensors: Tensors) -> Result<Option<Best>> {
        let online = self.trainer.online();
        let named =
            |(name, tensor): (&String, &Tensor)| (format!("{BEST}{name}"), tensor.shape().clone());
        let wanted: Vec<_> = match &saved.meta.best {
            Some(_) => online.tensors.iter().map(named).collect(),
            None => Vec::new(),
        };
        let file = saved.tensors_path().display().to_string();
        check(&file, &tensors, &wanted).map_err(|error| saved.damaged(&error.into()))?;
        let Some(BestMeta { primary, similarity_weight }) = saved.meta.best else {
            return Ok(None);
        };
        let device = self.inputs.backbone.device();
        let moved = tensors.into_iter().map(|(name, tensor)| {
            let name = name.strip_prefix(BEST).unwrap_or(&name).to_owned();
            Ok((name, tensor.to_device(&device)?))
        });
        let tuned = AdaptedParams {
            adapter_config: online.adapter_config.clone(),
            tensors: moved.collect::<Result<_>>()?,
        };
        Ok(Some(Best { primary, similarity_weight, tuned }))
    }

    /// Checks that the checkpoint is of this backbone and these data; their paths may have changed.
    fn verify_inputs(&mut self, saved: &TrainingCheckpoint) -> Result<()> {
        let then = &saved.meta.inputs;
        let now = self.fingerprint_inputs()?;
        let name = &self.inputs.backbone_name;
        if now.backbone != then.backbone {
            return Err(saved.refuse(format!(
                "the weights of `model.backbone` ({name}) have the fingerprint {}, and those of the run {}; give the backbone \
                 that it began with",
                now.backbone, then.backbone
            )));
        }
        if now.device != then.device {
            return Err(saved.refuse(format!(
                "the run computes on a {}, and `device` is a {} now, which rounds otherwise; go on where it began",
                then.device, now.device
            )));
        }
        let lists = [
            ("model.tokenizer", "pieces", &now.tokenizer, &then.tokenizer),
            ("data.answer_list", "answers to choose from", &now.answers, &then.answers),
        ];
        if let Some((key, what, ..)) = lists.into_iter().find(|(_, _, now, then)| now != then) {
            return Err(saved.refuse(format!(
                "`{key}` gives other {what} than when the run began, or in another order; give the list that it began with"
            )));
        }
        let same = |key: &str, loader: &Loader, then: &LoaderState| {
            loader.resume(then).map_err(|error| saved.refuse(format!("`{key}`: {error}")))
        };
        let (data_module, splits) = (self.evaluator.data_module(), &self.inputs.splits);
        same("data.validation", &data_module.eval_loader(&splits.validation)?, &then.validation)?;
        same("data.test", &data_module.eval_loader(&splits.test)?, &then.test)?;
        let next = same("data.train", &self.loader, &saved.meta.loader_state)?;
        if next != saved.step() {
            return Err(saved.damaged(&Error::Count {
                operation: "state.json",
                name: "steps in the data",
                found: next as usize,
                expected: saved.step() as usize,
            }));
        }
        self.fingerprints = Some(now);
        Ok(())
    }

    fn fingerprint_inputs(&self) -> Result<InputFingerprints> {
        let (data_module, splits) = (self.evaluator.data_module(), &self.inputs.splits);
        let backbone = &self.inputs.backbone;
        let device = if backbone.device().is_cpu() { "cpu" } else { "gpu" };
        Ok(InputFingerprints {
            backbone: backbone.fingerprint()?,
            device: device.to_owned(),
            tokenizer: self.inputs.tokens.fingerprint(),
            answers: self.evaluator.fingerprint(),
            validation: data_module.eval_loader(&splits.validation)?.state(0),
            test: data_module.eval_loader(&splits.test)?.state(0),
        })
    }
}
