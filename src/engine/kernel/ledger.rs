//! What this process has mounted, as far as it knows: which mounts are alive, and which roots must be kept.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use super::{session::MountedSession, survey};
use crate::{
    engine::LiveMount,
    sys::mountinfo::MountEntry,
    types::{RootId, WorkspaceId},
};

/// Mounts made by this process.
#[derive(Default)]
pub(super) struct Ledger {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    mounts: HashMap<u64, Made>,
    /// Roots under mounts that were ended lazily: somebody may still work there, unseen. Kept until the process ends;
    /// each costs some records.
    pinned: HashSet<RootId>,
}

struct Made {
    workspace: WorkspaceId,
    root: RootId,
    session: Arc<MountedSession>,
}

impl Ledger {
    pub(super) fn made(
        &self,
        mount_id: u64,
        workspace: WorkspaceId,
        root: RootId,
        session: Arc<MountedSession>,
    ) {
        self.locked(|inner| inner.mounts.insert(mount_id, Made { workspace, root, session }));
    }

    pub(super) fn ended(&self, mount_id: u64, workspace: &WorkspaceId, lazily: bool) {
        self.locked(|inner| {
            let ours = inner.mounts.get(&mount_id).is_some_and(|made| made.workspace == *workspace);
            if let Some(made) = ours.then(|| inner.mounts.remove(&mount_id)).flatten()
                && lazily
            {
                inner.pinned.insert(made.root);
            }
        });
    }

    /// Whether a mount made by this process stands on `root`, or may.
    pub(super) fn stands_on(&self, root: RootId) -> bool {
        self.locked(|inner| {
            inner.pinned.contains(&root) || inner.mounts.values().any(|made| made.root == root)
        })
    }

    /// This engine's workspaces among the entries of mountinfo. A mount is alive when it shows the superblock of one that this
    /// process made, over a session that it still serves.
    pub(super) fn survey(&self, entries: &[MountEntry], layers: &Path) -> Vec<LiveMount> {
        let of_workspace = |entry: &MountEntry| survey::own_workspace_of(entry, layers);
        self.locked(|inner| {
            let alive: HashSet<_> = entries
                .iter()
                .filter(|entry| inner.is_alive(entry.mount_id, of_workspace(entry).as_ref()))
                .map(|entry| entry.device)
                .collect();
            let live = |entry: &MountEntry| {
                Some(LiveMount {
                    workspace: of_workspace(entry)?,
                    mount_id: entry.mount_id,
                    path: entry.mount_point.clone(),
                    alive: alive.contains(&entry.device),
                })
            };
            entries.iter().filter_map(live).collect()
        })
    }

    pub(super) fn forget_all(&self) {
        self.locked(|inner| inner.mounts.clear());
    }

    fn locked<T>(&self, work: impl FnOnce(&mut Inner) -> T) -> T {
        work(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Inner {
    fn is_alive(&self, mount_id: u64, workspace: Option<&WorkspaceId>) -> bool {
        self.mounts
            .get(&mount_id)
            .is_some_and(|made| Some(&made.workspace) == workspace && !made.session.is_over())
    }
}
