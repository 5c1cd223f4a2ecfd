//! Types for the part of `cargo metadata` that the rule on dependencies reads.

use serde::Deserialize;

/// The dependency graph.
#[derive(Debug, Deserialize)]
pub struct Graph {
    /// Every package, the workspace's own included.
    pub packages: Vec<Package>,
    /// Resolved dependency edges.
    pub resolve: Resolve,
}

/// Package: one version of one crate.
#[derive(Debug, Deserialize)]
pub struct Package {
    /// Name of the crate.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Package id of cargo.
    pub id: String,
    /// Stated license.
    pub license: Option<String>,
    /// Source; `None` for a path.
    pub source: Option<String>,
    /// Registries that it may go to; `None` for all, and none for a private package.
    pub publish: Option<Vec<String>>,
    /// Dependencies of its manifest.
    pub dependencies: Vec<Dependency>,
}

/// Dependency: one line of a manifest.
#[derive(Debug, Deserialize)]
pub struct Dependency {
    /// Name of the crate.
    pub name: String,
    /// Version requirement.
    pub req: String,
    /// Kind of dependency: `dev`, `build`, or `None`.
    pub kind: Option<String>,
    /// Path of a path dependency.
    pub path: Option<String>,
}

/// The resolved edges.
#[derive(Debug, Deserialize)]
pub struct Resolve {
    /// Nodes, one per package.
    pub nodes: Vec<Node>,
}

/// Package and its dependencies.
#[derive(Debug, Deserialize)]
pub struct Node {
    /// Package id.
    pub id: String,
    /// Ids of the packages that it uses.
    pub dependencies: Vec<String>,
}

impl Graph {
    /// Message about a package, with those who brought it in.
    pub fn about(&self, package: &Package, message: &str) -> String {
        let users =
            self.resolve.nodes.iter().filter(|node| node.dependencies.contains(&package.id));
        let named = users.filter_map(|node| {
            self.packages.iter().find(|other| other.id == node.id).map(|other| other.name.as_str())
        });
        let users: Vec<&str> = named.collect();
        let by = if users.is_empty() {
            String::new()
        } else {
            format!(" (used by {})", users.join(", "))
        };
        format!("{} {}{by} {message}", package.name, package.version)
    }
}
