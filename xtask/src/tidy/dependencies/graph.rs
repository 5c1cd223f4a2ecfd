//! The part of `cargo metadata` that the rule on dependencies reads.

use serde::Deserialize;

/// The dependency graph.
#[derive(Debug, Deserialize)]
pub struct Graph {
    /// Every package, the workspace's own included.
    pub packages: Vec<Package>,
    /// Which package uses which.
    pub resolve: Resolve,
}

/// One version of one crate.
#[derive(Debug, Deserialize)]
pub struct Package {
    /// The crate.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Cargo's name for the two.
    pub id: String,
    /// What it states as its license.
    pub license: Option<String>,
    /// Where it comes from; `None` for a path.
    pub source: Option<String>,
    /// Registries that it may go to; `None` for all, and none for a private package.
    pub publish: Option<Vec<String>>,
    /// What its manifest asks for.
    pub dependencies: Vec<Dependency>,
}

/// One line of a manifest's dependencies.
#[derive(Debug, Deserialize)]
pub struct Dependency {
    /// The crate.
    pub name: String,
    /// Which versions.
    pub req: String,
    /// `dev`, `build`, or `None`.
    pub kind: Option<String>,
    /// Where it stands, if it is given as a path.
    pub path: Option<String>,
}

/// The resolved edges.
#[derive(Debug, Deserialize)]
pub struct Resolve {
    /// A node for each package.
    pub nodes: Vec<Node>,
}

/// A package and what it uses.
#[derive(Debug, Deserialize)]
pub struct Node {
    /// The package.
    pub id: String,
    /// The packages that it uses.
    pub dependencies: Vec<String>,
}

impl Graph {
    /// A sentence about a package, with those who brought it in.
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
