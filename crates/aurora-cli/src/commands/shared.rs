//! Helpers shared by several commands.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Result;
use aurora_train::accuracy::AccuracyReport;
use aurora_train::config::RunConfig;
use aurora_train::metrics::TaskMetrics;
use aurora_train::recall::RetrievalReport;

use crate::args::{ConfigArgs, DeviceArgs};
use crate::exit_code::bad_input;
use crate::output::Table;

/// Resolves the configuration of a command: defaults, its file, its `--set`.
pub fn resolve<C: RunConfig>(args: &ConfigArgs) -> Result<C> {
    Ok(C::resolve(args.config.as_deref(), &args.overrides)?)
}

/// Resolves as [`resolve`] does; `--device` overrides all sources.
pub fn resolve_on<C: RunConfig>(args: &ConfigArgs, device: &DeviceArgs) -> Result<C> {
    let named = device.device.map(|device| format!("device=\"{device}\""));
    let overrides: Vec<&str> = args.overrides.iter().chain(&named).map(String::as_str).collect();
    Ok(C::resolve(args.config.as_deref(), &overrides)?)
}

/// Atomic file write: a temporary file, renamed into place.
pub fn write_whole(path: &Path, contents: &str) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let aside = folder.join(format!(".{name}.part"));
    let written = std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::write(&aside, contents))
        .and_then(|()| std::fs::rename(&aside, path));
    written.map_err(|source| aurora_train::Error::io("write", path, source).into())
}

/// Checks that an output folder is empty or does not exist, so that nothing is overwritten.
pub fn check_empty(out: &Path) -> Result<()> {
    let occupied = match std::fs::read_dir(out) {
        Ok(mut entries) => entries.next().is_some(),
        Err(_) => out.exists(),
    };
    if occupied {
        return Err(bad_input(format!(
            "{} is not an empty folder, and nothing is written over: give another with --out, or \
             remove this one",
            out.display()
        )));
    }
    Ok(())
}

/// Recall table: one line per model.
pub fn recall_table(lines: &[(&str, &RetrievalReport)]) -> Table {
    let mut table = Table::new([
        "recall, %",
        "to text R@1",
        "R@5",
        "R@10",
        "to image R@1",
        "R@5",
        "R@10",
        "mean",
    ]);
    for (name, report) in lines {
        let (i2t, t2i) = (report.i2t, report.t2i);
        let values = [i2t.r1, i2t.r5, i2t.r10, t2i.r1, t2i.r5, t2i.r10, report.mean()];
        let cells = values.iter().map(|value| format!("{value:.1}"));
        table.row(std::iter::once((*name).to_owned()).chain(cells));
    }
    table
}

/// Accuracy table: one line per model, one column per kind of question.
pub fn accuracy_table(lines: &[(&str, &AccuracyReport)]) -> Table {
    let kinds: BTreeSet<&String> =
        lines.iter().flat_map(|(_, report)| report.by_type.keys()).collect();
    let mut header = vec!["accuracy, %".to_owned(), "all".to_owned()];
    header.extend(kinds.iter().map(|kind| (*kind).clone()));
    header.push("reachable".to_owned());
    let mut table = Table::new(header);
    for (name, report) in lines {
        let of_kind = |kind: &&String| report.by_type.get(*kind).map(|kind| kind.accuracy);
        let [all, reachable] = report.known().map_or([None; 2], |known| known.map(Some));
        let values = std::iter::once(all).chain(kinds.iter().map(of_kind)).chain([reachable]);
        let cells = values.map(|value| value.map_or("-".to_owned(), |value| format!("{value:.1}")));
        table.row(std::iter::once((*name).to_owned()).chain(cells));
    }
    table
}

/// Metrics table of any task: one line per model.
pub fn metrics_table(lines: &[(&str, &TaskMetrics)]) -> Table {
    let recalls = lines.iter().filter_map(|(name, metrics)| match metrics {
        TaskMetrics::Recall(report) => Some((*name, report)),
        TaskMetrics::Accuracy(_) => None,
    });
    let accuracies = lines.iter().filter_map(|(name, metrics)| match metrics {
        TaskMetrics::Accuracy(report) => Some((*name, report)),
        TaskMetrics::Recall(_) => None,
    });
    let accuracies: Vec<(&str, &AccuracyReport)> = accuracies.collect();
    match accuracies.is_empty() {
        true => recall_table(&recalls.collect::<Vec<_>>()),
        false => accuracy_table(&accuracies),
    }
}

/// Notice of skipped images and rows, and where they are listed.
pub fn skipped_line(skipped: u64, list: Option<&Path>) -> Option<String> {
    let (count, was) = match skipped {
        0 => return None,
        1 => ("1 image or row".to_owned(), "was"),
        many => (format!("{} images or rows", crate::output::count(many)), "were"),
    };
    let list =
        list.map_or(String::new(), |path| format!("; they are listed in {}", path.display()));
    Some(format!("{count} {was} left out{list}"))
}
