//! Parameter structs of the kernels. Written by bindgen from `kernels/include/launch_params.h`:
//! change that, then run `cargo xtask build-kernels`.

/// Layer normalisation of x, or of x + residual: see norm/layer_norm.cu.
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct LayerNormForward {
    /// (rows, columns), rows x_stride elements apart.
    pub x: *const ::std::os::raw::c_void,
    /// (rows, columns), dense, or null.
    pub residual: *const ::std::os::raw::c_void,
    /// (columns).
    pub weight: *const ::std::os::raw::c_void,
    /// (columns).
    pub bias: *const ::std::os::raw::c_void,
    /// (rows, columns), dense.
    pub y: *mut ::std::os::raw::c_void,
    /// x + residual as it was normalised, (rows, columns), dense; null where not wanted.
    pub sum: *mut ::std::os::raw::c_void,
    /// Mean of each row, (rows), f32; null where no backward pass will come.
    pub mean: *mut f32,
    /// One over the standard deviation of each row, (rows), f32; null likewise.
    pub rstd: *mut f32,
    /// Distance between rows of x.
    pub x_stride: ::std::os::raw::c_longlong,
    /// Number of rows.
    pub rows: ::std::os::raw::c_longlong,
    /// Length of a row.
    pub columns: ::std::os::raw::c_int,
    /// Added to the variance.
    pub eps: f32,
}
unsafe impl super::Params for LayerNormForward {}

/// One slice of a site's map, in the table that CpReconstruct reads.
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct CpSlice {
    /// The frozen W, (out, in), rows weight_stride elements apart.
    pub weight: *const ::std::os::raw::c_void,
    /// W + delta, (out, in), rows effective_stride elements apart; no part of another slice's.
    pub effective: *mut ::std::os::raw::c_void,
    /// The slice's p (rank), or its core G (rank, rank), row-major; f32.
    pub modes: *const f32,
    /// Distance between rows of weight.
    pub weight_stride: ::std::os::raw::c_longlong,
    /// Distance between rows of effective.
    pub effective_stride: ::std::os::raw::c_longlong,
}
unsafe impl super::Params for CpSlice {}

/// Factors, and the slices (neighbours in the table) that share them.
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct CpPair {
    /// (in, rank), dense, f32.
    pub u: *const f32,
    /// (out, rank), dense, f32.
    pub v: *const f32,
    /// Width of the slices' inputs.
    pub input: ::std::os::raw::c_int,
    /// Width of the slices' outputs.
    pub output: ::std::os::raw::c_int,
    /// The first slice of the pair in the table.
    pub first_slice: ::std::os::raw::c_int,
    /// Number of the pair's slices.
    pub slices: ::std::os::raw::c_int,
    /// The first block that works on this pair.
    pub first_block: ::std::os::raw::c_int,
    /// How many slices a block takes, one after the other.
    pub slices_of_block: ::std::os::raw::c_int,
}
unsafe impl super::Params for CpPair {}

/// Effective weights of all slices of all sites: see cp/reconstruct.cu.
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct CpReconstruct {
    /// The table of slices, those of one pair behind each other.
    pub slices: *const CpSlice,
    /// The table of pairs, by first_block.
    pub pairs: *const CpPair,
    /// Weights of the components, (rank), f32; null for ones and with cores.
    pub lambda: *const f32,
    /// Number of pairs.
    pub pair_count: ::std::os::raw::c_int,
    /// Number of components.
    pub rank: ::std::os::raw::c_int,
}
unsafe impl super::Params for CpReconstruct {}

/// Gradients of one map's factors: see cp/factor_gradient.cu. Three launches take this struct.
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct CpFactorGradient {
    /// (tokens, in), rows x_stride elements apart.
    pub x: *const ::std::os::raw::c_void,
    /// (tokens, out), rows dy_stride elements apart.
    pub dy: *const ::std::os::raw::c_void,
    /// (in, rank), or (rank, in) where u_by_rank; dense.
    pub u: *const ::std::os::raw::c_void,
    /// (out, rank), or (rank, out) where v_by_rank; dense.
    pub v: *const ::std::os::raw::c_void,
    /// x U, (tokens, rank), dense, of the element type.
    pub z: *mut ::std::os::raw::c_void,
    /// dy V, (tokens, rank), dense, of the element type.
    pub g: *mut ::std::os::raw::c_void,
    /// Workspace: (splits, in + out, rank), f32.
    pub parts: *mut f32,
    /// Workspace: (blocks of tokens, rank), f32; null where dscale is.
    pub scale_parts: *mut f32,
    /// s of the slice, (rank), f32; null for ones.
    pub scale: *const f32,
    /// Gradient of u, in u's layout.
    pub du: *mut ::std::os::raw::c_void,
    /// Gradient of v, in v's layout.
    pub dv: *mut ::std::os::raw::c_void,
    /// Gradient of scale, (rank), f32; null where not wanted.
    pub dscale: *mut f32,
    /// Number of tokens.
    pub tokens: ::std::os::raw::c_longlong,
    /// Distance between rows of x.
    pub x_stride: ::std::os::raw::c_longlong,
    /// Distance between rows of dy.
    pub dy_stride: ::std::os::raw::c_longlong,
    /// Tokens that one split sums over.
    pub tokens_of_split: ::std::os::raw::c_longlong,
    /// Width of the map's input.
    pub input: ::std::os::raw::c_int,
    /// Width of the map's output.
    pub output: ::std::os::raw::c_int,
    /// Number of components.
    pub rank: ::std::os::raw::c_int,
    /// Number of splits.
    pub splits: ::std::os::raw::c_int,
    /// Number of blocks of tokens.
    pub token_blocks: ::std::os::raw::c_int,
    /// Whether u has its components as rows.
    pub u_by_rank: ::std::os::raw::c_int,
    /// Whether v has its components as rows.
    pub v_by_rank: ::std::os::raw::c_int,
    /// Whether u and v are f32, else they have the element type.
    pub factors_f32: ::std::os::raw::c_int,
    /// Whether du and dv are f32, else they have the element type.
    pub gradients_f32: ::std::os::raw::c_int,
    /// Whether du, dv and dscale are added to, else they are written.
    pub accumulate: ::std::os::raw::c_int,
}
unsafe impl super::Params for CpFactorGradient {}

/// y += (x A^T) B^T: see cp/apply.cu.
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct CpApply {
    /// (tokens, in), rows x_stride elements apart.
    pub x: *const ::std::os::raw::c_void,
    /// (rank, in), dense.
    pub a: *const ::std::os::raw::c_void,
    /// (out, rank), dense.
    pub b: *const ::std::os::raw::c_void,
    /// (tokens, out), rows y_stride elements apart; added to.
    pub y: *mut ::std::os::raw::c_void,
    /// Number of tokens.
    pub tokens: ::std::os::raw::c_longlong,
    /// Distance between rows of x.
    pub x_stride: ::std::os::raw::c_longlong,
    /// Distance between rows of y.
    pub y_stride: ::std::os::raw::c_longlong,
    /// Width of the map's input.
    pub input: ::std::os::raw::c_int,
    /// Width of the map's output.
    pub output: ::std::os::raw::c_int,
    /// Number of components.
    pub rank: ::std::os::raw::c_int,
    /// Outputs that one block makes, a multiple of 64.
    pub outputs_of_block: ::std::os::raw::c_int,
}
unsafe impl super::Params for CpApply {}
