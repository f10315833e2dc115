//! Noticing walks: who lists directory after directory at a pace that no person has will come to those below them, too. Their
//! trees are worth fetching in one batch instead of one by one.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::Dicfuse;
use crate::{
    origin::Want,
    types::{EntryKind, NodeId, OriginName},
};

/// The longest pause between two directories of a walk.
const PACE: Duration = Duration::from_millis(250);

/// So many directories, listed at that pace with something below them that is not here, make a walk. A shell that completes
/// names, or an IDE that opens a project, lists fewer.
const STEPS: u32 = 8;

/// Roots of which a pace is kept; with more, those that nobody walks now are forgotten.
const ROOTS: usize = 64;

/// Directories directly below that are read ahead; of more, the others are when the walk has come to them.
const MOST_TREES: usize = 512;

/// Entries looked at to find out whether what is below a directory is here.
const SAMPLE: usize = 4;

/// How fast roots are walked through.
#[derive(Debug, Default)]
pub(super) struct Walks(Mutex<HashMap<u32, Pace>>);

#[derive(Debug)]
struct Pace {
    last: Instant,
    steps: u32,
}

/// Trees that a walk comes to next.
#[derive(Clone, Debug)]
pub struct Ahead {
    origin: OriginName,
    wants: Vec<Want>,
}

impl Walks {
    /// A directory of `root` is listed; `cold` says that something below it is not here. Whether to read ahead of it.
    fn step(&self, root: u32, cold: bool, now: Instant) -> bool {
        let mut paces = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_going_on = |pace: &Pace| now.saturating_duration_since(pace.last) <= PACE;
        if paces.len() >= ROOTS {
            paces.retain(|known, pace| *known == root || is_going_on(pace));
        }
        let pace = paces.entry(root).or_insert(Pace { last: now, steps: 0 });
        if !is_going_on(pace) {
            pace.steps = 0;
        }
        pace.last = now;
        pace.steps = pace.steps.saturating_add(cold.into());
        cold && pace.steps > STEPS
    }
}

impl Dicfuse {
    /// Directory `dir` has been listed `now`. If that is a step of a walk: what to [`Dicfuse::read_ahead`].
    pub fn ahead_of(&self, dir: NodeId, now: Instant) -> Option<Ahead> {
        // What hinders is told to who asks for it.
        let directory = self.directory(dir).ok()?;
        let (store, origin) = (&self.inner.store, &directory.place.origin);
        if !store.reads_ahead(origin) {
            return None;
        }
        let below = || directory.tree.entries().iter().filter(|entry| entry.kind == EntryKind::Tree);
        let cold = below().take(SAMPLE).any(|entry| !store.has_tree(origin, entry.oid));
        if !self.inner.walks.step(directory.place.block.root, cold, now) {
            return None;
        }
        let (root, path) = self.way_to(dir).ok()?;
        let want = |name, oid| Want { oid, hint: root.hint(path.join(name)) };
        let wants = below().take(MOST_TREES).map(|entry| want(entry.name.clone(), entry.oid)).collect();
        Some(Ahead { origin: root.origin.clone(), wants })
    }

    /// Fetches what a walk comes to next. Nobody need wait for it: who asks for one of them meanwhile waits for that one.
    pub async fn read_ahead(&self, ahead: Ahead) {
        self.inner.store.read_ahead(&ahead.origin, ahead.wants).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_walk_is_many_cold_directories_without_a_pause() {
        let (walks, begin) = (Walks::default(), Instant::now());
        let step = |n: u32, cold| walks.step(1, cold, begin + PACE * n);
        for n in 1..=STEPS {
            assert!(!step(n, true), "{n}");
        }
        assert!(!step(STEPS + 1, false), "there is nothing to read");
        assert!(step(STEPS + 2, true));
        assert!(!walks.step(2, true, begin + PACE * (STEPS + 2)), "another root");
        assert!(step(STEPS + 3, true));
        assert!(!walks.step(1, true, begin + PACE * (STEPS + 5)), "after a pause");
    }

    #[test]
    fn roots_that_nobody_walks_are_forgotten() {
        let (walks, begin) = (Walks::default(), Instant::now());
        for root in 0..10_000 {
            walks.step(root, true, begin + PACE * 2 * root);
        }
        assert!(walks.0.lock().unwrap().len() <= ROOTS);
    }
}
