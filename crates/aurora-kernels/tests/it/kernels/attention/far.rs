//! Batches and rows further apart than 32 bits count: the same bits as when they are adjacent.

use aurora_kernels::cuda::plan::{
    AttentionBackwardBuffers, AttentionForwardBuffers, AttentionPlan, HeadRows, ScoreBuffers,
};
use aurora_kernels::cuda::{DevicePointer, Element};

use crate::kernels::emulator::Emulator;
use crate::kernels::far::Far;
use crate::kernels::support::{Tensor, bytes_of, normal, run};

const WIDTH: usize = 32;
/// Bytes that each tensor has in a piece, in this order: q, k, v, dout, out, dq, dk, dv.
const SLOT: usize = 4096;
const SLOTS: usize = 8;

/// Runs forward and backward, with the tensors where `rows` says.
fn attention(
    executor: &Emulator,
    (element, batches, length): (Element, usize, usize),
    rows: impl Fn(usize) -> HeadRows,
) {
    let plan = AttentionPlan {
        element,
        queries: batches,
        keys: batches,
        q_len: length,
        k_len: length,
        heads: 1,
        head: WIDTH,
        causal: false,
    };
    let [log_sums, deltas] =
        [0; 2].map(|_| Tensor::output(executor, Element::F32, batches * length));
    let null = DevicePointer::NULL;
    let scores = ScoreBuffers { mask: null, scale: null, kv_rows: null };
    let [q, k, v, dout, out] = [0, 1, 2, 3, 4].map(&rows);
    let log_sums = log_sums.pointer();
    let memory = AttentionForwardBuffers { q, k, v, out, log_sums, scores };
    run(executor, plan.forward(&memory).unwrap());
    let memory = AttentionBackwardBuffers {
        q,
        k,
        v,
        out,
        dout,
        log_sums,
        deltas: deltas.pointer(),
        scores,
        query_offsets: null,
        query_rows: null,
        dq: Some(rows(5)),
        dk: Some(rows(6)),
        dv: Some(rows(7)),
    };
    run(executor, plan.backward(&memory).unwrap());
}

/// Two batches of three rows, the batches far apart; or one of two rows, the rows far apart.
fn case(element: Element, batches: usize, length: usize, skip: usize) {
    let Some(executor) = Emulator::new() else { return };
    let far = Far::new(&executor, 2, SLOT * SLOTS, Far::DISTANCE);
    let together: Vec<Tensor> = (0..SLOTS)
        .map(|slot| match slot {
            0..4 => {
                let values = normal(element, slot as u64, batches * length * WIDTH);
                Tensor::skipping(&executor, element, &values, skip)
            }
            _ => Tensor::output(&executor, element, batches * length * WIDTH),
        })
        .collect();
    attention(&executor, (element, batches, length), |slot| HeadRows {
        pointer: together[slot].pointer(),
        batch_stride: length * WIDTH,
        row_stride: WIDTH,
    });

    let piece = batches * length * WIDTH / 2 * element.bytes();
    let at = |slot: usize| slot * SLOT + skip * element.bytes();
    for (slot, tensor) in together.iter().enumerate().take(4) {
        let bytes = bytes_of(element, &tensor.values());
        far.write(0, at(slot), &bytes[..piece]);
        far.write(1, at(slot), &bytes[piece..]);
    }
    let apart = far.distance / element.bytes();
    attention(&executor, (element, batches, length), |slot| HeadRows {
        pointer: DevicePointer(far.pointer().0 + at(slot) as u64),
        batch_stride: if batches > 1 { apart } else { 0 },
        row_stride: if batches > 1 { WIDTH } else { apart },
    });
    for (slot, tensor) in together.iter().enumerate().skip(4) {
        let mut bytes = far.read(0, at(slot), piece);
        bytes.extend(far.read(1, at(slot), piece));
        assert_eq!(bytes, bytes_of(element, &tensor.values()), "{element:?}, tensor {slot}");
    }
}

#[test]
fn further_apart_than_32_bits_count() {
    for element in Element::ALL {
        for skip in [0, 1] {
            case(element, 2, 3, skip);
            case(element, 1, 2, skip);
        }
    }
}
