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
/// Vectors of all heads, (batch, length, heads * head), the heads side by side in a row: queries,
/// keys, values, results, or their gradients.
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct AttentionRows {
    /// The first element; read or written as the field says that has it.
    pub data: *mut ::std::os::raw::c_void,
    /// Distance between batches.
    pub batch_stride: ::std::os::raw::c_longlong,
    /// Distance between the rows of a batch.
    pub row_stride: ::std::os::raw::c_longlong,
}
/// Sizes of an attention, and what is done to its scores:
/// factor * scale * (q . k) + mask, then keys out of sight are hidden.
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct AttentionScores {
    /// Added to the scores of each key, (queries, k_len), or null.
    pub mask: *const f32,
    /// Multiplies the dot products of each key, (queries, k_len), or null.
    pub scale: *const f32,
    /// Rows of queries, Bq.
    pub queries: ::std::os::raw::c_int,
    /// Rows of keys and values, Bk.
    pub keys: ::std::os::raw::c_int,
    /// Queries in a row, Tq.
    pub q_len: ::std::os::raw::c_int,
    /// Keys in a row, Tk.
    pub k_len: ::std::os::raw::c_int,
    /// Heads.
    pub heads: ::std::os::raw::c_int,
    /// Width of a head, as it lies in memory.
    pub head: ::std::os::raw::c_int,
    /// Whether query i sees only the keys up to i + k_len - q_len (not zero), or all (zero).
    pub causal: ::std::os::raw::c_int,
    /// Multiplies every dot product: one over the root of the width of a head.
    pub factor: f32,
}
/// See attention/forward.cu.
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct AttentionForward {
    /// Read: (Bq, Tq, heads * head).
    pub q: AttentionRows,
    /// Read: (Bk, Tk, heads * head).
    pub k: AttentionRows,
    /// Read: (Bk, Tk, heads * head).
    pub v: AttentionRows,
    /// Written: (Bq, Tq, heads * head).
    pub out: AttentionRows,
    /// The row of keys of each row of queries, (Bq), below Bk; null where each has its own.
    pub kv_rows: *const ::std::os::raw::c_uint,
    /// Logarithm of the sum of the exponentials of each query's scores, (Bq, heads, Tq), plus
    /// infinity for a query that sees no key; null where no backward pass will come.
    pub log_sums: *mut f32,
    /// Sizes and scores.
    pub scores: AttentionScores,
}
unsafe impl super::Params for AttentionForward {}
/// Sums of products of results and their gradients: see attention/backward_query.cu.
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct AttentionDelta {
    /// Read: (Bq, Tq, heads * head).
    pub out: AttentionRows,
    /// Read: (Bq, Tq, heads * head).
    pub dout: AttentionRows,
    /// Written: (Bq, heads, Tq).
    pub deltas: *mut f32,
    /// Rows of queries, Bq.
    pub queries: ::std::os::raw::c_int,
    /// Queries in a row, Tq.
    pub q_len: ::std::os::raw::c_int,
    /// Heads.
    pub heads: ::std::os::raw::c_int,
    /// Width of a head.
    pub head: ::std::os::raw::c_int,
}
unsafe impl super::Params for AttentionDelta {}
/// See attention/backward_query.cu and attention/backward_key.cu.
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct AttentionBackward {
    /// Read: (Bq, Tq, heads * head).
    pub q: AttentionRows,
    /// Read: (Bk, Tk, heads * head).
    pub k: AttentionRows,
    /// Read: (Bk, Tk, heads * head).
    pub v: AttentionRows,
    /// Read: gradient of the result, (Bq, Tq, heads * head).
    pub dout: AttentionRows,
    /// Written by backward_query: (Bq, Tq, heads * head).
    pub dq: AttentionRows,
    /// Written by backward_key where data is not null: (Bk, Tk, heads * head).
    pub dk: AttentionRows,
    /// Written by backward_key where data is not null: (Bk, Tk, heads * head).
    pub dv: AttentionRows,
    /// From the forward pass, (Bq, heads, Tq).
    pub log_sums: *const f32,
    /// From attention_delta, (Bq, heads, Tq).
    pub deltas: *const f32,
    /// The row of keys of each row of queries, (Bq); null where each has its own.
    pub kv_rows: *const ::std::os::raw::c_uint,
    /// Where in query_rows those of each row of keys begin and end, (Bk + 1); null with kv_rows.
    pub query_offsets: *const ::std::os::raw::c_uint,
    /// The rows of queries in the order of their rows of keys, (Bq); null with kv_rows.
    pub query_rows: *const ::std::os::raw::c_uint,
    /// Sizes and scores.
    pub scores: AttentionScores,
}
unsafe impl super::Params for AttentionBackward {}
