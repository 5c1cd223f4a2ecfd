//! Image patches, the input of a patch embedding (Dosovitskiy et al. 2020, arXiv:2010.11929).

use candle_core::{Result, Tensor};

use crate::Error;

/// Patches of `images` (B, C, S, S), squares of `patch` pixels: (B, (S / patch)^2, C * patch * patch), patches row by
/// row, each in the order of a convolution weight (out, C, patch, patch) seen as (out, C * patch * patch). A patch
/// embedding is then a [`linear`](crate::linear). No gradient flows to the pixels.
///
/// # Errors
/// An image whose sides are not multiples of `patch`.
pub fn patchify(images: &Tensor, patch: usize) -> Result<Tensor> {
    let (batch, channels, height, width) = images.dims4()?;
    if patch == 0 || height % patch != 0 || width % patch != 0 {
        return Err(Error::Argument {
            op: "patchify",
            name: "images",
            shape: images.dims().to_vec(),
            expected: format!("sides that are multiples of the patch size {patch}"),
        }
        .into());
    }
    let (rows, columns) = (height / patch, width / patch);
    images
        .detach()
        .reshape((batch, channels, rows, patch, columns, patch))?
        .permute((0, 2, 4, 1, 3, 5))? // (B, rows, columns, C, patch, patch)
        .contiguous()?
        .reshape((batch, rows * columns, channels * patch * patch))
}
