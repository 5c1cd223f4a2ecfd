//! Target modules: the sites of a backbone that get a delta.

use crate::{Error, Result, Site, Tower};
use regex::Regex;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;

/// Target selection: a path is selected if every list and the pattern match it and no exclusion does. An empty list or
/// pattern matches everything.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TargetModules {
    /// Path suffixes of whole components: `attn.qkv`, `query`, `layer.3.attention.self.key`.
    pub target_modules: Vec<String>,
    /// Regular expression that has to match the whole path; empty for any path.
    pub pattern: String,
    /// Indices of blocks and layers, each tower's counted from 0.
    pub layers_to_transform: Vec<LayerRange>,
    /// Towers.
    pub towers: Vec<Tower>,
    /// Path suffixes that are excluded.
    pub exclude_modules: Vec<String>,
}

/// Range of layers, both ends included; written `3-5`, or `3` for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LayerRange {
    first: usize,
    last: usize,
}

impl LayerRange {
    /// Range from `first` to `last`, both included; none if `first` is greater.
    pub fn new(first: usize, last: usize) -> Option<Self> {
        (first <= last).then_some(Self { first, last })
    }

    /// Parses `3-5` or `3`.
    pub fn parse(text: &str) -> Option<Self> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        Self::new(first.trim().parse().ok()?, last.trim().parse().ok()?)
    }
}

impl TryFrom<String> for LayerRange {
    type Error = String;

    fn try_from(text: String) -> std::result::Result<Self, String> {
        Self::parse(&text).ok_or_else(|| format!("{text:?} is no layer (3) and no range (3-5)"))
    }
}

impl From<LayerRange> for String {
    fn from(range: LayerRange) -> Self {
        range.to_string()
    }
}

impl fmt::Display for LayerRange {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self.first == self.last {
            true => write!(f, "{}", self.first),
            false => write!(f, "{}-{}", self.first, self.last),
        }
    }
}

/// Target report, the result of a dry run. `{}` prints a line per path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TargetReport {
    /// Selected paths, in the order they were given.
    pub selected: Vec<String>,
    /// Skipped paths, each with the reason.
    pub skipped: Vec<(String, String)>,
}

impl fmt::Display for TargetReport {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let all = self.selected.len() + self.skipped.len();
        writeln!(f, "{} of {all} are tuned", self.selected.len())?;
        self.selected.iter().try_for_each(|path| writeln!(f, "+ {path}"))?;
        self.skipped.iter().try_for_each(|(path, reason)| writeln!(f, "- {path}: {reason}"))
    }
}

/// Tower and layer of a path, as far as it has them.
fn place(path: &str) -> (Option<Tower>, Option<usize>) {
    // A decoder's language modeling head stands beside its tower, under the same first component.
    let first = |path: &str| path.split('.').next().unwrap_or_default().to_owned();
    let tower = Tower::ALL.into_iter().find(|tower| first(tower.prefix()) == first(path));
    let layer = path.split_once(".blocks.").or_else(|| path.split_once(".layer."));
    let layer = layer.and_then(|(_, rest)| rest.split('.').next()?.parse().ok());
    (tower, layer)
}

/// True if `path` is `prefix` or inside it, by whole components.
pub(crate) fn below(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// True if `path` ends with `suffix`, by whole components.
fn ends(path: &str, suffix: &str) -> bool {
    path.strip_suffix(suffix).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

type Test = Box<dyn Fn(&str) -> bool>;

/// Target list: its key, and a predicate per entry.
struct Rule {
    key: &'static str,
    entries: Vec<(String, Test)>,
}

impl Rule {
    fn new<T: ToString + Clone + 'static>(
        key: &'static str,
        entries: &[T],
        lets: impl Fn(&T, &str) -> bool + Clone + 'static,
    ) -> Self {
        let entry = |entry: &T| -> (String, Test) {
            let (name, lets, entry) = (entry.to_string(), lets.clone(), entry.clone());
            (name, Box::new(move |path| lets(&entry, path)))
        };
        Self { key, entries: entries.iter().map(entry).collect() }
    }

    /// Indices of the entries that match a path.
    fn hits(&self, path: &str) -> Vec<usize> {
        (0..self.entries.len()).filter(|&entry| self.entries[entry].1(path)).collect()
    }

    fn names(&self) -> String {
        self.entries.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ")
    }
}

impl TargetModules {
    /// True if everything is selected.
    pub fn is_all(&self) -> bool {
        *self == Self::default()
    }

    /// Error of a pattern that does not compile.
    pub fn pattern_error(pattern: &str) -> Option<String> {
        compile(pattern).err().map(|error| error.to_string())
    }

    /// Selects among sites.
    ///
    /// # Errors
    /// As [`TargetModules::select_paths`].
    pub fn select(&self, sites: &[Site]) -> Result<TargetReport> {
        self.select_paths(sites.iter().map(|site| site.path.as_str()))
    }

    /// Selects among paths.
    ///
    /// # Errors
    /// A pattern that is no regular expression; an entry that matches nothing the other lists let through, by name,
    /// with what there is; an exclusion that excludes nothing; an empty selection.
    pub fn select_paths<'a>(
        &self,
        paths: impl IntoIterator<Item = &'a str>,
    ) -> Result<TargetReport> {
        let paths: Vec<&str> = paths.into_iter().collect();
        let rules = self.rules()?;
        let exclude =
            Rule::new("exclude_modules", &self.exclude_modules, |end, path| ends(path, end));
        let mut used = BTreeSet::new();
        let mut report = TargetReport::default();
        for &path in &paths {
            let hits: Vec<Vec<usize>> = rules.iter().map(|rule| rule.hits(path)).collect();
            let against = |rule: &usize| !rules[*rule].entries.is_empty() && hits[*rule].is_empty();
            let against: Vec<usize> = (0..rules.len()).filter(against).collect();
            for (rule, hits) in rules.iter().zip(&hits).filter(|_| against.is_empty()) {
                used.extend(hits.iter().map(|hit| (rule.key, *hit)));
            }
            if let Some(&rule) = against.first() {
                let Rule { key, .. } = rules[rule];
                let reason = format!("not among {key} = {}", rules[rule].names());
                report.skipped.push((path.to_owned(), reason));
                continue;
            }
            match exclude.hits(path)[..] {
                [] => report.selected.push(path.to_owned()),
                [first, ..] => {
                    used.insert((exclude.key, first));
                    let reason = format!("excluded by {}", exclude.entries[first].0);
                    report.skipped.push((path.to_owned(), reason));
                }
            }
        }
        for rule in rules.iter().chain([&exclude]) {
            for (index, (name, lets)) in rule.entries.iter().enumerate() {
                if used.contains(&(rule.key, index)) {
                    continue;
                }
                let reason = match paths.iter().any(|path| lets(path)) {
                    true => "matches only what another of the targets leaves out",
                    false => "matches nothing",
                };
                return Err(nothing(rule.key, name, reason, &paths));
            }
        }
        match report.selected.is_empty() && !paths.is_empty() {
            true => {
                Err(nothing("exclude_modules", &exclude.names(), "leaves nothing to tune", &paths))
            }
            false => Ok(report),
        }
    }

    /// Selected sites.
    pub(crate) fn sites(&self, sites: &[Site]) -> Result<Vec<Site>> {
        if self.is_all() {
            return Ok(sites.to_vec());
        }
        let chosen: BTreeSet<String> = self.select(sites)?.selected.into_iter().collect();
        Ok(sites.iter().filter(|site| chosen.contains(&site.path)).cloned().collect())
    }

    /// Lists and pattern as rules that a path has to pass.
    fn rules(&self) -> Result<[Rule; 4]> {
        let pattern: &[String] = match self.pattern.is_empty() {
            true => &[],
            false => std::slice::from_ref(&self.pattern),
        };
        let regex = compile(&self.pattern).map_err(|error| {
            let reason = format!("is no regular expression: {error}");
            Error::config("targets.pattern", &self.pattern, reason)
        })?;
        let towers: Vec<&str> = self.towers.iter().map(|tower| tower.name()).collect();
        Ok([
            Rule::new("towers", &towers, |tower, path| {
                place(path).0.is_some_and(|found| found.name() == *tower)
            }),
            Rule::new("layers_to_transform", &self.layers_to_transform, |range, path| {
                place(path).1.is_some_and(|layer| (range.first..=range.last).contains(&layer))
            }),
            Rule::new("target_modules", &self.target_modules, |end, path| ends(path, end)),
            Rule::new("pattern", pattern, move |_, path| regex.is_match(path)),
        ])
    }
}

/// Compiles the pattern, anchored at both ends.
fn compile(pattern: &str) -> std::result::Result<Regex, regex::Error> {
    Regex::new(&format!("^(?:{pattern})$"))
}

/// Error of an entry that selects nothing. It lists the paths there are, with N for the layer.
fn nothing(key: &str, entry: &str, reason: &str, paths: &[&str]) -> Error {
    let mut forms: Vec<String> = Vec::new();
    let mut last: Vec<(Tower, usize)> = Vec::new();
    for path in paths {
        let (tower, layer) = place(path);
        let form = match layer {
            Some(layer) => path.replacen(&format!(".{layer}."), ".N.", 1),
            None => (*path).to_owned(),
        };
        if !forms.contains(&form) {
            forms.push(form);
        }
        if let (Some(tower), Some(layer)) = (tower, layer) {
            match last.iter_mut().find(|(known, _)| *known == tower) {
                Some((_, last)) => *last = layer.max(*last),
                None => last.push((tower, layer)),
            }
        }
    }
    let layers = last.iter().map(|(tower, last)| format!("{} layers 0-{last}", tower.name()));
    let there: Vec<String> = forms.into_iter().chain(layers).collect();
    let field = format!("targets.{key}");
    Error::config(&field, entry, format!("{reason}; there are {}", there.join(", ")))
}

#[cfg(test)]
#[path = "target_modules_tests.rs"]
mod tests;
