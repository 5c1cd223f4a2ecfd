//! docs/configuration.md agrees with the schema: its tables of keys are those printed here.

use std::fmt::Write as _;
use std::path::Path;

use aurora_layers::AdapterKind;
use toml::Value;

use super::{Config, LearningRates, PretrainConfig, RunConfig};

const OPEN: &str = "<!-- keys -->\n";
const CLOSE: &str = "<!-- /keys -->\n";

/// Tables of keys of one program, one per section, in the order of the schema.
fn tables<C: RunConfig>(out: &mut String, title: &str) {
    let _ = writeln!(out, "## {title}");
    let defaults = Value::try_from(C::defaults().unwrap()).unwrap();
    let mut section = None;
    for field in C::fields() {
        let home = field.key.split_once('.').map_or("", |(home, _)| home);
        if section != Some(home) {
            section = Some(home);
            let heading =
                if home.is_empty() { "Top level".to_owned() } else { format!("[{home}]") };
            let _ = writeln!(out, "\n### {heading}");
            out.push_str("\n| key | value | default | meaning |\n|---|---|---|---|\n");
        }
        let default = field.key.split('.').try_fold(&defaults, |value, part| value.get(part));
        let default = match default {
            Some(Value::Float(x)) if *x != 0.0 && x.abs() < 1e-3 => format!("`{x:e}`"),
            Some(other) => format!("`{other}`"),
            None => "by kind, below".to_owned(),
        };
        let cells = [field.value_type.describe(), default, field.doc.to_owned()];
        let [kind, default, meaning] = cells.map(|cell| cell.replace('|', "\\|"));
        let _ = writeln!(out, "| `{}` | {kind} | {default} | {meaning} |", field.key);
    }
    out.push('\n');
}

/// The learning rates of every kind of adapter, where none are given.
fn rates_by_kind(out: &mut String) {
    out.push_str("### Defaults of [optimizer.lr] by `adapter.kind`\n\n");
    out.push_str("| kind | factors | gates | heads | backbone |\n|---|---|---|---|---|\n");
    for kind in AdapterKind::ALL {
        let LearningRates { factors, gates, heads, backbone } = LearningRates::defaults(kind);
        let [factors, gates, heads, backbone] = [factors, gates, heads, backbone]
            .map(|rate| rate.map_or_else(String::new, |rate| format!("{rate:e}")));
        let _ = writeln!(out, "| {} | {factors} | {gates} | {heads} | {backbone} |", kind.name());
    }
    out.push('\n');
}

/// The page with its tables regenerated.
fn printed(page: &str) -> String {
    let (head, rest) = page.split_once(OPEN).expect("a line that opens the tables");
    let (_, tail) = rest.split_once(CLOSE).expect("a line that closes the tables");
    let mut keys = String::from("\n");
    tables::<Config>(&mut keys, "Keys of `aurora train`");
    rates_by_kind(&mut keys);
    tables::<PretrainConfig>(&mut keys, "Keys of `aurora pretrain`");
    format!("{head}{OPEN}{keys}{CLOSE}{tail}")
}

#[test]
fn configuration_page_is_that_of_the_schema() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    // The packaged crate has no docs folder.
    let Ok(page) = std::fs::read_to_string(&path) else { return };
    let printed = printed(&page);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, printed).unwrap();
        return;
    }
    let differ = page.lines().zip(printed.lines()).position(|(old, new)| old != new);
    assert!(
        page == printed,
        "docs/configuration.md:{}: not what the schema says; run: cargo xtask configuration",
        differ.map_or(page.lines().count(), |line| line + 1)
    );
}

#[test]
fn configuration_page_keeps_what_is_written_by_hand() {
    let page = format!("# Title\n{OPEN}old\n{CLOSE}\n<!-- environment -->\n");
    let printed = printed(&page);
    assert!(printed.starts_with("# Title\n") && printed.ends_with("\n<!-- environment -->\n"));
    assert!(!printed.contains("old\n"), "{printed}");
    let row = "| `adapter.rank` | a whole number, 1 to 4096 | `32` |";
    assert!(printed.contains(row), "{printed}");
    for section in ["### Top level", "### [adapter]", "### [pretrain]"] {
        assert!(printed.contains(section), "{section}");
    }
}
