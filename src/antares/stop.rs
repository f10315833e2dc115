//! The end of the daemon. For a stop, everything is unmounted within a bounded time; durable workspaces come back at the
//! next start. For a restart, what is being done is brought to its end and the mounts are left to the successor.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::Semaphore,
    time::{Instant, timeout, timeout_at},
};

use super::{
    inner::{Held, Inner},
    life,
    state::Input,
    table::Entry,
};
use crate::engine::Leave;

/// Unmounts at once.
const AT_ONCE: usize = 16;
/// How long one workspace may take: to finish what is being done to it, and to be unmounted.
const ONE: Duration = Duration::from_secs(8);
/// How long ending all that nobody uses in one go may take: a mount point on a file system that hangs holds it up, and the
/// others are to be ended all the same.
const TOGETHER: Duration = Duration::from_secs(8);
/// How long all may take: systemd kills after 30 s, and sessions have to end after us.
const ALL: Duration = Duration::from_secs(20);

/// See [`super::Antares::shutdown`].
pub(super) async fn shutdown(inner: &Arc<Inner>, leave: Leave) {
    inner.stopping.send_replace(true);
    let end = Instant::now() + ALL;
    if leave == Leave::Nothing && timeout(TOGETHER, inner.engine.unmount_unused()).await.is_err() {
        tracing::warn!("unmounting all together takes too long; going on one by one");
    }
    let permits = Arc::new(Semaphore::new(AT_ONCE));
    let mut jobs = tokio::task::JoinSet::new();
    for entry in inner.table.all() {
        let (inner, permits) = (Arc::clone(inner), Arc::clone(&permits));
        jobs.spawn(async move {
            let permit = permits.acquire_owned().await;
            if timeout(ONE, stop_one(&inner, &entry, leave)).await.is_err() {
                tracing::warn!(scorpio_workspace = %entry.id, "not done in time; the next start sets it right");
            }
            drop(permit);
        });
    }
    let all = async { while jobs.join_next().await.is_some() {} };
    if timeout_at(end, all).await.is_err() {
        tracing::warn!(left = jobs.len(), "stopping before all workspaces are done");
    }
    inner.tasks.abort().await;
    inner.trash.stop();
}

async fn stop_one(inner: &Inner, entry: &Arc<Entry>, leave: Leave) {
    // Whoever acts on it has brought that to its end by then.
    let Some(mut held) = Held::when_free(entry).await else { return };
    if leave == Leave::Everything {
        return;
    }
    let core = held.core();
    if let Err(error) = inner.perform(entry, core, Input::Stop, &mut inner.patience()).await {
        tracing::warn!(scorpio_workspace = %entry.id, %error, "not unmounted; the next start detaches it");
    }
    life::bury_if_gone(inner, held);
}
