//! `aurora train`: arguments.

use std::path::PathBuf;

use clap::Args;

use super::RunArgs;

pub(super) const EXAMPLES: &str = "\
Examples:
  aurora train --config my.toml --out runs/mine
  aurora train --config my.toml --set schedule.steps=200 --out runs/short
  aurora train --set data.train=my/images --set data.validation=my/more --set data.test=my/rest
  aurora train --config my.toml --set task=vqa --set model.decoder=from_encoder --out runs/answers
  aurora train --resume runs/mine

my.toml says which model and which images; settings it leaves out keep their defaults. A folder of
images has a .txt beside each with its caption, or a .json. Writes the same files as quickstart.
A run that was cut off goes on from the state that it saved last, every checkpoint.every steps.
`aurora train --help` lists every setting.";

/// Arguments of `aurora train`: a new run, or a resumed one.
#[derive(Debug, Args)]
pub struct TrainArgs {
    /// Arguments of every training run.
    #[command(flatten)]
    pub run: RunArgs,

    /// Resume an interrupted run from its newest checkpoint, with a bit-identical result
    ///
    /// The settings are those of the run. With --set and --device, only keys that do not affect the result may be
    /// changed: the paths of model and data, data.num_workers, checkpoint.every and checkpoint.keep_last.
    #[arg(long, value_name = "RUN", conflicts_with_all = ["config", "out"])]
    pub resume: Option<PathBuf>,
}
