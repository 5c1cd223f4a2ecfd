//! Command line of `aurora`: clap declarations of the commands and their help texts.

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
/// Everything runs offline, and on the CPU unless the program was built for GPUs: a small pretrained model and
/// captioned images are inside the program. Start with `aurora quickstart`.
#[derive(Debug, Parser)]
#[command(name = "aurora", version, propagate_version = true, max_term_width = 100)]
pub struct Cli {
    /// Subcommand.
    #[command(subcommand)]
    pub command: Command,
}

/// Subcommands of `aurora`.
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

    /// Pretrain a small model from scratch, as the embedded one was
    #[command(
        after_help = PRETRAIN_EXAMPLES,
        after_long_help = with_keys::<PretrainConfig>(PRETRAIN_EXAMPLES)
    )]
    Pretrain(RunArgs),

    /// Evaluate a model with or without an adapter: recall, or VQA accuracy
    #[command(after_help = "\
Examples:
  aurora eval
  aurora eval --adapter runs/quickstart/adapter
  aurora eval --config my.toml --adapter runs/mine/adapter --out runs/mine-eval")]
    Eval(EvalArgs),

    /// Search images by text and write a page of the results
    #[command(after_help = "\
Examples:
  aurora search \"a red fruit\"
  aurora search \"a red fruit\" --adapter runs/quickstart/adapter
  aurora search \"a dog on a beach\" --images ~/Pictures --top-k 20 --out runs/dogs

Writes search.html, which shows the images; open it in a browser.")]
    Search(SearchArgs),

    /// Show the sizes, tensors and trainable parameters of a model, an adapter or a run
    #[command(after_help = "\
Examples:
  aurora inspect nano
  aurora inspect models/blip-itm-base-coco
  aurora inspect models/model_base_retrieval_coco.pth --adapter-kind cp --rank 64
  aurora inspect models/blip-itm-base-coco/config.json --set adapter.kind=lora
  aurora inspect runs/quickstart/adapter

A lone config.json needs no weights. With settings, shows what a run with them would train.")]
    Inspect(InspectArgs),

    /// Export an adapter to another library's format
    #[command(after_help = "\
Examples:
  aurora export runs/quickstart/adapter --format peft-lora --out exported --drop-gates
  aurora export runs/mine/adapter --format peft-lora --backbone models/blip-itm-base-coco --out exported

A LoRA has no place for gates and context: an adapter in which they have opened is refused unless
--drop-gates leaves them out, which changes its outputs.")]
    Export(ExportArgs),

    /// Import a PEFT LoRA or a checkpoint of the reference code as an adapter
    #[command(after_help = "\
Examples:
  aurora import their/lora --backbone models/blip-itm-base-coco --out adapters/theirs
  aurora import models/aurora_coco.pth --out adapters/reference

A checkpoint of the reference code has its backbone inside and needs none.")]
    Import(ImportArgs),

    /// Merge an adapter into the weights of its backbone
    #[command(after_help = "\
Examples:
  aurora merge runs/quickstart/adapter --out merged
  aurora merge runs/mine/adapter --backbone models/blip-itm-base-coco --format transformers --out merged

Writes a backbone, and where the adapter has gates or context, which are no weights, an adapter/ in
it that holds those alone.")]
    Merge(MergeArgs),

    /// Check your own images, videos and texts, and write them into shards
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

/// Long help: the examples, then every configuration key with its values and meaning.
fn with_keys<C: RunConfig>(examples: &str) -> String {
    format!("{examples}\n\nSettings:\n{}", describe::<C>())
}

/// Configuration sources: file and overrides.
#[derive(Debug, Args)]
pub struct ConfigArgs {
    /// TOML file of settings; missing keys keep their defaults
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Override one setting of the file; can be given several times
    ///
    /// For example `--set seed=2 --set adapter.rank=8`. An unknown key is refused with the list of known ones.
    ///
    /// For example `--set seed=2 --set adapter.rank=8`. A wrong name is refused with the list of
    /// right ones.
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    pub overrides: Vec<String>,
}

/// Compute device.
#[derive(Debug, Args)]
pub struct DeviceArgs {
    /// Compute device: auto, cpu, cuda or cuda:1; short for --set device=...
    ///
    /// auto is the first GPU that this program and this machine have, else the CPU.
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<DeviceChoice>,
}

/// Arguments of a training run.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Settings.
    #[command(flatten)]
    pub settings: ConfigArgs,

    /// Device.
    #[command(flatten)]
    pub device: DeviceArgs,

    /// Output folder of the run; it must not hold a run already
    ///
    /// Without it, `runs/` and the name of the command.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

/// Arguments of `aurora eval`.
#[derive(Debug, Args)]
pub struct EvalArgs {
    /// Settings.
    #[command(flatten)]
    pub settings: ConfigArgs,

    /// Device.
    #[command(flatten)]
    pub device: DeviceArgs,

    /// Adapter to evaluate; without it, the bare backbone
    #[arg(long, value_name = "DIR")]
    pub adapter: Option<PathBuf>,

    /// Output folder for evaluation.json; without it, the metrics are only printed
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

/// Arguments of `aurora search`.
#[derive(Debug, Args)]
pub struct SearchArgs {
    /// Query text
    #[arg(value_name = "QUERY")]
    pub query: String,

    /// Settings.
    #[command(flatten)]
    pub settings: ConfigArgs,

    /// Device.
    #[command(flatten)]
    pub device: DeviceArgs,

    /// Adapter to search with; without it, the bare backbone
    #[arg(long, value_name = "DIR")]
    pub adapter: Option<PathBuf>,

    /// Folder of PNG, JPEG and WebP images, its subfolders included
    ///
    /// Without it, the embedded emoji.
    #[arg(long, value_name = "DIR")]
    pub images: Option<PathBuf>,

    /// Number of images to show
    #[arg(long, value_name = "N", default_value_t = 12, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub top_k: u32,

    /// Output folder for search.html, which a later search replaces
    #[arg(long, value_name = "DIR", default_value = "runs/search")]
    pub out: PathBuf,
}

/// Arguments of `aurora inspect`.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// Model folder, .pth file or config.json, an adapter, a run, or `nano`
    #[arg(value_name = "PATH")]
    pub path: PathBuf,

    /// Show the trainable parameters of this adapter kind only, instead of every kind
    #[arg(long, value_name = "KIND", conflicts_with_all = ["config", "overrides"])]
    pub adapter_kind: Option<AdapterKindArg>,

    /// Rank for --adapter-kind; without it, the one in the table of all kinds
    #[arg(long, value_name = "N", requires = "adapter_kind", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub rank: Option<u32>,

    /// Variant for --adapter-kind: paper or reference
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
    /// Backbone: a Hugging Face folder, a .pth file, or `nano`
    ///
    /// Without it, the one that the adapter names.
    #[arg(long, value_name = "PATH")]
    pub backbone: Option<String>,

    /// Image size in pixels that the adapter was trained at, if it is not the backbone's own
    #[arg(long, value_name = "PIXELS")]
    pub image_size: Option<usize>,
}

/// Arguments of `aurora export`.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// Folder of the adapter
    #[arg(value_name = "ADAPTER")]
    pub adapter: PathBuf,

    /// Output format
    #[arg(long, value_name = "FORMAT")]
    pub format: ExportFormat,

    /// Drop gates and context, even if the gates have opened
    #[arg(long)]
    pub drop_gates: bool,

    /// Backbone.
    #[command(flatten)]
    pub base: BaseArgs,

    /// Output folder; it must be empty or not exist yet
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
}

/// Arguments of `aurora merge`.
#[derive(Debug, Args)]
pub struct MergeArgs {
    /// Folder of the adapter
    #[arg(value_name = "ADAPTER")]
    pub adapter: PathBuf,

    /// Backbone.
    #[command(flatten)]
    pub base: BaseArgs,

    /// Output format
    #[arg(long, value_name = "FORMAT", default_value = "aurora")]
    pub format: BackboneFormat,

    /// Output folder; it must be empty or not exist yet
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
}

/// Output formats of a merged backbone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BackboneFormat {
    /// Backbone folder of this program
    Aurora,
    /// Hugging Face folder that transformers loads
    Transformers,
}

/// Export formats of an adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ExportFormat {
    /// LoRA folder of Hugging Face's PEFT
    PeftLora,
}

/// Arguments of `aurora import`.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// LoRA folder of PEFT, or checkpoint of the reference code
    #[arg(value_name = "PATH")]
    pub path: PathBuf,

    /// Backbone.
    #[command(flatten)]
    pub base: BaseArgs,

    /// Output folder; it must be empty or not exist yet
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
}

/// Adapter kind, parsed by its configuration name.
#[derive(Debug, Clone, Copy)]
pub struct AdapterKindArg(pub AdapterKind);

/// Variant, parsed by its configuration name.
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

/// Parses a value by its configuration name; the error lists the accepted names.
fn by_name<T: DeserializeOwned>(name: &str) -> Result<T, String> {
    serde_json::from_value(name.into()).map_err(|error| error.to_string())
}

#[cfg(test)]
#[path = "args_tests.rs"]
mod tests;
