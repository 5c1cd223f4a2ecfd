//! Momentum feature queue: features of earlier batches as further negatives for ITC (He et al. 2019,
//! arXiv:1911.05722).
//!
//! A ring buffer of `size` slots holds the momentum features of images and texts and the id of each
//! pair. Once it is full the oldest pair is overwritten. An empty slot has id [`EMPTY`] and zero
//! features; [`FeatureQueue::filled`] leaves such slots out. The reference code starts with random
//! unit features in them and uses them as negatives; [`FeatureQueue::all`] includes empty slots too.
//!
//! The ring is written in place, since at 57,600 slots a copy would cost more than the rest of a
//! step's work on it. A view shares its memory, and so does the graph of a loss over a view: enqueue
//! a batch after the backward pass of its loss, not before.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};

use crate::error::{Error, Result};

/// Id of an empty slot; no image or text may have it.
pub const EMPTY: i64 = -100;

/// Names of the saved tensors, as in BLIP checkpoints.
const NAMES: [&str; 4] = ["image_queue", "text_queue", "idx_queue", "ptr_queue"];

/// View of the queue's slots: features (slots, dim) each, and `slots` ids. The features are the queue's own memory:
/// they change with the next batch that is enqueued.
#[derive(Debug, Clone)]
pub struct QueueView {
    /// Momentum features of images, (slots, dim).
    pub image: Tensor,
    /// Momentum features of texts, (slots, dim).
    pub text: Tensor,
    /// Ids of the pairs.
    pub ids: Vec<i64>,
}

/// Ring buffer of momentum features.
#[derive(Debug)]
pub struct FeatureQueue {
    image: Tensor, // (size, dim)
    text: Tensor,  // (size, dim)
    ids: Vec<i64>,
    next: usize,
}

impl FeatureQueue {
    /// An empty queue of `size` slots (0: no queue) for features of length `dim`.
    ///
    /// # Errors
    /// A candle error when making the tensors.
    pub fn new(dim: usize, size: usize, device: &Device) -> Result<Self> {
        let zeros = || Tensor::zeros((size, dim), DType::F32, device);
        Ok(Self { image: zeros()?, text: zeros()?, ids: vec![EMPTY; size], next: 0 })
    }

    /// Number of slots.
    pub fn size(&self) -> usize {
        self.ids.len()
    }

    /// Feature length.
    pub fn dim(&self) -> usize {
        self.image.dims().get(1).copied().unwrap_or(0)
    }

    /// All slots, empty ones included.
    pub fn all(&self) -> QueueView {
        QueueView { image: self.image.clone(), text: self.text.clone(), ids: self.ids.clone() }
    }

    /// Filled slots, in the order of the ring.
    ///
    /// # Errors
    /// A candle error when gathering them.
    pub fn filled(&self) -> Result<QueueView> {
        let count = self.ids.iter().filter(|&&id| id != EMPTY).count();
        let ids = self.ids.iter().copied().filter(|&id| id != EMPTY).collect();
        // A ring fills from its first slot on; a loaded one may have gaps.
        if !self.ids[..count].contains(&EMPTY) {
            let (image, text) = (self.image.narrow(0, 0, count)?, self.text.narrow(0, 0, count)?);
            return Ok(QueueView { image, text, ids });
        }
        let rows: Vec<u32> =
            (0u32..).zip(&self.ids).filter(|s| *s.1 != EMPTY).map(|s| s.0).collect();
        let rows = Tensor::new(rows, self.image.device())?;
        let image = self.image.index_select(&rows, 0)?;
        let text = self.text.index_select(&rows, 0)?;
        Ok(QueueView { image, text, ids })
    }

    /// Enqueues a batch in place: `image` and `text` (batch, dim) overwrite the oldest slots, wrapping around at the
    /// end. Call it after the backward pass of a loss over the queue. Of a batch larger than the queue only the end
    /// stays.
    ///
    /// # Errors
    /// Shapes that do not fit each other or the queue.
    pub fn enqueue(&mut self, image: &Tensor, text: &Tensor, ids: &[i64]) -> Result<()> {
        let size = self.size();
        for (name, features) in [("image features", image), ("text features", text)] {
            let dim = self.image.dim(1)?;
            if features.dims() != [ids.len(), dim] {
                return Err(Error::Shape {
                    operation: "enqueue",
                    name: name.to_owned(),
                    found: features.dims().to_vec(),
                    expected: format!("[{}, {dim}] (ids, queue dim)", ids.len()),
                });
            }
        }
        if size == 0 || ids.is_empty() {
            return Ok(());
        }
        // Only the last `size` pairs can stay; the pointer moves as if all had been written.
        let skipped = ids.len().saturating_sub(size);
        let (start, count) = ((self.next + skipped) % size, ids.len() - skipped);
        overwrite(&self.image, &image.narrow(0, skipped, count)?, start)?;
        overwrite(&self.text, &text.narrow(0, skipped, count)?, start)?;
        for (offset, &id) in ids[skipped..].iter().enumerate() {
            self.ids[(start + offset) % size] = id;
        }
        self.next = (self.next + ids.len()) % size;
        Ok(())
    }

    /// Copy of the queue as tensors in BLIP's layout: `image_queue` and `text_queue` (dim, size),
    /// `idx_queue` (1, size), `ptr_queue` (1), the last two i64.
    ///
    /// # Errors
    /// A candle error when making the tensors.
    pub fn state(&self) -> Result<BTreeMap<String, Tensor>> {
        let device = self.image.device();
        let tensors = [
            self.image.t()?.force_contiguous()?,
            self.text.t()?.force_contiguous()?,
            Tensor::from_slice(&self.ids, (1, self.size()), device)?,
            Tensor::new(&[self.next as i64], device)?,
        ];
        Ok(NAMES.map(str::to_owned).into_iter().zip(tensors).collect())
    }

    /// Restores a queue from the tensors of [`FeatureQueue::state`]; others in `state` are ignored.
    ///
    /// # Errors
    /// A tensor missing, shapes that do not fit each other, a pointer outside of the queue.
    pub fn from_state(state: &BTreeMap<String, Tensor>) -> Result<Self> {
        let [Some(image), Some(text), Some(ids), Some(next)] = NAMES.map(|name| state.get(name))
        else {
            let missing = NAMES.iter().filter(|n| !state.contains_key(**n));
            let missing = missing.map(|n| (*n).to_owned()).collect();
            return Err(Error::State { what: "queue", missing, unexpected: Vec::new() });
        };
        let shape = |name: &str, tensor: &Tensor, expected: String| Error::Shape {
            operation: "load queue",
            name: name.to_owned(),
            found: tensor.dims().to_vec(),
            expected,
        };
        let &[dim, size] = image.dims() else {
            return Err(shape("image_queue", image, "[dim, size]".to_owned()));
        };
        if text.dims() != [dim, size] {
            return Err(shape("text_queue", text, format!("[{dim}, {size}] as image_queue")));
        }
        if ids.elem_count() != size {
            return Err(shape("idx_queue", ids, format!("[1, {size}]")));
        }
        if next.elem_count() != 1 {
            return Err(shape("ptr_queue", next, "[1]".to_owned()));
        }
        let ids: Vec<i64> = ids.flatten_all()?.to_dtype(DType::I64)?.to_vec1()?;
        let pointer = next.flatten_all()?.to_dtype(DType::I64)?.to_vec1::<i64>()?;
        let pointer = pointer.first().and_then(|&p| usize::try_from(p).ok());
        let next = pointer.filter(|&p| p < size || (p == 0 && size == 0));
        let next = next.ok_or(Error::Count {
            operation: "load queue",
            name: "as ptr_queue, a slot below the size",
            found: pointer.unwrap_or(0),
            expected: size,
        })?;
        // A copy, since the ring is written in place.
        let rows = |t: &Tensor| t.detach().to_dtype(DType::F32)?.t()?.force_contiguous();
        Ok(Self { image: rows(image)?, text: rows(text)?, ids, next })
    }
}

/// Writes `rows` (count <= size, dim) into `ring` (size, dim) from slot `start` on, wrapping around.
fn overwrite(ring: &Tensor, rows: &Tensor, start: usize) -> Result<()> {
    let (size, count) = (ring.dim(0)?, rows.dim(0)?);
    let rows = rows.detach().to_dtype(DType::F32)?;
    let before_end = count.min(size - start);
    for (from, count, to) in [(0, before_end, start), (before_end, count - before_end, 0)] {
        if count > 0 {
            ring.slice_set(&rows.narrow(0, from, count)?.contiguous()?, 0, to)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Features of pairs `ids`, (n, 2): (id, -id) for images, twice that for texts.
    fn features(ids: &[i64]) -> (Tensor, Tensor) {
        let values: Vec<f32> = ids.iter().flat_map(|&id| [id as f32, -id as f32]).collect();
        let image = Tensor::from_vec(values, (ids.len(), 2), &Device::Cpu).unwrap();
        let text = (&image * 2.0).unwrap();
        (image, text)
    }

    #[test]
    fn empty_slots_are_left_out() {
        let mut queue = FeatureQueue::new(2, 4, &Device::Cpu).unwrap();
        assert_eq!(queue.filled().unwrap().image.dims(), [0, 2]);
        let (image, text) = features(&[5, 6]);
        queue.enqueue(&image, &text, &[5, 6]).unwrap();
        let view = queue.filled().unwrap();
        assert_eq!(view.ids, [5, 6]);
        assert_eq!(view.text.to_vec2::<f32>().unwrap(), [[10.0, -10.0], [12.0, -12.0]]);
        assert_eq!(queue.all().ids, [5, 6, EMPTY, EMPTY]);
    }

    /// Neither a batch, whatever the fill, nor a view makes a copy. Saved state stays as it was.
    #[test]
    fn the_ring_is_written_in_place() {
        let mut queue = FeatureQueue::new(2, 3, &Device::Cpu).unwrap();
        let ring = queue.all();
        let (image, text) = features(&[1, 2]);
        queue.enqueue(&image, &text, &[1, 2]).unwrap();
        let (view, saved) = (queue.filled().unwrap(), queue.state().unwrap());
        assert_eq!(view.image.to_vec2::<f32>().unwrap(), [[1.0, -1.0], [2.0, -2.0]]);
        let (image, text) = features(&[3, 4]);
        queue.enqueue(&image, &text, &[3, 4]).unwrap();
        let rows = [[4.0, -4.0], [2.0, -2.0], [3.0, -3.0]];
        assert_eq!(ring.image.to_vec2::<f32>().unwrap(), rows);
        assert_eq!(view.image.to_vec2::<f32>().unwrap(), rows[..2]);
        assert_eq!(ring.text.to_vec2::<f32>().unwrap()[0], [8.0, -8.0]);
        let saved = saved["image_queue"].to_vec2::<f32>().unwrap();
        assert_eq!(saved[0], [1.0, 2.0, 0.0]);
    }

    /// Filled slots are found in any order of filling.
    #[test]
    fn a_loaded_queue_may_have_gaps() {
        let mut queue = FeatureQueue::new(2, 3, &Device::Cpu).unwrap();
        let (image, text) = features(&[1, 2, 3]);
        queue.enqueue(&image, &text, &[1, EMPTY, 3]).unwrap();
        let view = FeatureQueue::from_state(&queue.state().unwrap()).unwrap().filled().unwrap();
        assert_eq!(view.ids, [1, 3]);
        assert_eq!(view.image.to_vec2::<f32>().unwrap(), [[1.0, -1.0], [3.0, -3.0]]);
    }

    #[test]
    fn names_what_does_not_fit() {
        let mut queue = FeatureQueue::new(3, 4, &Device::Cpu).unwrap();
        let (image, text) = features(&[1]);
        let e = queue.enqueue(&image, &text, &[1]).unwrap_err().to_string();
        assert!(e.contains("image features") && e.contains("[1, 3]"), "{e}");
        let mut state = queue.state().unwrap();
        state.insert("ptr_queue".to_owned(), Tensor::new(&[4i64], &Device::Cpu).unwrap());
        assert!(FeatureQueue::from_state(&state).unwrap_err().to_string().contains("ptr_queue"));
        state.remove("idx_queue");
        assert!(FeatureQueue::from_state(&state).unwrap_err().to_string().contains("idx_queue"));
    }

    proptest! {
        // Oracle: one slot after the other.
        #[test]
        fn same_as_slot_by_slot(size in 0usize..9, batches in prop::collection::vec(0usize..12, 0..6)) {
            let mut queue = FeatureQueue::new(2, size, &Device::Cpu).unwrap();
            let (mut expected, mut next, mut id) = (vec![EMPTY; size], 0, 0);
            for batch in batches {
                let ids: Vec<i64> = (0..batch as i64).map(|i| id + i).collect();
                id += batch as i64;
                let (image, text) = features(&ids);
                queue.enqueue(&image, &text, &ids).unwrap();
                for id in ids.into_iter().filter(|_| size > 0) {
                    expected[next] = id;
                    next = (next + 1) % size;
                }
                let view = queue.all();
                prop_assert_eq!(&view.ids, &expected);
                for (id, row) in expected.iter().zip(view.image.to_vec2::<f32>().unwrap()) {
                    let id = if *id == EMPTY { 0.0 } else { *id as f32 };
                    prop_assert_eq!(row, vec![id, -id]);
                }
                let state = queue.state().unwrap();
                prop_assert_eq!(state["image_queue"].dims(), [2, size]);
                prop_assert_eq!(state["idx_queue"].dims(), [1, size]);
                let copy = FeatureQueue::from_state(&state).unwrap();
                prop_assert_eq!(copy.next, queue.next);
                prop_assert_eq!(copy.ids, view.ids);
                let (a, b) = (copy.text.to_vec2::<f32>().unwrap(), view.text.to_vec2::<f32>().unwrap());
                prop_assert_eq!(a, b);
            }
        }
    }
}
