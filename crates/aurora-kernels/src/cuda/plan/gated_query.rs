//! Launches of `kernels/attention/gated_query.cu`.

use candle_core::Result;

use super::column_sum::{COLUMN_THREADS, RowPartition};
use super::{int, product};
use crate::cuda::launch::symbol_for;
use crate::cuda::params::{
    GatedQueryBackward, GatedQueryFinish, GatedQueryForward, GatedQueryGates,
};
use crate::cuda::{DevicePointer, Element, Launch};

const OP: &str = "gated_query";

/// Launch plan of the gated query transformation (Wang et al. 2023, arXiv:2305.08381) over rows, all dense.
#[derive(Debug, Clone, Copy)]
pub struct GatedQueryPlan {
    /// Element type of all tensors.
    pub element: Element,
    /// Number of rows.
    pub rows: usize,
    /// Length of a row.
    pub columns: usize,
    /// Gate where there is no trained one.
    pub constant: f32,
}

/// Inputs of both passes; pairs are those of self and of cross. See `GatedQueryForward` for the shapes.
#[derive(Debug, Clone, Copy)]
pub struct GatedQueryInputs {
    /// States after attention.
    pub h: [DevicePointer; 2],
    /// Scales of h.
    pub scale: [DevicePointer; 2],
    /// Shifts.
    pub shift: [DevicePointer; 2],
    /// Parameter a of the gate tanh(a), or null for the constant.
    pub gate: [DevicePointer; 2],
}

/// Buffers of the forward pass.
#[derive(Debug, Clone, Copy)]
pub struct GatedQueryForwardBuffers {
    /// Output of the feed-forward block, which is added to.
    pub ffn: DevicePointer,
    /// Gated states that are added.
    pub inputs: GatedQueryInputs,
    /// Output.
    pub out: DevicePointer,
}

/// Buffers of the backward pass; outputs may be null. The gradient of ffn is that of out.
#[derive(Debug, Clone, Copy)]
pub struct GatedQueryBackwardBuffers {
    /// Inputs of the forward pass.
    pub inputs: GatedQueryInputs,
    /// Gradient of out.
    pub dout: DevicePointer,
    /// Gradients of h.
    pub dh: [DevicePointer; 2],
    /// Gradients of the scales.
    pub dscale: [DevicePointer; 2],
    /// Gradients of the shifts.
    pub dshift: [DevicePointer; 2],
    /// Gradients of a.
    pub dgate: [DevicePointer; 2],
    /// Workspace of [`GatedQueryPlan::workspace`] numbers of f32; null where only gradients of h are wanted.
    pub workspace: DevicePointer,
}

impl GatedQueryPlan {
    fn empty(&self) -> bool {
        self.rows == 0 || self.columns == 0
    }

    /// Launch of the forward pass; None where there is nothing to do.
    ///
    /// # Errors
    /// Sizes past what a launch can have.
    pub fn forward(&self, memory: &GatedQueryForwardBuffers) -> Result<Option<Launch>> {
        if self.empty() {
            return Ok(None);
        }
        product(OP, "ffn", &[self.rows, self.columns])?;
        let GatedQueryInputs { h, scale, shift, gate } = memory.inputs;
        let parts = RowPartition::of(self.rows);
        let params = GatedQueryForward {
            ffn: memory.ffn.read(),
            h_self: h[0].read(),
            h_cross: h[1].read(),
            scale_self: scale[0].read(),
            shift_self: shift[0].read(),
            scale_cross: scale[1].read(),
            shift_cross: shift[1].read(),
            gate_self: gate[0].read(),
            gate_cross: gate[1].read(),
            out: memory.out.write(),
            rows: self.rows as i64,
            columns: int(OP, "ffn", self.columns)?,
            rows_of_part: int(OP, "ffn", parts.rows)?,
            constant: self.constant,
            unused: 0,
        };
        let grid = parts.grid(self.element, self.columns);
        let symbol = symbol_for!(self.element, "gated_query_forward");
        Launch::new(symbol, grid, COLUMN_THREADS, 0, &params).map(Some)
    }

    /// Number of f32 in the workspace of the gradients of vectors and gates.
    pub fn workspace(&self) -> usize {
        if self.rows == 0 { 0 } else { (RowPartition::of(self.rows).count + 1) * 3 * self.columns }
    }

    /// Launches of the backward pass: up to three, one after the other. None for an empty batch, where the gradients
    /// of vectors and gates are zeros.
    ///
    /// # Errors
    /// Sizes past what a launch can have; a gradient of a gate that is not there.
    pub fn backward(&self, memory: &GatedQueryBackwardBuffers) -> Result<Vec<Launch>> {
        const NULL: DevicePointer = DevicePointer::NULL;
        if self.empty() {
            return Ok(Vec::new());
        }
        product(OP, "dout", &[self.rows, self.columns])?;
        let GatedQueryInputs { h, scale, shift, gate } = memory.inputs;
        let gates = memory.dgate != [NULL; 2];
        if memory.dgate.iter().zip(gate).any(|(&gradient, gate)| gradient != NULL && gate == NULL) {
            return Err(crate::Error::Argument {
                op: OP,
                name: "dgate",
                shape: vec![1],
                expected: "no gradient of a gate that is a constant".to_owned(),
            }
            .into());
        }
        let vectors = [memory.dscale, memory.dshift] != [[NULL; 2]; 2];
        let sums = gates || vectors;
        if !sums && memory.dh == [NULL; 2] {
            return Ok(Vec::new());
        }
        let (element, parts) = (self.element, RowPartition::of(self.rows));
        let columns = int(OP, "dout", self.columns)?;
        let partial = if sums { memory.workspace } else { NULL };
        let added = memory.workspace.offset(parts.count * 3 * self.columns, Element::F32);
        let params = GatedQueryBackward {
            dout: memory.dout.read(),
            h_self: h[0].read(),
            h_cross: h[1].read(),
            scale_self: scale[0].read(),
            scale_cross: scale[1].read(),
            gate_self: gate[0].read(),
            gate_cross: gate[1].read(),
            dh_self: memory.dh[0].write(),
            dh_cross: memory.dh[1].write(),
            partial: partial.floats(),
            rows: self.rows as i64,
            columns,
            rows_of_part: int(OP, "dout", parts.rows)?,
            constant: self.constant,
            unused: 0,
        };
        let symbol = symbol_for!(element, "gated_query_backward");
        let grid = parts.grid(element, self.columns);
        let mut launches = vec![Launch::new(symbol, grid, COLUMN_THREADS, 0, &params)?];
        if sums {
            let params = GatedQueryFinish {
                partial: partial.floats(),
                sums: if gates { added.floats() } else { NULL.floats() },
                gate_self: gate[0].read(),
                gate_cross: gate[1].read(),
                dscale_self: memory.dscale[0].write(),
                dshift_self: memory.dshift[0].write(),
                dscale_cross: memory.dscale[1].write(),
                dshift_cross: memory.dshift[1].write(),
                parts: int(OP, "parts", parts.count)?,
                columns,
                constant: self.constant,
                unused: 0,
            };
            let symbol = symbol_for!(element, "gated_query_finish");
            let grid = RowPartition::finish_grid(self.columns);
            launches.push(Launch::new(symbol, grid, COLUMN_THREADS, 0, &params)?);
        }
        if gates {
            let params = GatedQueryGates {
                sums: added.floats(),
                scale_self: scale[0].read(),
                shift_self: shift[0].read(),
                scale_cross: scale[1].read(),
                shift_cross: shift[1].read(),
                gate_self: gate[0].read(),
                gate_cross: gate[1].read(),
                dgate_self: memory.dgate[0].write(),
                dgate_cross: memory.dgate[1].write(),
                columns,
                unused: 0,
            };
            let symbol = symbol_for!(element, "gated_query_gates");
            launches.push(Launch::new(symbol, [1, 1, 1], COLUMN_THREADS, 0, &params)?);
        }
        Ok(launches)
    }
}
