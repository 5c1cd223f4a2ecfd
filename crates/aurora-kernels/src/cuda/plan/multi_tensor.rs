//! Multi-tensor launches: many tensors of any lengths in one launch.

use candle_core::Result;

use crate::Error;

/// Elements per block.
const CHUNK: usize = 2048;

/// Assignment of blocks to tensors.
#[derive(Debug, Clone, Default)]
pub(crate) struct TensorBlocks {
    /// First block of each tensor.
    pub(crate) first: Vec<i32>,
    /// Tensor of each block.
    pub(crate) tensor: Vec<i32>,
}

impl TensorBlocks {
    /// Blocks for tensors of these lengths; an empty one has no block.
    pub(crate) fn of(op: &'static str, lengths: &[usize]) -> Result<Self> {
        let count = lengths.iter().try_fold(0usize, |sum, &n| sum.checked_add(n.div_ceil(CHUNK)));
        if count.is_none_or(|count| count > i32::MAX as usize) || lengths.len() > i32::MAX as usize
        {
            return Err(Error::Argument {
                op,
                name: "tensors",
                shape: vec![lengths.len()],
                expected: format!("at most {} blocks of {CHUNK} elements", i32::MAX),
            }
            .into());
        }
        let mut blocks = Self::default();
        for (index, &length) in lengths.iter().enumerate() {
            blocks.first.push(blocks.tensor.len() as i32);
            blocks.tensor.extend(std::iter::repeat_n(index as i32, length.div_ceil(CHUNK)));
        }
        Ok(blocks)
    }

    /// Bytes of the second table, as it has to lie in device memory.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.tensor.iter().flat_map(|index| index.to_ne_bytes()).collect()
    }
}

/// Bytes of an array of parameter structs, as it has to lie in device memory.
pub(crate) fn bytes_of<P: crate::cuda::Params>(structs: &[P]) -> Vec<u8> {
    let mut bytes = vec![0; size_of_val(structs)];
    // SAFETY: there is room, and the structs have no padding (see launch_params.h), so that every
    // byte of them is initialized.
    unsafe {
        let from = structs.as_ptr().cast::<u8>();
        bytes.as_mut_ptr().copy_from_nonoverlapping(from, bytes.len());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_chunk_has_a_block() {
        let blocks = TensorBlocks::of("test", &[1, 0, CHUNK, CHUNK + 1, 5]).unwrap();
        assert_eq!(blocks.first, [0, 1, 1, 2, 4]);
        assert_eq!(blocks.tensor, [0, 2, 3, 3, 4]);
        assert!(TensorBlocks::of("test", &[usize::MAX, usize::MAX]).is_err());
        assert!(TensorBlocks::of("test", &[CHUNK << 31]).is_err());
    }
}
