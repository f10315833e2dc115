//! A workspace as it lies on disk, for saving its changes while no daemon runs.

use std::path::{Path, PathBuf};

use super::{
    WorkspaceError,
    disk::{Disk, FoundRecord, FoundUpper},
};
use crate::{
    origin::Snapshot,
    sys::idmap::{Ids, Owners},
    types::{OriginName, WorkspaceId},
};

/// What is left of a workspace.
#[derive(Clone, Debug)]
pub struct Saved {
    /// Where what was written lies.
    pub upper: PathBuf,
    /// The ids of its files on disk and in its mount, where that is known.
    pub owners: Option<Owners>,
    /// What it stands on, or why nobody can tell.
    pub base: Result<(OriginName, Snapshot), String>,
}

/// Looks for the workspace `id`; a damaged or missing record does not hide its upper.
pub fn look(state_dir: &Path, upper_root: &Path, id: &WorkspaceId) -> Result<Saved, WorkspaceError> {
    let disk = Disk::open(state_dir, upper_root)?;
    if disk.upper(id) == FoundUpper::Missing {
        return Err(WorkspaceError::NoSuchWorkspace(id.clone()));
    }
    let (owners, base) = match disk.read(id) {
        FoundRecord::Good(record) => {
            let owners = Owners::new(record.stored, Ids::from(&record.owner)).ok();
            (owners, Ok((record.origin, record.snapshot)))
        }
        FoundRecord::Missing => (None, Err("it has no record".to_owned())),
        FoundRecord::Bad(bad) => (None, Err(bad.to_string())),
    };
    Ok(Saved { upper: disk.upper_path(id), owners, base })
}
