//! Agreement of our tensors with PyTorch's.

use std::path::Path;

use aurora_benches::worker::Result;
use aurora_layers::Tensors;
use aurora_layers::checkpoint::{read_tensors, to_hugging_face};
use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor, Var};
use serde_json::{Value, json};

/// Collects the gradients under the names that PyTorch's half gives them.
pub fn gradients(variables: &[(String, Var)], grads: &GradStore, into: &mut Tensors) {
    for (name, var) in variables {
        if let Some(grad) = grads.get(var) {
            into.insert(format!("grad.{}", to_hugging_face(name)), grad.clone());
        }
    }
}

/// Compares tensors: a line for every tensor but gradients, one for the gradient that is furthest off and one for the
/// median one. A tensor agrees if its largest difference is at most `allowed` times its largest value. With `exact`,
/// PyTorch's f32, both ours and `expected`, PyTorch's bf16, are compared with that: ours may be as far off as
/// `expected` if that is more; of gradients the furthest and the median count, since which gradients the same
/// roundings move furthest is chance.
pub fn compare(
    found: &Tensors,
    expected: &Path,
    exact: Option<&Path>,
    allowed: f64,
) -> Result<Vec<Value>> {
    let read = |path: &Path| read_tensors(path, DType::F32, &Device::Cpu);
    let (expected, exact) = (read(expected)?, exact.map(read).transpose()?);
    let (mut lines, mut gradients) = (Vec::new(), Vec::new());
    for (name, tensor) in &expected {
        let (against, theirs) = match exact.as_ref().and_then(|exact| exact.get(name)) {
            Some(exact) => (exact, relative(tensor, exact)?),
            None => (tensor, 0.0),
        };
        // peft keeps the heads it trains below a name of its own.
        let name = name.replace(".modules_to_save.", ".");
        let own = found.get(&name);
        let difference = own.map_or(Ok(f64::INFINITY), |own| relative(own, against))?;
        if name.starts_with("grad.") {
            // NaN is worse than any difference.
            let difference = if difference.is_nan() { f64::INFINITY } else { difference };
            gradients.push((difference, theirs, name));
        } else {
            lines.push(line(&name, difference, allowed.max(theirs)));
        }
    }
    let count = gradients.len();
    let mut theirs: Vec<f64> = gradients.iter().map(|&(_, theirs, _)| theirs).collect();
    theirs.sort_by(f64::total_cmp);
    gradients.sort_by(|(a, ..), (b, ..)| a.total_cmp(b));
    if let (Some((furthest, _, name)), Some(&most)) = (gradients.last(), theirs.last()) {
        let what = format!("{count} gradients, the furthest {name}");
        lines.push(line(&what, *furthest, allowed.max(most)));
        let (middle, limit) = (gradients[count / 2].0, allowed.max(theirs[count / 2]));
        lines.push(line("the middle one of them", middle, limit));
    }
    if lines.is_empty() {
        return Err("PyTorch's half computed nothing".into());
    }
    Ok(lines)
}

fn line(name: &str, difference: f64, allowed: f64) -> Value {
    let agrees = difference <= allowed;
    // JSON has no infinity and no NaN.
    let difference = if difference.is_finite() { difference } else { f64::MAX };
    json!({"name": name, "difference": difference, "allowed": allowed, "agrees": agrees})
}

/// Largest difference over the largest value; infinite for another shape.
fn relative(found: &Tensor, expected: &Tensor) -> Result<f64> {
    if found.dims() != expected.dims() {
        return Ok(f64::INFINITY);
    }
    let largest = |tensor: Tensor| -> Result<f64> {
        let values: Vec<f32> = tensor.flatten_all()?.to_vec1()?;
        // `max` would ignore NaN.
        let larger = |top: f32, x: f32| if top.is_nan() || x <= top { top } else { x };
        Ok(f64::from(values.iter().map(|x| x.abs()).fold(0.0, larger)))
    };
    let difference = largest((found.detach() - expected)?)?;
    if difference == 0.0 {
        return Ok(0.0);
    }
    Ok(difference / largest(expected.clone())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_measured_by_the_largest_value() {
        let tensor = |values: &[f32]| Tensor::new(values, &Device::Cpu).unwrap();
        assert_eq!(relative(&tensor(&[1.0, 4.0]), &tensor(&[2.0, 4.0])).unwrap(), 0.25);
        assert!(relative(&tensor(&[1.0]), &tensor(&[2.0, 4.0])).unwrap().is_infinite());
        let odd = relative(&tensor(&[f32::NAN, 4.0]), &tensor(&[2.0, 4.0])).unwrap();
        assert_eq!(line("x", odd, 1.0)["agrees"], false);
    }
}
