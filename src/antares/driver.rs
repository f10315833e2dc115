//! Carries the moves of the state machine out: one caller at a time per workspace, who holds its [`Core`].

use std::{
    path::PathBuf,
    sync::{Arc, atomic::AtomicBool},
};

use super::{
    Event, State, Workspace, WorkspaceError,
    disk::FoundUpper,
    inner::Inner,
    record::{Record, Stood},
    state::{Input, Kind, Move, Phase, Step, transition},
    table::Entry,
    tasks::Patience,
    trash::{self, Rubbish},
};
use crate::{
    dicfuse::Root,
    engine::{MountError, MountPoint, MountSpec, Mounted, PointFault, Upper},
    sys::identity::Identity,
};

/// All that is known of a workspace by whoever acts on it.
pub(super) struct Core {
    /// As it is; the file says the same unless `stale`.
    pub(super) record: Record,
    /// The file says something older than `record`.
    pub(super) stale: bool,
    /// Its directories are there, so there is something to take back.
    pub(super) claimed: bool,
    /// What it stands on; one use is counted for it.
    pub(super) root: Option<Root>,
    /// Whether a user asks for the mount that is being made; a start does not.
    pub(super) requested: bool,
    /// Whether the mount point must be the directory that it was.
    pub(super) same_point: bool,
    /// Whose it is to be, while it is being given away.
    pub(super) heir: Option<Identity>,
    upper: Option<Upper>,
}

/// What crash tests may stop at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moment {
    /// The step is about to be done.
    Before(Step),
    /// The step has been done.
    After(Step),
}

impl Core {
    pub(super) fn new(record: Record) -> Core {
        Core {
            record,
            stale: false,
            claimed: false,
            root: None,
            requested: false,
            same_point: false,
            heir: None,
            upper: None,
        }
    }

    /// The phase; `None` before anything is on disk.
    fn phase(&self) -> Option<&Phase> {
        self.claimed.then_some(&self.record.phase)
    }

    fn kind(&self) -> Kind {
        Kind { ephemeral: self.record.options.ephemeral, read_only: self.record.options.read_only }
    }

    fn work(&self) -> u32 {
        self.record.works.next.saturating_sub(1)
    }

    /// Takes the number of a fresh work directory, and forgets those of other boots.
    fn number_work(&mut self, boot_id: &str) {
        let works = &mut self.record.works;
        if works.boot_id != boot_id {
            boot_id.clone_into(&mut works.boot_id);
            works.since = works.next;
        }
        works.next = works.next.saturating_add(1);
    }
}

impl Inner {
    /// Does what `input` asks for. On an error the workspace stands where the last finished step left it.
    pub(super) async fn perform(
        &self,
        entry: &Entry,
        core: &mut Core,
        input: Input,
        patience: &mut Patience,
    ) -> Result<(), WorkspaceError> {
        let next =
            transition(core.phase(), core.kind(), input).map_err(|refusal| WorkspaceError::WrongState {
                id: entry.id.clone(),
                state: core.record.phase.word().to_owned(),
                hint: refusal.hint.to_owned(),
            })?;
        let mut detached = false;
        for step in &next.steps {
            self.hook.at(Moment::Before(*step)).await;
            if let Err(error) = self.step(entry, core, *step, &next, patience).await {
                self.settle(entry, core, &next, detached).await;
                return Err(error);
            }
            detached |= matches!(step, Step::Unmount { .. } | Step::Detach);
            self.hook.at(Moment::After(*step)).await;
        }
        match next.to {
            // Announced when it was recorded; what follows is told when it is known to stand.
            Some(Phase::Creating | Phase::Mounting) => {}
            Some(phase) => {
                core.record.phase = phase;
                self.announce(entry, core, None);
            }
            None => self.forget(entry, core).await,
        }
        Ok(())
    }

    async fn step(
        &self,
        entry: &Entry,
        core: &mut Core,
        step: Step,
        next: &Move,
        patience: &mut Patience,
    ) -> Result<(), WorkspaceError> {
        match step {
            Step::Claim => {
                let id = entry.id.clone();
                self.on_disk(move |disk| disk.claim(&id)).await?;
                core.claimed = true;
                Ok(())
            }
            Step::Record => self.record(entry, core, next.to.as_ref()).await,
            Step::Prepare => self.prepare(core).await,
            Step::Mount => self.mount_now(core, patience).await,
            Step::RefuseChanges => self.refuse_changes(core).await,
            Step::Unmount { lazy } => self.unmount_now(core, lazy).await,
            Step::Detach => self.detach_now(core).await,
            Step::Discard => self.discard(entry, core).await,
            Step::RefuseHeld => self.refuse_held(core).await,
            Step::HandOver => self.hand_over(entry, core, next.to.as_ref()).await,
        }
    }

    /// After a step failed: the mount may be gone although the move was not finished.
    async fn settle(&self, entry: &Entry, core: &mut Core, next: &Move, detached: bool) {
        // A creation that could not be taken back stays one: the next start takes it back.
        if detached && core.record.phase != Phase::Creating {
            core.record.phase = next.to.clone().unwrap_or(Phase::Unmounted);
            core.stale = true;
            if next.to.is_none()
                && let Err(error) = self.write(core).await
            {
                tracing::warn!(scorpio_workspace = %entry.id, %error, "the record says that it is mounted");
            }
        }
        self.announce(entry, core, None);
    }

    async fn record(&self, entry: &Entry, core: &mut Core, to: Option<&Phase>) -> Result<(), WorkspaceError> {
        let before = core.record.clone();
        if let Some(phase) = to {
            core.record.phase = phase.clone();
        }
        if matches!(to, Some(Phase::Creating | Phase::Mounting)) {
            core.number_work(&self.config.boot_id);
        }
        if let Err(error) = self.write(core).await {
            core.record = before;
            return Err(error);
        }
        self.announce(entry, core, None);
        Ok(())
    }

    /// Writes the record with its new owner; with this one write it is theirs.
    async fn hand_over(
        &self,
        entry: &Entry,
        core: &mut Core,
        to: Option<&Phase>,
    ) -> Result<(), WorkspaceError> {
        let nobody = || WorkspaceError::Tree("there is nobody to give the workspace to".to_owned());
        let heir = core.heir.take().ok_or_else(nobody)?;
        let before = core.record.clone();
        // Nobody reads with the credentials of a former owner.
        core.record.origin = core.record.origin.for_reader(heir.uid);
        core.record.owner = heir;
        core.record.stood = None;
        if let Some(phase) = to {
            core.record.phase = phase.clone();
        }
        if let Err(error) = self.write(core).await {
            core.record = before;
            return Err(error);
        }
        entry.belongs_to(core.record.owner.uid);
        if core.record.origin != before.origin {
            self.release_root(core).await;
        }
        self.announce(entry, core, None);
        Ok(())
    }

    /// Writes the record as it is.
    pub(super) async fn write(&self, core: &mut Core) -> Result<(), WorkspaceError> {
        core.stale = true;
        let record = core.record.clone();
        self.on_disk(move |disk| disk.write(&record)).await?;
        core.stale = false;
        Ok(())
    }

    async fn prepare(&self, core: &mut Core) -> Result<(), WorkspaceError> {
        let (record, work) = (core.record.clone(), core.work());
        let (upper, rubbish) = self.on_disk(move |disk| disk.prepare(&record, work)).await?;
        self.trash.delete(rubbish);
        core.upper = Some(upper);
        Ok(())
    }

    async fn mount_now(&self, core: &mut Core, patience: &mut Patience) -> Result<(), WorkspaceError> {
        // By now it is announced, so that whoever has the host drained either sees it or has it refused.
        if core.requested {
            self.refuse_when_draining()?;
        }
        let spec = self.spec(core)?;
        let mounted = tokio::select! {
            biased;
            () = patience.ends() => return Err(WorkspaceError::Stopping),
            mounted = self.engine.mount(&spec) => mounted?,
        };
        let before = core.record.stood.as_ref().and_then(|stood| stood.point).filter(|_| core.same_point);
        if before.is_some_and(|before| before.ino != mounted.point.ino) {
            self.unmount_quietly(core, mounted.mount_id).await;
            return Err(displaced(core.record.mount_point.clone()).into());
        }
        core.record.stood = Some(self.stood(mounted));
        Ok(())
    }

    fn spec(&self, core: &mut Core) -> Result<MountSpec, WorkspaceError> {
        let missing = |what: &str| WorkspaceError::Tree(format!("the workspace has no {what}"));
        let this_boot = core.record.stood.as_ref().filter(|stood| stood.boot_id == self.config.boot_id);
        Ok(MountSpec {
            workspace: core.record.id.clone(),
            root: core.root.clone().ok_or_else(|| missing("root"))?,
            owner: core.record.owner.clone(),
            stored: core.record.stored,
            point: MountPoint {
                path: core.record.mount_point.clone(),
                // In another boot the device may have another number; the inode is compared when the mount stands.
                expect: this_boot.filter(|_| core.same_point).and_then(|stood| stood.point),
            },
            upper: core.upper.take().ok_or_else(|| missing("upper"))?,
        })
    }

    /// The mount as it is recorded.
    fn stood(&self, mounted: Mounted) -> Stood {
        let boot_id = self.config.boot_id.clone();
        Stood { point: Some(mounted.point), mount_id: mounted.mount_id, boot_id }
    }

    async fn refuse_changes(&self, core: &Core) -> Result<(), WorkspaceError> {
        let id = core.record.id.clone();
        match self.on_disk(move |disk| Ok(disk.upper(&id))).await? {
            FoundUpper::Missing | FoundUpper::Empty { .. } => Ok(()),
            FoundUpper::Changed { .. } => Err(WorkspaceError::UnsavedChanges(core.record.id.clone())),
        }
    }

    async fn unmount_now(&self, core: &Core, lazy: bool) -> Result<(), WorkspaceError> {
        let Some(stood) = &core.record.stood else { return Ok(()) };
        Ok(self.engine.unmount(&core.record.id, stood.mount_id, lazy).await?)
    }

    /// Ends the recorded mount and, while one is being made, whatever mountinfo shows of it.
    async fn detach_now(&self, core: &Core) -> Result<(), WorkspaceError> {
        let stood = core.record.stood.as_ref().filter(|stood| stood.boot_id == self.config.boot_id);
        let mut mounts: Vec<u64> = stood.map(|stood| stood.mount_id).into_iter().collect();
        if core.record.phase != Phase::Mounted {
            mounts = self.mounts_of(core).await;
        }
        for mount_id in mounts {
            if let Err(busy) = self.engine.unmount(&core.record.id, mount_id, false).await {
                tracing::debug!(scorpio_workspace = %core.record.id, error = %busy, "detaching lazily");
                self.engine.unmount(&core.record.id, mount_id, true).await?;
            }
        }
        Ok(())
    }

    async fn mounts_of(&self, core: &Core) -> Vec<u64> {
        match self.survey().await {
            Ok(live) => {
                let own = live.into_iter().filter(|mount| mount.workspace == core.record.id);
                own.map(|mount| mount.mount_id).collect()
            }
            Err(error) => {
                tracing::warn!(scorpio_workspace = %core.record.id, %error, "cannot see whether a mount is left");
                Vec::new()
            }
        }
    }

    async fn unmount_quietly(&self, core: &Core, mount_id: u64) {
        if let Err(error) = self.engine.unmount(&core.record.id, mount_id, true).await {
            tracing::warn!(scorpio_workspace = %core.record.id, mount_id, %error, "a mount that should go stays");
        }
    }

    async fn discard(&self, entry: &Entry, core: &Core) -> Result<(), WorkspaceError> {
        self.announce(entry, core, Some(State::Removing));
        let id = core.record.id.clone();
        let created = core.record.phase != Phase::Creating;
        let rubbish = self.on_disk(move |disk| disk.discard(&id)).await?;
        if created {
            self.trash.delete(rubbish);
            return Ok(());
        }
        // A creation that failed has a few empty directories to go; nothing of it stays when the caller hears of it.
        self.on_disk(move |_| {
            rubbish.iter().for_each(delete_now);
            Ok(())
        })
        .await
    }

    /// Nothing remains but to tell.
    pub(super) async fn forget(&self, entry: &Entry, core: &mut Core) {
        self.release_root(core).await;
        entry.set_deadline(None);
        let known = entry.view().is_some();
        entry.show(None);
        self.table.remove(&entry.id);
        if known {
            self.tell(Event { id: entry.id.clone(), workspace: None });
        }
    }

    pub(super) async fn release_root(&self, core: &mut Core) {
        let Some(root) = core.root.take() else { return };
        let roots = Arc::clone(&self.roots);
        if let Err(error) = tokio::task::spawn_blocking(move || roots.give_back(root.id)).await {
            tracing::warn!(scorpio_root = %root.id, %error, "a root could not be given back");
        }
    }

    /// Shows the workspace as it is now, and tells those who watch if that is news.
    pub(super) fn announce(&self, entry: &Entry, core: &Core, instead: Option<State>) {
        let now = self.view(core, instead);
        if entry.view().as_ref() != Some(&now) {
            entry.show(Some(now.clone()));
            self.tell(Event { id: entry.id.clone(), workspace: Some(self.with_pinning(now)) });
        }
    }

    fn tell(&self, event: Event) {
        // An error says that nobody watches.
        let _ = self.events.send(event);
    }

    /// What others see of `core`.
    pub(super) fn view(&self, core: &Core, instead: Option<State>) -> Workspace {
        let record = &core.record;
        let state = instead.unwrap_or_else(|| State::from(&record.phase));
        let mounted = record.stood.as_ref().filter(|_| state == State::Mounted);
        Workspace {
            id: record.id.clone(),
            owner: record.owner.clone(),
            stored: record.stored,
            origin: record.origin.clone(),
            snapshot: record.snapshot.clone(),
            rev: record.rev.clone(),
            mount_point: record.mount_point.clone(),
            point: record.stood.as_ref().and_then(|stood| stood.point),
            mount_id: mounted.map(|stood| stood.mount_id),
            state,
            options: record.options.clone(),
            created: record.created,
            expires: record.expires,
            upper: self.disk.upper_path(&record.id),
            pinning: None,
        }
    }
}

fn delete_now(rubbish: &Rubbish) {
    if let Err(error) = trash::delete(rubbish, &AtomicBool::new(false)) {
        tracing::warn!(path = rubbish.name, %error, "cannot delete a failed creation; the next start tries again");
    }
}

fn displaced(path: PathBuf) -> MountError {
    let reason = "it is not the directory it was before the host was restarted".to_owned();
    MountError::Point { path, fault: PointFault::Displaced, reason }
}

/// Where a workspace stands that could not be mounted.
pub(super) fn fallen(error: &WorkspaceError) -> Phase {
    let reason = error.to_string();
    match error {
        WorkspaceError::Mount(MountError::Point { .. }) => Phase::Displaced { reason },
        _ => Phase::Failed { reason },
    }
}
