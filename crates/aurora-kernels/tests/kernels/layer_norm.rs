//! Layer normalisation against f64.

use aurora_kernels::cuda::plan::{LayerNorm, LayerNormForwardMemory};
use aurora_kernels::cuda::{DevicePointer, Element, Machine};
use proptest::prelude::*;

use crate::support::{Tensor, assert_close, machine, normal, rounded, run};

const EPS: f32 = 1e-6;

/// y and the sum that was normalised, from rows of x `stride` apart.
fn reference(
    element: Element,
    [x, residual, weight, bias]: [&[f64]; 4],
    (rows, columns, stride): (usize, usize, usize),
) -> [Vec<f64>; 4] {
    let [mut y, mut sum, mut means, mut rstds] = [const { Vec::new() }; 4];
    for row in 0..rows {
        let s: Vec<f64> = (0..columns)
            .map(|c| rounded(element, x[row * stride + c] + residual[row * columns + c]))
            .collect();
        let mean = s.iter().sum::<f64>() / columns as f64;
        let variance = s.iter().map(|s| (s - mean).powi(2)).sum::<f64>() / columns as f64;
        let rstd = 1.0 / (variance + f64::from(EPS)).sqrt();
        y.extend(s.iter().zip(weight).zip(bias).map(|((s, w), b)| (s - mean) * rstd * w + b));
        sum.extend(s);
        means.push(mean);
        rstds.push(rstd);
    }
    [y, sum, means, rstds]
}

fn case(
    machine: &dyn Machine,
    element: Element,
    rows: usize,
    columns: usize,
    gap: usize,
    skip: usize,
) {
    let stride = columns + gap;
    let length = (rows - 1) * stride + columns;
    let x: Vec<f64> =
        normal(element, 0, length).iter().map(|x| rounded(element, 3.0 + x)).collect();
    let residual = normal(element, 1, rows * columns);
    let [weight, bias] = [2, 3].map(|index| normal(element, index, columns));
    let want = reference(element, [&x, &residual, &weight, &bias], (rows, columns, stride));

    let tensor = |values: &[f64]| Tensor::skipping(machine, element, values, skip);
    let [tx, tr, tw, tb] = [&x, &residual, &weight, &bias].map(|values| tensor(values));
    let [y, sum] = [0; 2].map(|_| Tensor::output(machine, element, rows * columns));
    let [mean, rstd] = [0; 2].map(|_| Tensor::output(machine, Element::F32, rows));
    let plan = LayerNorm { element, rows, columns, x_stride: stride, eps: EPS };
    let memory = LayerNormForwardMemory {
        x: tx.pointer(),
        residual: tr.pointer(),
        weight: tw.pointer(),
        bias: tb.pointer(),
        y: y.pointer(),
        sum: sum.pointer(),
        mean: mean.pointer(),
        rstd: rstd.pointer(),
    };
    run(machine, plan.forward(&memory).unwrap());
    let size = 16.0;
    assert_close("y", element, &y.values(), &want[0], size, 8.0);
    assert_close("sum", element, &sum.values(), &want[1], size, 0.0);
    assert_close("mean", Element::F32, &mean.values(), &want[2], size, 4.0);
    assert_close("rstd", Element::F32, &rstd.values(), &want[3], want[3][0] * 4.0, 16.0);

    // Without what is optional: the same of x alone.
    let zeros = vec![0.0; rows * columns];
    let want = reference(element, [&x, &zeros, &weight, &bias], (rows, columns, stride));
    let null = DevicePointer::NULL;
    let memory =
        LayerNormForwardMemory { residual: null, sum: null, mean: null, rstd: null, ..memory };
    run(machine, plan.forward(&memory).unwrap());
    assert_close("y of x alone", element, &y.values(), &want[0], size, 8.0);
}

#[test]
fn rows_of_models() {
    let Some(machine) = machine() else { return };
    for element in Element::ALL {
        for columns in [192, 768, 1024, 1500] {
            case(&*machine, element, 5, columns, 0, 0);
        }
    }
}

#[test]
fn a_batch_of_nothing_is_no_launch() {
    let plan = LayerNorm { element: Element::F32, rows: 0, columns: 8, x_stride: 8, eps: EPS };
    let null = DevicePointer::NULL;
    let memory = LayerNormForwardMemory {
        x: null,
        residual: null,
        weight: null,
        bias: null,
        y: null,
        sum: null,
        mean: null,
        rstd: null,
    };
    assert!(plan.forward(&memory).unwrap().is_none());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn ragged_rows(rows in 1usize..12, columns in 1usize..300, gap in 0usize..5, skip in 0usize..3) {
        if let Some(machine) = machine() {
            for element in Element::ALL {
                case(&*machine, element, rows, columns, gap, skip);
            }
        }
    }
}
