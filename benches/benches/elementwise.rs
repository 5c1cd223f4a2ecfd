//! What memory bounds: layer normalisation, GELU and the loss, in bytes read and written.

use std::time::Duration;

use aurora_benches::{PICTURE_TOKENS, WIDTH, batch, check, normal, values};
use aurora_kernels::{gelu, layer_norm, reference, soft_cross_entropy};
use candle_core::{Result, Var};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

/// Candidates in a contrastive loss: the batch and a queue.
const CANDIDATES: usize = 2048;

fn sites(criterion: &mut Criterion) -> Result<()> {
    let tokens = PICTURE_TOKENS * batch();
    let x = Var::from_tensor(&normal(0, &[tokens, WIDTH])?)?;
    let (weight, bias) = (normal(1, &[WIDTH])?, normal(2, &[WIDTH])?);
    let wide = Var::from_tensor(&normal(3, &[tokens, 4 * WIDTH])?)?;
    let logits = Var::from_tensor(&normal(4, &[batch(), CANDIDATES])?)?;
    let targets = normal(5, &[batch(), CANDIDATES])?.sqr()?;

    let first = values(&x.narrow(0, 0, 4)?)?;
    let want = reference::layer_norm(&first, &values(&weight)?, &values(&bias)?, 1e-6);
    check("layer_norm", &layer_norm(&x, &weight, &bias, 1e-6)?, &want)?;
    check("gelu", &gelu(&wide)?, &reference::gelu(&values(&wide.narrow(0, 0, 4)?)?))?;
    let loss = reference::soft_cross_entropy(&values(&logits)?, &values(&targets)?, CANDIDATES);
    check("soft_cross_entropy", &soft_cross_entropy(&logits, &targets)?, &[loss])?;

    // Forward reads once and writes once; backward reads two and writes one.
    let bytes = 4 * (tokens * WIDTH) as u64;
    let frozen = x.as_detached_tensor();
    let mut group = criterion.benchmark_group("vision.norm1");
    group.throughput(Throughput::Bytes(2 * bytes));
    group.bench_function("forward", |b| b.iter(|| layer_norm(&frozen, &weight, &bias, 1e-6)));
    group.throughput(Throughput::Bytes(5 * bytes));
    group.bench_function("both ways", |b| {
        b.iter(|| layer_norm(&x, &weight, &bias, 1e-6)?.backward());
    });
    group.finish();

    let frozen = wide.as_detached_tensor();
    let mut group = criterion.benchmark_group("vision.mlp.gelu");
    group.throughput(Throughput::Bytes(8 * bytes));
    group.bench_function("forward", |b| b.iter(|| gelu(&frozen)));
    group.throughput(Throughput::Bytes(20 * bytes));
    group.bench_function("both ways", |b| b.iter(|| gelu(&wide)?.backward()));
    group.finish();

    let bytes = 4 * (batch() * CANDIDATES) as u64;
    let mut group = criterion.benchmark_group("itc.loss");
    group.throughput(Throughput::Bytes(5 * bytes));
    group.bench_function("both ways", |b| {
        b.iter(|| soft_cross_entropy(&logits, &targets)?.backward());
    });
    group.finish();
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
