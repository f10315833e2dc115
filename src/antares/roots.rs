//! The roots that workspaces stand on, counted: a root is served from its first workspace on and released with its
//! last. The engine forgets a released root at once, or keeps it while a detached mount may still stand on it.
//!
//! A root keeps its one time as long as any workspace, mounted or not, stands on it. Two records that name the same
//! tree with different times (one was adopted) get the time of the one that was added first.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;

use super::WorkspaceError;
use crate::{
    dicfuse::{Dicfuse, Root},
    engine::OverlayEngine,
    origin::Snapshot,
    store::ObjectStore,
    types::{OriginName, RepoPath, RootId},
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
    users: Mutex<HashMap<RootId, usize>>,
}

impl RootTable {
    pub(super) fn new(backend: Arc<dyn Roots>, engine: Arc<dyn OverlayEngine>) -> RootTable {
        RootTable { backend, engine, users: Mutex::default() }
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
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        let root = self.backend.add_root(origin, snapshot, mtime)?;
        *users.entry(root.id).or_default() += 1;
        Ok(root)
    }

    /// One workspace less on this root.
    pub(super) fn give_back(&self, id: RootId) {
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        match users.get_mut(&id) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                users.remove(&id);
                self.engine.release_root(id);
            }
        }
    }

    /// Drops what an earlier process left behind.
    pub(super) fn drop_unused(&self) {
        let users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        match self.backend.served() {
            Ok(served) => {
                served
                    .into_iter()
                    .filter(|id| !users.contains_key(id))
                    .for_each(|id| self.engine.release_root(id));
            }
            Err(error) => tracing::warn!(%error, "cannot list the roots being served"),
        }
    }
}
