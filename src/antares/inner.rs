//! What all of Antares shares.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::sync::{Notify, broadcast, watch};

use super::{
    AntaresConfig, Event, Scope, Workspace, WorkspaceError,
    disk::Disk,
    drain::Drain,
    driver::{Core, Moment},
    roots::RootTable,
    table::{Entry, Table},
    tasks::{Patience, Tasks},
    trash::Trash,
};
use crate::{
    config::{Limits, Live},
    engine::{LiveMount, OverlayEngine},
    types::WorkspaceId,
};

/// Events that a slow watcher may lag behind before it loses the oldest: a start of a full host tells two per workspace.
const EVENTS: usize = 4096;

/// The workspaces of this host and what acts on them.
pub(super) struct Inner {
    pub(super) config: AntaresConfig,
    pub(super) engine: Arc<dyn OverlayEngine>,
    pub(super) disk: Arc<Disk>,
    pub(super) drain: Drain,
    pub(super) roots: Arc<RootTable>,
    pub(super) table: Table,
    pub(super) trash: Trash,
    pub(super) tasks: Tasks,
    pub(super) events: broadcast::Sender<Event>,
    pub(super) stopping: watch::Sender<bool>,
    /// Rung when a deadline has changed.
    pub(super) deadlines: Arc<Notify>,
    pub(super) hook: Hook,
    limits: Live<Limits>,
}

/// Where crash tests stop the world; nothing in production.
#[derive(Clone, Default)]
pub(super) struct Hook(pub(super) Option<Arc<dyn Fn(Moment) -> BoxFuture<'static, ()> + Send + Sync>>);

impl Hook {
    pub(super) async fn at(&self, moment: Moment) {
        if let Some(hook) = &self.0 {
            hook(moment).await;
        }
    }
}

impl Inner {
    pub(super) fn new(
        config: AntaresConfig,
        engine: Arc<dyn OverlayEngine>,
        disk: Disk,
        drain: Drain,
        roots: RootTable,
        hook: Hook,
    ) -> Result<Inner, WorkspaceError> {
        let path = config.state_dir.clone();
        let trash = Trash::start().map_err(|source| WorkspaceError::Disk {
            action: "start deleting in",
            path,
            source,
        })?;
        let limits = Live::new(config.limits);
        Ok(Inner {
            config,
            engine,
            disk: Arc::new(disk),
            drain,
            roots: Arc::new(roots),
            table: Table::default(),
            trash,
            tasks: Tasks::default(),
            events: broadcast::Sender::new(EVENTS),
            stopping: watch::Sender::new(false),
            deadlines: Arc::default(),
            hook,
            limits,
        })
    }

    /// Runs `work` where it may wait for the disk.
    pub(super) async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Disk) -> Result<T, WorkspaceError> + Send + 'static,
    ) -> Result<T, WorkspaceError> {
        let disk = Arc::clone(&self.disk);
        blocking(move || work(&disk)).await
    }

    /// All workspace mounts there are.
    pub(super) async fn survey(&self) -> Result<Vec<LiveMount>, WorkspaceError> {
        let engine = Arc::clone(&self.engine);
        blocking(move || {
            let path = "/proc/self/mountinfo".into();
            engine.survey().map_err(|source| WorkspaceError::Disk { action: "read", path, source })
        })
        .await
    }

    /// What users may take, now.
    pub(super) fn limits(&self) -> Limits {
        *self.limits.now()
    }

    pub(super) fn set_limits(&self, limits: Limits) {
        self.limits.replace(limits);
    }

    pub(super) fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    pub(super) fn refuse_when_stopping(&self) -> Result<(), WorkspaceError> {
        if self.is_stopping() { Err(WorkspaceError::Stopping) } else { Ok(()) }
    }

    /// Patience that lasts as long as the daemon.
    pub(super) fn patience(&self) -> Patience {
        Patience::of_daemon(self.stopping.subscribe())
    }

    /// The workspace `id` for acting on it, once whoever else acts on it is done.
    pub(super) async fn hold(&self, scope: &Scope, id: &WorkspaceId) -> Result<Held, WorkspaceError> {
        let (entry, _) = self.table.find(scope, id)?;
        let held = Held::when_free(&entry).await;
        self.refuse_when_stopping()?;
        // It may have been given away while we waited.
        let held = held.filter(|held| scope.covers(held.entry.uid()));
        held.ok_or_else(|| WorkspaceError::NoSuchWorkspace(id.clone()))
    }

    pub(super) fn get(&self, scope: &Scope, id: &WorkspaceId) -> Result<Workspace, WorkspaceError> {
        Ok(self.with_pinning(self.table.find(scope, id)?.1))
    }

    /// The workspace, with what goes on without anybody acting on it.
    pub(super) fn with_pinning(&self, workspace: Workspace) -> Workspace {
        let pinning = self.roots.pinning(&workspace.origin, workspace.snapshot.tree);
        Workspace { pinning, ..workspace }
    }
}

/// A workspace that nobody else acts on meanwhile.
pub(super) struct Held {
    pub(super) entry: Arc<Entry>,
    core: tokio::sync::OwnedMutexGuard<Option<Core>>,
}

impl Held {
    /// The workspace of `entry`, once nobody else acts on it; `None` when it is gone then.
    pub(super) async fn when_free(entry: &Arc<Entry>) -> Option<Held> {
        let core = Arc::clone(&entry.core).lock_owned().await;
        core.is_some().then(|| Held { entry: Arc::clone(entry), core })
    }

    /// Its core.
    pub(super) fn core(&mut self) -> &mut Core {
        self.core.as_mut().expect("a workspace is only held while it has a core")
    }

    /// Ends its life, so that those who wait for it find nothing.
    pub(super) fn bury(mut self) {
        *self.core = None;
    }
}

/// Runs `work` on a thread that may wait.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, WorkspaceError> + Send + 'static,
) -> Result<T, WorkspaceError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        // The runtime ends.
        Err(_) => Err(WorkspaceError::Stopping),
    }
}
