//! Setting of a benchmark: the files that `peer.py prepare` wrote, for an image size and a batch.

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

/// Files and sizes of one benchmark.
#[derive(Debug, Clone)]
pub struct Setting {
    /// Folder of the files.
    pub out: PathBuf,
    /// Image size in pixels.
    pub size: usize,
    /// Batch size.
    pub batch: usize,
    /// Precision of our matmuls.
    pub precision: Precision,
    /// Gradient checkpointing of training steps, the value of the configuration's key.
    pub checkpoint: &'static str,
}

impl Setting {
    /// Frozen model in the precision of the benchmark.
    pub fn bare(&self, blip: &Blip) -> Result<View> {
        let mut view = blip.bind_frozen()?;
        view.precision = self.precision;
        Ok(view)
    }
}

/// Benchmark that is ready to run: the timed closure, and the operations of both sides.
pub struct PreparedCase {
    /// One run.
    pub run: Box<dyn FnMut() -> Result<()>>,
    /// Operations by formula, ours and PyTorch's.
    pub operations: [u64; 2],
}

/// Texts as token ids (texts, length) u32 and mask (texts, length) f32.
pub struct Texts {
    /// Token ids.
    pub ids: Tensor,
    /// Attention mask: ones for tokens, zeros for padding.
    pub mask: Tensor,
}

impl Texts {
    /// Reads the `input_ids` and `attention_mask` of a file.
    pub fn of(inputs: &Tensors) -> Result<Self> {
        let ids = named(inputs, "input_ids")?.to_dtype(DType::U32)?;
        // Integers are read as they are stored.
        Ok(Self { ids, mask: named(inputs, "attention_mask")?.to_dtype(DType::F32)? })
    }

    /// Tokens of each text, without padding.
    pub fn lengths(&self) -> Result<Vec<u64>> {
        let sums: Vec<f32> = self.mask.sum(1)?.to_vec1()?;
        Ok(sums.into_iter().map(|sum| sum as u64).collect())
    }
}

impl Setting {
    /// Backbone for the image size.
    pub fn backbone(&self) -> Result<Backbone> {
        let folder = self.out.join(format!("model_{}", self.size));
        let path = folder.join("config.json");
        let config = BlipConfig::from_json(&std::fs::read_to_string(&path)?, &path)?;
        Ok(Checkpoint::open(&folder)?.backbone(&config, &Device::Cpu)?.0)
    }

    /// Inputs of a batch: images, texts, the direction of row a's loss, negatives.
    pub fn inputs(&self) -> Result<Tensors> {
        self.read(&format!("inputs_{}_{}", self.size, self.batch))
    }

    /// Reads any of the files.
    pub fn read(&self, name: &str) -> Result<Tensors> {
        let path = self.out.join(format!("{name}.safetensors"));
        Ok(read_tensors(&path, DType::F32, &Device::Cpu)?)
    }
}

/// Required tensor of a file.
pub fn named<'a>(inputs: &'a Tensors, name: &str) -> Result<&'a Tensor> {
    inputs.get(name).ok_or_else(|| format!("the inputs lack {name}").into())
}
