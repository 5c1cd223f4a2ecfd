//! `aurora inspect` of a backbone.

use std::collections::BTreeSet;

use anyhow::Result;
use aurora_layers::checkpoint::{CheckpointFormat, PretrainedSource, ignored_reason};
use aurora_layers::{Architecture, Blip, BlipConfig, HEADS, Site, reference_checkpoint, sites};

use super::kinds::{InspectOptions, kind_table, run_table};
use super::tensor_table::{TensorEntry, part_table, tensor_table};
use crate::output::{self, Table};

/// Prints a backbone on disk, or the model that a lone `config.json` describes.
pub fn print(pretrained: &PretrainedSource, options: &InspectOptions) -> Result<()> {
    let name = pretrained.path.display();
    let from = match pretrained.format {
        CheckpointFormat::HuggingFace => "Hugging Face's layout",
        CheckpointFormat::Original => "a file of the original code, its sizes told by shapes",
    };
    let (list, from) = match &pretrained.checkpoint {
        Some(checkpoint) => (TensorEntry::of_checkpoint(checkpoint), from.to_owned()),
        None => {
            let from = match pretrained.format {
                CheckpointFormat::HuggingFace => "Hugging Face's configuration",
                CheckpointFormat::Original => from,
            };
            (
                TensorEntry::of_config(&pretrained.config),
                format!("{from} without weights, counted as f32"),
            )
        }
    };
    let heading =
        format!("{name}: a BLIP backbone for {} ({from})", pretrained.config.architecture);
    print_listed(&heading, &pretrained.config, &list, options)
}

/// Prints a backbone from a list of its tensors, wherever they came from.
pub fn print_listed(
    heading: &str,
    config: &BlipConfig,
    list: &[TensorEntry],
    options: &InspectOptions,
) -> Result<()> {
    output::line(&format!("{heading}\n"));
    size_table(config).print();
    if config.architecture == Architecture::Retrieval {
        output::line(&format!("\ncommon space of {} values", config.projection_dim));
    }
    output::line("");
    let wanted: BTreeSet<String> =
        Blip::param_shapes(config).into_iter().map(|(name, _)| name).collect();
    let (own, beside): (Vec<_>, Vec<_>) =
        list.iter().partition(|tensor| wanted.contains(&tensor.name));
    part_table(own, |tensor| tower_of(&tensor.name), |tower| tower).print();
    if !beside.is_empty() {
        output::line("\nbeside the model\n");
        let reason = |tensor: &TensorEntry| match ignored_reason(&tensor.name, &config.architecture)
        {
            Some(reason) => reason,
            None if reference_checkpoint::is_adapter(&tensor.name) => {
                "adapter of the reference code"
            }
            None => "unknown",
        };
        part_table(beside, reason, |reason| reason).print();
    }
    let sites = sites(config);
    let slices: usize = sites.iter().map(|site| site.slices).sum();
    output::line(&format!("\n{} maps can take a delta, in {slices} slices\n", sites.len()));
    site_table(&sites).print();
    output::line("");
    match &options.run {
        Some(run) => run_table(config, run)?,
        None => kind_table(config, options)?,
    }
    if options.tensors {
        output::line("");
        tensor_table(list).print();
    }
    Ok(())
}

fn size_table(config: &BlipConfig) -> Table {
    let (vision, text) = (&config.vision, &config.text);
    let mut sizes = Table::new(["tower", "width", "layers", "heads", "MLP", "input"]);
    let mut row = |tower: &str, numbers: [usize; 4], input: String| {
        let numbers = numbers.map(|number| number.to_string());
        sizes.row(std::iter::once(tower.to_owned()).chain(numbers).chain([input]));
    };
    row(
        "vision",
        [
            vision.hidden_size,
            vision.num_hidden_layers,
            vision.num_attention_heads,
            vision.intermediate_size,
        ],
        format!("{0} x {0} pixels, patches of {1}", vision.image_size, vision.patch_size),
    );
    let words = output::count(text.vocab_size as u64);
    let towers = [
        ("text", config.architecture.encodes()),
        ("decoder", config.architecture.decodes().is_some()),
    ];
    for (tower, _) in towers.into_iter().filter(|(_, there)| *there) {
        row(
            tower,
            [
                text.hidden_size,
                text.num_hidden_layers,
                text.num_attention_heads,
                text.intermediate_size,
            ],
            format!("up to {} of {words} word pieces", text.max_position_embeddings),
        );
    }
    sizes
}

/// Tower or head of a tensor, by its original name.
pub fn tower_of(name: &str) -> &'static str {
    if name.starts_with("visual_encoder") {
        "vision tower"
    } else if HEADS.iter().any(|head| name.starts_with(head)) {
        "heads"
    } else if name.starts_with("text_decoder") {
        "text decoder"
    } else if name.contains("embeddings") {
        "text embeddings"
    } else if name.contains("crossattention") {
        "text cross-attention"
    } else {
        "text tower"
    }
}

/// Table of adapter sites: a site is alike in every layer, so one line stands for all layers.
fn site_table(sites: &[Site]) -> Table {
    let mut kinds: Vec<(String, &Site, usize)> = Vec::new();
    for site in sites {
        let kind = site.path.replace(&format!(".{}.", site.layer), ".*.");
        match kinds.iter_mut().find(|known| known.0 == kind) {
            Some(known) => known.2 += 1,
            None => kinds.push((kind, site, 1)),
        }
    }
    let mut table = Table::new(["site", "layers", "in", "out", "slices"]);
    for (kind, site, count) in kinds {
        let sizes = [count, site.in_dim, site.out_dim, site.slices].map(|size| size.to_string());
        table.row(std::iter::once(kind).chain(sizes));
    }
    table
}
