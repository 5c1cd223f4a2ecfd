//! Hard negatives for image-text matching (ITM): all positive pairs, and a negative image per text
//! and a negative text per image that look right to the online features (Li et al. 2021,
//! arXiv:2107.07651).
//!
//! A negative is drawn in proportion to the softmax of the similarities among pairs with another id.
//! Each draw has its own random stream, keyed by seed, step and row, so it does not depend on the
//! order of the work nor on the rest of the batch.

use aurora_kernels::random::Stream;
use candle_core::{DType, Device, Tensor};

use crate::error::{Error, Result};
use std::ops::Range;

/// Hard negatives of B consecutive pairs of a batch, as rows of the batch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HardNegatives {
    /// Row of the first of these pairs: 0, except on the later ranks of a distributed batch.
    pub first: u32,
    /// Row of the negative image of each text.
    pub image_for_text: Vec<u32>,
    /// Row of the negative text of each image.
    pub text_for_image: Vec<u32>,
}

/// The 3 B pairs that ITM classifies, as rows of the batch's images and texts: the positives, then
/// every text with its negative image, then every image with its negative text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ItmPairs {
    /// Row of the image of each pair.
    pub image_rows: Vec<u32>,
    /// Row of the text of each pair.
    pub text_rows: Vec<u32>,
    /// 1 for a positive pair, 0 for a negative one.
    pub labels: Vec<u32>,
}

impl HardNegatives {
    /// Draws one negative image per text and one negative text per image.
    ///
    /// `similarity` (images, texts) is the logit of a softmax, that is, divided by the
    /// temperature; pairs with equal `ids` are never negatives of each other.
    ///
    /// # Errors
    /// A shape that is not (ids, ids), a similarity that is not a number, a pair whose id is the id
    /// of the whole batch.
    pub fn draw(similarity: &Tensor, ids: &[i64], seed: u64, step: u64) -> Result<Self> {
        Self::draw_rows(similarity, ids, 0..ids.len(), seed, step)
    }

    /// Draws negatives for a range of rows: each rank of a distributed batch draws for its own pairs from the pairs of
    /// all ranks, and draws what one rank alone would have drawn for them.
    ///
    /// # Errors
    /// As [`Self::draw`]; rows beyond the batch.
    pub fn draw_rows(
        similarity: &Tensor,
        ids: &[i64],
        own: Range<usize>,
        seed: u64,
        step: u64,
    ) -> Result<Self> {
        let batch = ids.len();
        if own.end > batch {
            let (operation, name) = ("hard negatives", "rows of the batch");
            return Err(Error::Count { operation, name, found: own.end, expected: batch });
        }
        if similarity.dims() != [batch, batch] {
            return Err(Error::Shape {
                operation: "hard negatives",
                name: "similarity".to_owned(),
                found: similarity.dims().to_vec(),
                expected: format!("[{batch}, {batch}], one row and column per id"),
            });
        }
        let rows: Vec<Vec<f32>> = similarity.detach().to_dtype(DType::F32)?.to_vec2()?;
        let draw = |purpose: &str, row: usize, score: &dyn Fn(usize) -> f32| -> Result<u32> {
            let weights = masked_softmax(row, ids, score)?;
            let chosen = Stream::new(seed, purpose, step, row as u64).weighted(&weights);
            let chosen = chosen.ok_or(Error::NoNegative { row, id: ids[row], batch })?;
            Ok(chosen as u32)
        };
        let image_for_text = own
            .clone()
            .map(|text| draw("negative image", text, &|image| rows[image][text]))
            .collect::<Result<_>>()?;
        let text_for_image = own
            .clone()
            .map(|image| draw("negative text", image, &|text| rows[image][text]))
            .collect::<Result<_>>()?;
        Ok(Self { first: own.start as u32, image_for_text, text_for_image })
    }

    /// Number of rows with negatives.
    pub fn len(&self) -> usize {
        self.image_for_text.len()
    }

    /// True if no row has negatives.
    pub fn is_empty(&self) -> bool {
        self.image_for_text.is_empty()
    }

    /// Keeps the negatives of the first `rows` pairs; the negatives may be any rows of the batch.
    pub fn truncate(&mut self, rows: usize) {
        self.image_for_text.truncate(rows);
        self.text_for_image.truncate(rows);
    }
}

impl ItmPairs {
    /// Positive and negative pairs of a batch.
    pub fn new(negatives: &HardNegatives) -> Self {
        let pairs = negatives.len() as u32;
        let own = || negatives.first..negatives.first + pairs;
        Self {
            image_rows: own()
                .chain(negatives.image_for_text.iter().copied())
                .chain(own())
                .collect(),
            text_rows: own().chain(own()).chain(negatives.text_for_image.iter().copied()).collect(),
            labels: own().map(|_| 1).chain((0..2 * pairs).map(|_| 0)).collect(),
        }
    }

    /// Number of pairs, 3 B.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// True if there are no pairs.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Labels as a u32 tensor (3 B), for two-way cross-entropy.
    ///
    /// # Errors
    /// Any candle error.
    pub fn label_tensor(&self, device: &Device) -> Result<Tensor> {
        Ok(Tensor::from_slice(&self.labels, self.labels.len(), device)?)
    }
}

/// Masked softmax: of `score(column)` over the columns with another id than `row`'s, 0 in the others.
///
/// Masking before the softmax instead of after it gives the same proportions, and does not underflow
/// when the positive pair alone has all the weight.
fn masked_softmax(row: usize, ids: &[i64], score: &dyn Fn(usize) -> f32) -> Result<Vec<f32>> {
    let others = || (0..ids.len()).filter(|&column| ids[column] != ids[row]);
    if let Some(value) = others().map(score).find(|s| !s.is_finite()) {
        let what = format!("hard negatives: a similarity of pair {row}");
        return Err(Error::NotFinite { what, value: f64::from(value) });
    }
    let top = others().map(score).fold(f32::NEG_INFINITY, f32::max);
    let mut weights = vec![0.0; ids.len()];
    for column in others() {
        weights[column] = (score(column) - top).exp();
    }
    Ok(weights)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matrix(values: &[f32], n: usize) -> Tensor {
        Tensor::from_slice(values, (n, n), &Device::Cpu).unwrap()
    }

    #[test]
    fn pairs_are_in_the_documented_order() {
        let negatives =
            HardNegatives { first: 0, image_for_text: vec![1, 0], text_for_image: vec![1, 0] };
        let pairs = ItmPairs::new(&negatives);
        assert_eq!(pairs.image_rows, [0, 1, 1, 0, 0, 1]);
        assert_eq!(pairs.text_rows, [0, 1, 0, 1, 1, 0]);
        assert_eq!(pairs.labels, [1, 1, 0, 0, 0, 0]);
        assert_eq!(pairs.label_tensor(&Device::Cpu).unwrap().dims(), [6]);
        assert_eq!((pairs.len(), pairs.is_empty()), (6, false));
    }

    #[test]
    fn the_harder_is_drawn_more_often_by_the_softmax() {
        // Text 0 sees images 1 and 2 with logits 0 and ln 3: a quarter and three quarters.
        let similarity = matrix(&[9.0, 0.0, 0.0, 0.0, 9.0, 0.0, 3f32.ln(), 0.0, 9.0], 3);
        let mut hits = 0;
        for step in 0..4000 {
            let drawn = HardNegatives::draw(&similarity, &[0, 1, 2], 1, step).unwrap();
            hits += usize::from(drawn.image_for_text[0] == 2);
        }
        assert!((2850..3150).contains(&hits), "{hits}");
    }

    #[test]
    fn sharp_similarities_do_not_underflow() {
        let similarity = matrix(&[1000.0, -1000.0, -1000.0, 1000.0], 2);
        let drawn = HardNegatives::draw(&similarity, &[0, 1], 1, 0).unwrap();
        assert_eq!(drawn.image_for_text, [1, 0]);
        assert_eq!(drawn.text_for_image, [1, 0]);
    }

    #[test]
    fn a_batch_of_one_id_is_an_error() {
        let e = HardNegatives::draw(&matrix(&[0.0; 4], 2), &[7, 7], 1, 0).unwrap_err().to_string();
        assert!(e.contains("pair 0 (id 7)") && e.contains("larger batch"), "{e}");
        let e = HardNegatives::draw(&matrix(&[f32::NAN; 4], 2), &[7, 8], 1, 0).unwrap_err();
        assert!(e.to_string().contains("diverged"), "{e}");
        let e = HardNegatives::draw_rows(&matrix(&[0.0; 4], 2), &[7, 8], 1..3, 1, 0).unwrap_err();
        assert!(e.to_string().contains("rows of the batch"), "{e}");
        let e = HardNegatives::draw(&matrix(&[0.0; 4], 2), &[7], 1, 0).unwrap_err().to_string();
        assert!(e.contains("[2, 2]") && e.contains("[1, 1]"), "{e}");
    }

    proptest! {
        #[test]
        fn never_the_same_id_and_always_the_same_draw(
            seed in any::<u64>(), step in any::<u64>(), batch in 2usize..12, kinds in 2i64..5,
        ) {
            let similarity = Stream::new(seed, "test", 0, 0).normal_tensor((batch, batch), 5.0).unwrap();
            let ids: Vec<i64> = (0..batch as i64).map(|i| i % kinds).collect();
            let drawn = HardNegatives::draw(&similarity, &ids, seed, step).unwrap();
            // The draws do not depend on how the batch is split over ranks.
            let cut = (seed % (batch as u64 + 1)) as usize;
            let rank = |own| HardNegatives::draw_rows(&similarity, &ids, own, seed, step).unwrap();
            let (front, back) = (rank(0..cut), rank(cut..batch));
            prop_assert_eq!(back.first, cut as u32);
            prop_assert_eq!([front.image_for_text, back.image_for_text].concat(), drawn.image_for_text.clone());
            prop_assert_eq!([front.text_for_image, back.text_for_image].concat(), drawn.text_for_image.clone());
            prop_assert_eq!(&drawn, &HardNegatives::draw(&similarity, &ids, seed, step).unwrap());
            for negatives in [&drawn.image_for_text, &drawn.text_for_image] {
                for (row, &negative) in negatives.iter().enumerate() {
                    prop_assert_ne!(ids[row], ids[negative as usize]);
                }
            }
        }
    }
}
