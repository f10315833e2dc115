//! A tree from the names and ids it had, which a server tells without modes and in an order of its own, and the tree that
//! is at the same path now.
//!
//! Modes and order of what is in both are taken from the tree of now; modes of the rest are tried out. Nothing but bytes
//! with the wanted id is ever the result.

use std::collections::HashMap;

use bytes::Bytes;

use super::answer::Listed;
use crate::types::{ObjectKind, Oid};

/// Bytes hashed in search of one tree: some 0.2 s of one processor. A few hundred entries with five unknown modes fit.
const HASHED_MAX_BYTES: usize = 64 << 20;

/// What an entry that is no directory may be, most likely first.
const FILE_MODES: [&[u8]; 4] = [b"100644", b"100755", b"120000", b"160000"];

/// An entry of the tree that is looked for.
#[derive(Clone)]
struct Entry<'a> {
    mode: &'a [u8],
    name: &'a [u8],
    oid: Oid,
    is_dir: bool,
    /// Where it stands in the tree of now.
    place: Option<usize>,
}

/// The body of the tree `wanted`, which had the entries `then`; `now` is the body of the tree at its path now, if any.
pub(super) fn rebuild(then: &[Listed], now: &[u8], wanted: Oid) -> Option<Bytes> {
    let now = raw_entries(now);
    let by_name: HashMap<String, usize> = now
        .iter()
        .enumerate()
        .map(|(place, entry)| (String::from_utf8_lossy(entry.name).into_owned(), place))
        .collect();
    let entries: Vec<Entry<'_>> = then.iter().map(|listed| placed(listed, &now, &by_name)).collect();
    let mut search = Search { wanted, left: HASHED_MAX_BYTES };
    orders(&entries).into_iter().find_map(|order| search.run(order))
}

/// An entry of the tree of now, as it stands there.
struct RawEntry<'a> {
    mode: &'a [u8],
    name: &'a [u8],
}

/// The entries of a tree up to where it is malformed: what they are good for is proven by a hash.
fn raw_entries(mut tree: &[u8]) -> Vec<RawEntry<'_>> {
    let mut entries = Vec::new();
    let split = |bytes: &'_ [u8], at: u8| bytes.iter().position(|byte| *byte == at);
    while let Some(space) = split(tree, b' ') {
        let Some(end) = split(&tree[space..], 0).map(|end| space + end) else { break };
        let Some(rest) = tree.get(end + 1 + Oid::LEN..) else { break };
        entries.push(RawEntry { mode: &tree[..space], name: &tree[space + 1..end] });
        tree = rest;
    }
    entries
}

fn placed<'a>(listed: &'a Listed, now: &[RawEntry<'a>], by_name: &HashMap<String, usize>) -> Entry<'a> {
    let place = by_name.get(&listed.name).copied();
    let (name, known) = match place {
        Some(place) => (now[place].name, Some(now[place].mode)),
        None => (listed.name.as_bytes(), None),
    };
    let is_tree = |mode: &[u8]| matches!(mode, b"40000" | b"040000");
    let usual: &[u8] = if listed.is_dir { b"40000" } else { FILE_MODES[0] };
    let mode = known.filter(|mode| is_tree(mode) == listed.is_dir);
    // Without a known mode it is one to try out, wherever its name stands.
    Entry {
        mode: mode.unwrap_or(usual),
        name,
        oid: listed.oid,
        is_dir: listed.is_dir,
        place: mode.and(place),
    }
}

/// The orders that the entries may have stood in: as they do now, what is no more there in its place by name, at the end
/// or at the front; and git's own.
fn orders<'a>(entries: &[Entry<'a>]) -> Vec<Vec<Entry<'a>>> {
    let (mut kept, mut gone): (Vec<_>, Vec<_>) =
        entries.iter().cloned().partition(|entry| entry.place.is_some());
    kept.sort_by_key(|entry| entry.place);
    gone.sort_by_cached_key(sort_key);
    let mut sorted = entries.to_vec();
    sorted.sort_by_cached_key(sort_key);
    let mut orders = vec![sorted];
    if gone.is_empty() {
        orders.insert(0, kept);
        return orders;
    }
    let mut merged = kept.clone();
    for entry in &gone {
        let key = sort_key(entry);
        let at = merged.iter().position(|other| sort_key(other) > key).unwrap_or(merged.len());
        merged.insert(at, entry.clone());
    }
    orders.push(merged);
    orders.push([kept.clone(), gone.clone()].concat());
    orders.push([gone, kept].concat());
    orders
}

/// Git sorts a directory as if its name ended with a slash.
fn sort_key(entry: &Entry<'_>) -> Vec<u8> {
    let slash: &[u8] = if entry.is_dir { b"/" } else { b"" };
    [entry.name, slash].concat()
}

/// A bounded search for modes.
struct Search {
    wanted: Oid,
    left: usize,
}

impl Search {
    fn run(&mut self, mut order: Vec<Entry<'_>>) -> Option<Bytes> {
        let files = |order: &[Entry<'_>], is_known: bool| -> Vec<usize> {
            let is_one = |entry: &Entry<'_>| !entry.is_dir && entry.place.is_some() == is_known;
            (0..order.len()).filter(|index| is_one(&order[*index])).collect()
        };
        let unknown = files(&order, false);
        if let Some(found) = self.modes_of(&mut order, &unknown) {
            return Some(found);
        }
        if !unknown.is_empty() {
            return None;
        }
        // One file's mode may have changed since.
        for index in files(&order, true) {
            let own = order[index].mode;
            if let Some(found) = self.modes_of(&mut order, &[index]) {
                return Some(found);
            }
            order[index].mode = own;
        }
        None
    }

    /// Tries all modes for the entries at `unknown`, the likely ones first.
    fn modes_of(&mut self, order: &mut [Entry<'_>], unknown: &[usize]) -> Option<Bytes> {
        let mut chosen = vec![0; unknown.len()];
        loop {
            if !unknown.is_empty() {
                for (index, choice) in unknown.iter().zip(&chosen) {
                    order[*index].mode = FILE_MODES[*choice];
                }
            }
            if let Some(found) = self.try_one(order)? {
                return Some(found);
            }
            // The next number in base four.
            let next = chosen.iter().position(|choice| choice + 1 < FILE_MODES.len())?;
            chosen[next] += 1;
            chosen[..next].fill(0);
        }
    }

    /// `None` when no more may be tried.
    fn try_one(&mut self, order: &[Entry<'_>]) -> Option<Option<Bytes>> {
        let body: Vec<u8> = order
            .iter()
            .flat_map(|entry| [entry.mode, b" ", entry.name, b"\0", entry.oid.as_bytes().as_slice()].concat())
            .collect();
        self.left = self.left.checked_sub(body.len())?;
        let is_it = Oid::of(ObjectKind::Tree, &body) == Some(self.wanted);
        Some(is_it.then(|| body.into()))
    }
}
