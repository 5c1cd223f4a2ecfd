//! GEMM epilogue: bias, GELU, residual, applied to the output while it is in the cache.

use std::sync::OnceLock;

use candle_core::{Result, Tensor};

use crate::Error;
use crate::activation;
use crate::add::add;
use crate::float::Float;
use crate::gemm::EpilogueFn;
use crate::linear::add_assign;
use crate::precision::Precision;
use crate::view::{Rows, SendPtr, check_like, tensor_from_vec};

/// Epilogue of a linear layer: GELU and residual, and the precision of its matmuls.
#[derive(Debug, Clone, Default)]
pub struct Epilogue {
    /// Precision of the matmul operands, forward and backward.
    pub precision: Precision,
    /// True to apply GELU to the outputs, as [`gelu`](crate::gelu) computes it.
    pub gelu: bool,
    /// Residual, added last, in the shape of the outputs. It gets a gradient if it is tracked.
    pub residual: Option<Tensor>,
}

impl From<Precision> for Epilogue {
    fn from(precision: Precision) -> Self {
        Self { precision, ..Self::default() }
    }
}

impl Epilogue {
    /// GELU and residual as separate operations on the outputs `y`.
    ///
    /// # Errors
    /// Shapes or element types that do not fit.
    pub fn apply(&self, y: Tensor) -> Result<Tensor> {
        let y = if self.gelu { activation::gelu(&y)? } else { y };
        match &self.residual {
            Some(residual) => add(&y, residual),
            None => Ok(y),
        }
    }
}

/// Epilogue of one linear layer, with the state that its backward pass needs.
pub(crate) struct EpilogueState {
    pub(crate) precision: Precision,
    gelu: bool,
    residual: Option<Tensor>,
    /// True if a backward pass may follow.
    tracked: bool,
    /// Input of the GELU, saved where the backward pass needs it.
    pre_activation: OnceLock<Tensor>,
}

impl EpilogueState {
    /// Epilogue of a linear layer from `x` to `out` outputs, and the part to apply separately: everything on a GPU,
    /// and the residual where there is a graph, because the operation would have an input too many.
    pub(crate) fn new(
        op: &'static str,
        options: &Epilogue,
        x: &Tensor,
        out: usize,
        tracked: bool,
    ) -> Result<(Self, Epilogue)> {
        if let Some(residual) = &options.residual {
            check_like(op, "residual", residual, x)?;
            let (leading, last) = (x.rank() - 1, residual.dims().last() == Some(&out));
            if residual.rank() != x.rank()
                || residual.dims()[..leading] != x.dims()[..leading]
                || !last
            {
                return Err(Error::Shape {
                    op,
                    left: "residual",
                    left_shape: residual.dims().to_vec(),
                    right: "x",
                    right_shape: x.dims().to_vec(),
                    rule: "the residual has the shape of the outputs",
                }
                .into());
            }
        }
        let on_cpu = x.device().is_cpu();
        let graph = tracked || options.residual.as_ref().is_some_and(Tensor::track_op);
        let (inside, apart) = match on_cpu && !graph {
            true => (options.residual.clone(), None),
            false => (None, options.residual.clone()),
        };
        let state = Self {
            precision: options.precision,
            gelu: options.gelu && on_cpu,
            residual: inside,
            tracked,
            pre_activation: OnceLock::new(),
        };
        let gelu = options.gelu && !on_cpu;
        Ok((state, Epilogue { gelu, residual: apart, ..options.precision.into() }))
    }

    /// Runs a GEMM of `rows` by `columns` with this epilogue.
    pub(crate) fn run<T: Float>(
        &self,
        (rows, columns): (usize, usize),
        bias: Option<&[T]>,
        product: impl FnOnce(Option<EpilogueFn<'_, T>>) -> Vec<T>,
    ) -> Result<Vec<T>> {
        if bias.is_none() && !self.gelu && self.residual.is_none() {
            return Ok(product(None));
        }
        let residual = self.residual.as_ref().map(Tensor::storage_and_layout);
        let residual = residual
            .as_ref()
            .map(|(storage, layout)| Rows::<T>::of(storage, layout))
            .transpose()?;
        let saves_input = self.gelu && self.tracked;
        let mut pre_activation = Vec::with_capacity(if saves_input { rows * columns } else { 0 });
        let shared: SendPtr<T> = SendPtr::new(pre_activation.as_mut_ptr());
        let epilogue = |row: usize, column: usize, y: &mut [T]| {
            if let Some(bias) = bias {
                add_assign(y, &bias[column..][..y.len()]);
            }
            if saves_input {
                // SAFETY: the place of this piece, which no other piece has, lies within the capacity.
                unsafe {
                    let to = shared.at(row * columns + column);
                    std::ptr::copy_nonoverlapping(y.as_ptr(), to, y.len());
                }
            }
            if self.gelu {
                activation::in_place(y);
            }
            if let Some(residual) = &residual {
                add_assign(y, &residual.row(row)[column..][..y.len()]);
            }
        };
        let y = product(Some(&epilogue));
        if saves_input {
            // SAFETY: the pieces of a product are together all of it, so everything has been written.
            unsafe { pre_activation.set_len(rows * columns) };
            let _ = self.pre_activation.set(tensor_from_vec(pre_activation, &[rows, columns])?);
        }
        Ok(y)
    }

    /// Gradient of the epilogue's input, from that of the outputs.
    pub(crate) fn gradient<T: Float>(&self, dy: &Tensor) -> Result<Tensor> {
        match self.pre_activation.get() {
            Some(pre_activation) => {
                activation::gradient::<T>(pre_activation, &dy.reshape(pre_activation.shape())?)
            }
            None => Ok(dy.clone()),
        }
    }
}
