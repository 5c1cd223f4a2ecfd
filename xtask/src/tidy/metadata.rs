//! Rules on manifests: metadata of the registry, README and examples of each crate, and one place for versions.

use super::tree::Package;
use super::{Finding, Tree};

/// Crates that somebody may depend on alone: each has at least one example that runs.
const LIBRARIES: [&str; 4] = ["aurora-kernels", "aurora-layers", "aurora-data", "aurora-train"];

/// Every crate has a README, the metadata to be published, the workspace's lints, and a library an example too.
pub fn crates_are_publishable(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for package in tree.crates() {
        let mut missing =
            |message: String| findings.push(Finding::error("metadata", package.path, 0, message));
        for key in ["readme", "description", "license", "repository", "keywords", "categories"] {
            if !has(tree, &package, key) {
                missing(format!("[package] has no `{key}`; a registry shows it beside the crate"));
            }
        }
        if package.manifest.get("lints").and_then(|lints| lints.get("workspace")?.as_bool())
            != Some(true)
        {
            missing(
                "[lints] does not say `workspace = true`, so the workspace's lints do not \
            hold here"
                    .to_owned(),
            );
        }
        let folder = package.folder;
        if tree.text(&format!("{folder}/README.md")).is_none_or(|text| text.lines().count() < 3) {
            missing(format!(
                "{folder}/README.md is missing or empty; say what the crate is to someone who \
                depends on it alone"
            ));
        }
        let examples = format!("{folder}/examples/");
        let has_example = tree.rust().any(|(path, _)| path.starts_with(&examples));
        if LIBRARIES.contains(&package.name()) && !has_example {
            missing(format!(
                "{examples} holds no example; add one that runs with this crate alone"
            ));
        }
    }
    findings
}

/// True if the package states `key` itself, or inherits one that the workspace states.
fn has(tree: &Tree, package: &Package<'_>, key: &str) -> bool {
    match package.manifest.get("package").and_then(|table| table.get(key)) {
        Some(toml::Value::Table(inherited)) => {
            let root = tree.text("Cargo.toml").and_then(|text| text.parse::<toml::Table>().ok());
            let stated =
                root.as_ref().and_then(|root| root.get("workspace")?.get("package")?.get(key));
            inherited.get("workspace").and_then(toml::Value::as_bool) == Some(true)
                && stated.is_some()
        }
        Some(toml::Value::String(text)) => !text.trim().is_empty(),
        Some(_) => true,
        None => false,
    }
}

/// Versions of dependencies stand in the root manifest and nowhere else.
pub fn versions_stand_in_one_place(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for package in tree.packages() {
        for (name, wanted) in package.dependencies() {
            if wanted.get("workspace").and_then(toml::Value::as_bool) != Some(true) {
                let message = format!(
                    "`{name}` states its own version; put it under [workspace.dependencies] of \
                    the root manifest and say `{name}.workspace = true` here"
                );
                findings.push(Finding::error(
                    "one-version",
                    package.path,
                    package.line_of(name),
                    message,
                ));
            }
        }
    }
    findings
}
