//! `cargo xtask tidy`: rules of this repository that the compiler and clippy do not check.
//!
//! Every rule is a function from a [`Tree`] (the files of a checkout, read once) to [`Finding`]s,
//! and changes nothing. A finding names file, line and the way out. `tests/it/tidy.rs` breaks each
//! rule in a small tree of its own and, as the last test, holds this repository to all of them.

use anyhow::{Result, bail};

mod commands;
mod dependencies;
pub(crate) mod derivations;
mod direction;
mod licenses;
mod links;
mod markdown;
mod metadata;
mod openings;
mod results;
mod rust_source;
mod sources;
mod text;
mod tree;
mod words;
mod workflows;

pub use dependencies::check_metadata;
pub(crate) use markdown::shell_words;
pub use tree::{SourceFile, Tree};

/// Arguments of `cargo xtask tidy`.
#[derive(Debug, clap::Args)]
pub struct TidyArgs {
    /// Check this folder instead of the workspace.
    #[arg(long, value_name = "DIR")]
    pub root: Option<std::path::PathBuf>,
}

/// Severity of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Fails the check.
    Error,
    /// Is printed; the check may still pass.
    Warning,
}

/// Finding: one place that breaks one rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Name of the rule.
    pub rule: &'static str,
    /// Severity.
    pub severity: Severity,
    /// File, relative to the root, with forward slashes.
    pub path: String,
    /// Line, counted from 1; 0 for the file as a whole.
    pub line: usize,
    /// Message: what is wrong and what to do about it.
    pub message: String,
}

impl Finding {
    /// Creates a finding that fails the check.
    pub fn error(rule: &'static str, path: &str, line: usize, message: impl Into<String>) -> Self {
        Self {
            rule,
            severity: Severity::Error,
            path: path.to_owned(),
            line,
            message: message.into(),
        }
    }

    /// Creates a finding that is only printed.
    pub fn warning(
        rule: &'static str,
        path: &str,
        line: usize,
        message: impl Into<String>,
    ) -> Self {
        Self { severity: Severity::Warning, ..Self::error(rule, path, line, message) }
    }
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let word = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        match self.line {
            0 => write!(f, "{}: {word} [{}]: {}", self.path, self.rule, self.message),
            line => write!(f, "{}:{line}: {word} [{}]: {}", self.path, self.rule, self.message),
        }
    }
}

/// Rule: a function from a tree to its findings.
type Rule = fn(&Tree) -> Vec<Finding>;

/// Every rule, in the order in which findings are printed.
const RULES: &[Rule] = &[
    direction::crates_depend_downwards,
    direction::data_uses_the_generator_only,
    metadata::crates_are_publishable,
    metadata::versions_stand_in_one_place,
    dependencies::dependencies_are_allowed,
    sources::modules_say_what_they_are,
    sources::kernels_open_with_their_contract,
    sources::only_the_program_prints,
    sources::unsafe_code_stays_in_the_kernels,
    sources::files_stay_short,
    commands::quoted_commands_exist,
    links::relative_links_lead_somewhere,
    links::quoted_paths_exist,
    links::named_types_exist,
    licenses::every_image_has_a_license,
    licenses::embedded_data_stays_small,
    derivations::derivations_were_reread,
    results::results_equal_their_records,
    text::no_trailing_whitespace,
    text::no_registry_hosts,
    workflows::workflows_are_plain_yaml,
];

/// Rules on names, of which each has its own tests.
const NAMES: &[Rule] =
    &[words::given_up_words_stay_away, openings::doc_comments_begin_with_their_subject];

/// SWITCH: whether [`NAMES`] are held too. The renaming is under way; `true` once it is done.
const NAMES_ARE_HELD: bool = true;

/// Rules that a tree is held to.
fn rules() -> impl Iterator<Item = &'static Rule> {
    RULES.iter().chain(if NAMES_ARE_HELD { NAMES } else { &[] })
}

/// Findings of every rule in `tree`.
pub fn check(tree: &Tree) -> Vec<Finding> {
    rules().flat_map(|rule| rule(tree)).collect()
}

/// Checks the workspace, prints the findings and fails if one of them is an error.
pub fn run(arguments: &TidyArgs) -> Result<()> {
    let root = arguments.root.clone().unwrap_or_else(crate::workspace_root);
    let tree = Tree::read(&root)?;
    let findings = check(&tree);
    for finding in &findings {
        eprintln!("{finding}");
    }
    let errors = findings.iter().filter(|finding| finding.severity == Severity::Error).count();
    if errors > 0 {
        bail!("tidy: {errors} of {} findings are errors", findings.len());
    }
    println!(
        "tidy: {} files, {} rules, {} warnings",
        tree.files().len(),
        rules().count(),
        findings.len()
    );
    Ok(())
}
