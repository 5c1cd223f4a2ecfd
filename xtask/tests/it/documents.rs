//! Rules that tie documents to records and sources, in a small workspace.

use crate::workspace::{Files, append, findings, found_after, replace, tidy_workspace};

const DERIVATION: &str = "docs/math/sum.md";
const SOURCE: &str = "crates/aurora-layers/src/sum.rs";

fn with_derivation(files: &mut Files, sources: &str, hash: &str) {
    let code = "//! Sums.\n/// One.\nfn one(a: f32) -> f32 {\n    a + 1.0\n}\nfn other() {}\n";
    files.insert(SOURCE.into(), code.into());
    let text = format!("# Sum\n\n<!-- sources: {sources}; hash: {hash} -->\n");
    files.insert(DERIVATION.into(), text.into_bytes());
}

/// Hash that `accept` writes for these sources.
fn accepted(sources: &str) -> String {
    let mut files = tidy_workspace();
    with_derivation(&mut files, sources, "");
    let folder = tempfile::tempdir().unwrap();
    for (path, bytes) in &files {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    let run = |accept: &[&str]| {
        use clap::Parser as _;
        let root = folder.path().to_str().unwrap();
        let line = ["x", "--root", root].into_iter().chain(accept.iter().copied());
        xtask::derivations::run(&Line::parse_from(line).args)
    };
    assert!(run(&[]).unwrap_err().to_string().contains("1 derivations to reread"));
    run(&["--accept"]).unwrap();
    run(&[]).unwrap();
    let text = std::fs::read_to_string(folder.path().join(DERIVATION)).unwrap();
    let (_, hash) = text.split_once("hash: ").unwrap();
    hash.split_whitespace().next().unwrap().to_owned()
}

#[derive(clap::Parser)]
struct Line {
    #[command(flatten)]
    args: xtask::derivations::DerivationsArgs,
}

#[test]
fn a_derivation_is_reread_when_its_code_changes() {
    let finding = format!("derivation {DERIVATION}:3");
    for (sources, change, fires) in [
        (SOURCE.to_owned(), ("a + 1.0", "a + b"), true),
        (SOURCE.to_owned(), ("fn other() {}", "fn other() { one(); }"), true),
        (SOURCE.to_owned(), ("/// One.", "/// One more than `a`."), false),
        (SOURCE.to_owned(), ("    a + 1.0", "    // Plainly.\n\n        a +  1.0"), false),
        (format!("{SOURCE}#one"), ("a + 1.0", "a - 1.0"), true),
        (format!("{SOURCE}#one"), ("fn other() {}", "fn other() { one(); }"), false),
        (format!("{SOURCE}#one,other"), ("fn other() {}", "fn other() { one(); }"), true),
    ] {
        let hash = accepted(&sources);
        let found = found_after(|files| {
            with_derivation(files, &sources, &hash);
            replace(files, SOURCE, change.0, change.1);
        });
        assert_eq!(
            found,
            if fires { vec![finding.clone()] } else { vec![] },
            "{sources} {change:?}"
        );
    }
}

#[test]
fn a_derivation_names_sources_that_exist() {
    for (sources, word) in
        [("crates/gone.rs", "no source"), (&*format!("{SOURCE}#gone"), "no item")]
    {
        let mut files = tidy_workspace();
        with_derivation(&mut files, sources, "0");
        let found = findings(&files);
        assert!(found[0].to_string().contains(word), "{found:?}");
    }
    let bare = found_after(|f| drop(f.insert(DERIVATION.into(), "# Sum\n".into())));
    assert_eq!(bare, [format!("derivation {DERIVATION}:1")]);
}

#[test]
fn the_way_out_of_a_changed_source_is_named() {
    let mut files = tidy_workspace();
    with_derivation(&mut files, SOURCE, "0123456789abcdef");
    let found = findings(&files)[0].to_string();
    for part in ["docs/math/sum.md:3: error [derivation]", "reread", "derivations --accept"] {
        assert!(found.contains(part), "{found}");
    }
}

/// Adds the committed page and its records.
fn with_results(files: &mut Files) {
    let root = xtask::workspace_root();
    files.insert("docs/results.md".into(), std::fs::read(root.join("docs/results.md")).unwrap());
    for entry in std::fs::read_dir(root.join("benches/results")).unwrap() {
        let path = entry.unwrap().path();
        let name = format!("benches/results/{}", path.file_name().unwrap().to_str().unwrap());
        files.insert(name, std::fs::read(path).unwrap());
    }
}

/// Findings of that rule alone in a workspace with results.
fn results_after(edit: impl FnOnce(&mut Files)) -> Vec<String> {
    let mut files = tidy_workspace();
    with_results(&mut files);
    edit(&mut files);
    let found = findings(&files).into_iter().filter(|finding| finding.rule == "results");
    found.map(|finding| finding.to_string()).collect()
}

#[test]
fn a_changed_number_is_found_on_either_side() {
    assert_eq!(results_after(|_| ()), [""; 0]);
    let page = results_after(|f| replace(f, "docs/results.md", "| 16.6 |", "| 16.7 |"));
    assert_eq!(page.len(), 1);
    assert!(page[0].starts_with("docs/results.md:") && page[0].contains("16.6"), "{page:?}");
    assert!(page[0].contains("cargo xtask results"), "{page:?}");

    let recall = "benches/results/recall.csv";
    let record = results_after(|f| replace(f, recall, "both,mean,16.6", "both,mean,16.9"));
    assert!(record[0].starts_with("docs/results.md:") && record[0].contains("16.9"), "{record:?}");

    let broken = results_after(|f| replace(f, recall, "both,mean,16.6", "both,mean,many"));
    assert!(broken[0].starts_with(&format!("{recall}:")), "{broken:?}");
    let gone = results_after(|f| drop(f.remove(recall)));
    assert!(gone[0].starts_with(&format!("{recall}: ")), "{gone:?}");
}

#[test]
fn dated_documents_keep_the_names_of_their_time() {
    let text = "# Diary\n\n`Gone::item`, `docs/gone.md`, `cargo xtask dream`\n";
    let path = "docs/history/2026-01-01-diary.md";
    assert_eq!(found_after(|f| drop(f.insert(path.into(), text.into()))), [""; 0]);
    let found = found_after(|f| {
        f.insert(path.into(), b"# Diary\n".to_vec());
        append(f, path, "[x](gone.md)\n");
    });
    assert_eq!(found, [format!("link {path}:2")]);
}
