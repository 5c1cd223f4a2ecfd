//! Fixtures of whole runs: a tiny random backbone, embedded drawings, and questions about them.

pub mod cut;

use std::path::Path;
use std::sync::Arc;

use aurora_data::{AnswerSet, Dataset, Decode, Question, QuestionId, Sample, SkipLog, embedded};
use aurora_layers::{Architecture, Backbone, BlipConfig, TextConfig, VisionConfig};
use aurora_train::config::{Config, ModelSection, RunConfig, Task};
use aurora_train::pipeline::{DataSplits, Inputs, Model};
use candle_core::Device;

/// Random retrieval backbone; its text tower has so many word embeddings, of this width, and positions.
pub fn backbone(vocab_size: usize, width: usize, max_position_embeddings: usize) -> Backbone {
    let config = BlipConfig {
        vision: VisionConfig {
            image_size: 32,
            patch_size: 16,
            hidden_size: 32,
            num_hidden_layers: 1,
            num_attention_heads: 2,
            intermediate_size: 128,
            layer_norm_eps: 1e-6,
        },
        text: TextConfig {
            vocab_size,
            hidden_size: width,
            num_hidden_layers: 1,
            num_attention_heads: 2,
            intermediate_size: 4 * width,
            max_position_embeddings,
            layer_norm_eps: 1e-12,
            enc_token_id: vocab_size as u32 - 1,
        },
        projection_dim: 16,
        architecture: Architecture::Retrieval,
    };
    Backbone::random(config, 1, &Device::Cpu).unwrap()
}

/// Retrieval backbone that fits the embedded vocabulary.
pub fn retrieval_backbone() -> Backbone {
    backbone(embedded::vocabulary().unwrap().vocab_size(), 24, 16)
}

/// Backbone for a task, its decoder initialized where it has none.
pub fn model(task: Task, decoder: &str) -> aurora_train::Result<Model> {
    let config = Config::resolve(None, &[format!("model.decoder={decoder}")]).unwrap();
    let section = ModelSection { backbone: "tiny".into(), ..config.model };
    Model::from_backbone(&section, task, retrieval_backbone(), embedded::vocabulary().unwrap())
}

/// Inputs of a run whose three splits are these samples.
pub fn inputs(task: Task, samples: Vec<Sample>, skips: SkipLog) -> Inputs {
    let Model { name: backbone_name, backbone, tokens, .. } = model(task, "from_encoder").unwrap();
    let set = Dataset::new(samples, Decode::AtLoad).unwrap();
    let splits = DataSplits {
        train: set.clone(),
        validation: set.clone(),
        test: set,
        skips: Arc::new(skips),
    };
    Inputs { backbone, backbone_name, tokens, splits }
}

pub fn drawings(count: usize) -> Vec<Sample> {
    embedded::noto().unwrap().into_iter().take(count).collect()
}

/// Questions about drawings: is it the first kind, and how many are there.
pub fn questions(count: usize) -> Vec<Sample> {
    let asked = |(index, sample): (usize, Sample)| {
        let eight_to_two = (0..10).map(|n| if n < 8 { "no" } else { "yes" }.to_owned()).collect();
        let (text, answers) = match index % 3 {
            0 => ("is it red?", AnswerSet::Annotators(vec!["yes".into(); 10])),
            1 => ("is it blue?", AnswerSet::Annotators(eight_to_two)),
            _ => ("how many are there?", AnswerSet::One("2".into())),
        };
        let id = Some(QuestionId::Number(100 + index as u64));
        // Two of them have an answer type of the data's own.
        let kind = (index % 6 == 2).then(|| "count".to_owned());
        let question =
            Question::new(id, text, answers).map(|question| question.with_answer_type(kind));
        Sample { question, ..sample }
    };
    drawings(count).into_iter().enumerate().map(asked).collect()
}

/// Records of `metrics.jsonl` without the times.
pub fn metrics(folder: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(folder.join("metrics.jsonl")).unwrap();
    let line = |line: &str| {
        let mut value: serde_json::Value = serde_json::from_str(line).unwrap();
        value.as_object_mut().unwrap().remove("seconds");
        value
    };
    text.lines().map(line).collect()
}
