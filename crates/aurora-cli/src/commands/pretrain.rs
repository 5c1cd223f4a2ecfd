//! `aurora pretrain`: pretrains a small backbone from scratch.

use std::path::Path;

use anyhow::Result;
use aurora_train::config::PretrainConfig;
use aurora_train::pipeline::pretrain;
use aurora_train::run::RunFolder;

use super::shared::{recall_table, resolve_on};
use super::train::discard_unstarted;
use crate::args::RunArgs;
use crate::model;
use crate::output;
use crate::progress::ProgressDisplay;

/// Runs `aurora pretrain`.
///
/// # Errors
/// Settings, teachers or a folder that cannot be used.
pub fn run(args: &RunArgs) -> Result<()> {
    let config: PretrainConfig = resolve_on(&args.settings, &args.device)?;
    let device = model::device(&config)?;
    let out = args.out.clone().unwrap_or_else(|| Path::new("runs").join("pretrain"));
    let run = RunFolder::create(&out)?;
    let done = pretrain(&config, &device, &run, &mut ProgressDisplay::new())
        .inspect_err(|_| discard_unstarted(&run))?;
    output::line("");
    recall_table(&[("validation", &done.validation.report), ("test", &done.test.report)]).print();
    output::line(&format!(
        "\n{} parameters in {}; the model is in {}",
        output::count(done.backbone.parameters() as u64),
        output::duration(done.seconds),
        out.join("backbone").display()
    ));
    Ok(())
}
