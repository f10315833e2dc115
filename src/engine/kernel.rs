//! overlayfs over the shared FUSE lower: [`KernelEngine`].
//!
//! - [`mounter`]: the process that walks users' paths and our own mounts; `launch` runs it, `handoff` tells it when
//!   nobody waits any more
//! - `sessions`, `session`: FUSE sessions, one for all or one per owner; [`super::serve`] answers their questions
//! - `heirs`, `testament`: which sessions of an earlier process are gone on with (see [`super::handover`])
//! - `inner`: the tasks that make and end mounts; `outcome`: what a mounter's answer means to whoever asked
//! - `options`: what the engine is made with, and why there is none
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
mod inner;
mod launch;
mod ledger;
pub mod mounter;
mod options;
mod outcome;
mod places;
mod session;
mod sessions;
mod survey;
mod testament;

pub use launch::Launcher;
pub use options::{KernelError, KernelOptions};
pub use places::PlaceError;
pub use session::OpenError;

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use tokio::sync::Notify;

use self::{
    foundations::Foundations,
    handoff::handoff,
    inner::Inner,
    launch::Launches,
    ledger::Ledger,
    mounter::{
        point,
        protocol::{Reply, Verb},
    },
    outcome::kernel_error,
    places::Places,
    session::Common,
    sessions::Sessions,
    testament::Here,
};
use super::{
    Leave, LiveMount, MountError, MountSpec, Mounted, OverlayEngine, PointFault, SessionReport, UnmountError,
};
use crate::{
    dicfuse::Dicfuse,
    sys::{
        idmap::Owners,
        mountinfo::{self, Whose},
    },
    types::{RootId, WorkspaceId},
};

/// The engine. Ends its sessions when dropped, unless they were left to a successor; overlays that stand on them then
/// give ENOTCONN.
pub struct KernelEngine {
    inner: Arc<Inner>,
    runtime: tokio::runtime::Handle,
}

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
            fetches_per_user: options.fetches_per_user,
            replay: options.replay,
            runtime: runtime.clone(),
            keeper: options.handover.keeper,
            boot_id: options.boot_id,
            table: dicfuse.identity(),
            ended: Arc::default(),
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
        match outcome::answer(self.inner.launches.run(verb, None, None).await)? {
            Reply::Done => Ok(()),
            other => Err(io::Error::other(format!("the mounter answered {other:?}"))),
        }
    }

    async fn is_held(&self, upper: &Path) -> io::Result<bool> {
        let verb = Verb::Held { upper: upper.to_owned(), layers: self.inner.layers.clone() };
        match outcome::answer(self.inner.launches.run(verb, None, None).await)? {
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

    fn session_ended(&self) -> Arc<Notify> {
        self.inner.sessions.ended()
    }

    async fn sweep_sessions(&self) {
        let inner = Arc::clone(&self.inner);
        if let Err(error) = self.runtime.spawn_blocking(move || inner.sessions.sweep()).await {
            tracing::warn!(%error, "what is left of an ended session stays");
        }
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

/// Whether `path` can be a mount point at all, judged by its text: absolute, at most 4095 bytes, no control characters,
/// no `.`, `..`, `//` or trailing slash.
pub fn check_mount_point_text(path: &Path) -> Result<(), (PointFault, &'static str)> {
    point::check_text(path)
}
