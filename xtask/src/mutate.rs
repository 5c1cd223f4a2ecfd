//! `cargo xtask mutate`: mutation testing of the kernels, with the test that catches each planted bug.
//!
//! `kernels/emulator/mutations.toml` lists them. Each gets a copy of the sources of its own, and the
//! tests of the kernels, which compile whatever `AURORA_KERNELS` names, run over it until one
//! fails. The same tests have to pass over the sources as they are first: a test that fails anyway
//! catches nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rayon::iter::{IntoParallelRefIterator as _, ParallelIterator as _};

use harness::{Harness, PATIENCE};
use mutation::Mutation;

mod harness;
mod mutation;

/// List of the mutations, below the root.
const LIST: &str = "kernels/emulator/mutations.toml";

/// Maximum length of a message in the table.
const WORDS: usize = 110;

/// Arguments of `cargo xtask mutate`.
#[derive(Debug, clap::Args)]
pub struct MutateArgs {
    /// Try only the mutations with this in their name or in the path of their file.
    #[arg(long, value_name = "NAME")]
    pub only: Option<String>,
    /// Print the mutations without running them.
    #[arg(long)]
    pub list: bool,
}

/// Plants every bug and prints the test that caught it, with its message.
///
/// # Errors
/// A bug that no test catches, one whose copy does not compile, a test that fails without any, or a
/// list that does not fit the sources.
pub fn run(arguments: &MutateArgs) -> Result<()> {
    let root = crate::workspace_root();
    let kernels = root.join("kernels");
    let text =
        fs::read_to_string(root.join(LIST)).with_context(|| format!("cannot read {LIST}"))?;
    let mut mutations = mutation::read(&text, &kernels).with_context(|| LIST.to_owned())?;
    if let Some(only) = &arguments.only {
        mutations.retain(|one| one.name.contains(only) || one.file.contains(only));
    }
    ensure!(!mutations.is_empty(), "{LIST} has no such mutation; --list prints all of them");
    if arguments.list {
        let rows = mutations.iter().map(|one| [&one.name, &one.file, &one.test].map(String::clone));
        print!("{}", crate::table::render(&rows.collect::<Vec<_>>(), 3));
        return Ok(());
    }
    let harness = Harness::build(&root)?;
    let limits = unmutated(&harness, &mutations, &kernels)?;
    let bar = crate::build_kernels::progress("planting bugs", mutations.len());
    let tried: Vec<_> = mutations
        .par_iter()
        .map(|one| {
            let limit = limits.get(&selection(one)).copied().unwrap_or(PATIENCE);
            let caught = attempt(&harness, one, &kernels, limit);
            bar.inc(1);
            caught
        })
        .collect();
    bar.finish_and_clear();
    let mut rows = vec![["mutation", "caught by", "with the words"].map(str::to_owned)];
    let (mut survived, mut errors) = (Vec::new(), Vec::new());
    for (mutation, caught) in mutations.iter().zip(tried) {
        let [test, words] = match caught {
            Ok(Some((test, words))) => [test, words.chars().take(WORDS).collect()],
            Ok(None) => {
                survived.push(mutation.name.as_str());
                ["NOTHING".to_owned(), String::new()]
            }
            Err(error) => {
                errors.push(mutation.name.as_str());
                ["ERROR".to_owned(), format!("{error:#}")]
            }
        };
        rows.push([format!("{}: {}", mutation.file, mutation.name), test, words]);
    }
    print!("{}", crate::table::render(&rows, 3));
    println!(
        "mutations: {}, {} caught, {} not caught, {} errors",
        mutations.len(),
        mutations.len() - survived.len() - errors.len(),
        survived.len(),
        errors.len()
    );
    match (survived.as_slice(), errors.as_slice()) {
        ([], []) => Ok(()),
        (survived, []) => bail!(
            "no test catches: {}; write one that does, or drop a mutation that changes nothing",
            survived.join("; ")
        ),
        (_, errors) => bail!("these could not be tried: {}; see the table", errors.join("; ")),
    }
}

/// Selected sources, `None` for all, and the filter of the tests that run over them.
type Selection<'a> = (Option<Vec<String>>, &'a str);

fn selection(mutation: &Mutation) -> Selection<'_> {
    (mutation.needed(), mutation.test.as_str())
}

/// Checks that the tests pass over the unmodified sources, in the selections in which they will run, and returns the
/// time limit of a test for each.
fn unmutated<'a>(
    harness: &Harness,
    mutations: &'a [Mutation],
    kernels: &Path,
) -> Result<BTreeMap<Selection<'a>, Duration>> {
    let selections: BTreeSet<_> = mutations.iter().map(selection).collect();
    let selections: Vec<_> = selections.into_iter().collect();
    let bar = crate::build_kernels::progress("without a bug", selections.len());
    let passed = selections.par_iter().map(|(needed, filter)| {
        let started = Instant::now();
        let copy = tempfile::tempdir()?;
        mutation::copy(kernels, needed.as_deref(), copy.path())?;
        let failure = harness.first_failure(&harness.tests(filter)?, copy.path(), PATIENCE)?;
        let sources = needed.as_ref().map_or_else(|| "all sources".to_owned(), |it| it.join(", "));
        if let Some((test, words)) = failure {
            bail!(
                "without any mutation, {test} fails over {sources}: {words}. If it runs other \
                sources too, list them as `sources` in {LIST}, or choose a narrower `test`"
            );
        }
        bar.inc(1);
        // The time includes compiling; machines are not always equally busy.
        Ok(((needed.clone(), *filter), Duration::from_secs(120) + 10 * started.elapsed()))
    });
    let limits = passed.collect();
    bar.finish_and_clear();
    limits
}

/// Test that catches a mutation, with its message, or `None`.
fn attempt(
    harness: &Harness,
    mutation: &Mutation,
    kernels: &Path,
    limit: Duration,
) -> Result<Option<(String, String)>> {
    let copy = tempfile::tempdir()?;
    mutation::copy(kernels, mutation.needed().as_deref(), copy.path())?;
    mutation.plant(kernels, copy.path())?;
    harness.first_failure(&harness.tests(&mutation.test)?, copy.path(), limit)
}
