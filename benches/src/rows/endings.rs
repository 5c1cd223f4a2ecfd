//! What ends a linear map: done to its outputs while they are in the cache, and by an operation of its own.

use aurora_kernels::{Epilogue, gelu, linear, linear_with, reference};
use candle_core::{Result, Tensor};

use super::Shared;
use super::linear::Operands;
use crate::cost::{Cost, LinearShape};
use crate::{Row, check, normal, values};

/// How a map of this name ends in a model.
#[derive(Clone, Copy)]
enum Ending {
    Gelu,
    Residual,
}

impl Ending {
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
            Self::Residual => ["linear_plus", "linear_then_plus"],
        }
    }

    fn cost(self, shape: LinearShape, element: u64) -> Cost {
        match self {
            Self::Gelu => shape.linear_gelu(element),
            Self::Residual => shape.linear_plus(element),
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

    /// The first rows, by formula.
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

/// Both ways of the ending that a model has at this site, if it has one.
pub(super) fn rows(
    site: &'static str,
    text: &str,
    shape: LinearShape,
    shared: &Shared<Operands>,
) -> Vec<Row> {
    let Some(ending) = Ending::of(site) else { return Vec::new() };
    let row = |(name, apart): (&str, bool)| {
        let of = shared.clone();
        Row::new(site, name, text, move |e| ending.cost(shape, e)).on_cpu(move || {
            let of = of.get()?;
            let x = of.x.as_detached_tensor();
            let residual = normal(5, &[shape.tokens as usize, shape.output as usize])?;
            let y = ending.run(apart, &of, &x, &residual)?;
            check("a map with its ending", &y, &ending.wanted(&of, &residual)?)?;
            Ok(move || ending.run(apart, &of, &x, &residual).map(drop))
        })
    };
    ending.names().into_iter().zip([false, true]).map(row).collect()
}
