//! Reading ahead of a walk: trees that it will come to, and the sizes of the files in them, in batches.
//!
//! A directory by itself takes two trips to its origin and two transactions, a batch takes as many. What is brought ahead is on
//! flights of its own. Who comes to ask for it meanwhile waits for it, but for a moment only; if it did not come, whoever
//! asks fetches it as if nothing had been read ahead. So no answer depends on it, only how soon it comes.

use std::{collections::VecDeque, time::Duration};

use super::{
    ObjectStore, Shared,
    flights::{Cargo, Ticket, What},
    source::Source,
};
use crate::{
    cache::Put,
    origin::{FetchError, Hint, Want},
    types::{EntryKind, FileName, Oid, OriginName, Tree},
};

/// Batches under way at once, of one origin. Whoever finds them all taken asks for itself, as without reading ahead.
pub(super) const BATCHES_AHEAD: usize = 4;

/// Trees in the first batch: who reads ahead comes to ask for the first of them at once.
const FIRST_TREES: usize = 8;

/// Trees in the batches behind it: with [`SMALL_TREE`] bytes each, 4 MiB in memory.
///
/// [`SMALL_TREE`]: crate::origin::SMALL_TREE
const MORE_TREES: usize = 64;

/// Trees read ahead at a time. Who stops walking has cost that many in vain, some ten milliseconds.
const ENOUGH_TREES: usize = 512;

/// How long somebody waits for what is being read ahead: some trips to an origin that is near. Then it hangs, or something
/// that comes with it.
const PATIENCE: Duration = Duration::from_millis(100);

impl ObjectStore {
    /// Whether the origin's trees are worth reading ahead: it tells sizes cheaply, so it is near and asked by id.
    pub fn reads_ahead(&self, origin: &OriginName) -> bool {
        self.shared.sources.get(origin).is_some_and(|source| source.origin.sizes_are_cheap())
    }

    /// Brings those trees of `wants` that are neither here nor under way, those below them, level by level, up to a bound,
    /// and the sizes of the files in all of them. Large ones are left to who asks for them. What fails is told to nobody.
    pub async fn read_ahead(&self, origin: &OriginName, wants: Vec<Want>) {
        let Ok(source) = self.shared.source(origin) else { return };
        let Ok(_turn) = source.ahead.try_acquire() else { return };
        let (mut queue, mut left, mut most) = (VecDeque::from(wants), ENOUGH_TREES, FIRST_TREES);
        loop {
            let mut flights = Vec::new();
            while flights.len() < most.min(left)
                && let Some(want) = queue.pop_front()
            {
                flights.extend(self.shared.board(&source, want));
            }
            if flights.is_empty() {
                return;
            }
            left -= flights.len();
            most = MORE_TREES;
            let below = self.shared.bring_ahead(&source, flights).await;
            let room = left.saturating_sub(queue.len());
            queue.extend(below.into_iter().take(room));
        }
    }
}

impl Shared {
    /// Waits for what is being read ahead of somebody who has come to ask for it.
    pub(super) async fn let_ahead_land(&self, source: &Source, what: What, oid: Oid) {
        let waiting = self.flights.find(&Cargo { origin: source.name.clone(), what, oid });
        if let Some(waiting) = waiting {
            // Whether it has come shows in the cache.
            let _ = tokio::time::timeout(PATIENCE, waiting.outcome()).await;
        }
    }

    /// The flight of a tree that is to be brought.
    fn board(&self, source: &Source, want: Want) -> Option<(Want, Ticket)> {
        let is_here = || self.is_here(&source.name, What::Tree, want.oid).unwrap_or(true);
        let asked = Cargo { origin: source.name.clone(), what: What::Tree, oid: want.oid };
        if is_here() || self.flights.is_under_way(&asked) {
            return None;
        }
        let ticket = self.join(source, What::TreeAhead, want.oid).1?;
        // A flight that ended between the look and the joining has brought it.
        if is_here() {
            ticket.land(Ok(()));
            return None;
        }
        Some((want, ticket))
    }

    /// Brings trees, and the sizes of the files in them, in one transaction; gives the trees in those trees.
    async fn bring_ahead(&self, source: &Source, flights: Vec<(Want, Ticket)>) -> Vec<Want> {
        let (wants, mut tickets): (Vec<Want>, Vec<Ticket>) = flights.into_iter().unzip();
        let trees = source.small_trees(&wants).await;
        let parsed: Vec<(&Want, Tree)> =
            wants.iter().zip(&trees).filter_map(|(want, tree)| Some((want, parse(tree)?))).collect();
        let wanted = |is_wanted: fn(EntryKind) -> bool| {
            parsed.iter().flat_map(move |(want, tree)| entries(want, tree, is_wanted))
        };
        let below: Vec<Want> = wanted(|kind| kind == EntryKind::Tree).take(ENOUGH_TREES).collect();
        let files = wanted(EntryKind::is_blob);
        let (unknown, more): (Vec<Want>, Vec<Ticket>) = self.board_sizes(source, files).into_iter().unzip();
        tickets.extend(more);
        let sizes = if unknown.is_empty() { Vec::new() } else { source.sizes(&unknown, None).await };
        let (mut puts, mut results) = (Vec::new(), Vec::new());
        for answer in trees.into_iter().chain(sizes.into_iter().map(|size| size.map(Some))) {
            results.push(answer.map(|put| puts.extend(put)));
        }
        let kept = if puts.is_empty() { Ok(()) } else { self.keep(source, wants[0].oid, puts).await };
        for (ticket, result) in tickets.into_iter().zip(results) {
            ticket.land(result.and_then(|()| kept.clone()));
        }
        below
    }

    /// The flights of sizes that are not known, as many as one request has.
    fn board_sizes(&self, source: &Source, files: impl Iterator<Item = Want>) -> Vec<(Want, Ticket)> {
        let joined = |want: Want| self.join(source, What::SizeAhead, want.oid).1.map(|ticket| (want, ticket));
        let flights: Vec<(Want, Ticket)> = files.filter_map(joined).take(self.batch).collect();
        let oids: Vec<Oid> = flights.iter().map(|(want, _)| want.oid).collect();
        let known = self.cache.sizes(&source.name, &oids).unwrap_or_else(|_| vec![None; oids.len()]);
        let mut unknown = Vec::new();
        for (flight, size) in flights.into_iter().zip(known) {
            match size {
                Some(_) => flight.1.land(Ok(())),
                None => unknown.push(flight),
            }
        }
        unknown
    }
}

/// A tree that came. One that makes no sense is told of when it is listed.
fn parse(tree: &Result<Option<Put>, FetchError>) -> Option<Tree> {
    match tree {
        Ok(Some(Put::Tree(_, body))) => Tree::parse(body).ok(),
        _ => None,
    }
}

/// Those entries of the tree of `want` that are wanted.
fn entries(want: &Want, tree: &Tree, is_wanted: fn(EntryKind) -> bool) -> impl Iterator<Item = Want> {
    let hint = |name: &FileName| Hint { commit: want.hint.commit, path: want.hint.path.join(name.clone()) };
    let entries = tree.entries().iter().filter(move |entry| is_wanted(entry.kind));
    entries.map(move |entry| Want { oid: entry.oid, hint: hint(&entry.name) })
}
