//! Two-stage image search: feature similarity picks candidates among all images, the matching head re-ranks them.

use anyhow::{Context, Result};
use aurora_data::{Dataset, Padding, Tokenizer, transform};
use aurora_train::evaluation::GalleryBuilder;
use aurora_train::progress::Progress;
use aurora_train::rerank::Candidates;

use crate::model::LoadedModel;

/// Number of images encoded, or matched with the query, together.
const CHUNK: usize = 64;

/// Image found by a search.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SearchResult {
    /// Index in the dataset.
    pub index: usize,
    /// Ranking score, `itm_logit + beta * itc_similarity`.
    pub score: f64,
    /// Matching logit of the query and this image.
    pub itm_logit: f64,
    /// Cosine similarity of the image's and the query's features.
    pub itc_similarity: f64,
}

/// Top `candidates` images of `dataset` for `query`, best first.
///
/// # Errors
/// An image that does not decode.
pub fn search(
    model: &LoadedModel,
    dataset: &Dataset,
    tokens: &Tokenizer,
    query: &str,
    candidates: usize,
    beta: f64,
    progress: &mut dyn Progress,
) -> Result<Vec<SearchResult>> {
    let (blip, bound) = (model.blip.as_ref(), &model.bound);
    let config = blip.config();
    let transform = transform::EvalTransform { size: config.vision.image_size };
    let mut builder = GalleryBuilder::default();
    let indices: Vec<usize> = (0..dataset.len()).collect();
    let total = dataset.len() as u64;
    progress.on_part("looking at images", 0, total);
    for chunk in indices.chunks(CHUNK) {
        let images = dataset.images(chunk, &transform)?.to_device(blip.device())?;
        builder.images(blip, bound, &images)?;
        let done = chunk.last().map_or(total, |last| *last as u64 + 1);
        progress.on_part("looking at images", done, total);
    }
    let length = config.text.max_position_embeddings;
    let (ids, mask) = tokens.encode_batch(&[query], length, Padding::Longest)?;
    let (ids, mask) = (ids.to_device(blip.device())?, mask.to_device(blip.device())?);
    builder.texts(blip, bound, &ids, &mask)?;
    let gallery = builder.finish()?;

    let itc_similarity: Vec<f32> = gallery.similarity()?.flatten_all()?.to_vec1()?; // (images)
    let mut order = indices;
    order.sort_by(|a, b| itc_similarity[*b].total_cmp(&itc_similarity[*a]).then(a.cmp(b)));
    order.truncate(candidates);
    let mut found = Vec::with_capacity(order.len());
    for chunk in order.chunks(CHUNK) {
        let work: Vec<Candidates> =
            chunk.iter().map(|&image| Candidates { image, texts: vec![0] }).collect();
        let logits = gallery.score(blip, bound, &work)?;
        for (&index, logits) in chunk.iter().zip(logits) {
            let itm_logit = f64::from(*logits.first().context("a logit for each image")?);
            let itc_similarity = f64::from(itc_similarity[index]);
            let score = itm_logit + beta * itc_similarity;
            found.push(SearchResult { index, score, itm_logit, itc_similarity });
        }
    }
    found.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.index.cmp(&b.index)));
    Ok(found)
}
