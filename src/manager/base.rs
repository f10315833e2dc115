//! Base objects for [`changes`](crate::manager::changes) from the store: cached, else fetched.

use std::sync::Arc;

use bytes::Bytes;
use tokio::runtime::Handle;

use crate::{
    cache::CacheError,
    manager::changes::{Base, ChangesError},
    origin::{FetchError, Hint, Snapshot, Want},
    store::ObjectStore,
    types::{Oid, OriginName, RepoPath, Tree},
};

/// The tree a workspace stands on. Blocks its thread while an origin is asked, so it belongs on one that may wait.
pub struct StoreBase {
    store: ObjectStore,
    origin: OriginName,
    snapshot: Snapshot,
    runtime: Handle,
}

impl StoreBase {
    /// Objects of `snapshot` of `origin`; fetches run on `runtime`.
    pub fn new(store: ObjectStore, origin: OriginName, snapshot: Snapshot, runtime: Handle) -> StoreBase {
        StoreBase { store, origin, snapshot, runtime }
    }

    /// `path` counts from the top of the workspace, an origin's paths from the top of the repository.
    fn want(&self, oid: Oid, path: &RepoPath) -> Want {
        let names = self.snapshot.path.names().iter().chain(path.names());
        Want { oid, hint: Hint { commit: self.snapshot.commit, path: names.cloned().collect() } }
    }

    /// Asks the cache, has the object fetched, and asks once more.
    fn get<T>(
        &self,
        cached: impl Fn() -> Result<Option<T>, CacheError>,
        fetch: impl Future<Output = Result<(), FetchError>>,
        oid: Oid,
    ) -> Result<T, ChangesError> {
        if let Some(found) = cached()? {
            return Ok(found);
        }
        self.runtime.block_on(fetch)?;
        // Gone again only if the cache lost it in between.
        let lost = || FetchError::NotStored { oid, reason: "it left the cache at once".to_owned() };
        Ok(cached()?.ok_or_else(lost)?)
    }
}

impl Base for StoreBase {
    fn tree(&self, oid: Oid, path: &RepoPath) -> Result<Arc<Tree>, ChangesError> {
        let fetch = self.store.fetch_tree(&self.origin, self.want(oid, path));
        let raw = self.get(|| self.store.cached_tree(&self.origin, oid), fetch, oid)?;
        Ok(Arc::new(Tree::parse(&raw).map_err(|source| ChangesError::Tree { path: path.clone(), source })?))
    }

    fn blob(&self, oid: Oid, path: &RepoPath) -> Result<Bytes, ChangesError> {
        let fetch = self.store.fetch_blob(&self.origin, self.want(oid, path));
        self.get(|| self.store.cached_blob(&self.origin, oid, 0, u32::MAX), fetch, oid)
    }
}
