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
/// Gradient of x and residual of a layer normalisation: see norm/layer_norm.cu.
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct LayerNormBackward {
    /// What was normalised, (rows, columns), rows x_stride elements apart: x, or sum.
    pub x: *const ::std::os::raw::c_void,
    /// (columns).
    pub weight: *const ::std::os::raw::c_void,
    /// Gradient of y, (rows, columns), dense.
    pub dy: *const ::std::os::raw::c_void,
    /// Gradient that comes to sum by other ways, (rows, columns), dense, or null.
    pub dsum: *const ::std::os::raw::c_void,
    /// As the forward pass wrote it, (rows), f32.
    pub mean: *const f32,
    /// Likewise.
    pub rstd: *const f32,
    /// Gradient of x and of residual, (rows, columns), dense.
    pub dx: *mut ::std::os::raw::c_void,
    /// Distance between rows of x.
    pub x_stride: ::std::os::raw::c_longlong,
    /// Number of rows.
    pub rows: ::std::os::raw::c_longlong,
    /// Length of a row.
    pub columns: ::std::os::raw::c_int,
    /// Nothing: for the size.
    pub unused: ::std::os::raw::c_int,
}
unsafe impl super::Params for LayerNormBackward {}
/// Gradients of weight and bias of a layer normalisation, part by part: see norm/layer_norm.cu.
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct LayerNormParameters {
    /// What was normalised, (rows, columns), rows x_stride elements apart: x, or sum.
    pub x: *const ::std::os::raw::c_void,
    /// Gradient of y, (rows, columns), dense.
    pub dy: *const ::std::os::raw::c_void,
    /// As the forward pass wrote it, (rows), f32.
    pub mean: *const f32,
    /// Likewise.
    pub rstd: *const f32,
    /// Sums for weight and bias over each part's rows, (parts, 2, columns), f32.
    pub partial: *mut f32,
    /// Distance between rows of x.
    pub x_stride: ::std::os::raw::c_longlong,
    /// Number of rows.
    pub rows: ::std::os::raw::c_longlong,
    /// Length of a row.
    pub columns: ::std::os::raw::c_int,
    /// Rows that one block adds up.
    pub rows_of_part: ::std::os::raw::c_int,
}
unsafe impl super::Params for LayerNormParameters {}
/// y += bias: see norm/bias.cu.
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct AddBias {
    /// (rows, columns), dense, changed in place.
    pub y: *mut ::std::os::raw::c_void,
    /// (columns).
    pub bias: *const ::std::os::raw::c_void,
    /// Elements of y.
    pub count: ::std::os::raw::c_longlong,
    /// Length of a row.
    pub columns: ::std::os::raw::c_int,
    /// Nothing: for the size.
    pub unused: ::std::os::raw::c_int,
}
unsafe impl super::Params for AddBias {}
/// Sums over the rows of each part, column by column: see norm/bias.cu.
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct ColumnSum {
    /// (rows, columns), rows x_stride elements apart.
    pub x: *const ::std::os::raw::c_void,
    /// (parts, columns), f32.
    pub partial: *mut f32,
    /// Distance between rows of x.
    pub x_stride: ::std::os::raw::c_longlong,
    /// Number of rows.
    pub rows: ::std::os::raw::c_longlong,
    /// Length of a row.
    pub columns: ::std::os::raw::c_int,
    /// Rows that one block adds up.
    pub rows_of_part: ::std::os::raw::c_int,
}
unsafe impl super::Params for ColumnSum {}
/// Sums over parts: see norm/bias.cu.
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct ColumnSumFinish {
    /// (parts, sums, columns), f32.
    pub partial: *const f32,
    /// Each (columns), or null; the first `sums` count.
    pub out: [*mut ::std::os::raw::c_void; 2usize],
    /// Number of parts.
    pub parts: ::std::os::raw::c_int,
    /// Sums of each column: 1 or 2.
    pub sums: ::std::os::raw::c_int,
    /// Length of a row.
    pub columns: ::std::os::raw::c_int,
    /// Nothing: for the size.
    pub unused: ::std::os::raw::c_int,
}
unsafe impl super::Params for ColumnSumFinish {}
/// y = u Phi(u), u = x + bias: see norm/gelu.cu.
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct GeluForward {
    /// (rows, columns), dense.
    pub x: *const ::std::os::raw::c_void,
    /// (columns), or null.
    pub bias: *const ::std::os::raw::c_void,
    /// (rows, columns), dense.
    pub y: *mut ::std::os::raw::c_void,
    /// Elements of x.
    pub count: ::std::os::raw::c_longlong,
    /// Length of a row; without bias of no meaning.
    pub columns: ::std::os::raw::c_int,
    /// Nothing: for the size.
    pub unused: ::std::os::raw::c_int,
}
unsafe impl super::Params for GeluForward {}
/// Gradient of x, and of bias part by part: see norm/gelu.cu.
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct GeluBackward {
    /// (rows, columns), dense.
    pub x: *const ::std::os::raw::c_void,
    /// (columns), or null.
    pub bias: *const ::std::os::raw::c_void,
    /// Gradient of y, (rows, columns), dense.
    pub dy: *const ::std::os::raw::c_void,
    /// (rows, columns), dense.
    pub dx: *mut ::std::os::raw::c_void,
    /// Sums of dx over each part's rows, (parts, columns), f32; for the kernel with columns only.
    pub partial: *mut f32,
    /// Elements of x.
    pub count: ::std::os::raw::c_longlong,
    /// Length of a row; without bias of no meaning.
    pub columns: ::std::os::raw::c_int,
    /// Rows that one block adds up; for the kernel with columns only.
    pub rows_of_part: ::std::os::raw::c_int,
}
unsafe impl super::Params for GeluBackward {}
/// Gated query transformation: see attention/gated_query.cu.
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct GatedQueryForward {
    /// (rows, columns), dense.
    pub ffn: *const ::std::os::raw::c_void,
    /// (rows, columns), dense.
    pub h_self: *const ::std::os::raw::c_void,
    /// (rows, columns), dense.
    pub h_cross: *const ::std::os::raw::c_void,
    /// (columns).
    pub scale_self: *const ::std::os::raw::c_void,
    /// (columns).
    pub shift_self: *const ::std::os::raw::c_void,
    /// (columns).
    pub scale_cross: *const ::std::os::raw::c_void,
    /// (columns).
    pub shift_cross: *const ::std::os::raw::c_void,
    /// a of the gate tanh(a), (1); null where the gate is constant.
    pub gate_self: *const ::std::os::raw::c_void,
    /// Likewise.
    pub gate_cross: *const ::std::os::raw::c_void,
    /// (rows, columns), dense.
    pub out: *mut ::std::os::raw::c_void,
    /// Number of rows.
    pub rows: ::std::os::raw::c_longlong,
    /// Length of a row.
    pub columns: ::std::os::raw::c_int,
    /// Rows of one block.
    pub rows_of_part: ::std::os::raw::c_int,
    /// The gate where a is null.
    pub constant: f32,
    /// Nothing: for the size.
    pub unused: ::std::os::raw::c_int,
}
unsafe impl super::Params for GatedQueryForward {}
/// Its backward pass over rows: see attention/gated_query.cu.
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct GatedQueryBackward {
    /// Gradient of out, (rows, columns), dense.
    pub dout: *const ::std::os::raw::c_void,
    /// (rows, columns), dense; not read without partial.
    pub h_self: *const ::std::os::raw::c_void,
    /// Likewise.
    pub h_cross: *const ::std::os::raw::c_void,
    /// (columns).
    pub scale_self: *const ::std::os::raw::c_void,
    /// (columns).
    pub scale_cross: *const ::std::os::raw::c_void,
    /// a of the gate tanh(a), (1); null where the gate is constant.
    pub gate_self: *const ::std::os::raw::c_void,
    /// Likewise.
    pub gate_cross: *const ::std::os::raw::c_void,
    /// (rows, columns), dense, or null.
    pub dh_self: *mut ::std::os::raw::c_void,
    /// Likewise.
    pub dh_cross: *mut ::std::os::raw::c_void,
    /// Sums of dout h_self, dout h_cross and dout over each part's rows, (parts, 3, columns), f32; null where no vector and no gate has a gradient.
    pub partial: *mut f32,
    /// Number of rows.
    pub rows: ::std::os::raw::c_longlong,
    /// Length of a row.
    pub columns: ::std::os::raw::c_int,
    /// Rows of one block.
    pub rows_of_part: ::std::os::raw::c_int,
    /// The gate where a is null.
    pub constant: f32,
    /// Nothing: for the size.
    pub unused: ::std::os::raw::c_int,
}
unsafe impl super::Params for GatedQueryBackward {}
/// Gradients of its vectors: see attention/gated_query.cu.
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct GatedQueryFinish {
    /// (parts, 3, columns), f32.
    pub partial: *const f32,
    /// partial added up, (3, columns), f32; null where no gate has a gradient.
    pub sums: *mut f32,
    /// a of the gate tanh(a), (1); null where the gate is constant.
    pub gate_self: *const ::std::os::raw::c_void,
    /// Likewise.
    pub gate_cross: *const ::std::os::raw::c_void,
    /// (columns), or null.
    pub dscale_self: *mut ::std::os::raw::c_void,
    /// Likewise.
    pub dshift_self: *mut ::std::os::raw::c_void,
    /// Likewise.
    pub dscale_cross: *mut ::std::os::raw::c_void,
    /// Likewise.
    pub dshift_cross: *mut ::std::os::raw::c_void,
    /// Number of parts.
    pub parts: ::std::os::raw::c_int,
    /// Length of a row.
    pub columns: ::std::os::raw::c_int,
    /// The gate where a is null.
    pub constant: f32,
    /// Nothing: for the size.
    pub unused: ::std::os::raw::c_int,
}
unsafe impl super::Params for GatedQueryFinish {}
/// Gradients of its gates: see attention/gated_query.cu.
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct GatedQueryGates {
    /// (3, columns), f32.
    pub sums: *const f32,
    /// (columns).
    pub scale_self: *const ::std::os::raw::c_void,
    /// (columns).
    pub shift_self: *const ::std::os::raw::c_void,
    /// (columns).
    pub scale_cross: *const ::std::os::raw::c_void,
    /// (columns).
    pub shift_cross: *const ::std::os::raw::c_void,
    /// a of the gate tanh(a), (1).
    pub gate_self: *const ::std::os::raw::c_void,
    /// Likewise.
    pub gate_cross: *const ::std::os::raw::c_void,
    /// (1), or null.
    pub dgate_self: *mut ::std::os::raw::c_void,
    /// Likewise.
    pub dgate_cross: *mut ::std::os::raw::c_void,
    /// Length of a row.
    pub columns: ::std::os::raw::c_int,
    /// Nothing: for the size.
    pub unused: ::std::os::raw::c_int,
}
unsafe impl super::Params for GatedQueryGates {}
/// A tensor and what AdamW does to it in this step: an element of an array in device memory. See optim/adamw.cu.
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct AdamWTensor {
    /// (length), f32, changed in place.
    pub parameter: *mut f32,
    /// (length), of the kernel's element type.
    pub gradient: *const ::std::os::raw::c_void,
    /// Running mean of the gradient, (length), f32, changed in place.
    pub first: *mut f32,
    /// Running mean of its square, likewise.
    pub second: *mut f32,
    /// Number of elements.
    pub length: ::std::os::raw::c_longlong,
    /// Block of the launch that has its first elements.
    pub first_block: ::std::os::raw::c_int,
    /// 1 - rate decay.
    pub shrink: f32,
    /// 1 - beta1.
    pub blend1: f32,
    /// beta2.
    pub beta2: f32,
    /// 1 - beta2.
    pub blend2: f32,
    /// sqrt(1 - beta2^t).
    pub root_correction2: f32,
    /// Added to the root.
    pub eps: f32,
    /// rate / (1 - beta1^t).
    pub step_size: f32,
}
unsafe impl super::Params for AdamWTensor {}
/// A step of AdamW: see optim/adamw.cu.
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct AdamW {
    /// In device memory.
    pub tensors: *const AdamWTensor,
    /// Which of them a block is for, (blocks), in device memory.
    pub tensor_of_block: *const ::std::os::raw::c_int,
}
unsafe impl super::Params for AdamW {}
/// A tensor and its moving average: an element of an array in device memory. See optim/moving_average.cu.
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct AveragedTensor {
    /// (length), f32, changed in place.
    pub average: *mut f32,
    /// (length), of the kernel's element type.
    pub live: *const ::std::os::raw::c_void,
    /// Number of elements.
    pub length: ::std::os::raw::c_longlong,
    /// Block of the launch that has its first elements.
    pub first_block: ::std::os::raw::c_int,
    /// Nothing: for the size.
    pub unused: ::std::os::raw::c_int,
}
unsafe impl super::Params for AveragedTensor {}
/// A step of all moving averages: see optim/moving_average.cu.
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct MovingAverage {
    /// In device memory.
    pub tensors: *const AveragedTensor,
    /// Which of them a block is for, (blocks), in device memory.
    pub tensor_of_block: *const ::std::os::raw::c_int,
    /// Share of the average that stays.
    pub decay: f32,
    /// 1 - decay.
    pub rest: f32,
}
unsafe impl super::Params for MovingAverage {}
/// Cross-entropy of rows of logits: see loss/soft_cross_entropy.cu.
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct SoftCrossEntropyForward {
    /// (rows, classes), rows logits_stride elements apart.
    pub logits: *const ::std::os::raw::c_void,
    /// (rows, classes), rows targets_stride elements apart; not read where there are labels.
    pub targets: *const ::std::os::raw::c_void,
    /// (rows), or null.
    pub labels: *const ::std::os::raw::c_uint,
    /// (rows, slices, 4), f32; null where a row is one slice.
    pub partial: *mut f32,
    /// (rows), f32.
    pub loss: *mut f32,
    /// (rows), f32.
    pub log_sum: *mut f32,
    /// Sum of each row's targets, (rows), f32, or null.
    pub weight: *mut f32,
    /// Distance between rows of logits.
    pub logits_stride: ::std::os::raw::c_longlong,
    /// Distance between rows of targets.
    pub targets_stride: ::std::os::raw::c_longlong,
    /// Number of rows.
    pub rows: ::std::os::raw::c_longlong,
    /// Length of a row.
    pub classes: ::std::os::raw::c_int,
    /// Blocks of a row.
    pub slices: ::std::os::raw::c_int,
    /// Classes of a slice; the last may have fewer.
    pub slice_length: ::std::os::raw::c_int,
    /// Share of a label's weight that goes to all classes alike.
    pub smoothing: f32,
}
unsafe impl super::Params for SoftCrossEntropyForward {}
/// Its gradient: see loss/soft_cross_entropy.cu.
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct SoftCrossEntropyBackward {
    /// (rows, classes), rows logits_stride elements apart.
    pub logits: *const ::std::os::raw::c_void,
    /// (rows, classes), rows targets_stride elements apart; not read where there are labels.
    pub targets: *const ::std::os::raw::c_void,
    /// (rows), or null.
    pub labels: *const ::std::os::raw::c_uint,
    /// As the forward pass wrote it, (rows), f32.
    pub log_sum: *const f32,
    /// Likewise; not read where there are labels.
    pub weight: *const f32,
    /// Gradient of each row's loss, dloss_stride apart, f32.
    pub dloss: *const f32,
    /// (rows, classes), dense.
    pub dlogits: *mut ::std::os::raw::c_void,
    /// Distance between rows of logits.
    pub logits_stride: ::std::os::raw::c_longlong,
    /// Distance between rows of targets.
    pub targets_stride: ::std::os::raw::c_longlong,
    /// Distance between gradients of losses: 0 where all rows have one.
    pub dloss_stride: ::std::os::raw::c_longlong,
    /// Length of a row.
    pub classes: ::std::os::raw::c_int,
    /// Blocks of a row.
    pub slices: ::std::os::raw::c_int,
    /// Classes of a slice; the last may have fewer.
    pub slice_length: ::std::os::raw::c_int,
    /// Share of a label's weight that goes to all classes alike.
    pub smoothing: f32,
    /// Factor of dloss.
    pub scale: f32,
    /// Nothing: for the size.
    pub unused: ::std::os::raw::c_int,
}
unsafe impl super::Params for SoftCrossEntropyBackward {}
/// Mean of losses: see loss/soft_cross_entropy.cu.
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct LossMean {
    /// (rows), f32.
    pub loss: *const f32,
    /// (1), f32.
    pub mean: *mut f32,
    /// Number of rows.
    pub rows: ::std::os::raw::c_longlong,
}
unsafe impl super::Params for LossMean {}
