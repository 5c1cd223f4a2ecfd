//! Medians and ranges of repeated measurements.

/// Median: of an even count the mean of the two in the middle; NaN of no values.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    spread(values)[0]
}

/// Median, minimum and maximum; NaN of no values.
pub(crate) fn spread(values: impl IntoIterator<Item = f64>) -> [f64; 3] {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.as_slice() {
        [] => [f64::NAN; 3],
        [least, .., greatest] if values.len().is_multiple_of(2) => {
            [(values[middle - 1] + values[middle]) / 2.0, *least, *greatest]
        }
        all => [all[middle], all[0], all[all.len() - 1]],
    }
}

/// Mean and sample standard deviation; the latter is NaN of one value.
pub(crate) fn mean_and_deviation(values: &[f64]) -> [f64; 2] {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    [mean, (squares / (count - 1.0)).sqrt()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_of_odd_and_even_counts() {
        assert_eq!(spread([9.0, 1.0, 4.0]), [4.0, 1.0, 9.0]);
        assert_eq!(spread([4.0, 1.0, 3.0, 2.0]), [2.5, 1.0, 4.0]);
        assert_eq!(median([5.0]), 5.0);
        assert!(median([]).is_nan());
    }

    #[test]
    fn deviation_is_that_of_a_sample() {
        assert_eq!(mean_and_deviation(&[1.0, 2.0, 3.0]), [2.0, 1.0]);
        assert!(mean_and_deviation(&[1.0])[1].is_nan());
    }
}
