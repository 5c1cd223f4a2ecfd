//! `cargo xtask derivations`: checks that docs/math was reread since the code it derives has changed.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, bail};

use crate::tidy::{Tree, derivations};

/// Arguments of `cargo xtask derivations`.
#[derive(Debug, clap::Args)]
pub struct DerivationsArgs {
    /// Take the sources as they are, after the derivations were reread and mended.
    #[arg(long)]
    accept: bool,
    /// Root of the workspace.
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
}

/// Names the derivations whose sources have changed, or writes the hash of the sources into them.
///
/// # Errors
/// Derivations to reread; one that names no sources, or sources that are not there.
pub fn run(arguments: &DerivationsArgs) -> anyhow::Result<()> {
    let root = arguments.root.clone().unwrap_or_else(crate::workspace_root);
    let changed = match derivations::accepted(&Tree::read(&root)?) {
        Ok(changed) => changed,
        Err(finding) => bail!("{finding}"),
    };
    for (path, text) in &changed {
        println!("{path}");
        if arguments.accept {
            let path = root.join(path);
            fs::write(&path, text).with_context(|| path.display().to_string())?;
        }
    }
    match (changed.len(), arguments.accept) {
        (0, _) => println!("every derivation was read since its sources changed"),
        (count, true) => println!("accepted the sources of {count} derivations"),
        (count, false) => bail!(
            "{count} derivations to reread and mend; then run: cargo xtask derivations --accept"
        ),
    }
    Ok(())
}
