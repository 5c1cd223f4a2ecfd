//! Report of a pack: images kept and dropped, with reasons.

use std::collections::BTreeMap;

/// Counts by stage and reason, with a few examples of each.
#[derive(Debug, Default)]
pub struct Report {
    stages: BTreeMap<(String, String), (usize, Vec<String>)>,
    order: Vec<(String, String)>,
}

impl Report {
    /// Counts one more of `reason` in `stage`; the first few examples are kept.
    pub fn add(&mut self, stage: &str, reason: &str, example: impl Into<String>) {
        let key = (stage.to_string(), reason.to_string());
        if !self.stages.contains_key(&key) {
            self.order.push(key.clone());
        }
        let (count, examples) = self.stages.entry(key).or_default();
        *count += 1;
        // Spread over the run rather than the first in the alphabet.
        if examples.len() < 6 && (*count == 1 || (*count).is_power_of_two()) {
            examples.push(example.into());
        }
    }

    /// Prints the table.
    #[allow(clippy::print_stdout, reason = "the report is what the command is run for")]
    pub fn print(&self) {
        let mut last = "";
        for key in &self.order {
            let (stage, reason) = key;
            if stage != last {
                println!("{stage}");
                last = stage;
            }
            if let Some((count, examples)) = self.stages.get(key) {
                println!("  {count:>6}  {reason}: {}", examples.join(" | "));
            }
        }
    }
}
