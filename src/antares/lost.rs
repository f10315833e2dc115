//! Mounts that are lost although nobody asked us: those that somebody else unmounted stay so, and those whose session the
//! kernel has ended are made again, as the next start would.
//!
//! What a user wrote is in the upper either way. A process that is in a dead mount stays in it: what it has open for writing
//! goes on being written to the upper, and everything that is not cached is an error.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::Duration,
};

use futures_util::{StreamExt as _, stream};

use super::{
    Scope, State, WorkspaceError,
    driver::Core,
    inner::Inner,
    life, recovery,
    state::{Input, Phase},
    table::Entry,
};
use crate::types::WorkspaceId;

/// How often mountinfo is compared with what should be there: what is gone is seen late rather than costly.
const ROUND: Duration = Duration::from_secs(30);

/// Workspaces that are seen to at once: as many as at a start.
const AT_ONCE: usize = 16;

/// What became of a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lost {
    /// It is not in mountinfo any more.
    Unmounted,
    /// It is there, over a session that has ended.
    Dead,
}

/// Notices lost mounts, for as long as the daemon runs. Holds on to nothing of it while it waits.
pub(super) async fn watch_mounts(inner: Weak<Inner>) {
    let Some(ended) = inner.upgrade().map(|inner| inner.engine.session_ended()) else { return };
    loop {
        let has_ended = tokio::select! {
            () = tokio::time::sleep(ROUND) => false,
            () = ended.notified() => true,
        };
        let Some(inner) = inner.upgrade() else { return };
        if has_ended {
            inner.engine.sweep_sessions().await;
        }
        look(&inner).await;
    }
}

async fn look(inner: &Arc<Inner>) {
    // In this order: a mount that comes up in between is not missed in the table of mounts.
    let mounted: Vec<_> = inner.table.all().into_iter().filter_map(mounted).collect();
    let Ok(found) = find(inner).await else { return };
    let judged =
        |(entry, mount_id): (Arc<Entry>, u64)| Some((judge(&found, &entry, mount_id)?, entry, mount_id));
    let lost: Vec<(Lost, Arc<Entry>, u64)> = mounted.into_iter().filter_map(judged).collect();
    let see_to = |(lost, entry, mount_id): (Lost, Arc<Entry>, u64)| see_to(inner, lost, entry, mount_id);
    stream::iter(lost).for_each_concurrent(AT_ONCE, see_to).await;
}

/// Mounts by workspace and id, and whether each is alive.
type Found = HashMap<(WorkspaceId, u64), bool>;

async fn find(inner: &Inner) -> Result<Found, WorkspaceError> {
    let live = inner.survey().await?;
    Ok(live.into_iter().map(|mount| ((mount.workspace, mount.mount_id), mount.alive)).collect())
}

fn mounted(entry: Arc<Entry>) -> Option<(Arc<Entry>, u64)> {
    let view = entry.view().filter(|view| view.state == State::Mounted)?;
    Some((entry, view.mount_id?))
}

fn judge(found: &Found, entry: &Arc<Entry>, mount_id: u64) -> Option<Lost> {
    match found.get(&(entry.id.clone(), mount_id)) {
        Some(true) => None,
        Some(false) => Some(Lost::Dead),
        None => Some(Lost::Unmounted),
    }
}

/// Looks again with the workspace in hand: it may have been moved meanwhile. What follows ends mounts, and an ephemeral
/// workspace with all that was written in it, so nobody may be mistaken.
async fn see_to(inner: &Arc<Inner>, lost: Lost, entry: Arc<Entry>, mount_id: u64) {
    let Ok(mut held) = inner.hold(&Scope::Everybody, &entry.id).await else { return };
    let core = held.core();
    let same = core.record.stood.as_ref().is_some_and(|stood| stood.mount_id == mount_id);
    if core.record.phase != Phase::Mounted || !same {
        return;
    }
    match find(inner).await {
        Ok(found) if judge(&found, &entry, mount_id) == Some(lost) => {}
        _ => return,
    }
    match lost {
        Lost::Unmounted => give_up(inner, &entry, core, mount_id).await,
        Lost::Dead => mount_again(inner, &entry, core, mount_id).await,
    }
    life::bury_if_gone(inner, held);
}

async fn give_up(inner: &Inner, entry: &Arc<Entry>, core: &mut Core, mount_id: u64) {
    tracing::warn!(
        scorpio_workspace = %entry.id, scorpio_uid = entry.uid(),
        scorpio_mount = %core.record.mount_point.display(), mount_id, "its mount was lost: somebody else unmounted it"
    );
    // The record says that it is mounted, which `unmount` is to change.
    core.stale = true;
    if let Err(error) = inner.perform(entry, core, Input::Vanished, &mut inner.patience()).await {
        tracing::warn!(scorpio_workspace = %entry.id, %error, "what is left of a lost mount stays");
    }
}

async fn mount_again(inner: &Arc<Inner>, entry: &Arc<Entry>, core: &mut Core, mount_id: u64) {
    tracing::warn!(
        scorpio_workspace = %entry.id, scorpio_uid = entry.uid(),
        scorpio_mount = %core.record.mount_point.display(), mount_id, "its mount is dead: the kernel has ended its session"
    );
    // Its record goes on saying that it is mounted, which is true again in a moment or at the next start.
    if let Err(error) = inner.perform(entry, core, Input::Died, &mut inner.patience()).await {
        tracing::warn!(scorpio_workspace = %entry.id, %error, "a dead mount stays; the next look tries again");
        return;
    }
    recovery::bring_up(inner, entry, core).await;
    if matches!(core.record.phase, Phase::Failed { .. }) {
        inner.tasks.spawn(recovery::retry(Arc::downgrade(inner), entry.id.clone()));
    }
}
