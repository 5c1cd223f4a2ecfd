//! Attentions of the model, forward and backward.

use std::sync::Arc;
use std::time::Duration;

use aurora_benches::{ATTENTION_SITES, HEADS, WIDTH, batch, check, normal, values};
use aurora_kernels::{AttentionOptions, attention, reference};
use candle_core::{Result, Var};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn sites(criterion: &mut Criterion) -> Result<()> {
    for site in ATTENTION_SITES {
        let (keys, queries) = (batch(), batch() * site.share);
        let q = Var::from_tensor(&normal(0, &[queries, site.q_len, WIDTH])?)?;
        let k = Var::from_tensor(&normal(1, &[keys, site.k_len, WIDTH])?)?;
        let v = Var::from_tensor(&normal(2, &[keys, site.k_len, WIDTH])?)?;
        let rows: Option<Arc<[u32]>> =
            (site.share > 1).then(|| (0..queries).map(|row| (row % keys) as u32).collect());
        let options = AttentionOptions { kv_rows: rows, ..Default::default() };

        let plain = reference::Attention {
            q_len: site.q_len,
            k_len: site.k_len,
            heads: HEADS,
            width: WIDTH,
            ..Default::default()
        };
        let [first_q, first_k, first_v] = [&q, &k, &v].map(|x| values(&x.narrow(0, 0, 1)?));
        let want = reference::attention(&first_q?, &first_k?, &first_v?, &plain);
        check("attention", &attention(&q, &k, &v, HEADS, &options)?, &want)?;

        // Two products; backward five, one of them the scores again.
        let flops = 4 * (queries * site.q_len * site.k_len * WIDTH) as u64;
        let mut group = criterion.benchmark_group(site.name);
        group.throughput(Throughput::Elements(flops));
        let [frozen_q, frozen_k, frozen_v] = [&q, &k, &v].map(Var::as_detached_tensor);
        group.bench_function("forward", |b| {
            b.iter(|| attention(&frozen_q, &frozen_k, &frozen_v, HEADS, &options));
        });
        group.throughput(Throughput::Elements(flops * 7 / 2));
        group.bench_function("both ways", |b| {
            b.iter(|| attention(&q, &k, &v, HEADS, &options)?.backward());
        });
        group.finish();
    }
    Ok(())
}

fn run(criterion: &mut Criterion) {
    aurora_kernels::memory::keep_freed_memory();
    sites(criterion).expect("the operations take these shapes");
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(800));
    targets = run
}
criterion_main!(benches);
