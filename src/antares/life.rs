//! What users ask for: create, mount, unmount, remove.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::{
    Create, Scope, Workspace, WorkspaceError,
    driver::Core,
    inner::{Held, Inner, blocking},
    options,
    record::{Record, Works, seconds},
    state::{Input, Phase},
    table::{Entry, random_id},
    tasks::{self, Driver, Patience},
};
use crate::{
    dicfuse::Root,
    sys::{identity::Identity, idmap::Ids},
    telemetry::event,
    types::WorkspaceId,
};

/// Random ids that are tried: with 60 random bits even a second one is never needed.
const ID_ATTEMPTS: usize = 8;

type Created = Result<Workspace, WorkspaceError>;

/// Makes a workspace; see [`super::Antares::create`].
pub(super) async fn create(inner: &Arc<Inner>, owner: &Identity, request: Create) -> Created {
    let request = options::check(request, inner.limits().max_ttl)?;
    inner.refuse_when_stopping()?;
    inner.refuse_when_draining()?;
    let entry = reserve(inner, owner.uid)?;
    let (caller, driver) = tasks::call(inner.stopping.subscribe());
    let (inner_, owner) = (Arc::clone(inner), owner.clone());
    inner.tasks.spawn(async move { drive_creation(&inner_, entry, owner, request, driver).await });
    caller.answer().await.unwrap_or(Err(WorkspaceError::Stopping))
}

/// A place in the table under an id that nothing lies under.
fn reserve(inner: &Inner, uid: u32) -> Result<Arc<Entry>, WorkspaceError> {
    for _ in 0..ID_ATTEMPTS {
        let id = random_id().map_err(|source| WorkspaceError::Disk {
            action: "draw an id from",
            path: "/dev/urandom".into(),
            source,
        })?;
        if inner.disk.knows(&id) {
            continue;
        }
        if let Some(entry) = inner.table.reserve(id, uid, Some(&inner.limits()))? {
            return Ok(entry);
        }
    }
    Err(WorkspaceError::BadOption("no free workspace id was found; try again".to_owned()))
}

async fn drive_creation(
    inner: &Inner,
    entry: Arc<Entry>,
    owner: Identity,
    request: Create,
    mut driver: Driver<Created>,
) {
    let mut guard = Arc::clone(&entry.core).lock_owned().await;
    let mut core = match found(inner, &entry, owner, request, &mut driver.patience).await {
        Ok(core) => core,
        Err(error) => {
            inner.table.remove(&entry.id);
            driver.hand_over(Err(error)).await;
            return;
        }
    };
    if let Err(error) = raise(inner, &entry, &mut core, Input::Create, &mut driver.patience).await {
        take_back(inner, &entry, &mut core).await;
        driver.hand_over(Err(error)).await;
        return;
    }
    let workspace = inner.view(&core, None);
    set_deadline(inner, &entry, workspace.options.ttl);
    if driver.hand_over(Ok(workspace)).await {
        tell_mounted(&core.record, event::MOUNTED, "created and mounted");
        *guard = Some(core);
        return;
    }
    tracing::info!(scorpio_workspace = %entry.id, "the caller of a creation went away; taking it back");
    let discard = Input::Remove { discard: false, lazy: false };
    match inner.perform(&entry, &mut core, discard, &mut inner.patience()).await {
        Ok(()) => {}
        // Somebody has begun to work in it: then it stays.
        Err(error) => {
            tracing::warn!(scorpio_workspace = %entry.id, %error, "it stays");
            *guard = Some(core);
        }
    }
}

/// Finds out what the workspace stands on.
async fn found(
    inner: &Inner,
    entry: &Entry,
    owner: Identity,
    request: Create,
    patience: &mut Patience,
) -> Result<Core, WorkspaceError> {
    let resolving = inner.roots.resolve(&request.origin, request.rev.as_deref(), &request.path);
    let snapshot = tokio::select! {
        biased;
        () = patience.ends() => return Err(WorkspaceError::Stopping),
        snapshot = resolving => snapshot?,
    };
    let now = whole_seconds(SystemTime::now());
    let mtime = i64::try_from(seconds(now)).unwrap_or(i64::MAX);
    let mut record = Record {
        id: entry.id.clone(),
        stored: Ids::from(&owner),
        owner,
        origin: request.origin,
        snapshot,
        rev: request.rev,
        root_mtime: mtime,
        mount_point: request.mount_point,
        stood: None,
        phase: Phase::Creating,
        created: now,
        expires: request.options.ttl.and_then(|ttl| now.checked_add(ttl)),
        options: request.options,
        works: Works { next: 0, since: 0, boot_id: inner.config.boot_id.clone() },
    };
    let root = take_root(inner, &record).await?;
    record.root_mtime = root.mtime;
    let mut core = Core::new(record);
    core.root = Some(root);
    core.requested = true;
    Ok(core)
}

/// Has the root of `record` served, with the time it had.
pub(super) async fn take_root(inner: &Inner, record: &Record) -> Result<Root, WorkspaceError> {
    let (roots, origin) = (Arc::clone(&inner.roots), record.origin.clone());
    let (snapshot, mtime) = (record.snapshot.clone(), record.root_mtime);
    blocking(move || roots.take(&origin, &snapshot, mtime)).await
}

/// Mounts for [`Input::Create`] or [`Input::Mount`], up to and including the record that says so.
pub(super) async fn raise(
    inner: &Inner,
    entry: &Entry,
    core: &mut Core,
    input: Input,
    patience: &mut Patience,
) -> Result<(), WorkspaceError> {
    inner.perform(entry, core, input, patience).await?;
    inner.perform(entry, core, Input::Stood, patience).await
}

/// Takes a creation back that failed half-way.
async fn take_back(inner: &Inner, entry: &Entry, core: &mut Core) {
    if core.claimed {
        let fell = Input::Fell { to: Phase::Unmounted };
        match inner.perform(entry, core, fell, &mut inner.patience()).await {
            Ok(()) => return,
            Err(error) => tracing::warn!(
                scorpio_workspace = %entry.id, %error,
                "a failed creation could not be taken back; the next start does"
            ),
        }
    }
    inner.forget(entry, core).await;
}

/// Mounts again; see [`super::Antares::mount`].
pub(super) async fn mount(inner: Arc<Inner>, scope: Scope, id: WorkspaceId, at: Option<PathBuf>) -> Created {
    let mut held = inner.hold(&scope, &id).await?;
    let entry = Arc::clone(&held.entry);
    let core = held.core();
    inner.refuse_when_draining()?;
    let before = core.record.clone();
    ensure_root(&inner, core).await?;
    if let Some(at) = at {
        options::check_point(&at)?;
        core.record.mount_point = at;
    }
    // The user says where, so another directory of that name is as good.
    core.same_point = false;
    if core.record.phase != Phase::Mounted {
        core.record.stood = None;
    }
    core.requested = true;
    let raised = raise(&inner, &entry, core, Input::Mount, &mut inner.patience()).await;
    core.requested = false;
    if let Err(error) = raised {
        let begun = core.record.phase == Phase::Mounting;
        core.record.mount_point = before.mount_point;
        core.record.stood = before.stood;
        if begun {
            fall(&inner, &entry, core, before.phase).await;
        } else {
            inner.announce(&entry, core, None);
        }
        return Err(error);
    }
    renew_deadline(&inner, &entry, core).await;
    tell_mounted(&core.record, event::MOUNTED, "mounted");
    Ok(inner.view(core, None))
}

/// Ends a mount that did not come about; the workspace stands at `to`.
pub(super) async fn fall(inner: &Inner, entry: &Entry, core: &mut Core, to: Phase) {
    let fell = Input::Fell { to: to.clone() };
    if let Err(error) = inner.perform(entry, core, fell, &mut inner.patience()).await {
        tracing::warn!(scorpio_workspace = %entry.id, %error, "a mount could not be taken back properly");
        core.record.phase = to;
        core.stale = true;
        inner.announce(entry, core, None);
    }
}

pub(super) async fn ensure_root(inner: &Inner, core: &mut Core) -> Result<(), WorkspaceError> {
    if core.root.is_none() {
        core.root = Some(take_root(inner, &core.record).await?);
    }
    Ok(())
}

/// Unmounts; see [`super::Antares::unmount`].
pub(super) async fn unmount(
    inner: Arc<Inner>,
    scope: Scope,
    id: WorkspaceId,
    lazy: bool,
) -> Result<(), WorkspaceError> {
    let mut held = inner.hold(&scope, &id).await?;
    let entry = Arc::clone(&held.entry);
    let core = held.core();
    if core.record.phase == Phase::Unmounted && core.stale {
        // The mount is gone, but the record could not be written then.
        return inner.write(core).await;
    }
    inner.perform(&entry, core, Input::Unmount { lazy }, &mut inner.patience()).await?;
    tracing::info!(
        message_id = event::UNMOUNTED, scorpio_workspace = %id, scorpio_uid = core.record.owner.uid,
        scorpio_mount = %core.record.mount_point.display(), lazy, "unmounted"
    );
    bury_if_gone(&inner, held);
    Ok(())
}

/// Takes away for good; see [`super::Antares::remove`].
pub(super) async fn remove(
    inner: Arc<Inner>,
    scope: Scope,
    id: WorkspaceId,
    discard: bool,
    lazy: bool,
) -> Result<(), WorkspaceError> {
    let mut held = inner.hold(&scope, &id).await?;
    let entry = Arc::clone(&held.entry);
    let core = held.core();
    inner.perform(&entry, core, Input::Remove { discard, lazy }, &mut inner.patience()).await?;
    tracing::info!(
        message_id = event::REMOVED, scorpio_workspace = %id, scorpio_uid = core.record.owner.uid,
        scorpio_mount = %core.record.mount_point.display(), discard, lazy, "removed"
    );
    bury_if_gone(&inner, held);
    Ok(())
}

/// After a move: if nothing remains, those who wait for the workspace are to find nothing.
pub(super) fn bury_if_gone(inner: &Inner, held: Held) {
    if !inner.table.contains(&held.entry.id) {
        held.bury();
    }
}

/// A workspace that ended by its time to live and is mounted again lives as long once more.
async fn renew_deadline(inner: &Inner, entry: &Entry, core: &mut Core) {
    let now = whole_seconds(SystemTime::now());
    let Some(ttl) = core.record.options.ttl.filter(|_| core.record.expires.is_some_and(|end| end <= now))
    else {
        return;
    };
    core.record.expires = now.checked_add(ttl);
    set_deadline(inner, entry, Some(ttl));
    if let Err(error) = inner.write(core).await {
        tracing::warn!(scorpio_workspace = %entry.id, %error, "its new end is not on disk");
    }
    inner.announce(entry, core, None);
}

/// Lets the workspace end `after` this time.
pub(super) fn set_deadline(inner: &Inner, entry: &Entry, after: Option<Duration>) {
    entry.set_deadline(after.and_then(|after| tokio::time::Instant::now().checked_add(after)));
    inner.deadlines.notify_one();
}

/// The operator's line about a workspace that has come up.
pub(super) fn tell_mounted(record: &Record, class: &str, what: &str) {
    tracing::info!(
        message_id = class, scorpio_workspace = %record.id, scorpio_uid = record.owner.uid,
        scorpio_mount = %record.mount_point.display(), scorpio_origin = %record.origin,
        commit = %record.snapshot.commit, "{what}"
    );
}

fn whole_seconds(time: SystemTime) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds(time))
}
