//! What the benches share: shapes named after sites of the small model that the quickstart tunes,
//! and the check that what is measured is also right.
//!
//! The model is 192 wide with three heads; a batch is 128 pictures of 96 pixels (36 patches of 16
//! and the class token: 37 tokens) and 128 texts of 16 tokens. `AURORA_BENCH_BATCH` takes
//! another batch.

use aurora_kernels::random::Stream;
use candle_core::{DType, Result, Tensor};

/// Width of both towers.
pub const WIDTH: usize = 192;
/// Heads of an attention.
pub const HEADS: usize = 3;
/// Tokens of a picture.
pub const PICTURE_TOKENS: usize = 37;
/// Tokens of a text.
pub const TEXT_TOKENS: usize = 16;

/// Pictures, and texts, in a batch.
pub fn batch() -> usize {
    let set = std::env::var("AURORA_BENCH_BATCH").ok().and_then(|text| text.parse().ok());
    set.unwrap_or(128)
}

/// A linear map of the model.
#[derive(Debug, Clone, Copy)]
pub struct LinearSite {
    /// Its place in the model.
    pub name: &'static str,
    /// Tokens of one picture or text.
    pub tokens: usize,
    /// Input width.
    pub input: usize,
    /// Output width.
    pub output: usize,
}

/// The linear maps of a vision block and of a text layer.
pub const LINEAR_SITES: [LinearSite; 5] = [
    site("vision.attn.qkv", PICTURE_TOKENS, WIDTH, 3 * WIDTH),
    site("vision.attn.proj", PICTURE_TOKENS, WIDTH, WIDTH),
    site("vision.mlp.fc1", PICTURE_TOKENS, WIDTH, 4 * WIDTH),
    site("vision.mlp.fc2", PICTURE_TOKENS, 4 * WIDTH, WIDTH),
    site("text.attn.query", TEXT_TOKENS, WIDTH, WIDTH),
];

const fn site(name: &'static str, tokens: usize, input: usize, output: usize) -> LinearSite {
    LinearSite { name, tokens, input, output }
}

/// An attention of the model.
#[derive(Debug, Clone, Copy)]
pub struct AttentionSite {
    /// Its place in the model.
    pub name: &'static str,
    /// Rows of queries for each row of keys.
    pub share: usize,
    /// Queries in a row.
    pub q_len: usize,
    /// Keys in a row.
    pub k_len: usize,
}

/// Self-attention of both towers, and texts (positive and two hard negatives) over pictures.
pub const ATTENTION_SITES: [AttentionSite; 3] = [
    AttentionSite { name: "vision.self", share: 1, q_len: PICTURE_TOKENS, k_len: PICTURE_TOKENS },
    AttentionSite { name: "text.self", share: 1, q_len: TEXT_TOKENS, k_len: TEXT_TOKENS },
    AttentionSite { name: "fusion.cross", share: 3, q_len: TEXT_TOKENS, k_len: PICTURE_TOKENS },
];

/// A normal f32 tensor, another for each index.
///
/// # Errors
/// What candle reports when it cannot make a tensor of that shape.
pub fn normal(index: u64, shape: &[usize]) -> Result<Tensor> {
    Stream::new(0, "bench", 0, index).normal_tensor(shape, 1.0)
}

/// The elements in order as f64, for a reference.
///
/// # Errors
/// What candle reports when it cannot read the tensor.
pub fn values(tensor: &Tensor) -> Result<Vec<f64>> {
    tensor.to_dtype(DType::F64)?.flatten_all()?.to_vec1()
}

/// Compares the beginning of a result with its reference, as far as that goes.
///
/// # Errors
/// An element that is further off than 1e-5 of the largest, or what candle reports.
pub fn check(name: &str, got: &Tensor, want: &[f64]) -> Result<()> {
    let got = values(got)?;
    let scale = want.iter().fold(1f64, |top, x| top.max(x.abs()));
    for (index, (got, want)) in got.iter().zip(want).enumerate() {
        if (got - want).abs() > 1e-5 * scale {
            candle_core::bail!("{name}: element {index} is {got}, the reference says {want}");
        }
    }
    Ok(())
}
