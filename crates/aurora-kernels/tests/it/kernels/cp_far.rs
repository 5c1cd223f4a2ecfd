//! Rows more than 2^31 elements apart give what dense rows give, to the bit.

use aurora_kernels::cuda::plan::{
    ApplyBuffers, CpApplyPlan, CpFactorGradientPlan, CpReconstructPlan, FactorGradientBuffers,
    FactorLayout, FactorPair, Slice,
};
use aurora_kernels::cuda::{DevicePointer, Element, Executor};
use half::bf16;

use crate::kernels::emulator::Emulator;
use crate::kernels::far::Far;
use crate::kernels::support::{Tensor, bytes_of, normal, run};

const ROWS: usize = 3;
const WIDTH: usize = 24;
const RANK: usize = 4;
/// Row stride in elements; times two rows it is past 2^32.
const STRIDE: usize = (1 << 31) + 8;
const ELEMENT: Element = Element::Bf16;

/// Rows of numbers, dense and far apart: ROWS of WIDTH.
struct Both<'a> {
    dense: Tensor<'a>,
    far: Far,
}

impl<'a> Both<'a> {
    fn new(emulator: &'a Emulator, index: u64) -> Self {
        let values = normal(ELEMENT, index, ROWS * WIDTH);
        let far = Far::new(emulator, ROWS, WIDTH * ELEMENT.bytes(), STRIDE * ELEMENT.bytes());
        for (row, values) in values.chunks(WIDTH).enumerate() {
            far.write(row, 0, &bytes_of(ELEMENT, values));
        }
        Self { dense: Tensor::new(emulator, ELEMENT, &values), far }
    }

    fn pointer(&self, far: bool) -> DevicePointer {
        if far { self.far.pointer() } else { self.dense.pointer() }
    }

    #[track_caller]
    fn assert_same(&self) {
        for (index, row) in self.dense.values().chunks(WIDTH).enumerate() {
            let far: Vec<f64> = self
                .far
                .read(index, 0, WIDTH * ELEMENT.bytes())
                .chunks_exact(2)
                .map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f64())
                .collect();
            assert_eq!(row, far, "row {index}");
        }
    }
}

#[test]
fn apply() {
    let Some(emulator) = Emulator::new() else { return };
    let of = |index| Tensor::new(&emulator, ELEMENT, &normal(ELEMENT, index, RANK * WIDTH));
    let (a, b) = (of(1), of(2));
    let (x, y) = (Both::new(&emulator, 3), Both::new(&emulator, 4));
    for far in [false, true] {
        let stride = if far { STRIDE } else { WIDTH };
        let plan = CpApplyPlan {
            element: ELEMENT,
            tokens: ROWS,
            inputs: WIDTH,
            outputs: WIDTH,
            rank: RANK,
            x_stride: stride,
            y_stride: stride,
        };
        let memory =
            ApplyBuffers { x: x.pointer(far), a: a.pointer(), b: b.pointer(), y: y.pointer(far) };
        run(&emulator, plan.launch(&memory).unwrap());
    }
    y.assert_same();
}

#[test]
fn reconstruct() {
    let Some(emulator) = Emulator::new() else { return };
    let of =
        |index, length| Tensor::new(&emulator, Element::F32, &normal(Element::F32, index, length));
    let (u, v, modes) = (of(1, WIDTH * RANK), of(2, ROWS * RANK), of(3, RANK));
    let (weight, merged) = (Both::new(&emulator, 4), Both::new(&emulator, 5));
    for far in [false, true] {
        let stride = if far { STRIDE } else { WIDTH };
        let plan = CpReconstructPlan {
            element: ELEMENT,
            rank: RANK,
            cores: false,
            pairs: vec![FactorPair {
                u: u.pointer(),
                v: v.pointer(),
                inputs: WIDTH,
                outputs: ROWS,
            }],
            slices: vec![Slice {
                pair: 0,
                weight: weight.pointer(far),
                merged: merged.pointer(far),
                modes: modes.pointer(),
                weight_stride: stride,
                merged_stride: stride,
            }],
        };
        let table = plan.table().unwrap().unwrap();
        let memory = emulator.allocate(table.bytes.len()).unwrap();
        emulator.upload(&table.bytes, &*memory).unwrap();
        run(&emulator, [table.launch(memory.pointer(), DevicePointer::NULL).unwrap()]);
    }
    merged.assert_same();
}

#[test]
fn factor_gradient() {
    let Some(emulator) = Emulator::new() else { return };
    let of = |index| Tensor::new(&emulator, ELEMENT, &normal(ELEMENT, index, RANK * WIDTH));
    let (u, v) = (of(1), of(2));
    let (x, dy) = (Both::new(&emulator, 3), Both::new(&emulator, 4));
    let results = [false, true].map(|far| {
        let stride = if far { STRIDE } else { WIDTH };
        let plan = CpFactorGradientPlan {
            element: ELEMENT,
            factors: ELEMENT,
            gradients: Element::F32,
            tokens: ROWS,
            inputs: WIDTH,
            outputs: WIDTH,
            rank: RANK,
            x_stride: stride,
            dy_stride: stride,
            u_layout: FactorLayout::ByRank,
            v_layout: FactorLayout::ByWidth,
            accumulate: false,
        };
        let output = |element, length| Tensor::output(&emulator, element, length);
        let [z, g] = [0; 2].map(|_| output(ELEMENT, ROWS * RANK));
        let [du, dv] = [0; 2].map(|_| output(Element::F32, WIDTH * RANK));
        let dscale = output(Element::F32, RANK);
        let workspace = output(Element::F32, plan.workspace().unwrap());
        let memory = FactorGradientBuffers {
            x: x.pointer(far),
            dy: dy.pointer(far),
            u: u.pointer(),
            v: v.pointer(),
            z: z.pointer(),
            g: g.pointer(),
            workspace: workspace.pointer(),
            scale: DevicePointer::NULL,
            du: du.pointer(),
            dv: dv.pointer(),
            dscale: dscale.pointer(),
        };
        run(&emulator, plan.launches(&memory).unwrap());
        [du.values(), dv.values(), dscale.values()]
    });
    assert_eq!(results[0], results[1]);
}
