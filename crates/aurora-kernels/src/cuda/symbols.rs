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
    Source { path: "cp/apply.cu", kernels: kernels!["cp_apply"] },
    Source {
        path: "cp/factor_gradient.cu",
        kernels: kernels!["cp_factor_project", "cp_factor_products", "cp_factor_finish"],
    },
    Source {
        path: "cp/reconstruct.cu",
        kernels: kernels!["cp_reconstruct", "cp_reconstruct_core"],
    },
    Source { path: "norm/layer_norm.cu", kernels: kernels!["layer_norm_forward"] },
];
