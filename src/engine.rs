//! Making and ending workspace mounts: the trait, and its kernel implementation.
//!
//! - [`kernel`]: overlayfs over the shared FUSE lower
//! - [`handover`]: what a process leaves to its successor
//! - [`serve`]: the tree as answers to a FUSE session
//! - `rfuse3`: the same tree behind the traits of the crate of that name; with the feature of that name

pub mod handover;
pub mod kernel;
#[cfg(feature = "rfuse3")]
pub mod rfuse3;
pub mod serve;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use tokio::sync::Notify;

use crate::{
    dicfuse::Root,
    fusedev::SessionStats,
    sys::{
        identity::Identity,
        idmap::{Ids, Owners},
    },
    types::{RootId, WorkspaceId},
};

/// All that a mount needs to know.
#[derive(Clone, Debug)]
pub struct MountSpec {
    /// Whose mount it is; stands in mountinfo as the source `scorpio:<id>`.
    pub workspace: WorkspaceId,
    /// What it shows; already served.
    pub root: Root,
    /// The user it belongs to; the mount point is opened with these rights.
    pub owner: Identity,
    /// The ids that the owner's files have in the upper.
    pub stored: Ids,
    /// Where it goes.
    pub point: MountPoint,
    /// What is written goes here.
    pub upper: Upper,
}

/// The directory a mount covers.
#[derive(Clone, Debug)]
pub struct MountPoint {
    /// Absolute path without symlinks.
    pub path: PathBuf,
    /// On mounting again: the directory it was before; another one is refused as [`PointFault::Displaced`].
    pub expect: Option<PointIdentity>,
}

/// What identifies a mount point as the same directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PointIdentity {
    /// `st_dev`; comparable within one boot only.
    pub dev: u64,
    /// `st_ino`.
    pub ino: u64,
}

/// The writable side of a mount.
#[derive(Clone, Debug)]
pub enum Upper {
    /// Upper and work directory on one file system, below a root-only directory. `work` is fresh for every mount.
    Writable {
        /// What the user wrote.
        upper: PathBuf,
        /// overlayfs's scratch space.
        work: PathBuf,
        /// Skip fsync: for throw-away workspaces.
        volatile: bool,
    },
    /// Nothing can be written.
    ReadOnly {
        /// An empty directory that stands in for the upper: its owner and mode are the mount's root's.
        empty: PathBuf,
    },
}

/// A mount that stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mounted {
    /// Its id in mountinfo.
    pub mount_id: u64,
    /// What it covers.
    pub point: PointIdentity,
}

/// What is wrong with a mount point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PointFault {
    /// Not absolute.
    Relative,
    /// A NUL or control character, `.` or `..`, too long.
    Malformed,
    /// Nothing there.
    Missing,
    /// Not a directory.
    NotADirectory,
    /// A symlink, itself or on the way.
    Symlink,
    /// The user may not go there.
    Denied,
    /// Belongs to somebody else.
    NotOwned,
    /// Has entries.
    NotEmpty,
    /// Something is mounted there already.
    Busy,
    /// On a file system where nothing should be mounted (proc, sysfs, …).
    Filesystem,
    /// Inside a workspace.
    Nested,
    /// Not the directory it was.
    Displaced,
}

/// Why a mount was not made. Nothing of it is left behind.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The mount point will not do.
    #[error("cannot mount at {}: {reason}", path.display())]
    Point {
        /// The mount point.
        path: PathBuf,
        /// What is wrong with it.
        fault: PointFault,
        /// The same in words.
        reason: String,
    },
    /// The kernel refused a step.
    #[error("cannot mount workspace {workspace}: {step} failed: {source}")]
    Kernel {
        /// Which workspace.
        workspace: WorkspaceId,
        /// Which step.
        step: String,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// It took too long; what had been done was undone.
    #[error("mounting workspace {workspace} at {} took too long", path.display())]
    TimedOut {
        /// Which workspace.
        workspace: WorkspaceId,
        /// The mount point.
        path: PathBuf,
    },
    /// The FUSE session cannot be had.
    #[error("there is no FUSE session for workspace {workspace}: {reason}")]
    Session {
        /// Which workspace.
        workspace: WorkspaceId,
        /// Why.
        reason: String,
    },
}

/// Why a mount still stands.
#[derive(Debug, thiserror::Error)]
pub enum UnmountError {
    /// Processes use it.
    #[error("{} is in use by {}", path.display(), describe_holders(holders))]
    Busy {
        /// The mount point.
        path: PathBuf,
        /// Who uses it, as far as can be seen.
        holders: Vec<Holder>,
    },
    /// The kernel refused.
    #[error("cannot unmount {}: {source}", path.display())]
    Kernel {
        /// The mount point.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// It took too long.
    #[error("unmounting {} took too long", path.display())]
    TimedOut {
        /// The mount point.
        path: PathBuf,
    },
}

/// A process that keeps a mount busy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Process id.
    pub pid: u32,
    /// Its name.
    pub name: String,
}

fn describe_holders(holders: &[Holder]) -> String {
    if holders.is_empty() {
        return "a process that cannot be seen".to_owned();
    }
    holders.iter().map(|holder| format!("{} ({})", holder.name, holder.pid)).collect::<Vec<_>>().join(", ")
}

/// A workspace mount found in mountinfo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveMount {
    /// Whose it is.
    pub workspace: WorkspaceId,
    /// Its id in mountinfo.
    pub mount_id: u64,
    /// Where it is now.
    pub path: PathBuf,
    /// Whether the session under it is one that this process serves.
    pub alive: bool,
}

/// A FUSE session, for `stats` and `doctor`.
#[derive(Clone, Debug)]
pub struct SessionReport {
    /// Its name: `shared`, or `owner-<uid>`.
    pub name: String,
    /// Device number in `/sys/fs/fuse/connections`.
    pub connection: u32,
    /// Counters.
    pub stats: SessionStats,
    /// Fetches that waited because their user had as many under way as may be.
    pub queued: u64,
    /// How long the worker has been at one message that is longest at it; more than moments means that it hangs.
    pub busy: Duration,
}

/// Makes and ends workspace mounts.
///
/// Called by [`crate::antares`], one call at a time per workspace, many at once for different ones. None of the calls
/// touches a mount point from this process: that is done by short-lived ones, which a stuck file system can be taken
/// from.
#[async_trait]
pub trait OverlayEngine: Send + Sync + 'static {
    /// Mounts. On an error or when the future is dropped, nothing is left mounted.
    async fn mount(&self, spec: &MountSpec) -> Result<Mounted, MountError>;

    /// Ends a mount; with `lazy`, out of the name space at once and for good when the last user is gone. A mount that
    /// is not there (any more) is `Ok`.
    async fn unmount(&self, workspace: &WorkspaceId, mount_id: u64, lazy: bool) -> Result<(), UnmountError>;

    /// Ends those mounts of this engine's workspaces that nobody uses, in one go; the others stay, and none is reported. For a
    /// stop: one by one, each of a thousand would be looked up among all the others.
    async fn unmount_unused(&self);

    /// Tries whether what lies in `dir` could be shown with these owners: not every file system can be mapped.
    async fn can_show(&self, dir: &Path, owners: &Owners) -> std::io::Result<()>;

    /// Whether an overlay that may be visible nowhere still stands on `upper`: one that was unmounted lazily and has users,
    /// or was copied into another mount namespace. What it writes lands in the upper.
    async fn is_held(&self, upper: &Path) -> std::io::Result<bool>;

    /// All mounts of this engine's workspaces, also those made by an earlier process with the same runtime directory; from
    /// mountinfo alone. Mounts of other engines on the host are not among them.
    fn survey(&self) -> std::io::Result<Vec<LiveMount>>;

    /// Roots that live overlays stand on need their records; all others may be dropped.
    fn release_root(&self, root: RootId);

    /// The FUSE sessions being served.
    fn sessions(&self) -> Vec<SessionReport>;

    /// Tells whoever waits when the kernel has ended a session that was served, once for each time or for several: an
    /// administrator aborted its connection. What stands on it is dead.
    fn session_ended(&self) -> Arc<Notify> {
        Arc::default()
    }

    /// Takes away what is left of sessions that the kernel has ended: what is mounted from then on gets another one.
    async fn sweep_sessions(&self) {}

    /// Stops serving; called once. With [`Leave::Nothing`] after all mounts are gone or detached: ends all sessions. With
    /// [`Leave::Everything`] sessions and mounts stand, unanswered, until a successor goes on with them.
    async fn shutdown(&self, leave: Leave);
}

/// What stays behind when this process stops serving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    /// Nothing: the service is to be off.
    Nothing,
    /// Mounts and sessions, for a successor that follows at once.
    Everything,
}
