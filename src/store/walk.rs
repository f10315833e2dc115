//! In which order the trees below a root are visited: breadth first, each tree once. Pure; [`super::pin`] walks.
//!
//! The list of visited directories is the queue as well: what lies behind the next one to visit is still to come. A
//! directory costs its id, its name and a number, so a walk of a hundred thousand takes some ten megabytes, until it ends.

use std::collections::HashSet;

use crate::types::{EntryKind, FileName, Oid, RepoPath, Tree};

/// Trees of one root that are visited. Twice as many as the largest public repositories have; a walk that long costs some
/// 50 MB of memory.
pub(super) const MAX_TREES: usize = 1 << 19;

/// More trees than [`MAX_TREES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooMany;

/// A directory on the way: a number that only its own walk understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place(u32);

/// Where a walk stands.
pub(super) struct Walk {
    top: RepoPath,
    places: Vec<Step>,
    next: usize,
    seen: HashSet<Oid>,
}

struct Step {
    oid: Oid,
    /// The directory above and the name there; `None` at the top.
    above: Option<(Place, FileName)>,
}

impl Walk {
    /// A walk of tree `oid`, which lies at `top`.
    pub(super) fn new(oid: Oid, top: RepoPath) -> Walk {
        Walk { top, places: vec![Step { oid, above: None }], next: 0, seen: HashSet::from([oid]) }
    }

    /// The next directory to visit; `None` when all known ones were given.
    pub(super) fn next(&mut self) -> Option<Place> {
        let place = u32::try_from(self.next).ok().filter(|_| self.next < self.places.len())?;
        self.next += 1;
        Some(Place(place))
    }

    /// The tree there.
    pub(super) fn oid(&self, place: Place) -> Oid {
        self.places[place.0 as usize].oid
    }

    /// Where it lies, from the top of the commit's tree.
    pub(super) fn path(&self, place: Place) -> RepoPath {
        let mut names = Vec::new();
        let mut at = place;
        while let Some((above, name)) = &self.places[at.0 as usize].above {
            names.push(name.clone());
            at = *above;
        }
        self.top.names().iter().cloned().chain(names.into_iter().rev()).collect()
    }

    /// The directory at `place` has been listed: what is below it comes after all that is known.
    pub(super) fn listed(&mut self, place: Place, tree: &Tree) -> Result<(), TooMany> {
        for entry in tree.entries().iter().filter(|entry| entry.kind == EntryKind::Tree) {
            if entry.oid == Oid::EMPTY_TREE || self.seen.contains(&entry.oid) {
                continue;
            }
            if self.places.len() >= MAX_TREES {
                return Err(TooMany);
            }
            self.seen.insert(entry.oid);
            self.places.push(Step { oid: entry.oid, above: Some((place, entry.name.clone())) });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn oid(number: u32) -> Oid {
        let mut bytes = [7; 20];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        Oid::from_bytes(bytes)
    }

    /// A tree of directories by name and number, and one file.
    fn tree(dirs: &[(&str, u32)]) -> Tree {
        let dir = |(name, number): &(&str, u32)| {
            [format!("40000 {name}\0").as_bytes(), oid(*number).as_bytes()].concat()
        };
        let file = [b"100644 file\0".as_slice(), &[1; 20]].concat();
        Tree::parse(&dirs.iter().flat_map(dir).chain(file).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn directories_come_level_by_level_each_tree_once() {
        let mut walk = Walk::new(oid(0), "top".parse().unwrap());
        let mut seen = Vec::new();
        while let Some(place) = walk.next() {
            let number = walk.oid(place);
            seen.push((number, walk.path(place).to_string()));
            let below: &[(&str, u32)] = match number {
                top if top == oid(0) => &[("a", 1), ("b", 2), ("c", 1)],
                a if a == oid(1) => &[("d", 3), ("b", 2)],
                b if b == oid(2) => &[("e", 0)],
                _ => &[],
            };
            walk.listed(place, &tree(below)).unwrap();
        }
        let expected = [(0, "/top"), (1, "/top/a"), (2, "/top/b"), (3, "/top/a/d")];
        assert_eq!(seen, expected.map(|(number, path)| (oid(number), path.to_owned())));
    }

    #[test]
    fn a_walk_ends_at_its_bound() {
        let mut walk = Walk::new(oid(0), RepoPath::root());
        let top = walk.next().unwrap();
        for number in 1..u32::try_from(MAX_TREES).unwrap() {
            walk.seen.insert(oid(number));
            walk.places.push(Step { oid: oid(number), above: None });
        }
        assert_eq!(walk.listed(top, &tree(&[("seen", 5)])), Ok(()));
        assert_eq!(walk.listed(top, &tree(&[("new", u32::MAX)])), Err(TooMany));
    }
}
