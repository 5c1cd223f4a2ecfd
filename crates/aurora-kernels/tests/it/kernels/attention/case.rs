//! Attention case on an executor: inputs, their layout, launches, and the comparison.

use aurora_kernels::cuda::plan::{
    AttentionBackwardBuffers, AttentionForwardBuffers, AttentionPlan, HeadRows, ScoreBuffers,
    queries_by_key,
};
use aurora_kernels::cuda::{DeviceBuffer, DevicePointer, Element, Executor};

use super::reference::{Approximate, Inputs, Shape, attention};
use crate::kernels::support::{Tensor, normal, run};

/// Layout of the tensors.
#[derive(Debug, Clone, Copy)]
pub enum Place {
    /// Packed: queries, keys and values side by side in rows of one tensor, and so their gradients.
    Packed,
    /// Separate tensors, `gap` elements between rows and twice that more between batches, beginning `skip` elements
    /// into their memory.
    Apart { gap: usize, skip: usize },
}

/// Options of a case besides its shape.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    pub mask: bool,
    /// With the mask: the first row of queries sees no key.
    pub blind: bool,
    /// With the mask: added to all of it, which changes only log_sums.
    pub shift: f64,
    pub scale: bool,
    pub place: Place,
    pub wanted: [bool; 3],
}

pub const PLAIN: Options = Options {
    mask: false,
    blind: false,
    shift: 0.0,
    scale: false,
    place: Place::Apart { gap: 0, skip: 0 },
    wanted: [true; 3],
};

pub fn shape([queries, q_len, k_len, heads, head]: [usize; 5]) -> Shape {
    Shape { queries, keys: queries, q_len, k_len, heads, head, causal: false, kv_rows: None }
}

pub fn inputs(element: Element, shape: &Shape, options: &Options) -> Inputs {
    let (q, k) = (shape.queries * shape.q_len, shape.keys * shape.k_len);
    let terms = shape.queries * shape.k_len;
    let mask = normal(Element::F32, 4, terms).into_iter().enumerate().map(|(index, x)| {
        let blind = options.blind && index < shape.k_len;
        if blind || x > 0.8 {
            f64::NEG_INFINITY
        } else if x > 0.0 {
            options.shift
        } else {
            2.0 * x + options.shift
        }
    });
    let scale = normal(Element::F32, 5, terms).into_iter().map(|x| f64::from((x + 1.0) as f32));
    Inputs {
        q: normal(element, 0, q * shape.width()),
        k: normal(element, 1, k * shape.width()),
        v: normal(element, 2, k * shape.width()),
        dout: normal(element, 3, q * shape.width()),
        mask: options.mask.then(|| mask.map(|x| f64::from(x as f32)).collect()),
        scale: options.scale.then(|| scale.collect()),
    }
}

/// Tensor (batch, length, width) in memory.
struct Grid<'a> {
    tensor: Tensor<'a>,
    offset: usize,
    sizes: [usize; 3],
    strides: [usize; 2],
}

impl<'a> Grid<'a> {
    fn strides([_, length, width]: [usize; 3], gap: usize) -> [usize; 2] {
        [length * (width + gap) + 2 * gap, width + gap]
    }

    fn places(
        [batches, length, width]: [usize; 3],
        strides: [usize; 2],
    ) -> impl Iterator<Item = usize> {
        let rows = (0..batches * length)
            .map(move |row| row / length * strides[0] + row % length * strides[1]);
        rows.flat_map(move |start| start..start + width)
    }

    /// Tensor with these values, NaN between the rows.
    fn new(
        executor: &'a dyn Executor,
        element: Element,
        values: &[f64],
        sizes: [usize; 3],
        (gap, skip): (usize, usize),
    ) -> Self {
        let strides = Self::strides(sizes, gap);
        let mut spread = vec![f64::NAN; sizes[0] * strides[0]];
        for (place, &value) in Self::places(sizes, strides).zip(values) {
            spread[place] = value;
        }
        let tensor = Tensor::skipping(executor, element, &spread, skip);
        Self { tensor, offset: 0, sizes, strides }
    }

    fn rows(&self, element: Element) -> HeadRows {
        HeadRows {
            pointer: self.tensor.pointer().offset(self.offset, element),
            batch_stride: self.strides[0],
            row_stride: self.strides[1],
        }
    }

    /// Values of the tensor; all other memory has to be unchanged.
    fn values(&self) -> Vec<f64> {
        let mut all = self.tensor.values();
        let values = Self::places(self.sizes, self.strides)
            .map(|place| std::mem::replace(&mut all[self.offset + place], f64::NAN))
            .collect();
        assert!(all.iter().all(|x| x.is_nan()), "something between the rows was written");
        values
    }
}

fn integers(executor: &dyn Executor, values: &[u32]) -> Box<dyn DeviceBuffer> {
    let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
    let memory = executor.allocate(bytes.len()).unwrap();
    executor.upload(&bytes, &*memory).unwrap();
    memory
}

#[track_caller]
fn close(what: &str, case: &str, got: &[f64], want: &Approximate) {
    assert_eq!(got.len(), want.value.len(), "{what}: length");
    for (index, &got) in got.iter().enumerate() {
        let (value, bound) = (want.value[index], want.bound[index]);
        assert!(
            got == value || (got - value).abs() <= bound,
            "{what}: element {index} is {got}, f64 says {value}, allowed {bound:e}; {case}"
        );
    }
}

/// Runs forward, then backward from the forward pass's own results, against f64.
pub fn check(executor: &dyn Executor, element: Element, shape: &Shape, options: &Options) {
    let Shape { queries, keys, q_len, k_len, heads, head, causal, .. } = *shape;
    let width = shape.width();
    let case = format!("{element:?} {shape:?} {options:?}");
    let x = inputs(element, shape, options);
    let want = attention(element, shape, &x);
    let plan = AttentionPlan { element, queries, keys, q_len, k_len, heads, head, causal };

    let (of_queries, of_keys) = ([queries, q_len, width], [keys, k_len, width]);
    let packed = matches!(options.place, Place::Packed);
    let room = match options.place {
        Place::Packed => (0, 0),
        Place::Apart { gap, skip } => (gap, skip),
    };
    let grid = |values: &[f64], sizes| Grid::new(executor, element, values, sizes, room);
    let triple = |parts: [&[f64]; 3]| -> Vec<f64> {
        let rows = 0..queries * q_len;
        rows.flat_map(|row| parts.map(|part| part.get(row * width..(row + 1) * width)))
            .flat_map(|part| part.map_or_else(|| vec![f64::NAN; width], <[f64]>::to_vec))
            .collect()
    };
    let qkv = |parts: [&[f64]; 3]| -> [Grid; 3] {
        if packed {
            let whole = [queries, q_len, 3 * width];
            let strides = Grid::strides(whole, 0);
            return [0, 1, 2].map(|part| Grid {
                tensor: Tensor::new(executor, element, &triple(parts)),
                offset: part * width,
                sizes: [queries, q_len, width],
                strides,
            });
        }
        [grid(parts[0], of_queries), grid(parts[1], of_keys), grid(parts[2], of_keys)]
    };
    let [q, k, v] = qkv([&x.q, &x.k, &x.v]);
    let gradients = qkv([&[], &[], &[]]);
    let (out, dout) = (grid(&[], of_queries), grid(&x.dout, of_queries));
    let floats = |values: &Option<Vec<f64>>| {
        values.as_ref().map(|values| Tensor::new(executor, Element::F32, values))
    };
    let (mask, scale) = (floats(&x.mask), floats(&x.scale));
    let of = |tensor: &Option<Tensor>| tensor.as_ref().map_or(DevicePointer::NULL, Tensor::pointer);
    let rows = shape.kv_rows.as_ref().map(|rows| {
        let (offsets, list) = queries_by_key(rows, keys).unwrap();
        [rows, &offsets, &list].map(|values| integers(executor, values))
    });
    let [kv_rows, query_offsets, query_rows] = match &rows {
        Some(memory) => [0, 1, 2].map(|index: usize| memory[index].pointer()),
        None => [DevicePointer::NULL; 3],
    };
    let scores = ScoreBuffers { mask: of(&mask), scale: of(&scale), kv_rows };
    let [log_sums, deltas] =
        [0; 2].map(|_| Tensor::output(executor, Element::F32, queries * heads * q_len));
    let memory = AttentionForwardBuffers {
        q: q.rows(element),
        k: k.rows(element),
        v: v.rows(element),
        out: out.rows(element),
        log_sums: log_sums.pointer(),
        scores,
    };
    run(executor, plan.forward(&memory).unwrap());
    close("out", &case, &out.values(), &want.out);
    close("log_sums", &case, &log_sums.values(), &want.log_sums);

    let wanted = |part: usize| options.wanted[part].then(|| gradients[part].rows(element));
    let memory = AttentionBackwardBuffers {
        q: memory.q,
        k: memory.k,
        v: memory.v,
        out: memory.out,
        dout: dout.rows(element),
        log_sums: log_sums.pointer(),
        deltas: deltas.pointer(),
        scores,
        query_offsets,
        query_rows,
        dq: wanted(0),
        dk: wanted(1),
        dv: wanted(2),
    };
    run(executor, plan.backward(&memory).unwrap());
    let [dq, dk, dv] = gradients.map(|gradient| gradient.values());
    let pairs = [("dq", &dq, &want.dq), ("dk", &dk, &want.dk), ("dv", &dv, &want.dv)];
    for ((name, got, want), wanted) in pairs.into_iter().zip(options.wanted) {
        if wanted {
            close(name, &case, got, want);
        } else {
            assert!(got.iter().all(|x| x.is_nan()), "{name} is not wanted; {case}");
        }
    }
}
