//! Leak-free splits by concept: no training text names a held-out concept.
//!
//! Groups are drawn in a seeded order. A held-out concept takes along every concept whose name
//! contains its own ("cat" held out means "black cat" is too), because a training caption with
//! those words would name it. A group whose train of followers is too long stays in training.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};

use super::words::{Mentions, Name};

/// Concept to assign to a split.
pub struct Concept {
    /// Name that must not be seen in training.
    pub name: String,
    /// Concepts with the same group are placed together.
    pub group: String,
}

/// Held-out part of each concept (0 for the first of `sizes`, and so on), or `None` for training. `limit` bounds how
/// many concepts one draw may take along.
pub fn hold_out(
    concepts: &[Concept],
    sizes: &[usize],
    limit: usize,
    seed: u64,
) -> Vec<Option<usize>> {
    let names: Vec<Name> = concepts.iter().map(|c| Name::new(&c.name)).collect();
    let mentions: Vec<Mentions> = concepts.iter().map(|c| Mentions::of(&c.name)).collect();
    let mut groups: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (i, concept) in concepts.iter().enumerate() {
        groups.entry(&concept.group).or_default().push(i);
    }
    let mut order: Vec<&str> = groups.keys().copied().collect();
    // A hash instead of a generator: the place of a group does not depend on the others.
    order.sort_by_key(|g| Sha256::digest(format!("{seed}/{g}")).to_vec());

    let mut part = vec![None; concepts.len()];
    for (number, &size) in sizes.iter().enumerate() {
        let mut left = size;
        for group in &order {
            let taken = follow(&groups, concepts, &names, &mentions, group);
            // A concept that an earlier part holds already stays there; it is held out all the same.
            let fresh: Vec<usize> = taken.iter().copied().filter(|&i| part[i].is_none()).collect();
            let own = &groups[group];
            if own.iter().any(|&i| part[i].is_some()) || taken.len() > limit || fresh.len() > left {
                continue;
            }
            for &i in &fresh {
                part[i] = Some(number);
            }
            left -= fresh.len();
            if left == 0 {
                break;
            }
        }
    }
    part
}

/// Concepts that must be held out with `group`: itself, and, repeatedly, every group with a concept that names one
/// already taken.
fn follow(
    groups: &BTreeMap<&str, Vec<usize>>,
    concepts: &[Concept],
    names: &[Name],
    mentions: &[Mentions],
    group: &str,
) -> Vec<usize> {
    let mut taken = groups[group].clone();
    let mut next = 0;
    while next < taken.len() {
        let name = &names[taken[next]];
        for (i, text) in mentions.iter().enumerate() {
            if !taken.contains(&i) && text.names(name) {
                for &j in &groups[concepts[i].group.as_str()] {
                    if !taken.contains(&j) {
                        taken.push(j);
                    }
                }
            }
        }
        next += 1;
    }
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    fn concept(name: &str, group: &str) -> Concept {
        Concept { name: name.to_string(), group: group.to_string() }
    }

    #[test]
    fn a_held_out_concept_takes_along_what_names_it() {
        let names =
            ["cat", "black cat", "black cats asleep", "dog", "man cook", "woman cook", "tea"];
        let concepts: Vec<Concept> =
            names.iter().map(|n| concept(n, n.rsplit(' ').next().unwrap_or(n))).collect();
        for seed in 0..50 {
            let part = hold_out(&concepts, &[3, 1], 4, seed);
            let held = |i: usize| part[i].is_some();
            assert!(!held(0) || held(1) && held(2), "{part:?}");
            assert!(!held(1) || held(2), "{part:?}");
            assert_eq!(part[4], part[5], "{part:?}");
            assert!(part.iter().filter(|p| **p == Some(0)).count() <= 3, "{part:?}");
            assert_eq!(part, hold_out(&concepts, &[3, 1], 4, seed));
        }
    }
}
