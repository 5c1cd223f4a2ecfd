//! `deny.toml`, parsed strictly: a key that this check would silently pass over is an error.

use serde::Deserialize;
use spdx::{Expression, Licensee, ParseMode};

use super::{Finding, POLICY, RULE};

/// Tables of `deny.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    #[serde(default)]
    graph: GraphTable,
    /// Allowed licenses.
    pub licenses: Licenses,
    /// Banned crates.
    pub bans: Bans,
    /// Advisories, which cargo-deny alone checks.
    #[serde(default, rename = "advisories")]
    _advisories: toml::Table,
    /// Allowed sources.
    pub sources: Sources,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct GraphTable {
    all_features: bool,
}

/// `[licenses]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Licenses {
    /// Licenses for every crate.
    pub allow: Vec<String>,
    /// Additional licenses for one crate.
    #[serde(default)]
    pub exceptions: Vec<Exception>,
    /// Licenses of crates that do not state theirs.
    #[serde(default)]
    pub clarify: Vec<Clarified>,
    /// Similarity threshold of license files: cargo-deny alone reads files.
    #[serde(default, rename = "confidence-threshold")]
    _confidence_threshold: f64,
}

/// Additional licenses for one crate.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exception {
    /// Licenses.
    pub allow: Vec<String>,
    /// Name of the crate.
    #[serde(rename = "crate")]
    pub package: String,
}

/// License of a crate that does not state it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Clarified {
    /// Name of the crate.
    #[serde(rename = "crate")]
    pub package: String,
    /// License expression.
    pub expression: String,
    /// License files: cargo-deny compares their hashes.
    #[serde(default, rename = "license-files")]
    _license_files: Vec<toml::Table>,
}

/// `[bans]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Bans {
    /// Level for one crate in several versions.
    #[serde(default = "warn")]
    pub multiple_versions: Level,
    /// Level for `*` as a version.
    #[serde(default = "allow")]
    pub wildcards: Level,
    /// True if a private package may name a path without a version.
    #[serde(default)]
    pub allow_wildcard_paths: bool,
    /// Banned crates.
    #[serde(default)]
    pub deny: Vec<Ban>,
}

/// Banned crate.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ban {
    /// Name of the crate.
    #[serde(rename = "crate")]
    pub package: String,
    /// Reason of the ban.
    pub reason: Option<String>,
}

/// `[sources]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Sources {
    /// Level for a registry that is not listed.
    #[serde(default = "warn")]
    pub unknown_registry: Level,
    /// Level for a repository that is not listed.
    #[serde(default = "warn")]
    pub unknown_git: Level,
    /// Allowed registries; without a list, the public index.
    allow_registry: Option<Vec<String>>,
    /// Allowed repositories.
    #[serde(default)]
    pub allow_git: Vec<String>,
}

/// Level of a violation.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Fails the check.
    Deny,
    /// Is printed.
    Warn,
    /// Is ignored.
    Allow,
}

fn warn() -> Level {
    Level::Warn
}

fn allow() -> Level {
    Level::Allow
}

impl Policy {
    /// Parses the text of a `deny.toml`.
    pub fn read(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|error| {
            format!(
                "{error}; teach xtask/src/tidy/dependencies/policy.rs what this means, or say it \
                 with the keys it has"
            )
        })
    }

    /// True if the graph is that of all features.
    pub fn all_features(&self) -> bool {
        self.graph.all_features
    }

    /// Entries that can never hold, because they are no license, or name a version of a crate.
    pub fn mistakes(&self) -> Vec<Finding> {
        let exceptions = self.licenses.exceptions.iter().flat_map(|one| &one.allow);
        let licenses = self.licenses.allow.iter().chain(exceptions);
        let unknown = licenses
            .filter(|license| Licensee::parse(license).is_err())
            .map(|license| format!("`{license}` is no SPDX license"));
        let clarified = self.licenses.clarify.iter().filter_map(|one| {
            Expression::parse_mode(&one.expression, ParseMode::LAX).err()?;
            Some(format!("`{}` is no SPDX expression", one.expression))
        });
        let named = (self.bans.deny.iter().map(|one| &one.package))
            .chain(self.licenses.exceptions.iter().map(|one| &one.package))
            .chain(self.licenses.clarify.iter().map(|one| &one.package))
            .filter(|name| name.contains(['@', ':', ' ']))
            .map(|name| format!("`{name}` names a version, which this check does not tell apart"));
        let found = unknown.chain(clarified).chain(named);
        found.map(|message| Finding::error(RULE, POLICY, 0, message)).collect()
    }
}

impl Sources {
    /// True if packages may come from the registry at `url`.
    pub fn has_registry(&self, url: &str) -> bool {
        match &self.allow_registry {
            Some(listed) => {
                listed.iter().any(|one| one.trim_end_matches('/') == url.trim_end_matches('/'))
            }
            None => url.ends_with("/crates.io-index"),
        }
    }
}
