//! Soft-target cross-entropy against f64.

use aurora_kernels::cuda::plan::{
    CrossEntropyTargets, SoftCrossEntropyBackwardBuffers, SoftCrossEntropyForwardBuffers,
    SoftCrossEntropyPlan,
};
use aurora_kernels::cuda::{DevicePointer, Element, Executor};
use proptest::prelude::*;

use crate::kernels::differences::{assert_gradient, weighed};
use crate::kernels::emulator::Emulator;
use crate::kernels::far::Far;
use crate::kernels::support::{
    Tensor, assert_close, bytes_of, executor, largest, normal, rounded, run, upload,
};

const NULL: DevicePointer = DevicePointer::NULL;

/// Row with its loss, log-sum-exp, softmax and weights of classes.
struct Row {
    loss: f64,
    log_sum: f64,
    softmax: Vec<f64>,
    targets: Vec<f64>,
}

impl Row {
    fn new(x: &[f64], targets: &[f64]) -> Self {
        let top = x.iter().fold(f64::NEG_INFINITY, |top, &x| top.max(x));
        let log_sum = top + x.iter().map(|x| (x - top).exp()).sum::<f64>().ln();
        let wanted = x.iter().zip(targets).filter(|(_, t)| **t != 0.0);
        Self {
            loss: wanted.map(|(x, t)| t * (log_sum - x)).sum(),
            log_sum,
            softmax: x.iter().map(|x| (x - log_sum).exp()).collect(),
            targets: targets.to_vec(),
        }
    }

    fn weight(&self) -> f64 {
        self.targets.iter().sum()
    }

    fn gradient(&self, d: f64) -> Vec<f64> {
        let weight = self.weight();
        self.softmax.iter().zip(&self.targets).map(|(s, t)| d * (weight * s - t)).collect()
    }
}

/// Label as weights of classes.
fn spread(label: usize, classes: usize, smoothing: f64) -> Vec<f64> {
    let mut targets = vec![smoothing / classes as f64; classes];
    targets[label] += 1.0 - smoothing;
    targets
}

fn finite(values: &[f64]) -> Vec<f64> {
    values.iter().copied().filter(|x| x.is_finite()).collect()
}

#[derive(Clone, Copy)]
struct Shape {
    rows: usize,
    classes: usize,
    gap: usize,
    skip: [usize; 2],
}

fn case(executor: &dyn Executor, element: Element, shape: Shape, smoothing: Option<f32>) {
    let Shape { rows, classes, gap, skip } = shape;
    let stride = classes + gap;
    let mut logits: Vec<f64> = normal(element, 0, (rows - 1) * stride + classes)
        .iter()
        .map(|x| rounded(element, 10.0 + 4.0 * x))
        .collect();
    // Squares, some of them zero; a row need not add up to one.
    let targets_stride = classes + gap / 2;
    let mut targets: Vec<f64> = normal(element, 1, (rows - 1) * targets_stride + classes)
        .iter()
        .map(|t| rounded(element, if *t < -0.5 { 0.0 } else { t * t / classes as f64 }))
        .collect();
    let labels: Vec<usize> = (0..rows).map(|row| (row * 7919 + classes / 2) % classes).collect();
    if smoothing.is_none() && classes > 2 {
        for row in 0..rows {
            let class = (row * 31 + 1) % classes;
            logits[row * stride + class] = f64::NEG_INFINITY;
            targets[row * targets_stride + class] = 0.0;
        }
    }
    let row = |row: usize| {
        let logits = &logits[row * stride..row * stride + classes];
        let targets = &targets[row * targets_stride..row * targets_stride + classes];
        match smoothing {
            None => Row::new(logits, targets),
            Some(s) => Row::new(logits, &spread(labels[row], classes, f64::from(s))),
        }
    };
    let want: Vec<Row> = (0..rows).map(row).collect();

    let plan = SoftCrossEntropyPlan {
        element,
        rows,
        classes,
        logits_stride: stride,
        smoothing: smoothing.unwrap_or(0.0),
    };
    let tlogits = Tensor::skipping(executor, element, &logits, skip[0]);
    let ttargets = Tensor::skipping(executor, element, &targets, skip[1]);
    let bytes: Vec<u8> = labels.iter().flat_map(|&label| (label as u32).to_ne_bytes()).collect();
    let tlabels = upload(executor, &bytes);
    let wanted = match smoothing {
        None => CrossEntropyTargets::Soft { targets: ttargets.pointer(), stride: targets_stride },
        Some(_) => CrossEntropyTargets::Labels(tlabels.pointer()),
    };
    let numbers = |length| Tensor::output(executor, Element::F32, length);
    let [loss, log_sum, weight] = [0; 3].map(|_| numbers(rows));
    let (workspace, mean) = (numbers(plan.workspace()), numbers(1));
    let memory = SoftCrossEntropyForwardBuffers {
        logits: tlogits.pointer(),
        targets: wanted,
        loss: loss.pointer(),
        log_sum: log_sum.pointer(),
        weight: if smoothing.is_none() { weight.pointer() } else { NULL },
        workspace: workspace.pointer(),
    };
    run(executor, plan.forward(&memory).unwrap());
    run(executor, [plan.mean(loss.pointer(), mean.pointer()).unwrap()]);

    // A thread adds up its share one by one, then lanes, warps and slices; an exponential is off by
    // the rounding of its argument.
    let size = largest(&finite(&logits));
    let units = classes as f64 / 256.0 + 48.0 + 2.0 * size;
    let mut total = 0.0;
    for (index, want) in want.iter().enumerate() {
        let at = index..index + 1;
        let scale = 2.0 * size * want.weight();
        let got = loss.values();
        assert_close("loss", Element::F32, &got[at.clone()], &[want.loss], scale, units);
        let got = log_sum.values();
        assert_close("log_sum", Element::F32, &got[at.clone()], &[want.log_sum], 1.0, units);
        if smoothing.is_none() {
            let got = weight.values();
            assert_close("weight", Element::F32, &got[at], &[want.weight()], 0.0, units);
        }
        total += loss.values()[index];
    }
    let scale = largest(&loss.values());
    let units_of_mean = rows as f64 / 256.0 + 16.0;
    assert_close(
        "mean",
        Element::F32,
        &mean.values(),
        &[total / rows as f64],
        scale,
        units_of_mean,
    );

    // Of each row's loss, then of their mean.
    let dloss: Vec<f64> = normal(Element::F32, 2, rows);
    let tdloss = Tensor::new(executor, Element::F32, &dloss);
    let dlogits = Tensor::output(executor, element, rows * classes);
    let memory = SoftCrossEntropyBackwardBuffers {
        logits: tlogits.pointer(),
        targets: wanted,
        log_sum: log_sum.pointer(),
        weight: if smoothing.is_none() { weight.pointer() } else { NULL },
        dloss: tdloss.pointer(),
        of_mean: false,
        dlogits: dlogits.pointer(),
    };
    for of_mean in [false, true] {
        let memory = SoftCrossEntropyBackwardBuffers { of_mean, ..memory };
        run(executor, plan.backward(&memory).unwrap());
        let got = dlogits.values();
        for (index, row) in want.iter().enumerate() {
            let d = if of_mean { dloss[0] / rows as f64 } else { dloss[index] };
            let gradient = row.gradient(d);
            for (c, want) in gradient.iter().enumerate() {
                let scale = d.abs() * (row.weight() * row.softmax[c] + row.targets[c]);
                let at = index * classes + c;
                assert_close("dlogits", element, &got[at..=at], &[*want], scale, 2.0 * units);
            }
        }
    }
}

const DENSE: Shape = Shape { rows: 3, classes: 1, gap: 0, skip: [0, 0] };

#[test]
fn long_queues_and_vocabularies() {
    let Some(executor) = executor() else { return };
    for element in Element::ALL {
        case(&*executor, element, Shape { rows: 2, classes: 5000, ..DENSE }, None);
        case(&*executor, element, Shape { rows: 2, classes: 4099, ..DENSE }, None);
        case(&*executor, element, Shape { classes: 4099, skip: [1, 2], ..DENSE }, None);
        for smoothing in [0.0, 0.1] {
            case(&*executor, element, Shape { classes: 3053, ..DENSE }, Some(smoothing));
        }
    }
}

#[test]
fn a_whole_queue() {
    let Some(executor) = executor() else { return };
    case(&*executor, Element::Bf16, Shape { rows: 1, classes: 57_616, ..DENSE }, None);
}

#[test]
fn rows_beyond_32_bits() {
    let Some(emulator) = Emulator::new() else { return };
    for element in Element::ALL {
        let classes = 40;
        let [x, t] = [0, 1].map(|index| normal(element, index, 2 * classes));
        let far = [&x, &t].map(|values| {
            let far = Far::new(&emulator, 2, classes * element.bytes(), Far::DISTANCE);
            for (piece, row) in values.chunks(classes).enumerate() {
                far.write(piece, 0, &bytes_of(element, row));
            }
            far
        });
        let (logits_stride, smoothing) = (Far::DISTANCE / element.bytes(), 0.0);
        let plan = SoftCrossEntropyPlan { element, rows: 2, classes, logits_stride, smoothing };
        let [loss, log_sum, weight] = [0; 3].map(|_| Tensor::output(&emulator, Element::F32, 2));
        let targets =
            CrossEntropyTargets::Soft { targets: far[1].pointer(), stride: logits_stride };
        let memory = SoftCrossEntropyForwardBuffers {
            logits: far[0].pointer(),
            targets,
            loss: loss.pointer(),
            log_sum: log_sum.pointer(),
            weight: weight.pointer(),
            workspace: NULL,
        };
        run(&emulator, plan.forward(&memory).unwrap());
        for row in 0..2 {
            let at = row * classes..(row + 1) * classes;
            let want = Row::new(&x[at.clone()], &t[at]).loss;
            assert_close("loss", Element::F32, &loss.values()[row..=row], &[want], 200.0, 48.0);
        }
    }
}

#[test]
fn the_gradient_is_that_of_differences() {
    let (x, t) = (normal(Element::F32, 0, 9), normal(Element::F32, 1, 9));
    let smoothed = spread(3, 9, 0.1);
    for targets in [&t, &smoothed] {
        let f = |x: &[f64]| weighed(&[Row::new(x, targets).loss], &[1.5]);
        assert_gradient("dlogits", f, &x, &Row::new(&x, targets).gradient(1.5));
    }
}

#[test]
fn a_label_out_of_range_is_not_a_number() {
    let Some(executor) = executor() else { return };
    let (element, classes) = (Element::F32, 5);
    let logits = Tensor::new(&*executor, element, &normal(element, 0, 2 * classes));
    let bytes: Vec<u8> = [5u32, 4].iter().flat_map(|label| label.to_ne_bytes()).collect();
    let labels = upload(&*executor, &bytes);
    let [loss, log_sum] = [0; 2].map(|_| Tensor::output(&*executor, element, 2));
    let plan =
        SoftCrossEntropyPlan { element, rows: 2, classes, logits_stride: classes, smoothing: 0.0 };
    let memory = SoftCrossEntropyForwardBuffers {
        logits: logits.pointer(),
        targets: CrossEntropyTargets::Labels(labels.pointer()),
        loss: loss.pointer(),
        log_sum: log_sum.pointer(),
        weight: NULL,
        workspace: NULL,
    };
    run(&*executor, plan.forward(&memory).unwrap());
    assert!(loss.values()[0].is_nan() && loss.values()[1].is_finite());
}

#[test]
fn nothing_is_no_launch_and_too_much_is_refused() {
    let targets = CrossEntropyTargets::Labels(NULL);
    let memory = SoftCrossEntropyForwardBuffers {
        logits: NULL,
        targets,
        loss: NULL,
        log_sum: NULL,
        weight: NULL,
        workspace: NULL,
    };
    let backward = SoftCrossEntropyBackwardBuffers {
        logits: NULL,
        targets,
        log_sum: NULL,
        weight: NULL,
        dloss: NULL,
        of_mean: true,
        dlogits: NULL,
    };
    let element = Element::F32;
    let none =
        SoftCrossEntropyPlan { element, rows: 0, classes: 8, logits_stride: 8, smoothing: 0.1 };
    assert!(none.forward(&memory).unwrap().is_empty());
    assert!(none.backward(&backward).unwrap().is_none());
    assert!(none.mean(NULL, NULL).is_err());
    for (rows, classes) in [(1, 0), (1, 1 << 31), (1 << 31, 2)] {
        let wrong = SoftCrossEntropyPlan { rows, classes, ..none };
        assert!(wrong.forward(&memory).is_err() && wrong.backward(&backward).is_err());
    }
    let soft = CrossEntropyTargets::Soft { targets: NULL, stride: 8 };
    let smoothed = SoftCrossEntropyForwardBuffers { targets: soft, ..memory };
    assert!(SoftCrossEntropyPlan { rows: 1, ..none }.forward(&smoothed).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn ragged(
        rows in 1usize..6,
        classes in 1usize..700,
        gap in 0usize..9,
        skip in [0usize..9, 0usize..9],
        smoothing in prop::option::of(prop::sample::select(&[0.0f32, 0.1, 1.0][..])),
    ) {
        if let Some(executor) = executor() {
            for element in Element::ALL {
                case(&*executor, element, Shape { rows, classes, gap, skip }, smoothing);
            }
        }
    }
}
