//! The command line: what can be asked for, in words for somebody who asks for the first time.

mod check;
mod data;
mod train;

use std::path::PathBuf;
use std::str::FromStr;

use aurora_kernels::device::DeviceChoice;
use aurora_layers::{AdapterKind, Variant};
use aurora_train::config::{Config, PretrainConfig, RunConfig, describe};
use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::de::DeserializeOwned;

pub use check::CheckArgs;
pub use data::{
    AnnotationArgs, DataArgs, DataCommand, FormatArg, PolicyArg, PolicyArgs, ShardArgs,
};
pub use train::TrainArgs;

/// Tune a vision-language model on your own images by training a small adapter.
///
/// Everything runs offline, and on the CPU unless the program was built for GPUs: a small pretrained model and captioned images are
/// inside the program. Start with `aurora quickstart`.
#[derive(Debug, Parser)]
#[command(name = "aurora", version, propagate_version = true, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What can be asked for.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Tune the embedded model on the embedded emoji and show what it gained (about two minutes)
    #[command(after_help = "\
Examples:
  aurora quickstart
  aurora quickstart --out runs/second --set seed=2
  aurora quickstart --out runs/heads --set adapter.kind=heads

Writes config.toml, metrics.jsonl, adapter/, summary.json and report.html.")]
    Quickstart(RunArgs),

    /// Tune a model on your own captioned images or clips, or on questions about them
    #[command(after_help = train::EXAMPLES, after_long_help = with_keys::<Config>(train::EXAMPLES))]
    Train(TrainArgs),

    /// Make a small model from nothing: how the embedded one was made
    #[command(
        after_help = PRETRAIN_EXAMPLES,
        after_long_help = with_keys::<PretrainConfig>(PRETRAIN_EXAMPLES)
    )]
    Pretrain(RunArgs),

    /// Measure recall, or accuracy of answers, of a model with or without an adapter
    #[command(after_help = "\
Examples:
  aurora eval
  aurora eval --adapter runs/quickstart/adapter
  aurora eval --config my.toml --adapter runs/mine/adapter --out runs/mine-eval")]
    Eval(EvalArgs),

    /// Find images by words and write a page that shows them
    #[command(after_help = "\
Examples:
  aurora search \"a red fruit\"
  aurora search \"a red fruit\" --adapter runs/quickstart/adapter
  aurora search \"a dog on a beach\" --images ~/Pictures --top-k 20 --out runs/dogs

Writes search.html, which shows the images; open it in a browser.")]
    Search(SearchArgs),

    /// Show what a model, an adapter or a run folder holds
    #[command(after_help = "\
Examples:
  aurora inspect nano
  aurora inspect models/blip-itm-base-coco
  aurora inspect models/model_base_retrieval_coco.pth --adapter-kind cp --rank 64
  aurora inspect models/blip-itm-base-coco/config.json --set adapter.kind=lora
  aurora inspect runs/quickstart/adapter

A lone config.json needs no weights. With settings, shows what a run with them would train.")]
    Inspect(InspectArgs),

    /// Write an adapter in another library's format
    #[command(after_help = "\
Examples:
  aurora export runs/quickstart/adapter --format peft-lora --out exported --drop-gates
  aurora export runs/mine/adapter --format peft-lora --backbone models/blip-itm-base-coco --out exported

A LoRA has no place for gates and context: an adapter in which they have opened is refused unless
--drop-gates leaves them out, which changes its outputs.")]
    Export(ExportArgs),

    /// Make an adapter of this program from a LoRA of PEFT's or a reference checkpoint
    #[command(after_help = "\
Examples:
  aurora import their/lora --backbone models/blip-itm-base-coco --out adapters/theirs
  aurora import models/aurora_coco.pth --out adapters/reference

A checkpoint of the reference code has its backbone inside and needs none.")]
    Import(ImportArgs),

    /// Put an adapter into the weights of its backbone
    #[command(after_help = "\
Examples:
  aurora merge runs/quickstart/adapter --out merged
  aurora merge runs/mine/adapter --backbone models/blip-itm-base-coco --format transformers --out merged

Writes a backbone, and where the adapter has gates or context, which are no weights, an adapter/ in
it that holds those alone.")]
    Merge(MergeArgs),

    /// Make your own images, clips and words ready
    #[command(after_help = data::EXAMPLES)]
    Data(DataArgs),
}

const PRETRAIN_EXAMPLES: &str = "\
Examples:
  aurora pretrain --out runs/pretrain
  aurora pretrain --config pretrain.toml --set seed=2 --out runs/second

Needs the teachers' features, which `cargo xtask teachers` writes. Writes config.toml, metrics.jsonl
and backbone/ (config.json, model.safetensors, vocab.txt), which every other command takes as a
model. `aurora pretrain --help` lists every setting.";

/// The examples, then every setting with what it may be and means.
fn with_keys<C: RunConfig>(examples: &str) -> String {
    format!("{examples}\n\nSettings:\n{}", describe::<C>())
}

/// Where settings come from.
#[derive(Debug, Args)]
pub struct ConfigArgs {
    /// A TOML file with settings; those it leaves out keep their defaults
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Change one setting, over the file's; can be given several times
    ///
    /// For example `--set seed=2 --set adapter.rank=8`. A wrong name is refused with the list of
    /// right ones.
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    pub overrides: Vec<String>,
}

/// Where to compute.
#[derive(Debug, Args)]
pub struct DeviceArgs {
    /// Where to compute: auto, cpu, cuda or cuda:1; short for --set device=...
    ///
    /// auto is the first GPU that this program and this machine have, else the CPU.
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<DeviceChoice>,
}

/// A run that trains something.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Settings.
    #[command(flatten)]
    pub settings: ConfigArgs,

    /// Device.
    #[command(flatten)]
    pub device: DeviceArgs,

    /// The folder for what the run leaves behind; it must not hold a run already
    ///
    /// Without it, `runs/` and the name of the command.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

/// An evaluation.
#[derive(Debug, Args)]
pub struct EvalArgs {
    /// Settings.
    #[command(flatten)]
    pub settings: ConfigArgs,

    /// Device.
    #[command(flatten)]
    pub device: DeviceArgs,

    /// The adapter to measure; without it, the bare model
    #[arg(long, value_name = "DIR")]
    pub adapter: Option<PathBuf>,

    /// A folder to write evaluation.json to; without it, the numbers are only printed
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

/// A search.
#[derive(Debug, Args)]
pub struct SearchArgs {
    /// What to look for
    #[arg(value_name = "QUERY")]
    pub query: String,

    /// Settings.
    #[command(flatten)]
    pub settings: ConfigArgs,

    /// Device.
    #[command(flatten)]
    pub device: DeviceArgs,

    /// The adapter to search with; without it, the bare model
    #[arg(long, value_name = "DIR")]
    pub adapter: Option<PathBuf>,

    /// A folder of PNG, JPEG and WebP images, its subfolders included
    ///
    /// Without it, the embedded emoji.
    #[arg(long, value_name = "DIR")]
    pub images: Option<PathBuf>,

    /// How many images to show
    #[arg(long, value_name = "N", default_value_t = 12, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub top_k: u32,

    /// The folder for search.html, which a later search replaces
    #[arg(long, value_name = "DIR", default_value = "runs/search")]
    pub out: PathBuf,
}

/// A look into a file or folder.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// A model's folder, .pth file or config.json, an adapter, a run, or `nano`
    #[arg(value_name = "PATH")]
    pub path: PathBuf,

    /// Show what this kind of adapter would train on the model, instead of every kind
    #[arg(long, value_name = "KIND", conflicts_with_all = ["config", "overrides"])]
    pub adapter_kind: Option<AdapterKindArg>,

    /// The rank for --adapter-kind; without it, the one in the table of every kind
    #[arg(long, value_name = "N", requires = "adapter_kind", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub rank: Option<u32>,

    /// The variant for --adapter-kind: paper or reference
    #[arg(long, requires = "adapter_kind", default_value = "paper")]
    pub variant: VariantArg,

    /// Settings of a run.
    #[command(flatten)]
    pub settings: ConfigArgs,

    /// List every tensor with its shape
    #[arg(long)]
    pub tensors: bool,
}

/// The backbone of an adapter.
#[derive(Debug, Args)]
pub struct BaseArgs {
    /// The backbone: a folder as transformers has it, a .pth file, or `nano`
    ///
    /// Without it, the one that the adapter names.
    #[arg(long, value_name = "PATH")]
    pub backbone: Option<String>,

    /// Side of the images that the adapter was trained on, where it is not the backbone's own
    #[arg(long, value_name = "PIXELS")]
    pub image_size: Option<usize>,
}

/// An adapter to be written in another format.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// The adapter's folder
    #[arg(value_name = "ADAPTER")]
    pub adapter: PathBuf,

    /// The format
    #[arg(long, value_name = "FORMAT")]
    pub format: ExportFormat,

    /// Leave gates and context out, although they have opened
    #[arg(long)]
    pub drop_gates: bool,

    /// Backbone.
    #[command(flatten)]
    pub base: BaseArgs,

    /// The folder to write; it must be empty or not be there yet
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
}

/// An adapter to be merged.
#[derive(Debug, Args)]
pub struct MergeArgs {
    /// The adapter's folder
    #[arg(value_name = "ADAPTER")]
    pub adapter: PathBuf,

    /// Backbone.
    #[command(flatten)]
    pub base: BaseArgs,

    /// The format
    #[arg(long, value_name = "FORMAT", default_value = "aurora")]
    pub format: BackboneFormat,

    /// The folder to write; it must be empty or not be there yet
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
}

/// Formats that a backbone can be written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BackboneFormat {
    /// A backbone's folder of this program
    Aurora,
    /// A folder that transformers loads
    Transformers,
}

/// Formats that an adapter can be exported in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ExportFormat {
    /// A LoRA folder of Hugging Face's PEFT
    PeftLora,
}

/// An adapter in another format.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// A LoRA folder of PEFT's, or a checkpoint of the reference code
    #[arg(value_name = "PATH")]
    pub path: PathBuf,

    /// Backbone.
    #[command(flatten)]
    pub base: BaseArgs,

    /// The folder to write; it must be empty or not be there yet
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
}

/// A kind of adapter, by its name in configurations.
#[derive(Debug, Clone, Copy)]
pub struct AdapterKindArg(pub AdapterKind);

/// A variant, by its name in configurations.
#[derive(Debug, Clone, Copy)]
pub struct VariantArg(pub Variant);

impl FromStr for AdapterKindArg {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        by_name(name).map(Self)
    }
}

impl FromStr for VariantArg {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        by_name(name).map(Self)
    }
}

/// A value by the name that configurations have for it; the error lists the names.
fn by_name<T: DeserializeOwned>(name: &str) -> Result<T, String> {
    serde_json::from_value(name.into()).map_err(|error| error.to_string())
}

#[cfg(test)]
#[path = "args_tests.rs"]
mod tests;
