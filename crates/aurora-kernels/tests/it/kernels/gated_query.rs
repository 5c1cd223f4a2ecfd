//! The gated query transformation against f64.

use aurora_kernels::cuda::plan::{
    GatedQueryBackwardBuffers, GatedQueryForwardBuffers, GatedQueryInputs, GatedQueryPlan,
};
use aurora_kernels::cuda::{DevicePointer, Element, Executor};
use proptest::prelude::*;

use crate::kernels::bias::{assert_sums, column_sums};
use crate::kernels::differences::{assert_gradient, weighed};
use crate::kernels::support::{Tensor, assert_close, executor, largest, normal, run};

const NULL: DevicePointer = DevicePointer::NULL;
const CONSTANT: f32 = 0.1;

/// Branch: its states, scale, shift and a, if it has one.
#[derive(Clone)]
struct Branch {
    h: Vec<f64>,
    scale: Vec<f64>,
    shift: Vec<f64>,
    a: Option<f64>,
}

impl Branch {
    fn new(element: Element, index: u64, rows: usize, columns: usize, gated: bool) -> Self {
        let part = |part: u64, length| normal(element, index * 10 + part, length);
        Self {
            h: part(0, rows * columns),
            scale: part(1, columns),
            shift: part(2, columns),
            a: gated.then(|| part(3, 1)[0]),
        }
    }

    fn gate(&self) -> f64 {
        self.a.map_or(f64::from(CONSTANT), f64::tanh)
    }

    /// Terms that the branch adds.
    fn terms(&self) -> Vec<f64> {
        let columns = self.scale.len();
        let term = |(i, h): (usize, &f64)| {
            self.gate() * (self.scale[i % columns] * h + self.shift[i % columns])
        };
        self.h.iter().enumerate().map(term).collect()
    }

    /// Gradients of h, scale, shift and a, and the sizes of the terms in the sums of the last three.
    fn gradients(&self, dout: &[f64]) -> ([Vec<f64>; 4], [Vec<f64>; 3]) {
        let (columns, gate) = (self.scale.len(), self.gate());
        let dh = dout.iter().enumerate().map(|(i, d)| gate * self.scale[i % columns] * d).collect();
        let products: Vec<f64> = dout.iter().zip(&self.h).map(|(d, h)| d * h).collect();
        let [with, with_size] = column_sums(&products, columns, columns);
        let [alone, alone_size] = column_sums(dout, columns, columns);
        let times = |values: &[f64], factor: f64| values.iter().map(|x| x * factor).collect();
        let mut da = 0.0;
        let mut da_size = 0.0;
        for c in 0..columns {
            da += self.scale[c] * with[c] + self.shift[c] * alone[c];
            da_size += self.scale[c].abs() * with_size[c] + self.shift[c].abs() * alone_size[c];
        }
        let slope = 1.0 - gate * gate;
        let gradients = [dh, times(&with, gate), times(&alone, gate), vec![slope * da]];
        (gradients, [times(&with_size, gate.abs()), times(&alone_size, gate.abs()), vec![da_size]])
    }
}

fn reference(ffn: &[f64], branches: &[Branch; 2]) -> Vec<f64> {
    let [own, cross] = branches.each_ref().map(Branch::terms);
    ffn.iter().zip(own).zip(cross).map(|((ffn, own), cross)| ffn + own + cross).collect()
}

fn case(
    executor: &dyn Executor,
    element: Element,
    (rows, columns): (usize, usize),
    skip: usize,
    gated: bool,
) {
    let count = rows * columns;
    let branches = [1, 2].map(|index| Branch::new(element, index, rows, columns, gated));
    let [ffn, dout] = [100, 101].map(|index| normal(element, index, count));
    let tensor = |values: &[f64]| Tensor::skipping(executor, element, values, skip);
    let [tffn, tdout] = [&ffn, &dout].map(|values| tensor(values));
    let h = branches.each_ref().map(|branch| tensor(&branch.h));
    let scale = branches.each_ref().map(|branch| tensor(&branch.scale));
    let shift = branches.each_ref().map(|branch| tensor(&branch.shift));
    let gate = branches.each_ref().map(|branch| branch.a.map(|a| tensor(&[a])));
    let pointers = |tensors: &[Tensor; 2]| tensors.each_ref().map(Tensor::pointer);
    let inputs = GatedQueryInputs {
        h: pointers(&h),
        scale: pointers(&scale),
        shift: pointers(&shift),
        gate: gate.each_ref().map(|gate| gate.as_ref().map_or(NULL, Tensor::pointer)),
    };
    let plan = GatedQueryPlan { element, rows, columns, constant: CONSTANT };

    let out = Tensor::output(executor, element, count);
    let memory = GatedQueryForwardBuffers { ffn: tffn.pointer(), inputs, out: out.pointer() };
    run(executor, plan.forward(&memory).unwrap());
    let size =
        |branch: &Branch| largest(&branch.scale) * largest(&branch.h) + largest(&branch.shift);
    let scale_of_out = largest(&ffn) + size(&branches[0]) + size(&branches[1]);
    let want = reference(&ffn, &branches);
    assert_close("out", element, &out.values(), &want, scale_of_out, 10.0);

    let pair = |length: usize| [0; 2].map(|_| Tensor::output(executor, element, length));
    let (dh, dscale, dshift, dgate) = (pair(count), pair(columns), pair(columns), pair(1));
    let workspace = Tensor::output(executor, Element::F32, plan.workspace());
    let memory = GatedQueryBackwardBuffers {
        inputs,
        dout: tdout.pointer(),
        dh: pointers(&dh),
        dscale: pointers(&dscale),
        dshift: pointers(&dshift),
        dgate: if gated { pointers(&dgate) } else { [NULL; 2] },
        workspace: workspace.pointer(),
    };
    run(executor, plan.backward(&memory).unwrap());
    for (index, branch) in branches.iter().enumerate() {
        let (want, sizes) = branch.gradients(&dout);
        // The gate is off by two units or three, which the factor 1 - g^2 does not enlarge.
        assert_close("dh", element, &dh[index].values(), &want[0], 0.0, 8.0);
        let additions = rows + 24;
        let sums = |what, got: &Tensor, at: usize| {
            assert_sums(what, element, &got.values(), &want[at], &sizes[at - 1], additions);
        };
        sums("dscale", &dscale[index], 1);
        sums("dshift", &dshift[index], 2);
        if gated {
            let additions = (additions + columns.div_ceil(256) + 16) as f64;
            let got = dgate[index].values();
            assert_close("dgate", element, &got, &want[3], sizes[2][0], additions);
        }
    }

    // Only requested gradients are written.
    let alone = pair(count);
    let memory = GatedQueryBackwardBuffers {
        inputs: GatedQueryInputs { h: [NULL; 2], shift: [NULL; 2], ..inputs },
        dh: [alone[0].pointer(), NULL],
        dscale: [NULL; 2],
        dshift: [NULL; 2],
        dgate: [NULL; 2],
        workspace: NULL,
        ..memory
    };
    run(executor, plan.backward(&memory).unwrap());
    assert_eq!(alone[0].values(), dh[0].values());
    let cross = Tensor::output(executor, element, columns);
    let memory = GatedQueryBackwardBuffers {
        inputs,
        dh: [NULL; 2],
        dshift: [NULL, cross.pointer()],
        workspace: workspace.pointer(),
        ..memory
    };
    run(executor, plan.backward(&memory).unwrap());
    assert_eq!(cross.values(), dshift[1].values());
}

#[test]
fn layers_of_models() {
    let Some(executor) = executor() else { return };
    for element in Element::ALL {
        for gated in [false, true] {
            case(&*executor, element, (35, 768), 0, gated);
        }
    }
}

#[test]
fn the_gradients_are_those_of_differences() {
    let (rows, columns) = (3, 4);
    let branches = [1, 2].map(|index| Branch::new(Element::F32, index, rows, columns, true));
    let [ffn, weights] = [100, 101].map(|index| normal(Element::F32, index, rows * columns));
    for index in 0..2 {
        let ([dh, dscale, dshift, da], _) = branches[index].gradients(&weights);
        let at = |change: &dyn Fn(&mut Branch)| {
            let mut branches = branches.clone();
            change(&mut branches[index]);
            weighed(&reference(&ffn, &branches), &weights)
        };
        let branch = &branches[index];
        assert_gradient("dh", |h| at(&|b| b.h = h.to_vec()), &branch.h, &dh);
        assert_gradient("dscale", |x| at(&|b| b.scale = x.to_vec()), &branch.scale, &dscale);
        assert_gradient("dshift", |x| at(&|b| b.shift = x.to_vec()), &branch.shift, &dshift);
        assert_gradient("da", |x| at(&|b| b.a = Some(x[0])), &[branch.a.unwrap()], &da);
    }
}

#[test]
fn nothing_is_no_launch_and_too_much_is_refused() {
    let plan = GatedQueryPlan { element: Element::F32, rows: 0, columns: 8, constant: CONSTANT };
    let null = [NULL; 2];
    let inputs = GatedQueryInputs { h: null, scale: null, shift: null, gate: null };
    let forward = GatedQueryForwardBuffers { ffn: NULL, inputs, out: NULL };
    let backward = GatedQueryBackwardBuffers {
        inputs,
        dout: NULL,
        dh: [DevicePointer(16); 2],
        dscale: null,
        dshift: null,
        dgate: null,
        workspace: NULL,
    };
    assert!(plan.forward(&forward).unwrap().is_none());
    assert!(plan.backward(&backward).unwrap().is_empty());
    for wrong in [
        GatedQueryPlan { rows: 1, columns: 1 << 31, ..plan },
        GatedQueryPlan { rows: usize::MAX / 2, columns: 8, ..plan },
    ] {
        assert!(wrong.forward(&forward).is_err() && wrong.backward(&backward).is_err());
    }
    let of_constant = GatedQueryBackwardBuffers { dgate: [DevicePointer(16); 2], ..backward };
    assert!(GatedQueryPlan { rows: 1, ..plan }.backward(&of_constant).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn ragged(rows in 1usize..40, columns in 1usize..300, skip in 0usize..3, gated: bool) {
        if let Some(executor) = executor() {
            for element in Element::ALL {
                case(&*executor, element, (rows, columns), skip, gated);
            }
        }
    }
}
