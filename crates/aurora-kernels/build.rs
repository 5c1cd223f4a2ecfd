//! Embeds the CUDA sources, and those fatbins of `target/kernels` that were compiled from these very sources.
//!
//! `AURORA_KERNELS_DIR` names another folder of fatbins. One that was compiled from other sources
//! is left out with a warning: what runs is what stands in the sources, or nothing.

#[allow(dead_code, reason = "the crate reads more of it")]
#[path = "src/cuda/symbols.rs"]
mod symbols;

use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let package = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    // A link to the workspace's folder; in a published package, a folder. Where a checkout has no
    // links, the workspace's folder itself.
    let places = [package.join("kernels"), package.join("../../kernels")];
    let kernels = places.into_iter().find(|place| place.join("include").is_dir());
    let kernels = kernels.ok_or("there is no folder kernels/include")?;
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src/cuda/symbols.rs");
    println!("cargo::rerun-if-env-changed=AURORA_KERNELS_DIR");

    let mut headers: Vec<PathBuf> = Vec::new();
    let include = kernels.join("include");
    // The folder too, for a header that is added.
    println!("cargo::rerun-if-changed={}", include.display());
    for entry in fs::read_dir(include)? {
        headers.push(entry?.path());
    }
    headers.sort();
    let mut shared = Sha256::new();
    let mut text = String::from("pub(super) static HEADERS: &[(&str, &str)] = &[\n");
    for header in &headers {
        println!("cargo::rerun-if-changed={}", header.display());
        let name = header.file_name().unwrap_or_default().to_string_lossy().into_owned();
        absorb(&mut shared, &format!("include/{name}"), header)?;
        writeln!(text, "    ({name:?}, include_str!({header:?})),")?;
    }
    text += "];\npub(super) static MODULES: &[Module] = &[\n";
    let built = Built::read(&package);
    for source in symbols::SOURCES {
        let file = kernels.join(source.path);
        println!("cargo::rerun-if-changed={}", file.display());
        let mut hash = shared.clone();
        absorb(&mut hash, source.path, &file)?;
        let hash = hex(&hash.finalize());
        let fatbin = built.as_ref().and_then(|built| built.fatbin(source.path, &hash));
        writeln!(
            text,
            "    Module {{ path: {:?}, text: include_str!({file:?}), hash: {hash:?}, fatbin: {} }},",
            source.path,
            match fatbin {
                None => "None".to_owned(),
                Some((path, compiler, architectures)) => format!(
                    "Some(Fatbin {{ bytes: include_bytes!({path:?}), compiler: {compiler:?}, \
                     architectures: &{architectures:?} }})"
                ),
            }
        )?;
    }
    text += "];\n";
    fs::write(out.join("embedded.rs"), text)?;
    Ok(())
}

/// Manifest of the fatbins built by `cargo xtask build-kernels`.
struct Built {
    folder: PathBuf,
    modules: Vec<serde_json::Value>,
}

impl Built {
    fn read(package: &Path) -> Option<Self> {
        let folder = match std::env::var_os("AURORA_KERNELS_DIR").filter(|dir| !dir.is_empty()) {
            Some(folder) => PathBuf::from(folder),
            None => {
                let root = package.join("../..");
                // Elsewhere than in the workspace, `../..` is somebody else's.
                root.join("kernels/include").is_dir().then(|| root.join("target/kernels"))?
            }
        };
        let manifest = folder.join("manifest.json");
        // A path that is not there would have this script run anew at every build; the chore that
        // writes the manifest touches this file instead.
        let text = fs::read_to_string(&manifest).ok()?;
        println!("cargo::rerun-if-changed={}", manifest.display());
        let manifest: serde_json::Value = serde_json::from_str(&text).ok()?;
        Some(Self { folder, modules: manifest.get("modules")?.as_array()?.clone() })
    }

    /// Path, compiler and architectures of the fatbin of a source.
    fn fatbin(&self, source: &str, hash: &str) -> Option<(PathBuf, String, Vec<String>)> {
        let word = |module: &serde_json::Value, key: &str| {
            module.get(key).and_then(|value| value.as_str()).unwrap_or_default().to_owned()
        };
        let module = self.modules.iter().find(|module| word(module, "source") == source)?;
        if word(module, "sha256") != hash {
            println!(
                "cargo::warning=kernels/{source} has changed since it was compiled, so its fatbin \
                 is not embedded: run `cargo xtask build-kernels`"
            );
            return None;
        }
        let path = self.folder.join(word(module, "name") + ".fatbin");
        let path = fs::canonicalize(&path).ok()?;
        println!("cargo::rerun-if-changed={}", path.display());
        let of = |key: &str| module.get(key).cloned().unwrap_or_default();
        let mut architectures: Vec<String> =
            serde_json::from_value(of("architectures")).unwrap_or_default();
        architectures.extend(of("ptx").as_str().map(str::to_owned));
        Some((path, word(module, "compiler"), architectures))
    }
}

/// Hashes one file, as `cargo xtask build-kernels` does: its path, a zero byte, its bytes, a zero byte.
fn absorb(hash: &mut Sha256, name: &str, file: &Path) -> Result<()> {
    let bytes =
        fs::read(file).map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    hash.update(name);
    hash.update([0]);
    hash.update(bytes);
    hash.update([0]);
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
