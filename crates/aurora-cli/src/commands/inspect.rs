//! `aurora inspect`: what a backbone folder, an adapter folder or a run folder holds.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use aurora_layers::{AdapterFolder, BlipConfig, HEADS, Part, Site, TuneSpec, Tuned, sites};
use aurora_train::run::Summary;
use safetensors::SafeTensors;

use crate::args::InspectArgs;
use crate::commands::shared::recall_table;
use crate::failure::bad_input;
use crate::nano;
use crate::output::{self, Table};

/// Runs the command.
///
/// # Errors
/// A path that is none of the three folders, files that cannot be read.
pub fn run(args: &InspectArgs) -> Result<()> {
    let path = args.path.as_path();
    if path == Path::new(nano::NAME) && !path.exists() {
        let config = BlipConfig::from_json(nano::CONFIG, Path::new("nano/config.json"))?;
        return backbone(nano::NAME, &config, nano::MODEL, args.tensors);
    }
    let has = |name: &str| path.join(name).is_file();
    if has("adapter_config.json") {
        adapter(path, args.tensors)
    } else if has("config.json") {
        let file = path.join("config.json");
        let config = BlipConfig::from_json(&read_text(&file)?, &file)?;
        let weights = read(&path.join("model.safetensors"))?;
        backbone(&path.display().to_string(), &config, &weights, args.tensors)
    } else if has("config.toml") {
        run_folder(path, args.tensors)
    } else {
        let what = if path.exists() { "holds" } else { "does not exist, so it holds" };
        Err(bad_input(format!(
            "{} {what} none of config.json (a backbone), adapter_config.json (an adapter), \
             config.toml (a run); `aurora inspect {}` shows the backbone inside the program",
            path.display(),
            nano::NAME
        )))
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|e| bad_input(format!("cannot read {}: {e}", path.display())))
}

fn read_text(path: &Path) -> Result<String> {
    std::fs::read_to_string(path)
        .map_err(|e| bad_input(format!("cannot read {}: {e}", path.display())))
}

/// One tensor as it stands in a file.
struct Stored {
    name: String,
    shape: Vec<usize>,
    dtype: String,
    bytes: u64,
}

impl Stored {
    fn values(&self) -> u64 {
        self.shape.iter().map(|size| *size as u64).product()
    }

    fn list(bytes: &[u8], path: &str) -> Result<Vec<Self>> {
        let file = SafeTensors::deserialize(bytes)
            .map_err(|e| bad_input(format!("{path} is not a whole safetensors file ({e})")))?;
        let mut list: Vec<Self> = file
            .tensors()
            .into_iter()
            .map(|(name, view)| Self {
                name,
                shape: view.shape().to_vec(),
                dtype: format!("{:?}", view.dtype()).to_lowercase(),
                bytes: view.data().len() as u64,
            })
            .collect();
        list.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(list)
    }
}

/// Tensors summed up under one heading.
#[derive(Default)]
struct Group {
    tensors: u64,
    values: u64,
    bytes: u64,
    dtypes: Vec<String>,
}

impl Group {
    fn add(&mut self, stored: &Stored) {
        self.tensors += 1;
        self.values += stored.values();
        self.bytes += stored.bytes;
        if !self.dtypes.contains(&stored.dtype) {
            self.dtypes.push(stored.dtype.clone());
        }
    }
}

/// A table of groups, in the order of their keys, with a total.
fn group_table<K: Ord>(
    heading: &str,
    list: &[Stored],
    key: impl Fn(&Stored) -> K,
    name: impl Fn(&K) -> String,
) -> Table {
    let mut groups: BTreeMap<K, Group> = BTreeMap::new();
    let mut total = Group::default();
    for stored in list {
        groups.entry(key(stored)).or_default().add(stored);
        total.add(stored);
    }
    let whole = total.values;
    let mut table = Table::new([heading, "tensors", "parameters", "share", "type", "size"]);
    let rows = groups.iter().map(|(key, group)| (name(key), group));
    for (name, group) in rows.chain([("total".to_owned(), &total)]) {
        table.row([
            name,
            group.tensors.to_string(),
            output::count(group.values),
            output::share(group.values, whole),
            group.dtypes.join(" "),
            output::bytes(group.bytes),
        ]);
    }
    table
}

fn tensor_table(list: &[Stored]) -> Table {
    let mut table = Table::new(["tensor", "shape", "type", "parameters"]);
    for stored in list {
        let shape = format!("{:?}", stored.shape);
        table.row([
            stored.name.clone(),
            shape,
            stored.dtype.clone(),
            output::count(stored.values()),
        ]);
    }
    table
}

fn backbone(name: &str, config: &BlipConfig, weights: &[u8], every_tensor: bool) -> Result<()> {
    let list = Stored::list(weights, &format!("{name}/model.safetensors"))?;
    let (vision, text) = (&config.vision, &config.text);
    output::line(&format!("{name}: a BLIP backbone for retrieval\n"));
    let mut sizes = Table::new(["tower", "width", "layers", "heads", "MLP", "input"]);
    sizes.row([
        "vision".to_owned(),
        vision.hidden_size.to_string(),
        vision.layers.to_string(),
        vision.heads.to_string(),
        vision.mlp_size.to_string(),
        format!("{0} x {0} pixels, patches of {1}", vision.image_size, vision.patch_size),
    ]);
    sizes.row([
        "text".to_owned(),
        text.hidden_size.to_string(),
        text.layers.to_string(),
        text.heads.to_string(),
        text.mlp_size.to_string(),
        format!(
            "up to {} of {} word pieces",
            text.max_positions,
            output::count(text.vocab_size as u64)
        ),
    ]);
    sizes.print();
    output::line(&format!("\ncommon space of {} values\n", config.projection_size));
    group_table("part", &list, |stored| tower_of(&stored.name), |tower| (*tower).to_owned())
        .print();
    output::line("");
    site_table(&sites(config)).print();
    if every_tensor {
        output::line("");
        tensor_table(&list).print();
    }
    Ok(())
}

fn tower_of(name: &str) -> &'static str {
    if name.starts_with("visual_encoder") {
        "vision tower"
    } else if HEADS.iter().any(|head| name.starts_with(head)) {
        "heads"
    } else if name.contains("embeddings") {
        "text embeddings"
    } else if name.contains("crossattention") {
        "text cross-attention"
    } else {
        "text tower"
    }
}

/// The sites of one kind are alike in every layer, so a line stands for all of them.
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

fn adapter(path: &Path, every_tensor: bool) -> Result<()> {
    let folder = AdapterFolder::read(path)?;
    let file = AdapterFolder::weights_path(path);
    let list = Stored::list(&read(&file)?, &file.display().to_string())?;
    output::line(&format!("{}: an adapter\n", path.display()));
    for (label, value) in described(&folder.spec) {
        output::line(&format!("{label:<10} {value}"));
    }
    output::line(&format!(
        "{:<10} {} (fingerprint {})\n",
        "made for", folder.base_model_name_or_path, folder.base_model_fingerprint
    ));
    let part = |stored: &Stored| {
        let name = stored.name.strip_prefix("base_model.").unwrap_or(&stored.name);
        Tuned::part(name.strip_prefix("model.").unwrap_or(name))
    };
    group_table("part", &list, part, |part| part_name(*part).to_owned()).print();
    let trained = list.iter().filter(|stored| part(stored) != Part::Buffer);
    let trained: u64 = trained.map(Stored::values).sum();
    let mut note = format!("\n{} values were trained", output::count(trained));
    let known = nano::backbone().context("the embedded backbone")?;
    if known.fingerprint()? == folder.base_model_fingerprint {
        let whole = known.parameters() as u64;
        note += &format!(
            ", {} of the backbone's {}",
            output::share(trained, whole),
            output::count(whole)
        );
    }
    output::line(&note);
    if every_tensor {
        output::line("");
        tensor_table(&list).print();
    }
    Ok(())
}

fn described(spec: &TuneSpec) -> Vec<(&'static str, String)> {
    let lower = |value: &dyn std::fmt::Debug| format!("{value:?}").to_lowercase();
    let mut lines = vec![("kind", lower(&spec.kind)), ("flavour", lower(&spec.flavour))];
    if spec.adapter().is_some() {
        lines.push(("rank", spec.rank.to_string()));
    }
    lines.push(("gate", if spec.gate { "yes" } else { "no" }.to_owned()));
    lines.push(("context", format!("{} slots", spec.context_slots)));
    lines.push(("heads", spec.modules_to_save.join(", ")));
    lines
}

fn part_name(part: Part) -> &'static str {
    match part {
        Part::Factor => "factors",
        Part::Gate => "gates",
        Part::Head => "heads",
        Part::Backbone => "backbone",
        Part::Buffer => "context bank",
    }
}

fn run_folder(path: &Path, every_tensor: bool) -> Result<()> {
    let file = path.join("summary.json");
    output::line(&format!("{}: a run", path.display()));
    if file.is_file() {
        let summary: Summary = serde_json::from_str(&read_text(&file)?)
            .map_err(|e| bad_input(format!("{} is not a summary: {e}", file.display())))?;
        output::line("");
        recall_table(&[("before", &summary.before), ("after", &summary.after)]).print();
        output::line(&format!(
            "\nseed {}, {} test pairs, {}",
            summary.seed,
            output::count(summary.test_pairs),
            output::duration(summary.seconds)
        ));
    } else {
        output::line("it has no summary.json: it did not reach its end, or is under way");
    }
    let folder = path.join("adapter");
    if folder.is_dir() {
        output::line("");
        adapter(&folder, every_tensor)?;
    }
    Ok(())
}
