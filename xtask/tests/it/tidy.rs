//! Each rule of `cargo xtask tidy` against a small workspace that keeps all of them but the one.

use std::path::Path;

use crate::workspace::tidy_workspace;
use crate::workspace::{MANIFEST, SHARD, append, findings, found_after, gzip, replace, shard};
use xtask::tidy::{Severity, Tree, check};

#[test]
fn a_tidy_workspace_has_no_findings() {
    assert_eq!(found_after(|_| ()), [""; 0]);
}

#[test]
fn a_crate_may_not_depend_upwards() {
    let manifest = "crates/aurora-data/Cargo.toml";
    for section in ["[dependencies]", "[dev-dependencies]", "[target.'cfg(unix)'.dependencies]"] {
        let dependency = format!("{section}\naurora-layers.workspace = true\n");
        let found = found_after(|files| match section {
            "[dependencies]" => replace(files, manifest, "[dependencies]\n", &dependency),
            _ => append(files, manifest, &dependency),
        });
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("direction crates/aurora-data/Cargo.toml:1"), "{found:?}");
    }
    // Under another name it is the same crate.
    let renamed = found_after(|files| {
        append(
            files,
            manifest,
            "[dev-dependencies]\nother = { workspace = true, package = \"aurora-cli\" }\n",
        );
    });
    assert!(renamed[0].starts_with("direction "), "{renamed:?}");
}

#[test]
fn a_new_crate_needs_a_place_in_the_order() {
    let found = found_after(|files| {
        replace(files, "crates/aurora-cli/Cargo.toml", "aurora-cli", "aurora-extra")
    });
    assert_eq!(found, ["direction crates/aurora-cli/Cargo.toml:2"]);
}

#[test]
fn data_may_use_the_generator_alone() {
    let path = "crates/aurora-data/src/lib.rs";
    assert_eq!(found_after(|f| append(f, path, "use aurora_kernels::random::Stream;\n")), [""; 0]);
    for line in [
        "use aurora_kernels::gelu;\n",
        "use aurora_kernels::{random, gelu};\n",
        "use aurora_kernels::randomness;\n",
    ] {
        assert_eq!(found_after(|f| append(f, path, line)), [format!("data-direction {path}:3")]);
    }
}

#[test]
fn a_crate_must_be_publishable() {
    let manifest = "crates/aurora-train/Cargo.toml";
    let found = format!("metadata {manifest}:0");
    for key in [
        "description = \"d\"\n",
        "readme = \"README.md\"\n",
        "license.workspace = true\n",
        "[lints]\nworkspace = true\n",
    ] {
        assert_eq!(
            found_after(|files| replace(files, manifest, key, "")),
            [found.as_str()],
            "{key}"
        );
    }
    let not_inherited =
        found_after(|files| replace(files, "Cargo.toml", "license = \"MIT\"\n", ""));
    assert_eq!(not_inherited.len(), 5, "{not_inherited:?}");
    for gone in ["README.md", "examples/use.rs"] {
        let path = format!("crates/aurora-train/{gone}");
        assert_eq!(found_after(|files| drop(files.remove(&path))), [found.as_str()], "{gone}");
    }
}

#[test]
fn a_version_stands_in_the_root_manifest() {
    let found = found_after(|f| {
        append(f, "crates/aurora-cli/Cargo.toml", "[dev-dependencies]\nserde = \"1\"\n")
    });
    assert_eq!(found.len(), 1);
    assert!(found[0].starts_with("one-version crates/aurora-cli/Cargo.toml:"), "{found:?}");
}

#[test]
fn a_module_says_what_it_is() {
    for opening in
        ["fn a() {}\n", "// A plain comment.\n", "//!\n//! late\n", "#![allow(x)]\nfn a() {}\n"]
    {
        let found = found_after(|f| {
            drop(f.insert("crates/aurora-train/src/lib.rs".into(), opening.into()))
        });
        assert_eq!(found, ["module-docs crates/aurora-train/src/lib.rs:1"], "{opening}");
    }
    for opening in [
        "#![allow(x)]\n//! Words.\n",
        "\n//! Words.\n",
        "#![doc = include_str!(\"../README.md\")]\n",
    ] {
        let found = found_after(|f| {
            drop(f.insert("crates/aurora-train/src/lib.rs".into(), opening.into()))
        });
        assert_eq!(found, [""; 0], "{opening}");
    }
}

#[test]
fn only_the_output_module_prints() {
    let path = "crates/aurora-train/src/lib.rs";
    for call in ["println!()", "eprint!()", "dbg!(1)", "std::io::stdout()"] {
        let found = found_after(|f| append(f, path, &format!("\nfn a() {{ {call}; }}\n")));
        assert_eq!(found, [format!("stray-print {path}:4")], "{call}");
        let in_test = format!("#[cfg(test)]\nmod tests {{ fn a() {{ {call}; }} }}\n");
        assert_eq!(found_after(|f| append(f, path, &in_test)), [""; 0], "{call}");
    }
    let elsewhere_in_the_program =
        found_after(|f| append(f, "crates/aurora-cli/src/main.rs", "fn a() { print!(); }\n"));
    assert_eq!(elsewhere_in_the_program, ["stray-print crates/aurora-cli/src/main.rs:6"]);
}

#[test]
fn only_the_kernels_are_unsafe() {
    let code = "// unsafe\nfn unsafe_name() {}\nfn a() { unsafe { b() } }\n";
    let found = found_after(|f| append(f, "crates/aurora-train/src/lib.rs", code));
    assert_eq!(found, ["unsafe crates/aurora-train/src/lib.rs:5"]);
    assert_eq!(found_after(|f| append(f, "crates/aurora-kernels/src/lib.rs", code)), [""; 0]);
}

#[test]
fn a_long_file_is_mentioned_and_a_very_long_one_fails() {
    let with_lines = |lines: usize| {
        let mut files = tidy_workspace();
        append(&mut files, "crates/aurora-train/src/lib.rs", &"\n".repeat(lines - 3));
        append(&mut files, "crates/aurora-train/src/lib.rs", "fn a() {}\n");
        findings(&files).into_iter().map(|f| (f.rule, f.severity, f.line)).collect::<Vec<_>>()
    };
    assert_eq!(with_lines(400), []);
    assert_eq!(with_lines(401), [("file-length", Severity::Warning, 401)]);
    assert_eq!(with_lines(600), [("file-length", Severity::Warning, 401)]);
    assert_eq!(with_lines(601), [("file-length", Severity::Error, 601)]);
}

#[test]
fn a_kernel_is_as_short_as_any_source_and_opens_with_its_contract() {
    let with = |path: &str, text: String| found_after(|f| drop(f.insert(path.into(), text.into())));
    let lines = |count: usize| "// Adds.\n".repeat(count);
    for path in ["kernels/norm/k.cu", "kernels/include/k.cuh", "kernels/include/k.h", "k.cpp"] {
        assert_eq!(with(path, lines(400)), [""; 0], "{path}");
        assert_eq!(with(path, lines(401)), [format!("file-length {path}:401")]);
        assert_eq!(with(path, lines(601)), [format!("file-length {path}:601")]);
        assert_eq!(with(path, "#pragma once\n".into()), [format!("module-docs {path}:1")]);
    }
    let block = "/* Plain C. */\n".to_owned();
    assert_eq!(with("kernels/include/k.h", block), [""; 0]);
}

#[test]
fn what_a_chore_writes_may_be_long() {
    let path = "crates/aurora-kernels/src/params.rs";
    let text = "//! Parameters. @generated by a chore.\n".to_owned() + &"//\n".repeat(900);
    assert_eq!(found_after(|f| drop(f.insert(path.into(), text.into()))), [""; 0]);
}

#[test]
fn a_quoted_command_exists() {
    for good in [
        "cargo test -p aurora-data",
        "aurora train --out=x",
        "cargo run -p aurora-data --example use",
        "cargo xtask tidy",
    ] {
        assert_eq!(
            found_after(|f| append(f, "README.md", &format!("`{good}`\n"))),
            [""; 0],
            "{good}"
        );
    }
    for bad in [
        "aurora dream",
        "cargo run -- dream",
        "aurora train --dream 1",
        "cargo dream",
        "cargo xtask dream",
        "cargo test -p aurora-dream",
        "cargo test -p aurora-data --test dream",
        "cargo run -p aurora-data --example dream",
    ] {
        assert_eq!(
            found_after(|f| append(f, "README.md", &format!("`{bad}`\n"))),
            ["command README.md:8"],
            "{bad}"
        );
    }
    let with_setting = |key: &str| {
        found_after(|files| {
            let defaults = "crates/aurora-train/configs/quickstart.toml".to_owned();
            files.insert(defaults, b"seed = 1\n[adapter]\nrank = 2\n".to_vec());
            replace(files, "crates/aurora-cli/src/main.rs", "out: P", "out: P, set: V");
            append(files, "README.md", &format!("`aurora train --set {key}=1`\n"));
        })
    };
    assert_eq!(with_setting("seed"), [""; 0]);
    assert_eq!(with_setting("adapter.rank"), [""; 0]);
    assert_eq!(with_setting("rank"), ["command README.md:8"]);

    let no_alias = found_after(|files| {
        append(files, "README.md", "`cargo xtask tidy`\n");
        files.remove(".cargo/config.toml");
    });
    assert_eq!(no_alias, ["command README.md:8"]);
}

#[test]
fn a_relative_link_leads_somewhere() {
    for bad in ["crates/none", "../elsewhere.md"] {
        assert_eq!(
            found_after(|f| append(f, "README.md", &format!("[x]({bad})\n"))),
            ["link README.md:8"]
        );
    }
    assert_eq!(
        found_after(|f| append(f, "README.md", "[x](#top) [y](https://example.org/z)\n")),
        [""; 0]
    );
}

#[test]
fn a_quoted_path_is_there() {
    for good in ["crates/aurora-data/src/lib.rs", "crates/aurora-data", "output.rs", "runs/x/"] {
        assert_eq!(found_after(|f| append(f, "README.md", &format!("`{good}`\n"))), [""; 0]);
    }
    for bad in ["crates/aurora-data/src/gone.rs", "docs/gone.md", "gone.rs"] {
        let found = found_after(|f| append(f, "README.md", &format!("`{bad}`\n")));
        assert_eq!(found, ["path README.md:8"], "{bad}");
    }
}

#[test]
fn a_document_names_types_that_exist() {
    let with_document = |text: &str| {
        found_after(|files| {
            append(files, "crates/aurora-layers/src/lib.rs", "struct Site { path: String }\n");
            files.insert("docs/map.md".into(), format!("{text}\n").into_bytes());
        })
    };
    assert_eq!(with_document("`Site`, `Site::path`, `not_checked`, `A = B`"), [""; 0]);
    assert_eq!(with_document("`Sight`"), ["name docs/map.md:1"]);
    assert_eq!(with_document("\n`Site::slices`"), ["name docs/map.md:2"]);
}

#[test]
fn the_manifest_covers_every_image_and_nothing_else() {
    let other_license = found_after(|files| replace(files, MANIFEST, "Apache-2.0", "CC-BY-SA-4.0"));
    assert_eq!(other_license, [format!("license {MANIFEST}:2")]);

    let other_bytes =
        found_after(|f| drop(f.insert(SHARD.into(), shard(&[("apple.webp", b"other")]))));
    assert_eq!(other_bytes, [format!("license {MANIFEST}:2")]);

    let without_row = found_after(|f| replace(f, MANIFEST, "a.tar\tapple", "a.tar\tpear"));
    assert_eq!(without_row, [format!("license {MANIFEST}:2"), format!("license {MANIFEST}:0")]);

    let empty_cell = found_after(|f| replace(f, MANIFEST, "\tp\t1\t", "\t\t1\t"));
    assert_eq!(empty_cell, [format!("license {MANIFEST}:2")]);

    let other_header = found_after(|f| replace(f, MANIFEST, "shard\t", "tar\t"));
    assert_eq!(other_header, [format!("license {MANIFEST}:1")]);

    let short_row = found_after(|f| append(f, MANIFEST, "a.tar\tpear\n"));
    assert_eq!(short_row, [format!("license {MANIFEST}:3")]);

    let no_manifest = found_after(|f| drop(f.remove(MANIFEST)));
    assert_eq!(no_manifest, [format!("license {MANIFEST}:0")]);

    // A compressed shard is looked into as well.
    let compressed = format!("{SHARD}.gz");
    let not_listed = found_after(|f| {
        let image: &[u8] = b"other";
        f.insert(compressed.clone(), gzip(&shard(&[("pear.png", image)])));
    });
    assert_eq!(not_listed, [format!("license {MANIFEST}:0")]);

    let torn = found_after(|f| f.get_mut(SHARD).unwrap().truncate(700));
    assert!(torn.contains(&format!("license {SHARD}:0")), "{torn:?}");
}

#[test]
fn embedded_data_stays_small() {
    let model = "crates/aurora-cli/assets/model.safetensors";
    let with_model = |bytes| found_after(|f| drop(f.insert(model.into(), vec![0; bytes])));
    assert_eq!(with_model(12_500_000), [""; 0]);
    assert_eq!(with_model(12_500_001), ["data-size crates/aurora-cli/assets/:0"]);
}

#[test]
fn no_line_ends_in_whitespace() {
    assert_eq!(found_after(|f| append(f, "README.md", "a \n")), ["whitespace README.md:8"]);
    assert_eq!(found_after(|f| append(f, "README.md", "a\r\n")), ["whitespace README.md:8"]);
    assert_eq!(found_after(|f| append(f, "README.md", "\n")), ["whitespace README.md:8"]);
    assert_eq!(found_after(|f| append(f, "README.md", "no newline")), ["whitespace README.md:8"]);
}

#[test]
fn no_file_names_a_registry() {
    // Put together here, so that this file holds no such address itself.
    let address = format!("https:{}registry.example.org/x", "//");
    assert_eq!(
        found_after(|f| append(f, "README.md", &format!("{address}\n"))),
        ["registry README.md:8"]
    );
    let config = ".cargo/config.toml";
    let replaced =
        found_after(|f| append(f, config, "[source.crates-io]\nreplace-with = \"other\"\n"));
    assert_eq!(replaced, [format!("registry {config}:0")]);
    let git = found_after(|f| append(f, "Cargo.lock", "source = \"git+https://github.com/a/b\"\n"));
    assert_eq!(git, ["registry Cargo.lock:2"]);
}

#[test]
fn a_finding_names_its_place_and_the_way_out() {
    let mut files = tidy_workspace();
    append(&mut files, "crates/aurora-train/src/lib.rs", "fn a() { println!() }\n");
    let found: Vec<String> = findings(&files).iter().map(ToString::to_string).collect();
    assert_eq!(found.len(), 1);
    assert!(
        found[0].starts_with("crates/aurora-train/src/lib.rs:3: error [stray-print]: `println!`"),
        "{}",
        found[0]
    );
    assert!(found[0].contains("crates/aurora-cli/src/output.rs"), "{}", found[0]);
}

#[test]
fn this_repository_is_tidy() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let findings = check(&Tree::read(root).unwrap());
    let errors: Vec<String> = findings
        .iter()
        .filter(|f| f.severity == Severity::Error)
        .map(ToString::to_string)
        .collect();
    assert!(errors.is_empty(), "{}", errors.join("\n"));
}
