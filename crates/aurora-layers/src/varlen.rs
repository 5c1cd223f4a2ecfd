//! Unpadding: the tokens of a batch of texts as one packed tensor, as `unpad_input` of flash-attention.
//!
//! All operations of a text tower but attention work token by token, so they run on the packed tokens alone, (tokens,
//! width). For attention the tokens are scattered into a grid (batch, length) whose padding positions repeat some
//! token. These are inert: masked as keys, dropped as queries.

use crate::Result;
use candle_core::{DType, Tensor};

/// Layout of a batch of texts in a grid (batch, length).
#[derive(Debug, Clone)]
pub(crate) struct Unpadding {
    batch: usize,
    length: usize,
    pad_indices: Option<PadIndices>,
}

/// Index tensors of a grid with padding.
#[derive(Debug, Clone)]
struct PadIndices {
    indices: Tensor, // (tokens), where in the grid each token stands
    tokens: Tensor,  // (batch * length), which token stands at each place
    first: Tensor,   // (batch), the token at the start of each text
    columns: Tensor, // (tokens), the column of each token
}

impl Unpadding {
    /// Layout of texts of one length: every position of the grid is a token.
    pub(crate) fn dense(batch: usize, length: usize) -> Self {
        Self { batch, length, pad_indices: None }
    }

    /// Layout from a mask (batch, length), one for tokens and zero for padding, in any pattern. The grid is as long as
    /// the longest text. If any text begins with padding, nothing is left out.
    pub(crate) fn from_mask(mask: &Tensor) -> Result<Self> {
        let (batch, full) = mask.dims2()?;
        let rows: Vec<Vec<f32>> = mask.to_dtype(DType::F32)?.to_vec2()?;
        let token = |row: &[f32], column: usize| row.get(column).is_some_and(|one| *one != 0.0);
        let padded = rows.iter().flatten().any(|one| *one == 0.0);
        if !padded || rows.iter().any(|row| !token(row, 0)) {
            return Ok(Self::dense(batch, full));
        }
        let end = |row: &Vec<f32>| row.iter().rposition(|one| *one != 0.0).map_or(0, |at| at + 1);
        let length = rows.iter().map(end).max().unwrap_or(0);
        let (mut indices, mut tokens, mut first, mut columns) = (vec![], vec![], vec![], vec![]);
        for (text, row) in rows.iter().enumerate() {
            first.push(indices.len() as u32);
            for column in 0..length {
                if token(row, column) {
                    indices.push((text * length + column) as u32);
                    columns.push(column as u32);
                }
                // Padding repeats the token before it; there is one, since the first position is a token.
                tokens.push(indices.len() as u32 - 1);
            }
        }
        let index = |rows: Vec<u32>| -> Result<Tensor> {
            let count = rows.len();
            Ok(Tensor::from_vec(rows, count, mask.device())?)
        };
        let (indices, tokens) = (index(indices)?, index(tokens)?);
        let pad_indices =
            PadIndices { indices, tokens, first: index(first)?, columns: index(columns)? };
        Ok(Self { batch, length, pad_indices: Some(pad_indices) })
    }

    /// Number of texts.
    pub(crate) fn batch(&self) -> usize {
        self.batch
    }

    /// Length of the grid.
    pub(crate) fn length(&self) -> usize {
        self.length
    }

    /// Column of each token, (tokens); none where every position is a token.
    pub(crate) fn columns(&self) -> Option<&Tensor> {
        self.pad_indices.as_ref().map(|pad_indices| &pad_indices.columns)
    }

    /// Packs a grid (batch, length, ..) into its tokens (tokens, ..).
    pub(crate) fn unpad(&self, grid: &Tensor) -> Result<Tensor> {
        let rows = grid.flatten(0, 1)?;
        match &self.pad_indices {
            None => Ok(rows),
            Some(pad_indices) => Ok(rows.index_select(&pad_indices.indices, 0)?),
        }
    }

    /// Scatters tokens (tokens, width) into the grid (batch, length, width); padding positions repeat some token.
    pub(crate) fn scatter(&self, tokens: &Tensor) -> Result<Tensor> {
        let shape = (self.batch, self.length, ());
        match &self.pad_indices {
            None => Ok(tokens.reshape(shape)?),
            Some(pad_indices) => Ok(tokens.index_select(&pad_indices.tokens, 0)?.reshape(shape)?),
        }
    }

    /// First token of each text: tokens (tokens, width) to (batch, width).
    pub(crate) fn first(&self, tokens: &Tensor) -> Result<Tensor> {
        match &self.pad_indices {
            None => crate::cls(&self.scatter(tokens)?),
            Some(pad_indices) => Ok(tokens.index_select(&pad_indices.first, 0)?),
        }
    }

    /// Pads tokens (tokens, width) to (batch, `length`, width), which may be longer than the grid; zeros at padding.
    pub(crate) fn pad(&self, tokens: &Tensor, length: usize) -> Result<Tensor> {
        let Some(pad_indices) = &self.pad_indices else { return self.scatter(tokens) };
        let (_, width) = tokens.dims2()?;
        let grid =
            Tensor::zeros((self.batch * self.length, width), tokens.dtype(), tokens.device())?;
        let grid = grid.index_add(&pad_indices.indices, tokens, 0)?.reshape((
            self.batch,
            self.length,
            width,
        ))?;
        Ok(grid.pad_with_zeros(1, 0, length.saturating_sub(self.length))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    fn mask(rows: &[[f32; 5]]) -> Tensor {
        let flat: Vec<f32> = rows.iter().flatten().copied().collect();
        Tensor::from_vec(flat, (rows.len(), 5), &Device::Cpu).unwrap()
    }

    #[test]
    fn tokens_come_back_to_their_places() {
        // The last column is padding in both, and one text has a hole.
        let unpadding =
            Unpadding::from_mask(&mask(&[[1., 0., 1., 0., 0.], [1., 1., 1., 1., 0.]])).unwrap();
        assert_eq!(unpadding.length(), 4);
        let grid = Tensor::arange(0f32, 8., &Device::Cpu).unwrap().reshape((2, 4, 1)).unwrap();
        let tokens = unpadding.unpad(&grid).unwrap();
        assert_eq!(
            tokens.flatten_all().unwrap().to_vec1::<f32>().unwrap(),
            [0., 2., 4., 5., 6., 7.]
        );
        let values = |t: Tensor| t.squeeze(2).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(
            values(unpadding.scatter(&tokens).unwrap()),
            [[0., 0., 2., 2.], [4., 5., 6., 7.]]
        );
        let unpacked = values(unpadding.pad(&tokens, 5).unwrap());
        assert_eq!(unpacked, [[0., 0., 2., 0., 0.], [4., 5., 6., 7., 0.]]);
        assert_eq!(unpadding.first(&tokens).unwrap().to_vec2::<f32>().unwrap(), [[0.], [4.]]);
        assert_eq!(unpadding.columns().unwrap().to_vec1::<u32>().unwrap(), [0, 2, 0, 1, 2, 3]);
    }

    #[test]
    fn nothing_is_left_out_where_nothing_can_be() {
        for rows in [[[1f32; 5]; 2], [[0., 1., 1., 1., 1.], [1., 1., 0., 0., 0.]]] {
            let unpadding = Unpadding::from_mask(&mask(&rows)).unwrap();
            assert_eq!((unpadding.length(), unpadding.columns().is_none()), (5, true));
        }
    }
}
