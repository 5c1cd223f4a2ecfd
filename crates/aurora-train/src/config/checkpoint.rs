//! `[checkpoint]`: how often a training checkpoint is saved, and which keys may change on resume.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::schema::{Field, ValueType};
use super::{Config, RunConfig};

/// `[checkpoint]`: training checkpoints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckpointSection {
    /// Steps between two checkpoints, 0 for none.
    pub every: u64,
    /// Number of newest checkpoints that are kept.
    pub keep_last: usize,
}

impl CheckpointSection {
    /// Schema of the section.
    pub const FIELDS: &'static [Field] = &[
        Field {
            key: "checkpoint.every",
            value_type: ValueType::Count(0, i64::MAX),
            doc: "Steps between two saved states of the run, to go on from with `aurora train --resume`; 0 saves none.",
        },
        Field {
            key: "checkpoint.keep_last",
            value_type: ValueType::Count(1, 1 << 20),
            doc: "Saved states that are kept, the newest; an older one goes once a newer one is whole.",
        },
    ];

    /// True if a checkpoint is saved after so many steps.
    pub fn is_due(&self, steps: u64) -> bool {
        self.every > 0 && steps.is_multiple_of(self.every)
    }
}

/// Keys that may change on resume: the result does not depend on them, or a fingerprint guards the data that they
/// name.
pub const RESUMABLE_KEYS: &[&str] = &[
    "device",
    "model.backbone",
    "model.tokenizer",
    "data.train",
    "data.validation",
    "data.test",
    "data.image_root",
    "data.answer_list",
    "data.num_workers",
    "checkpoint.every",
    "checkpoint.keep_last",
];

/// Configuration key whose value is not the one that a run began with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigDiff {
    /// Full path of the key.
    pub key: &'static str,
    /// Value of the run.
    pub saved: String,
    /// Current value.
    pub now: String,
}

impl Config {
    /// First key, except [`RESUMABLE_KEYS`], whose value is not that of `saved`, a configuration as JSON.
    pub fn diff(&self, saved: &Value) -> Option<ConfigDiff> {
        let now = serde_json::to_value(self).ok();
        let shown = |value: Option<&Value>| value.map_or("unset".to_owned(), ToString::to_string);
        Self::fields().into_iter().filter(|field| !RESUMABLE_KEYS.contains(&field.key)).find_map(
            |field| {
                let pointer = format!("/{}", field.key.replace('.', "/"));
                let saved = saved.pointer(&pointer);
                let now = now.as_ref().and_then(|now| now.pointer(&pointer));
                (saved != now).then(|| ConfigDiff {
                    key: field.key,
                    saved: shown(saved),
                    now: shown(now),
                })
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(settings: &[&str]) -> Config {
        Config::resolve(None, settings).unwrap()
    }

    #[test]
    fn keys_that_may_change_exist() {
        let fields = Config::fields();
        assert!(RESUMABLE_KEYS.iter().all(|key| fields.iter().any(|field| field.key == *key)));
    }

    /// Floats survive text too: 0.1 + 0.2 has seventeen digits.
    #[test]
    fn a_change_is_named_unless_it_is_allowed() {
        let began =
            resolved(&["optimizer.eps=0.30000000000000004", "evaluation.similarity_weight=3"]);
        let text = serde_json::to_string(&began).unwrap();
        let saved: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(began.diff(&saved), None);
        let eps = "optimizer.eps=0.30000000000000004";
        let other = resolved(&[
            eps,
            "evaluation.similarity_weight=3",
            "data.num_workers=7",
            "data.train=elsewhere",
        ]);
        assert_eq!(other.diff(&saved), None);
        let other = resolved(&[eps, "evaluation.similarity_weight=[3, 4]"]);
        let diff = other.diff(&saved).unwrap();
        assert_eq!((diff.key, diff.saved.as_str()), ("evaluation.similarity_weight", "3.0"));
        assert_eq!(diff.now, "[3.0,4.0]");
        let other = resolved(&[
            eps,
            "evaluation.similarity_weight=3",
            "adapter.targets.layers_to_transform=1",
        ]);
        assert_eq!(other.diff(&saved).unwrap().key, "adapter.targets.layers_to_transform");
    }

    #[test]
    fn nothing_is_due_where_nothing_is_saved() {
        let due = |every: u64| {
            let section = CheckpointSection { every, keep_last: 1 };
            (1..=6).filter(|step| section.is_due(*step)).collect::<Vec<u64>>()
        };
        assert_eq!((due(0), due(1), due(3)), (vec![], vec![1, 2, 3, 4, 5, 6], vec![3, 6]));
    }
}
