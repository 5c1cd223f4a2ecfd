//! Error policy for broken or missing images and records.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Handling of an image or record that cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnError {
    /// Stop with an error that names it and gives the reason.
    #[default]
    Stop,
    /// Skip, count and list it; stop past a limit.
    Skip,
}

/// Skipped image or record.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Skipped {
    /// Name of the image or record: shard and key, or file and line.
    pub what: String,
    /// Reason why it cannot be used.
    pub reason: String,
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason.contains(&self.what) {
            true => f.write_str(&self.reason),
            false => write!(f, "{}: {}", self.what, self.reason),
        }
    }
}

/// Error policy with the log of skipped items. Shared by threads; an item skipped in every epoch
/// counts once.
#[derive(Debug, Default)]
pub struct SkipLog {
    policy: OnError,
    limit: usize,
    list: Mutex<BTreeMap<String, String>>,
}

impl SkipLog {
    /// Policy that skips at most `limit` items. ([`OnError::Stop`] skips none.)
    pub fn new(policy: OnError, limit: usize) -> Self {
        Self { policy, limit, list: Mutex::default() }
    }

    /// The policy.
    pub fn policy(&self) -> OnError {
        self.policy
    }

    /// Handles `error`, caused by `what`: `Ok` means skipped.
    ///
    /// # Errors
    /// With [`OnError::Stop`], `error` itself; so too where it concerns no single image or record
    /// (see [`Error::is_of_one_sample`]). With [`OnError::Skip`], when the limit would be exceeded.
    pub fn handle(&self, what: impl Into<String>, error: Error) -> Result<()> {
        if self.policy == OnError::Stop || !error.is_of_one_sample() {
            return Err(error);
        }
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        let what = what.into();
        if list.len() >= self.limit && !list.contains_key(&what) {
            let (skipped, last) = (list.len(), error.to_string());
            return Err(Error::TooManySkipped { skipped, limit: self.limit, last });
        }
        list.insert(what, error.to_string());
        Ok(())
    }

    /// Adds the items skipped by an earlier part of the same run.
    pub fn restore(&self, skipped: &[Skipped]) {
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        list.extend(skipped.iter().map(|one| (one.what.clone(), one.reason.clone())));
    }

    /// Number of skipped items.
    pub fn len(&self) -> usize {
        self.list.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// True if nothing was skipped.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Skipped items, sorted, so that they do not depend on threads.
    pub fn list(&self) -> Vec<Skipped> {
        let list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        let skipped = list.iter().map(|(what, reason)| (what.clone(), reason.clone()));
        skipped.map(|(what, reason)| Skipped { what, reason }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(key: &str) -> Error {
        Error::Decode { shard: "s".into(), key: key.into(), reason: "cut".into() }
    }

    #[test]
    fn stop_gives_the_error_back() {
        let skips = SkipLog::new(OnError::Stop, 10);
        let error = skips.handle("s: 1", broken("1")).unwrap_err();
        assert!(error.to_string().contains("image 1 does not decode: cut"), "{error}");
        assert!(skips.is_empty());
    }

    #[test]
    fn a_line_names_the_place_once() {
        let line =
            |reason: &str| Skipped { what: "s/1.jpg".into(), reason: reason.into() }.to_string();
        assert_eq!(line("it is empty"), "s/1.jpg: it is empty");
        assert_eq!(line("shard s/1.jpg is no tar"), "shard s/1.jpg is no tar");
    }

    #[test]
    fn skip_lists_each_once_and_stops_past_the_limit() {
        let skips = SkipLog::new(OnError::Skip, 2);
        for key in ["2", "1", "2", "1"] {
            skips.handle(format!("s: {key}"), broken(key)).unwrap();
        }
        let what: Vec<String> = skips.list().into_iter().map(|s| s.what).collect();
        assert_eq!(what, ["s: 1", "s: 2"]);
        let error = skips.handle("s: 3", broken("3")).unwrap_err();
        assert!(matches!(error, Error::TooManySkipped { skipped: 2, limit: 2, .. }), "{error}");
        assert!(error.to_string().contains("image 3"), "{error}");
        skips.handle("s: 1", broken("1")).unwrap();
    }

    #[test]
    fn what_was_left_out_before_counts() {
        let skips = SkipLog::new(OnError::Skip, 2);
        skips.handle("s: 1", broken("1")).unwrap();
        let earlier = skips.list();
        let skips = SkipLog::new(OnError::Skip, 2);
        skips.handle("s: 2", broken("2")).unwrap();
        skips.restore(&earlier);
        assert_eq!(skips.len(), 2);
        assert_eq!(skips.list()[0], earlier[0]);
        assert!(skips.handle("s: 3", broken("3")).is_err());
        skips.handle("s: 1", broken("1")).unwrap();
    }

    #[test]
    fn what_is_about_no_single_image_always_stops() {
        let skips = SkipLog::new(OnError::Skip, 9);
        let error = Error::Empty { what: "all".into(), reason: "none".into() };
        assert!(skips.handle("all", error).is_err());
        assert!(skips.is_empty());
    }
}
