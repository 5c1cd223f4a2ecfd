//! Build manifest, `target/kernels/manifest.json`, and its table.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::resources::Resources;

/// Manifest of all modules, in the order of their names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The modules.
    pub modules: Vec<Module>,
}

/// Manifest entry of one fatbin.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Module {
    /// Module name: the file name without `.fatbin`.
    pub name: String,
    /// Path of the source below `kernels/`.
    pub source: String,
    /// SHA-256 of the headers and the source.
    pub sha256: String,
    /// nvcc version.
    pub compiler: String,
    /// nvcc flags, without the names of the files.
    pub flags: Vec<String>,
    /// Architectures, as in `sm_90a`.
    pub architectures: Vec<String>,
    /// Embedded PTX, as in `compute_80`, if there is one.
    pub ptx: Option<String>,
    /// Size of the fatbin in bytes.
    pub bytes: u64,
    /// nvcc warnings, line by line.
    pub warnings: Vec<String>,
    /// Resources of each kernel for each architecture.
    pub kernels: Vec<Resources>,
}

/// File name of the manifest.
pub const FILE: &str = "manifest.json";

impl Manifest {
    /// Reads the manifest in `folder`. A missing one, or one of another version of this program, is empty: everything
    /// is rebuilt.
    pub fn read(folder: &Path) -> Self {
        let text = fs::read_to_string(folder.join(FILE)).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// Writes the manifest into `folder`.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        put(&folder.join(FILE), text.as_bytes())
    }

    /// Table of resources: a line per kernel and architecture, below a line of headings.
    pub fn table(&self) -> String {
        let headings =
            ["module", "kernel", "for", "registers", "shared", "stack", "spilled", "reloaded"];
        let mut rows = vec![headings.map(str::to_owned)];
        for module in &self.modules {
            for kernel in &module.kernels {
                rows.push([
                    module.name.clone(),
                    kernel.symbol.clone(),
                    kernel.architecture.clone(),
                    kernel.registers.to_string(),
                    kernel.shared.to_string(),
                    kernel.stack.to_string(),
                    kernel.spill_stores.to_string(),
                    kernel.spill_loads.to_string(),
                ]);
            }
        }
        crate::table::render(&rows, 3)
    }
}

/// Atomic file write: a temporary file, renamed into place.
///
/// # Errors
/// The file cannot be written.
pub fn put(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = path.parent().context("a file in a folder")?;
    let write = || -> Result<()> {
        let mut aside = tempfile::NamedTempFile::new_in(folder)?;
        aside.write_all(bytes)?;
        aside.persist(path)?;
        Ok(())
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let kernels = vec![Resources {
            symbol: "k_f32".into(),
            architecture: "sm_80".into(),
            registers: 40,
            ..Resources::default()
        }];
        let module = Module { name: "norm_k".into(), kernels, ..Module::default() };
        Manifest { modules: vec![module] }
    }

    #[test]
    fn what_is_written_is_read_and_anything_else_is_empty() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Manifest::read(folder.path()), Manifest::default());
        manifest().write(folder.path()).unwrap();
        assert_eq!(Manifest::read(folder.path()), manifest());
        fs::write(folder.path().join(FILE), "{\"modules\": [{\"name\": 1}]}").unwrap();
        assert_eq!(Manifest::read(folder.path()), Manifest::default());
    }

    #[test]
    fn the_table_has_a_line_for_each_kernel() {
        let table = manifest().table();
        let lines: Vec<_> = table.lines().collect();
        assert_eq!(lines[0], "module  kernel  for    registers  shared  stack  spilled  reloaded");
        assert_eq!(lines[1], "norm_k  k_f32   sm_80         40       0      0        0         0");
    }
}
