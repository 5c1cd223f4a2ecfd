//! Linear maps: frozen, trained and adapted, beside a plain product of the same size.

use std::time::Duration;

use aurora_benches::{LINEAR_SITES, batch, check, normal, values};
use aurora_kernels::{LowRank, Mode, adapted_linear, linear, reference};
use candle_core::{Result, Var};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

/// Rank of the adapter.
const RANK: usize = 16;

fn sites(criterion: &mut Criterion) -> Result<()> {
    for site in LINEAR_SITES {
        let tokens = site.tokens * batch();
        let x = Var::from_tensor(&normal(0, &[tokens, site.input])?)?;
        let weight = normal(1, &[site.output, site.input])?;
        let bias = normal(2, &[site.output])?;
        let a = Var::from_tensor(&normal(3, &[RANK, site.input])?)?;
        let b = Var::from_tensor(&normal(4, &[site.output, RANK])?)?;
        let adapted = |mode: Mode| {
            let delta = LowRank::new(a.as_tensor().clone(), b.as_tensor().clone())?;
            adapted_linear(x.as_tensor(), &weight, Some(&bias), &delta, mode)
        };

        let first = values(&x.narrow(0, 0, 4)?)?;
        let want = reference::linear(&first, &values(&weight)?, Some(&values(&bias)?), site.input);
        check("linear", &linear(&x, &weight, Some(&bias))?, &want)?;
        let [w, down, up] = [&weight, a.as_tensor(), b.as_tensor()].map(values);
        let effective = reference::effective_weight(&w?, &down?, &up?, site.input);
        let want = reference::linear(&first, &effective, Some(&values(&bias)?), site.input);
        check("adapted_linear", &adapted(Mode::Auto)?, &want)?;

        // Of one product; a backward pass for x alone has another, of the factors two narrow ones.
        let flops = 2 * (tokens * site.input * site.output) as u64;
        let mut group = criterion.benchmark_group(site.name);
        group.throughput(Throughput::Elements(flops));
        let frozen = x.as_detached_tensor();
        group.bench_function("product", |b| b.iter(|| frozen.matmul(&weight.t()?)));
        group.bench_function("linear", |b| b.iter(|| linear(&frozen, &weight, Some(&bias))));
        group.throughput(Throughput::Elements(2 * flops));
        group.bench_function("linear, both ways", |b| {
            b.iter(|| linear(&x, &weight, Some(&bias))?.backward());
        });
        group.bench_function("adapted, both ways", |b| {
            b.iter(|| adapted(Mode::Reconstruct)?.backward());
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
