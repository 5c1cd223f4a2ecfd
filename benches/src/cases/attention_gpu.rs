//! Attention cases on a GPU, and the gated query after it.

use aurora_kernels::cuda::plan::{
    AttentionBackwardBuffers, AttentionForwardBuffers, AttentionPlan, GatedQueryBackwardBuffers,
    GatedQueryForwardBuffers, GatedQueryInputs, GatedQueryPlan, HeadRows, ScoreBuffers,
    queries_by_key,
};
use aurora_kernels::cuda::{DevicePointer, Element, Executor};
use aurora_kernels::reference;
use candle_core::Result;

use super::attention::query_gradient_of_ones;
use crate::cost::AttentionShape;
use crate::gpu::{Operands, Work};

const NULL: DevicePointer = DevicePointer::NULL;

/// Number of queries of the first row that are checked against the reference.
const SEEN: usize = 4;

pub(super) fn attention(
    executor: &dyn Executor,
    element: Element,
    shape: AttentionShape,
    heads: usize,
    backward: bool,
) -> Result<Work> {
    let AttentionShape { queries, keys, q_len, k_len, width } = shape;
    let [queries, keys, q_len, k_len, width] =
        [queries, keys, q_len, k_len, width].map(|n| n as usize);
    let mut of = Operands::new(executor);
    let q = of.normal(element, 0, queries * q_len * width)?;
    let k = of.normal(element, 1, keys * k_len * width)?;
    let v = of.normal(element, 2, keys * k_len * width)?;
    let out = of.output(element, queries * q_len * width)?;
    let log_sums = of.output(Element::F32, queries * heads * q_len)?;
    let shared = queries != keys;
    let kv_rows: Vec<u32> = (0..queries).map(|row| (row % keys) as u32).collect();
    let mut list = |numbers: &[u32]| -> Result<DevicePointer> {
        let bytes: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
        if shared { Ok(of.bytes(Element::F32, &bytes)?.pointer) } else { Ok(NULL) }
    };
    let (offsets, rows) = queries_by_key(&kv_rows, keys)?;
    let [kv_rows, query_offsets, query_rows] = [list(&kv_rows)?, list(&offsets)?, list(&rows)?];
    let scores = ScoreBuffers { mask: NULL, scale: NULL, kv_rows };

    let plan = AttentionPlan {
        element,
        queries,
        keys,
        q_len,
        k_len,
        heads,
        head: width / heads,
        causal: false,
    };
    let in_rows = |pointer, length: usize| HeadRows {
        pointer,
        batch_stride: length * width,
        row_stride: width,
    };
    let forward = plan.forward(&AttentionForwardBuffers {
        q: in_rows(q.pointer(), q_len),
        k: in_rows(k.pointer(), k_len),
        v: in_rows(v.pointer(), k_len),
        out: in_rows(out.pointer, q_len),
        log_sums: log_sums.pointer,
        scores,
    })?;
    of.run(&forward)?;
    let seen = SEEN.min(q_len);
    let plain = reference::AttentionSpec { q_len: seen, k_len, heads, width, ..Default::default() };
    let first = [q.range(0, seen * width), k.range(0, k_len * width), v.range(0, k_len * width)];
    let want = reference::attention(&first[0], &first[1], &first[2], &plain);
    of.check("attention", out, &want)?;
    if !backward {
        return Ok(of.work(forward));
    }

    let dout = of.ones(element, queries * q_len * width)?;
    let dq = of.output(element, queries * q_len * width)?;
    let dk = of.output(element, keys * k_len * width)?;
    let dv = of.output(element, keys * k_len * width)?;
    let launches = plan.backward(&AttentionBackwardBuffers {
        q: in_rows(q.pointer(), q_len),
        k: in_rows(k.pointer(), k_len),
        v: in_rows(v.pointer(), k_len),
        out: in_rows(out.pointer, q_len),
        dout: in_rows(dout.pointer, q_len),
        log_sums: log_sums.pointer,
        deltas: of.output(Element::F32, queries * heads * q_len)?.pointer,
        scores,
        query_offsets,
        query_rows,
        dq: Some(in_rows(dq.pointer, q_len)),
        dk: Some(in_rows(dk.pointer, k_len)),
        dv: Some(in_rows(dv.pointer, k_len)),
    })?;
    of.run(&launches)?;
    let want = query_gradient_of_ones(&first, width, heads);
    // The kernel takes differences of dot products of rounded numbers, each a sum over a head.
    of.check("attention, dq", dq, &want)?;
    // dv of the first key and head: the sum of its probabilities over the queries that use it.
    let head = width / heads;
    let keys_seen: Vec<Vec<f64>> = (0..k_len).map(|j| k.range(j * width, head)).collect();
    let mut sum = 0.0;
    for row in (0..queries).step_by(keys) {
        for i in 0..q_len {
            let q = q.range((row * q_len + i) * width, head);
            let root = (head as f64).sqrt();
            let scores: Vec<f64> = keys_seen.iter().map(|k| super::dot(&q, k) / root).collect();
            sum += reference::softmax(&scores)[0];
        }
    }
    of.check("attention, dv", dv, &vec![sum; head])?;
    Ok(of.work(launches))
}

pub(super) fn gate(
    executor: &dyn Executor,
    element: Element,
    [rows, columns]: [usize; 2],
    backward: bool,
) -> Result<Work> {
    const OPEN: f32 = 0.5;
    let mut of = Operands::new(executor);
    let all = rows * columns;
    let ffn = of.normal(element, 0, all)?;
    let h = [of.normal(element, 1, all)?, of.normal(element, 2, all)?];
    let scale = [of.normal(element, 3, columns)?, of.normal(element, 4, columns)?];
    let shift = [of.normal(element, 5, columns)?, of.normal(element, 6, columns)?];
    let gate = [of.tensor(element, &[OPEN])?, of.tensor(element, &[OPEN])?];
    let out = of.output(element, all)?;
    let inputs = GatedQueryInputs {
        h: [h[0].pointer(), h[1].pointer()],
        scale: [scale[0].pointer(), scale[1].pointer()],
        shift: [shift[0].pointer(), shift[1].pointer()],
        gate: [gate[0].pointer, gate[1].pointer],
    };
    let plan = GatedQueryPlan { element, rows, columns, constant: 0.0 };
    let forward =
        plan.forward(&GatedQueryForwardBuffers { ffn: ffn.pointer(), inputs, out: out.pointer })?;
    of.run(&forward)?;
    let open = f64::from(OPEN).tanh();
    let branch = |of: usize, c: usize| open * (scale[of].at(c) * h[of].at(c) + shift[of].at(c));
    let want: Vec<f64> = (0..columns).map(|c| ffn.at(c) + branch(0, c) + branch(1, c)).collect();
    of.check("gated_query", out, &want)?;
    if !backward {
        return Ok(of.work(forward));
    }
    let dout = of.ones(element, all)?;
    let dh = [of.output(element, all)?, of.output(element, all)?];
    let mut vectors = || -> Result<[DevicePointer; 2]> {
        Ok([of.output(element, columns)?.pointer, of.output(element, columns)?.pointer])
    };
    let (dscale, dshift, dgate) = (vectors()?, vectors()?, vectors()?);
    let launches = plan.backward(&GatedQueryBackwardBuffers {
        inputs,
        dout: dout.pointer,
        dh: [dh[0].pointer, dh[1].pointer],
        dscale,
        dshift,
        dgate,
        workspace: of.output(Element::F32, plan.workspace())?.pointer,
    })?;
    of.run(&launches)?;
    for (dh, scale) in dh.into_iter().zip(&scale) {
        let want: Vec<f64> = (0..columns).map(|c| open * scale.at(c)).collect();
        of.check("gated_query, dh", dh, &want)?;
    }
    Ok(of.work(launches))
}
