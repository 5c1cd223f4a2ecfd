//! Rules on every text file: no trailing whitespace, no registry's host.

use super::{Finding, Tree};

/// True for data that is kept verbatim: vocabularies, captions, fixtures.
fn is_data(path: &str) -> bool {
    path.split('/').any(|folder| matches!(folder, "assets" | "fixtures" | "golden"))
}

/// No line ends in blanks and every file ends in one newline.
pub fn no_trailing_whitespace(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.texts().filter(|(path, _)| !is_data(path)) {
        for (index, line) in text.split('\n').enumerate() {
            // A carriage return counts: line ends are plain newlines here.
            if line.ends_with([' ', '\t', '\r']) {
                findings.push(Finding::error(
                    "whitespace",
                    path,
                    index + 1,
                    "the line ends in whitespace; delete it",
                ));
            }
        }
        if !text.is_empty() && (!text.ends_with('\n') || text.ends_with("\n\n")) {
            let lines = text.lines().count();
            findings.push(Finding::error(
                "whitespace",
                path,
                lines,
                "the file does not end in exactly one newline",
            ));
        }
    }
    findings
}

/// Words in the host names of package registries. Which one a build asks is the machine's business, not this
/// repository's.
const REGISTRY_WORDS: [&str; 8] =
    ["registry", "registries", "mirror", "mirrors", "index", "artifactory", "pypi", "proxy"];

/// No file names the host of a package registry or sets one up, but for the lock file's one public index.
pub fn no_registry_hosts(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.texts() {
        let is_lock = path.ends_with("Cargo.lock");
        for (index, line) in text.lines().enumerate() {
            let foreign_source = is_lock
                && line
                    .strip_prefix("source = ")
                    .is_some_and(|source| !source.contains("/crates.io-index\""));
            if foreign_source {
                let message = "a dependency that does not come from the public index; use a \
                published version";
                findings.push(Finding::error("registry", path, index + 1, message));
            }
            if let Some(host) = registry_host(line) {
                let message = format!(
                    "names the package host {host}; leave the choice of a registry to the \
                    machine that builds"
                );
                findings.push(Finding::error("registry", path, index + 1, message));
            }
        }
        let is_cargo_config =
            path.ends_with(".cargo/config.toml") || path.ends_with(".cargo/config");
        let config = is_cargo_config.then(|| text.parse::<toml::Table>().ok()).flatten();
        for key in ["source", "registry", "registries"] {
            if config.as_ref().is_some_and(|config| config.contains_key(key)) {
                let message = format!(
                    "[{key}] chooses a registry for everybody; set it up on the machine that builds"
                );
                findings.push(Finding::error("registry", path, 0, message));
            }
        }
    }
    findings
}

/// First host in a URL of this line that has a registry's name.
fn registry_host(line: &str) -> Option<&str> {
    let hosts = line.split("://").skip(1).map(|rest| {
        let authority = rest
            .split(|c: char| !(c.is_alphanumeric() || ".-_:@%".contains(c)))
            .next()
            .unwrap_or("");
        authority.rsplit('@').next().unwrap_or(authority)
    });
    // `static.crates.example`, `registry-1.example`: each word between dots and dashes counts.
    let mut named = hosts.filter(|host| {
        host.split(['.', '-', ':'])
            .any(|word| REGISTRY_WORDS.contains(&word.to_ascii_lowercase().as_str()))
    });
    named.next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_is_told_by_its_host_alone() {
        // Put together here, so that this file holds no such address itself.
        let url = |rest: &str| format!("see https:{}{rest}", "//");
        assert_eq!(registry_host(&url("registry.example.org/a")), Some("registry.example.org"));
        assert_eq!(
            registry_host(&url("me:pw@pkg-proxy.example:80/x")),
            Some("pkg-proxy.example:80")
        );
        assert_eq!(registry_host(&url("docs.example.org/registry/index.html")), None);
        assert_eq!(registry_host("the word registry, no address"), None);
    }
}
