//! Uppers without a record that can be used: listed, adopted or discarded, never touched otherwise.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::{
    Create, Orphan, Workspace, WorkspaceError,
    disk::{FoundRecord, FoundUpper},
    driver::Core,
    inner::Inner,
    life, options,
    record::{Record, Works, seconds},
    recover::{self, Found, Then},
    recovery,
    state::Phase,
    table::Entry,
};
use crate::{
    config::Limits,
    sys::{identity::Identity, idmap::Ids},
    types::WorkspaceId,
};

/// Whose place it is while an orphan is being deleted.
const ROOT: u32 = 0;

/// All orphans, ordered by id.
pub(super) fn list(inner: &Inner) -> Result<Vec<Orphan>, WorkspaceError> {
    let ids = inner.disk.ids()?;
    Ok(ids.iter().filter_map(|id| look(inner, id)).collect())
}

/// The orphan `id`, if it is one and nobody is doing anything about it.
fn look(inner: &Inner, id: &WorkspaceId) -> Option<Orphan> {
    let orphan = examine(inner, id);
    // Looked up after the disk: a workspace enters the table before it gets directories, and leaves it after.
    orphan.filter(|_| !inner.table.contains(id))
}

fn examine(inner: &Inner, id: &WorkspaceId) -> Option<Orphan> {
    let found = Found {
        id: id.clone(),
        record: inner.disk.read(id),
        upper: inner.disk.upper(id),
        mounts: Vec::new(),
    };
    let plan = recover::plan(std::slice::from_ref(&found), &recovery::circumstances(inner)).pop()?;
    let Then::Orphan { reason } = plan.then else { return None };
    let uid = match (&found.record, found.upper) {
        (_, FoundUpper::Empty { uid } | FoundUpper::Changed { uid }) => uid,
        (FoundRecord::Good(record), FoundUpper::Missing) => record.owner.uid,
        (_, FoundUpper::Missing) => 0,
    };
    Some(Orphan { id: id.clone(), path: inner.disk.upper_path(id), uid, reason })
}

/// Takes the place of the orphan `id`, so that nobody else adopts or discards it meanwhile, and examines it.
async fn seize(
    inner: &Arc<Inner>,
    id: &WorkspaceId,
    uid: u32,
    limits: Option<&Limits>,
) -> Result<(Seized, Orphan), WorkspaceError> {
    let nobody = || WorkspaceError::NoSuchWorkspace(id.clone());
    let entry = inner.table.reserve(id.clone(), uid, limits)?.ok_or_else(nobody)?;
    let seized = Seized { inner: Arc::clone(inner), entry, settled: false };
    let (examining, id_) = (Arc::clone(inner), id.clone());
    let orphan = super::inner::blocking(move || Ok(examine(&examining, &id_))).await?;
    Ok((seized, orphan.ok_or_else(nobody)?))
}

/// A place in the table that is given back unless it becomes a workspace's.
struct Seized {
    inner: Arc<Inner>,
    entry: Arc<Entry>,
    settled: bool,
}

impl Drop for Seized {
    fn drop(&mut self) {
        if !self.settled {
            self.inner.table.remove(&self.entry.id);
        }
    }
}

/// Makes an orphan a workspace again; see [`super::Antares::adopt`].
pub(super) async fn adopt(
    inner: Arc<Inner>,
    id: WorkspaceId,
    owner: Identity,
    request: Create,
) -> Result<Workspace, WorkspaceError> {
    let request = options::check(request, inner.limits().max_ttl)?;
    inner.refuse_when_stopping()?;
    let (mut seized, orphan) = seize(&inner, &id, owner.uid, Some(&inner.limits())).await?;
    check(&inner, &orphan, &owner, &request).await?;
    let snapshot = inner.roots.resolve(&request.origin, request.rev.as_deref(), &request.path).await?;
    let mut guard = Arc::clone(&seized.entry.core).lock_owned().await;
    let record = new_record(&inner, &id, owner, request, snapshot);
    let core = write(&inner, record).await?;
    inner.announce(&seized.entry, &core, None);
    let workspace = inner.view(&core, None);
    tracing::info!(scorpio_workspace = %id, scorpio_uid = workspace.owner.uid, "an orphan was adopted");
    *guard = Some(core);
    seized.settled = true;
    Ok(workspace)
}

async fn check(
    inner: &Inner,
    orphan: &Orphan,
    owner: &Identity,
    request: &Create,
) -> Result<(), WorkspaceError> {
    let id = &orphan.id;
    if request.options.ephemeral || request.options.read_only {
        let reason = "an adopted workspace is durable and writable, or what lies in it would be of no use";
        return Err(WorkspaceError::BadOption(reason.to_owned()));
    }
    let upper = inner.disk.upper(id);
    if upper == FoundUpper::Missing {
        return Err(wrong(id, "without an upper", "bring its file system back, or discard it"));
    }
    if orphan.uid != owner.uid {
        // Its files would stay the other user's, behind a door that only that user may open.
        let reason = format!("the upper of {id} belongs to uid {}, not to uid {}", orphan.uid, owner.uid);
        return Err(WorkspaceError::BadOption(reason));
    }
    if inner.survey().await?.iter().any(|mount| mount.workspace == *id) {
        return Err(wrong(id, "an orphan that is still mounted", "unmount it as root first"));
    }
    Ok(())
}

fn wrong(id: &WorkspaceId, state: &str, hint: &str) -> WorkspaceError {
    WorkspaceError::WrongState { id: id.clone(), state: state.to_owned(), hint: hint.to_owned() }
}

fn new_record(
    inner: &Inner,
    id: &WorkspaceId,
    owner: Identity,
    request: Create,
    snapshot: crate::origin::Snapshot,
) -> Record {
    let now = UNIX_EPOCH + Duration::from_secs(seconds(SystemTime::now()));
    Record {
        id: id.clone(),
        stored: Ids::from(&owner),
        owner,
        origin: request.origin,
        snapshot,
        rev: request.rev,
        root_mtime: i64::try_from(seconds(now)).unwrap_or(i64::MAX),
        mount_point: request.mount_point,
        stood: None,
        phase: Phase::Unmounted,
        created: now,
        expires: request.options.ttl.and_then(|ttl| now.checked_add(ttl)),
        options: request.options,
        works: Works { next: inner.disk.next_work(id), since: 0, boot_id: inner.config.boot_id.clone() },
    }
}

async fn write(inner: &Inner, record: Record) -> Result<Core, WorkspaceError> {
    let mut core = Core::new(record);
    core.claimed = true;
    life::ensure_root(inner, &mut core).await?;
    core.record.root_mtime = core.root.as_ref().map_or(core.record.root_mtime, |root| root.mtime);
    let id = core.record.id.clone();
    let made = inner.on_disk(move |disk| disk.make_room_for_record(&id)).await;
    let written = match made {
        Ok(()) => inner.write(&mut core).await,
        Err(error) => Err(error),
    };
    if let Err(error) = written {
        inner.release_root(&mut core).await;
        return Err(error);
    }
    Ok(core)
}

/// Deletes an orphan; see [`super::Antares::discard`].
pub(super) async fn discard(inner: Arc<Inner>, id: WorkspaceId) -> Result<(), WorkspaceError> {
    inner.refuse_when_stopping()?;
    let (_seized, orphan) = seize(&inner, &id, ROOT, None).await?;
    for mount in inner.survey().await?.into_iter().filter(|mount| mount.workspace == id) {
        inner.engine.unmount(&id, mount.mount_id, true).await?;
    }
    let asked = id.clone();
    let rubbish = inner.on_disk(move |disk| disk.discard(&asked)).await?;
    inner.trash.delete(rubbish);
    tracing::info!(scorpio_workspace = %id, scorpio_uid = orphan.uid, "an orphan was discarded");
    Ok(())
}
