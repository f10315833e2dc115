//! A tree from the names and ids it had, which a server tells without modes and in an order of its own, and the tree that
//! is at the same path now.
//!
//! Modes and order of what is in both are taken from the tree of now; modes of the rest are tried out. Nothing but bytes
//! with the wanted id is ever the result.

use std::collections::HashMap;

use bytes::Bytes;

use super::answer::Listed;
use crate::types::{ObjectKind, Oid};

/// Bytes hashed in search of one tree: a tenth of a second or so of one processor. A hundred entries with five unknown
/// modes fit.
const HASHED_MAX_BYTES: usize = 16 << 20;

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
    let orders = orders(&entries);
    let mut search = Search { wanted, left: HASHED_MAX_BYTES };
    // The likeliest of each order first: the search for modes may take all there is to spend.
    if let Some(found) = orders.iter().find_map(|order| search.try_one(order).flatten()) {
        return Some(found);
    }
    let share = search.left / orders.len();
    orders.into_iter().find_map(|order| Search { wanted, left: share }.run(order))
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Entries as (mode, name, first byte of the id).
    type Entries<'a> = [(&'a str, &'a [u8], u8)];

    fn body(entries: &Entries<'_>) -> Vec<u8> {
        let entry =
            |(mode, name, id): &(&str, &[u8], u8)| [mode.as_bytes(), b" ", name, b"\0", &[*id; 20]].concat();
        entries.iter().flat_map(entry).collect()
    }

    /// As the server lists it: directories first, by name, without modes.
    fn listed(entries: &Entries<'_>) -> Vec<Listed> {
        let listed = |(mode, name, id): &(&str, &[u8], u8)| Listed {
            name: String::from_utf8_lossy(name).into_owned(),
            is_dir: mode.ends_with("40000"),
            oid: Oid::from_bytes([*id; 20]),
        };
        let mut all: Vec<Listed> = entries.iter().map(listed).collect();
        all.sort_by(|one, other| (!one.is_dir, &one.name).cmp(&(!other.is_dir, &other.name)));
        all
    }

    fn check(then: &Entries<'_>, now: &Entries<'_>, is_found: bool) {
        let wanted = body(then);
        let id = Oid::of(ObjectKind::Tree, &wanted).unwrap();
        let found = rebuild(&listed(then), &body(now), id);
        assert_eq!(found.as_deref(), is_found.then_some(wanted.as_slice()), "{then:?} from {now:?}");
    }

    #[test]
    fn a_tree_is_had_again_with_its_modes_and_its_order() {
        let then: &Entries<'_> = &[
            ("40000", b"src", 1),
            ("120000", b"link", 2),
            ("100755", b"run.sh", 3),
            ("160000", b"vendored", 4),
            ("100664", b"old", 5),
            ("100644", b"README", 6),
            ("100644", b"\xff\xfe", 7),
        ];
        check(then, then, true);
        let mut changed = then.to_vec();
        changed.iter_mut().for_each(|entry| entry.2 += 100);
        check(then, &changed, true);
        changed.push(("100644", b"new", 9));
        changed.insert(0, ("40000", b"a", 10));
        check(then, &changed, true);
    }

    #[test]
    fn what_is_gone_by_now_is_tried_in_its_likely_places_and_kinds() {
        let now: &Entries<'_> = &[("100644", b"m", 1), ("40000", b"c", 2)];
        for gone in [
            ("100644", b"z" as &[u8], 9),
            ("100755", b"d", 9),
            ("120000", b"a", 9),
            ("160000", b"l", 9),
            ("40000", b"l", 9),
        ] {
            check(&[now[0], now[1], gone], now, true);
            check(&[gone, now[0], now[1]], now, true);
        }
        // In git's order nothing of it need be there any more; a directory sorts as if its name ended with a slash.
        let sorted: &Entries<'_> =
            &[("100755", b"a", 1), ("100644", b"a-b", 2), ("40000", b"a", 3), ("120000", b"b", 4)];
        let sorted = &[sorted[0], sorted[1], ("40000", b"a.", 3), sorted[3]];
        check(sorted, &[], true);
        check(&[("100644", b"a.c", 1), ("40000", b"a", 2), ("100644", b"a0", 3)], &[], true);
    }

    #[test]
    fn a_name_that_changed_its_kind_and_a_file_that_changed_its_mode_are_found() {
        check(&[("40000", b"a", 1), ("100755", b"b", 2)], &[("100644", b"a", 3), ("100755", b"b", 2)], true);
        check(&[("120000", b"a", 1), ("100755", b"b", 2)], &[("40000", b"a", 3), ("100755", b"b", 2)], true);
        check(&[("100755", b"a", 1), ("100644", b"b", 2)], &[("100644", b"a", 1), ("100644", b"b", 2)], true);
        // Two modes at once are beyond what is tried.
        check(
            &[("100755", b"a", 1), ("100755", b"b", 2)],
            &[("100644", b"a", 1), ("100644", b"b", 2)],
            false,
        );
    }

    #[test]
    fn nothing_but_the_wanted_tree_is_ever_the_result() {
        let then: &Entries<'_> = &[("100644", b"a", 1)];
        let other = Oid::from_bytes([0xab; 20]);
        assert_eq!(rebuild(&listed(then), &body(then), other), None);
        assert_eq!(rebuild(&listed(&[]), &body(then), other), None);
        for garbage in [&b"100644"[..], b"100644 a", b"100644 a\0short", b"\0\0\0", b" ", &[0xff; 64]] {
            assert_eq!(rebuild(&listed(then), garbage, other), None);
            check_bytes(then, garbage);
        }
    }

    /// What is there now may be no tree at all.
    fn check_bytes(then: &Entries<'_>, now: &[u8]) {
        let wanted = body(then);
        let id = Oid::of(ObjectKind::Tree, &wanted).unwrap();
        assert_eq!(rebuild(&listed(then), now, id).as_deref(), Some(wanted.as_slice()), "{now:?}");
    }

    #[test]
    fn the_search_ends() {
        let names: Vec<String> = (0..300).map(|number| format!("file{number:03}")).collect();
        let then: Vec<_> = names.iter().map(|name| ("100755", name.as_bytes(), 1)).collect();
        check(&then, &[], false);
    }
}
