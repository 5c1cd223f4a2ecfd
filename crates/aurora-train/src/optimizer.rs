//! AdamW (Loshchilov & Hutter 2017, arXiv:1711.05101), and gradient clipping by global norm.
//!
//! The update follows PyTorch's `AdamW` operation by operation; six steps agree with it within f32
//! rounding. With g the gradient, t the number of the step (from 1) and lr the group's learning rate
//! times the schedule's factor:
//!
//! ```text
//! p <- p (1 - lr wd)
//! m <- m + (1 - b1) (g - m)
//! v <- v b2 + (1 - b2) g g
//! p <- p - lr / (1 - b1^t) * m / (sqrt(v) / sqrt(1 - b2^t) + eps)
//! ```
//!
//! Constants are computed in f64 and rounded to f32 once. The state is f32 and can be saved. On the
//! CPU one pass over memory updates p, m and v in place, in parallel over fixed chunks; elements are
//! independent, so the result has the same bits for any number of threads. On a GPU one kernel launch
//! updates all parameters, and the state stays there.

pub mod step;
mod update;

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use aurora_kernels::audit::missing_gradients;
#[cfg(feature = "cuda")]
use aurora_kernels::cuda::AdamWState;
use aurora_kernels::cuda::plan::AdamWConstants as Constants;
use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor, Var};
use rayon::prelude::*;

use crate::error::{Error, Result};
use update::Update;

/// Elements of a parallel chunk.
const CHUNK: usize = 16 * 1024;

/// Parameter group: a learning rate and a weight decay.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// Name that parameters refer to ("factors", "heads", ...).
    pub name: String,
    /// Learning rate before the schedule's factor.
    pub learning_rate: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
}

impl Group {
    /// Builds a group.
    pub fn new(name: impl Into<String>, learning_rate: f64, weight_decay: f64) -> Self {
        Self { name: name.into(), learning_rate, weight_decay }
    }
}

/// Trainable tensor with a name, in a group.
#[derive(Debug, Clone)]
pub struct Parameter {
    /// Unique name, for saved state and errors.
    pub name: String,
    /// The tensor, f32 and contiguous.
    pub var: Var,
    /// Name of its [`Group`].
    pub group: String,
}

impl Parameter {
    /// Builds a parameter.
    pub fn new(name: impl Into<String>, var: Var, group: impl Into<String>) -> Self {
        Self { name: name.into(), var, group: group.into() }
    }
}

/// AdamW's constants, the same at every step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWOptions {
    /// Decay rates of the first and second moments.
    pub betas: [f64; 2],
    /// Epsilon, added to the root of the second moment.
    pub eps: f64,
}

impl Default for AdamWOptions {
    /// PyTorch's defaults.
    fn default() -> Self {
        Self { betas: [0.9, 0.999], eps: 1e-8 }
    }
}

/// AdamW optimizer: parameters, groups and state.
#[derive(Debug)]
pub struct AdamW {
    options: AdamWOptions,
    groups: Vec<Group>,
    parameters: Vec<Parameter>,
    /// Index of each parameter's group.
    group_of: Vec<usize>,
    /// First and second moments of each parameter; empty where parameters, and so the moments, are on
    /// a GPU.
    moments: Vec<[Vec<f32>; 2]>,
    #[cfg(feature = "cuda")]
    on_gpu: Option<AdamWState>,
    steps: u64,
}

impl AdamW {
    /// Builds an optimizer at step 0.
    ///
    /// # Errors
    /// A name given twice, a parameter whose group does not exist, a parameter that is not f32.
    pub fn new(
        parameters: Vec<Parameter>,
        groups: Vec<Group>,
        options: AdamWOptions,
    ) -> Result<Self> {
        unique("group", groups.iter().map(|g| &g.name))?;
        unique("parameter", parameters.iter().map(|p| &p.name))?;
        let mut group_of = Vec::with_capacity(parameters.len());
        let mut moments = Vec::with_capacity(parameters.len());
        for parameter in &parameters {
            require_f32("AdamW", &parameter.name, &parameter.var)?;
            let index = groups.iter().position(|g| g.name == parameter.group);
            group_of.push(index.ok_or_else(|| Error::UnknownGroup {
                parameter: parameter.name.clone(),
                group: parameter.group.clone(),
                groups: groups.iter().map(|g| g.name.clone()).collect(),
            })?);
            if parameter.var.device().is_cpu() {
                let count = parameter.var.elem_count();
                moments.push([vec![0.0; count], vec![0.0; count]]);
            }
        }
        #[cfg(feature = "cuda")]
        let on_gpu = match parameters.first() {
            Some(first) if first.var.device().is_cuda() => {
                let tensors: Vec<&Tensor> = parameters.iter().map(|p| p.var.as_tensor()).collect();
                Some(AdamWState::new(&tensors)?)
            }
            _ => None,
        };
        Ok(Self {
            options,
            groups,
            parameters,
            group_of,
            moments,
            #[cfg(feature = "cuda")]
            on_gpu,
            steps: 0,
        })
    }

    /// Parameters, in the order given.
    pub fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// Groups, in the order given.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// Number of steps done.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Number of trainable values.
    pub fn element_count(&self) -> usize {
        self.parameters.iter().map(|p| p.var.elem_count()).sum()
    }

    /// Updates every parameter in place. `factor` multiplies every group's learning rate.
    ///
    /// # Errors
    /// A parameter without gradient (all are named, and nothing is updated), a gradient of another
    /// shape or element type.
    pub fn step(&mut self, grads: &GradStore, factor: f64) -> Result<()> {
        let gradients = audited(grads, &self.parameters)?;
        self.steps += 1;
        let [beta1, beta2] = self.options.betas;
        let correction1 = 1.0 - beta1.powi(self.steps as i32);
        let correction2 = 1.0 - beta2.powi(self.steps as i32);
        let constants = |group: usize| {
            let Group { learning_rate, weight_decay, .. } = self.groups[group];
            let rate = learning_rate * factor;
            Constants {
                shrink: (1.0 - rate * weight_decay) as f32,
                blend1: (1.0 - beta1) as f32,
                beta2: beta2 as f32,
                blend2: (1.0 - beta2) as f32,
                root_correction2: correction2.sqrt() as f32,
                eps: self.options.eps as f32,
                step_size: (rate / correction1) as f32,
            }
        };
        let each = self.parameters.iter().zip(gradients).zip(&self.group_of);
        #[cfg(feature = "cuda")]
        if let Some(on_gpu) = &mut self.on_gpu {
            let steps: Vec<_> = each
                .map(|((parameter, gradient), &group)| {
                    (parameter.var.as_tensor(), gradient, constants(group))
                })
                .collect();
            return Ok(on_gpu.step(&steps)?);
        }
        for (((parameter, gradient), &group), moments) in each.zip(&mut self.moments) {
            let constants = constants(group);
            let update = Update { constants, moments: RefCell::new(moments) };
            parameter.var.inplace_op2(&gradient.contiguous()?, &update)?;
        }
        Ok(())
    }

    /// State as tensors: `step`, and for every parameter `first.<name>` and `second.<name>` in its
    /// shape.
    ///
    /// # Errors
    /// A candle error when making a tensor.
    pub fn state(&self) -> Result<BTreeMap<String, Tensor>> {
        let step = Tensor::new(self.steps as i64, &Device::Cpu)?;
        let mut state = BTreeMap::from([("step".to_owned(), step)]);
        for (parameter, moments) in self.parameters.iter().zip(self.moments()?.iter()) {
            for (prefix, moment) in ["first", "second"].into_iter().zip(moments) {
                let tensor =
                    Tensor::from_slice(moment, parameter.var.shape().clone(), &Device::Cpu)?;
                state.insert(format!("{prefix}.{}", parameter.name), tensor);
            }
        }
        Ok(state)
    }

    /// Moments, from wherever they are.
    #[cfg(feature = "cuda")]
    fn moments(&self) -> Result<Cow<'_, [[Vec<f32>; 2]]>> {
        match &self.on_gpu {
            Some(on_gpu) => Ok(Cow::Owned(on_gpu.read()?)),
            None => Ok(Cow::Borrowed(&self.moments)),
        }
    }

    #[cfg(not(feature = "cuda"))]
    fn moments(&self) -> Result<Cow<'_, [[Vec<f32>; 2]]>> {
        Ok(Cow::Borrowed(&self.moments))
    }

    /// Restores a state saved by [`AdamW::state`]. On an error nothing is changed.
    ///
    /// # Errors
    /// Tensors missing or left over, or of another shape than the parameter's.
    pub fn load_state(&mut self, state: &BTreeMap<String, Tensor>) -> Result<()> {
        let mut names: BTreeSet<String> = BTreeSet::from(["step".to_owned()]);
        for parameter in &self.parameters {
            names.insert(format!("first.{}", parameter.name));
            names.insert(format!("second.{}", parameter.name));
        }
        let missing: Vec<String> =
            names.iter().filter(|n| !state.contains_key(*n)).cloned().collect();
        let unexpected: Vec<String> =
            state.keys().filter(|n| !names.contains(*n)).cloned().collect();
        if !missing.is_empty() || !unexpected.is_empty() {
            return Err(Error::State { what: "optimizer", missing, unexpected });
        }
        let mut loaded = Vec::with_capacity(self.parameters.len());
        for parameter in &self.parameters {
            let read = |prefix: &str| -> Result<Vec<f32>> {
                let name = format!("{prefix}.{}", parameter.name);
                let tensor = &state[&name];
                require_f32("load optimizer state", &name, tensor)?;
                if tensor.dims() != parameter.var.dims() {
                    return Err(Error::Shape {
                        operation: "load optimizer state",
                        name,
                        found: tensor.dims().to_vec(),
                        expected: format!("{:?}", parameter.var.dims()),
                    });
                }
                Ok(tensor.flatten_all()?.to_vec1()?)
            };
            loaded.push([read("first")?, read("second")?]);
        }
        let steps = state["step"].to_dtype(DType::I64)?.to_scalar::<i64>()?.max(0) as u64;
        #[cfg(feature = "cuda")]
        if let Some(on_gpu) = &mut self.on_gpu {
            on_gpu.write(&loaded)?;
            self.steps = steps;
            return Ok(());
        }
        self.steps = steps;
        self.moments = loaded;
        Ok(())
    }
}

/// Gradient clipping by global norm: scales the gradients of `parameters` so that their joint L2 norm
/// is at most `max_norm`, and returns the norm before. As in PyTorch the factor is
/// `max_norm / (norm + 1e-6)`.
///
/// The sum runs in f64 over the parameters in their order, so it has the same bits on every run.
///
/// # Errors
/// A parameter without gradient, or a gradient that is infinite or not a number (named).
pub fn clip_gradients(
    grads: &mut GradStore,
    parameters: &[Parameter],
    max_norm: f64,
) -> Result<f64> {
    let mut total = 0.0;
    for (parameter, gradient) in parameters.iter().zip(audited(grads, parameters)?) {
        let squares = match gradient.device().is_cpu() {
            true => sum_of_squares(&gradient.flatten_all()?.to_vec1()?),
            // Only one number comes back from the device, not the gradient.
            false => f64::from(gradient.sqr()?.sum_all()?.to_scalar::<f32>()?),
        };
        if !squares.is_finite() {
            let what = format!("the norm of the gradient of {}", parameter.name);
            return Err(Error::NotFinite { what, value: squares.sqrt() });
        }
        total += squares;
    }
    let norm = total.sqrt();
    let factor = max_norm / (norm + 1e-6);
    if factor < 1.0 {
        for parameter in parameters {
            if let Some(gradient) = grads.remove(&parameter.var) {
                grads.insert(&parameter.var, gradient.affine(factor, 0.0)?);
            }
        }
    }
    Ok(norm)
}

/// Gradients of all parameters in order, f32 and of their shapes, or an error that names the
/// parameters without one.
fn audited<'a>(grads: &'a GradStore, parameters: &[Parameter]) -> Result<Vec<&'a Tensor>> {
    let named = parameters.iter().map(|p| (&p.name, p.var.as_tensor()));
    let names = missing_gradients(grads, named);
    if !names.is_empty() {
        return Err(Error::MissingGradient { names, total: parameters.len() });
    }
    let mut found = Vec::with_capacity(parameters.len());
    for parameter in parameters {
        let Some(gradient) = grads.get(&parameter.var) else { continue };
        let name = || format!("the gradient of {}", parameter.name);
        require_f32("optimizer", &name(), gradient)?;
        if gradient.dims() != parameter.var.dims() {
            return Err(Error::Shape {
                operation: "optimizer",
                name: name(),
                found: gradient.dims().to_vec(),
                expected: format!("{:?}", parameter.var.dims()),
            });
        }
        found.push(gradient);
    }
    Ok(found)
}

fn sum_of_squares(values: &[f32]) -> f64 {
    // Chunks of a fixed length, summed in order: the same bits for any number of threads.
    let square = |chunk: &[f32]| chunk.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>();
    let parts: Vec<f64> = values.par_chunks(CHUNK).map(square).collect();
    parts.iter().sum()
}

fn require_f32(operation: &'static str, name: &str, tensor: &Tensor) -> Result<()> {
    if tensor.dtype() == DType::F32 {
        return Ok(());
    }
    let found = tensor.dtype().as_str();
    Err(Error::DType { operation, name: name.to_owned(), found, expected: "f32" })
}

fn unique<'a>(kind: &'static str, names: impl Iterator<Item = &'a String>) -> Result<()> {
    let mut seen = BTreeSet::new();
    for name in names {
        if !seen.insert(name) {
            return Err(Error::Duplicate { kind, name: name.clone() });
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "optimizer_tests.rs"]
mod tests;
