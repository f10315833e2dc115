//! What callers ask for and are shown: workspaces, their states and options, changes of them, orphans.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use crate::{
    engine::PointIdentity,
    origin::Snapshot,
    store::Pinning,
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
