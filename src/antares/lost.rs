//! Mounts that are lost although nobody asked us: those that somebody else unmounted stay so, and those whose session the
//! kernel has ended are made again, as the next start would.
//!
//! What a user wrote is in the upper either way. A process that is in a dead mount stays in it: what it has open for writing
//! goes on being written to the upper, and everything that is not cached is an error.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use futures_util::{StreamExt as _, stream};

use super::{
    Scope, State,
    driver::Core,
    inner::Inner,
    life, recovery,
    state::{Input, Phase},
    table::Entry,
};
use crate::engine::LiveMount;

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

/// Notices lost mounts, for as long as the daemon runs.
pub(super) async fn watch_mounts(inner: Weak<Inner>) {
    let Some(engine) = inner.upgrade().map(|inner| Arc::clone(&inner.engine)) else { return };
    loop {
        tokio::select! {
            () = tokio::time::sleep(ROUND) => {}
            () = engine.session_ended() => {}
        }
        let Some(inner) = inner.upgrade() else { return };
        look(&inner).await;
    }
}

async fn look(inner: &Arc<Inner>) {
    // In this order: a mount that comes up in between is not missed in the table of mounts.
    let mounted: Vec<_> = inner.table.all().into_iter().filter_map(mounted).collect();
    let Ok(live) = inner.survey().await else { return };
    let judged =
        |(entry, mount_id): (Arc<Entry>, u64)| Some((judge(&live, &entry, mount_id)?, entry, mount_id));
    let lost: Vec<(Lost, Arc<Entry>, u64)> = mounted.into_iter().filter_map(judged).collect();
    let see_to = |(lost, entry, mount_id): (Lost, Arc<Entry>, u64)| async move {
        match lost {
            Lost::Unmounted => give_up(inner, &entry, mount_id).await,
            Lost::Dead => mount_again(inner, &entry, mount_id).await,
        }
    };
    stream::iter(lost).for_each_concurrent(AT_ONCE, see_to).await;
}

fn mounted(entry: Arc<Entry>) -> Option<(Arc<Entry>, u64)> {
    let view = entry.view().filter(|view| view.state == State::Mounted)?;
    Some((entry, view.mount_id?))
}

fn judge(live: &[LiveMount], entry: &Arc<Entry>, mount_id: u64) -> Option<Lost> {
    match live.iter().find(|mount| mount.mount_id == mount_id && mount.workspace == entry.id) {
        Some(mount) if mount.alive => None,
        Some(_) => Some(Lost::Dead),
        None => Some(Lost::Unmounted),
    }
}

/// Whether the workspace still stands as it did when the mount was seen to be lost.
fn stands(core: &Core, mount_id: u64) -> bool {
    let same = core.record.stood.as_ref().is_some_and(|stood| stood.mount_id == mount_id);
    core.record.phase == Phase::Mounted && same
}

/// Looks again with the workspace in hand: what follows ends mounts, and an ephemeral workspace with all that was written
/// in it, so nobody may be mistaken.
async fn give_up(inner: &Inner, entry: &Arc<Entry>, mount_id: u64) {
    let Ok(mut held) = inner.hold(&Scope::Everybody, &entry.id).await else { return };
    let core = held.core();
    if !stands(core, mount_id) {
        return;
    }
    match inner.survey().await {
        Ok(live) if live.iter().all(|mount| mount.workspace != entry.id || mount.mount_id != mount_id) => {}
        _ => return,
    }
    tracing::warn!(
        scorpio_workspace = %entry.id, scorpio_uid = entry.uid(),
        scorpio_mount = %core.record.mount_point.display(), mount_id, "its mount was lost: somebody else unmounted it"
    );
    // The record says that it is mounted, which `unmount` is to change.
    core.stale = true;
    if let Err(error) = inner.perform(entry, core, Input::Vanished, &mut inner.patience()).await {
        tracing::warn!(scorpio_workspace = %entry.id, %error, "what is left of a lost mount stays");
    }
    life::bury_if_gone(inner, held);
}

async fn mount_again(inner: &Arc<Inner>, entry: &Arc<Entry>, mount_id: u64) {
    let Ok(mut held) = inner.hold(&Scope::Everybody, &entry.id).await else { return };
    let core = held.core();
    if !stands(core, mount_id) {
        return;
    }
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
