//! Rule on dependencies: `deny.toml` holds, as far as cargo's own metadata can tell.
//!
//! cargo-deny costs minutes to install, so the licenses, bans and sources that its file states are
//! checked here, from `cargo metadata`: of every package that the lock file can bring in, on any
//! platform. Advisories need the network and are cargo-deny's.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use spdx::{Expression, Licensee, ParseMode};

use super::{Finding, Tree};
use graph::{Graph, Package};
use policy::{Level, Policy};

mod graph;
mod policy;

const RULE: &str = "dependency";
const POLICY: &str = "deny.toml";
const LOCK: &str = "Cargo.lock";

/// Every dependency keeps to `deny.toml`.
pub fn dependencies_are_allowed(tree: &Tree) -> Vec<Finding> {
    let Some(text) = tree.text(POLICY) else { return Vec::new() };
    let policy = match Policy::read(text) {
        Ok(policy) => policy,
        Err(message) => return vec![Finding::error(RULE, POLICY, 0, message)],
    };
    match metadata(&tree.on_disk(""), policy.all_features()) {
        Ok(json) => check_metadata(text, tree.text(LOCK).unwrap_or(""), &json),
        Err(error) => {
            let message = format!("cannot read the dependencies: {error:#}");
            vec![Finding::error(RULE, LOCK, 0, message)]
        }
    }
}

/// Output of `cargo metadata` for the workspace at `root`. Nothing is downloaded but manifests of packages that the
/// lock file names and this machine has never seen.
fn metadata(root: &Path, all_features: bool) -> Result<String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let ask = |extra: &[&str]| {
        let mut command = Command::new(&cargo);
        command.current_dir(root).args(["metadata", "--format-version", "1", "--locked"]);
        command.args(all_features.then_some("--all-features")).args(extra);
        command.output().context("cannot start cargo")
    };
    let mut output = ask(&["--offline"])?;
    if !output.status.success() {
        output = ask(&[])?;
    }
    if !output.status.success() {
        bail!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    String::from_utf8(output.stdout).context("cargo metadata")
}

/// Findings of a dependency graph under `policy`. `policy` is the text of a `deny.toml`, `lock` that of a
/// `Cargo.lock`, where findings get their lines from, and `metadata` the output of
/// `cargo metadata --format-version 1`.
pub fn check_metadata(policy: &str, lock: &str, metadata: &str) -> Vec<Finding> {
    let policy = match Policy::read(policy) {
        Ok(policy) => policy,
        Err(message) => return vec![Finding::error(RULE, POLICY, 0, message)],
    };
    let graph: Graph = match serde_json::from_str(metadata) {
        Ok(graph) => graph,
        Err(error) => {
            let message = format!("cannot read what cargo metadata prints: {error}");
            return vec![Finding::error(RULE, LOCK, 0, message)];
        }
    };
    let mut findings = licenses(&policy, &graph);
    findings.extend(bans(&policy, &graph));
    findings.extend(wildcards(&policy, &graph));
    findings.extend(duplicates(&policy, &graph));
    findings.extend(sources(&policy, &graph));
    findings
        .into_iter()
        .map(|(level, package, message)| {
            let line = package.map_or(0, |package| line_of(lock, package));
            match level {
                Level::Deny => Finding::error(RULE, LOCK, line, message),
                _ => Finding::warning(RULE, LOCK, line, message),
            }
        })
        .chain(policy.mistakes())
        .collect()
}

/// Violation: its level, its package, and a message.
type Found<'a> = (Level, Option<&'a Package>, String);

/// Line of the lock file that names this package, counted from 1; 0 where none does.
fn line_of(lock: &str, package: &Package) -> usize {
    let (name, version) =
        (format!("name = \"{}\"", package.name), format!("version = \"{}\"", package.version));
    let lines: Vec<&str> = lock.lines().collect();
    lines.windows(2).position(|pair| pair == [name.as_str(), &version]).map_or(0, |at| at + 1)
}

fn licenses<'a>(policy: &Policy, graph: &'a Graph) -> Vec<Found<'a>> {
    let judge = |package: &Package| -> Result<(), String> {
        let clarified = policy.licenses.clarify.iter().find(|one| one.package == package.name);
        let stated = clarified.map(|one| &one.expression).or(package.license.as_ref());
        let Some(stated) = stated else {
            return Err(
                "states no license as an SPDX expression; look at its files and say what it \
                is under [[licenses.clarify]]"
                    .to_owned(),
            );
        };
        let expression = Expression::parse_mode(stated, ParseMode::LAX).map_err(|error| {
            format!("stands under `{stated}`, which does not parse: {}", error.reason)
        })?;
        let exceptions =
            policy.licenses.exceptions.iter().filter(|one| one.package == package.name);
        let allowed: Vec<Licensee> = exceptions
            .flat_map(|one| &one.allow)
            .chain(&policy.licenses.allow)
            .filter_map(|license| Licensee::parse(license).ok())
            .collect();
        expression
            .evaluate_with_failures(|wanted| allowed.iter().any(|one| one.satisfies(wanted)))
            .map_err(|failures| {
                let refused: BTreeSet<_> = failures.iter().map(|one| one.req.to_string()).collect();
                let refused = refused.into_iter().collect::<Vec<_>>().join(", ");
                format!("stands under `{stated}`, and [licenses] does not allow {refused}")
            })
    };
    let refused = graph.packages.iter().filter_map(|package| {
        let message = judge(package).err()?;
        Some((Level::Deny, Some(package), graph.about(package, &message)))
    });
    refused.collect()
}

fn bans<'a>(policy: &Policy, graph: &'a Graph) -> Vec<Found<'a>> {
    let banned = graph.packages.iter().filter_map(|package| {
        let ban = policy.bans.deny.iter().find(|ban| ban.package == package.name)?;
        let reason = ban.reason.as_deref().unwrap_or("no reason is given");
        let message = format!("is banned: {reason}");
        Some((Level::Deny, Some(package), graph.about(package, &message)))
    });
    banned.collect()
}

/// Wildcard versions, `*`. One to a path may be allowed, where nobody else can be given another one: in a package that
/// is not published, and among the dependencies of tests.
fn wildcards<'a>(policy: &Policy, graph: &'a Graph) -> Vec<Found<'a>> {
    let level = policy.bans.wildcards;
    if level == Level::Allow {
        return Vec::new();
    }
    let mut found = Vec::new();
    for package in &graph.packages {
        let private = package.publish.as_ref().is_some_and(Vec::is_empty);
        let open = package.dependencies.iter().filter(|one| one.req == "*").filter(|one| {
            let harmless = private || one.kind.as_deref() == Some("dev");
            !(policy.bans.allow_wildcard_paths && one.path.is_some() && harmless)
        });
        for dependency in open {
            let message = format!("takes any version of {}; say which", dependency.name);
            found.push((level, Some(package), graph.about(package, &message)));
        }
    }
    found
}

fn duplicates<'a>(policy: &Policy, graph: &'a Graph) -> Vec<Found<'a>> {
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for package in &graph.packages {
        versions.entry(&package.name).or_default().push(&package.version);
    }
    versions.retain(|_, versions| versions.len() > 1);
    if versions.is_empty() || policy.bans.multiple_versions == Level::Allow {
        return Vec::new();
    }
    let listed: Vec<_> = versions
        .iter()
        .map(|(name, versions)| format!("{name} ({})", versions.join(", ")))
        .collect();
    let message = format!("{} crates in several versions: {}", listed.len(), listed.join(", "));
    vec![(policy.bans.multiple_versions, None, message)]
}

fn sources<'a>(policy: &Policy, graph: &'a Graph) -> Vec<Found<'a>> {
    let mut found = Vec::new();
    for package in &graph.packages {
        let Some(source) = &package.source else { continue }; // a path
        let (level, known) = match source.split_once('+') {
            Some(("git", url)) => {
                let url = url.split(['?', '#']).next().unwrap_or(url);
                let allowed = policy.sources.allow_git.iter().any(|one| one == url);
                (policy.sources.unknown_git, allowed)
            }
            Some((_, url)) => (policy.sources.unknown_registry, policy.sources.has_registry(url)),
            None => (Level::Deny, false),
        };
        if !known && level != Level::Allow {
            let message = format!("comes from {source}, which [sources] does not know");
            found.push((level, Some(package), graph.about(package, &message)));
        }
    }
    found
}
