//! Retrieval in bf16 against f32: features, losses, gradients.
//!
//! A GEMM operand is rounded to 8 significant bits, which is off by 2^-9 = 2.0e-3 of it at most, and nothing else is.
//! Errors of many terms mostly cancel, and norms and residual sums keep them from growing, so the results are off by a
//! few such roundings.

use super::retrieval::{Batch, Model, io, losses, negatives};
use super::support::reference::Setting;
use super::support::{distance, scalar};
use aurora_kernels::Precision;
use aurora_train::retrieval::encode;
use candle_core::Tensor;
use std::collections::BTreeMap;

const FIXTURES: [&str; 2] = ["retrieval_image", "retrieval_video_frame_aware"];

/// Largest difference of an entry of a feature, which has length 1; measured 2.04e-3, one rounding.
const FEATURE: f32 = 4e-3;
/// Largest difference of a loss; measured 1.21e-3, for losses of about 2.
const LOSS: f32 = 2.5e-3;
/// Relative L2 difference of a gradient, all trained tensors as one vector; measured 9.6e-3.
const GRADIENT: f64 = 2e-2;
/// Relative L2 difference of each tensor's gradient, by its length or [`SMALL`] of the whole gradient's, if that is
/// more; measured 0.113, of factors whose gradient is about as small as that: there the roundings of larger terms are
/// seen.
const TENSOR: f64 = 0.23;
/// Share of the whole gradient below which a tensor's gradient is a difference of terms that cancel, as of the biases
/// of keys, which no softmax sees.
const SMALL: f64 = 1e-2;

/// Results of a step, by name.
struct Computed {
    features: [Tensor; 2],
    losses: [f32; 2],
    gradients: BTreeMap<String, Tensor>,
}

fn compute(fixture: &str, setting: Setting) -> Computed {
    let (mut model, io) = (Model::read(fixture, setting), io(fixture));
    let batch = Batch::read(&io);
    let encoded = encode(&model.blip, &model.bind(), &batch.pairs()).unwrap();
    let alpha = f64::from(scalar(&io["alpha"]));
    let ([itc, itm], _) = losses(&mut model, &batch, alpha, &negatives(&io));
    let losses = [scalar(&itc), scalar(&itm)];
    let store = (itc + itm).unwrap().backward().unwrap();
    let trained = model.variables.iter().filter(|(name, _)| model.trains(name));
    let gradient = |var| store.get(var).unwrap().clone();
    let gradients = trained.map(|(name, var)| (name.clone(), gradient(var.as_tensor()))).collect();
    Computed { features: [encoded.image, encoded.text], losses, gradients }
}

fn squares(tensor: &Tensor) -> f64 {
    f64::from(scalar(&tensor.sqr().unwrap().sum_all().unwrap()))
}

#[test]
fn bf16_stays_beside_f32() {
    for fixture in FIXTURES {
        for setting in Setting::all() {
            let exact = compute(fixture, setting);
            let rounded = compute(fixture, Setting { precision: Precision::Bf16, ..setting });
            let case = format!("{fixture}, {setting:?}");
            for (found, wanted) in rounded.features.iter().zip(&exact.features) {
                let off = distance("features", found, wanted);
                assert!(off > 0.0 && off <= FEATURE, "{case}: features are off by {off:e}");
            }
            for (found, wanted) in rounded.losses.iter().zip(exact.losses) {
                let off = (found - wanted).abs();
                assert!(off <= LOSS, "{case}: a loss is off by {off:e}");
            }
            let whole = exact.gradients.values().map(squares).sum::<f64>();
            let (mut apart, mut worst) = (0.0, (0.0, ""));
            for (name, wanted) in &exact.gradients {
                let off = squares(&(&rounded.gradients[name] - wanted).unwrap());
                let share = (off / squares(wanted).max(SMALL * SMALL * whole)).sqrt();
                if share > worst.0 {
                    worst = (share, name);
                }
                apart += off;
            }
            let off = (apart / whole).sqrt();
            assert!(off > 0.0 && off <= GRADIENT, "{case}: the gradient is off by {off:e}");
            assert!(worst.0 <= TENSOR, "{case}: {worst:?}");
        }
    }
}
