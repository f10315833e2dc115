//! The only way to an object: the cache first, then the origin; verified, and one flight per object however many wait.
//!
//! - [`flights`]: who brings an object and who waits for it
//! - [`source`]: an origin, asked and checked
//! - [`room`]: the bound on bytes under way
//!
//! No failure is remembered: it is told to those who wait at that moment, and the next to ask asks the origin again.
//!
//! Sizes come from origins before the content does, and cannot be verified until then. When a verified blob has another
//! length than was said, its true size is what [`ObjectStore::cached_size`] tells from then on, but until the next boot
//! [`ObjectStore::cached_blob`] answers [`CacheError::SizeDisputed`]: a kernel that was told the other size would take
//! the right content for a file cut short (and keep it so), or would show zeros at its end. An error it does not keep.

mod flights;
mod room;
mod source;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;

use self::{
    flights::{Cargo, Flights, Outcome, Ticket, Waiting, What},
    room::Room,
    source::Source,
};
use crate::{
    cache::{Cache, CacheError, CacheStats, Put},
    origin::{BlobSize, FetchError, Origin, Want},
    types::{Oid, OriginName},
};

/// So many sizes come together with the wanted one from an origin that tells them cheaply: one trip and one transaction
/// instead of two of each for nearly every directory, and no longer to wait than some hundred microseconds.
const QUICK_SIZES: usize = 256;

/// How long the wanted size waits for its siblings; then one of them hangs, and it is asked for alone.
const QUICK_PATIENCE: Duration = Duration::from_millis(100);

/// The same at an origin where each size costs a request of its own: longer than one takes, since the flight waited for
/// may be that very request; far shorter than those of a whole directory.
const DEAR_PATIENCE: Duration = Duration::from_secs(1);

/// Sizes in one batch there: a batch lands as a whole and within one deadline. At 8 requests at once, each of a second
/// (a server's time for some 24 MiB), these take 8 seconds.
const DEAR_BATCH: usize = 64;

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
}

struct Shared {
    cache: Cache,
    sources: BTreeMap<OriginName, Arc<Source>>,
    flights: Flights,
    room: Room,
    batch: usize,
}

/// A size that this call has to bring.
type SizeFlight = (Want, Ticket);

impl ObjectStore {
    /// A store over `cache` and the origins of this host.
    pub fn new(
        cache: Cache,
        origins: BTreeMap<OriginName, Arc<dyn Origin>>,
        limits: StoreLimits,
    ) -> ObjectStore {
        let source = |(name, origin): (OriginName, _)| (name.clone(), Arc::new(Source::new(name, origin)));
        let shared = Shared {
            cache,
            sources: origins.into_iter().map(source).collect(),
            flights: Flights::default(),
            room: Room::new(limits.flight_bytes),
            batch: limits.batch.max(1),
        };
        ObjectStore { shared: Arc::new(shared) }
    }

    /// The origin of that name.
    pub fn origin(&self, name: &OriginName) -> Option<Arc<dyn Origin>> {
        self.shared.sources.get(name).map(|source| source.origin.clone())
    }

    /// The raw body of a tree, if it is here.
    pub fn cached_tree(&self, oid: Oid) -> Result<Option<Bytes>, CacheError> {
        if oid == Oid::EMPTY_TREE { Ok(Some(Bytes::new())) } else { self.shared.cache.tree(oid) }
    }

    /// The size of a blob, if it is known.
    pub fn cached_size(&self, oid: Oid) -> Result<Option<u64>, CacheError> {
        self.shared.cache.size(oid)
    }

    /// The sizes of many blobs in one look, each if it is known.
    pub fn cached_sizes(&self, oids: &[Oid]) -> Result<Vec<Option<u64>>, CacheError> {
        self.shared.cache.sizes(oids)
    }

    /// Exactly `min(len, size − offset)` bytes of a blob, if it is here; [`CacheError::SizeDisputed`] if it does not
    /// have the size that was given out for it.
    pub fn cached_blob(&self, oid: Oid, offset: u64, len: u32) -> Result<Option<Bytes>, CacheError> {
        self.shared.cache.read_blob(oid, offset, len)
    }

    /// Brings one tree into the cache.
    pub async fn fetch_tree(&self, origin: &OriginName, want: Want) -> Result<(), FetchError> {
        self.fetch(origin, What::Tree, want).await
    }

    /// Brings one blob into the cache.
    pub async fn fetch_blob(&self, origin: &OriginName, want: Want) -> Result<(), FetchError> {
        self.fetch(origin, What::Blob, want).await
    }

    async fn fetch(&self, origin: &OriginName, what: What, want: Want) -> Result<(), FetchError> {
        let source = self.shared.source(origin)?;
        if self.shared.is_here(what, want.oid)? {
            return Ok(());
        }
        let (waiting, ticket) = self.shared.join(&source, what, want.oid);
        if let Some(ticket) = ticket {
            let (shared, source) = (self.shared.clone(), source.clone());
            tokio::spawn(async move {
                let result = shared.bring(&source, what, &want).await;
                ticket.land(result);
            });
        }
        landed(&source, waiting).await
    }

    /// Learns sizes in bulk: returns as soon as that of `wants[first]` is known (or known not to come); the others
    /// follow in the background, in batches, or come with it when they are few and the origin tells sizes cheaply.
    /// Failures of the others are not reported. A size that is known or already asked for is not asked for again, but
    /// for one that its siblings keep waiting: once more alone. With `first` out of range nothing is waited for.
    pub async fn fetch_sizes(
        &self,
        origin: &OriginName,
        wants: Vec<Want>,
        first: usize,
    ) -> Result<(), FetchError> {
        let source = self.shared.source(origin)?;
        let asked = wants.get(first).cloned();
        let Plan { waiting, mut wanted, mut others } = self.shared.plan_sizes(&source, wants, first)?;
        let is_quick = source.origin.sizes_are_cheap() && others.len() < QUICK_SIZES;
        if is_quick {
            wanted.append(&mut others);
        }
        // Else the wanted one goes alone: an answer comes when a whole batch has it, and a sibling may hang.
        for batch in [wanted, others] {
            if !batch.is_empty() {
                self.bring_sizes(&source, batch);
            }
        }
        match (waiting, asked) {
            (Some(waiting), Some(asked)) => self.size_landed(&source, waiting, asked).await,
            (Some(waiting), None) => landed(&source, waiting).await,
            (None, _) => Ok(()),
        }
    }

    /// Waits for a size that comes with others, unless these take long: then it gets a flight of its own.
    async fn size_landed(
        &self,
        source: &Arc<Source>,
        waiting: Waiting,
        want: Want,
    ) -> Result<(), FetchError> {
        let patience = if source.origin.sizes_are_cheap() { QUICK_PATIENCE } else { DEAR_PATIENCE };
        match tokio::time::timeout(patience, landed(source, waiting)).await {
            // It may have been the whole batch that took too long.
            Err(_) | Ok(Err(FetchError::TimedOut { .. })) => {}
            Ok(result) => return result,
        }
        let (waiting, ticket) = self.shared.join(source, What::SizeAlone, want.oid);
        if let Some(ticket) = ticket {
            self.bring_sizes(source, vec![(want, ticket)]);
        }
        landed(source, waiting).await
    }

    fn bring_sizes(&self, source: &Arc<Source>, batch: Vec<SizeFlight>) {
        let (shared, source) = (self.shared.clone(), source.clone());
        tokio::spawn(async move { shared.bring_sizes(&source, batch).await });
    }

    /// Counters per origin.
    pub fn fetch_stats(&self) -> BTreeMap<OriginName, FetchStats> {
        self.shared.sources.iter().map(|(name, source)| (name.clone(), source.stats())).collect()
    }

    /// Counters of the cache.
    pub fn cache_stats(&self) -> Result<CacheStats, CacheError> {
        self.shared.cache.stats()
    }
}

/// Who asks for which size of a directory.
struct Plan {
    /// The flight of the wanted one, unless its size is known.
    waiting: Option<Waiting>,
    /// The wanted one, if nobody is on the way for it.
    wanted: Vec<SizeFlight>,
    /// All others that are neither known nor under way.
    others: Vec<SizeFlight>,
}

impl Shared {
    fn source(&self, origin: &OriginName) -> Result<Arc<Source>, FetchError> {
        self.sources.get(origin).cloned().ok_or_else(|| FetchError::Unreachable {
            origin: origin.clone(),
            reason: "it is not configured on this host".into(),
        })
    }

    fn is_here(&self, what: What, oid: Oid) -> Result<bool, FetchError> {
        let found = match what {
            What::Tree if oid == Oid::EMPTY_TREE => Ok(true),
            What::Tree => self.cache.has_tree(oid),
            What::Blob => self.cache.has_blob(oid),
            What::Size | What::SizeAlone => self.cache.size(oid).map(|size| size.is_some()),
        };
        found.map_err(|why| not_stored(oid, &why))
    }

    fn join(&self, source: &Source, what: What, oid: Oid) -> (Waiting, Option<Ticket>) {
        self.flights.join(Cargo { origin: source.name.clone(), what, oid })
    }

    /// The flight itself. What another flight brought in between, or what only has to be looked at again, is not fetched.
    async fn bring(&self, source: &Source, what: What, want: &Want) -> Result<(), FetchError> {
        let oid = want.oid;
        let _room = match what {
            What::Blob => {
                if self.cache.recheck(oid).await.map_err(|why| not_stored(oid, &why))? {
                    return Ok(());
                }
                let size = self.cache.size(oid).map_err(|why| not_stored(oid, &why))?;
                self.room.take(size).await
            }
            _ if self.is_here(what, oid)? => return Ok(()),
            _ => None,
        };
        let body = source.object(what, want).await?;
        let put = if what == What::Tree { Put::Tree(oid, body) } else { Put::Blob(oid, body) };
        self.keep(oid, vec![put]).await
    }

    async fn keep(&self, oid: Oid, puts: Vec<Put>) -> Result<(), FetchError> {
        self.cache.put(puts).await.map_err(|why| {
            tracing::warn!(oid = %oid, error = %why, "what an origin sent could not be kept");
            not_stored(oid, &why)
        })
    }

    fn plan_sizes(&self, source: &Source, wants: Vec<Want>, first: usize) -> Result<Plan, FetchError> {
        let oids: Vec<Oid> = wants.iter().map(|want| want.oid).collect();
        let known = self.cache.sizes(&oids);
        let known =
            known.map_err(|why| not_stored(oids.get(first).copied().unwrap_or(Oid::EMPTY_TREE), &why))?;
        let mut plan = Plan { waiting: None, wanted: Vec::new(), others: Vec::new() };
        // The wanted one boards first: named twice in the list, it must not wait for the batch of its other self.
        let mut unknown: Vec<(usize, Want)> =
            wants.into_iter().enumerate().filter(|(index, _)| known[*index].is_none()).collect();
        unknown.sort_by_key(|(index, _)| *index != first);
        for (index, want) in unknown {
            let (waiting, ticket) = self.join(source, What::Size, want.oid);
            let flight = ticket.map(|ticket| (want, ticket));
            if index == first {
                plan.waiting = Some(waiting);
                plan.wanted.extend(flight);
            } else {
                plan.others.extend(flight);
            }
        }
        Ok(plan)
    }

    async fn bring_sizes(&self, source: &Source, flights: Vec<SizeFlight>) {
        let mut flights = flights.into_iter();
        loop {
            let most = if source.origin.sizes_are_cheap() { self.batch } else { self.batch.min(DEAR_BATCH) };
            let batch: Vec<SizeFlight> = flights.by_ref().take(most).collect();
            if batch.is_empty() {
                return;
            }
            self.bring_batch(source, batch).await;
        }
    }

    async fn bring_batch(&self, source: &Source, batch: Vec<SizeFlight>) {
        // A flight that ended between the look and the joining has brought its size already.
        let (known, asked): (Vec<_>, Vec<_>) =
            batch.into_iter().partition(|(want, _)| self.is_here(What::Size, want.oid) == Ok(true));
        known.into_iter().for_each(|(_, ticket)| ticket.land(Ok(())));
        if asked.is_empty() {
            return;
        }
        let (wants, tickets): (Vec<Want>, Vec<Ticket>) = asked.into_iter().unzip();
        let answers = source.sizes(&wants).await;
        let sizes = wants.iter().zip(&answers);
        let puts: Vec<Put> = sizes
            .filter_map(|(want, size)| match size.as_ref().ok()? {
                BlobSize { content: Some(content), .. } => Some(Put::Blob(want.oid, content.clone())),
                BlobSize { bytes, content: None } => Some(Put::Size(want.oid, *bytes)),
            })
            .collect();
        let kept = if puts.is_empty() { Ok(()) } else { self.keep(wants[0].oid, puts).await };
        for (ticket, answer) in tickets.into_iter().zip(answers) {
            ticket.land(answer.and_then(|_| kept.clone()));
        }
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
