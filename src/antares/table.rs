//! All workspaces of this host: who is there, how many, and what others see of them. Never waits.
//!
//! Lock order: an entry's `core` may be held while the table or a view is locked, never the other way round; table and
//! view locks are held for a few instructions only.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rustix::rand::{GetRandomFlags, getrandom};
use tokio::time::Instant;

use super::{Scope, Workspace, WorkspaceError, driver::Core};
use crate::{config::Limits, types::WorkspaceId};

/// One workspace, or the place of one that is being made.
pub(super) struct Entry {
    pub(super) id: WorkspaceId,
    owner: Mutex<Owner>,
    /// Whoever holds this acts on the workspace; `None` before it exists and when it is gone.
    pub(super) core: Arc<tokio::sync::Mutex<Option<Core>>>,
    view: Mutex<Option<Workspace>>,
    deadline: Mutex<Option<Instant>>,
}

/// Whose a workspace is, and whose it is about to be: it counts for both.
#[derive(Clone, Copy)]
struct Owner {
    uid: u32,
    promised: Option<u32>,
}

impl Entry {
    pub(super) fn new(id: WorkspaceId, uid: u32) -> Entry {
        let owner = Mutex::new(Owner { uid, promised: None });
        Entry { id, owner, core: Arc::default(), view: Mutex::new(None), deadline: Mutex::new(None) }
    }

    /// Whose it is.
    pub(super) fn uid(&self) -> u32 {
        lock(&self.owner).uid
    }

    /// From now on it is another user's.
    pub(super) fn belongs_to(&self, uid: u32) {
        lock(&self.owner).uid = uid;
    }

    fn counts_for(&self, uid: u32) -> bool {
        let owner = *lock(&self.owner);
        owner.uid == uid || owner.promised == Some(uid)
    }

    /// What others see; `None` before the workspace is announced.
    pub(super) fn view(&self) -> Option<Workspace> {
        lock(&self.view).clone()
    }

    pub(super) fn show(&self, workspace: Option<Workspace>) {
        *lock(&self.view) = workspace;
    }

    /// When it ends by itself.
    pub(super) fn deadline(&self) -> Option<Instant> {
        *lock(&self.deadline)
    }

    pub(super) fn set_deadline(&self, deadline: Option<Instant>) {
        *lock(&self.deadline) = deadline;
    }
}

/// A workspace counts for a user whose it is not yet, until this is dropped.
pub(super) struct Promise {
    entry: Arc<Entry>,
}

impl Drop for Promise {
    fn drop(&mut self) {
        lock(&self.entry.owner).promised = None;
    }
}

/// All entries, by id.
#[derive(Default)]
pub(super) struct Table {
    entries: Mutex<BTreeMap<WorkspaceId, Arc<Entry>>>,
}

impl Table {
    /// Takes the place `id` for a workspace of `uid`, within the limits; `None` when it is taken. Looking, counting and
    /// taking are one step.
    pub(super) fn reserve(
        &self,
        id: WorkspaceId,
        uid: u32,
        limits: Option<&Limits>,
    ) -> Result<Option<Arc<Entry>>, WorkspaceError> {
        let mut entries = lock(&self.entries);
        if entries.contains_key(&id) {
            return Ok(None);
        }
        if let Some(limits) = limits {
            within_users(&entries, uid, limits)?;
            within("this host".to_owned(), entries.len(), limits.workspaces_per_host)?;
        }
        let entry = Arc::new(Entry::new(id.clone(), uid));
        entries.insert(id, Arc::clone(&entry));
        Ok(Some(entry))
    }

    /// Counts `entry` for `uid` too, within the limit. Whoever does this holds the entry's core.
    pub(super) fn promise(
        &self,
        entry: &Arc<Entry>,
        uid: u32,
        limits: &Limits,
    ) -> Result<Promise, WorkspaceError> {
        let entries = lock(&self.entries);
        within_users(&entries, uid, limits)?;
        lock(&entry.owner).promised = Some(uid);
        Ok(Promise { entry: Arc::clone(entry) })
    }

    /// Takes up a workspace that was there before, whatever the limits say today.
    pub(super) fn insert(&self, entry: Arc<Entry>) {
        lock(&self.entries).insert(entry.id.clone(), entry);
    }

    pub(super) fn remove(&self, id: &WorkspaceId) {
        lock(&self.entries).remove(id);
    }

    pub(super) fn contains(&self, id: &WorkspaceId) -> bool {
        lock(&self.entries).contains_key(id)
    }

    /// The announced workspace `id`, if it is in `scope`.
    pub(super) fn find(
        &self,
        scope: &Scope,
        id: &WorkspaceId,
    ) -> Result<(Arc<Entry>, Workspace), WorkspaceError> {
        let entry = lock(&self.entries).get(id).cloned();
        let found = entry.filter(|entry| scope.covers(entry.uid())).and_then(|entry| {
            let view = entry.view()?;
            Some((entry, view))
        });
        found.ok_or_else(|| WorkspaceError::NoSuchWorkspace(id.clone()))
    }

    /// All entries, announced or not, ordered by id.
    pub(super) fn all(&self) -> Vec<Arc<Entry>> {
        lock(&self.entries).values().cloned().collect()
    }
}

impl Scope {
    /// Whether workspaces of `owner` are in it.
    pub(super) fn covers(&self, owner: u32) -> bool {
        match self {
            Scope::User(uid) => *uid == owner,
            Scope::Everybody => true,
        }
    }

    /// Keeps what is in scope.
    pub(super) fn filter(&self, entries: &[Arc<Entry>]) -> Vec<Workspace> {
        entries.iter().filter(|entry| self.covers(entry.uid())).filter_map(|entry| entry.view()).collect()
    }
}

/// A new random id.
pub(super) fn random_id() -> std::io::Result<WorkspaceId> {
    let mut bytes = [0; WorkspaceId::LEN];
    // So few bytes come all at once.
    getrandom(&mut bytes, GetRandomFlags::empty())?;
    Ok(WorkspaceId::from_random(bytes))
}

fn within_users(
    entries: &BTreeMap<WorkspaceId, Arc<Entry>>,
    uid: u32,
    limits: &Limits,
) -> Result<(), WorkspaceError> {
    let own = entries.values().filter(|entry| entry.counts_for(uid)).count();
    within(format!("user {uid}"), own, limits.workspaces_per_user)
}

fn within(whose: String, have: usize, limit: usize) -> Result<(), WorkspaceError> {
    if have < limit { Ok(()) } else { Err(WorkspaceError::Limit { whose, have, limit }) }
}

/// These locks guard plain values that are whole between any two instructions of ours, so a panic elsewhere while one
/// was held has not broken them.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
