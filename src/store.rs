//! The only way to an object: the cache first, then the origin; verified, and one flight per object however many wait.
//!
//! - [`flights`]: who brings an object and who waits for it
//! - [`source`]: an origin, asked and checked; [`sources`]: all of them
//! - [`sizes`]: sizes of many blobs, one of which is waited for
//! - [`ahead`]: trees and sizes in batches, for who walks through them
//! - [`boundaries`]: ids that stand for trees
//! - [`pin`]: all trees of a root, fetched while they can be had; [`walk`] is their order
//! - [`room`]: the bound on bytes under way
//!
//! Every question names an origin, and is answered with what that origin has delivered: an object that came from another
//! one is not here for it, and is asked for.
//!
//! No failure is remembered: it is told to those who wait at that moment, and the next to ask asks the origin again.
//!
//! Sizes come from origins before the content does, and cannot be verified until then. When a verified blob has another
//! length than its origin said, its true size is what [`ObjectStore::cached_size`] tells from then on, but until the next boot
//! [`ObjectStore::cached_blob`] answers [`CacheError::SizeDisputed`]: a kernel that was told the other size would take
//! the right content for a file cut short (and keep it so), or would show zeros at its end. An error it does not keep.

mod ahead;
mod boundaries;
mod flights;
mod pin;
mod room;
mod sizes;
mod source;
mod sources;
mod walk;

pub use pin::{Pin, Pinned, Pinning};

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::time::Instant;

pub use self::sources::Opener;
use self::{
    flights::{Cargo, Flights, Outcome, Ticket, Waiting, What},
    room::Room,
    source::Source,
    sources::Sources,
};
use crate::{
    cache::{Cache, CacheError, CacheStats, Put},
    origin::{FetchError, Origin, Want},
    types::{Oid, OriginName},
};

/// With less time left, an origin that did not answer somebody else in time is not asked once more.
const WORTH_ASKING: Duration = Duration::from_secs(1);

/// Bounds of a store.
#[derive(Clone, Copy, Debug)]
pub struct StoreLimits {
    /// Bytes of blobs that may be in memory on their way from origins to the cache; one larger blob goes alone.
    pub flight_bytes: u64,
    /// Wants in one request to an origin.
    pub batch: usize,
}

/// Counters of one origin as the store sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FetchStats {
    /// Objects asked of the origin.
    pub fetched: u64,
    /// Bytes that came.
    pub bytes: u64,
    /// Objects and sizes that did not come, or came wrong.
    pub failed: u64,
    /// Sizes asked of the origin.
    pub sizes: u64,
}

/// Cache and origins behind one door. Cheap to clone.
///
/// The `cached_*` methods never wait for an origin and are safe on FUSE worker threads. The `fetch_*` methods return
/// when the object is in the cache (or known not to come); a caller that stops waiting does not stop the flight. They
/// must be called within a tokio runtime, which must not end before the store is done with.
#[derive(Clone)]
pub struct ObjectStore {
    shared: Arc<Shared>,
    /// When what this one asks of origins has to be there, if not within the origins' own deadlines.
    until: Option<Instant>,
}

struct Shared {
    cache: Cache,
    sources: Sources,
    flights: Flights,
    room: Room,
    batch: usize,
}

impl ObjectStore {
    /// A store over `cache` and the origins of this host. What must outlive the cache is kept below `state_dir`.
    pub fn new(
        cache: Cache,
        origins: BTreeMap<OriginName, Arc<dyn Origin>>,
        state_dir: &Path,
        limits: StoreLimits,
    ) -> ObjectStore {
        ObjectStore::opening(cache, origins, Box::new(|_| None), state_dir, limits)
    }

    /// The same, with origins that are opened when they are first asked for.
    pub fn opening(
        cache: Cache,
        origins: BTreeMap<OriginName, Arc<dyn Origin>>,
        open: Opener,
        state_dir: &Path,
        limits: StoreLimits,
    ) -> ObjectStore {
        let shared = Shared {
            cache,
            sources: Sources::new(origins, open, state_dir),
            flights: Flights::default(),
            room: Room::new(limits.flight_bytes),
            batch: limits.batch.max(1),
        };
        ObjectStore { shared: Arc::new(shared), until: None }
    }

    /// The same store for somebody who waits until then and no longer: origins are not asked beyond it.
    #[must_use]
    pub fn until(&self, at: Instant) -> ObjectStore {
        ObjectStore { shared: Arc::clone(&self.shared), until: Some(at) }
    }

    /// The origin of that name.
    pub fn origin(&self, name: &OriginName) -> Option<Arc<dyn Origin>> {
        self.shared.sources.get(name).map(|source| source.origin.clone())
    }

    /// Has the next request to an origin open it anew: what it is read with has changed. For those that an [`Opener`]
    /// opens; another one would be gone for good.
    pub fn reopen(&self, name: &OriginName) {
        self.shared.sources.close(name);
    }

    /// From now on the origin of that name is this one; requests under way end as they would.
    pub fn put_origin(&self, origin: Arc<dyn Origin>) {
        self.shared.sources.put(origin);
    }

    /// There is no such origin any more, nor any user's view of it that was opened.
    pub fn drop_origin(&self, configured: &OriginName) {
        self.shared.sources.close_all(configured);
    }

    /// The id of the tree that `oid` leads to: another one where `oid` is a boundary of the origin that was crossed
    /// before. What is to last stands on this id, which says what is in the tree.
    pub fn stands_for(&self, origin: &OriginName, oid: Oid) -> Oid {
        self.shared.stands_for(origin, oid)
    }

    /// The raw body of a tree, if the origin has delivered it.
    pub fn cached_tree(&self, origin: &OriginName, oid: Oid) -> Result<Option<Bytes>, CacheError> {
        match self.stands_for(origin, oid) {
            Oid::EMPTY_TREE => Ok(Some(Bytes::new())),
            oid => self.shared.cache.tree(origin, oid),
        }
    }

    /// Whether the origin has delivered the tree.
    pub fn has_tree(&self, origin: &OriginName, oid: Oid) -> bool {
        self.shared.is_here(origin, What::Tree, oid).unwrap_or(false)
    }

    /// The size of a blob, if the origin has told it.
    pub fn cached_size(&self, origin: &OriginName, oid: Oid) -> Result<Option<u64>, CacheError> {
        self.shared.cache.size(origin, oid)
    }

    /// The sizes of many blobs in one look, each if the origin has told it.
    pub fn cached_sizes(&self, origin: &OriginName, oids: &[Oid]) -> Result<Vec<Option<u64>>, CacheError> {
        self.shared.cache.sizes(origin, oids)
    }

    /// Exactly `min(len, size − offset)` bytes of a blob, if the origin has delivered it; [`CacheError::SizeDisputed`] if
    /// it does not have the size that was given out for it.
    pub fn cached_blob(
        &self,
        origin: &OriginName,
        oid: Oid,
        offset: u64,
        len: u32,
    ) -> Result<Option<Bytes>, CacheError> {
        self.shared.cache.read_blob(origin, oid, offset, len)
    }

    /// Whether the size of a blob is on its way: then there is no need to ask for its siblings again.
    pub fn is_size_coming(&self, origin: &OriginName, oid: Oid) -> bool {
        let is_under_way =
            |what| self.shared.flights.is_under_way(&Cargo { origin: origin.clone(), what, oid });
        is_under_way(What::Size) || is_under_way(What::SizeAhead)
    }

    /// Brings one tree into the cache.
    pub async fn fetch_tree(&self, origin: &OriginName, want: Want) -> Result<(), FetchError> {
        let _user = self.shared.source(origin)?.user();
        self.fetch(origin, What::Tree, want).await
    }

    /// Brings one tree into the cache when users have nothing to ask of its origin, or soon after.
    async fn fetch_in_background(&self, origin: &OriginName, want: Want) -> Result<(), FetchError> {
        self.shared.source(origin)?.let_users_go_first().await;
        self.fetch(origin, What::Tree, want).await
    }

    /// Brings one blob into the cache.
    pub async fn fetch_blob(&self, origin: &OriginName, want: Want) -> Result<(), FetchError> {
        let _user = self.shared.source(origin)?.user();
        self.fetch(origin, What::Blob, want).await
    }

    async fn fetch(&self, origin: &OriginName, what: What, want: Want) -> Result<(), FetchError> {
        let source = self.shared.source(origin)?;
        if self.shared.is_here(origin, what, want.oid)? {
            return Ok(());
        }
        if what == What::Tree {
            self.shared.let_ahead_land(&source, What::TreeAhead, want.oid).await;
        }
        let take_off = |ticket: Ticket| {
            let (shared, source, until, want) =
                (self.shared.clone(), source.clone(), self.until, want.clone());
            tokio::spawn(async move {
                let result = shared.bring(&source, what, &want, until).await;
                ticket.land(result);
            });
        };
        self.fly(&source, what, want.oid, take_off).await
    }

    /// Waits for the flight of an object, which `take_off` begins if nobody has. Where somebody has who had less time left,
    /// and it ran out, that is no answer: one is asked for again.
    async fn fly(
        &self,
        source: &Source,
        what: What,
        oid: Oid,
        take_off: impl Fn(Ticket),
    ) -> Result<(), FetchError> {
        loop {
            let (waiting, ticket) = self.shared.join(source, what, oid);
            let is_own = ticket.is_some();
            ticket.into_iter().for_each(&take_off);
            match landed(source, waiting).await {
                Err(FetchError::TimedOut { .. }) if !is_own && self.may_ask_again() => {}
                result => return result,
            }
        }
    }

    fn may_ask_again(&self) -> bool {
        let left = |until: Instant| until.saturating_duration_since(Instant::now());
        self.until.is_some_and(|until| left(until) >= WORTH_ASKING)
    }

    /// Counters per origin.
    pub fn fetch_stats(&self) -> BTreeMap<OriginName, FetchStats> {
        self.shared.sources.all().into_iter().map(|source| (source.name.clone(), source.stats())).collect()
    }

    /// Counters of the cache.
    pub fn cache_stats(&self) -> Result<CacheStats, CacheError> {
        self.shared.cache.stats()
    }
}

impl Shared {
    fn source(&self, origin: &OriginName) -> Result<Arc<Source>, FetchError> {
        self.sources.get(origin).ok_or_else(|| FetchError::Unreachable {
            origin: origin.clone(),
            reason: "it is not configured on this host".into(),
        })
    }

    fn stands_for(&self, origin: &OriginName, oid: Oid) -> Oid {
        // Of an origin that left the configuration nothing new comes, and what is here stands on trees' own ids.
        self.sources.get(origin).map_or(oid, |source| source.boundaries.stands_for(oid))
    }

    fn is_here(&self, origin: &OriginName, what: What, oid: Oid) -> Result<bool, FetchError> {
        let found = match what {
            What::Tree | What::TreeAhead => match self.stands_for(origin, oid) {
                Oid::EMPTY_TREE => Ok(true),
                oid => self.cache.has_tree(origin, oid),
            },
            What::Blob => self.cache.has_blob(origin, oid),
            What::Size | What::SizeAlone | What::SizeAhead => {
                self.cache.size(origin, oid).map(|size| size.is_some())
            }
        };
        found.map_err(|why| not_stored(oid, &why))
    }

    fn join(&self, source: &Source, what: What, oid: Oid) -> (Waiting, Option<Ticket>) {
        self.flights.join(Cargo { origin: source.name.clone(), what, oid })
    }

    /// The flight itself. What another flight brought in between, or what only has to be looked at again, is not fetched.
    async fn bring(
        &self,
        source: &Source,
        what: What,
        want: &Want,
        until: Option<Instant>,
    ) -> Result<(), FetchError> {
        let oid = want.oid;
        let _room = match what {
            What::Blob => {
                if self.cache.recheck(&source.name, oid).await.map_err(|why| not_stored(oid, &why))? {
                    return Ok(());
                }
                let size = self.cache.size(&source.name, oid).map_err(|why| not_stored(oid, &why))?;
                self.room.take(size).await
            }
            _ if self.is_here(&source.name, what, oid)? => return Ok(()),
            _ => None,
        };
        let object = source.object(what, want, until).await?;
        self.keep(source, oid, vec![object]).await
    }

    async fn keep(&self, source: &Source, oid: Oid, puts: Vec<Put>) -> Result<(), FetchError> {
        self.cache.put(&source.name, puts).await.map_err(|why| {
            tracing::warn!(oid = %oid, error = %why, "what an origin sent could not be kept");
            not_stored(oid, &why)
        })
    }
}

async fn landed(source: &Source, waiting: Waiting) -> Result<(), FetchError> {
    match waiting.outcome().await {
        Outcome::Landed(result) => result,
        Outcome::Lost => Err(source.unreachable("the fetch broke off".into())),
    }
}

fn not_stored(oid: Oid, why: &CacheError) -> FetchError {
    FetchError::NotStored { oid, reason: why.to_string() }
}
