//! Attention and its gradients in plain f64, with error bounds for the kernels.
//!
//! Every rounding that the kernels make is counted at its largest: `UNIT` for each f32 operation in a sum of so many
//! terms, `unit(element)` where a number is stored in the element type (results, probabilities and score gradients as
//! operands of a matmul), and the effect of an error of the scores on everything after it. So the bounds grow with
//! lengths as the kernels' errors may.

use aurora_kernels::cuda::Element;

/// Unit roundoff of f32: half a unit in the last place.
const UNIT: f64 = 1.0 / (1 << 24) as f64;

/// Unit roundoff of an element type: half a unit in the last place, relative.
fn unit(element: Element) -> f64 {
    match element {
        Element::F32 => UNIT,
        Element::F16 => 2f64.powi(-11),
        Element::Bf16 => 2f64.powi(-8),
    }
}

/// Half the distance between the smallest numbers of f16; other types have none in reach.
fn smallest(element: Element) -> f64 {
    if element == Element::F16 { 2f64.powi(-25) } else { 0.0 }
}

/// Sizes and options of a case.
#[derive(Debug, Clone)]
pub struct Shape {
    pub queries: usize,
    pub keys: usize,
    pub q_len: usize,
    pub k_len: usize,
    pub heads: usize,
    pub head: usize,
    pub causal: bool,
    pub kv_rows: Option<Vec<u32>>,
}

impl Shape {
    pub fn width(&self) -> usize {
        self.heads * self.head
    }
    fn key_row(&self, query: usize) -> usize {
        self.kv_rows.as_ref().map_or(query, |rows| rows[query] as usize)
    }
    fn visible(&self, i: usize) -> usize {
        if self.causal { i + 1 + self.k_len - self.q_len } else { self.k_len }
    }
}

/// Dense tensors: (batch, length, width), mask and scale (Bq, Tk).
#[derive(Debug, Clone)]
pub struct Inputs {
    pub q: Vec<f64>,
    pub k: Vec<f64>,
    pub v: Vec<f64>,
    pub dout: Vec<f64>,
    pub mask: Option<Vec<f64>>,
    pub scale: Option<Vec<f64>>,
}

/// Numbers with error bounds.
#[derive(Debug, Clone)]
pub struct Approximate {
    pub value: Vec<f64>,
    pub bound: Vec<f64>,
}

impl Approximate {
    fn zeros(length: usize) -> Self {
        Self { value: vec![0.0; length], bound: vec![0.0; length] }
    }
    fn add(&mut self, at: usize, value: f64, bound: f64) {
        self.value[at] += value;
        self.bound[at] += bound;
    }
    /// Numbers rounded to the element type, with their bounds.
    fn stored(mut self, element: Element) -> Self {
        for (value, bound) in self.value.iter().zip(&mut self.bound) {
            *bound += (value.abs() + *bound) * unit(element) + smallest(element);
        }
        self
    }
}

/// Results of the forward and the backward pass.
pub struct Results {
    pub out: Approximate,
    pub log_sums: Approximate,
    pub dq: Approximate,
    pub dk: Approximate,
    pub dv: Approximate,
}

/// Scores of one query and their bounds; masked keys have minus infinity.
fn scores(shape: &Shape, x: &Inputs, (b, h, i): (usize, usize, usize)) -> (Vec<f64>, Vec<f64>) {
    let factor = (shape.head as f64).powf(-0.5);
    let row = shape.key_row(b);
    let q = &x.q[((b * shape.q_len + i) * shape.width() + h * shape.head)..][..shape.head];
    (0..shape.k_len)
        .map(|j| {
            let k = &x.k[((row * shape.k_len + j) * shape.width() + h * shape.head)..];
            let (mut dot, mut size) = (0.0, 0.0);
            for (q, k) in q.iter().zip(k) {
                dot += q * k;
                size += (q * k).abs();
            }
            let scale = x.scale.as_ref().map_or(1.0, |scale| scale[b * shape.k_len + j]);
            let mask = x.mask.as_ref().map_or(0.0, |mask| mask[b * shape.k_len + j]);
            let score = dot * factor * scale + mask;
            if j >= shape.visible(i) || mask == f64::NEG_INFINITY {
                return (f64::NEG_INFINITY, 0.0);
            }
            let terms = (shape.head + 6) as f64 * size * factor * scale.abs();
            (score, UNIT * (terms + 4.0 * score.abs() + 2.0 * mask.abs()))
        })
        .unzip()
}

/// Attention: the output, the log-sum-exps and the gradients of sum(out * dout).
pub fn attention(element: Element, shape: &Shape, x: &Inputs) -> Results {
    let Shape { queries, keys, q_len, k_len, heads, head, .. } = *shape;
    let width = shape.width();
    let (unit_p, small) =
        (if element == Element::F32 { 0.0 } else { unit(element) }, smallest(element));
    let factor = (head as f64).powf(-0.5);
    let [mut out, mut dq] = [0; 2].map(|_| Approximate::zeros(queries * q_len * width));
    let [mut dk, mut dv] = [0; 2].map(|_| Approximate::zeros(keys * k_len * width));
    let mut log_sums = Approximate::zeros(queries * heads * q_len);
    // Number of terms in dk and dv.
    let uses = (0..keys)
        .map(|row| (0..queries).filter(|&query| shape.key_row(query) == row).count() * q_len);
    let uses: Vec<usize> = uses.collect();
    for b in 0..queries {
        let row = shape.key_row(b);
        let terms = (uses[row] + 8) as f64 * UNIT;
        for h in 0..heads {
            for i in 0..q_len {
                let (s, es) = scores(shape, x, (b, h, i));
                let at = (b * q_len + i) * width + h * head;
                let key = |j: usize| (row * k_len + j) * width + h * head;
                let line = (b * heads + h) * q_len + i;
                let top = s.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                if top == f64::NEG_INFINITY {
                    log_sums.value[line] = f64::INFINITY;
                    continue;
                }
                let sum = s.iter().map(|s| (s - top).exp()).sum::<f64>();
                let log_sum = top + sum.ln();
                let p: Vec<f64> = s.iter().map(|s| (s - log_sum).exp()).collect();
                let worst = es.iter().copied().fold(0.0, f64::max);
                let count = 2.0 * k_len as f64 + 20.0;
                log_sums.value[line] = log_sum;
                log_sums.bound[line] =
                    worst + UNIT * (count + 4.0 * log_sum.abs() + 2.0 * top.abs());
                for j in 0..k_len {
                    if p[j] == 0.0 {
                        continue;
                    }
                    // The sum of exponentials is off by as much as its terms are.
                    let ep = es[j] + worst + UNIT * (count + 2.0 * (s[j] - top).abs()) + unit_p;
                    for c in 0..head {
                        let v = x.v[key(j) + c];
                        out.add(at + c, p[j] * v, (p[j] * (ep + count * UNIT) + small) * v.abs());
                    }
                }
                let g = &x.dout[at..at + head];
                let bound_out: Vec<f64> = (0..head)
                    .map(|c| {
                        let (value, bound) = (out.value[at + c].abs(), out.bound[at + c]);
                        bound + (value + bound) * unit(element) + small
                    })
                    .collect();
                let (mut delta, mut edelta) = (0.0, 0.0);
                for c in 0..head {
                    let o = out.value[at + c];
                    delta += g[c] * o;
                    edelta += g[c].abs() * (bound_out[c] + head as f64 * UNIT * o.abs());
                }
                for j in 0..k_len {
                    if p[j] == 0.0 {
                        continue;
                    }
                    let scale = x.scale.as_ref().map_or(1.0, |scale| scale[b * k_len + j]);
                    let ep = es[j]
                        + log_sums.bound[line]
                        + UNIT * (3.0 * (s[j].abs() + log_sum.abs()) + 8.0);
                    let (mut dp, mut size) = (0.0, 0.0);
                    for (c, g) in g.iter().enumerate() {
                        let v = x.v[key(j) + c];
                        dp += g * v;
                        size += (g * v).abs();
                        let ep = p[j] * (ep + unit_p + terms) + small;
                        dv.add(key(j) + c, p[j] * g, ep * g.abs());
                    }
                    let edp = head as f64 * UNIT * size + 4.0 * UNIT * (dp.abs() + delta.abs());
                    let ds = p[j] * (dp - delta) * scale;
                    let eds = p[j] * scale.abs() * (edp + edelta) * (1.0 + ep)
                        + ds.abs() * (ep + unit_p)
                        + small;
                    for c in 0..head {
                        let (q, k) = (x.q[at + c], x.k[key(j) + c]);
                        let eq = eds + ds.abs() * UNIT * (k_len + 8) as f64;
                        dq.add(at + c, factor * ds * k, factor * eq * k.abs());
                        let ek = eds + ds.abs() * terms;
                        dk.add(key(j) + c, factor * ds * q, factor * ek * q.abs());
                    }
                }
            }
        }
    }
    Results {
        out: out.stored(element),
        log_sums: log_sums.stored(Element::F32),
        dq: dq.stored(element),
        dk: dk.stored(element),
        dv: dv.stored(element),
    }
}
