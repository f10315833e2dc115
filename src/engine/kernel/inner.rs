//! [`Inner`]: the tasks that make and end mounts, one at a time per workspace, whoever still waits for them.

use std::{
    collections::HashMap,
    io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use super::{
    handoff::{Abandoned, Operation},
    launch::Launches,
    ledger::Ledger,
    mounter::protocol::{AbandonOrder, MountOrder, Reply, UnmountOrder, UpperOrder, Verb},
    outcome::{self, kernel_error},
    places::Places,
    sessions::{Lower, Sessions},
    survey,
};
use crate::{
    dicfuse::Dicfuse,
    engine::{MountError, MountSpec, Mounted, PointFault, UnmountError, Upper},
    sys::{
        idmap::{Ids, NoId, Owners},
        mountinfo::{self, MountEntry, Whose},
    },
    types::WorkspaceId,
};

/// What the engine and its tasks share.
pub(super) struct Inner {
    // In this order they are dropped: sessions leave their places before these go.
    pub(super) ledger: Ledger,
    pub(super) sessions: Sessions,
    pub(super) places: Mutex<Option<Places>>,
    pub(super) layers: PathBuf,
    pub(super) launches: Launches,
    pub(super) dicfuse: Dicfuse,
    pub(super) turns: Mutex<HashMap<WorkspaceId, Turn>>,
}

/// Who holds it may work on a workspace's mount.
type Turn = Arc<tokio::sync::Mutex<()>>;

impl Inner {
    /// Makes a mount and hands it over; ends it again when nobody takes it.
    pub(super) async fn mount(
        self: Arc<Inner>,
        spec: MountSpec,
        operation: Operation<Result<Mounted, MountError>>,
    ) {
        let turn = self.turn(&spec.workspace);
        let _turn = turn.lock().await;
        let result = self.make(&spec, operation.abandoned.clone()).await;
        let mounted = result.as_ref().ok().copied();
        if !operation.finish(result).await
            && let Some(mounted) = mounted
        {
            tracing::info!(scorpio_workspace = %spec.workspace, "nobody waits for a mount any more: ending it");
            self.abandon(&spec.workspace).await;
            self.ledger.ended(mounted.mount_id, &spec.workspace, true);
        }
    }

    async fn make(self: &Arc<Inner>, spec: &MountSpec, abandoned: Abandoned) -> Result<Mounted, MountError> {
        // Whatever fails from here on ends all mounts of the workspace: there must be none yet.
        refuse_second(spec)?;
        let lower = self.lower_for(spec).await?;
        let noted = self.ledger.begin(&spec.workspace, spec.root.id, &lower.session);
        noted.map_err(|source| kernel_error(&spec.workspace, "noting what it stands on", source))?;
        let order = self
            .order(spec, &lower)
            .map_err(|error| kernel_error(&spec.workspace, "reading the owners", io::Error::other(error)))?;
        let verb = Verb::Mount(Box::new(order));
        let reply = self.launches.run(verb, Some(spec.owner.uid), Some(abandoned)).await;
        let result = outcome::mounted(reply, spec);
        match &result {
            Ok(mounted) => {
                self.ledger.made(mounted.mount_id, spec.workspace.clone(), spec.root.id, lower.session);
            }
            // The mounter itself says what is wrong with a point, and then it has made nothing.
            Err(MountError::Point { .. }) => self.ledger.failed(&spec.workspace),
            Err(_) => {
                self.abandon(&spec.workspace).await;
                self.ledger.failed(&spec.workspace);
            }
        }
        result
    }

    async fn lower_for(self: &Arc<Inner>, spec: &MountSpec) -> Result<Lower, MountError> {
        let (inner, owner) = (Arc::clone(self), spec.owner.clone());
        let found = tokio::task::spawn_blocking(move || inner.sessions.lower_for(&owner)).await;
        let failed = |reason: String| MountError::Session { workspace: spec.workspace.clone(), reason };
        match found {
            Ok(found) => found.map_err(|error| failed(error.to_string())),
            Err(stopped) => Err(failed(stopped.to_string())),
        }
    }

    fn order(&self, spec: &MountSpec, lower: &Lower) -> Result<MountOrder, NoId> {
        Ok(MountOrder {
            owners: (&Owners::new(spec.stored, Ids::from(&spec.owner))?).into(),
            workspace: spec.workspace.to_string(),
            owner: (&spec.owner).into(),
            point: spec.point.path.clone(),
            expect: spec.point.expect.map(|expect| (expect.dev, expect.ino)),
            lower: lower.session.path().join(spec.root.id.to_string()),
            map_owner: lower.map_owner,
            layers: self.layers.clone(),
            upper: match spec.upper.clone() {
                Upper::Writable { upper, work, volatile } => UpperOrder::Writable { upper, work, volatile },
                Upper::ReadOnly { empty } => UpperOrder::ReadOnly { empty },
            },
        })
    }

    /// Ends whatever an operation left that did not come to its end.
    async fn abandon(&self, workspace: &WorkspaceId) {
        let order = AbandonOrder { workspace: workspace.to_string(), layers: self.layers.clone() };
        match self.launches.run(Verb::Abandon(order), None, None).await {
            Ok(Reply::Done) => {}
            other => {
                tracing::warn!(scorpio_workspace = %workspace, outcome = ?other, "a failed mount may have left something");
            }
        }
    }

    /// Ends a mount of a workspace, if it is there still and is one.
    pub(super) async fn unmount(
        self: Arc<Inner>,
        workspace: WorkspaceId,
        mount_id: u64,
        lazy: bool,
    ) -> Result<(), UnmountError> {
        let turn = self.turn(&workspace);
        let _turn = turn.lock().await;
        let Some(path) = path_of(&workspace, mount_id)? else {
            // Ended behind our back, maybe lazily.
            self.ledger.ended(mount_id, &workspace, true);
            return Ok(());
        };
        let order = UnmountOrder { workspace: workspace.to_string(), mount_id, lazy };
        let reply = self.launches.run(Verb::Unmount(order), None, None).await;
        outcome::unmounted(reply, path)?;
        self.ledger.ended(mount_id, &workspace, lazy);
        Ok(())
    }

    fn turn(&self, workspace: &WorkspaceId) -> Turn {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        Arc::clone(turns.entry(workspace.clone()).or_default())
    }
}

/// Two overlays on one upper directory would spoil each other.
fn refuse_second(spec: &MountSpec) -> Result<(), MountError> {
    let entries = mountinfo::read(Whose::Own)
        .map_err(|source| kernel_error(&spec.workspace, "reading mountinfo", source))?;
    let ours = |entry: &&MountEntry| survey::workspace_of(entry).as_ref() == Some(&spec.workspace);
    entries.iter().find(ours).map_or(Ok(()), |entry| {
        let reason = format!("the workspace is mounted already, at {}", entry.mount_point.display());
        Err(MountError::Point { path: spec.point.path.clone(), fault: PointFault::Busy, reason })
    })
}

fn path_of(workspace: &WorkspaceId, mount_id: u64) -> Result<Option<PathBuf>, UnmountError> {
    let entries = mountinfo::read(Whose::Own)
        .map_err(|source| UnmountError::Kernel { path: "/proc/self/mountinfo".into(), source })?;
    let named = entries.into_iter().find(|entry| entry.mount_id == mount_id);
    let ours = named.filter(|entry| survey::workspace_of(entry).as_ref() == Some(workspace));
    Ok(ours.map(|entry| entry.mount_point))
}
