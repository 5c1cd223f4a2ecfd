//! Encodes texts with a custom vocabulary: `encode VOCABULARY < texts.jsonl > ids.jsonl`.
//!
//! VOCABULARY is a `vocab.txt` or a `tokenizer.json`. A line in is `{"text": "a red apple", "max": 35}`, a line out the
//! ids, `[101, 1037, 2417, 6207, 102]`; `max` (35 where it is left out) is the greatest number of ids. `cargo xtask
//! interop` compares them with Python's.

#![allow(clippy::print_stderr, reason = "an example that is run by hand")]

use std::io::{BufRead as _, BufWriter, Write as _};
use std::path::Path;

use aurora_data::Tokenizer;

#[derive(serde::Deserialize)]
struct Line {
    text: String,
    #[serde(default = "longest")]
    max: usize,
}

fn longest() -> usize {
    35
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let Some(vocabulary) = std::env::args().nth(1) else {
        eprintln!("usage: encode VOCABULARY < texts.jsonl > ids.jsonl");
        std::process::exit(2);
    };
    let tokenizer = Tokenizer::from_file(Path::new(&vocabulary))?;
    let mut out = BufWriter::new(std::io::stdout().lock());
    for line in std::io::stdin().lock().lines() {
        let Line { text, max } = serde_json::from_str(&line?)?;
        serde_json::to_writer(&mut out, &tokenizer.encode(&text, max)?)?;
        out.write_all(b"\n")?;
    }
    Ok(out.flush()?)
}
