//! Image lookup: resolves names in annotation rows to images and clips below the root folders.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

use super::listed;
use crate::media_type::{MediaType, SNIFF_BYTES, media_type};
use crate::shard::VIDEO_EXTENSIONS;
use crate::{ByteSource, Media, folder};

/// Root folders of names. Results are cached: a benchmark names each image five or twenty times.
pub(super) struct ImageLookup {
    roots: Vec<PathBuf>,
    found: RefCell<HashMap<String, Media>>,
}

impl ImageLookup {
    pub fn new(roots: Vec<PathBuf>) -> Self {
        Self { roots, found: RefCell::default() }
    }

    /// True if something of this name exists.
    pub fn is_there(&self, name: &str) -> bool {
        inside(name).is_ok() && self.roots.iter().any(|root| root.join(name).exists())
    }

    /// Image of the first of `names` that exists.
    pub fn image(&self, names: &[&str]) -> Result<Media, String> {
        self.look(names, |path| {
            let name = path.to_string_lossy().to_lowercase();
            // Photographs are not opened for detection: there are a hundred thousand.
            if name.ends_with(".jpg") || name.ends_with(".jpeg") {
                return ByteSource::file(path).map(Media::Image).map_err(|e| e.to_string());
            }
            seen(path)
        })
    }

    /// Image, video or folder of frames of this name.
    pub fn anything(&self, name: &str) -> Result<Media, String> {
        self.look(&[name], seen)
    }

    /// Clip of this name: a folder, a file, or a file with a video extension.
    pub fn clip(&self, name: &str) -> Result<Media, String> {
        let with = VIDEO_EXTENSIONS.iter().map(|extension| format!("{name}.{extension}"));
        let names: Vec<String> = std::iter::once(name.to_string()).chain(with).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        self.look(&names, |path| match seen(path)? {
            Media::Image(_) => Err(format!("{} is an image, not a clip", path.display())),
            clip => Ok(clip),
        })
    }

    /// Searches every root folder for the names and caches the result.
    fn look(
        &self,
        names: &[&str],
        see: impl Fn(&Path) -> Result<Media, String>,
    ) -> Result<Media, String> {
        let name = names.first().copied().unwrap_or_default();
        if let Some(media) = self.found.borrow().get(name) {
            return Ok(media.clone());
        }
        inside(name)?;
        let mut looked = Vec::new();
        for root in &self.roots {
            for name in names {
                let path = root.join(name);
                if path.exists() {
                    let media = see(&path)?;
                    let key = names.first().copied().unwrap_or_default().to_string();
                    self.found.borrow_mut().insert(key, media.clone());
                    return Ok(media);
                }
                looked.push(path);
            }
        }
        let more = looked.len().saturating_sub(3);
        looked.truncate(3);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        Err(format!(
            "{name} is not there; looked for {}{more} (see data.image_root)",
            listed(&looked)
        ))
    }
}

/// Media of a path, by its magic bytes.
fn seen(path: &Path) -> Result<Media, String> {
    let told = |e: crate::Error| e.to_string();
    if path.is_dir() {
        return folder::frames(path).map_err(told);
    }
    let content = ByteSource::file(path).map_err(told)?;
    match media_type(&content.head(SNIFF_BYTES).map_err(told)?) {
        Some(MediaType::Image) => Ok(Media::Image(content)),
        Some(MediaType::Video) => Ok(Media::Video(content)),
        None if content.is_empty() => Err(format!("{} is empty", path.display())),
        None => Err(format!(
            "{} is no image or video: its first bytes are none of JPEG, PNG, WebP, GIF or a video",
            path.display()
        )),
    }
}

/// Errors if a name leads out of its root folder.
fn inside(name: &str) -> Result<(), String> {
    let refused = |why: &str| {
        Err(format!("the path {name:?} {why}; paths begin at the folder of the images"))
    };
    if name.trim().is_empty() {
        return Err("the name of the image is empty".to_string());
    }
    for component in Path::new(name).components() {
        match component {
            Component::Normal(_) | Component::CurDir => {}
            Component::ParentDir => return refused("leads out of its folder"),
            Component::RootDir | Component::Prefix(_) => return refused("is absolute"),
        }
    }
    // A backslash may be part of a name on this system; on others it is a separator.
    if name.split('\\').any(|part| part == "..") {
        return refused("leads out of its folder");
    }
    Ok(())
}
