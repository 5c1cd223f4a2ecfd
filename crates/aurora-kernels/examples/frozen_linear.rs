//! Tunes a rank-4 delta on a frozen linear layer: the smallest whole use of this crate.
//!
//! The target differs from the frozen layer by a delta of rank 4, so a LoRA-shaped pair of factors can find it. Run
//! with `cargo run --release -p aurora-kernels --example frozen_linear`.
#![allow(clippy::print_stdout)] // an example talks to its reader

use aurora_kernels::audit::missing_gradients;
use aurora_kernels::random::Stream;
use aurora_kernels::{DeltaMode, LowRank, adapted_linear, linear};
use candle_core::{DType, Device, Result, Tensor, Var};

const WIDTH: usize = 64;
const RANK: usize = 4;
const TOKENS: usize = 256;

fn main() -> Result<()> {
    aurora_kernels::allocator::retain_freed_memory();
    let mut random = Stream::new(1, "frozen_linear example", 0, 0);
    let spread = (WIDTH as f64).powf(-0.5);
    let weight = random.normal_tensor((WIDTH, WIDTH), spread)?;
    let bias = random.normal_tensor(WIDTH, 0.1)?;

    // Target of the adapted linear layer: W + B A for some B and A.
    let up = random.normal_tensor((WIDTH, RANK), 1.0)?;
    let down = random.normal_tensor((RANK, WIDTH), spread)?;
    let wanted = LowRank::new(down, up)?.merged_weight(&weight)?;

    // A starts at random and B at zero, so that tuning starts from the frozen linear layer itself.
    let a = Var::from_tensor(&random.normal_tensor((RANK, WIDTH), spread)?)?;
    let b = Var::zeros((WIDTH, RANK), DType::F32, &Device::Cpu)?;

    for step in 0..=300 {
        let x = Stream::new(1, "pictures", step, 0).normal_tensor((TOKENS, WIDTH), 1.0)?;
        let target = linear(&x, &wanted, Some(&bias))?;
        let delta = LowRank::new(a.as_tensor().clone(), b.as_tensor().clone())?;
        let y = adapted_linear(&x, &weight, Some(&bias), &delta, DeltaMode::Auto)?;
        let loss = (y - target)?.sqr()?.mean_all()?;
        let grads = loss.backward()?;

        let trained: [(&str, &Tensor); 2] = [("a", a.as_tensor()), ("b", b.as_tensor())];
        let missed = missing_gradients(&grads, trained);
        assert!(missed.is_empty(), "no gradient reached {missed:?}");
        assert!(grads.get(&weight).is_none(), "the weight is frozen");
        for factor in [&a, &b] {
            if let Some(grad) = grads.get(factor) {
                factor.set(&(factor.as_tensor() - (grad * 0.4)?)?)?;
            }
        }
        if step % 50 == 0 {
            println!("step {step:3}  loss {:.6}", loss.to_scalar::<f32>()?);
        }
    }
    Ok(())
}
