//! Trainable parameters of each adapter kind on a backbone.

use std::collections::BTreeMap;

use anyhow::Result;
use aurora_layers::{AdapterConfig, AdapterKind, Architecture, BlipConfig, ParamGroup, Variant};
use aurora_train::config::Config;

use super::adapter::{described, param_group_name};
use super::values;
use crate::args::AdapterKindArg;
use crate::output::{self, Table};

/// Options of `aurora inspect` beside the path.
pub struct InspectOptions {
    /// True to list every tensor.
    pub tensors: bool,
    /// Adapter kind to show instead of all.
    pub kind: Option<AdapterKindArg>,
    /// Rank instead of the baseline's.
    pub rank: Option<usize>,
    /// Variant of the method.
    pub variant: Variant,
    /// Configuration of a run to show instead of a kind.
    pub run: Option<Config>,
}

/// Baselines: adapter kinds with the ranks they are usually compared at, in table order.
const BASELINES: [(AdapterKind, Variant, usize); 14] = [
    (AdapterKind::Cp, Variant::Paper, 64),
    (AdapterKind::Tucker, Variant::Paper, 32),
    (AdapterKind::Tucker, Variant::Reference, 32),
    (AdapterKind::TensorTrain, Variant::Paper, 16),
    (AdapterKind::Lora, Variant::Paper, 1),
    (AdapterKind::Lora, Variant::Paper, 8),
    (AdapterKind::Dora, Variant::Paper, 8),
    (AdapterKind::Vera, Variant::Paper, 256),
    (AdapterKind::Ia3, Variant::Paper, 0),
    (AdapterKind::Bottleneck, Variant::Paper, 128),
    (AdapterKind::Norms, Variant::Paper, 0),
    (AdapterKind::Biases, Variant::Paper, 0),
    (AdapterKind::Heads, Variant::Paper, 0),
    (AdapterKind::Full, Variant::Paper, 0),
];

/// Prints the trainable parameters of each kind.
pub fn kind_table(config: &BlipConfig, options: &InspectOptions) -> Result<()> {
    let rows: Vec<(AdapterKind, Variant, usize)> = match options.kind {
        None => BASELINES.to_vec(),
        Some(AdapterKindArg(kind)) => {
            let usual = BASELINES.iter().rev().find(|row| row.0 == kind).map_or(8, |row| row.2);
            vec![(kind, options.variant, options.rank.unwrap_or(usual))]
        }
    };
    let whole = values(config);
    let mut table =
        Table::new(["adapter", "rank", "parameters", "share", "gates", "with gates", "share"]);
    for (kind, variant, rank) in rows {
        let mut adapter_config = AdapterConfig::new(kind, variant, rank);
        // Heads are the same for every kind, and counted below.
        if kind != AdapterKind::Heads {
            adapter_config.modules_to_save.clear();
        }
        let counts = adapter_config.count_trained(config)?;
        let gates = counts.get(&ParamGroup::Gate).copied().unwrap_or(0) as u64;
        let all = counts.values().sum::<usize>() as u64;
        let name = match variant {
            Variant::Paper => kind.name().to_owned(),
            Variant::Reference => format!("{}, reference", kind.name()),
        };
        let rank = if adapter_config.is_ranked() { rank.to_string() } else { String::new() };
        let counted = |count: u64| [output::count(count), output::share(count, whole)];
        let mut cells = vec![name, rank];
        cells.extend(counted(all - gates));
        if gates > 0 {
            cells.push(output::count(gates));
            cells.extend(counted(all));
        }
        table.row(cells);
    }
    output::line(&format!("what an adapter would train, of {} values\n", output::count(whole)));
    table.print();
    if config.architecture != Architecture::Retrieval {
        return Ok(()); // It has no heads.
    }
    let heads = |variant| -> Result<String> {
        let adapter_config = AdapterConfig::new(AdapterKind::Heads, variant, 0);
        let count: usize = adapter_config.count_trained(config)?.values().sum();
        Ok(format!(
            "{} ({})",
            output::count(count as u64),
            adapter_config.modules_to_save.join(", ")
        ))
    };
    output::line(&format!(
        "\nheads are trained beside each: {}; in variant reference {}",
        heads(Variant::Paper)?,
        heads(Variant::Reference)?
    ));
    Ok(())
}

/// Prints the trainable parameters of a run's configuration.
pub fn run_table(config: &BlipConfig, run: &Config) -> Result<()> {
    let adapter_config = run.adapter.adapter_config();
    output::line("what a run with these settings would train\n");
    for (label, value) in described(&adapter_config) {
        output::line(&format!("{label:<10} {value}"));
    }
    output::line("");
    let whole = values(config);
    let counts: BTreeMap<ParamGroup, usize> = adapter_config.count_trained(config)?;
    let mut table = Table::new(["part", "parameters", "share"]);
    let total = counts.values().sum::<usize>();
    let parts = counts.iter().map(|(part, count)| (param_group_name(*part), *count));
    for (name, count) in parts.chain([("total", total)]) {
        let count = count as u64;
        table.row([name.to_owned(), output::count(count), output::share(count, whole)]);
    }
    table.print();
    if !adapter_config.targets.is_all() {
        output::line(&format!(
            "\nwhat its targets choose: {}",
            adapter_config.target_report(config)?
        ));
    }
    Ok(())
}
