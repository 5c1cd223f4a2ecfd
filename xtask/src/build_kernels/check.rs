//! `--check`: disagreements between the table of kernels in Rust and the compiled fatbins.

use std::collections::BTreeSet;

use super::manifest::{Manifest, Module};
use super::resources::Resources;
use crate::symbols::Source;

/// Path of the table, for messages.
const TABLE: &str = "crates/aurora-kernels/src/cuda/symbols.rs";

/// Disagreements, each with the way out.
///
/// `left_out` are the sources that none of the requested architectures apply to.
pub fn problems(table: &[Source], manifest: &Manifest, left_out: &[String]) -> Vec<String> {
    let mut problems = repeated(table);
    for module in &manifest.modules {
        match table.iter().find(|source| source.path == module.source) {
            Some(source) => compare(source, module, &mut problems),
            None => problems.push(format!(
                "kernels/{} is not in the table; add it with its kernels to {TABLE}",
                module.source
            )),
        }
        if let Some(first) = module.warnings.first() {
            problems.push(format!(
                "nvcc warns of kernels/{}, see above ({first}); mend it",
                module.source
            ));
        }
    }
    for source in table {
        let built = manifest.modules.iter().any(|module| module.source == source.path);
        if !built && !left_out.iter().any(|path| path == source.path) {
            problems.push(format!(
                "{TABLE} names {}, and there is no kernels/{}; write it or drop the entry",
                source.path, source.path
            ));
        }
    }
    problems
}

/// Duplicate paths and symbols.
fn repeated(table: &[Source]) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let kernels = table.iter().flat_map(|source| source.kernels).map(|kernel| kernel.symbol);
    let names = table.iter().map(|source| source.path).chain(kernels);
    let twice = names.filter(|name| !seen.insert(*name));
    twice.map(|name| format!("{TABLE} names {name} twice; drop one")).collect()
}

/// Compares one source's entry with its compiled module.
fn compare(source: &Source, module: &Module, problems: &mut Vec<String>) {
    let (path, place) = (source.path, format!("kernels/{}", source.path));
    let mut unknown = BTreeSet::new();
    for built in &module.kernels {
        match source.kernels.iter().find(|kernel| kernel.symbol == built.symbol) {
            Some(kernel) if kernel.spill_free => problems.extend(spills(built, &place)),
            Some(_) => {}
            None => drop(unknown.insert(built.symbol.as_str())),
        }
    }
    for symbol in unknown {
        problems.push(format!(
            "{place} has the kernel {symbol}, which the table does not know; add it to the entry \
            {path} in {TABLE}, or drop it"
        ));
    }
    for kernel in source.kernels {
        for architecture in &module.architectures {
            let there = module
                .kernels
                .iter()
                .any(|built| built.symbol == kernel.symbol && built.architecture == *architecture);
            if !there {
                problems.push(format!(
                    "{TABLE} names {} in {path}, and its fatbin has none for {architecture}; \
                    declare it with KERNEL in {place}, or drop it from the table",
                    kernel.symbol
                ));
            }
        }
    }
}

/// Error of a spill-free kernel that spills, if it does.
fn spills(built: &Resources, place: &str) -> Option<String> {
    (built.spill_stores + built.spill_loads > 0).then(|| {
        format!(
            "{} is marked spill-free and spills for {}: {} bytes stored, {} loaded, at {} \
            registers; use smaller tiles or fewer threads in {place}, or drop the mark",
            built.symbol,
            built.architecture,
            built.spill_stores,
            built.spill_loads,
            built.registers
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::symbols::Kernel;

    const KERNELS: &[Kernel] = &[
        Kernel { symbol: "k_f32", spill_free: true },
        Kernel { symbol: "k_f16", spill_free: false },
    ];
    const TABLE_OF_ONE: &[Source] = &[Source { path: "norm/k.cu", kernels: KERNELS }];

    fn built() -> Manifest {
        let kernel = |symbol: &str| Resources {
            symbol: symbol.into(),
            architecture: "sm_80".into(),
            registers: 32,
            ..Resources::default()
        };
        let module = Module {
            source: "norm/k.cu".into(),
            architectures: vec!["sm_80".into()],
            kernels: vec![kernel("k_f32"), kernel("k_f16")],
            ..Module::default()
        };
        Manifest { modules: vec![module] }
    }

    /// The one problem after `edit` has broken what was built.
    fn problem(edit: impl FnOnce(&mut Module)) -> String {
        let mut manifest = built();
        edit(&mut manifest.modules[0]);
        let found = problems(TABLE_OF_ONE, &manifest, &[]);
        assert_eq!(found.len(), 1, "{found:?}");
        found.into_iter().next().unwrap()
    }

    #[test]
    fn a_table_that_agrees_has_no_problems() {
        assert_eq!(problems(TABLE_OF_ONE, &built(), &[]), [""; 0]);
    }

    #[test]
    fn a_spill_counts_where_the_kernel_is_marked() {
        let marked = problem(|module| module.kernels[0].spill_loads = 8);
        assert!(marked.starts_with("k_f32 is marked spill-free and spills for sm_80"), "{marked}");
        let mut manifest = built();
        manifest.modules[0].kernels[1].spill_stores = 8;
        assert_eq!(problems(TABLE_OF_ONE, &manifest, &[]), [""; 0]);
    }

    #[test]
    fn the_table_and_the_fatbin_have_the_same_kernels() {
        let unknown = problem(|module| {
            let more = Resources { symbol: "k_f64".into(), ..module.kernels[0].clone() };
            module.kernels.push(more);
        });
        assert!(unknown.contains("kernel k_f64, which the table does not know"), "{unknown}");
        let missing = problem(|module| drop(module.kernels.pop()));
        assert!(missing.contains("names k_f16 in norm/k.cu"), "{missing}");
        let for_one_alone = problem(|module| {
            module.architectures.push("sm_90a".into());
            let mut more = module.kernels[0].clone();
            more.architecture = "sm_90a".into();
            module.kernels.push(more);
        });
        assert!(for_one_alone.contains("k_f16") && for_one_alone.contains("none for sm_90a"));
    }

    #[test]
    fn the_table_and_the_folder_have_the_same_sources() {
        let mut manifest = built();
        manifest.modules.push(Module { source: "norm/other.cu".into(), ..Module::default() });
        let found = problems(TABLE_OF_ONE, &manifest, &[]);
        assert!(found[0].starts_with("kernels/norm/other.cu is not in the table"), "{found:?}");
        let nothing = Manifest::default();
        let gone = problems(TABLE_OF_ONE, &nothing, &[]);
        assert!(gone[0].contains("there is no kernels/norm/k.cu"), "{gone:?}");
        assert_eq!(problems(TABLE_OF_ONE, &nothing, &["norm/k.cu".to_owned()]), [""; 0]);
    }

    #[test]
    fn names_stand_once_and_warnings_are_mended() {
        let twice = [TABLE_OF_ONE[0], TABLE_OF_ONE[0]];
        assert_eq!(problems(&twice, &built(), &[]).len(), 3);
        let warned = problem(|module| module.warnings.push("k.cu(2): warning: unused".into()));
        assert!(warned.starts_with("nvcc warns of kernels/norm/k.cu"), "{warned}");
    }
}
