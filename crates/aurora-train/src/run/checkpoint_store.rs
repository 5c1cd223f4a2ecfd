//! `checkpoints/`: saved states of a run under way, a folder `step-N` each, and `baseline/` beside them.
//!
//! A folder is written aside, its files are brought to the disk, and only then it gets its name: whatever the moment at
//! which a run is cut off, a folder that has its name is whole, and an older one stands until a newer one does.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};

use super::{RunFolder, remove_folder};
use crate::error::{Error, Result};

/// What the backbone itself was measured to.
const BASELINE: &str = "baseline";

/// The saved states of a run.
#[derive(Debug, Clone)]
pub struct CheckpointStore {
    folder: RunFolder,
}

impl CheckpointStore {
    pub(super) fn new(folder: RunFolder) -> Self {
        Self { folder }
    }

    /// Where the measurement of the bare backbone stands, which all states of a run have in common.
    pub fn baseline(&self) -> PathBuf {
        self.folder.join(BASELINE)
    }

    /// Lets `fill` write that measurement.
    ///
    /// # Errors
    /// What `fill` or the system reports.
    pub fn write_baseline(&self, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        self.write_whole(BASELINE, fill)
    }

    /// The folder of the newest state.
    ///
    /// # Errors
    /// What the system reports.
    pub fn newest(&self) -> Result<Option<PathBuf>> {
        Ok(self.steps()?.pop().map(|step| self.folder.join(name(step))))
    }

    /// Lets `fill` write the state after `step` steps, then removes all older ones but the newest `keep`, this one
    /// included.
    ///
    /// # Errors
    /// What `fill` or the system reports; what was there then still stands.
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

    /// Removes all of them, once a run has reached its end.
    ///
    /// # Errors
    /// What the system reports.
    pub fn clear(&self) -> Result<()> {
        remove_folder(self.folder.path())
    }

    fn write_whole(&self, name: &str, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        self.folder.write_folder(name, |aside| {
            fill(aside)?;
            to_disk(aside)
        })
    }

    /// Takes the name away first, so that what carries one is whole.
    fn remove(&self, name: &str) -> Result<()> {
        let (path, aside) = (self.folder.join(name), self.folder.join(format!(".{name}.part")));
        remove_folder(&aside)?;
        fs::rename(&path, &aside).map_err(|e| Error::io("rename", &path, e))?;
        remove_folder(&aside)
    }

    /// Steps of which there is a state, rising.
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

/// Brings the files of a folder to the disk, so that a machine that goes down leaves no empty ones under their names.
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

    /// A run that is cut off leaves what it was at under another name; a write that fails leaves the older state.
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
