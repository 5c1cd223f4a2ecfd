//! Fixture: a small workspace that keeps every rule of tidy, and the means to break one.

use std::collections::BTreeMap;
use std::io::Write;

use sha2::{Digest, Sha256};
use xtask::tidy::{Finding, Tree, check};

/// The files of a workspace by path.
pub type Files = BTreeMap<String, Vec<u8>>;

/// A workspace of the five crates that breaks no rule.
pub fn tidy_workspace() -> Files {
    let mut files = Files::new();
    let mut put = |path: &str, text: &str| files.insert(path.to_owned(), text.as_bytes().to_vec());
    put(".gitignore", "target/\n");
    put(".cargo/config.toml", "[alias]\nxtask = \"run --package xtask --\"\n");
    put(
        "Cargo.toml",
        "[workspace.package]\nlicense = \"MIT\"\nrepository = \"r\"\nkeywords = [\"k\"]\n\
        categories = [\"c\"]\n",
    );
    put("Cargo.lock", "source = \"registry+https://github.com/rust-lang/crates.io-index\"\n");
    put(
        "README.md",
        "# Aurora\n\nSee [the data](crates/aurora-data).\n\n```sh\n\
         cargo run --release -- train --out DIR\n```\n",
    );
    put(
        "xtask/src/main.rs",
        "//! Chores.\n#[derive(Subcommand)]\nenum C { Tidy }\nfn main() { println!(\"fine\") }\n",
    );
    put(
        "crates/aurora-cli/src/main.rs",
        "//! The program.\n#[derive(Subcommand)]\nenum C {\n    Train { out: P },\n}\n",
    );
    put("crates/aurora-cli/src/output.rs", "//! Prints.\nfn say() { println!(\"fine\") }\n");
    for (name, dependencies) in [
        ("aurora-kernels", ""),
        ("aurora-layers", "aurora-kernels.workspace = true\n"),
        ("aurora-data", "aurora-kernels.workspace = true\n"),
        ("aurora-train", "aurora-layers.workspace = true\naurora-data.workspace = true\n"),
        ("aurora-cli", "aurora-train.workspace = true\n"),
    ] {
        let inherited: String = ["license", "repository", "keywords", "categories"]
            .map(|key| format!("{key}.workspace = true\n"))
            .concat();
        let manifest = format!(
            "[package]\nname = \"{name}\"\ndescription = \"d\"\nreadme = \"README.md\"\n\
            {inherited}[lints]\nworkspace = true\n[dependencies]\n{dependencies}"
        );
        put(&format!("crates/{name}/Cargo.toml"), &manifest);
        put(&format!("crates/{name}/README.md"), "# Name\n\nWhat it is.\n");
        put(
            &format!("crates/{name}/examples/use.rs"),
            "//! Use it.\nfn main() { println!(\"fine\") }\n",
        );
        put(
            &format!("crates/{name}/src/lib.rs"),
            "//! A crate. println! in a comment.\nconst A: &str = \"print!\";\n",
        );
    }
    let image = b"RIFF\0".to_vec();
    let row = format!("a.tar\tapple\tp\t1\tapple.png\tApache-2.0\t{}", sha256(&image));
    put(MANIFEST, &format!("shard\tkey\tpackage\tversion\tfile\tlicence\tsha256\n{row}\n"));
    files.insert(SHARD.to_owned(), shard(&[("apple.webp", &image), ("apple.txt", b"an apple")]));
    files
}

/// Path of the manifest of the images.
pub const MANIFEST: &str = "crates/aurora-data/assets/manifest.tsv";
/// Path of the one shard.
pub const SHARD: &str = "crates/aurora-data/assets/a.tar";

/// SHA-256 as the manifest writes it.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Tar file of these entries.
pub fn shard(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, bytes) in entries {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        archive.append_data(&mut header, name, *bytes).unwrap();
    }
    archive.into_inner().unwrap()
}

/// Gzips bytes.
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Findings of tidy in these files.
pub fn findings(files: &Files) -> Vec<Finding> {
    let folder = tempfile::tempdir().unwrap();
    for (path, bytes) in files {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    check(&Tree::read(folder.path()).unwrap())
}

/// Findings, as `rule path:line`, after `edit` has broken the tidy workspace.
pub fn found_after(edit: impl FnOnce(&mut Files)) -> Vec<String> {
    let mut files = tidy_workspace();
    edit(&mut files);
    findings(&files).iter().map(|f| format!("{} {}:{}", f.rule, f.path, f.line)).collect()
}

/// Replaces the first `old` in a file, which must be there.
pub fn replace(files: &mut Files, path: &str, old: &str, new: &str) {
    let text = String::from_utf8(files[path].clone()).unwrap();
    assert!(text.contains(old), "{path} holds no {old:?}");
    files.insert(path.to_owned(), text.replacen(old, new, 1).into_bytes());
}

/// Adds to the end of a file.
pub fn append(files: &mut Files, path: &str, more: &str) {
    files.get_mut(path).unwrap().extend_from_slice(more.as_bytes());
}
