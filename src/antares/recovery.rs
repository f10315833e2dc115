//! Carries out what [`super::recover`] plans: many workspaces at once, and none waits for a stuck one for ever.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::sync::Semaphore;

use super::{
    Scope, WorkspaceError,
    disk::{FoundRecord, FoundUpper},
    driver::{Core, fallen},
    inner::Inner,
    life,
    record::{Record, Stood, seconds},
    recover::{self, Circumstances, Found, Plan, Then},
    state::{Input, Phase},
    table::Entry,
};
use crate::{engine::LiveMount, telemetry::event, types::WorkspaceId};

/// Workspaces brought up at once: enough to hide each other's waits, few enough not to storm the origin.
const AT_ONCE: usize = 16;
/// After this time a mount that still hangs no longer counts towards [`AT_ONCE`].
const STUCK: Duration = Duration::from_secs(5);
/// How long a start waits for all; what hangs longer goes on in the background.
const PATIENCE: Duration = Duration::from_secs(30);
/// First and longest wait before a workspace that failed for a passing reason is tried again.
const RETRY: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(300));

/// Everything that lies on disk or in mountinfo under a workspace's id.
pub(super) async fn look_around(inner: &Inner) -> Result<Vec<Found>, WorkspaceError> {
    let mut mounts: BTreeMap<WorkspaceId, Vec<LiveMount>> = BTreeMap::new();
    for mount in inner.survey().await? {
        mounts.entry(mount.workspace.clone()).or_default().push(mount);
    }
    inner
        .on_disk(move |disk| {
            let mut ids = disk.ids()?;
            ids.extend(mounts.keys().cloned());
            ids.sort();
            ids.dedup();
            let found = ids.into_iter().map(|id| Found {
                record: disk.read(&id),
                upper: disk.upper(&id),
                mounts: mounts.remove(&id).unwrap_or_default(),
                id,
            });
            Ok(found.collect())
        })
        .await
}

/// The time and boot we are in.
pub(super) fn circumstances(inner: &Inner) -> Circumstances {
    Circumstances { boot_id: inner.config.boot_id.clone(), now: seconds(SystemTime::now()) }
}

/// Brings everything up that was there.
pub(super) async fn recover(inner: &Arc<Inner>) -> Result<(), WorkspaceError> {
    let rubbish = inner.on_disk(super::disk::Disk::unfinished).await?;
    inner.trash.delete(rubbish);
    let mut found = look_around(inner).await?;
    let plans = recover::plan(&found, &circumstances(inner));
    let mut work: Vec<(Found, Plan)> = found.drain(..).zip(plans).collect();
    // A living mount without a record stands on a root that cannot be told.
    let in_doubt = work.iter().any(|(found, plan)| {
        matches!(plan.then, Then::Orphan { .. }) && found.mounts.iter().any(|mount| mount.alive)
    });
    // The oldest first: its root's time is the one that all others on the same tree get.
    work.sort_by_key(|(found, _)| match &found.record {
        FoundRecord::Good(record) => (record.created, found.id.clone()),
        _ => (SystemTime::UNIX_EPOCH, found.id.clone()),
    });
    let mut jobs = tokio::task::JoinSet::new();
    let permits = Arc::new(Semaphore::new(AT_ONCE));
    for (found, plan) in work {
        let Some(job) = take_up(inner, found, plan).await else { continue };
        jobs.spawn(with_permit(Arc::clone(inner), job, Arc::clone(&permits)));
    }
    if !in_doubt {
        let roots = Arc::clone(&inner.roots);
        super::inner::blocking(move || {
            roots.drop_unused();
            Ok(())
        })
        .await?;
    }
    let all = async { while jobs.join_next().await.is_some() {} };
    if tokio::time::timeout(PATIENCE, all).await.is_err() {
        tracing::warn!(left = jobs.len(), "some workspaces are still not up; going on without them");
        inner.tasks.spawn(async move { while jobs.join_next().await.is_some() {} });
    }
    Ok(())
}

/// One workspace that is to be brought up.
struct Job {
    id: WorkspaceId,
    detach: Vec<u64>,
    up: Option<Up>,
}

struct Up {
    entry: Arc<Entry>,
    core: Core,
    guard: tokio::sync::OwnedMutexGuard<Option<Core>>,
    then: Then,
}

/// Enters a workspace into the table, or says goodbye to it.
async fn take_up(inner: &Arc<Inner>, found: Found, plan: Plan) -> Option<Job> {
    let Plan { id, detach, then } = plan;
    let record = match (then.clone(), found.record) {
        (Then::Orphan { reason }, record) => {
            tell_orphan(inner, &id, &reason, &record, found.upper);
            return Some(Job { id, detach, up: None });
        }
        (Then::Remove, record) => {
            let up = remains(inner, &id, record, then);
            return Some(Job { id, detach, up });
        }
        (_, FoundRecord::Good(record)) => *record,
        // Only a good record is ever planned to live on.
        _ => return None,
    };
    let (entry, guard) = enter(inner, &record);
    let mut core = Core::new(record);
    core.claimed = true;
    if let Err(error) = life::ensure_root(inner, &mut core).await {
        tracing::warn!(scorpio_workspace = %id, %error, "its tree cannot be served yet");
    }
    let left = core.record.expires.map(|end| end.duration_since(SystemTime::now()).unwrap_or_default());
    if !matches!(then, Then::Rest) {
        life::set_deadline(inner, &entry, left);
    }
    let showing = if then == Then::Mount { Some(super::State::Mounting) } else { None };
    inner.announce(&entry, &core, showing);
    Some(Job { id, detach, up: Some(Up { entry, core, guard, then }) })
}

fn enter(inner: &Inner, record: &Record) -> (Arc<Entry>, tokio::sync::OwnedMutexGuard<Option<Core>>) {
    let entry = Arc::new(Entry::new(record.id.clone(), record.owner.uid));
    let guard = Arc::clone(&entry.core).try_lock_owned().expect("nobody else knows a new entry");
    inner.table.insert(Arc::clone(&entry));
    (entry, guard)
}

/// What is to be removed: without a record there is nothing but directories.
fn remains(inner: &Inner, id: &WorkspaceId, record: FoundRecord, then: Then) -> Option<Up> {
    let FoundRecord::Good(record) = record else {
        tracing::info!(scorpio_workspace = %id, "empty directories of a creation that never was go");
        match inner.disk.discard(id) {
            Ok(rubbish) => inner.trash.delete(rubbish),
            Err(error) => tracing::warn!(scorpio_workspace = %id, %error, "empty directories stay"),
        }
        return None;
    };
    let (entry, guard) = enter(inner, &record);
    let mut core = Core::new(*record);
    core.claimed = true;
    Some(Up { entry, core, guard, then })
}

fn tell_orphan(inner: &Inner, id: &WorkspaceId, reason: &str, record: &FoundRecord, upper: FoundUpper) {
    let uid = match (record, upper) {
        (_, FoundUpper::Empty { uid } | FoundUpper::Changed { uid }) => Some(uid),
        (FoundRecord::Good(record), FoundUpper::Missing) => Some(record.owner.uid),
        _ => None,
    };
    tracing::warn!(
        message_id = event::ORPHAN_FOUND, scorpio_workspace = %id, scorpio_uid = uid, path = %inner.disk.upper_path(id).display(), reason,
        "an orphan: kept, not mounted, to be adopted or discarded"
    );
}

async fn with_permit(inner: Arc<Inner>, job: Job, permits: Arc<Semaphore>) {
    let permit = permits.acquire_owned().await;
    let carried_out = carry_out(inner, job);
    tokio::pin!(carried_out);
    if tokio::time::timeout(STUCK, &mut carried_out).await.is_err() {
        drop(permit);
        carried_out.await;
    }
}

async fn carry_out(inner: Arc<Inner>, job: Job) {
    for mount_id in job.detach {
        match inner.engine.unmount(&job.id, mount_id, true).await {
            Ok(()) => tracing::info!(scorpio_workspace = %job.id, mount_id, "an old mount was detached"),
            Err(error) => tracing::warn!(scorpio_workspace = %job.id, mount_id, %error, "an old mount stays"),
        }
    }
    let Some(Up { entry, mut core, mut guard, then }) = job.up else { return };
    match then {
        Then::Keep { mount_id } => keep(&inner, &entry, &mut core, mount_id).await,
        Then::Mount => bring_up(&inner, &entry, &mut core).await,
        Then::Rest => rest(&inner, &entry, &mut core).await,
        Then::Remove => return undo(&inner, &entry, &mut core).await,
        Then::Orphan { .. } => {}
    }
    let failed = matches!(core.record.phase, Phase::Failed { .. });
    *guard = Some(core);
    drop(guard);
    if failed {
        inner.tasks.spawn(retry(Arc::downgrade(&inner), job.id));
    }
}

async fn keep(inner: &Inner, entry: &Entry, core: &mut Core, mount_id: u64) {
    core.record.phase = Phase::Mounted;
    let point = core.record.stood.as_ref().and_then(|stood| stood.point);
    let stood = Stood { point, mount_id, boot_id: inner.config.boot_id.clone() };
    if core.record.stood.as_ref() != Some(&stood) {
        core.record.stood = Some(stood);
        if let Err(error) = inner.write(core).await {
            tracing::warn!(scorpio_workspace = %entry.id, %error, "its record is behind");
        }
    }
    inner.announce(entry, core, None);
    life::tell_mounted(&core.record, event::RECOVERED, "still mounted");
}

async fn rest(inner: &Inner, entry: &Entry, core: &mut Core) {
    if core.record.phase != Phase::Unmounted {
        core.record.phase = Phase::Unmounted;
        tracing::info!(scorpio_workspace = %entry.id, "its time was over while the daemon was down; not mounted");
        if let Err(error) = inner.write(core).await {
            tracing::warn!(scorpio_workspace = %entry.id, %error, "its record is behind");
        }
    }
    inner.announce(entry, core, None);
}

async fn undo(inner: &Inner, entry: &Entry, core: &mut Core) {
    let ephemeral = core.record.options.ephemeral;
    // Its mounts have been detached already; what is left is the same as for one that was not mounted.
    core.record.phase = Phase::Unmounted;
    let discard = Input::Remove { discard: ephemeral || core.record.options.read_only, lazy: false };
    match inner.perform(entry, core, discard, &mut inner.patience()).await {
        Ok(()) => tracing::info!(scorpio_workspace = %entry.id, ephemeral, "removed at start"),
        Err(error) => {
            inner.table.remove(&entry.id);
            tracing::warn!(scorpio_workspace = %entry.id, %error, "could not be removed; the next start tries again");
        }
    }
}

/// Mounts a workspace that wants to be mounted; where it fails, it says so and stays.
pub(super) async fn bring_up(inner: &Inner, entry: &Entry, core: &mut Core) {
    let before = core.record.stood.clone();
    match try_up(inner, entry, core).await {
        Ok(()) => life::tell_mounted(&core.record, event::RECOVERED, "mounted again"),
        Err(error) => {
            core.record.stood = before;
            let to = fallen(&error);
            if core.record.phase == Phase::Mounting {
                life::fall(inner, entry, core, to).await;
            } else {
                core.record.phase = to;
                core.stale = true;
                inner.announce(entry, core, None);
            }
            let displaced = matches!(core.record.phase, Phase::Displaced { .. });
            tracing::warn!(
                message_id = if displaced { event::DISPLACED } else { event::MOUNT_FAILED },
                scorpio_workspace = %entry.id, scorpio_uid = core.record.owner.uid,
                scorpio_mount = %core.record.mount_point.display(), state = core.record.phase.word(), %error,
                "not mounted; its upper is kept"
            );
        }
    }
}

async fn try_up(inner: &Inner, entry: &Entry, core: &mut Core) -> Result<(), WorkspaceError> {
    life::ensure_root(inner, core).await?;
    core.same_point = true;
    // Whatever the record says, nothing is mounted now.
    core.record.phase = Phase::Unmounted;
    life::raise(inner, entry, core, Input::Mount, &mut inner.patience()).await
}

/// Tries a workspace that failed again and again, ever less often, until it is up or somebody else has acted on it.
pub(super) async fn retry(inner: std::sync::Weak<Inner>, id: WorkspaceId) {
    let (mut wait, longest) = RETRY;
    loop {
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(longest);
        let Some(inner) = inner.upgrade() else { return };
        let Ok(mut held) = inner.hold(&Scope::Everybody, &id).await else { return };
        let entry = Arc::clone(&held.entry);
        let core = held.core();
        if !matches!(core.record.phase, Phase::Failed { .. }) {
            return;
        }
        bring_up(&inner, &entry, core).await;
    }
}
