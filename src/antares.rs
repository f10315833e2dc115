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
//! - [`table`], [`roots`], [`tasks`], [`options`]: who is there, what they stand on, who acts, what may be asked for
//!
//! Killed at any moment, the next start finishes or undoes: a record that says `Creating` was never acknowledged and
//! goes (unless something was written), one that says `Mounting` or `Mounted` is mounted again, a record in the trash
//! takes its upper with it, and whoever a record names is the owner. No changes of a durable workspace are ever deleted
//! without the word of a user for it.

mod disk;
mod drain;
mod driver;
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

pub use usage::Budget;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use self::{
    disk::Disk,
    drain::Drain,
    inner::{Hook, Inner},
    roots::{RootTable, Roots},
};
use crate::{
    config::Limits,
    dicfuse::Dicfuse,
    engine::{Leave, MountError, OverlayEngine, PointIdentity, UnmountError},
    origin::{ResolveError, Snapshot},
    store::{ObjectStore, Pinning},
    sys::{
        identity::Identity,
        idmap::{Ids, Owners},
    },
    types::{OriginName, RepoPath, WorkspaceId},
};

/// Where a workspace stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Being mounted.
    Mounting,
    /// There, and usable.
    Mounted,
    /// Not mounted; its upper is kept.
    Unmounted,
    /// Its mount point is not the directory it was; not mounted, upper kept.
    Displaced {
        /// What was found instead.
        reason: String,
    },
    /// Could not be mounted again; upper kept.
    Failed {
        /// Why.
        reason: String,
    },
    /// Being taken away for good.
    Removing,
}

/// What a user asks for.
#[derive(Clone, Debug)]
pub struct Create {
    /// Which origin.
    pub origin: OriginName,
    /// Branch, tag or commit; the origin's default when `None`.
    pub rev: Option<String>,
    /// Directory of the origin.
    pub path: RepoPath,
    /// Where to mount.
    pub mount_point: PathBuf,
    /// What kind of workspace.
    pub options: Options,
}

/// What kind of workspace it is.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Options {
    /// Thrown away, with all that was written, when it is unmounted, the service stops or its mount is lost.
    pub ephemeral: bool,
    /// Nothing can be written.
    pub read_only: bool,
    /// Free-form marks to find it by: at most 16, keys and values of at most 128 bytes.
    pub labels: BTreeMap<String, String>,
    /// Ends by itself after this time: an ephemeral one is removed, a durable one unmounted with its upper kept.
    pub ttl: Option<Duration>,
    /// Permission bits of the mount's root directory: 0700 unless set.
    pub mode: Option<u32>,
}

/// To whom a workspace goes.
#[derive(Clone, Debug)]
pub struct Gift {
    /// The recipient, as the account database has them.
    pub to: Identity,
    /// Who gives it, for the journal.
    pub by: u32,
}

/// A workspace as others see it.
#[derive(Clone, Debug, PartialEq)]
pub struct Workspace {
    /// Its id.
    pub id: WorkspaceId,
    /// Whose it is.
    pub owner: Identity,
    /// The ids that the owner's files have in the upper.
    pub stored: Ids,
    /// Where its history lives.
    pub origin: OriginName,
    /// What it stands on.
    pub snapshot: Snapshot,
    /// The revision as it was asked for.
    pub rev: Option<String>,
    /// Where it is mounted, or was.
    pub mount_point: PathBuf,
    /// The directory it covers.
    pub point: Option<PointIdentity>,
    /// Where it stands.
    pub state: State,
    /// Its id in mountinfo while mounted.
    pub mount_id: Option<u64>,
    /// What kind it is.
    pub options: Options,
    /// When it was made.
    pub created: SystemTime,
    /// When it ends by itself.
    pub expires: Option<SystemTime>,
    /// Where what was written lies.
    pub upper: PathBuf,
    /// How far the fetching of all its trees has come, where they can be had for some time only.
    pub pinning: Option<Pinning>,
}

impl Workspace {
    /// The ids of its files, on disk and in its mount; `None` where one of them is none that a file can have.
    pub fn owners(&self) -> Option<Owners> {
        Owners::new(self.stored, Ids::from(&self.owner)).ok()
    }
}

/// How much lies in an upper.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes that it takes on its file system.
    pub bytes: u64,
    /// Files, directories, deletions: whatever takes an inode, each once. One at least where there is an upper: itself.
    pub inodes: u64,
    /// Why there may be more than that; `None` where all was counted.
    pub partial: Option<String>,
}

/// That no user gets a new mount; since when and by whom, as far as that can be told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Draining {
    /// Since when, in whole seconds.
    pub since: Option<SystemTime>,
    /// Which user wanted it.
    pub by: Option<u32>,
}

/// A directory among the uppers that no record speaks for, or a record whose upper is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Orphan {
    /// Its name among the uppers.
    pub id: WorkspaceId,
    /// Where it lies.
    pub path: PathBuf,
    /// Owner of the upper.
    pub uid: u32,
    /// Why it is an orphan.
    pub reason: String,
}

/// Why a workspace did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum WorkspaceError {
    /// No origin has this name, or the caller may not mount it: the two look alike from outside.
    #[error("there is no origin `{0}` that you may mount")]
    NoSuchOrigin(OriginName),
    /// The revision or path leads to nothing.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// No workspace has this id, or it is somebody else's: the two look alike from outside.
    #[error("there is no workspace {0}")]
    NoSuchWorkspace(WorkspaceId),
    /// Too many.
    #[error("{whose} has {have} workspaces, and no more than {limit} are allowed")]
    Limit {
        /// `user 1000` or `this host`.
        whose: String,
        /// How many there are.
        have: usize,
        /// How many there may be.
        limit: usize,
    },
    /// A label, mode or time that will not do.
    #[error("{0}")]
    BadOption(String),
    /// Not in this state.
    #[error("workspace {id} is {state}; {hint}")]
    WrongState {
        /// Which one.
        id: WorkspaceId,
        /// Its state, in words.
        state: String,
        /// What to do.
        hint: String,
    },
    /// It holds changes that nobody said may go.
    #[error("workspace {0} holds changes")]
    UnsavedChanges(WorkspaceId),
    /// A mount of it lives on where mountinfo does not show it.
    #[error(
        "workspace {0} is in use: a process is left in a mount of it that was detached, or keeps a copy of one in a mount namespace of its own"
    )]
    Held(WorkspaceId),
    /// The mount failed.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// The unmount failed.
    #[error(transparent)]
    Unmount(#[from] UnmountError),
    /// State could not be kept.
    #[error("cannot {action} {}: {source}", path.display())]
    Disk {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The tree could not be served.
    #[error("the tree cannot be served: {0}")]
    Tree(String),
    /// The daemon is on its way out.
    #[error("the daemon is stopping")]
    Stopping,
    /// An administrator wants no new mounts.
    #[error("this host is being drained: it takes no new mounts")]
    Draining,
}

/// A change of a workspace, for those who watch.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Which one.
    pub id: WorkspaceId,
    /// What it is now; `None` when it is gone.
    pub workspace: Option<Workspace>,
}

/// Whose workspaces a call may see and touch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Those of this user.
    User(u32),
    /// All of them.
    Everybody,
}

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
