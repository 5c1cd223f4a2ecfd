//! Two-stage retrieval: contrastive similarity selects candidates, the matching head (ITM) reranks
//! them (Li et al. 2021, arXiv:2107.07651).
//!
//! Every image gets its `k_test` most similar texts and every text its `k_test` most similar
//! images. A pair that both select is scored once, and pairs are handed out image by image, so that a
//! scorer computes the cross-attention keys and values of an image once for all of its texts. Matching
//! logits are kept apart from the similarity: `score = logit + similarity_weight similarity` can be
//! formed for several weights without a second pass.

use candle_core::{DType, Tensor};

use crate::error::{Error, Result};
use crate::recall::RetrievalReport;

/// Score of a pair that is no candidate, as in the reference code.
pub const NOT_RANKED: f32 = -100.0;

/// Image with its candidate texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidates {
    /// Index of the image.
    pub image: usize,
    /// Indices of the texts, ascending.
    pub texts: Vec<usize>,
}

/// Scorer of image-text pairs.
pub trait PairScorer {
    /// Matching logits of each item of `work`: its image with its texts, in order.
    ///
    /// # Errors
    /// Any error of the model.
    fn score_pairs(&mut self, work: &[Candidates]) -> Result<Vec<Vec<f32>>>;
}

impl<F: FnMut(&[Candidates]) -> Result<Vec<Vec<f32>>>> PairScorer for F {
    fn score_pairs(&mut self, work: &[Candidates]) -> Result<Vec<Vec<f32>>> {
        self(work)
    }
}

/// Matching logits of the candidate pairs of an evaluation set.
#[derive(Debug, Clone)]
pub struct Reranked {
    images: usize,
    texts: usize,
    similarity: Vec<f32>, // (images, texts)
    logits: Vec<f32>,     // (images, texts), NaN where neither side asked
    by_image: Vec<Vec<usize>>,
    by_text: Vec<Vec<usize>>,
}

/// Scores in both directions, [`NOT_RANKED`] for pairs that are no candidates.
#[derive(Debug, Clone)]
pub struct Scores {
    /// (images, texts).
    pub i2t: Tensor,
    /// (texts, images).
    pub t2i: Tensor,
}

/// Reranks the candidates of `similarity` (images, texts).
///
/// `k_test` is clamped to the number of candidates; equal similarities are taken in order of index.
/// `pairs_per_call` bounds the pairs of one call of the scorer; the texts of one image always go
/// together.
///
/// # Errors
/// A similarity that is not a matrix of numbers, an error of the scorer, a scorer that returns
/// another number of logits than asked for, or a logit that is not a number.
pub fn rerank(
    similarity: &Tensor,
    k_test: usize,
    pairs_per_call: usize,
    scorer: &mut impl PairScorer,
) -> Result<Reranked> {
    let &[images, texts] = similarity.dims() else {
        return Err(Error::Shape {
            operation: "rerank",
            name: "similarity".to_owned(),
            found: similarity.dims().to_vec(),
            expected: "(images, texts)".to_owned(),
        });
    };
    let similarity: Vec<f32> = similarity.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
    if let Some(place) = similarity.iter().position(|s| s.is_nan()) {
        let what = format!("the similarity of image {} and text {}", place / texts, place % texts);
        return Err(Error::NotFinite { what, value: f64::NAN });
    }
    let by_image: Vec<Vec<usize>> =
        (0..images).map(|i| top(texts, k_test, |t| similarity[i * texts + t])).collect();
    let by_text: Vec<Vec<usize>> =
        (0..texts).map(|t| top(images, k_test, |i| similarity[i * texts + t])).collect();

    let mut wanted = by_image.clone();
    for (text, images) in by_text.iter().enumerate() {
        for &image in images {
            wanted[image].push(text);
        }
    }
    let mut logits = vec![f32::NAN; images * texts];
    let mut work: Vec<Candidates> = Vec::new();
    let mut pending = 0;
    let mut flush = |work: &mut Vec<Candidates>| -> Result<()> {
        let scored = scorer.score_pairs(work)?;
        let count = |operation, name, found, expected| {
            if found == expected {
                return Ok(());
            }
            Err(Error::Count { operation, name, found, expected })
        };
        count("rerank", "images scored", scored.len(), work.len())?;
        for (candidates, scored) in work.drain(..).zip(scored) {
            count("rerank", "logits for an image", scored.len(), candidates.texts.len())?;
            for (&text, logit) in candidates.texts.iter().zip(scored) {
                if logit.is_nan() {
                    let what = format!("the logit of image {} and text {text}", candidates.image);
                    return Err(Error::NotFinite { what, value: f64::NAN });
                }
                logits[candidates.image * texts + text] = logit;
            }
        }
        Ok(())
    };
    for (image, mut texts) in wanted.into_iter().enumerate() {
        texts.sort_unstable();
        texts.dedup();
        if texts.is_empty() {
            continue;
        }
        if !work.is_empty() && pending + texts.len() > pairs_per_call {
            flush(&mut work)?;
            pending = 0;
        }
        pending += texts.len();
        work.push(Candidates { image, texts });
    }
    if !work.is_empty() {
        flush(&mut work)?;
    }
    Ok(Reranked { images, texts, similarity, logits, by_image, by_text })
}

impl Reranked {
    /// Number of distinct pairs scored.
    pub fn pairs(&self) -> usize {
        self.logits.iter().filter(|l| !l.is_nan()).count()
    }

    /// Combined scores `logit + similarity_weight similarity` of the candidates, in both directions.
    ///
    /// # Errors
    /// A candle error when making the tensors.
    pub fn scores(&self, similarity_weight: f64) -> Result<Scores> {
        let (images, texts) = (self.images, self.texts);
        let score = |image: usize, text: usize| {
            let place = image * texts + text;
            self.logits[place] + similarity_weight as f32 * self.similarity[place]
        };
        let mut i2t = vec![NOT_RANKED; images * texts];
        for (image, candidates) in self.by_image.iter().enumerate() {
            for &text in candidates {
                i2t[image * texts + text] = score(image, text);
            }
        }
        let mut t2i = vec![NOT_RANKED; images * texts];
        for (text, candidates) in self.by_text.iter().enumerate() {
            for &image in candidates {
                t2i[text * images + image] = score(image, text);
            }
        }
        let device = &candle_core::Device::Cpu;
        Ok(Scores {
            i2t: Tensor::from_vec(i2t, (images, texts), device)?,
            t2i: Tensor::from_vec(t2i, (texts, images), device)?,
        })
    }

    /// Recall at a similarity weight.
    ///
    /// # Errors
    /// As [`RetrievalReport::new`].
    pub fn report(
        &self,
        similarity_weight: f64,
        image_ids: &[i64],
        text_ids: &[i64],
    ) -> Result<RetrievalReport> {
        let scores = self.scores(similarity_weight)?;
        RetrievalReport::new(&scores.i2t, &scores.t2i, image_ids, text_ids)
    }

    /// Similarity weight of `candidates` with the best mean recall, and its report; the first among
    /// equals, `None` without candidates. Call it on validation data.
    ///
    /// # Errors
    /// As [`Reranked::report`].
    pub fn best_similarity_weight(
        &self,
        candidates: &[f64],
        image_ids: &[i64],
        text_ids: &[i64],
    ) -> Result<Option<(f64, RetrievalReport)>> {
        let mut best: Option<(f64, RetrievalReport)> = None;
        for &similarity_weight in candidates {
            let report = self.report(similarity_weight, image_ids, text_ids)?;
            if best.is_none_or(|(_, top)| report.mean() > top.mean()) {
                best = Some((similarity_weight, report));
            }
        }
        Ok(best)
    }
}

/// Top-k: indices of the `k` largest of `count` scores, best first, equal ones by index.
fn top(count: usize, k: usize, score: impl Fn(usize) -> f32) -> Vec<usize> {
    let mut indices: Vec<usize> = (0..count).collect();
    let order = |a: &usize, b: &usize| score(*b).total_cmp(&score(*a)).then(a.cmp(b));
    if k == 0 {
        return Vec::new();
    }
    if k < count {
        indices.select_nth_unstable_by(k - 1, order);
        indices.truncate(k);
    }
    indices.sort_unstable_by(order);
    indices
}

#[cfg(test)]
#[path = "rerank_tests.rs"]
mod tests;
