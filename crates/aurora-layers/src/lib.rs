#![doc = include_str!("../README.md")]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed"))]

pub mod adapter;
mod adapter_set;
mod backbone;
mod blip;
mod block;
pub mod checkpoint;
mod config;
mod context;
mod count;
mod decoder;
mod error;
mod files;
mod folder;
mod gate;
mod generation;
mod heads;
pub mod merge;
pub mod peft;
pub mod released;
mod site;
mod spec;
mod targets;
pub mod tensors;
mod text;
mod tuned;
mod video;
mod vision;

pub use adapter_set::AdapterSet;
pub use backbone::Backbone;
pub use blip::{Blip, Prepared};
pub use config::{BlipConfig, DecoderTokens, Form, TextConfig, VisionConfig};
pub use error::{Error, Result};
pub use folder::{AdapterFolder, load_adapter, save_adapter};
pub use generation::Generation;
pub use heads::normalize;
pub use site::{Role, Site, Tower, sites};
pub use spec::{AdapterKind, Flavour, HEADS, Start, TuneSpec};
pub use targets::{LayerRange, Selection, Targets};
pub use tensors::Tensors;
pub use text::{CrossKeys, Seen, cls};
pub use tuned::{Part, Tuned};
pub use video::{clip_tokens, frame_scale};
