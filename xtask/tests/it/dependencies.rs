//! Rule on dependencies: planted graphs, as cargo prints them, and a planted workspace.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use xtask::tidy::{Severity, check_metadata};

use crate::workspace::findings;

const INDEX: &str = "registry+https://github.com/rust-lang/crates.io-index";

const POLICY: &str = r#"
[graph]
all-features = true
[licenses]
allow = ["MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "Unicode-3.0"]
exceptions = [{ allow = ["CC0-1.0"], crate = "tiny" }]
[[licenses.clarify]]
crate = "silent"
expression = "MIT"
license-files = [{ path = "LICENSE", hash = 1 }]
[bans]
multiple-versions = "deny"
wildcards = "deny"
allow-wildcard-paths = true
deny = [{ crate = "banned", reason = "it breaks things" }]
[advisories]
yanked = "deny"
[sources]
unknown-registry = "deny"
unknown-git = "deny"
allow-git = ["https://example.org/good"]
"#;

const LOCK: &str = "[[package]]\nname = \"leaf\"\nversion = \"1.0.0\"\n";

/// A registry's package `leaf` under MIT, and the workspace's own that uses it.
fn graph(edit: impl FnOnce(&mut Value)) -> String {
    let own = json!({
        "name": "own", "version": "0.1.0", "id": "own", "license": "MIT", "source": null, "publish": [],
        "dependencies": [{"name": "leaf", "req": "^1", "kind": null}],
    });
    let mut leaf = json!({
        "name": "leaf", "version": "1.0.0", "id": "leaf", "license": "MIT", "source": INDEX, "publish": null,
        "dependencies": [],
    });
    edit(&mut leaf);
    let nodes = json!([
        {"id": "own", "dependencies": ["leaf"]},
        {"id": "leaf", "dependencies": []},
    ]);
    json!({"packages": [own, leaf], "resolve": {"nodes": nodes}}).to_string()
}

/// Message about a graph, of which there may be one at most.
fn said(policy: &str, graph: &str) -> Option<String> {
    let found = check_metadata(policy, LOCK, graph);
    assert!(found.len() <= 1, "{found:?}");
    found.first().map(|finding| {
        assert_eq!((finding.rule, finding.severity), ("dependency", Severity::Error));
        format!("{}:{} {}", finding.path, finding.line, finding.message)
    })
}

fn with(key: &str, value: &str) -> Option<String> {
    said(POLICY, &graph(|leaf| leaf[key] = json!(value)))
}

#[test]
fn a_license_is_an_expression() {
    for allowed in [
        "MIT",
        "MIT/Apache-2.0",
        "Apache-2.0 / MIT",
        "GPL-3.0-only OR MIT",
        "(MIT OR GPL-3.0-only) AND Unicode-3.0",
        "Apache-2.0 WITH LLVM-exception OR GPL-2.0-only",
        "MIT AND (Apache-2.0 OR (LGPL-2.1-or-later AND BSL-1.0))",
    ] {
        assert_eq!(with("license", allowed), None, "{allowed}");
    }
    for (refused, names) in [
        ("GPL-3.0-only", "GPL-3.0-only"),
        ("MIT AND MPL-2.0", "MPL-2.0"),
        ("(MIT OR Unicode-3.0) AND BSL-1.0", "BSL-1.0"),
        ("GPL-2.0-only OR GPL-3.0-only", "GPL-2.0-only"),
        ("MIT WITH LLVM-exception", "MIT WITH LLVM-exception"),
        ("CC0-1.0", "CC0-1.0"),
        ("Free for all", "does not parse"),
        ("MIT AND", "does not parse"),
    ] {
        let said = with("license", refused).unwrap_or_else(|| panic!("{refused} passed"));
        assert!(said.starts_with("Cargo.lock:2 leaf 1.0.0 (used by own) stands under"), "{said}");
        assert!(said.contains(names), "{said}");
    }
}

#[test]
fn a_license_may_be_excepted_or_clarified_and_not_missing() {
    let tiny = graph(|leaf| (leaf["name"], leaf["license"]) = (json!("tiny"), json!("CC0-1.0")));
    assert_eq!(said(POLICY, &tiny), None);
    let silent = graph(|leaf| (leaf["name"], leaf["license"]) = (json!("silent"), Value::Null));
    assert_eq!(said(POLICY, &silent), None);
    let unknown = said(POLICY, &graph(|leaf| leaf["license"] = Value::Null)).unwrap();
    assert!(unknown.contains("states no license"), "{unknown}");
}

#[test]
fn a_banned_name_is_refused_with_its_reason() {
    let said = with("name", "banned").unwrap();
    assert_eq!(said, "Cargo.lock:0 banned 1.0.0 (used by own) is banned: it breaks things");
}

#[test]
fn a_foreign_source_is_refused() {
    for good in [INDEX, "git+https://example.org/good?rev=1#2"] {
        assert_eq!(with("source", good), None, "{good}");
    }
    for bad in ["git+https://example.org/bad#2", "sparse+https://example.org/crates/", "elsewhere"]
    {
        assert!(with("source", bad).unwrap().contains("[sources] does not know"), "{bad}");
    }
    let named =
        POLICY.replace("allow-git", "allow-registry = [\"https://example.org/crates\"]\nallow-git");
    let other = graph(|leaf| leaf["source"] = json!("sparse+https://example.org/crates/"));
    assert_eq!(said(&named, &other), None);
    assert!(said(&named, &graph(|_| ())).is_some());
}

#[test]
fn any_version_is_refused_except_for_a_private_path() {
    let wild = |publish: Value, path: Option<&str>, kind: Option<&str>| {
        let dependency = json!({"name": "x", "req": "*", "kind": kind, "path": path});
        said(
            POLICY,
            &graph(|leaf| {
                (leaf["dependencies"], leaf["publish"]) = (json!([dependency]), publish);
            }),
        )
    };
    assert!(wild(Value::Null, None, None).unwrap().contains("takes any version of x"));
    assert!(wild(Value::Null, Some("x"), None).is_some());
    assert!(wild(json!([]), None, None).is_some());
    assert_eq!(wild(Value::Null, Some("x"), Some("dev")), None);
    assert_eq!(wild(json!([]), Some("x"), None), None);
}

#[test]
fn one_crate_in_two_versions_is_as_grave_as_configured() {
    let two = graph(|leaf| (leaf["name"], leaf["version"]) = (json!("own"), json!("2.0.0")));
    assert!(
        said(POLICY, &two).unwrap().ends_with("1 crates in several versions: own (0.1.0, 2.0.0)")
    );
    let found = check_metadata(&POLICY.replace("multiple-versions = \"deny\"", ""), LOCK, &two);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].severity, Severity::Warning);
    let allowed = POLICY.replace("multiple-versions = \"deny\"", "multiple-versions = \"allow\"");
    assert_eq!(check_metadata(&allowed, LOCK, &two), []);
}

#[test]
fn what_the_check_does_not_understand_is_an_error() {
    for (old, new) in [
        ("[bans]", "[bans]\nskip = []"),
        ("reason = ", "wrappers = [\"x\"], reason = "),
        ("\"MIT\", ", "\"MIT or so\", "),
        ("crate = \"banned\"", "crate = \"banned@1\""),
        ("expression = \"MIT\"", "expression = \"MIT OR\""),
    ] {
        let found = check_metadata(&POLICY.replacen(old, new, 1), LOCK, &graph(|_| ()));
        assert!(
            found.iter().any(|f| f.path == "deny.toml" && f.severity == Severity::Error),
            "{new}: {found:?}"
        );
    }
    let torn = check_metadata(POLICY, LOCK, "{}");
    assert_eq!(torn.len(), 1, "{torn:?}");
}

/// A workspace on disk, of which cargo itself is asked: one crate by its name, another by its license.
#[test]
fn a_planted_crate_is_refused() {
    let planted = |name: &str, license: &str| {
        let manifest = |name: &str, license: &str, more: &str| {
            format!(
                "[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\
                 license = \"{license}\"\npublish = false\n{more}"
            )
        };
        let uses = format!("[workspace]\n[dependencies]\n{name} = {{ path = \"vendored\" }}\n");
        let lock = format!(
            "# This file is automatically @generated by Cargo.\n# It is not intended for manual editing.\n\
             version = 4\n\n[[package]]\nname = \"{name}\"\nversion = \"0.1.0\"\n\n\
             [[package]]\nname = \"own\"\nversion = \"0.1.0\"\ndependencies = [\n \"{name}\",\n]\n"
        );
        let files: BTreeMap<String, Vec<u8>> = [
            ("deny.toml", POLICY.replace("crate = \"banned\"", "crate = \"candle-nn\"")),
            ("Cargo.toml", manifest("own", "MIT", &uses)),
            ("Cargo.lock", lock),
            ("src/lib.rs", "//! Nothing.\n".to_owned()),
            ("vendored/Cargo.toml", manifest(name, license, "")),
            ("vendored/src/lib.rs", "//! Nothing.\n".to_owned()),
        ]
        .into_iter()
        .map(|(path, text)| (path.to_owned(), text.into_bytes()))
        .collect();
        let found = findings(&files).into_iter().filter(|finding| finding.rule == "dependency");
        found.map(|finding| finding.message).collect::<Vec<_>>()
    };
    assert_eq!(planted("fine", "MIT/GPL-3.0"), [""; 0]);
    let banned = planted("candle-nn", "MIT");
    assert_eq!(banned, ["candle-nn 0.1.0 (used by own) is banned: it breaks things"]);
    let foreign = planted("fine", "GPL-3.0-only");
    assert_eq!(foreign.len(), 1, "{foreign:?}");
    assert!(foreign[0].ends_with("[licenses] does not allow GPL-3.0-only"), "{foreign:?}");
}

/// The rule speaks of this repository only while its file is there.
#[test]
fn this_repository_states_what_it_allows() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let text = std::fs::read_to_string(root.join("deny.toml")).unwrap();
    let found = check_metadata(&text, "", &graph(|leaf| leaf["name"] = json!("candle-nn")));
    assert_eq!(found.len(), 1, "{found:?}");
}
