//! The life of workspaces: a state machine and a driver per workspace, durable records, limits, recovery.
//!
//! ```text
//!              create                       unmount (durable)
//!   (nothing) ───────► Mounting ──► Mounted ─────────────────► Unmounted
//!                         │  ▲        │ │                        │   │
//!                  failed │  └────────┼─┼──── mount, recover ────┘   │ remove
//!                         ▼           │ │ mount point is another     ▼
//!                     (nothing)       │ └────────────► Displaced   (nothing)
//!                                     │ remove, unmount (ephemeral)
//!                                     └──► Removing ──► (nothing)
//! ```
//!
//! Given away, a durable one that is not being mounted becomes another user's, unmounted.
//!
//! - [`state`]: the machine, pure
//! - [`driver`]: carries its moves out; [`life`] and [`give`] are what users ask for, [`expiry`] and [`lost`] what happens by
//!   itself
//! - [`record`], [`disk`], [`trash`]: what is kept where, and how it goes
//! - [`recover`]: what a start has to do, pure; [`recovery`] does it, [`stop`] is the other end
//! - [`orphans`]: uppers without a record; [`saved`]: workspaces as they lie on disk while no daemon runs
//! - [`usage`]: how much lies in an upper; [`drain`]: no new mounts, until an administrator says otherwise
//! - [`workspace`], [`error`]: what callers ask for, are shown and are refused
//! - [`table`], [`roots`], [`tasks`], [`options`]: who is there, what they stand on, who acts, what may be asked for
//!
//! Killed at any moment, the next start finishes or undoes: a record that says `Creating` was never acknowledged and
//! goes (unless something was written), one that says `Mounting` or `Mounted` is mounted again, a record in the trash
//! takes its upper with it, and whoever a record names is the owner. No changes of a durable workspace are ever deleted
//! without the word of a user for it.

mod disk;
mod drain;
mod driver;
mod error;
mod expiry;
mod give;
mod inner;
mod life;
mod lost;
mod options;
mod orphans;
mod record;
mod recover;
mod recovery;
mod roots;
pub mod saved;
mod state;
mod stop;
mod table;
mod tasks;
#[cfg(test)]
mod tests;
mod trash;
mod usage;
mod workspace;

pub use error::WorkspaceError;
pub use usage::Budget;
pub use workspace::{Create, Draining, Event, Gift, Options, Orphan, Scope, State, Usage, Workspace};

use std::{path::PathBuf, sync::Arc};

use self::{
    disk::Disk,
    drain::Drain,
    inner::{Hook, Inner},
    roots::{RootTable, Roots},
};
use crate::{
    config::Limits,
    dicfuse::Dicfuse,
    engine::{Leave, OverlayEngine},
    store::ObjectStore,
    sys::identity::Identity,
    types::WorkspaceId,
};

/// What Antares needs to know.
#[derive(Clone, Debug)]
pub struct AntaresConfig {
    /// Where records are kept: `<state>/workspaces/<id>/record`.
    pub state_dir: PathBuf,
    /// Where uppers lie: `<upper_root>/<id>/upper`.
    pub upper_root: PathBuf,
    /// This boot.
    pub boot_id: String,
    /// What users may take.
    pub limits: Limits,
}

/// The workspaces of this host. Cheap to clone.
#[derive(Clone)]
pub struct Antares {
    inner: Arc<Inner>,
}

impl Antares {
    /// Reads all records and recovers: dead mounts are detached, durable workspaces mounted again. Returns when the
    /// plan has been carried out as far as possible; a workspace that could not be mounted is `Failed` or `Displaced`,
    /// never lost, and never keeps the others from coming up.
    pub async fn open(
        config: AntaresConfig,
        engine: Arc<dyn OverlayEngine>,
        dicfuse: Dicfuse,
        store: ObjectStore,
    ) -> Result<Antares, WorkspaceError> {
        Antares::open_on(config, engine, Arc::new((dicfuse, store)), Hook::default()).await
    }

    async fn open_on(
        config: AntaresConfig,
        engine: Arc<dyn OverlayEngine>,
        roots: Arc<dyn Roots>,
        hook: Hook,
    ) -> Result<Antares, WorkspaceError> {
        let (state_dir, upper_root) = (config.state_dir.clone(), config.upper_root.clone());
        let open = move || Ok((Disk::open(&state_dir, &upper_root)?, Drain::open(&state_dir)?));
        let (disk, drain) = inner::blocking(open).await?;
        let roots = RootTable::new(roots, Arc::clone(&engine));
        let inner = Arc::new(Inner::new(config, engine, disk, drain, roots, hook)?);
        recovery::recover(&inner).await?;
        inner.tasks.spawn(expiry::watch_deadlines(Arc::downgrade(&inner)));
        inner.tasks.spawn(lost::watch_mounts(Arc::downgrade(&inner)));
        Ok(Antares { inner })
    }

    /// Makes a workspace and mounts it. When it fails, or the future is dropped, nothing of it stays.
    pub async fn create(&self, owner: &Identity, request: Create) -> Result<Workspace, WorkspaceError> {
        let created = life::create(&self.inner, owner, request).await;
        created.map(|workspace| self.inner.with_pinning(workspace))
    }

    /// Mounts a workspace that is not mounted, at its mount point or at another one. Goes on when the future is dropped.
    pub async fn mount(
        &self,
        scope: &Scope,
        id: &WorkspaceId,
        at: Option<PathBuf>,
    ) -> Result<Workspace, WorkspaceError> {
        let inner = Arc::clone(&self.inner);
        let mounted = self.inner.tasks.run(life::mount(inner, scope.clone(), id.clone(), at)).await;
        mounted.map(|workspace| self.inner.with_pinning(workspace))
    }

    /// Unmounts. A durable workspace stays, an ephemeral one is removed. Goes on when the future is dropped.
    pub async fn unmount(&self, scope: &Scope, id: &WorkspaceId, lazy: bool) -> Result<(), WorkspaceError> {
        let inner = Arc::clone(&self.inner);
        self.inner.tasks.run(life::unmount(inner, scope.clone(), id.clone(), lazy)).await
    }

    /// Unmounts and takes the workspace away for good; with changes in its upper only if `discard`. Goes on when the
    /// future is dropped.
    ///
    /// Without `discard`, `lazy` does not help against processes in a writable durable workspace: what they write after
    /// the last look at the upper would be lost.
    pub async fn remove(
        &self,
        scope: &Scope,
        id: &WorkspaceId,
        discard: bool,
        lazy: bool,
    ) -> Result<(), WorkspaceError> {
        let inner = Arc::clone(&self.inner);
        self.inner.tasks.run(life::remove(inner, scope.clone(), id.clone(), discard, lazy)).await
    }

    /// Hands a durable workspace over to another user: unmounted, and theirs from one durable write on. Nothing that was
    /// written is touched; its ids on disk stay. Refused while a process uses it. Goes on when the future is dropped.
    pub async fn give(
        &self,
        scope: &Scope,
        id: &WorkspaceId,
        gift: Gift,
    ) -> Result<Workspace, WorkspaceError> {
        let inner = Arc::clone(&self.inner);
        self.inner.tasks.run(give::give(inner, scope.clone(), id.clone(), gift)).await
    }

    /// One workspace.
    pub fn get(&self, scope: &Scope, id: &WorkspaceId) -> Result<Workspace, WorkspaceError> {
        self.inner.get(scope, id)
    }

    /// All workspaces in `scope`, ordered by id.
    pub fn list(&self, scope: &Scope) -> Vec<Workspace> {
        let all = scope.filter(&self.inner.table.all());
        all.into_iter().map(|workspace| self.inner.with_pinning(workspace)).collect()
    }

    /// Changes from now on, of all workspaces; a slow reader loses the oldest and is told so.
    pub fn watch(&self) -> tokio::sync::broadcast::Receiver<Event> {
        self.inner.events.subscribe()
    }

    /// How much lies in the upper of a workspace. Walks it, for as long as `budget` allows.
    pub fn measure(&self, scope: &Scope, id: &WorkspaceId, budget: &Budget) -> Result<Usage, WorkspaceError> {
        usage::measure(&self.inner, scope, id, budget)
    }

    /// Whether users get no new mounts now.
    pub fn draining(&self) -> Option<Draining> {
        self.inner.drain.now()
    }

    /// From now on, over restarts and boots, users get no new mounts: creations and mounts are refused with
    /// [`WorkspaceError::Draining`]. What is mounted stays, and all that will be is listed when this returns. Does nothing
    /// if it is so already. Goes on when the future is dropped.
    pub async fn begin_drain(&self, by: u32) -> Result<Draining, WorkspaceError> {
        self.inner.tasks.run(drain::begin(Arc::clone(&self.inner), by)).await
    }

    /// Users get mounts again. Goes on when the future is dropped.
    pub async fn end_drain(&self, by: u32) -> Result<(), WorkspaceError> {
        self.inner.tasks.run(drain::end(Arc::clone(&self.inner), by)).await
    }

    /// Uppers without a record. Reads the disk.
    pub fn orphans(&self) -> Result<Vec<Orphan>, WorkspaceError> {
        orphans::list(&self.inner)
    }

    /// Makes an orphan a workspace of `owner`, to whom its upper must belong, again: unmounted, on what `request` names.
    pub async fn adopt(
        &self,
        id: &WorkspaceId,
        owner: &Identity,
        request: Create,
    ) -> Result<Workspace, WorkspaceError> {
        let inner = Arc::clone(&self.inner);
        self.inner.tasks.run(orphans::adopt(inner, id.clone(), owner.clone(), request)).await
    }

    /// Deletes an orphan's upper.
    pub async fn discard(&self, id: &WorkspaceId) -> Result<(), WorkspaceError> {
        self.inner.tasks.run(orphans::discard(Arc::clone(&self.inner), id.clone())).await
    }

    /// What users may take from now on; nobody loses what they have.
    pub fn set_limits(&self, limits: Limits) {
        self.inner.set_limits(limits);
    }

    /// Takes no more calls and ends all that is being done. [`Leave::Nothing`] also unmounts everything; records say that
    /// the durable ones are to be mounted at the next start. [`Leave::Everything`] is for a successor that goes on.
    pub async fn shutdown(&self, leave: Leave) {
        stop::shutdown(&self.inner, leave).await;
    }
}
