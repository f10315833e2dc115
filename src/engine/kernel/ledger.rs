//! What is mounted, as far as this process knows: which mounts are alive, and which roots must be kept. Starts with what
//! the process before has noted in [`super::foundations`].

use std::{
    collections::{HashMap, HashSet},
    io,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use super::{
    foundations::{Foundation, Foundations},
    session::MountedSession,
    survey,
};
use crate::{
    engine::LiveMount,
    sys::mountinfo::MountEntry,
    types::{RootId, WorkspaceId},
};

/// Mounts over sessions that this process serves.
pub(super) struct Ledger {
    foundations: Foundations,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    mounts: HashMap<u64, Made>,
    /// Roots under mounts that were ended lazily: somebody may still work there, unseen. Kept until no session is left;
    /// each costs some records.
    pinned: HashSet<RootId>,
}

struct Made {
    workspace: WorkspaceId,
    root: RootId,
    session: Arc<MountedSession>,
}

impl Ledger {
    /// Takes up what is noted, as far as `session` finds what it stands on, and forgets the rest.
    pub(super) fn open(
        foundations: Foundations,
        entries: &[MountEntry],
        layers: &Path,
        session: impl Fn(&str) -> Option<Arc<MountedSession>>,
    ) -> io::Result<Ledger> {
        let recorded = foundations.all()?;
        let ledger = Ledger { foundations, inner: Mutex::default() };
        ledger.locked(|inner| inner.pinned = recorded.pinned);
        let of_workspace = |entry| Some((survey::own_workspace_of(entry, layers)?, entry.mount_id));
        let mounted: Vec<_> = entries.iter().filter_map(of_workspace).collect();
        for (workspace, foundation) in recorded.mounts {
            let served = session(&foundation.session).filter(|s| s.device() == Some(foundation.device));
            match served {
                Some(session) => ledger.take_up(&workspace, &foundation, &session, &mounted),
                None => ledger.foundations.remove(&workspace),
            }
        }
        Ok(ledger)
    }

    fn take_up(
        &self,
        workspace: &WorkspaceId,
        foundation: &Foundation,
        session: &Arc<MountedSession>,
        mounted: &[(WorkspaceId, u64)],
    ) {
        let root = foundation.root;
        let mut own =
            mounted.iter().filter(|(id, _)| id == workspace).map(|(_, mount_id)| *mount_id).peekable();
        if own.peek().is_none() {
            // Ended while nobody looked, maybe lazily.
            self.locked(|inner| inner.pin(root, &self.foundations));
            self.foundations.remove(workspace);
        }
        for mount_id in own {
            self.made(mount_id, workspace.clone(), root, Arc::clone(session));
        }
    }

    /// A mount of `workspace` is about to be made.
    pub(super) fn begin(
        &self,
        workspace: &WorkspaceId,
        root: RootId,
        session: &MountedSession,
    ) -> io::Result<()> {
        let unknown = || io::Error::other("the session's connection is unknown");
        let device = session.device().ok_or_else(unknown)?;
        self.foundations.record(workspace, &Foundation { session: session.name().to_owned(), device, root })
    }

    /// It has failed, and nothing of it is left.
    pub(super) fn failed(&self, workspace: &WorkspaceId) {
        self.foundations.remove(workspace);
    }

    pub(super) fn made(
        &self,
        mount_id: u64,
        workspace: WorkspaceId,
        root: RootId,
        session: Arc<MountedSession>,
    ) {
        self.locked(|inner| inner.mounts.insert(mount_id, Made { workspace, root, session }));
    }

    /// All mounts of the superblock that `mount_id` showed are gone; a workspace never has two of ours.
    pub(super) fn ended(&self, mount_id: u64, workspace: &WorkspaceId, lazily: bool) {
        self.locked(|inner| {
            let made = inner.mounts.get(&mount_id).filter(|made| made.workspace == *workspace);
            let Some(root) = made.map(|made| made.root) else { return };
            inner.mounts.retain(|_, made| made.workspace != *workspace);
            if lazily {
                inner.pin(root, &self.foundations);
            }
            self.foundations.remove(workspace);
        });
    }

    /// Whether a mount stands on `root`, or may.
    pub(super) fn stands_on(&self, root: RootId) -> bool {
        self.locked(|inner| {
            inner.pinned.contains(&root) || inner.mounts.values().any(|made| made.root == root)
        })
    }

    /// This engine's workspaces among the entries of mountinfo. A mount is alive when it shows the superblock of one that
    /// this process made or took up, over a session that it still serves.
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

    /// Lets go of the sessions; what is noted is left to a successor.
    pub(super) fn leave(&self) {
        self.locked(|inner| inner.mounts.clear());
    }

    /// No session is left for anything to stand on.
    pub(super) fn forget_all(&self) {
        self.leave();
        if let Err(error) = self.foundations.clear() {
            tracing::warn!(%error, "notes of what mounts stood on stay; the next start removes them");
        }
    }

    fn locked<T>(&self, work: impl FnOnce(&mut Inner) -> T) -> T {
        work(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Inner {
    fn pin(&mut self, root: RootId, foundations: &Foundations) {
        if self.pinned.insert(root) {
            foundations.pin(root);
        }
    }

    fn is_alive(&self, mount_id: u64, workspace: Option<&WorkspaceId>) -> bool {
        self.mounts
            .get(&mount_id)
            .is_some_and(|made| Some(&made.workspace) == workspace && !made.session.is_over())
    }
}
