//! GEMM epilogues of linear layers: fused into the product, while its outputs are in the cache, and as operations of
//! their own.

use aurora_kernels::{Epilogue, gelu, linear, linear_with, reference};
use candle_core::{Result, Tensor};

use super::Shared;
use super::linear::Operands;
use crate::cost::{Cost, LinearShape};
use crate::{BenchCase, check, normal, values};

/// Epilogue of a linear layer of this name in a model.
#[derive(Clone, Copy)]
enum SiteEpilogue {
    Gelu,
    Residual,
}

impl SiteEpilogue {
    fn of(site: &str) -> Option<Self> {
        match site.rsplit('.').next() {
            Some("fc1") => Some(Self::Gelu),
            Some("fc2" | "proj") => Some(Self::Residual),
            _ => None,
        }
    }

    fn names(self) -> [&'static str; 2] {
        match self {
            Self::Gelu => ["linear_gelu", "linear_then_gelu"],
            Self::Residual => ["linear_residual", "linear_then_residual"],
        }
    }

    fn cost(self, shape: LinearShape, element: u64) -> Cost {
        match self {
            Self::Gelu => shape.linear_gelu(element),
            Self::Residual => shape.linear_residual(element),
        }
    }

    fn run(self, apart: bool, of: &Operands, x: &Tensor, residual: &Tensor) -> Result<Tensor> {
        let plain = || linear(x, &of.weight, Some(&of.bias));
        let options = match (self, apart) {
            (Self::Gelu, true) => return gelu(&plain()?),
            (Self::Residual, true) => return plain()? + residual,
            (Self::Gelu, false) => Epilogue { gelu: true, ..Epilogue::default() },
            (Self::Residual, false) => {
                Epilogue { residual: Some(residual.clone()), ..Epilogue::default() }
            }
        };
        linear_with(x, &of.weight, Some(&of.bias), &options)
    }

    /// Reference of the first rows, by formula.
    fn wanted(self, of: &Operands, residual: &Tensor) -> Result<Vec<f64>> {
        let (weight, bias) = (values(&of.weight)?, values(&of.bias)?);
        let y = reference::linear(&of.first_rows()?, &weight, Some(&bias), of.input());
        Ok(match self {
            Self::Gelu => reference::gelu(&y),
            Self::Residual => {
                let residual = values(&residual.narrow(0, 0, 2)?)?;
                y.iter().zip(residual).map(|(y, r)| y + r).collect()
            }
        })
    }
}

/// Fused and separate epilogue at this site, if it has one.
pub(super) fn cases(
    site: &'static str,
    text: &str,
    shape: LinearShape,
    shared: &Shared<Operands>,
) -> Vec<BenchCase> {
    let Some(epilogue) = SiteEpilogue::of(site) else { return Vec::new() };
    let case = |(name, apart): (&str, bool)| {
        let of = shared.clone();
        BenchCase::new(site, name, text, move |e| epilogue.cost(shape, e)).on_cpu(move || {
            let of = of.get()?;
            let x = of.x.as_detached_tensor();
            let residual = normal(5, &[shape.tokens as usize, shape.output as usize])?;
            let y = epilogue.run(apart, &of, &x, &residual)?;
            check("a linear layer with its epilogue", &y, &epilogue.wanted(&of, &residual)?)?;
            Ok(move || epilogue.run(apart, &of, &x, &residual).map(drop))
        })
    };
    epilogue.names().into_iter().zip([false, true]).map(case).collect()
}
