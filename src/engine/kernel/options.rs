//! [`KernelOptions`]: what the engine is made with; [`KernelError`]: why there is none.

use std::{io, path::PathBuf, time::Duration};

use super::{Launcher, PlaceError};
use crate::{
    config::{LowerKind, Replay},
    engine::handover::Handover,
    fusedev::SessionLimits,
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
    /// Fetches from one origin that each user may have under way.
    pub fetches_per_user: usize,
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
