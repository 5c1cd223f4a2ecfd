//! Random baseline: expected recall of a random ranking.

use std::collections::HashMap;

use crate::page::RecallAtK;

/// Expected recall of a random ranking, where equal ids are right for each other.
pub fn random_baseline(image_ids: &[i64], text_ids: &[i64]) -> RecallAtK {
    RecallAtK {
        image_to_text: expected(image_ids, text_ids),
        text_to_image: expected(text_ids, image_ids),
    }
}

fn expected(queries: &[i64], candidates: &[i64]) -> [f64; 3] {
    let mut right: HashMap<i64, usize> = HashMap::new();
    for id in candidates {
        *right.entry(*id).or_default() += 1;
    }
    [1, 5, 10].map(|k| {
        let hits = queries.iter().map(|id| {
            let right = right.get(id).copied().unwrap_or(0);
            1.0 - all_wrong(candidates.len(), right, k)
        });
        100.0 * hits.sum::<f64>() / queries.len().max(1) as f64
    })
}

/// Hypergeometric probability that none of `right` right candidates is among the first `k` of `total` in random order:
/// the product over places of the share of wrong ones left.
fn all_wrong(total: usize, right: usize, k: usize) -> f64 {
    (0..k.min(total))
        .map(|place| {
            let left = total - place;
            left.saturating_sub(right) as f64 / left as f64
        })
        .product()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_right_of_many_is_k_over_n() {
        let ids: Vec<i64> = (0..200).collect();
        let random_baseline = random_baseline(&ids, &ids);
        for (found, wanted) in random_baseline.text_to_image.iter().zip([0.5, 2.5, 5.0]) {
            assert!((found - wanted).abs() < 1e-9);
        }
    }

    #[test]
    fn several_right_ones_help() {
        // Two right among four: the first is right with 1/2; two wrong ones cannot fill five places.
        let random_baseline = random_baseline(&[1], &[1, 1, 2, 2]);
        assert!((random_baseline.image_to_text[0] - 50.0).abs() < 1e-9);
        assert_eq!(random_baseline.image_to_text[1], 100.0);
        // Texts of concept 2 have no image to find.
        assert!((random_baseline.text_to_image[0] - 50.0).abs() < 1e-9);
    }
}
