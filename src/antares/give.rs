//! Handing a workspace over to another account, without touching what was written in it.
//!
//! ```text
//! check the recipient, count it against their limit, try the map      nothing has changed
//! unmount, unless somebody uses it                                    it is not mounted, and still the former owner's
//! refuse while a mount of it lives on where nobody sees it
//! write the record with the new owner                                 this one write decides
//! ```
//!
//! Killed before the last step, the workspace is its former owner's, and mounted again by the next start if it was; after
//! it, it is the recipient's, who says where to mount it. The ids in the upper stay those of the first owner, however
//! often it is given on.

use std::sync::Arc;

use super::{
    Gift, Scope, Workspace, WorkspaceError, driver::Core, inner::Inner, record::Record, state::Input,
};
use crate::{
    sys::{
        identity::Identity,
        idmap::{Ids, Owners},
    },
    telemetry::event,
    types::WorkspaceId,
};

/// See [`super::Antares::give`].
pub(super) async fn give(
    inner: Arc<Inner>,
    scope: Scope,
    id: WorkspaceId,
    gift: Gift,
) -> Result<Workspace, WorkspaceError> {
    let mut held = inner.hold(&scope, &id).await?;
    let entry = Arc::clone(&held.entry);
    let core = held.core();
    let from = core.record.owner.uid;
    let heir = heir(&core.record, gift.to)?;
    let _counted = inner.table.promise(&entry, heir.uid, &inner.limits())?;
    check_map(&inner, core, &heir).await?;
    core.heir = Some(heir);
    let given = inner.perform(&entry, core, Input::Give, &mut inner.patience()).await;
    core.heir = None;
    given?;
    let stored = core.record.stored;
    tracing::info!(
        message_id = event::GIVEN, scorpio_workspace = %id, scorpio_uid = core.record.owner.uid, from_uid = from,
        by_uid = gift.by, stored_uid = stored.uid, stored_gid = stored.gid, "given to another user"
    );
    Ok(inner.view(core, None))
}

/// The recipient as the record will have them, if the workspace may be theirs.
fn heir(record: &Record, to: Identity) -> Result<Identity, WorkspaceError> {
    let refuse = |reason: String| Err(WorkspaceError::BadOption(reason));
    if to.is_root() {
        // What somebody else wrote would look as if root had written it, and tools that trust files by their owner would.
        return refuse("a workspace cannot be given to root, who sees every workspace as it is".to_owned());
    }
    if to.uid == record.owner.uid {
        return refuse(format!("workspace {} belongs to uid {} already", record.id, to.uid));
    }
    let heir = with_stored_group(record.stored, to);
    let ids = Ids::from(&heir);
    Owners::new(record.stored, ids).map_err(|error| WorkspaceError::BadOption(error.to_string()))?;
    Ok(heir)
}

/// Who gets back what is stored as theirs gets it with the group of then, if they still have it.
fn with_stored_group(stored: Ids, to: Identity) -> Identity {
    let has_it = to.uid == stored.uid && to.groups.contains(&stored.gid);
    if has_it { Identity { gid: stored.gid, ..to } } else { to }
}

/// Before anything is unmounted: a recipient who could never mount it must not get it.
async fn check_map(inner: &Inner, core: &Core, heir: &Identity) -> Result<(), WorkspaceError> {
    let owners = Owners::new(core.record.stored, Ids::from(heir));
    let owners = owners.map_err(|error| WorkspaceError::BadOption(error.to_string()))?;
    let dir = inner.disk.upper_dir(&core.record.id);
    let shown = inner.engine.can_show(&dir, &owners).await;
    shown.map_err(|source| WorkspaceError::Disk { action: "show another user's ids in", path: dir, source })
}

impl Inner {
    /// Ends with [`WorkspaceError::Held`] while an overlay stands on the upper, whoever can see it.
    pub(super) async fn refuse_held(&self, core: &Core) -> Result<(), WorkspaceError> {
        let upper = self.disk.upper_path(&core.record.id);
        match self.engine.is_held(&upper).await {
            Ok(false) => Ok(()),
            Ok(true) => Err(WorkspaceError::Held(core.record.id.clone())),
            Err(source) => Err(WorkspaceError::Disk { action: "ask who uses", path: upper, source }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::antares::record::tests::sample;

    fn who(uid: u32, gid: u32, groups: &[u32]) -> Identity {
        Identity { uid, gid, groups: groups.to_vec() }
    }

    #[test]
    fn the_first_owner_gets_the_group_of_then_back_if_it_is_still_theirs() {
        let stored = Ids { uid: 1000, gid: 100 };
        assert_eq!(with_stored_group(stored, who(1000, 1000, &[1000, 100])).gid, 100);
        assert_eq!(with_stored_group(stored, who(1000, 1000, &[1000])).gid, 1000);
        assert_eq!(with_stored_group(stored, who(2000, 2000, &[2000, 100])).gid, 2000);
    }

    #[test]
    fn root_the_owner_and_nobody_at_all_are_no_recipients() {
        let refused = |to| heir(&sample(), to).unwrap_err().to_string();
        assert_eq!(
            refused(Identity::root()),
            "a workspace cannot be given to root, who sees every workspace as it is"
        );
        assert_eq!(refused(who(1000, 7, &[])), "workspace abcdefghijkm belongs to uid 1000 already");
        assert_eq!(refused(who(u32::MAX, 1, &[])), "4294967295 is no id that a file can have");
        assert_eq!(heir(&sample(), who(2000, 200, &[200])).unwrap(), who(2000, 200, &[200]));
    }
}
