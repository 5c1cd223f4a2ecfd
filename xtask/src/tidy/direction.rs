//! Rules on dependency direction: kernels -> layers -> train -> cli, and data -> train.

use super::rust_source::{code_only, line_at, words};
use super::{Finding, Tree};

/// Allowed dependencies of each crate on crates of this workspace. `aurora-data` may have the kernels for their seeded
/// generator alone.
const MAY_DEPEND_ON: [(&str, &[&str]); 5] = [
    ("aurora-kernels", &[]),
    ("aurora-layers", &["aurora-kernels"]),
    ("aurora-data", &["aurora-kernels"]),
    ("aurora-train", &["aurora-kernels", "aurora-layers", "aurora-data"]),
    ("aurora-cli", &["aurora-kernels", "aurora-layers", "aurora-data", "aurora-train"]),
];

/// A crate depends on those below it, for its tests and its build script too.
pub fn crates_depend_downwards(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for package in tree.crates() {
        let name = package.name();
        let Some((_, allowed)) = MAY_DEPEND_ON.iter().find(|(listed, _)| *listed == name) else {
            let message = format!(
                "the crate {name} has no place in the dependency order; give it one in \
                xtask/src/tidy/direction.rs and in docs/architecture.md"
            );
            findings.push(Finding::error(
                "direction",
                package.path,
                package.line_of("name"),
                message,
            ));
            continue;
        };
        for (written, wanted) in package.dependencies() {
            let real = wanted.get("package").and_then(toml::Value::as_str).unwrap_or(written);
            let ours = MAY_DEPEND_ON.iter().any(|(listed, _)| *listed == real);
            if ours && !allowed.contains(&real) {
                let message = format!(
                    "{name} depends on {real}, which is not below it (allowed: {}); move what \
                    it needs down, or the code that needs it up",
                    if allowed.is_empty() { "none".to_owned() } else { allowed.join(", ") }
                );
                findings.push(Finding::error(
                    "direction",
                    package.path,
                    package.line_of(written),
                    message,
                ));
            }
        }
    }
    findings
}

/// The data crate knows nothing of models: of the kernels it may name the random streams only.
pub fn data_uses_the_generator_only(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.rust().filter(|(path, _)| path.starts_with("crates/aurora-data/")) {
        let code = code_only(text);
        let crate_name = "aurora_kernels";
        let others = words(&code, crate_name).filter(|offset| {
            let item = code[offset + crate_name.len()..].strip_prefix("::random");
            item.is_none_or(|rest| rest.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
        });
        let message = "aurora-data uses aurora_kernels::random and nothing else of that crate; \
        what computes on features belongs in aurora-train";
        findings.extend(
            others.map(|offset| {
                Finding::error("data-direction", path, line_at(&code, offset), message)
            }),
        );
    }
    findings
}
