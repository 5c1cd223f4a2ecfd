//! Every kernel there is, by the source it stands in.
//!
//! No dependencies: `cargo xtask build-kernels` reads this file as well, and holds what was
//! compiled to it.

/// A kernel.
#[derive(Debug, Clone, Copy)]
pub struct Kernel {
    /// Its exported name: `<kernel>_<element type>`.
    pub symbol: &'static str,
    /// Whether the compiler must keep all of its registers in registers.
    pub spill_free: bool,
}

/// A CUDA source and the kernels in it.
#[derive(Debug, Clone, Copy)]
pub struct Source {
    /// Its path in `kernels/`.
    pub path: &'static str,
    /// What it exports.
    pub kernels: &'static [Kernel],
}

/// A kernel for each element type.
macro_rules! kernels {
    ($($name:literal),* $(,)?) => {
        &[$(
            Kernel { symbol: concat!($name, "_f32"), spill_free: true },
            Kernel { symbol: concat!($name, "_f16"), spill_free: true },
            Kernel { symbol: concat!($name, "_bf16"), spill_free: true },
        )*]
    };
}

/// All sources.
pub const SOURCES: &[Source] = &[
    Source {
        path: "attention/backward_key.cu",
        kernels: kernels![
            "attention_backward_key_32",
            "attention_backward_key_64",
            "attention_backward_key_80",
            "attention_backward_key_96",
            "attention_backward_key_128",
        ],
    },
    Source {
        path: "attention/backward_query.cu",
        kernels: kernels![
            "attention_delta",
            "attention_backward_query_32",
            "attention_backward_query_64",
            "attention_backward_query_80",
            "attention_backward_query_96",
            "attention_backward_query_128",
        ],
    },
    Source {
        path: "attention/forward.cu",
        kernels: kernels![
            "attention_forward_32",
            "attention_forward_64",
            "attention_forward_80",
            "attention_forward_96",
            "attention_forward_128",
        ],
    },
    Source { path: "norm/layer_norm.cu", kernels: kernels!["layer_norm_forward"] },
];
