//! `cargo xtask build-kernels`: nvcc over every source in `kernels/`, into `target/kernels`.
//!
//! One source is one fatbin. Beside them lies `manifest.json`, which records the inputs of each and the resources of
//! its kernels; a module that would come out the same is left as it is. With `--check`, the table of kernels in Rust
//! and the generated parameters are compared with the build.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use rayon::iter::{IntoParallelRefIterator as _, ParallelIterator as _};

use compiler::Compiler;
use manifest::{Manifest, Module};
use sources::Source;

mod check;
pub mod compiler;
pub mod manifest;
pub mod resources;
mod sources;

/// nvcc flags of every source. Source lines are kept for the sanitizer and profilers, and compressed, because they are
/// most of a fatbin.
const FLAGS: [&str; 7] = [
    "-fatbin",
    "-std=c++17",
    "-O3",
    "-lineinfo",
    "-Xfatbin=-compress-all",
    "-Xptxas=-v",
    "-Ikernels/include",
];

/// Arguments of `cargo xtask build-kernels`.
#[derive(Debug, clap::Args)]
pub struct BuildKernelsArgs {
    /// Compute capabilities to compile for. A source named `*_sm90.cu` is compiled for 90a alone.
    #[arg(long, value_name = "LIST", default_value = "80,90a")]
    pub arch: String,
    /// Embed PTX of the lowest of them in each fatbin, for GPUs that none of them fits.
    #[arg(long)]
    pub ptx: bool,
    /// Fail where a kernel marked spill-free spills, where the table of kernels in Rust and the
    /// fatbins disagree, where nvcc warns, or where the generated parameters are out of date.
    #[arg(long)]
    pub check: bool,
}

/// Compiles changed sources, writes the manifest and prints it.
///
/// # Errors
/// No nvcc can be had, a source does not compile, or, with `--check`, something disagrees.
pub fn run(arguments: &BuildKernelsArgs) -> Result<()> {
    let root = crate::workspace_root();
    let wanted = sources::architectures(&arguments.arch)?;
    let compiler = compiler::find(&root.join("target/cuda"))?;
    println!(
        "nvcc {} (found by {}: {})",
        compiler.version,
        compiler.origin,
        compiler.nvcc.display()
    );
    let sources = sources::find(&root.join("kernels"), &wanted)?;
    let folder = root.join("target/kernels");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;

    let before = Manifest::read(&folder);
    let plans: Vec<Plan> =
        sources.iter().map(|source| Plan::new(source, &compiler, arguments.ptx)).collect();
    let (kept, changed): (Vec<_>, Vec<_>) = plans
        .iter()
        .map(|plan| (plan, before.modules.iter().find(|module| plan.made(module, &folder))))
        .partition(|(_, module)| module.is_some());
    let mut modules: Vec<Module> = kept.into_iter().filter_map(|(_, it)| it.cloned()).collect();
    let changed: Vec<&Plan> = changed.into_iter().map(|(plan, _)| plan).collect();

    let bar = progress("compiling kernels", changed.len());
    let built: Vec<Result<Module>> = changed
        .par_iter()
        .map(|plan| {
            bar.set_message(plan.module.name.clone());
            let module = compile(&root, &folder, &compiler.nvcc, plan);
            bar.inc(1);
            module
        })
        .collect();
    bar.finish_and_clear();
    let mut failed = Vec::new();
    for module in built {
        match module {
            Ok(module) => modules.push(module),
            Err(error) => failed.push(format!("{error:#}")),
        }
    }
    modules.sort_by(|a, b| a.name.cmp(&b.name));
    let manifest = Manifest { modules };
    manifest.write(&folder)?;
    if manifest != before {
        wake_cargo(&root)?;
    }
    // The fatbin of a source that no longer compiles is removed too: it must not run.
    clear(&folder, &manifest)?;
    if !failed.is_empty() {
        bail!("{} of {} sources do not compile:\n{}", failed.len(), plans.len(), failed.join("\n"));
    }
    report(&folder, &manifest, changed.len());

    let left_out = left_out(&root.join("kernels"), &manifest);
    let mut problems = check::problems(crate::symbols::SOURCES, &manifest, &left_out);
    if arguments.check {
        problems.extend(crate::bindings::drift(&root)?);
    }
    match (problems.is_empty(), arguments.check) {
        (true, true) => println!("check: the table, the fatbins and the parameters agree"),
        (true, false) => {}
        (false, true) => {
            bail!("{} problems:\n  - {}", problems.len(), problems.join("\n  - "))
        }
        (false, false) => {
            eprintln!("note: --check would refuse this:\n  - {}", problems.join("\n  - "));
        }
    }
    Ok(())
}

/// Makes cargo rerun the build script that embeds the fatbins. The script cannot name a manifest that is not there
/// yet, for then it would run at every build; so its own modification time is updated.
fn wake_cargo(root: &Path) -> Result<()> {
    let script = root.join("crates/aurora-kernels/build.rs");
    let touched = fs::File::options()
        .append(true)
        .open(&script)
        .and_then(|file| file.set_modified(std::time::SystemTime::now()));
    touched.with_context(|| format!("cannot set the time of {}", script.display()))
}

/// Build plan of one source.
struct Plan {
    /// Manifest entry of the module, but for what only nvcc can tell.
    module: Module,
}

impl Plan {
    fn new(source: &Source, compiler: &Compiler, ptx: bool) -> Self {
        let mut flags: Vec<String> = FLAGS.map(str::to_owned).into();
        let code = |name: &String| format!("-gencode=arch=compute_{name},code=sm_{name}");
        flags.extend(source.architectures.iter().map(code));
        // PTX for an `a` runs on that very architecture and on no later one.
        let portable = |name: &&String| name.ends_with(|c: char| c.is_ascii_digit());
        let lowest = source.architectures.iter().find(portable).filter(|_| ptx);
        let ptx = lowest.map(|name| format!("compute_{name}"));
        flags.extend(ptx.iter().map(|name| format!("-gencode=arch={name},code={name}")));
        let module = Module {
            name: source.module.clone(),
            source: source.path.clone(),
            sha256: source.sha256.clone(),
            compiler: compiler.version.clone(),
            flags,
            architectures: source.architectures.iter().map(|name| format!("sm_{name}")).collect(),
            ptx,
            ..Module::default()
        };
        Self { module }
    }

    /// True if `module` is what this plan would make, and its fatbin is still there.
    fn made(&self, module: &Module, folder: &Path) -> bool {
        let plan = Module {
            bytes: module.bytes,
            warnings: module.warnings.clone(),
            kernels: module.kernels.clone(),
            ..self.module.clone()
        };
        let there = fs::metadata(fatbin(folder, module)).is_ok_and(|it| it.len() == module.bytes);
        plan == *module && there
    }
}

fn fatbin(folder: &Path, module: &Module) -> PathBuf {
    folder.join(format!("{}.fatbin", module.name))
}

/// Runs nvcc on one source, from `root`, so that the paths it records say nothing of the machine.
fn compile(root: &Path, folder: &Path, nvcc: &Path, plan: &Plan) -> Result<Module> {
    let mut module = plan.module.clone();
    let aside = tempfile::tempdir_in(folder)?;
    let output = aside.path().join("fatbin");
    let mut command = Command::new(nvcc);
    command.current_dir(root).args(&module.flags).arg(format!("kernels/{}", module.source));
    let done = command.arg("-o").arg(&output).output().context("cannot start nvcc")?;
    let text = String::from_utf8_lossy(&done.stdout) + String::from_utf8_lossy(&done.stderr);
    if !done.status.success() {
        let hint = if text.contains("No such file or directory") && text.contains("preprocess") {
            "\nnvcc needs a C++ compiler for the machine itself: install one (Debian, Ubuntu: \
            apt-get install g++)"
        } else {
            ""
        };
        bail!("kernels/{}: nvcc stopped ({}):\n{}{hint}", module.source, done.status, text.trim());
    }
    let said = resources::parse(&text)
        .with_context(|| format!("kernels/{}: what ptxas said", module.source))?;
    module.kernels = said.kernels;
    module.kernels.sort_by(|a, b| {
        (&a.symbol, &a.architecture.len(), &a.architecture).cmp(&(
            &b.symbol,
            &b.architecture.len(),
            &b.architecture,
        ))
    });
    module.warnings = said.rest;
    module.bytes = fs::metadata(&output).context("nvcc left no fatbin")?.len();
    let named = fatbin(folder, &module);
    fs::rename(&output, &named).with_context(|| format!("cannot write {}", named.display()))?;
    Ok(module)
}

/// Removes the fatbins that are not in the manifest.
fn clear(folder: &Path, manifest: &Manifest) -> Result<()> {
    for entry in folder.read_dir()? {
        let path = entry?.path();
        let known = manifest.modules.iter().any(|module| fatbin(folder, module) == path);
        if path.extension().is_some_and(|ending| ending == "fatbin") && !known {
            fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(())
}

/// Sources that none of the requested architectures apply to.
fn left_out(kernels: &Path, manifest: &Manifest) -> Vec<String> {
    let table = crate::symbols::SOURCES.iter().map(|source| source.path);
    let built = |path: &str| manifest.modules.iter().any(|module| module.source == path);
    let there = table.filter(|path| !built(path) && kernels.join(path).is_file());
    there.map(str::to_owned).collect()
}

fn report(folder: &Path, manifest: &Manifest, changed: usize) {
    for module in &manifest.modules {
        for warning in &module.warnings {
            eprintln!("{warning}");
        }
    }
    print!("{}", manifest.table());
    let bytes: u64 = manifest.modules.iter().map(|module| module.bytes).sum();
    println!(
        "modules: {}, {} KiB, {changed} compiled and {} as they were: {}",
        manifest.modules.len(),
        bytes.div_ceil(1024),
        manifest.modules.len() - changed,
        folder.join(manifest::FILE).display()
    );
}

/// Progress bar for work of so many parts; nothing where nobody watches.
pub(crate) fn progress(what: &'static str, parts: usize) -> ProgressBar {
    let bar = ProgressBar::new(parts as u64).with_prefix(what);
    if let Ok(style) =
        ProgressStyle::with_template("{prefix} {bar:30} {pos} of {len}, {elapsed}  {msg}")
    {
        bar.set_style(style);
    }
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(architectures: &[&str], ptx: bool) -> Plan {
        let compiler = Compiler { nvcc: "nvcc".into(), version: "13.0.88".into(), origin: "pip" };
        let source = Source {
            path: "norm/k.cu".into(),
            module: "norm_k".into(),
            architectures: architectures.iter().map(|name| (*name).to_owned()).collect(),
            sha256: "0".into(),
        };
        Plan::new(&source, &compiler, ptx)
    }

    #[test]
    fn ptx_is_of_the_lowest_architecture_that_others_can_use() {
        assert_eq!(plan(&["80", "90a"], true).module.ptx.as_deref(), Some("compute_80"));
        assert_eq!(plan(&["80", "90a"], false).module.ptx, None);
        assert_eq!(plan(&["90a"], true).module.ptx, None);
        let flags = plan(&["80"], true).module.flags;
        assert_eq!(
            flags[flags.len() - 2..],
            ["-gencode=arch=compute_80,code=sm_80", "-gencode=arch=compute_80,code=compute_80"]
        );
    }

    #[test]
    fn a_module_is_kept_while_all_that_made_it_is_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let plan = plan(&["80"], false);
        let mut module = Module { bytes: 3, ..plan.module.clone() };
        assert!(!plan.made(&module, folder.path()), "there is no fatbin");
        fs::write(fatbin(folder.path(), &module), "123").unwrap();
        assert!(plan.made(&module, folder.path()));
        for change in [
            |module: &mut Module| module.sha256.push('1'),
            |module: &mut Module| module.compiler = "12.4.1".into(),
            |module: &mut Module| drop(module.flags.pop()),
            |module: &mut Module| module.bytes = 4,
        ] {
            let kept = module.clone();
            change(&mut module);
            assert!(!plan.made(&module, folder.path()), "{module:?}");
            module = kept;
        }
    }

    #[test]
    fn the_fatbin_of_a_source_that_is_gone_goes_too() {
        let folder = tempfile::tempdir().unwrap();
        let kept = Module { name: "kept".into(), ..Module::default() };
        for name in ["kept.fatbin", "gone.fatbin", "notes.txt"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        clear(folder.path(), &Manifest { modules: vec![kept] }).unwrap();
        let mut left: Vec<_> =
            folder.path().read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["kept.fatbin", "notes.txt"]);
    }
}
