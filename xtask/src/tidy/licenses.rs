//! Rules on committed data: the manifest records the source and license of each image, and all of it together stays
//! small.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result};
use flate2::read::GzDecoder;
use sha2::{Digest, Sha256};

use super::{Finding, Tree};

/// Folder of the embedded shards, and of the manifest beside them.
const ASSETS: &str = "crates/aurora-data/assets";
const MANIFEST: &str = "crates/aurora-data/assets/manifest.tsv";

/// Columns of the manifest. One row gives the source of one image of one shard.
const COLUMNS: [&str; 7] = ["shard", "key", "package", "version", "file", "licence", "sha256"];

/// Licenses whose images may be committed: redistribution is free, and naming the source, which
/// the manifest does, is all they ask.
const ALLOWED: [&str; 4] = ["public domain", "CC0-1.0", "Apache-2.0", "MIT"];

/// Size budgets of the folders of embedded data, in bytes: everybody who clones the repository or builds the program
/// pays for them.
const BUDGETS: [(&str, u64); 2] =
    [("crates/aurora-data/assets/", 10_000_000), ("crates/aurora-cli/assets/", 12_500_000)];

/// The embedded data keeps to [`BUDGETS`].
pub fn embedded_data_stays_small(tree: &Tree) -> Vec<Finding> {
    let over = BUDGETS.iter().filter_map(|(folder, budget)| {
        let files = tree.files().iter().filter(|file| file.path.starts_with(folder));
        let bytes = files.map(|file| file.bytes).sum::<u64>();
        let message = format!("{bytes} bytes, over {budget}; embed fewer or smaller files");
        (bytes > *budget).then(|| Finding::error("data-size", folder, 0, message))
    });
    over.collect()
}

/// Every image in a shard has one row with its hash and an allowed license, and every row its image.
pub fn every_image_has_a_license(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut images = BTreeMap::new();
    let inside = format!("{ASSETS}/");
    for file in tree.files() {
        let shard = file.path.strip_prefix(&inside).filter(|name| is_shard(name));
        let Some(shard) = shard else { continue };
        match read_images(&tree.on_disk(&file.path)) {
            Ok(found) => {
                images.extend(found.into_iter().map(|(key, hash)| ((shard.to_owned(), key), hash)))
            }
            Err(error) => {
                let message =
                    format!("cannot read the shard: {error:#}; rebuild it with `cargo xtask pack`");
                findings.push(Finding::error("license", &file.path, 0, message));
            }
        }
    }
    let Some(manifest) = tree.text(MANIFEST) else {
        if !images.is_empty() {
            let message = format!(
                "missing, and {} images stand beside it; `cargo xtask pack` writes it",
                images.len()
            );
            findings.push(Finding::error("license", MANIFEST, 0, message));
        }
        return findings;
    };
    check_rows(manifest, images, &mut findings);
    findings
}

/// True for a tar file, compressed or not.
fn is_shard(name: &str) -> bool {
    name.ends_with(".tar") || name.ends_with(".tar.gz")
}

/// Compares the manifest with the images' hashes by shard and key.
fn check_rows(
    manifest: &str,
    mut images: BTreeMap<(String, String), String>,
    findings: &mut Vec<Finding>,
) {
    let mut error = |line: usize, message: String| {
        findings.push(Finding::error("license", MANIFEST, line, message))
    };
    let mut lines = manifest.lines().enumerate().map(|(index, line)| (index + 1, line));
    if lines.next().is_none_or(|(_, header)| header.split('\t').ne(COLUMNS)) {
        error(
            1,
            format!("the first line is not the header `{}`, tab-separated", COLUMNS.join(" ")),
        );
        return;
    }
    for (line, row) in lines {
        let cells: Vec<&str> = row.split('\t').collect();
        let Ok([shard, key, _, _, _, license, sha256]) = <[&str; 7]>::try_from(cells.as_slice())
        else {
            error(line, format!("{} cells where {} are wanted", cells.len(), COLUMNS.len()));
            continue;
        };
        if let Some(empty) = cells.iter().position(|cell| cell.trim().is_empty()) {
            error(line, format!("the cell `{}` is empty", COLUMNS[empty]));
        }
        if !ALLOWED.contains(&license) {
            let allowed = ALLOWED.join(", ");
            error(
                line,
                format!(
                    "{shard}: {key} stands under `{license}`; leave the image out \
                    (allowed: {allowed})"
                ),
            );
        }
        match images.remove(&(shard.to_owned(), key.to_owned())) {
            Some(actual) if actual == sha256 => {}
            Some(actual) => error(
                line,
                format!("{shard}: {key} hashes to {actual}; run `cargo xtask pack` again"),
            ),
            None => error(
                line,
                format!("{shard} holds no image {key}, or a row above took it; delete the row"),
            ),
        }
    }
    for (shard, key) in images.keys() {
        error(
            0,
            format!(
                "{shard}: {key} has no row; give its source and license, or leave the image out"
            ),
        );
    }
}

/// Key (file name without its extension) and SHA-256, in hexadecimal, of every image in a tar file.
fn read_images(path: &Path) -> Result<Vec<(String, String)>> {
    let file = File::open(path).context("open")?;
    let bytes: Box<dyn Read> = match path.extension() {
        Some(end) if end == "gz" => Box::new(GzDecoder::new(file)),
        _ => Box::new(file),
    };
    let mut archive = tar::Archive::new(bytes);
    let mut images = Vec::new();
    for entry in archive.entries()? {
        let mut entry = entry?;
        let name = entry.path()?.to_string_lossy().into_owned();
        let image =
            name.rsplit_once('.').filter(|(_, end)| ["webp", "png", "jpg", "jpeg"].contains(end));
        if let Some((key, _)) = image {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).with_context(|| name.clone())?;
            let hash: String =
                Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
            images.push((key.to_owned(), hash));
        }
    }
    Ok(images)
}
