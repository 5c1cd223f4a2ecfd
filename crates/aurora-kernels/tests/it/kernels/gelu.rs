//! GELU against f64.

use aurora_kernels::cuda::plan::{GeluBackwardBuffers, GeluPlan};
use aurora_kernels::cuda::{DevicePointer, Element, Executor};
use proptest::prelude::*;

use crate::kernels::bias::{assert_sums, column_sums};
use crate::kernels::differences::{assert_gradient, weighed};
use crate::kernels::support::{Tensor, assert_close, executor, largest, normal, rounded, run};

const NULL: DevicePointer = DevicePointer::NULL;

fn cdf(x: f64) -> f64 {
    0.5 * libm::erfc(-x / std::f64::consts::SQRT_2)
}

fn reference(u: &[f64]) -> Vec<f64> {
    u.iter().map(|&u| u * cdf(u)).collect()
}

fn gradient(u: &[f64], dy: &[f64]) -> Vec<f64> {
    let density = |u: f64| (-0.5 * u * u).exp() / (2.0 * std::f64::consts::PI).sqrt();
    u.iter().zip(dy).map(|(&u, dy)| dy * (cdf(u) + u * density(u))).collect()
}

fn case(executor: &dyn Executor, element: Element, rows: usize, columns: usize, skip: usize) {
    // Wide enough to reach both tails.
    let x: Vec<f64> =
        normal(element, 0, rows * columns).iter().map(|x| rounded(element, 2.0 * x)).collect();
    let bias = normal(element, 1, columns);
    let dy = normal(element, 2, rows * columns);
    let u: Vec<f64> = x.iter().enumerate().map(|(i, x)| x + bias[i % columns]).collect();
    let tensor = |values: &[f64]| Tensor::skipping(executor, element, values, skip);
    let [tx, tb, tdy] = [&x, &bias, &dy].map(|values| tensor(values));
    let plan = GeluPlan { element, rows, columns };
    let workspace = Tensor::output(executor, Element::F32, plan.workspace());

    for (tb, u) in [(NULL, &x), (tb.pointer(), &u)] {
        let y = Tensor::output(executor, element, rows * columns);
        run(executor, plan.forward(tx.pointer(), tb, y.pointer()).unwrap());
        assert_close("y", element, &y.values(), &reference(u), largest(u), 8.0);
        let want = gradient(u, &dy);
        let scale = 2.0 * largest(&dy);
        for wanted in [false, true] {
            let [dx, dbias] =
                [rows * columns, columns].map(|length| Tensor::output(executor, element, length));
            let null = |tensor: &Tensor| if wanted { tensor.pointer() } else { NULL };
            let memory = GeluBackwardBuffers {
                x: tx.pointer(),
                bias: tb,
                dy: tdy.pointer(),
                dx: dx.pointer(),
                dbias: null(&dbias),
                workspace: null(&workspace),
            };
            run(executor, plan.backward(&memory).unwrap());
            assert_close("dx", element, &dx.values(), &want, scale, 8.0);
            if wanted {
                let [want, sizes] = column_sums(&want, columns, columns);
                // Of terms that are themselves off by eight units of their scale.
                let sizes: Vec<f64> = sizes.iter().map(|size| size + scale * rows as f64).collect();
                assert_sums("dbias", element, &dbias.values(), &want, &sizes, rows + 24);
            }
        }
    }
}

#[test]
fn rows_of_models() {
    let Some(executor) = executor() else { return };
    for element in Element::ALL {
        case(&*executor, element, 3, 3072, 0);
        case(&*executor, element, 70, 72, 0);
    }
}

#[test]
fn the_gradient_is_that_of_differences() {
    let (u, weights) = (normal(Element::F32, 0, 20), normal(Element::F32, 1, 20));
    let f = |u: &[f64]| weighed(&reference(u), &weights);
    assert_gradient("dx", f, &u, &gradient(&u, &weights));
}

#[test]
fn nothing_is_no_launch_and_too_much_is_refused() {
    let plan = GeluPlan { element: Element::F32, rows: 0, columns: 8 };
    let memory = GeluBackwardBuffers {
        x: NULL,
        bias: NULL,
        dy: NULL,
        dx: NULL,
        dbias: NULL,
        workspace: NULL,
    };
    assert!(plan.forward(NULL, NULL, NULL).unwrap().is_none());
    assert!(plan.backward(&memory).unwrap().is_empty());
    let somewhere = DevicePointer(16);
    let wide = GeluPlan { rows: 1, columns: 1 << 31, ..plan };
    assert!(wide.forward(NULL, somewhere, NULL).is_err());
    assert!(wide.backward(&GeluBackwardBuffers { dbias: somewhere, ..memory }).is_err());
    // Without a bias there are no rows to count in.
    assert!(wide.forward(NULL, NULL, NULL).unwrap().is_some());
    assert!(GeluPlan { rows: usize::MAX / 2, ..wide }.forward(NULL, NULL, NULL).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn ragged(rows in 1usize..40, columns in 1usize..300, skip in 0usize..3) {
        if let Some(executor) = executor() {
            for element in Element::ALL {
                case(&*executor, element, rows, columns, skip);
            }
        }
    }
}
