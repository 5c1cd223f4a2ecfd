//! `deny.toml`, read strictly: a key that this check would silently pass over is an error.

use serde::Deserialize;
use spdx::{Expression, Licensee, ParseMode};

use super::{Finding, POLICY, RULE};

/// The tables of `deny.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    #[serde(default)]
    graph: GraphTable,
    /// Which licenses a dependency may have.
    pub licenses: Licenses,
    /// Which crates may not be there.
    pub bans: Bans,
    /// Cargo-deny's own business.
    #[serde(default, rename = "advisories")]
    _advisories: toml::Table,
    /// Where dependencies may come from.
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
    /// More of them for one crate.
    #[serde(default)]
    pub exceptions: Vec<Exception>,
    /// Licenses of crates that do not state theirs.
    #[serde(default)]
    pub clarify: Vec<Clarified>,
    /// How alike a license's file has to be: cargo-deny alone reads files.
    #[serde(default, rename = "confidence-threshold")]
    _confidence_threshold: f64,
}

/// More licenses for one crate.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exception {
    /// The licenses.
    pub allow: Vec<String>,
    /// The crate.
    #[serde(rename = "crate")]
    pub package: String,
}

/// What a crate's license is, according to us.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Clarified {
    /// The crate.
    #[serde(rename = "crate")]
    pub package: String,
    /// Its license.
    pub expression: String,
    /// The files that say so: cargo-deny compares their hashes.
    #[serde(default, rename = "license-files")]
    _license_files: Vec<toml::Table>,
}

/// `[bans]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Bans {
    /// One crate in several versions.
    #[serde(default = "warn")]
    pub multiple_versions: Level,
    /// `*` for a version.
    #[serde(default = "allow")]
    pub wildcards: Level,
    /// Whether a private package may name a path without a version.
    #[serde(default)]
    pub allow_wildcard_paths: bool,
    /// The crates.
    #[serde(default)]
    pub deny: Vec<Ban>,
}

/// A crate that may not be there.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ban {
    /// The crate.
    #[serde(rename = "crate")]
    pub package: String,
    /// Why.
    pub reason: Option<String>,
}

/// `[sources]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Sources {
    /// A registry that is not listed.
    #[serde(default = "warn")]
    pub unknown_registry: Level,
    /// A repository that is not listed.
    #[serde(default = "warn")]
    pub unknown_git: Level,
    /// The registries; without a list, the public index.
    allow_registry: Option<Vec<String>>,
    /// The repositories.
    #[serde(default)]
    pub allow_git: Vec<String>,
}

/// How grave a breach is.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// The check fails.
    Deny,
    /// It is printed.
    Warn,
    /// It is nothing.
    Allow,
}

fn warn() -> Level {
    Level::Warn
}

fn allow() -> Level {
    Level::Allow
}

impl Policy {
    /// Reads the text of a `deny.toml`.
    pub fn read(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|error| {
            format!(
                "{error}; teach xtask/src/tidy/dependencies/policy.rs what this means, or say it \
                 with the keys it has"
            )
        })
    }

    /// Whether the graph is that of all features.
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
    /// Whether packages may come from the registry at `url`.
    pub fn has_registry(&self, url: &str) -> bool {
        match &self.allow_registry {
            Some(listed) => {
                listed.iter().any(|one| one.trim_end_matches('/') == url.trim_end_matches('/'))
            }
            None => url.ends_with("/crates.io-index"),
        }
    }
}
