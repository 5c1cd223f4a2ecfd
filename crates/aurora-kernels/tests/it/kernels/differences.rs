//! Gradients of the f64 references against central differences of them.

/// Compares the gradient of `f` at a point with central differences.
#[track_caller]
pub fn assert_gradient(what: &str, f: impl Fn(&[f64]) -> f64, at: &[f64], gradient: &[f64]) {
    const STEP: f64 = 1e-5;
    assert_eq!(at.len(), gradient.len(), "{what}: length");
    for (index, &analytic) in gradient.iter().enumerate() {
        let moved = |step: f64| {
            let mut at = at.to_vec();
            at[index] += step;
            f(&at)
        };
        let difference = (moved(STEP) - moved(-STEP)) / (2.0 * STEP);
        assert!(
            (difference - analytic).abs() <= 1e-7 * (1.0 + analytic.abs()),
            "{what}: element {index} is {analytic}, differences say {difference}"
        );
    }
}

/// Weighted sum of a result: a function whose gradient is a backward pass.
pub fn weighed(y: &[f64], weights: &[f64]) -> f64 {
    y.iter().zip(weights).map(|(y, weight)| y * weight).sum()
}
