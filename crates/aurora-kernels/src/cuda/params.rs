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
