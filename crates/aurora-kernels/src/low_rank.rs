//! Linear layers with a low-rank delta (LoRA, Hu et al. 2021, arXiv:2106.09685), the form that the adapters of this
//! project take.

use std::sync::OnceLock;

#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, TensorId};

use crate::Error;
#[cfg(feature = "cuda")]
use crate::cuda::bridge;
use crate::epilogue::{Epilogue, EpilogueState};
use crate::float::Float;
use crate::gemm::Matrix;
use crate::linear::{add_assign, check, linear_with, matmul, matmul_dual, output_shape, strided};
use crate::precision::Precision;
use crate::tape::apply3;
use crate::view::{Rows, by_element, check_like, cpu, on_gpu, tensor_from_vec};

const OP: &str = "adapted_linear";

/// Cost of forming a merged weight on the CPU, with its multiplications as 1: it is read and written in full.
/// Measured; a linear layer of BLIP-base breaks even at 2,300 tokens.
const MERGE_COST: usize = 6;

/// Computation mode of [`adapted_linear`]. Both ways give the same result up to rounding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeltaMode {
    /// The cheaper mode for the number of tokens at hand.
    #[default]
    Auto,
    /// Application: `x W^T + (x A^T) B^T`, two narrow matmuls more per token.
    Apply,
    /// Reconstruction: `x (W + B A)^T`, the merged weight formed once per [`LowRank`], however often it is used.
    Reconstruct,
}

/// Low-rank delta `B A` of a linear layer, from `a` (rank, in) and `b` (out, rank): the layout of LoRA
/// (arXiv:2106.09685).
///
/// One value holds one state of the factors, say of one training step: the merged weight `W + B A` is formed when
/// first needed and kept for all later uses of the value.
#[derive(Debug)]
pub struct LowRank {
    a: Tensor,
    b: Tensor,
    /// Merged weight, with the id of its frozen weight.
    merged: OnceLock<(TensorId, Tensor)>,
}

impl LowRank {
    /// Low-rank delta from its two factors, `a` (rank, in) and `b` (out, rank).
    ///
    /// # Errors
    /// Factors that are not matrices, or differ in rank or element type.
    pub fn new(a: Tensor, b: Tensor) -> Result<Self> {
        check_like("LowRank::new", "b", &b, &a)?;
        if a.rank() != 2 || b.rank() != 2 || a.dims().first() != b.dims().last() {
            return Err(Error::Shape {
                op: "LowRank::new",
                left: "a",
                left_shape: a.dims().to_vec(),
                right: "b",
                right_shape: b.dims().to_vec(),
                rule: "a is (rank, in), b is (out, rank)",
            }
            .into());
        }
        Ok(Self { a, b, merged: OnceLock::new() })
    }

    /// Input-side factor A, (rank, in).
    pub fn a(&self) -> &Tensor {
        &self.a
    }

    /// Output-side factor B, (out, rank).
    pub fn b(&self) -> &Tensor {
        &self.b
    }

    /// Rank: the number of components.
    pub fn rank(&self) -> usize {
        self.a.dims().first().copied().unwrap_or(0)
    }

    /// Merged weight `weight + B A`, (out, in), without a graph. Formed at the first call and kept; a call with
    /// another weight than the first forms its own.
    ///
    /// # Errors
    /// A weight of another shape or element type.
    pub fn merged_weight(&self, weight: &Tensor) -> Result<Tensor> {
        self.check(weight)?;
        if let Some((id, merged)) = self.merged.get()
            && *id == weight.id()
        {
            return Ok(merged.clone());
        }
        let merged = self.merge(weight)?;
        // Another thread may have been first, with the same result.
        let _ = self.merged.set((weight.id(), merged.clone()));
        Ok(merged)
    }

    fn merge(&self, weight: &Tensor) -> Result<Tensor> {
        on_gpu!(weight => bridge::merged_weight(weight, &self.a, &self.b));
        by_element!(OP, weight.dtype(), T => reconstruct::<T>(weight, &self.a, &self.b))
    }

    fn check(&self, weight: &Tensor) -> Result<()> {
        check_like(OP, "the factors", &self.a, weight)?;
        let (a, b) = (self.a.dims(), self.b.dims());
        let fits = |which: &'static str, factor: &[usize], ok: bool| {
            if ok {
                return Ok(());
            }
            Err(Error::Shape {
                op: OP,
                left: which,
                left_shape: factor.to_vec(),
                right: "weight",
                right_shape: weight.dims().to_vec(),
                rule: "a is (rank, in), b is (out, rank), weight is (out, in)",
            })
        };
        fits("a", a, weight.rank() == 2 && a.last() == weight.dims().last())?;
        fits("b", b, b.first() == weight.dims().first())?;
        Ok(())
    }
}

/// Merged weight `W + B A` in a new tensor.
fn reconstruct<T: Float>(weight: &Tensor, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let (out, input) = weight.dims2()?;
    let (a, a_layout) = a.storage_and_layout();
    let (b, b_layout) = b.storage_and_layout();
    let (w, w_layout) = weight.storage_and_layout();
    let weight = Rows::<T>::of(&w, w_layout)?;
    let add = |row: usize, column: usize, sum: &mut [T]| {
        add_assign(sum, &weight.row(row)[column..][..sum.len()]);
    };
    let (b, a) = (strided(cpu(&b)?, b_layout)?, strided(cpu(&a)?, a_layout)?);
    tensor_from_vec(matmul(b, a, Precision::F32, Some(&add)), &[out, input])
}

/// Linear layer with a low-rank delta: `x (W + B A)^T + bias` for `x` (.., in), `weight` (out, in)
/// and `bias` (out); (.., out).
///
/// Gradients for x and the factors, where tracked; no (out, in) gradient is formed for a frozen
/// weight. Where weight or bias are tracked too, they get theirs.
///
/// # Errors
/// Shapes or element types that do not fit.
pub fn adapted_linear(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    delta: &LowRank,
    mode: DeltaMode,
) -> Result<Tensor> {
    adapted_linear_with(x, weight, bias, delta, mode, &Epilogue::default())
}

/// [`adapted_linear`] with an epilogue, as [`linear_with`] has it. The merged weight is formed in full precision; as
/// an operand of a matmul it is rounded like any other.
///
/// # Errors
/// Shapes or element types that do not fit.
pub fn adapted_linear_with(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    delta: &LowRank,
    mode: DeltaMode,
    epilogue: &Epilogue,
) -> Result<Tensor> {
    check(OP, x, weight, bias)?;
    delta.check(weight)?;
    if weight.track_op() || bias.is_some_and(Tensor::track_op) {
        // Five inputs; candle's operations have three.
        let precision = Epilogue::from(epilogue.precision);
        let xa = linear_with(x, &delta.a, None, &precision)?;
        let delta = linear_with(&xa, &delta.b, None, &precision)?;
        return epilogue.apply((linear_with(x, weight, bias, &precision)? + delta)?);
    }
    let (out, input) = weight.dims2()?;
    let tokens = x.elem_count().checked_div(input).unwrap_or(0);
    let reconstruct = match mode {
        DeltaMode::Apply => false,
        DeltaMode::Reconstruct => true,
        // Applying takes tokens * (in + out) * rank multiplications beyond those that both ways share, forming the
        // weight in * out * rank and its memory. With and without a graph alike: recomputation has to make the same
        // choice.
        DeltaMode::Auto => {
            let merged = delta.merged.get().is_some_and(|(id, _)| *id == weight.id());
            let cost = |all| if x.device().is_cpu() { MERGE_COST * all } else { all / 2 };
            merged || tokens * (input + out) > cost(input * out)
        }
    };
    let tracked = x.track_op() || delta.a.track_op() || delta.b.track_op();
    let (epilogue, rest) = EpilogueState::new(OP, epilogue, x, out, tracked)?;
    let op = Adapted {
        merged: reconstruct.then(|| delta.merged_weight(weight)).transpose()?,
        weight: weight.clone(),
        bias: bias.cloned(),
        save_xa: delta.b.track_op(),
        xa: OnceLock::new(),
        epilogue,
    };
    rest.apply(apply3(x, &delta.a, &delta.b, op)?)
}

/// The frozen side of an adapted linear layer; x and the factors are its inputs.
struct Adapted {
    weight: Tensor,
    bias: Option<Tensor>,
    /// Merged weight `W + B A`, when reconstructing.
    merged: Option<Tensor>,
    /// True if the backward pass needs `x A^T`.
    save_xa: bool,
    /// `x A^T` (tokens, rank), saved by the forward pass.
    xa: OnceLock<Tensor>,
    epilogue: EpilogueState,
}

impl Adapted {
    /// Weight that multiplies x, and true if it is the merged one.
    #[cfg(feature = "cuda")]
    fn multiplied(&self) -> (&Tensor, bool) {
        self.merged.as_ref().map_or((&self.weight, false), |merged| (merged, true))
    }

    fn run<T: Float>(
        &self,
        x: (&CpuStorage, &Layout),
        a: (&CpuStorage, &Layout),
        b: (&CpuStorage, &Layout),
    ) -> Result<(CpuStorage, Shape)> {
        let (out, rank) = b.1.shape().dims2()?;
        let shape = output_shape(x.1, out);
        let x = Rows::<T>::new(x.0, x.1)?;
        let (weight, layout) = self.merged.as_ref().unwrap_or(&self.weight).storage_and_layout();
        let weight = strided::<T>(cpu(&weight)?, layout)?;
        let bias = self.bias.as_ref().map(Tensor::storage_and_layout);
        let bias = bias.as_ref().map(|(bias, layout)| Rows::<T>::of(bias, layout)).transpose()?;
        let (a, b) = (strided::<T>(a.0, a.1)?, strided::<T>(b.0, b.1)?);
        let precision = self.epilogue.precision;
        let mut xa = Vec::new();
        let y = self.epilogue.run(
            (x.rows, out),
            bias.as_ref().map(|bias| bias.row(0)),
            |epilogue| {
                if self.merged.is_some() {
                    return matmul(x.matrix(), weight.t(), precision, epilogue);
                }
                // y = x W^T + z B^T
                xa = matmul(x.matrix(), a.t(), precision, None);
                let z = Matrix::dense(&xa, x.rows, rank);
                matmul_dual([(x.matrix(), weight.t()), (z, b.t())], precision, epilogue)
            },
        )?;
        if self.save_xa && self.merged.is_none() {
            let _ = self.xa.set(tensor_from_vec(xa, &[x.rows, rank])?);
        }
        Ok((T::to_cpu_storage_owned(y), shape))
    }

    /// Backward: dx = dy (W + B A); dA = (dy B)^T x; dB = dy^T (x A^T).
    fn gradients<T: Float>(
        &self,
        x_tensor: &Tensor,
        a_tensor: &Tensor,
        b_tensor: &Tensor,
        dy: &Tensor,
    ) -> Result<[Option<Tensor>; 3]> {
        let ((rank, input), (out, _)) = (a_tensor.dims2()?, b_tensor.dims2()?);
        let (dy, precision) = (self.epilogue.gradient::<T>(dy)?, self.epilogue.precision);
        let (dy, dy_layout) = dy.storage_and_layout();
        let (x, x_layout) = x_tensor.storage_and_layout();
        let (a, a_layout) = a_tensor.storage_and_layout();
        let (b, b_layout) = b_tensor.storage_and_layout();
        let dy = Rows::<T>::of(&dy, dy_layout)?;
        let x = Rows::<T>::of(&x, x_layout)?;
        let a = strided::<T>(cpu(&a)?, a_layout)?;
        let b = strided::<T>(cpu(&b)?, b_layout)?;
        let tokens = dy.rows;
        let needs_dx = x_tensor.track_op();

        // g = dy B (tokens, rank)
        let g = (a_tensor.track_op() || (needs_dx && self.merged.is_none()))
            .then(|| matmul(dy.matrix(), b, precision, None));
        let g = g.as_ref().map(|g| Matrix::dense(g, tokens, rank));
        let dx = if needs_dx {
            let weight = self.merged.as_ref().unwrap_or(&self.weight);
            let (weight, layout) = weight.storage_and_layout();
            let weight = strided::<T>(cpu(&weight)?, layout)?;
            let dx = match g {
                Some(g) if self.merged.is_none() => {
                    matmul_dual([(dy.matrix(), weight), (g, a)], precision, None)
                }
                _ => matmul(dy.matrix(), weight, precision, None),
            };
            Some(tensor_from_vec(dx, x_tensor.dims())?)
        } else {
            None
        };
        let da = match g {
            Some(g) if a_tensor.track_op() => {
                Some(tensor_from_vec(matmul(g.t(), x.matrix(), precision, None), &[rank, input])?)
            }
            _ => None,
        };
        let db = if b_tensor.track_op() {
            let z = match self.xa.get() {
                Some(z) => z.clone(),
                None => {
                    tensor_from_vec(matmul(x.matrix(), a.t(), precision, None), &[tokens, rank])?
                }
            };
            let (z, z_layout) = z.storage_and_layout();
            let z = strided(cpu(&z)?, z_layout)?;
            Some(tensor_from_vec(matmul(dy.matrix().t(), z, precision, None), &[out, rank])?)
        } else {
            None
        };
        Ok([dx, da, db])
    }
}

impl CustomOp3 for Adapted {
    fn name(&self) -> &'static str {
        OP
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        a: &CpuStorage,
        a_layout: &Layout,
        b: &CpuStorage,
        b_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        by_element!(OP, x.dtype(), T => {
            self.run::<T>((x, x_layout), (a, a_layout), (b, b_layout))
        })
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        x_layout: &Layout,
        a: &CudaStorage,
        a_layout: &Layout,
        b: &CudaStorage,
        b_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let (weight, merged) = self.multiplied();
        let inputs = [(x, x_layout), (a, a_layout), (b, b_layout)];
        bridge::adapted_forward(inputs, weight, self.bias.as_ref(), merged)
    }

    fn bwd(
        &self,
        x: &Tensor,
        a: &Tensor,
        b: &Tensor,
        _y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        on_gpu!(x => {
            let (weight, merged) = self.multiplied();
            let [dx, da, db] = bridge::adapted_backward([x, a, b], weight, merged, dy)?;
            Ok((dx, da, db))
        });
        let [dx, da, db] = by_element!(OP, x.dtype(), T => self.gradients::<T>(x, a, b, dy))?;
        Ok((dx, da, db))
    }
}
