//! Loader: resuming, ranks, broken samples, clips and questions, memory.

mod broken;
mod memory;
mod resume;
mod tasks;

use std::path::Path;
use std::sync::Arc;

use aurora_data::{
    Batch, Dataset, Decode, EvalTransform, Loader, LoaderOptions, Tokenizer, embedded, shard,
};
use image::ImageFormat;

fn tokenizer() -> Arc<Tokenizer> {
    Arc::new(embedded::vocabulary().unwrap())
}

fn loader(dataset: &Dataset, size: usize, options: LoaderOptions) -> Loader {
    Loader::new(dataset.clone(), Arc::new(EvalTransform { size }), tokenizer(), options).unwrap()
}

/// Everything of a batch that could differ.
#[derive(Debug, Clone, PartialEq)]
struct Contents {
    step: u64,
    epoch: u64,
    indices: Vec<usize>,
    valid: Vec<bool>,
    texts: Vec<String>,
    ids: Vec<u32>,
    pixels: Vec<u32>,
}

fn contents(batch: &Batch) -> Contents {
    let pixels = batch.images.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    Contents {
        step: batch.step,
        epoch: batch.epoch,
        indices: batch.indices.clone(),
        valid: batch.valid.clone(),
        texts: batch.texts.clone(),
        ids: batch.input_ids.flatten_all().unwrap().to_vec1().unwrap(),
        pixels: pixels.into_iter().map(f32::to_bits).collect(),
    }
}

/// Dataset of small images of different colors with two captions each, in shards of these sizes
/// below `folder`, decoded on use. Images for which `broken` returns true do not decode.
fn shards(folder: &Path, sizes: &[usize], broken: impl Fn(usize) -> bool) -> Dataset {
    let mut samples = Vec::new();
    let mut number = 0;
    for (shard_number, size) in sizes.iter().enumerate() {
        let mut files = Vec::new();
        for _ in 0..*size {
            let color = [number as u8, (number / 7) as u8, 200];
            let png = match broken(number) {
                true => b"\x89PNG\r\n\x1a\nbroken".to_vec(),
                false => crate::common::encoded_image(3, 2, color, ImageFormat::Png),
            };
            files.push((format!("{number:05}.png"), png));
            files.push((format!("{number:05}.txt"), format!("red {number}\nblue {number}").into()));
            number += 1;
        }
        let files: Vec<(&str, &[u8])> =
            files.iter().map(|(name, data)| (name.as_str(), data.as_slice())).collect();
        let path = folder.join(format!("{shard_number:03}.tar"));
        std::fs::write(&path, crate::common::tar(&files)).unwrap();
        samples.extend(shard::read(&path).unwrap());
    }
    Dataset::new(samples, Decode::OnUse).unwrap()
}
