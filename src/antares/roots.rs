//! The roots that workspaces stand on, counted: a root is served from its first workspace on and released with its
//! last. The engine forgets a released root at once, or keeps it while a detached mount may still stand on it.
//!
//! A root keeps its one time as long as any workspace, mounted or not, stands on it. Two records that name the same
//! tree with different times (one was adopted) get the time of the one that was added first.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;

use super::WorkspaceError;
use crate::{
    dicfuse::{Dicfuse, Root},
    engine::OverlayEngine,
    origin::Snapshot,
    store::{ObjectStore, Pin, Pinning},
    types::{Oid, OriginName, RepoPath, RootId},
};

/// What is needed of the layers below to have roots.
#[async_trait]
pub(super) trait Roots: Send + Sync + 'static {
    /// Finds what `rev` and `path` name.
    async fn resolve(
        &self,
        origin: &OriginName,
        rev: Option<&str>,
        path: &RepoPath,
    ) -> Result<Snapshot, WorkspaceError>;

    /// Serves a snapshot; one that is served already keeps its time.
    fn add_root(&self, origin: &OriginName, snapshot: &Snapshot, mtime: i64) -> Result<Root, WorkspaceError>;

    /// Begins to fetch all trees of a root, where they can be had for some time only. Called within the runtime.
    fn pin(&self, root: &Root) -> Option<Pin>;

    /// All roots that are being served.
    fn served(&self) -> Result<Vec<RootId>, WorkspaceError>;
}

#[async_trait]
impl Roots for (Dicfuse, ObjectStore) {
    async fn resolve(
        &self,
        origin: &OriginName,
        rev: Option<&str>,
        path: &RepoPath,
    ) -> Result<Snapshot, WorkspaceError> {
        let known = self.1.origin(origin).ok_or_else(|| WorkspaceError::NoSuchOrigin(origin.clone()))?;
        Ok(known.resolve(rev, path).await?)
    }

    fn add_root(&self, origin: &OriginName, snapshot: &Snapshot, mtime: i64) -> Result<Root, WorkspaceError> {
        self.0.add_root(origin, snapshot, mtime).map_err(|stop| WorkspaceError::Tree(stop.to_string()))
    }

    fn pin(&self, root: &Root) -> Option<Pin> {
        self.1.pin(&root.origin, &root.snapshot)
    }

    fn served(&self) -> Result<Vec<RootId>, WorkspaceError> {
        let roots = self.0.roots().map_err(|stop| WorkspaceError::Tree(stop.to_string()))?;
        Ok(roots.into_iter().map(|root| root.id).collect())
    }
}

/// Roots and how many workspaces stand on each. Adding and dropping exclude each other, so that a root is never dropped
/// while somebody is being given it. The calls block: they are made from blocking threads.
pub(super) struct RootTable {
    backend: Arc<dyn Roots>,
    engine: Arc<dyn OverlayEngine>,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    users: HashMap<RootId, usize>,
    /// Walks of roots whose trees pass, by what they are walks of.
    pins: HashMap<(OriginName, Oid), (RootId, Pin)>,
}

impl RootTable {
    pub(super) fn new(backend: Arc<dyn Roots>, engine: Arc<dyn OverlayEngine>) -> RootTable {
        RootTable { backend, engine, held: Mutex::default() }
    }

    pub(super) async fn resolve(
        &self,
        origin: &OriginName,
        rev: Option<&str>,
        path: &RepoPath,
    ) -> Result<Snapshot, WorkspaceError> {
        self.backend.resolve(origin, rev, path).await
    }

    /// One more workspace on this root.
    pub(super) fn take(
        &self,
        origin: &OriginName,
        snapshot: &Snapshot,
        mtime: i64,
    ) -> Result<Root, WorkspaceError> {
        let mut held = self.held();
        let root = self.backend.add_root(origin, snapshot, mtime)?;
        *held.users.entry(root.id).or_default() += 1;
        let key = (root.origin.clone(), root.snapshot.tree);
        if !held.pins.contains_key(&key)
            && let Some(pin) = self.backend.pin(&root)
        {
            held.pins.insert(key, (root.id, pin));
        }
        Ok(root)
    }

    /// One workspace less on this root.
    pub(super) fn give_back(&self, id: RootId) {
        let mut held = self.held();
        match held.users.get_mut(&id) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                held.users.remove(&id);
                held.pins.retain(|_, (of, _)| *of != id);
                self.engine.release_root(id);
            }
        }
    }

    /// How far the fetching of all trees of a root has come, where that is needed.
    pub(super) fn pinning(&self, origin: &OriginName, tree: Oid) -> Option<Pinning> {
        self.held().pins.get(&(origin.clone(), tree)).map(|(_, pin)| pin.progress())
    }

    /// Drops what an earlier process left behind.
    pub(super) fn drop_unused(&self) {
        let held = self.held();
        match self.backend.served() {
            Ok(served) => {
                served
                    .into_iter()
                    .filter(|id| !held.users.contains_key(id))
                    .for_each(|id| self.engine.release_root(id));
            }
            Err(error) => tracing::warn!(%error, "cannot list the roots being served"),
        }
    }
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
