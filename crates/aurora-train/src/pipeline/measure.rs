//! Retrieval of a whole dataset by a model.

use aurora_data::{Dataset, Padding, Tokens, transform};
use aurora_layers::{Blip, Prepared};
use candle_core::{Device, Tensor};

use crate::config::{EvaluationSection, Keywords};
use crate::error::Result;
use crate::evaluation::{Gallery, GalleryBuilder};
use crate::progress::Progress;
use crate::recall::RetrievalReport;

/// Pictures or texts that are encoded together.
const CHUNK: usize = 64;

/// What a measurement found.
#[derive(Debug, Clone)]
pub struct Evaluation {
    /// Recall of the two stages together.
    pub report: RetrievalReport,
    /// Recall by similarity of features alone.
    pub by_similarity: RetrievalReport,
    /// Weight of the similarity beside the matching logit.
    pub beta: f64,
    /// Scores (texts, pictures) of the two stages together, for showing what is found.
    pub t2i: Tensor,
}

/// Encode a dataset: every picture once, every caption once. The ids tell which belong together:
/// (gallery, picture ids, text ids).
///
/// # Errors
/// A picture that does not decode, shapes that do not fit the model.
pub fn gallery(
    blip: &Blip,
    prepared: &Prepared,
    dataset: &Dataset,
    tokens: &Tokens,
    keywords: Keywords,
    progress: &mut dyn Progress,
) -> Result<(Gallery, Vec<i64>, Vec<i64>)> {
    let config = blip.config();
    let transform = transform::Evaluation { size: config.vision.image_size };
    let texts = dataset.texts(keywords.into());
    let total = (dataset.len() + texts.len()) as u64;
    let mut builder = GalleryBuilder::default();
    let mut done = 0;
    progress.on_part("encoding", done, total);
    let indices: Vec<usize> = (0..dataset.len()).collect();
    for chunk in indices.chunks(CHUNK) {
        let images = dataset.images(chunk, &transform)?.to_device(blip.device())?;
        builder.images(blip, prepared, &images)?;
        done += chunk.len() as u64;
        progress.on_part("encoding", done, total);
    }
    for chunk in texts.chunks(CHUNK) {
        let chunk: Vec<&str> = chunk.iter().map(|(_, text)| text.as_str()).collect();
        let (ids, mask) =
            tokens.encode_batch(&chunk, config.text.max_positions, Padding::Longest)?;
        let (ids, mask) = (ids.to_device(blip.device())?, mask.to_device(blip.device())?);
        builder.texts(blip, prepared, &ids, &mask)?;
        done += chunk.len() as u64;
        progress.on_part("encoding", done, total);
    }
    let image_ids = dataset.concepts();
    let text_ids = texts.iter().map(|&(index, _)| image_ids[index]).collect();
    Ok((builder.finish()?, image_ids, text_ids))
}

/// Two-stage retrieval of a dataset. Of several `beta` candidates the best on this dataset is taken: pass the list on
/// validation data, and what it chose on test data.
///
/// # Errors
/// As [`gallery`].
pub fn measure(
    (blip, prepared): (&Blip, &Prepared),
    dataset: &Dataset,
    tokens: &Tokens,
    keywords: Keywords,
    section: &EvaluationSection,
    beta: Option<f64>,
    progress: &mut dyn Progress,
) -> Result<Evaluation> {
    let (gallery, image_ids, text_ids) =
        gallery(blip, prepared, dataset, tokens, keywords, progress)?;
    let similarity = gallery.similarity()?.to_device(&Device::Cpu)?;
    let by_similarity = RetrievalReport::from_similarity(&similarity, &image_ids, &text_ids)?;
    if section.k_test == 0 {
        let t2i = similarity.t()?.contiguous()?;
        return Ok(Evaluation { report: by_similarity, by_similarity, beta: 0.0, t2i });
    }
    let reranked = gallery.rerank(blip, prepared, section.k_test, progress)?;
    let candidates = section.beta.as_slice();
    let chosen = match beta {
        Some(beta) => Some((beta, reranked.report(beta, &image_ids, &text_ids)?)),
        None => reranked.best_beta(candidates, &image_ids, &text_ids)?,
    };
    let (beta, report) = chosen.unwrap_or((0.0, by_similarity));
    Ok(Evaluation { report, by_similarity, beta, t2i: reranked.scores(beta)?.t2i })
}
