//! The one error of whatever is done with workspaces.

use std::path::PathBuf;

use crate::{
    engine::{MountError, UnmountError},
    origin::ResolveError,
    types::{OriginName, WorkspaceId},
};

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
