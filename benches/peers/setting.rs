//! What a row is given: the files that `peer.py prepare` wrote, for an image size and a batch.

use std::path::PathBuf;

use aurora_benches::worker::Result;
use aurora_kernels::Precision;
use aurora_layers::checkpoint::{Checkpoint, read_tensors};
use aurora_layers::{Backbone, Blip, BlipConfig, BoundModel as View, Tensors};
use candle_core::{DType, Device, Tensor};

/// Rank of our adapters.
pub const RANK: usize = 64;
/// Rank of PyTorch's LoRAs.
pub const LORA_RANK: u64 = 32;
/// Tokens that PyTorch pads every text to.
pub const PADDED: u64 = 35;

/// One row's files and sizes.
#[derive(Debug, Clone)]
pub struct Setting {
    /// Folder of the files.
    pub out: PathBuf,
    /// Side of the images.
    pub size: usize,
    /// Images in a batch.
    pub batch: usize,
    /// Of our products.
    pub precision: Precision,
    /// The configuration's key, for steps of training.
    pub checkpoint: &'static str,
}

impl Setting {
    /// The model as the backbone has it, in the row's precision.
    pub fn bare(&self, blip: &Blip) -> Result<View> {
        let mut view = blip.bind_frozen()?;
        view.precision = self.precision;
        Ok(view)
    }
}

/// A row that is ready: what is timed, and the operations of our side and of the plain one.
pub struct PreparedCase {
    /// One run.
    pub run: Box<dyn FnMut() -> Result<()>>,
    /// By formula, ours and PyTorch's.
    pub operations: [u64; 2],
}

/// Token ids (texts, length) u32, mask (texts, length) f32.
pub struct Texts {
    /// Ids.
    pub ids: Tensor,
    /// Ones for tokens, zeros for padding.
    pub mask: Tensor,
}

impl Texts {
    /// Of a file with `input_ids` and `attention_mask`.
    pub fn of(inputs: &Tensors) -> Result<Self> {
        let ids = named(inputs, "input_ids")?.to_dtype(DType::U32)?;
        // Whole numbers are read as they are stored.
        Ok(Self { ids, mask: named(inputs, "attention_mask")?.to_dtype(DType::F32)? })
    }

    /// Tokens of each text, without padding.
    pub fn lengths(&self) -> Result<Vec<u64>> {
        let sums: Vec<f32> = self.mask.sum(1)?.to_vec1()?;
        Ok(sums.into_iter().map(|sum| sum as u64).collect())
    }
}

impl Setting {
    /// The model of the images' size.
    pub fn backbone(&self) -> Result<Backbone> {
        let folder = self.out.join(format!("model_{}", self.size));
        let path = folder.join("config.json");
        let config = BlipConfig::from_json(&std::fs::read_to_string(&path)?, &path)?;
        Ok(Checkpoint::open(&folder)?.backbone(&config, &Device::Cpu)?.0)
    }

    /// A batch: images, texts, the direction of row a's loss, negatives.
    pub fn inputs(&self) -> Result<Tensors> {
        self.read(&format!("inputs_{}_{}", self.size, self.batch))
    }

    /// Any of the files.
    pub fn read(&self, name: &str) -> Result<Tensors> {
        let path = self.out.join(format!("{name}.safetensors"));
        Ok(read_tensors(&path, DType::F32, &Device::Cpu)?)
    }
}

/// A tensor that a file must have.
pub fn named<'a>(inputs: &'a Tensors, name: &str) -> Result<&'a Tensor> {
    inputs.get(name).ok_or_else(|| format!("the inputs lack {name}").into())
}
