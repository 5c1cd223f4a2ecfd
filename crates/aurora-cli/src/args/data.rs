//! `aurora data`: arguments of the dataset commands.

use std::path::PathBuf;

use aurora_data::source::ReadOptions;
use aurora_data::video::Method;
use aurora_data::write::Encoding;
use aurora_data::{Captions, Format, OnError};
use clap::{Args, Subcommand, ValueEnum};

use super::check::{self, CheckArgs};

/// Help examples of `aurora data`.
pub(super) const EXAMPLES: &str = "\
Examples:
  aurora data check my/images
  aurora data shard my/images --out shards
  aurora data shard my/clips --extract-frames --num-frames 8 --image-size 224 --out shards";

/// Arguments of `aurora data`.
#[derive(Debug, Args)]
pub struct DataArgs {
    /// Subcommand.
    #[command(subcommand)]
    pub command: DataCommand,
}

/// Subcommands of `aurora data`.
#[derive(Debug, Subcommand)]
pub enum DataCommand {
    /// Check a dataset for broken files, duplicates and text unknown to the tokenizer
    #[command(after_help = check::EXAMPLES)]
    Check(CheckArgs),

    /// Write images or clips with their texts into tar shards
    #[command(after_help = "\
Examples:
  aurora data shard my/images --out shards
  aurora data shard my/images my/more --image-size 384 --max-shard-mb 128 --out shards
  aurora data shard my/clips --extract-frames --num-frames 8 --image-size 224 --out shards
  aurora data shard my/clips --extract-frames --num-frames 16 --frame-sampling 2fps --on-error skip --out shards

A folder of images has a .txt beside each with its caption, or a .json; so has a folder of clips.
An interrupted run goes on where it stopped when it is started again. manifest.json has the SHA-256
of each shard.")]
    Shard(ShardArgs),
}

/// Annotation reader options.
#[derive(Debug, Args)]
pub struct AnnotationArgs {
    /// Root folder of the image paths in annotations; can be given several times
    ///
    /// Without it, the folder of the annotations.
    #[arg(long, value_name = "DIR")]
    pub image_root: Vec<PathBuf>,

    /// Annotation format: auto, coco, flickr30k, msrvtt, didemo, vqa, msrvtt_qa or table
    #[arg(long, value_name = "FORMAT", default_value = "auto")]
    pub format: FormatArg,
}

impl AnnotationArgs {
    /// Read options of these arguments.
    pub fn options(&self) -> ReadOptions {
        ReadOptions {
            image_roots: self.image_root.clone(),
            format: self.format.0,
            captions: Captions::Required,
        }
    }
}

/// Annotation format, parsed by its configuration name.
#[derive(Debug, Clone, Copy)]
pub struct FormatArg(pub Format);

impl std::str::FromStr for FormatArg {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        super::by_name(name).map(Self)
    }
}

/// Error policy for unusable images and records.
#[derive(Debug, Args)]
pub struct PolicyArgs {
    /// Policy for an unusable image or record: stop, or skip and list it
    #[arg(long, value_name = "POLICY", default_value = "stop")]
    pub on_error: PolicyArg,

    /// Maximum number of skipped items
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub max_skipped: usize,
}

/// Error policy, by its configuration name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PolicyArg {
    /// Stop at the first unusable item
    Stop,
    /// Skip it and list it
    Skip,
}

impl From<PolicyArg> for OnError {
    fn from(policy: PolicyArg) -> Self {
        match policy {
            PolicyArg::Stop => Self::Stop,
            PolicyArg::Skip => Self::Skip,
        }
    }
}

/// Arguments of `aurora data shard`.
#[derive(Debug, Args)]
pub struct ShardArgs {
    /// Folders of images or clips, shards, and files of annotations
    #[arg(value_name = "INPUT", required = true)]
    pub inputs: Vec<PathBuf>,

    /// Annotations.
    #[command(flatten)]
    pub annotations: AnnotationArgs,

    /// Output folder; empty, not existing yet, or left by an interrupted run of the same command
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,

    /// Maximum size of a shard in MB
    #[arg(long, value_name = "MB", default_value_t = 256, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub max_shard_mb: u64,

    /// Resize larger images and frames to a square of this side in pixels, as evaluation does
    ///
    /// Without it, the bytes of an image are copied unchanged.
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u32).range(16..=4096))]
    pub image_size: Option<u32>,

    /// Encoding of resized images and video frames: jpeg, webp or png
    ///
    /// WebP and PNG are lossless.
    #[arg(long, value_name = "FORMAT", default_value = "jpeg")]
    pub encoding: Encoding,

    /// Decode each video once and store sampled frames
    ///
    /// GIF, APNG and animated WebP always; MP4 and others where the program was built with
    /// --features video-h264 or video-ffmpeg. Without it, videos are stored as they are.
    #[arg(long)]
    pub extract_frames: bool,

    /// Maximum number of frames per clip
    #[arg(long, value_name = "N", requires = "extract_frames", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub num_frames: u32,

    /// Frame sampling: uniform (the middles of equal parts), random, or a rate such as 2fps
    #[arg(long, value_name = "METHOD", requires = "extract_frames", default_value = "uniform")]
    pub frame_sampling: Method,

    /// Seed of --frame-sampling random
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,

    /// Worker threads; 0 for one per core. The shards do not depend on their number
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub threads: usize,

    /// Policy.
    #[command(flatten)]
    pub policy: PolicyArgs,
}
