//! [`TreeCache`]: parsed trees, bounded by bytes, least recently used first out.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::types::{Oid, Tree, TreeEntry};

/// Parsed trees by id. At most `capacity` bytes of them, or one larger tree alone: a directory that does not fit would
/// otherwise be parsed again for each of its entries.
pub(super) struct TreeCache {
    capacity: usize,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    bytes: usize,
    clock: u64,
    trees: HashMap<Oid, Slot>,
    by_use: BTreeMap<u64, Oid>,
}

struct Slot {
    tree: Arc<Tree>,
    bytes: usize,
    used: u64,
}

impl TreeCache {
    pub(super) fn new(capacity: usize) -> TreeCache {
        TreeCache { capacity, held: Mutex::default() }
    }

    /// The tree, if it is held.
    pub(super) fn get(&self, oid: Oid) -> Option<Arc<Tree>> {
        let mut guard = self.held();
        let held = &mut *guard;
        held.clock += 1;
        let slot = held.trees.get_mut(&oid)?;
        held.by_use.remove(&slot.used);
        held.by_use.insert(held.clock, oid);
        slot.used = held.clock;
        Some(slot.tree.clone())
    }

    /// Holds `tree`, and lets go of others for it.
    pub(super) fn insert(&self, oid: Oid, tree: Arc<Tree>) {
        let bytes = weight(&tree);
        let mut held = self.held();
        held.remove(oid);
        while held.bytes + bytes > self.capacity && held.remove_oldest() {}
        held.clock += 1;
        let used = held.clock;
        held.bytes += bytes;
        held.by_use.insert(used, oid);
        held.trees.insert(oid, Slot { tree, bytes, used });
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        // Nothing in here panics between two of its changes, so a poisoned lock still guards a sound cache.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn remove(&mut self, oid: Oid) {
        if let Some(slot) = self.trees.remove(&oid) {
            self.by_use.remove(&slot.used);
            self.bytes -= slot.bytes;
        }
    }

    fn remove_oldest(&mut self) -> bool {
        let oldest = self.by_use.first_key_value().map(|(_, oid)| *oid);
        oldest.map(|oid| self.remove(oid)).is_some()
    }
}

/// Bytes a parsed tree takes, rather too many than too few: the list of entries (grown by doubling), the index by name,
/// and each name twice, in allocations of at least 32 bytes.
fn weight(tree: &Tree) -> usize {
    const TREE: usize = 512;
    const ENTRY: usize = 2 * size_of::<TreeEntry>() + 64;
    const ALLOCATION: usize = 32;
    let name = |entry: &TreeEntry| 2 * (ALLOCATION + entry.name.as_bytes().len());
    TREE + tree.entries().iter().map(|entry| ENTRY + name(entry)).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn oid(number: u8) -> Oid {
        Oid::from_bytes([number; 20])
    }

    fn tree(entries: usize) -> Arc<Tree> {
        let entry = |i: usize| [format!("100644 {i:08}\0").as_bytes(), &[1; 20]].concat();
        Arc::new(Tree::parse(&(0..entries).flat_map(entry).collect::<Vec<_>>()).unwrap())
    }

    #[test]
    fn the_least_recently_used_tree_goes_first() {
        let cache = TreeCache::new(3 * weight(&tree(10)));
        for number in 1..=3 {
            cache.insert(oid(number), tree(10));
        }
        assert!(cache.get(oid(1)).is_some());
        cache.insert(oid(4), tree(10));
        let held: Vec<_> = (1..=4).map(|number| cache.get(oid(number)).is_some()).collect();
        assert_eq!(held, [true, false, true, true]);
    }

    #[test]
    fn the_bytes_never_exceed_the_bound() {
        let capacity = 100_000;
        let cache = TreeCache::new(capacity);
        for number in 0..=255 {
            cache.insert(oid(number), tree(usize::from(number)));
            assert!(cache.held().bytes <= capacity);
        }
        let held = cache.held();
        let sum: usize = held.trees.values().map(|slot| slot.bytes).sum();
        assert_eq!((sum, held.trees.len()), (held.bytes, held.by_use.len()));
    }

    #[test]
    fn an_oversized_tree_is_held_alone_and_leaves_with_the_next_one() {
        let cache = TreeCache::new(10_000);
        cache.insert(oid(1), tree(3));
        cache.insert(oid(2), tree(1000));
        assert!(cache.get(oid(1)).is_none() && cache.get(oid(2)).is_some());
        cache.insert(oid(1), tree(3));
        assert!(cache.get(oid(1)).is_some() && cache.get(oid(2)).is_none());
        assert_eq!(cache.held().bytes, weight(&tree(3)));
    }

    #[test]
    fn a_tree_inserted_twice_counts_once() {
        let cache = TreeCache::new(10_000);
        cache.insert(oid(1), tree(3));
        cache.insert(oid(1), tree(3));
        assert_eq!(cache.held().bytes, weight(&tree(3)));
        assert_eq!(cache.held().by_use.len(), 1);
    }
}
