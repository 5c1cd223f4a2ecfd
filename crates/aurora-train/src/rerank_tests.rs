//! Reranking: candidates, clamping, both directions, and numbers of the reference code.

use super::*;
use candle_core::Device;
use proptest::prelude::*;

fn matrix(values: &[f32], rows: usize) -> Tensor {
    Tensor::from_slice(values, (rows, values.len() / rows), &Device::Cpu).unwrap()
}

/// Scorer that looks logits up in a table (images, texts) and counts calls.
struct Table {
    logits: Vec<f32>,
    texts: usize,
    calls: Vec<Vec<Candidates>>,
}

impl PairScorer for Table {
    fn score_pairs(&mut self, work: &[Candidates]) -> Result<Vec<Vec<f32>>> {
        self.calls.push(work.to_vec());
        let row = |c: &Candidates| {
            c.texts.iter().map(|t| self.logits[c.image * self.texts + t]).collect()
        };
        Ok(work.iter().map(row).collect())
    }
}

#[test]
fn scores_of_the_released_code() {
    // Similarities, matching logits and scores of the reference PyTorch evaluation of a tiny model
    // with k_test 2 and similarity_weight 0.
    let similarity = [
        0.286_574_13,
        0.283_351_03,
        0.284_552_72,
        0.284_676_64,
        0.326_779_43,
        0.319_735_53,
        0.328_366_1,
        0.322_507_2,
        0.422_384_32,
        0.415_705_77,
        0.423_556_7,
        0.415_837_82,
        0.317_652_58,
        0.310_063_45,
        0.312_847_5,
        0.320_269_55f32,
    ];
    let n = NOT_RANKED;
    let i2t = [
        2.550_479,
        n,
        n,
        2.542_056,
        2.632_601_5,
        n,
        2.581_026_3,
        n,
        2.566_383,
        n,
        2.516_354_3,
        n,
        2.599_377,
        n,
        n,
        2.589_794f32,
    ];
    let t2i = [
        n,
        2.632_601_5,
        2.566_383,
        n,
        n,
        2.631_678_3,
        2.565_421_8,
        n,
        n,
        2.581_026_3,
        2.516_354_3,
        n,
        n,
        2.622_39,
        2.557_111_5,
        n,
    ];
    let mut logits = vec![f32::NAN; 16];
    for (image, text) in (0..4).flat_map(|i| (0..4).map(move |t| (i, t))) {
        for score in [i2t[image * 4 + text], t2i[text * 4 + image]] {
            if score != n {
                logits[image * 4 + text] = score;
            }
        }
    }
    let mut table = Table { logits, texts: 4, calls: Vec::new() };
    let reranked = rerank(&matrix(&similarity, 4), 2, 1000, &mut table).unwrap();
    let scores = reranked.scores(0.0).unwrap();
    assert_eq!(scores.i2t.flatten_all().unwrap().to_vec1::<f32>().unwrap(), i2t);
    assert_eq!(scores.t2i.flatten_all().unwrap().to_vec1::<f32>().unwrap(), t2i);
    assert_eq!(reranked.pairs(), 12);
}

#[test]
fn beta_weighs_the_similarity_and_is_chosen_by_recall() {
    // The matching head is wrong, the similarity right.
    let similarity = matrix(&[1.0, 0.0, 0.0, 1.0], 2);
    let mut scorer = |work: &[Candidates]| -> Result<Vec<Vec<f32>>> {
        Ok(work
            .iter()
            .map(|c| c.texts.iter().map(|&t| f32::from(t != c.image)).collect())
            .collect())
    };
    let reranked = rerank(&similarity, 5, 1, &mut scorer).unwrap();
    let ids = [0, 1];
    assert_eq!(reranked.report(0.0, &ids, &ids).unwrap().i2t.r1, 0.0);
    let (similarity_weight, report) =
        reranked.best_similarity_weight(&[0.0, 2.0, 4.0], &ids, &ids).unwrap().unwrap();
    assert_eq!((similarity_weight, report.i2t.r1, report.t2i.r1), (2.0, 100.0, 100.0));
    assert_eq!(reranked.best_similarity_weight(&[], &ids, &ids).unwrap(), None);
    let scores = reranked.scores(2.0).unwrap().i2t.to_vec2::<f32>().unwrap();
    assert_eq!(scores, [[2.0, 1.0], [1.0, 2.0]]);
}

#[test]
fn a_scorer_is_held_to_its_word() {
    let similarity = matrix(&[1.0, 0.0, 0.0, 1.0], 2);
    let mut short = |work: &[Candidates]| Ok(vec![vec![0.0]; work.len()]);
    let e = rerank(&similarity, 2, 10, &mut short).unwrap_err().to_string();
    assert!(e.contains("1 logits for an image, expected 2"), "{e}");
    let mut nan = |work: &[Candidates]| Ok(vec![vec![f32::NAN; 2]; work.len()]);
    let e = rerank(&similarity, 2, 10, &mut nan).unwrap_err().to_string();
    assert!(e.contains("image 0 and text 0"), "{e}");
    let bad = matrix(&[1.0, f32::NAN], 1);
    let e = rerank(&bad, 2, 10, &mut short).unwrap_err().to_string();
    assert!(e.contains("image 0 and text 1"), "{e}");
}

proptest! {
    #[test]
    fn every_pair_once_and_every_candidate_ranked(
        images in 1usize..8, texts in 1usize..8, k in 1usize..10, per_call in 1usize..30,
        values in prop::collection::vec(0u8..5, 64),
    ) {
        let similarity: Vec<f32> = values[..images * texts].iter().map(|&v| f32::from(v)).collect();
        let logits: Vec<f32> = (0..images * texts).map(|i| i as f32 * 0.5).collect();
        let mut table = Table { logits: logits.clone(), texts, calls: Vec::new() };
        let reranked = rerank(&matrix(&similarity, images), k, per_call, &mut table).unwrap();
        let mut seen = std::collections::BTreeSet::new();
        for call in &table.calls {
            let pairs: usize = call.iter().map(|c| c.texts.len()).sum();
            prop_assert!(pairs <= per_call || call.len() == 1);
            for c in call {
                for &t in &c.texts {
                    prop_assert!(seen.insert((c.image, t)), "scored twice");
                }
            }
        }
        prop_assert_eq!(seen.len(), reranked.pairs());
        let scores = reranked.scores(1.0).unwrap();
        let i2t = scores.i2t.to_vec2::<f32>().unwrap();
        let t2i = scores.t2i.to_vec2::<f32>().unwrap();
        for (i, row) in i2t.iter().enumerate() {
            prop_assert_eq!(row.iter().filter(|&&s| s != NOT_RANKED).count(), k.min(texts));
            // Oracle: a full sort picks the same candidates.
            let mut order: Vec<usize> = (0..texts).collect();
            order.sort_by(|&a, &b| similarity[i * texts + b].total_cmp(&similarity[i * texts + a]));
            for &t in order.iter().take(k) {
                prop_assert_eq!(row[t], logits[i * texts + t] + similarity[i * texts + t]);
            }
        }
        for row in &t2i {
            prop_assert_eq!(row.iter().filter(|&&s| s != NOT_RANKED).count(), k.min(images));
        }
    }
}
