//! What happens by itself: workspaces end when their time is over, and mounts that somebody else ended are noticed.
//!
//! Deadlines are kept on the monotonic clock from the moment they are set or read: a clock that is put forward never
//! ends a workspace early. A suspended host ends it late, which loses nothing.

use std::{
    collections::HashSet,
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    Scope, State,
    inner::Inner,
    life,
    state::{Input, Phase},
    table::Entry,
};

/// Longest sleep between two looks at the deadlines.
const LONGEST_SLEEP: Duration = Duration::from_secs(3600);
/// How long a durable workspace that is in use when its time is over is left alone.
const BUSY: Duration = Duration::from_secs(60);
/// How often mountinfo is compared with what should be there: what is gone is seen late rather than costly.
const ROUND: Duration = Duration::from_secs(30);

/// Ends workspaces whose time is over, for as long as the daemon runs.
pub(super) async fn watch_deadlines(inner: Weak<Inner>) {
    loop {
        let Some(strong) = inner.upgrade() else { return };
        let changed = Arc::clone(&strong.deadlines);
        let now = Instant::now();
        let entries = strong.table.all();
        for entry in entries.iter().filter(|entry| entry.deadline().is_some_and(|end| end <= now)) {
            entry.set_deadline(None);
            strong.tasks.spawn(expire(Arc::clone(&strong), Arc::clone(entry)));
        }
        let next = entries.iter().filter_map(|entry| entry.deadline()).min();
        let wake = next.unwrap_or(now + LONGEST_SLEEP).min(now + LONGEST_SLEEP);
        drop((strong, entries));
        tokio::select! {
            () = tokio::time::sleep_until(wake) => {}
            () = changed.notified() => {}
        }
    }
}

async fn expire(inner: Arc<Inner>, entry: Arc<Entry>) {
    let Ok(mut held) = inner.hold(&Scope::Everybody, &entry.id).await else { return };
    let core = held.core();
    if entry.deadline().is_some_and(|end| end > Instant::now()) {
        // It was mounted anew meanwhile.
        return;
    }
    match inner.perform(&entry, core, Input::Expire, &mut inner.patience()).await {
        Ok(()) => tracing::info!(
            scorpio_workspace = %entry.id, scorpio_uid = entry.uid(),
            scorpio_mount = %core.record.mount_point.display(), "its time is over"
        ),
        Err(error) if core.record.phase == Phase::Mounted => {
            tracing::warn!(scorpio_workspace = %entry.id, %error, "its time is over, but it stays for now");
            life::set_deadline(&inner, &entry, Some(BUSY));
        }
        Err(error) => {
            tracing::warn!(scorpio_workspace = %entry.id, %error, "its time is over, and it did not end well");
        }
    }
    life::bury_if_gone(&inner, held);
}

/// Notices mounts that are gone although nobody asked us, for as long as the daemon runs.
pub(super) async fn watch_mounts(inner: Weak<Inner>) {
    loop {
        tokio::time::sleep(ROUND).await;
        let Some(inner) = inner.upgrade() else { return };
        // Before mountinfo is read: what is mounted after it is not to be looked for in it.
        let mounted: Vec<_> = inner.table.all().into_iter().filter_map(standing).collect();
        let Ok(live) = inner.survey().await else { continue };
        let live: HashSet<_> = live.into_iter().map(|mount| (mount.workspace, mount.mount_id)).collect();
        for (entry, mount_id) in mounted {
            if !live.contains(&(entry.id.clone(), mount_id)) {
                notice(&inner, &entry, mount_id).await;
            }
        }
    }
}

/// The mount of a workspace that should be there.
fn standing(entry: Arc<Entry>) -> Option<(Arc<Entry>, u64)> {
    let mount_id = entry.view().filter(|view| view.state == State::Mounted)?.mount_id?;
    Some((entry, mount_id))
}

/// Looks again with the workspace in hand: it may have been moved meanwhile. What follows ends mounts, and an ephemeral
/// workspace with all that was written in it, so nobody may be mistaken.
async fn notice(inner: &Inner, entry: &Arc<Entry>, mount_id: u64) {
    let Ok(mut held) = inner.hold(&Scope::Everybody, &entry.id).await else { return };
    let core = held.core();
    let same = core.record.stood.as_ref().is_some_and(|stood| stood.mount_id == mount_id);
    if core.record.phase != Phase::Mounted || !same {
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
