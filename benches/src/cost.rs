//! Cost model: operations and bytes of each case by formula, the one place where they are declared.
//!
//! *Operations* are additions and multiplications, each for one; an exponential, a logarithm, an error function, a
//! root or a quotient counts as one too. Bookkeeping that is small beside the matmuls (a softmax beside its scores) is
//! left out. *Bytes* are what has to be read and written once, however good the kernel: every operand and every result
//! at its element size, a pass at a time. What a kernel writes for itself and reads again is not counted, so a share
//! of the roofline says how far it is from a kernel that needs nothing of the kind.

use std::ops::{Add, Mul};

/// Bytes of an f32: of sums, gradients of factors and optimizer state, whatever the tensors are stored as.
const F32: u64 = 4;

/// Cost of one run of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cost {
    /// Additions and multiplications.
    pub operations: u64,
    /// Bytes read and written.
    pub bytes: u64,
}

impl Add for Cost {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self { operations: self.operations + other.operations, bytes: self.bytes + other.bytes }
    }
}

impl Mul<u64> for Cost {
    type Output = Self;
    fn mul(self, times: u64) -> Self {
        Self { operations: self.operations * times, bytes: self.bytes * times }
    }
}

/// Shape of a linear layer over a number of tokens, with the rank of its delta.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinearShape {
    /// Rows of x, T.
    pub tokens: u64,
    /// Width of x.
    pub input: u64,
    /// Width of y.
    pub output: u64,
    /// Components of the delta, R.
    pub rank: u64,
}

impl LinearShape {
    fn weight(self) -> u64 {
        self.input * self.output
    }

    fn sides(self) -> u64 {
        self.input + self.output
    }

    /// GEMM `y = x W^T`: x and W read, y written. Its gradient `dx = dy W` costs the same.
    pub fn product(self, element: u64) -> Cost {
        let elements = self.tokens * self.sides() + self.weight();
        Cost { operations: 2 * self.tokens * self.weight(), bytes: element * elements }
    }

    /// Linear layer `y = x W^T + b`.
    pub fn linear(self, element: u64) -> Cost {
        let bias = Cost { operations: self.tokens * self.output, bytes: element * self.output };
        self.product(element) + bias
    }

    /// Linear layer with GELU, `gelu(x W^T + b)`: 4 operations more for each output, nothing more moved.
    pub fn linear_gelu(self, element: u64) -> Cost {
        let gelu =
            Cost { operations: gelu(self.tokens * self.output, element).operations, bytes: 0 };
        self.linear(element) + gelu
    }

    /// Linear layer with residual, `x W^T + b + r`: r read, and an addition for each output.
    pub fn linear_residual(self, element: u64) -> Cost {
        let outputs = self.tokens * self.output;
        self.linear(element) + Cost { operations: outputs, bytes: element * outputs }
    }

    /// Merged weight `W + B A`: W, A and B read, the sum written.
    pub fn reconstruct(self, element: u64) -> Cost {
        let elements = 2 * self.weight() + self.rank * self.sides();
        Cost { operations: 2 * self.rank * self.weight(), bytes: element * elements }
    }

    /// Linear layer with an unmerged delta, `y = x W^T + (x A^T) B^T + b`: the low-rank part beside the frozen GEMM.
    pub fn apply(self, element: u64) -> Cost {
        let low_rank = Cost {
            operations: 2 * self.tokens * self.rank * self.sides(),
            bytes: element * self.rank * self.sides(),
        };
        self.linear(element) + low_rank
    }

    /// Low-rank update `y += (x A^T) B^T` alone: x, A and B read, y read and written.
    pub fn low_rank(self, element: u64) -> Cost {
        let elements = self.tokens * (self.input + 2 * self.output) + self.rank * self.sides();
        Cost { operations: 2 * self.tokens * self.rank * self.sides(), bytes: element * elements }
    }

    /// Gradients of the factors, `z = x A^T`, `g = dy B`, `dA = g^T x`, `dB = dy^T z`: x, dy, A and B read, gradients
    /// written as f32.
    pub fn factor_gradient(self, element: u64) -> Cost {
        let read = (self.tokens + self.rank) * self.sides();
        Cost {
            operations: 4 * self.tokens * self.rank * self.sides(),
            bytes: element * read + F32 * self.rank * self.sides(),
        }
    }
}

/// Shape of the gated CP delta over all slices of a model, `W_n + V diag(s_n) U^T` (arXiv:2305.08381).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlicesShape {
    /// Number of slices, N.
    pub slices: u64,
    /// Width of each side of a slice.
    pub width: u64,
    /// Components, R.
    pub rank: u64,
}

impl SlicesShape {
    /// Reconstruction of every slice: its weight read and written, V scaled by s; U, V and s once for all.
    pub fn reconstruct(self, element: u64) -> Cost {
        let Self { slices, width, rank } = self;
        let weights = 2 * slices * width * width;
        let factors = rank * (2 * width + slices + 1);
        Cost {
            operations: weights * rank + slices * rank * (width + 1),
            bytes: element * weights + F32 * factors,
        }
    }
}

impl SlicesShape {
    /// Khatri-Rao product of the scales and one factor: both read, the product written.
    pub fn khatri_rao(self, element: u64) -> Cost {
        let Self { slices, width, rank } = self;
        let operations = slices * width * rank;
        Cost { operations, bytes: element * (operations + rank * (width + slices)) }
    }

    /// Gradients of the Khatri-Rao product: that of the product and both factors read, both of theirs written.
    pub fn khatri_rao_backward(self, element: u64) -> Cost {
        let Self { slices, width, rank } = self;
        let product = slices * width * rank;
        Cost { operations: 4 * product, bytes: element * (product + 2 * rank * (width + slices)) }
    }
}

/// Shape of a multi-head attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttentionShape {
    /// Rows of queries, Bq.
    pub queries: u64,
    /// Rows of keys and values, Bk.
    pub keys: u64,
    /// Queries in a row.
    pub q_len: u64,
    /// Keys in a row.
    pub k_len: u64,
    /// Width of all heads together, D.
    pub width: u64,
}

impl AttentionShape {
    fn product(self) -> u64 {
        2 * self.queries * self.q_len * self.k_len * self.width
    }

    fn query_side(self) -> u64 {
        self.queries * self.q_len * self.width
    }

    fn key_side(self) -> u64 {
        self.keys * self.k_len * self.width
    }

    /// Attention forward, two matmuls: q, k and v read, the output written.
    pub fn forward(self, element: u64) -> Cost {
        let elements = 2 * self.query_side() + 2 * self.key_side();
        Cost { operations: 2 * self.product(), bytes: element * elements }
    }

    /// Bytes of cross-attention from states that keys and values would be projected from: q, states, the key and value
    /// projections (the latter with its bias) read, the output written.
    fn mapped_bytes(self, element: u64) -> u64 {
        let maps = 2 * self.width * self.width + self.width;
        element * (2 * self.query_side() + self.key_side() + maps)
    }

    /// Cross-attention with keys and values formed: two projections of the states, then attention.
    pub fn formed(self, element: u64) -> Cost {
        let maps = 4 * self.keys * self.k_len * self.width * self.width;
        let operations = maps + self.keys * self.k_len * self.width + 2 * self.product();
        Cost { operations, bytes: self.mapped_bytes(element) }
    }

    /// Cross-attention with absorbed projections: each query times a head's part of both, for `heads` heads, and the
    /// states by themselves as keys and values of every head.
    pub fn absorbed(self, heads: u64, element: u64) -> Cost {
        let queries = self.queries * self.q_len;
        let maps = 4 * queries * self.width * self.width + queries * self.width;
        let operations = maps + heads * 2 * self.product();
        Cost { operations, bytes: self.mapped_bytes(element) }
    }

    /// Attention backward, five matmuls, one of them the scores again (Dao et al. 2022, arXiv:2205.14135): q, k, v,
    /// output and its gradient read, three gradients written.
    pub fn backward(self, element: u64) -> Cost {
        let elements = 4 * self.query_side() + 4 * self.key_side();
        Cost { operations: 5 * self.product(), bytes: element * elements }
    }
}

/// Layer normalization of `rows` rows: 8 operations an element (sum, variance, scale and shift).
pub fn layer_norm(rows: u64, width: u64, element: u64) -> Cost {
    let all = rows * width;
    Cost { operations: 8 * all, bytes: element * (2 * all + 2 * width) }
}

/// Gradient of layer normalization for x: 4 operations an element for the moments again, 10 for the rest; x and dy
/// read, dx written.
pub fn layer_norm_backward(rows: u64, width: u64, element: u64) -> Cost {
    let all = rows * width;
    Cost { operations: 14 * all, bytes: element * (3 * all + width) }
}

/// GELU, `x Phi(x)`: 4 operations an element.
pub fn gelu(elements: u64, element: u64) -> Cost {
    Cost { operations: 4 * elements, bytes: 2 * element * elements }
}

/// Gradient of GELU, `dy (Phi(x) + x phi(x))`: 9 operations an element; x and dy read, dx written.
pub fn gelu_backward(elements: u64, element: u64) -> Cost {
    Cost { operations: 9 * elements, bytes: 3 * element * elements }
}

/// Gated query transformation: two scaled and shifted branches added to the output; three tensors read, one written.
pub fn gate(rows: u64, width: u64, element: u64) -> Cost {
    let all = rows * width;
    Cost { operations: 6 * all, bytes: element * (4 * all + 4 * width) }
}

/// Gradients of the gated query transformation for both branches, their scales, shifts and gates: three tensors read,
/// two written.
pub fn gate_backward(rows: u64, width: u64, element: u64) -> Cost {
    let all = rows * width;
    Cost { operations: 8 * all, bytes: element * (5 * all + 8 * width) }
}

/// Soft-target cross-entropy: 6 operations an element (largest, difference, exponential, sum, product with the
/// target, sum); logits and targets read, a number for each row written.
pub fn cross_entropy(rows: u64, classes: u64, element: u64) -> Cost {
    let all = rows * classes;
    Cost { operations: 6 * all, bytes: 2 * element * all + F32 * rows }
}

/// Gradient of the soft-target cross-entropy for the logits: 5 operations an element; logits and targets read, the
/// gradient written.
pub fn cross_entropy_backward(rows: u64, classes: u64, element: u64) -> Cost {
    let all = rows * classes;
    Cost { operations: 5 * all, bytes: 3 * element * all + F32 * rows }
}

/// AdamW over `values` f32 values: 14 operations each; parameter and two moments read and written, the gradient read.
pub fn adamw(values: u64) -> Cost {
    Cost { operations: 14 * values, bytes: 7 * F32 * values }
}

/// Moving average over `values` f32 values: 3 operations each; the average read and written, the online value read.
pub fn moving_average(values: u64) -> Cost {
    Cost { operations: 3 * values, bytes: 3 * F32 * values }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: LinearShape = LinearShape { tokens: 10, input: 3, output: 5, rank: 2 };

    #[test]
    fn a_linear_map_computes_2_t_in_out_and_moves_both_sides_and_the_weight() {
        assert_eq!(
            SHAPE.product(4),
            Cost { operations: 2 * 10 * 3 * 5, bytes: 4 * (30 + 50 + 15) }
        );
        assert_eq!(SHAPE.product(2).bytes * 2, SHAPE.product(4).bytes);
        let bias = Cost { operations: 50, bytes: 20 };
        assert_eq!(SHAPE.linear(4), SHAPE.product(4) + bias);
        let gelu = Cost { operations: 200, bytes: 0 };
        assert_eq!(SHAPE.linear_gelu(4), SHAPE.linear(4) + gelu);
        let residual = Cost { operations: 50, bytes: 200 };
        assert_eq!(SHAPE.linear_residual(4), SHAPE.linear(4) + residual);
    }

    #[test]
    fn a_delta_costs_what_the_derivation_says() {
        // docs/math/cp.md, "What it costs".
        assert_eq!(SHAPE.apply(4).operations, SHAPE.linear(4).operations + 2 * 10 * 2 * 8);
        assert_eq!(
            SHAPE.low_rank(4).operations + SHAPE.linear(4).operations,
            SHAPE.apply(4).operations
        );
        assert_eq!(SHAPE.low_rank(2).bytes, 2 * (10 * 13 + 16));
        assert_eq!(SHAPE.reconstruct(4).operations, 2 * 2 * 15);
        assert_eq!(SHAPE.factor_gradient(4).operations, 2 * (2 * 10 * 2 * 8));
        assert_eq!(SHAPE.factor_gradient(2).bytes, 2 * (80 + 16) + 4 * 16);
    }

    #[test]
    fn every_slice_of_blip_base_is_a_gigabyte_and_11_gflop_for_vision() {
        let all = SlicesShape { slices: 216, width: 768, rank: 64 };
        assert_eq!(all.reconstruct(4).bytes, 1_019_215_872 + 4 * 64 * (1536 + 217));
        let vision = SlicesShape { slices: 144, ..all };
        let products = vision.reconstruct(4).operations - 144 * 64 * 769;
        assert_eq!(products, 2 * 144 * 768 * 768 * 64); // 1.09e10
    }

    #[test]
    fn an_attention_is_two_products_forward_and_five_back() {
        let shape = AttentionShape { queries: 6, keys: 2, q_len: 3, k_len: 4, width: 8 };
        let product = 2 * 6 * 3 * 4 * 8;
        assert_eq!(
            shape.forward(2),
            Cost { operations: 2 * product, bytes: 2 * 2 * (6 * 3 * 8 + 2 * 4 * 8) }
        );
        // crates/aurora-kernels/src/absorbed_attention.rs: 4 H Tq Tk D and 4 Tq D D for each row of queries.
        let maps = 6 * (4 * 3 * 8 * 8 + 3 * 8);
        assert_eq!(shape.absorbed(2, 4).operations, 2 * 2 * product + maps);
        assert_eq!(shape.formed(4).operations, 2 * product + 2 * (4 * 4 * 8 * 8 + 4 * 8));
        assert_eq!(shape.absorbed(2, 4).bytes, 4 * (2 * 6 * 3 * 8 + 2 * 4 * 8 + 2 * 64 + 8));
        assert_eq!(shape.formed(4).bytes, shape.absorbed(2, 4).bytes);
        assert_eq!(shape.backward(2).operations, 5 * product);
        assert_eq!(shape.backward(2).bytes, 2 * shape.forward(2).bytes);
    }

    #[test]
    fn what_memory_bounds_moves_each_tensor_once() {
        assert_eq!(layer_norm(7, 16, 4).bytes, 4 * (2 * 7 * 16 + 32));
        assert_eq!(layer_norm_backward(7, 16, 4).bytes, 4 * (3 * 7 * 16 + 16));
        assert_eq!((gelu(9, 2).bytes, gelu_backward(9, 2).bytes), (36, 54));
        assert_eq!(gate(5, 8, 4).bytes, 4 * (4 * 40 + 32));
        assert_eq!(gate_backward(5, 8, 4).bytes, 4 * (5 * 40 + 64));
        assert_eq!(cross_entropy(2, 50, 4).bytes, 2 * 400 + 8);
        assert_eq!(cross_entropy_backward(2, 50, 4).bytes, 3 * 400 + 8);
        assert_eq!((adamw(10).bytes, moving_average(10).bytes), (280, 120));
    }

    #[test]
    fn costs_add_up() {
        let one = Cost { operations: 2, bytes: 3 };
        assert_eq!(one + one, one * 2);
    }
}
