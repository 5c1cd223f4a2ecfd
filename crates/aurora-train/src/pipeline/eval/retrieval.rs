//! Retrieval evaluation of a model on a dataset.

use aurora_data::{Dataset, Padding};
use aurora_layers::{Blip, BoundModel};
use candle_core::{Device, Tensor};

use crate::config::EvaluationSection;
use crate::error::Result;
use crate::evaluation::{Gallery, GalleryBuilder};
use crate::pipeline::data_module::{DataModule, ValidBatch};
use crate::progress::Progress;
use crate::recall::RetrievalReport;

/// Texts per encoder pass.
const CHUNK: usize = 64;

/// Result of a retrieval evaluation.
#[derive(Debug, Clone)]
pub struct RetrievalEval {
    /// Recall after reranking.
    pub report: RetrievalReport,
    /// Recall by feature similarity alone.
    pub by_similarity: RetrievalReport,
    /// Weight of the similarity relative to the matching logit.
    pub similarity_weight: f64,
    /// Scores (texts, images) after reranking, for showing search results.
    pub t2i: Tensor,
    /// Dataset index of each image of the scores; skipped images have none.
    pub images: Vec<usize>,
    /// Each text of the scores, with the dataset index of its image.
    pub texts: Vec<(usize, String)>,
}

/// Encoded images and texts of a dataset.
#[derive(Debug)]
pub struct EncodedGallery {
    /// States and features.
    pub gallery: Gallery,
    /// As in [`RetrievalEval::images`].
    pub images: Vec<usize>,
    /// As in [`RetrievalEval::texts`].
    pub texts: Vec<(usize, String)>,
}

/// Encodes a dataset: every image or clip once, every caption once.
///
/// # Errors
/// An image that does not decode and may not be skipped, shapes that do not fit the model.
pub fn encode_gallery(
    blip: &Blip,
    bound: &BoundModel,
    dataset: &Dataset,
    data_module: &DataModule,
    progress: &mut dyn Progress,
) -> Result<EncodedGallery> {
    let mut texts = dataset.texts(data_module.keywords.into());
    let total = (dataset.len() + texts.len()) as u64;
    let mut builder = GalleryBuilder::default();
    let mut done = 0;
    progress.on_part("encoding", done, total);
    let mut images = Vec::with_capacity(dataset.len());
    for batch in data_module.eval_loader(dataset)?.epoch(0)? {
        let batch = batch?;
        done += batch.indices.len() as u64;
        if let Some(batch) = ValidBatch::new(batch, blip.device())? {
            builder.images(blip, bound, batch.images()?)?;
            images.extend(&batch.indices);
        }
        progress.on_part("encoding", done, total);
    }
    if images.len() < dataset.len() {
        let left_out = |index: &usize| images.binary_search(index).is_err();
        let before = texts.len();
        texts.retain(|(index, _)| !left_out(index));
        done += (before - texts.len()) as u64;
    }
    for chunk in texts.chunks(CHUNK) {
        let chunk: Vec<&str> = chunk.iter().map(|(_, text)| text.as_str()).collect();
        let (ids, mask) =
            data_module.tokens.encode_batch(&chunk, data_module.max_tokens, Padding::Longest)?;
        let (ids, mask) = (ids.to_device(blip.device())?, mask.to_device(blip.device())?);
        builder.texts(blip, bound, &ids, &mask)?;
        done += chunk.len() as u64;
        progress.on_part("encoding", done, total);
    }
    Ok(EncodedGallery { gallery: builder.finish()?, images, texts })
}

/// Concept ids of images and of texts: equal ids belong together.
///
/// # Errors
/// An index past the end of the dataset.
pub fn concepts(
    dataset: &Dataset,
    images: &[usize],
    texts: &[(usize, String)],
) -> Result<(Vec<i64>, Vec<i64>)> {
    let concept = |index: usize| Ok(dataset.concept(index)?);
    let images = images.iter().map(|&index| concept(index)).collect::<Result<_>>()?;
    let texts = texts.iter().map(|&(index, _)| concept(index)).collect::<Result<_>>()?;
    Ok((images, texts))
}

/// Two-stage retrieval of a dataset. Of several `similarity_weight` candidates the best on this dataset is taken: pass
/// the list on validation data, and the chosen one on test data.
///
/// # Errors
/// As [`encode_gallery`].
pub fn evaluate_retrieval(
    (blip, bound): (&Blip, &BoundModel),
    dataset: &Dataset,
    data_module: &DataModule,
    section: &EvaluationSection,
    similarity_weight: Option<f64>,
    progress: &mut dyn Progress,
) -> Result<RetrievalEval> {
    let EncodedGallery { gallery, images, texts } =
        encode_gallery(blip, bound, dataset, data_module, progress)?;
    let (image_ids, text_ids) = concepts(dataset, &images, &texts)?;
    let similarity = gallery.similarity()?.to_device(&Device::Cpu)?;
    let by_similarity = RetrievalReport::from_similarity(&similarity, &image_ids, &text_ids)?;
    let (report, similarity_weight, t2i) = if section.k_test == 0 {
        (by_similarity, 0.0, similarity.t()?.contiguous()?)
    } else {
        let reranked = gallery.rerank(blip, bound, section.k_test, progress)?;
        let candidates = section.similarity_weight.as_slice();
        let chosen = match similarity_weight {
            Some(similarity_weight) => Some((
                similarity_weight,
                reranked.report(similarity_weight, &image_ids, &text_ids)?,
            )),
            None => reranked.best_similarity_weight(candidates, &image_ids, &text_ids)?,
        };
        let (similarity_weight, report) = chosen.unwrap_or((0.0, by_similarity));
        (report, similarity_weight, reranked.scores(similarity_weight)?.t2i)
    };
    Ok(RetrievalEval { report, by_similarity, similarity_weight, t2i, images, texts })
}
