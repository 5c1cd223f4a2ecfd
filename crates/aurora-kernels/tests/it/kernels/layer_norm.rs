//! Layer normalization against f64.

use aurora_kernels::cuda::plan::{
    LayerNormBackwardBuffers, LayerNormForwardBuffers, LayerNormPlan,
};
use aurora_kernels::cuda::{DevicePointer, Element, Executor};
use proptest::prelude::*;

use crate::kernels::bias::{assert_sums, column_sums};
use crate::kernels::differences::{assert_gradient, weighed};
use crate::kernels::emulator::Emulator;
use crate::kernels::far::Far;
use crate::kernels::support::{
    Tensor, assert_close, bytes_of, executor, largest, normal, rounded, run,
};

const EPS: f32 = 1e-6;

/// Layer norm: y and the sum that was normalized, from rows of x `stride` apart.
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
    executor: &dyn Executor,
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

    let tensor = |values: &[f64]| Tensor::skipping(executor, element, values, skip);
    let [tx, tr, tw, tb] = [&x, &residual, &weight, &bias].map(|values| tensor(values));
    let [y, sum] = [0; 2].map(|_| Tensor::output(executor, element, rows * columns));
    let [mean, rstd] = [0; 2].map(|_| Tensor::output(executor, Element::F32, rows));
    let plan = LayerNormPlan { element, rows, columns, x_stride: stride, eps: EPS };
    let memory = LayerNormForwardBuffers {
        x: tx.pointer(),
        residual: tr.pointer(),
        weight: tw.pointer(),
        bias: tb.pointer(),
        y: y.pointer(),
        sum: sum.pointer(),
        mean: mean.pointer(),
        rstd: rstd.pointer(),
    };
    run(executor, plan.forward(&memory).unwrap());
    let size = 16.0;
    assert_rows_close("y", element, &y.values(), &want, &weight);
    assert_close("sum", element, &sum.values(), &want[1], size, 0.0);
    assert_close("mean", Element::F32, &mean.values(), &want[2], size, 4.0);
    assert_close("rstd", Element::F32, &rstd.values(), &want[3], want[3][0] * 4.0, 16.0);

    // Without optional tensors: the result for x alone.
    let zeros = vec![0.0; rows * columns];
    let want = reference(element, [&x, &zeros, &weight, &bias], (rows, columns, stride));
    let null = DevicePointer::NULL;
    let memory =
        LayerNormForwardBuffers { residual: null, sum: null, mean: null, rstd: null, ..memory };
    run(executor, plan.forward(&memory).unwrap());
    assert_rows_close("y of x alone", element, &y.values(), &want, &weight);
}

/// Compares y row by row: where the values of a row are nearly one, what rounding its mean takes away is large beside
/// their differences from it, and no f32 mean could do better.
fn assert_rows_close(
    what: &str,
    element: Element,
    y: &[f64],
    want: &[Vec<f64>; 4],
    weight: &[f64],
) {
    let [want, _, means, rstds] = want;
    let weights = weight.iter().fold(0.0, |most: f64, w| most.max(w.abs()));
    let rows = y.chunks(weight.len()).zip(want.chunks(weight.len()));
    for ((y, want), (mean, rstd)) in rows.zip(means.iter().zip(rstds)) {
        // Two of the eight units are for the mean.
        let size = 16.0 + mean.abs() * rstd * weights / 4.0;
        assert_close(what, element, y, want, size, 8.0);
    }
}

/// Two values that differ in their third digit, as a search found them.
#[test]
fn rows_of_nearly_one_value() {
    if let Some(executor) = executor() {
        case(&*executor, Element::F32, 16, 2, 1, 0);
    }
}

/// Gradient of a row's s without the part that reaches it by other ways, and dy n.
fn row_gradient(s: &[f64], weight: &[f64], dy: &[f64], mean: f64, rstd: f64) -> [Vec<f64>; 2] {
    let columns = s.len() as f64;
    let n: Vec<f64> = s.iter().map(|s| (s - mean) * rstd).collect();
    let g: Vec<f64> = dy.iter().zip(weight).map(|(dy, w)| dy * w).collect();
    let mean_g = g.iter().sum::<f64>() / columns;
    let mean_gn = g.iter().zip(&n).map(|(g, n)| g * n).sum::<f64>() / columns;
    let ds = g.iter().zip(&n).map(|(g, n)| rstd * (g - mean_g - n * mean_gn)).collect();
    [ds, dy.iter().zip(&n).map(|(dy, n)| dy * n).collect()]
}

fn backward_case(
    executor: &dyn Executor,
    element: Element,
    (rows, columns, gap): (usize, usize, usize),
    skip: usize,
) {
    const NULL: DevicePointer = DevicePointer::NULL;
    let stride = columns + gap;
    let s = normal(element, 0, (rows - 1) * stride + columns);
    let weight = normal(element, 1, columns);
    let [dy, dsum] = [2, 3].map(|index| normal(element, index, rows * columns));
    let row = |row: usize| &s[row * stride..row * stride + columns];
    // Any mean and rstd will do, as long as both sides have them.
    let means: Vec<f64> = normal(Element::F32, 4, rows);
    let rstds: Vec<f64> =
        normal(Element::F32, 5, rows).iter().map(|x| rounded(Element::F32, 0.5 + x * x)).collect();

    let tensor = |values: &[f64]| Tensor::skipping(executor, element, values, skip);
    let [ts, tw, tdy, tdsum] = [&s, &weight, &dy, &dsum].map(|values| tensor(values));
    let [tmeans, trstds] = [&means, &rstds].map(|x| Tensor::new(executor, Element::F32, x));
    let plan = LayerNormPlan { element, rows, columns, x_stride: stride, eps: EPS };
    let dx = Tensor::output(executor, element, rows * columns);
    let [dweight, dbias] = [0; 2].map(|_| Tensor::output(executor, element, columns));
    let workspace = Tensor::output(executor, Element::F32, plan.workspace());
    let memory = LayerNormBackwardBuffers {
        x: ts.pointer(),
        weight: tw.pointer(),
        dy: tdy.pointer(),
        dsum: tdsum.pointer(),
        mean: tmeans.pointer(),
        rstd: trstds.pointer(),
        dx: dx.pointer(),
        dweight: dweight.pointer(),
        dbias: dbias.pointer(),
        workspace: workspace.pointer(),
    };
    let mut products = Vec::new();
    for other in [true, false] {
        let memory =
            LayerNormBackwardBuffers { dsum: if other { memory.dsum } else { NULL }, ..memory };
        run(executor, plan.backward(&memory).unwrap());
        products.clear();
        let got = dx.values();
        for r in 0..rows {
            let at = r * columns..(r + 1) * columns;
            let [mut want, product] =
                row_gradient(row(r), &weight, &dy[at.clone()], means[r], rstds[r]);
            products.extend(product);
            if other {
                want.iter_mut().zip(&dsum[at.clone()]).for_each(|(want, dsum)| *want += dsum);
            }
            let n = (largest(row(r)) + means[r].abs()) * rstds[r];
            let g = largest(&dy[at.clone()]) * largest(&weight);
            let scale = rstds[r] * g * (1.0 + n * n) + largest(&dsum[at.clone()]);
            assert_close("dx", element, &got[at], &want, scale, columns as f64 / 32.0 + 16.0);
        }
    }
    let [want, sizes] = column_sums(&products, columns, columns);
    assert_sums("dweight", element, &dweight.values(), &want, &sizes, rows + 20);
    let [want, sizes] = column_sums(&dy, columns, columns);
    assert_sums("dbias", element, &dbias.values(), &want, &sizes, rows + 16);

    // Each alone.
    let alone = Tensor::output(executor, element, columns);
    let memory =
        LayerNormBackwardBuffers { dx: NULL, dweight: NULL, dbias: alone.pointer(), ..memory };
    run(executor, plan.backward(&memory).unwrap());
    assert_eq!(alone.values(), dbias.values());
    let memory = LayerNormBackwardBuffers { dweight: alone.pointer(), dbias: NULL, ..memory };
    run(executor, plan.backward(&memory).unwrap());
    assert_eq!(alone.values(), dweight.values());
    let again = Tensor::output(executor, element, rows * columns);
    let memory = LayerNormBackwardBuffers {
        dsum: NULL,
        dx: again.pointer(),
        dweight: NULL,
        workspace: NULL,
        ..memory
    };
    run(executor, plan.backward(&memory).unwrap());
    assert_eq!(again.values(), dx.values());
}

#[test]
fn the_gradient_is_that_of_differences() {
    let columns = 7;
    let [x, weight, bias, dy] = [0, 1, 2, 3].map(|index| normal(Element::F32, index, columns));
    let normalized = |x: &[f64], weight: &[f64], bias: &[f64]| -> (Vec<f64>, f64, f64) {
        let mean = x.iter().sum::<f64>() / columns as f64;
        let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / columns as f64;
        let rstd = 1.0 / (variance + f64::from(EPS)).sqrt();
        let y = x.iter().zip(weight).zip(bias).map(|((x, w), b)| (x - mean) * rstd * w + b);
        (y.collect(), mean, rstd)
    };
    let (_, mean, rstd) = normalized(&x, &weight, &bias);
    let [dx, dweight] = row_gradient(&x, &weight, &dy, mean, rstd);
    assert_gradient("dx", |x| weighed(&normalized(x, &weight, &bias).0, &dy), &x, &dx);
    assert_gradient("dweight", |w| weighed(&normalized(&x, w, &bias).0, &dy), &weight, &dweight);
    assert_gradient("dbias", |b| weighed(&normalized(&x, &weight, b).0, &dy), &bias, &dy);
}

#[test]
fn rows_beyond_32_bits() {
    let Some(emulator) = Emulator::new() else { return };
    let null = DevicePointer::NULL;
    for element in Element::ALL {
        let columns = 48;
        let x = normal(element, 0, 2 * columns);
        let far = Far::new(&emulator, 2, columns * element.bytes(), Far::DISTANCE);
        for (piece, row) in x.chunks(columns).enumerate() {
            far.write(piece, 0, &bytes_of(element, row));
        }
        let [weight, bias] = [1, 2].map(|index| normal(element, index, columns));
        let [tw, tb] = [&weight, &bias].map(|values| Tensor::new(&emulator, element, values));
        let y = Tensor::output(&emulator, element, 2 * columns);
        let [mean, rstd] = [0; 2].map(|_| Tensor::output(&emulator, Element::F32, 2));
        let x_stride = far.distance / element.bytes();
        let plan = LayerNormPlan { element, rows: 2, columns, x_stride, eps: EPS };
        let memory = LayerNormForwardBuffers {
            x: far.pointer(),
            residual: null,
            weight: tw.pointer(),
            bias: tb.pointer(),
            y: y.pointer(),
            sum: null,
            mean: mean.pointer(),
            rstd: rstd.pointer(),
        };
        run(&emulator, plan.forward(&memory).unwrap());
        let zeros = vec![0.0; 2 * columns];
        let want = reference(element, [&x, &zeros, &weight, &bias], (2, columns, columns));
        assert_close("y", element, &y.values(), &want[0], 16.0, 8.0);

        // The gradients, with x itself as that of y.
        let dy = Tensor::new(&emulator, element, &x);
        let dx = Tensor::output(&emulator, element, 2 * columns);
        let [dweight, dbias] = [0; 2].map(|_| Tensor::output(&emulator, element, columns));
        let workspace = Tensor::output(&emulator, Element::F32, plan.workspace());
        let memory = LayerNormBackwardBuffers {
            x: far.pointer(),
            weight: tw.pointer(),
            dy: dy.pointer(),
            dsum: null,
            mean: mean.pointer(),
            rstd: rstd.pointer(),
            dx: dx.pointer(),
            dweight: dweight.pointer(),
            dbias: dbias.pointer(),
            workspace: workspace.pointer(),
        };
        run(&emulator, plan.backward(&memory).unwrap());
        let [means, rstds] = [mean.values(), rstd.values()];
        let mut products = Vec::new();
        for (row, x) in x.chunks(columns).enumerate() {
            let [want, product] = row_gradient(x, &weight, x, means[row], rstds[row]);
            let got = &dx.values()[row * columns..(row + 1) * columns];
            assert_close("dx", element, got, &want, 200.0, 20.0);
            products.extend(product);
        }
        let [want, sizes] = column_sums(&products, columns, columns);
        assert_sums("dweight", element, &dweight.values(), &want, &sizes, 24);
    }
}

#[test]
fn rows_of_models() {
    let Some(executor) = executor() else { return };
    for element in Element::ALL {
        for columns in [192, 768, 1024, 1500, 1544] {
            case(&*executor, element, 5, columns, 0, 0);
            backward_case(&*executor, element, (5, columns, 0), 0);
        }
    }
}

#[test]
fn a_batch_of_nothing_is_no_launch() {
    let plan = LayerNormPlan { element: Element::F32, rows: 0, columns: 8, x_stride: 8, eps: EPS };
    let null = DevicePointer::NULL;
    let memory = LayerNormForwardBuffers {
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
    let wide = LayerNormPlan { rows: 1, columns: 1 << 31, ..plan };
    assert!(wide.forward(&memory).is_err());
    let memory = LayerNormBackwardBuffers {
        x: null,
        weight: null,
        dy: null,
        dsum: null,
        mean: null,
        rstd: null,
        dx: DevicePointer(16),
        dweight: null,
        dbias: null,
        workspace: null,
    };
    assert!(plan.backward(&memory).unwrap().is_empty());
    assert!(wide.backward(&memory).is_err());
    let many = LayerNormPlan { rows: 1 << 34, ..plan };
    assert!(many.backward(&memory).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn ragged_rows(rows in 1usize..40, columns in 1usize..300, gap in 0usize..5, skip in 0usize..3) {
        if let Some(executor) = executor() {
            for element in Element::ALL {
                case(&*executor, element, rows, columns, gap, skip);
                backward_case(&*executor, element, (rows, columns, gap), skip);
            }
        }
    }
}
