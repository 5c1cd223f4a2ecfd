//! Prints the samples of a shard or folder, and the tensors of a batch of them.
//!
//! `cargo run --release -p aurora-data --example read_shard -- images.tar`; without an argument
//! it reads the embedded emoji.

#![allow(clippy::print_stdout, reason = "an example that prints")]

use std::path::PathBuf;

use aurora_data::{Captions, Dataset, Decode, EvalTransform, Keywords, Padding, Split, embedded};

fn main() -> aurora_data::Result<()> {
    let dataset = match std::env::args_os().nth(1).map(PathBuf::from) {
        Some(path) => Dataset::open(&[path], Captions::Optional, Decode::AtLoad)?,
        None => Dataset::new(embedded::noto()?, Decode::AtLoad)?,
    };
    println!("{} images", dataset.len());
    for split in [Split::Train, Split::Validation, Split::Test] {
        println!("  {split}: {}", dataset.split(split).len());
    }
    for index in 0..dataset.len().min(5) {
        let (sample, image) = (dataset.sample(index)?, dataset.image(index)?);
        let (width, height) = (image.width(), image.height());
        println!("{} ({width} x {height}): {}", sample.key, sample.captions.join(" / "));
    }

    let indices: Vec<usize> = (0..dataset.len().min(5)).collect();
    let images = dataset.images(&indices, &EvalTransform { size: 96 })?; // (images, 3, 96, 96)
    println!("images as a tensor: {:?} {:?}", images.dims(), images.dtype());
    let texts: Vec<String> =
        dataset.texts(Keywords::All).into_iter().map(|(_, t)| t).take(5).collect();
    if !texts.is_empty() {
        let tokenizer = embedded::vocabulary()?;
        let (ids, mask) = tokenizer.encode_batch(&texts, 35, Padding::Longest)?; // (texts, length)
        println!("texts as tensors: {:?} {:?}", ids.dims(), mask.dims());
        println!("the first: {:?} is {:?}", texts[0], tokenizer.encode(&texts[0], 35)?);
    }
    Ok(())
}
