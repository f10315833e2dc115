//! overlayfs over the shared FUSE lower: [`KernelEngine`].
//!
//! - [`mounter`]: the process that walks users' paths and our own mounts; `launch` runs it, `handoff` tells it when
//!   nobody waits any more
//! - `sessions`, `session`: FUSE sessions, one for all or one per owner; [`super::serve`] answers their questions
//! - `heirs`, `testament`: which sessions of an earlier process are gone on with (see [`super::handover`])
//! - `places`: the engine's own directories
//! - `survey`, `ledger`, `foundations`: which mounts are workspaces, and which of them are ours and alive
//!
//! A mount passes from hand to hand like this; whatever breaks off on the way is undone before the caller hears of it:
//!
//! ```text
//! caller ──spec──► task of the engine ──order──► mounter ──► kernel
//!    ▲                    │ one at a time per workspace
//!    └──Mounted, taken────┘ not taken: the mount is ended again
//! ```
//!
//! Upper and work directories, and the empty one of a read-only mount, are made by the caller: below a directory that
//! only root can enter, the upper owned by the user and with the mode that the mount's root shall have.

mod foundations;
mod handoff;
mod heirs;
mod launch;
mod ledger;
pub mod mounter;
mod places;
mod session;
mod sessions;
mod survey;
mod testament;

pub use launch::Launcher;
pub use places::PlaceError;
pub use session::OpenError;

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;

use self::{
    foundations::Foundations,
    handoff::{Abandoned, Operation, handoff},
    launch::{LaunchError, Launches},
    ledger::Ledger,
    mounter::{
        point,
        protocol::{AbandonOrder, MountOrder, Reply, UnmountOrder, UpperOrder, Verb},
    },
    places::Places,
    session::Common,
    sessions::{Lower, Sessions},
    testament::Here,
};
use super::{
    Holder, Leave, LiveMount, MountError, MountSpec, Mounted, OverlayEngine, PointFault, PointIdentity,
    SessionReport, UnmountError, Upper, handover::Handover,
};
use crate::{
    config::{LowerKind, Replay},
    dicfuse::Dicfuse,
    fusedev::SessionLimits,
    sys::{
        idmap::{Ids, NoId, Owners},
        mountinfo::{self, MountEntry, Whose},
    },
    types::{RootId, WorkspaceId},
};

/// What the engine is made with.
#[derive(Debug)]
pub struct KernelOptions {
    /// Where sessions and layers are mounted; must exist, and only root may write to it and what is above it.
    pub runtime_dir: PathBuf,
    /// One session for all or one per owner.
    pub lower: LowerKind,
    /// How a successor gets unanswered requests.
    pub replay: Replay,
    /// Bounds of each session.
    pub limits: SessionLimits,
    /// How long making or ending one mount may take.
    pub mount_timeout: Duration,
    /// How mounters are started.
    pub launcher: Launcher,
    /// This boot.
    pub boot_id: String,
    /// What an earlier process left, and who keeps what this one will leave.
    pub handover: Handover,
}

/// Why there is no engine.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The runtime directory is not there.
    #[error("cannot use the runtime directory {}: {source}", path.display())]
    RuntimeDir {
        /// Which directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// What is noted or mounted there cannot be read.
    #[error("cannot see what an earlier process left: {0}")]
    Left(#[source] io::Error),
    /// Its name is none that overlayfs repeats in a way that can be read.
    #[error(
        "the runtime directory {} must have at most 100 bytes in its path, of letters, digits and `/._-+@`",
        path.display()
    )]
    OddName {
        /// Which directory.
        path: PathBuf,
    },
    /// Its directories cannot be had.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// The configuration wants one session for all, and it does not work here.
    #[error("one session for all users cannot be had here (try `engine.lower = \"auto\"`): {reason}")]
    NoSharedLower {
        /// Why.
        reason: String,
    },
}

/// The engine. Ends its sessions when dropped, unless they were left to a successor; overlays that stand on them then
/// give ENOTCONN.
pub struct KernelEngine {
    inner: Arc<Inner>,
    runtime: tokio::runtime::Handle,
}

struct Inner {
    // In this order they are dropped: sessions leave their places before these go.
    ledger: Ledger,
    sessions: Sessions,
    places: Mutex<Option<Places>>,
    layers: PathBuf,
    launches: Launches,
    dicfuse: Dicfuse,
    turns: Mutex<HashMap<WorkspaceId, Turn>>,
}

/// Who holds it may work on a workspace's mount.
type Turn = Arc<tokio::sync::Mutex<()>>;

impl KernelEngine {
    /// Prepares directories and sessions, and goes on with those that an earlier process left. Blocks for some
    /// milliseconds: not for an async task. What is mounted in the runtime directory and not gone on with is detached.
    pub fn new(
        mut options: KernelOptions,
        dicfuse: Dicfuse,
        runtime: tokio::runtime::Handle,
    ) -> Result<KernelEngine, KernelError> {
        let runtime_dir = std::fs::canonicalize(&options.runtime_dir)
            .map_err(|source| KernelError::RuntimeDir { path: options.runtime_dir.clone(), source })?;
        // With the name of a layer in it.
        if !survey::is_plain(&runtime_dir.join("layers").join("x".repeat(WorkspaceId::LEN))) {
            return Err(KernelError::OddName { path: runtime_dir });
        }
        let heirs = heirs_of(&mut options, &dicfuse, &runtime_dir)?;
        let survivors: Vec<&str> = heirs.iter().map(|heir| heir.testament.name.as_str()).collect();
        let places = Places::prepare(&runtime_dir, &survivors)?;
        let foundations = Foundations::open(&Places::foundations_of(&runtime_dir))?;
        if heirs.is_empty() {
            foundations.clear().map_err(KernelError::Left)?;
        }
        let launches = Launches::new(options.launcher, options.mount_timeout, runtime.clone());
        let common = Common {
            below: places.sessions.clone(),
            limits: options.limits,
            replay: options.replay,
            runtime: runtime.clone(),
            keeper: options.handover.keeper,
            boot_id: options.boot_id,
            table: dicfuse.identity(),
        };
        let sessions = Sessions::start(options.lower, common, dicfuse.clone(), heirs, &launches)?;
        let entries = mountinfo::read(Whose::Own).map_err(KernelError::Left)?;
        let ledger = match Ledger::open(foundations, &entries, &places.layers, |name| sessions.find(name)) {
            Ok(ledger) => ledger,
            Err(error) => {
                // Another start may go on with them.
                sessions.close(Leave::Everything);
                places.leave();
                return Err(KernelError::Left(error));
            }
        };
        let inner = Inner {
            ledger,
            sessions,
            layers: places.layers.clone(),
            places: Mutex::new(Some(places)),
            launches,
            dicfuse,
            turns: Mutex::default(),
        };
        Ok(KernelEngine { inner: Arc::new(inner), runtime })
    }
}

fn heirs_of(
    options: &mut KernelOptions,
    dicfuse: &Dicfuse,
    runtime_dir: &Path,
) -> Result<Vec<heirs::Heir>, KernelError> {
    let mounts = mountinfo::read(Whose::Own).map_err(KernelError::Left)?;
    let sessions = Places::sessions_of(runtime_dir);
    let boot_id = options.boot_id.clone();
    let here = Here { boot_id: &boot_id, table: dicfuse.identity(), sessions: &sessions, mounts: &mounts };
    Ok(heirs::of(&mut options.handover, &here))
}

#[async_trait]
impl OverlayEngine for KernelEngine {
    async fn mount(&self, spec: &MountSpec) -> Result<Mounted, MountError> {
        if let Err((fault, reason)) = point::check_text(&spec.point.path) {
            return Err(MountError::Point {
                path: spec.point.path.clone(),
                fault,
                reason: reason.to_owned(),
            });
        }
        let failed = |source| kernel_error(&spec.workspace, "starting the operation", source);
        let (caller, operation) = handoff().map_err(failed)?;
        self.runtime.spawn(Arc::clone(&self.inner).mount(spec.clone(), operation));
        caller.wait().await.unwrap_or_else(|| Err(failed(io::Error::other("the operation was cut off"))))
    }

    async fn unmount(&self, workspace: &WorkspaceId, mount_id: u64, lazy: bool) -> Result<(), UnmountError> {
        // A task of its own: once begun it is brought to its end, whoever waits.
        let work = Arc::clone(&self.inner).unmount(workspace.clone(), mount_id, lazy);
        self.runtime.spawn(work).await.unwrap_or_else(|stopped| {
            Err(UnmountError::Kernel { path: PathBuf::new(), source: io::Error::other(stopped) })
        })
    }

    async fn unmount_unused(&self) {
        let verb = Verb::Sweep { layers: self.inner.layers.clone() };
        match self.inner.launches.run(verb, None, None).await {
            Ok(Reply::Done) => {}
            other => tracing::warn!(outcome = ?other, "workspaces are unmounted one by one"),
        }
    }

    async fn can_show(&self, dir: &Path, owners: &Owners) -> io::Result<()> {
        let verb = Verb::Show { dir: dir.to_owned(), owners: owners.into() };
        match understand_question(self.inner.launches.run(verb, None, None).await)? {
            Reply::Done => Ok(()),
            other => Err(io::Error::other(format!("the mounter answered {other:?}"))),
        }
    }

    async fn is_held(&self, upper: &Path) -> io::Result<bool> {
        let verb = Verb::Held { upper: upper.to_owned(), layers: self.inner.layers.clone() };
        match understand_question(self.inner.launches.run(verb, None, None).await)? {
            Reply::Done => Ok(false),
            Reply::Held => Ok(true),
            other => Err(io::Error::other(format!("the mounter answered {other:?}"))),
        }
    }

    fn survey(&self) -> io::Result<Vec<LiveMount>> {
        Ok(self.inner.ledger.survey(&mountinfo::read(Whose::Own)?, &self.inner.layers))
    }

    fn release_root(&self, root: RootId) {
        if self.inner.ledger.stands_on(root) {
            tracing::debug!(%root, "a root is kept: a mount stands on it, or may");
        } else if let Err(error) = self.inner.dicfuse.drop_root(root) {
            tracing::warn!(%root, %error, "the records of a root stay");
        }
    }

    fn sessions(&self) -> Vec<SessionReport> {
        self.inner.sessions.reports()
    }

    async fn shutdown(&self, leave: Leave) {
        let inner = Arc::clone(&self.inner);
        let close = move || {
            match leave {
                Leave::Nothing => inner.ledger.forget_all(),
                Leave::Everything => inner.ledger.leave(),
            }
            inner.sessions.close(leave);
            let places = inner.places.lock().unwrap_or_else(PoisonError::into_inner).take();
            match leave {
                Leave::Nothing => drop(places),
                Leave::Everything => places.into_iter().for_each(Places::leave),
            }
        };
        if let Err(error) = self.runtime.spawn_blocking(close).await {
            tracing::warn!(%error, "the sessions may not have ended");
        }
    }
}

impl Inner {
    async fn mount(self: Arc<Inner>, spec: MountSpec, operation: Operation<Result<Mounted, MountError>>) {
        let turn = self.turn(&spec.workspace);
        let _turn = turn.lock().await;
        let result = self.make(&spec, operation.abandoned.clone()).await;
        let mounted = result.as_ref().ok().copied();
        if !operation.finish(result).await
            && let Some(mounted) = mounted
        {
            tracing::info!(scorpio_workspace = %spec.workspace, "nobody waits for a mount any more: ending it");
            self.abandon(&spec.workspace).await;
            self.ledger.ended(mounted.mount_id, &spec.workspace, true);
        }
    }

    async fn make(self: &Arc<Inner>, spec: &MountSpec, abandoned: Abandoned) -> Result<Mounted, MountError> {
        // Whatever fails from here on ends all mounts of the workspace: there must be none yet.
        refuse_second(spec)?;
        let lower = self.lower_for(spec).await?;
        let noted = self.ledger.begin(&spec.workspace, spec.root.id, &lower.session);
        noted.map_err(|source| kernel_error(&spec.workspace, "noting what it stands on", source))?;
        let order = self
            .order(spec, &lower)
            .map_err(|error| kernel_error(&spec.workspace, "reading the owners", io::Error::other(error)))?;
        let verb = Verb::Mount(Box::new(order));
        let reply = self.launches.run(verb, Some(spec.owner.uid), Some(abandoned)).await;
        let result = understand_mount(reply, spec);
        match &result {
            Ok(mounted) => {
                self.ledger.made(mounted.mount_id, spec.workspace.clone(), spec.root.id, lower.session);
            }
            // The mounter itself says what is wrong with a point, and then it has made nothing.
            Err(MountError::Point { .. }) => self.ledger.failed(&spec.workspace),
            Err(_) => {
                self.abandon(&spec.workspace).await;
                self.ledger.failed(&spec.workspace);
            }
        }
        result
    }

    async fn lower_for(self: &Arc<Inner>, spec: &MountSpec) -> Result<Lower, MountError> {
        let (inner, owner) = (Arc::clone(self), spec.owner.clone());
        let found = tokio::task::spawn_blocking(move || inner.sessions.lower_for(&owner)).await;
        let failed = |reason: String| MountError::Session { workspace: spec.workspace.clone(), reason };
        match found {
            Ok(found) => found.map_err(|error| failed(error.to_string())),
            Err(stopped) => Err(failed(stopped.to_string())),
        }
    }

    fn order(&self, spec: &MountSpec, lower: &Lower) -> Result<MountOrder, NoId> {
        Ok(MountOrder {
            owners: (&Owners::new(spec.stored, Ids::from(&spec.owner))?).into(),
            workspace: spec.workspace.to_string(),
            owner: (&spec.owner).into(),
            point: spec.point.path.clone(),
            expect: spec.point.expect.map(|expect| (expect.dev, expect.ino)),
            lower: lower.session.path().join(spec.root.id.to_string()),
            map_owner: lower.map_owner,
            layers: self.layers.clone(),
            upper: match spec.upper.clone() {
                Upper::Writable { upper, work, volatile } => UpperOrder::Writable { upper, work, volatile },
                Upper::ReadOnly { empty } => UpperOrder::ReadOnly { empty },
            },
        })
    }

    /// Ends whatever an operation left that did not come to its end.
    async fn abandon(&self, workspace: &WorkspaceId) {
        let order = AbandonOrder { workspace: workspace.to_string(), layers: self.layers.clone() };
        match self.launches.run(Verb::Abandon(order), None, None).await {
            Ok(Reply::Done) => {}
            other => {
                tracing::warn!(scorpio_workspace = %workspace, outcome = ?other, "a failed mount may have left something");
            }
        }
    }

    async fn unmount(
        self: Arc<Inner>,
        workspace: WorkspaceId,
        mount_id: u64,
        lazy: bool,
    ) -> Result<(), UnmountError> {
        let turn = self.turn(&workspace);
        let _turn = turn.lock().await;
        let Some(path) = path_of(&workspace, mount_id)? else {
            // Ended behind our back, maybe lazily.
            self.ledger.ended(mount_id, &workspace, true);
            return Ok(());
        };
        let order = UnmountOrder { workspace: workspace.to_string(), mount_id, lazy };
        let reply = self.launches.run(Verb::Unmount(order), None, None).await;
        understand_unmount(reply, path)?;
        self.ledger.ended(mount_id, &workspace, lazy);
        Ok(())
    }

    fn turn(&self, workspace: &WorkspaceId) -> Turn {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        Arc::clone(turns.entry(workspace.clone()).or_default())
    }
}

/// Two overlays on one upper directory would spoil each other.
fn refuse_second(spec: &MountSpec) -> Result<(), MountError> {
    let entries = mountinfo::read(Whose::Own)
        .map_err(|source| kernel_error(&spec.workspace, "reading mountinfo", source))?;
    let ours = |entry: &&MountEntry| survey::workspace_of(entry).as_ref() == Some(&spec.workspace);
    entries.iter().find(ours).map_or(Ok(()), |entry| {
        let reason = format!("the workspace is mounted already, at {}", entry.mount_point.display());
        Err(MountError::Point { path: spec.point.path.clone(), fault: PointFault::Busy, reason })
    })
}

fn path_of(workspace: &WorkspaceId, mount_id: u64) -> Result<Option<PathBuf>, UnmountError> {
    let entries = mountinfo::read(Whose::Own)
        .map_err(|source| UnmountError::Kernel { path: "/proc/self/mountinfo".into(), source })?;
    let named = entries.into_iter().find(|entry| entry.mount_id == mount_id);
    let ours = named.filter(|entry| survey::workspace_of(entry).as_ref() == Some(workspace));
    Ok(ours.map(|entry| entry.mount_point))
}

fn understand_mount(reply: Result<Reply, LaunchError>, spec: &MountSpec) -> Result<Mounted, MountError> {
    let path = || spec.point.path.clone();
    match reply {
        Ok(Reply::Mounted { mount_id, dev, ino }) => {
            Ok(Mounted { mount_id, point: PointIdentity { dev, ino } })
        }
        Ok(Reply::Point { fault, reason }) => Err(MountError::Point { path: path(), fault, reason }),
        Ok(Reply::Failed { step, errno, message }) => {
            Err(kernel_error(&spec.workspace, &step, io_error(errno, message)))
        }
        Ok(other @ (Reply::Done | Reply::Held | Reply::Busy { .. })) => {
            let wrong = io::Error::other(format!("it answered {other:?}"));
            Err(kernel_error(&spec.workspace, "asking the mounter", wrong))
        }
        Err(LaunchError::TimedOut { .. } | LaunchError::Abandoned) => {
            Err(MountError::TimedOut { workspace: spec.workspace.clone(), path: path() })
        }
        Err(error) => Err(kernel_error(&spec.workspace, "running the mounter", io::Error::other(error))),
    }
}

fn understand_unmount(reply: Result<Reply, LaunchError>, path: PathBuf) -> Result<(), UnmountError> {
    match reply {
        Ok(Reply::Done) => Ok(()),
        Ok(Reply::Busy { path, holders }) => {
            let holders =
                holders.into_iter().map(|holder| Holder { pid: holder.pid, name: holder.name }).collect();
            Err(UnmountError::Busy { path, holders })
        }
        Ok(Reply::Failed { errno, message, .. }) => {
            Err(UnmountError::Kernel { path, source: io_error(errno, message) })
        }
        Ok(other @ (Reply::Mounted { .. } | Reply::Held | Reply::Point { .. })) => {
            Err(UnmountError::Kernel {
                path,
                source: io::Error::other(format!("the mounter answered {other:?}")),
            })
        }
        Err(LaunchError::TimedOut { .. } | LaunchError::Abandoned) => Err(UnmountError::TimedOut { path }),
        Err(error) => Err(UnmountError::Kernel { path, source: io::Error::other(error) }),
    }
}

/// The answer to a question, or the step that failed.
fn understand_question(reply: Result<Reply, LaunchError>) -> io::Result<Reply> {
    match reply {
        Ok(Reply::Failed { step, errno, message }) => {
            let kind = io_error(errno, String::new()).kind();
            Err(io::Error::new(kind, format!("{step}: {message}")))
        }
        Ok(reply) => Ok(reply),
        Err(error) => Err(io::Error::other(error)),
    }
}

fn kernel_error(workspace: &WorkspaceId, step: &str, source: io::Error) -> MountError {
    MountError::Kernel { workspace: workspace.clone(), step: step.to_owned(), source }
}

fn io_error(errno: Option<i32>, message: String) -> io::Error {
    errno.map_or_else(|| io::Error::other(message), io::Error::from_raw_os_error)
}

/// Whether `path` can be a mount point at all, judged by its text: absolute, at most 4095 bytes, no control characters,
/// no `.`, `..`, `//` or trailing slash.
pub fn check_mount_point_text(path: &Path) -> Result<(), (PointFault, &'static str)> {
    point::check_text(path)
}
