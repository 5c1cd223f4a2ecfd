//! `cargo xtask results`: generates the tables of docs/results.md from the records in benches/results.
//!
//! The page is written by hand but for what stands between `<!-- table: NAME -->` and
//! `<!-- /table -->`. `cargo xtask tidy` makes the page anew in memory and fails where the committed one differs.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

mod kernels;
mod page;
mod quality;
mod records;
mod speed;

/// Path of the page, from the root.
pub(crate) const PAGE: &str = "docs/results.md";
/// Folder of the records, from the root.
const RECORDS: &str = "benches/results";

/// Arguments of `cargo xtask results`.
#[derive(Debug, clap::Args)]
pub struct ResultsArgs {
    /// Print the page instead of writing it.
    #[arg(long)]
    print: bool,
    /// Root of the workspace.
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
}

/// Error at a place in the page or in a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// File, from the root.
    pub(crate) path: String,
    /// Line, counted from 1; 0 for the file as a whole.
    pub(crate) line: usize,
    /// Description of the fault, and the way out.
    pub(crate) message: String,
}

impl Fault {
    fn new(path: impl Into<String>, line: usize, message: impl Into<String>) -> Self {
        Self { path: path.into(), line, message: message.into() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.message)
    }
}

impl std::error::Error for Fault {}

/// Generator of a table: Markdown from the records in a folder.
type Table = fn(&Path) -> Result<String, Fault>;

/// Every table by its name; each has to stand on the page.
const TABLES: &[(&str, Table)] = &[
    ("quickstart", quality::quickstart),
    ("recall", quality::recall),
    ("quickstart-time", speed::quickstart_time),
    ("agreement", quality::agreement),
    ("peers", speed::peers),
    ("kernels", kernels::shares),
    ("growth", speed::growth),
    ("loader", speed::loader),
    ("memory", speed::memory),
    ("fuzz", quality::fuzz),
];

/// Page with every table regenerated from the records below `root`.
pub(crate) fn refresh(page: &str, root: &Path) -> Result<String, Fault> {
    let records = root.join(RECORDS);
    let names: Vec<&str> = TABLES.iter().map(|(name, _)| *name).collect();
    page::refresh(page, &names, |index| TABLES[index].1(&records))
}

/// Rewrites the page, or prints it.
///
/// # Errors
/// A record that is missing or not as it should be, a page without one of the tables.
pub fn run(arguments: &ResultsArgs) -> anyhow::Result<()> {
    let root = arguments.root.clone().unwrap_or_else(crate::workspace_root);
    let path = root.join(PAGE);
    let old = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let new = refresh(&old, &root)?;
    if arguments.print {
        print!("{new}");
    } else if new == old {
        println!("{PAGE} is up to date");
    } else {
        fs::write(&path, new).with_context(|| path.display().to_string())?;
        println!("wrote {PAGE}");
    }
    Ok(())
}
