//! Limits of an attention plan: accepted and refused sizes.

use aurora_kernels::cuda::plan::{
    AttentionBackwardBuffers, AttentionForwardBuffers, AttentionPlan, HeadRows, ScoreBuffers,
    queries_by_key,
};
use aurora_kernels::cuda::{DevicePointer, Element, Launch};
use candle_core::Result;

const NULL: DevicePointer = DevicePointer::NULL;
const NOWHERE: HeadRows = HeadRows { pointer: NULL, batch_stride: 0, row_stride: 0 };
const SCORES: ScoreBuffers = ScoreBuffers { mask: NULL, scale: NULL, kv_rows: NULL };
const SHARED: ScoreBuffers = ScoreBuffers { kv_rows: DevicePointer(4), ..SCORES };

const PLAN: AttentionPlan = AttentionPlan {
    element: Element::Bf16,
    queries: 2,
    keys: 2,
    q_len: 70,
    k_len: 80,
    heads: 3,
    head: 64,
    causal: false,
};

fn forward(plan: &AttentionPlan, scores: ScoreBuffers) -> Result<Option<Launch>> {
    let memory = AttentionForwardBuffers {
        q: NOWHERE,
        k: NOWHERE,
        v: NOWHERE,
        out: NOWHERE,
        log_sums: NULL,
        scores,
    };
    plan.forward(&memory)
}

fn backward(plan: &AttentionPlan, scores: ScoreBuffers, wanted: [bool; 3]) -> Result<Vec<Launch>> {
    let [dq, dk, dv] = wanted.map(|wanted| wanted.then_some(NOWHERE));
    let memory = AttentionBackwardBuffers {
        q: NOWHERE,
        k: NOWHERE,
        v: NOWHERE,
        out: NOWHERE,
        dout: NOWHERE,
        log_sums: NULL,
        deltas: NULL,
        scores,
        query_offsets: NULL,
        query_rows: NULL,
        dq,
        dk,
        dv,
    };
    plan.backward(&memory)
}

fn symbols(launches: &[Launch]) -> Vec<&'static str> {
    launches.iter().map(|launch| launch.symbol).collect()
}

#[test]
fn launches_of_a_plan() {
    let launch = forward(&PLAN, SCORES).unwrap().unwrap();
    assert_eq!(launch.symbol, "attention_forward_64_bf16");
    assert_eq!((launch.grid, launch.block), ([2 * 3 * 2, 1, 1], 128));
    assert_eq!(launch.shared, (64 + 4 * 64) * 144 + 2 * 64 * 8);
    let all = backward(&PLAN, SCORES, [true; 3]).unwrap();
    let [delta, query, key] = ["delta_bf16", "backward_query_64_bf16", "backward_key_64_bf16"];
    assert_eq!(symbols(&all), [delta, query, key].map(|name| format!("attention_{name}")));
    assert_eq!(symbols(&backward(&PLAN, SCORES, [true, false, false]).unwrap()).len(), 2);
    assert_eq!(symbols(&backward(&PLAN, SCORES, [false, false, true]).unwrap()).len(), 2);
    assert!(backward(&PLAN, SCORES, [false; 3]).unwrap().is_empty());
}

/// Shared memory fits into 163 KiB, which a block of the smallest architecture may have.
#[test]
fn shared_memory_is_within_what_a_block_may_have() {
    for element in Element::ALL {
        for head in 1..=128 {
            let plan = AttentionPlan { element, head, ..PLAN };
            for launch in backward(&plan, SCORES, [true; 3]).unwrap() {
                assert!(launch.shared <= 163 * 1024, "{}: {}", launch.symbol, launch.shared);
            }
        }
    }
}

#[test]
fn a_batch_of_nothing_is_no_launch() {
    for plan in [
        AttentionPlan { queries: 0, keys: 0, ..PLAN },
        AttentionPlan { q_len: 0, keys: 0, queries: 0, ..PLAN },
    ] {
        assert!(forward(&plan, SCORES).unwrap().is_none());
        assert!(backward(&plan, SCORES, [true; 3]).unwrap().is_empty());
    }
    // Keys without queries: their gradients are zeros, which have to be written.
    for plan in [AttentionPlan { queries: 0, ..PLAN }, AttentionPlan { q_len: 0, ..PLAN }] {
        assert!(forward(&plan, SHARED).unwrap().is_none());
        let launches = backward(&plan, SHARED, [true; 3]).unwrap();
        assert_eq!(symbols(&launches), ["attention_backward_key_64_bf16"]);
    }
}

#[test]
fn what_is_refused_is_named() {
    let refused = |plan: AttentionPlan, word: &str| {
        let error = forward(&plan, SCORES).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
        let error = backward(&plan, SCORES, [true; 3]).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    };
    refused(AttentionPlan { head: 129, ..PLAN }, "1 to 128");
    refused(AttentionPlan { head: 0, ..PLAN }, "1 to 128");
    refused(AttentionPlan { heads: 0, ..PLAN }, "at least one head");
    refused(AttentionPlan { k_len: 0, ..PLAN }, "at least one head and one key");
    refused(AttentionPlan { causal: true, q_len: 81, ..PLAN }, "as many keys as queries");
    refused(AttentionPlan { keys: 3, ..PLAN }, "kv_rows");
    refused(AttentionPlan { k_len: 1 << 31, ..PLAN }, "at most");
    refused(AttentionPlan { q_len: (1 << 30) + 1, ..PLAN }, "at most");
    // Each size fits, but not their product.
    let many = 1 << 29;
    let error = forward(&AttentionPlan { queries: many, keys: many, ..PLAN }, SCORES).unwrap_err();
    assert!(error.to_string().contains("cut the batch"), "{error}");
    let plan = AttentionPlan { queries: many, keys: many, q_len: many, heads: many, ..PLAN };
    assert!(forward(&plan, SCORES).unwrap_err().to_string().contains("cut the batch"));
}

#[test]
fn queries_in_the_order_of_their_keys() {
    let (offsets, list) = queries_by_key(&[2, 0, 2, 2, 0], 4).unwrap();
    assert_eq!((offsets, list), (vec![0, 2, 2, 5, 5], vec![1, 4, 0, 2, 3]));
    assert_eq!(queries_by_key(&[], 1).unwrap(), (vec![0, 0], vec![]));
    let error = queries_by_key(&[0, 4], 4).unwrap_err().to_string();
    assert!(error.contains("kv_rows[1] is 4"), "{error}");
}
