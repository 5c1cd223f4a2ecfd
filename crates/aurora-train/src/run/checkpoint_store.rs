//! Checkpoint store: `checkpoints/` with a folder `step-N` each, and `baseline/` beside them.
//!
//! A folder is written aside, its files are synced to disk, and only then is it renamed: whenever a run is interrupted,
//! a folder with a final name is complete, and an older one stands until a newer one does.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};

use super::{RunFolder, remove_folder};
use crate::error::{Error, Result};

/// Folder of the bare backbone's evaluation.
const BASELINE: &str = "baseline";

/// Training checkpoints of a run.
#[derive(Debug, Clone)]
pub struct CheckpointStore {
    folder: RunFolder,
}

impl CheckpointStore {
    pub(super) fn new(folder: RunFolder) -> Self {
        Self { folder }
    }

    /// Folder of the bare backbone's evaluation, which all checkpoints of a run share.
    pub fn baseline(&self) -> PathBuf {
        self.folder.join(BASELINE)
    }

    /// Writes the bare backbone's evaluation with `fill`.
    ///
    /// # Errors
    /// An error of `fill` or an I/O error.
    pub fn write_baseline(&self, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        self.write_whole(BASELINE, fill)
    }

    /// Folder of the newest checkpoint.
    ///
    /// # Errors
    /// Any I/O error.
    pub fn newest(&self) -> Result<Option<PathBuf>> {
        Ok(self.steps()?.pop().map(|step| self.folder.join(name(step))))
    }

    /// Writes the checkpoint after `step` steps with `fill`, then removes all but the newest `keep`, this one included.
    ///
    /// # Errors
    /// An error of `fill` or an I/O error; existing checkpoints then still stand.
    pub fn write(
        &self,
        step: u64,
        keep: usize,
        fill: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<()> {
        self.write_whole(&name(step), fill)?;
        let older: Vec<u64> = self.steps()?.into_iter().filter(|other| *other < step).collect();
        let kept = keep.saturating_sub(1);
        for step in older.iter().take(older.len().saturating_sub(kept)) {
            self.remove(&name(*step))?;
        }
        Ok(())
    }

    /// Removes all checkpoints, at the end of a run.
    ///
    /// # Errors
    /// Any I/O error.
    pub fn clear(&self) -> Result<()> {
        remove_folder(self.folder.path())
    }

    fn write_whole(&self, name: &str, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        self.folder.write_folder(name, |aside| {
            fill(aside)?;
            to_disk(aside)
        })
    }

    /// Renames first, so that a final name means complete contents.
    fn remove(&self, name: &str) -> Result<()> {
        let (path, aside) = (self.folder.join(name), self.folder.join(format!(".{name}.part")));
        remove_folder(&aside)?;
        fs::rename(&path, &aside).map_err(|e| Error::io("rename", &path, e))?;
        remove_folder(&aside)
    }

    /// Steps of the saved checkpoints, ascending.
    fn steps(&self) -> Result<Vec<u64>> {
        let folder = self.folder.path();
        if !folder.exists() {
            return Ok(Vec::new());
        }
        let failed = |e| Error::io("read folder", folder, e);
        let mut steps = Vec::new();
        for entry in fs::read_dir(folder).map_err(failed)? {
            let entry = entry.map_err(failed)?.file_name();
            let number = entry.to_str().and_then(|name| name.strip_prefix("step-"));
            steps.extend(number.and_then(|number| number.parse::<u64>().ok()));
        }
        steps.sort_unstable();
        Ok(steps)
    }
}

fn name(step: u64) -> String {
    format!("step-{step}")
}

/// Syncs the files of a folder to disk, so that a crash leaves no empty ones under their names.
fn to_disk(folder: &Path) -> Result<()> {
    let failed = |e| Error::io("write", folder, e);
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let file = OpenOptions::new().write(true).open(&path);
        file.and_then(|file| file.sync_all()).map_err(|e| Error::io("write", &path, e))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(checkpoints: &CheckpointStore) -> Vec<String> {
        let entries = fs::read_dir(checkpoints.folder.path()).unwrap();
        let mut names: Vec<String> =
            entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn file(folder: &Path, text: &str) -> Result<()> {
        fs::write(folder.join("state"), text).map_err(|e| Error::io("write", folder, e))
    }

    #[test]
    fn the_newest_are_kept_by_number() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = RunFolder::create(folder.path()).unwrap().checkpoints();
        assert_eq!(checkpoints.newest().unwrap(), None);
        checkpoints.write_baseline(|folder| file(folder, "before")).unwrap();
        for step in [8, 9, 10, 11] {
            checkpoints.write(step, 2, |folder| file(folder, "x")).unwrap();
        }
        assert_eq!(left(&checkpoints), ["baseline", "step-10", "step-11"]);
        assert!(checkpoints.newest().unwrap().unwrap().ends_with("step-11"));
        checkpoints.write(12, 1, |folder| file(folder, "x")).unwrap();
        assert_eq!(left(&checkpoints), ["baseline", "step-12"]);
        checkpoints.clear().unwrap();
        assert!(!folder.path().join("checkpoints").exists());
        checkpoints.clear().unwrap();
    }

    /// An interrupted write leaves nothing under a final name; a failed write leaves the older checkpoint.
    #[test]
    fn what_is_half_written_is_no_state() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = RunFolder::create(folder.path()).unwrap().checkpoints();
        checkpoints.write(5, 1, |folder| file(folder, "whole")).unwrap();
        let aside = folder.path().join("checkpoints/.step-6.part");
        fs::create_dir(&aside).unwrap();
        fs::write(aside.join("half"), "ha").unwrap();
        fs::create_dir(folder.path().join("checkpoints/step-x")).unwrap();
        assert!(checkpoints.newest().unwrap().unwrap().ends_with("step-5"));
        let full = |folder: &Path| Err(Error::io("write", folder, std::io::Error::other("full")));
        assert!(checkpoints.write(6, 1, full).is_err());
        assert!(checkpoints.newest().unwrap().unwrap().ends_with("step-5"));
        checkpoints.write(6, 1, |folder| file(folder, "whole")).unwrap();
        assert_eq!(left(&checkpoints), ["step-6", "step-x"]);
        assert!(!folder.path().join("checkpoints/step-6/half").exists());
    }
}
