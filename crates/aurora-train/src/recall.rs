//! Recall at 1, 5 and 10 (R@K), image-to-text and text-to-image.
//!
//! Ground truth is given by ids: a text is right for an image if their ids are equal, so an image may
//! have several captions and a caption several images. A query is a hit at K if one of its right
//! candidates is among the first K.
//!
//! Ties count against the model: a wrong candidate with the score of the best right one ranks before
//! it. The result depends on no order, and a model that scores everything alike gets nothing.

use candle_core::{DType, Tensor};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Recall: percentage of queries with a right candidate among the first 1, 5 and 10.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recall {
    /// Recall at 1, percent.
    pub r1: f64,
    /// Recall at 5, percent.
    pub r5: f64,
    /// Recall at 10, percent.
    pub r10: f64,
}

impl Recall {
    /// Recall from the rank of each query's best right candidate, counted from 0.
    pub fn from_ranks(ranks: &[usize]) -> Self {
        let share = |k: usize| {
            let found = ranks.iter().filter(|&&rank| rank < k).count();
            100.0 * found as f64 / ranks.len().max(1) as f64
        };
        Self { r1: share(1), r5: share(5), r10: share(10) }
    }

    /// Mean of R@1, R@5 and R@10.
    pub fn mean(&self) -> f64 {
        (self.r1 + self.r5 + self.r10) / 3.0
    }
}

/// Recall in both directions.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetrievalReport {
    /// Image-to-text recall.
    pub i2t: Recall,
    /// Text-to-image recall.
    pub t2i: Recall,
}

impl RetrievalReport {
    /// Recall by `score_i2t` (images, texts) and `score_t2i` (texts, images), higher is better.
    ///
    /// # Errors
    /// Shapes that are not (images, texts) and (texts, images), a score that is not a number,
    /// an image or a text with nothing right to find.
    pub fn new(
        score_i2t: &Tensor,
        score_t2i: &Tensor,
        image_ids: &[i64],
        text_ids: &[i64],
    ) -> Result<Self> {
        let i2t = ranks("score_i2t", score_i2t, image_ids, text_ids, ["image", "text"])?;
        let t2i = ranks("score_t2i", score_t2i, text_ids, image_ids, ["text", "image"])?;
        Ok(Self { i2t: Recall::from_ranks(&i2t), t2i: Recall::from_ranks(&t2i) })
    }

    /// Recall by one matrix (images, texts) for both directions.
    ///
    /// # Errors
    /// As [`RetrievalReport::new`].
    pub fn from_similarity(
        similarity: &Tensor,
        image_ids: &[i64],
        text_ids: &[i64],
    ) -> Result<Self> {
        Self::new(similarity, &similarity.t()?, image_ids, text_ids)
    }

    /// Mean recall: the mean of R@1, R@5 and R@10 in both directions, percent.
    pub fn mean(&self) -> f64 {
        (self.i2t.mean() + self.t2i.mean()) / 2.0
    }
}

/// Rank of the best right candidate of each row of `scores` (queries, candidates), counted from 0:
/// the number of wrong candidates before it, ties included.
///
/// `kinds` names a query and a candidate in errors.
///
/// # Errors
/// A shape that does not fit the ids, a score that is not a number, a query without a right
/// candidate.
pub fn ranks(
    name: &str,
    scores: &Tensor,
    query_ids: &[i64],
    candidate_ids: &[i64],
    kinds: [&'static str; 2],
) -> Result<Vec<usize>> {
    if scores.dims() != [query_ids.len(), candidate_ids.len()] {
        return Err(Error::Shape {
            operation: "recall",
            name: name.to_owned(),
            found: scores.dims().to_vec(),
            expected: format!("[{}, {}]", query_ids.len(), candidate_ids.len()),
        });
    }
    let mut found = Vec::with_capacity(query_ids.len());
    for (index, &id) in query_ids.iter().enumerate() {
        // One row at a time, so that the matrix of a large test set is not held twice.
        let row: Vec<f32> = scores.get(index)?.to_dtype(DType::F32)?.to_vec1()?;
        if let Some(bad) = row.iter().find(|score| score.is_nan()) {
            let what = format!("{name} of {} {index}", kinds[0]);
            return Err(Error::NotFinite { what, value: f64::from(*bad) });
        }
        let right = row.iter().zip(candidate_ids).filter(|&(_, &other)| other == id);
        let best = right.map(|(&score, _)| score).max_by(f32::total_cmp);
        let [kind, other] = kinds;
        let best = best.ok_or(Error::NoGroundTruth { kind, index, id, other })?;
        let before = row.iter().zip(candidate_ids).filter(|&(&s, &i)| i != id && s >= best);
        found.push(before.count());
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;
    use proptest::prelude::*;

    fn matrix(values: &[f32], rows: usize) -> Tensor {
        Tensor::from_slice(values, (rows, values.len() / rows), &Device::Cpu).unwrap()
    }

    #[test]
    fn several_captions_of_one_image() {
        // Two images, two captions each.
        let scores = matrix(&[0.1, 0.9, 0.5, 0.4, 0.8, 0.7, 0.2, 0.3], 2);
        let report = RetrievalReport::from_similarity(&scores, &[7, 8], &[7, 7, 8, 8]).unwrap();
        // Image 0: caption 1 is first. Image 1: captions 0 and 1 stand before caption 3.
        assert_eq!(report.i2t, Recall { r1: 50.0, r5: 100.0, r10: 100.0 });
        // Texts: 0 -> image 1 first (wrong), 1 -> 0 right, 2 -> 0 wrong, 3 -> 0 wrong.
        assert_eq!(report.t2i, Recall { r1: 25.0, r5: 100.0, r10: 100.0 });
        assert!((report.mean() - (250.0 / 3.0 + 225.0 / 3.0) / 2.0).abs() < 1e-9);
    }

    #[test]
    fn ties_count_against_us() {
        let scores = matrix(&[1.0; 9], 3);
        let report = RetrievalReport::from_similarity(&scores, &[0, 1, 2], &[0, 1, 2]).unwrap();
        assert_eq!(report.i2t.r1, 0.0);
        assert_eq!(report.i2t.r5, 100.0);
    }

    #[test]
    fn names_what_is_wrong() {
        let scores = matrix(&[1.0, 2.0], 1);
        let e = RetrievalReport::from_similarity(&scores, &[3], &[3]).unwrap_err().to_string();
        assert!(e.contains("[1, 2]") && e.contains("[1, 1]"), "{e}");
        let e = RetrievalReport::from_similarity(&scores, &[3], &[3, 4]).unwrap_err().to_string();
        assert!(e.contains("text 1 (id 4) has no image"), "{e}");
        let scores = matrix(&[1.0, f32::NAN], 1);
        let e = RetrievalReport::from_similarity(&scores, &[3], &[3, 3]).unwrap_err().to_string();
        assert!(e.contains("score_i2t of image 0"), "{e}");
    }

    #[test]
    fn json_has_the_names_of_the_summary() {
        let text = serde_json::to_string(&RetrievalReport::default()).unwrap();
        let part = r#"{"r1":0.0,"r5":0.0,"r10":0.0}"#;
        assert_eq!(text, format!(r#"{{"i2t":{part},"t2i":{part}}}"#));
    }

    proptest! {
        // Oracle: sort the candidates, wrong ones first among equals, and find the first right one.
        #[test]
        fn same_as_sorting(
            values in prop::collection::vec(0u8..6, 1..60), columns in 1usize..8, kinds in 1i64..4,
        ) {
            let columns = columns.min(values.len());
            let rows = values.len() / columns;
            let values: Vec<f32> = values[..rows * columns].iter().map(|&v| f32::from(v)).collect();
            let query_ids: Vec<i64> = (0..rows as i64).map(|i| i % kinds.min(columns as i64)).collect();
            let candidate_ids: Vec<i64> = (0..columns as i64).map(|i| i % kinds).collect();
            let scores = matrix(&values, rows);
            let found = ranks("s", &scores, &query_ids, &candidate_ids, ["q", "c"]).unwrap();
            for (row, rank) in found.into_iter().enumerate() {
                let mut order: Vec<usize> = (0..columns).collect();
                let right = |c: usize| candidate_ids[c] == query_ids[row];
                order.sort_by(|&a, &b| {
                    let (x, y) = (values[row * columns + a], values[row * columns + b]);
                    y.total_cmp(&x).then(right(a).cmp(&right(b)))
                });
                prop_assert_eq!(rank, order.iter().position(|&c| right(c)).unwrap());
            }
        }
    }
}
