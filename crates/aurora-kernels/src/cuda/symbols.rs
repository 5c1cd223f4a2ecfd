//! Symbols of all kernels, by source.
//!
//! No dependencies: `cargo xtask build-kernels` reads this file as well, and holds the compiled symbols to it.

/// Exported kernel.
#[derive(Debug, Clone, Copy)]
pub struct Kernel {
    /// Its exported name: `<kernel>_<element type>`.
    pub symbol: &'static str,
    /// True if the compiler must not spill registers.
    pub spill_free: bool,
}

/// CUDA source with its kernels.
#[derive(Debug, Clone, Copy)]
pub struct Source {
    /// Path in `kernels/`.
    pub path: &'static str,
    /// Exported kernels.
    pub kernels: &'static [Kernel],
}

/// Kernels with one version per element type; after a semicolon, single ones.
macro_rules! kernels {
    ($($name:literal),* $(,)? $(; $($single:literal),*)?) => {
        &[$(
            Kernel { symbol: concat!($name, "_f32"), spill_free: true },
            Kernel { symbol: concat!($name, "_f16"), spill_free: true },
            Kernel { symbol: concat!($name, "_bf16"), spill_free: true },
        )* $($(Kernel { symbol: $single, spill_free: true },)*)?]
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
    Source { path: "cp/apply.cu", kernels: kernels!["cp_apply"] },
    Source {
        path: "cp/factor_gradient.cu",
        kernels: kernels!["cp_factor_project", "cp_factor_products", "cp_factor_finish"],
    },
    Source {
        path: "cp/reconstruct.cu",
        kernels: kernels!["cp_reconstruct", "cp_reconstruct_core"],
    },
    Source { path: "attention/gated_query.cu", kernels: GATED_QUERY },
    Source { path: "loss/soft_cross_entropy.cu", kernels: SOFT_CROSS_ENTROPY },
    Source {
        path: "norm/bias.cu",
        kernels: kernels!["add_bias", "column_sum", "column_sum_finish"],
    },
    Source {
        path: "norm/gelu.cu",
        kernels: kernels!["gelu_forward", "gelu_backward", "gelu_backward_columns"],
    },
    Source {
        path: "norm/layer_norm.cu",
        kernels: kernels![
            "layer_norm_forward",
            "layer_norm_backward",
            "layer_norm_backward_parameters",
        ],
    },
    Source { path: "optim/adamw.cu", kernels: kernels!["adamw"] },
    Source { path: "optim/moving_average.cu", kernels: kernels!["moving_average"] },
];

const GATED_QUERY: &[Kernel] = kernels![
    "gated_query_forward",
    "gated_query_backward",
    "gated_query_finish",
    "gated_query_gates",
];

const SOFT_CROSS_ENTROPY: &[Kernel] = kernels![
    "soft_cross_entropy_forward",
    "soft_cross_entropy_combine",
    "soft_cross_entropy_backward";
    "loss_mean_f32"
];
