//! What happens by itself: workspaces end when their time is over.
//!
//! Deadlines are kept on the monotonic clock from the moment they are set or read: a clock that is put forward never
//! ends a workspace early. A suspended host ends it late, which loses nothing.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    Scope,
    inner::Inner,
    life,
    state::{Input, Phase},
    table::Entry,
};

/// Longest sleep between two looks at the deadlines.
const LONGEST_SLEEP: Duration = Duration::from_secs(3600);
/// How long a durable workspace that is in use when its time is over is left alone.
const BUSY: Duration = Duration::from_secs(60);

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
