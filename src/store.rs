//! The only way to an object: the cache first, then the origin; verified, and one flight per object however many wait.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;

use crate::{
    cache::{Cache, CacheError, CacheStats},
    origin::{FetchError, Origin, Want},
    types::{Oid, OriginName},
};

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
    /// Objects that did not come, or came wrong.
    pub failed: u64,
}

/// Cache and origins behind one door. Cheap to clone.
///
/// The `cached_*` methods never wait for an origin and are safe on FUSE worker threads. The `fetch_*` methods return
/// when the object is in the cache (or known not to come); a caller that stops waiting does not stop the flight.
#[derive(Clone)]
pub struct ObjectStore {}

impl ObjectStore {
    /// A store over `cache` and the origins of this host.
    pub fn new(
        _cache: Cache,
        _origins: BTreeMap<OriginName, Arc<dyn Origin>>,
        _limits: StoreLimits,
    ) -> ObjectStore {
        todo!()
    }

    /// The origin of that name.
    pub fn origin(&self, _name: &OriginName) -> Option<Arc<dyn Origin>> {
        todo!()
    }

    /// The raw body of a tree, if it is here.
    pub fn cached_tree(&self, _oid: Oid) -> Result<Option<Bytes>, CacheError> {
        todo!()
    }

    /// The size of a blob, if it is known.
    pub fn cached_size(&self, _oid: Oid) -> Result<Option<u64>, CacheError> {
        todo!()
    }

    /// Exactly `min(len, size − offset)` bytes of a blob, if it is here.
    pub fn cached_blob(&self, _oid: Oid, _offset: u64, _len: u32) -> Result<Option<Bytes>, CacheError> {
        todo!()
    }

    /// Brings one tree into the cache.
    pub async fn fetch_tree(&self, _origin: &OriginName, _want: Want) -> Result<(), FetchError> {
        todo!()
    }

    /// Brings one blob into the cache.
    pub async fn fetch_blob(&self, _origin: &OriginName, _want: Want) -> Result<(), FetchError> {
        todo!()
    }

    /// Learns sizes in bulk: returns as soon as that of `wants[first]` is known (or known not to come); the others
    /// follow in the background. Failures of the others are not reported.
    pub async fn fetch_sizes(
        &self,
        _origin: &OriginName,
        _wants: Vec<Want>,
        _first: usize,
    ) -> Result<(), FetchError> {
        todo!()
    }

    /// Counters per origin.
    pub fn fetch_stats(&self) -> BTreeMap<OriginName, FetchStats> {
        todo!()
    }

    /// Counters of the cache.
    pub fn cache_stats(&self) -> Result<CacheStats, CacheError> {
        todo!()
    }
}
