//! [`TreeCache`]: parsed trees, bounded by bytes, least recently used first out.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::types::{Oid, OriginName, Tree, TreeEntry};

/// Which tree of which origin: one origin's is no answer for another.
type Key = (OriginName, Oid);

/// Parsed trees. At most `capacity` bytes of them, or one larger tree alone: a directory that does not fit would
/// otherwise be parsed again for each of its entries.
pub(super) struct TreeCache {
    capacity: usize,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    bytes: usize,
    clock: u64,
    trees: HashMap<Key, Slot>,
    by_use: BTreeMap<u64, Key>,
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
    pub(super) fn get(&self, key: &Key) -> Option<Arc<Tree>> {
        let mut guard = self.held();
        let held = &mut *guard;
        held.clock += 1;
        let slot = held.trees.get_mut(key)?;
        held.by_use.remove(&slot.used);
        held.by_use.insert(held.clock, key.clone());
        slot.used = held.clock;
        Some(slot.tree.clone())
    }

    /// Holds `tree`, and lets go of others for it.
    pub(super) fn insert(&self, key: Key, tree: Arc<Tree>) {
        let bytes = weight(&tree);
        let mut held = self.held();
        held.remove(&key);
        while held.bytes + bytes > self.capacity && held.remove_oldest() {}
        held.clock += 1;
        let used = held.clock;
        held.bytes += bytes;
        held.by_use.insert(used, key.clone());
        held.trees.insert(key, Slot { tree, bytes, used });
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        // Nothing in here panics between two of its changes, so a poisoned lock still guards a sound cache.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn remove(&mut self, key: &Key) {
        if let Some(slot) = self.trees.remove(key) {
            self.by_use.remove(&slot.used);
            self.bytes -= slot.bytes;
        }
    }

    fn remove_oldest(&mut self) -> bool {
        let oldest = self.by_use.first_key_value().map(|(_, key)| key.clone());
        oldest.map(|key| self.remove(&key)).is_some()
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

    fn key(number: u8) -> Key {
        ("o".parse().unwrap(), Oid::from_bytes([number; 20]))
    }

    fn tree(entries: usize) -> Arc<Tree> {
        let entry = |i: usize| [format!("100644 {i:08}\0").as_bytes(), &[1; 20]].concat();
        Arc::new(Tree::parse(&(0..entries).flat_map(entry).collect::<Vec<_>>()).unwrap())
    }

    #[test]
    fn the_least_recently_used_tree_goes_first() {
        let cache = TreeCache::new(3 * weight(&tree(10)));
        for number in 1..=3 {
            cache.insert(key(number), tree(10));
        }
        assert!(cache.get(&key(1)).is_some());
        cache.insert(key(4), tree(10));
        let held: Vec<_> = (1..=4).map(|number| cache.get(&key(number)).is_some()).collect();
        assert_eq!(held, [true, false, true, true]);
    }

    #[test]
    fn the_bytes_never_exceed_the_bound() {
        let capacity = 100_000;
        let cache = TreeCache::new(capacity);
        for number in 0..=255 {
            cache.insert(key(number), tree(usize::from(number)));
            assert!(cache.held().bytes <= capacity);
        }
        let held = cache.held();
        let sum: usize = held.trees.values().map(|slot| slot.bytes).sum();
        assert_eq!((sum, held.trees.len()), (held.bytes, held.by_use.len()));
    }

    #[test]
    fn an_oversized_tree_is_held_alone_and_leaves_with_the_next_one() {
        let cache = TreeCache::new(10_000);
        cache.insert(key(1), tree(3));
        cache.insert(key(2), tree(1000));
        assert!(cache.get(&key(1)).is_none() && cache.get(&key(2)).is_some());
        cache.insert(key(1), tree(3));
        assert!(cache.get(&key(1)).is_some() && cache.get(&key(2)).is_none());
        assert_eq!(cache.held().bytes, weight(&tree(3)));
    }

    #[test]
    fn a_tree_inserted_twice_counts_once() {
        let cache = TreeCache::new(10_000);
        cache.insert(key(1), tree(3));
        cache.insert(key(1), tree(3));
        assert_eq!(cache.held().bytes, weight(&tree(3)));
        assert_eq!(cache.held().by_use.len(), 1);
    }

    #[test]
    fn a_tree_of_one_origin_is_no_answer_for_another() {
        let cache = TreeCache::new(10_000);
        let theirs = ("o+7".parse().unwrap(), key(1).1);
        cache.insert(key(1), tree(3));
        assert!(cache.get(&theirs).is_none());
        cache.insert(theirs.clone(), tree(3));
        assert!(cache.get(&theirs).is_some() && cache.get(&key(1)).is_some());
    }
}
