//! Bias addition and column sums against f64.

use aurora_kernels::cuda::plan::{BiasPlan, ColumnSumBuffers};
use aurora_kernels::cuda::{DevicePointer, Element, Executor};
use proptest::prelude::*;

use crate::kernels::emulator::Emulator;
use crate::kernels::far::Far;
use crate::kernels::support::{Tensor, assert_close, bytes_of, executor, normal, run};

/// Column sums over rows of x `stride` apart, and of their magnitudes.
pub fn column_sums(x: &[f64], columns: usize, stride: usize) -> [Vec<f64>; 2] {
    let [mut sums, mut sizes] = [0; 2].map(|_| vec![0.0; columns]);
    for row in x.chunks(stride) {
        for ((sum, size), x) in sums.iter_mut().zip(&mut sizes).zip(row) {
            *sum += x;
            *size += x.abs();
        }
    }
    [sums, sizes]
}

/// Compares column sums with f64: each addition rounds what has been added up so far.
#[track_caller]
pub fn assert_sums(
    what: &str,
    element: Element,
    got: &[f64],
    want: &[f64],
    sizes: &[f64],
    additions: usize,
) {
    for (column, &size) in sizes.iter().enumerate() {
        let at = column..column + 1;
        assert_close(what, element, &got[at.clone()], &want[at], size, additions as f64);
    }
}

fn add(executor: &dyn Executor, element: Element, rows: usize, columns: usize, skip: usize) {
    let y = normal(element, 0, rows * columns);
    let bias = normal(element, 1, columns);
    let want: Vec<f64> = y.iter().enumerate().map(|(i, y)| y + bias[i % columns]).collect();
    let y = Tensor::skipping(executor, element, &y, skip);
    let bias = Tensor::skipping(executor, element, &bias, skip);
    let plan = BiasPlan { element, rows, columns };
    run(executor, plan.add(y.pointer(), bias.pointer()).unwrap());
    assert_close("y + bias", element, &y.values(), &want, 0.0, 2.0);
}

fn sum(
    executor: &dyn Executor,
    element: Element,
    (rows, columns, gap): (usize, usize, usize),
    skip: usize,
) {
    let x_stride = columns + gap;
    let x = normal(element, 0, (rows - 1) * x_stride + columns);
    let [want, sizes] = column_sums(&x, columns, x_stride);
    let x = Tensor::skipping(executor, element, &x, skip);
    let out = Tensor::output(executor, element, columns);
    let plan = BiasPlan { element, rows, columns };
    let workspace = Tensor::output(executor, Element::F32, plan.workspace());
    let memory = ColumnSumBuffers {
        x: x.pointer(),
        x_stride,
        sum: out.pointer(),
        workspace: workspace.pointer(),
    };
    run(executor, plan.column_sum(&memory).unwrap());
    assert_sums("sum", element, &out.values(), &want, &sizes, rows + 16);
}

#[test]
fn rows_of_models() {
    let Some(executor) = executor() else { return };
    for element in Element::ALL {
        for (rows, columns) in [(35, 768), (70, 1000)] {
            add(&*executor, element, rows, columns, 0);
            sum(&*executor, element, (rows, columns, 0), 0);
        }
        sum(&*executor, element, (4097, 8, 8), 0);
    }
}

#[test]
fn nothing_is_no_launch_and_too_much_is_refused() {
    let null = DevicePointer::NULL;
    let memory = ColumnSumBuffers { x: null, x_stride: 0, sum: null, workspace: null };
    let plan = BiasPlan { element: Element::F32, rows: 0, columns: 8 };
    assert!(plan.add(null, null).unwrap().is_none());
    assert!(plan.column_sum(&memory).unwrap().is_empty());
    let wide = BiasPlan { rows: 1, columns: 1 << 31, ..plan };
    assert!(wide.add(null, null).is_err() && wide.column_sum(&memory).is_err());
    let long = BiasPlan { rows: usize::MAX / 2, columns: 8, ..plan };
    assert!(long.add(null, null).is_err());
}

#[test]
fn rows_beyond_32_bits() {
    let Some(emulator) = Emulator::new() else { return };
    for element in Element::ALL {
        let columns = 24;
        let x = normal(element, 0, 2 * columns);
        let far = Far::new(&emulator, 2, columns * element.bytes(), Far::DISTANCE);
        for (piece, row) in x.chunks(columns).enumerate() {
            far.write(piece, 0, &bytes_of(element, row));
        }
        let out = Tensor::output(&emulator, element, columns);
        let plan = BiasPlan { element, rows: 2, columns };
        let workspace = Tensor::output(&emulator, Element::F32, plan.workspace());
        let memory = ColumnSumBuffers {
            x: far.pointer(),
            x_stride: far.distance / element.bytes(),
            sum: out.pointer(),
            workspace: workspace.pointer(),
        };
        run(&emulator, plan.column_sum(&memory).unwrap());
        let [want, sizes] = column_sums(&x, columns, columns);
        assert_sums("sum", element, &out.values(), &want, &sizes, 4);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn ragged(rows in 1usize..70, columns in 1usize..300, gap in 0usize..5, skip in 0usize..3) {
        if let Some(executor) = executor() {
            for element in Element::ALL {
                add(&*executor, element, rows, columns, skip);
                sum(&*executor, element, (rows, columns, gap), skip);
            }
        }
    }
}
