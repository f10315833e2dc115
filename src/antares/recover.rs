//! What a start has to do, from what it finds. Pure: records, uppers and mounts in, one plan per workspace out.

use super::{
    disk::{FoundRecord, FoundUpper},
    record::Record,
    state::Phase,
};
use crate::{engine::LiveMount, types::WorkspaceId};

/// What was found of one workspace.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) id: WorkspaceId,
    pub(super) record: FoundRecord,
    pub(super) upper: FoundUpper,
    pub(super) mounts: Vec<LiveMount>,
}

/// The time and boot a plan is made in.
#[derive(Clone, Debug)]
pub(super) struct Circumstances {
    pub(super) boot_id: String,
    /// Seconds since 1970.
    pub(super) now: u64,
}

/// What to do about one workspace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) id: WorkspaceId,
    /// Mounts to detach first.
    pub(super) detach: Vec<u64>,
    pub(super) then: Then,
}

/// How to go on with a workspace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Then {
    /// Its mount is alive and stays.
    Keep {
        /// The mount.
        mount_id: u64,
    },
    /// Mount it again.
    Mount,
    /// Keep it unmounted.
    Rest,
    /// Finish its removal, or undo its creation: nothing of it stays.
    Remove,
    /// Leave it alone and list it.
    Orphan {
        /// Why.
        reason: String,
    },
}

/// Plans for all that was found, in the same order.
pub(super) fn plan(found: &[Found], at: &Circumstances) -> Vec<Plan> {
    found.iter().map(|found| plan_one(found, at)).collect()
}

fn plan_one(found: &Found, at: &Circumstances) -> Plan {
    let then = judge(found, at);
    let stays = |mount: &LiveMount| match &then {
        Then::Keep { mount_id } => {
            mount.mount_id == *mount_id || (mount.alive && !stacked(mount, *mount_id, found))
        }
        // Somebody may be working in it, and only its record is in doubt.
        Then::Orphan { .. } => mount.alive,
        Then::Mount | Then::Rest | Then::Remove => false,
    };
    let detach = found.mounts.iter().filter(|mount| !stays(mount)).map(|mount| mount.mount_id).collect();
    Plan { id: found.id.clone(), detach, then }
}

/// Whether `mount` lies on the same directory as the one that is kept; elsewhere it is an administrator's bind mount.
fn stacked(mount: &LiveMount, kept: u64, found: &Found) -> bool {
    found.mounts.iter().any(|other| other.mount_id == kept && other.path == mount.path)
}

fn judge(found: &Found, at: &Circumstances) -> Then {
    match &found.record {
        FoundRecord::Bad(reason) => orphan(&reason.to_string()),
        FoundRecord::Missing if found.upper == FoundUpper::Missing => Then::Remove,
        FoundRecord::Missing => orphan("it has no record"),
        FoundRecord::Good(record) if record.options.ephemeral => throw_away(found, record, at),
        FoundRecord::Good(record) if record.phase == Phase::Creating => unacknowledged(found, record, at),
        FoundRecord::Good(record) if found.upper == FoundUpper::Missing && !record.options.read_only => {
            orphan("its upper is gone; if it lies on a file system of its own, is that mounted?")
        }
        FoundRecord::Good(record) => acknowledged(found, record, at),
    }
}

/// It lives as long as its mount does.
fn throw_away(found: &Found, record: &Record, at: &Circumstances) -> Then {
    let acknowledged = !matches!(record.phase, Phase::Creating | Phase::Unmounted);
    let alive = acknowledged.then(|| alive(found, record, at)).flatten();
    alive.map_or(Then::Remove, |mount_id| Then::Keep { mount_id })
}

/// Nobody was told that it exists, so it goes, unless somebody found it and wrote into it.
fn unacknowledged(found: &Found, record: &Record, at: &Circumstances) -> Then {
    let written = !record.options.read_only && matches!(found.upper, FoundUpper::Changed { .. });
    match (written, alive(found, record, at)) {
        (false, _) => Then::Remove,
        (true, Some(mount_id)) => Then::Keep { mount_id },
        (true, None) => orphan("it was never finished, but something was written into it"),
    }
}

fn acknowledged(found: &Found, record: &Record, at: &Circumstances) -> Then {
    if record.phase == Phase::Unmounted {
        return Then::Rest;
    }
    let expired = record.expires.is_some_and(|end| super::record::seconds(end) <= at.now);
    match alive(found, record, at) {
        Some(mount_id) => Then::Keep { mount_id },
        None if expired => Then::Rest,
        None => Then::Mount,
    }
}

/// The living mount to keep: the recorded one, else the topmost where it should be, else any.
fn alive(found: &Found, record: &Record, at: &Circumstances) -> Option<u64> {
    let stood = record.stood.as_ref().filter(|stood| stood.boot_id == at.boot_id);
    let rank = |mount: &&LiveMount| {
        let recorded = stood.is_some_and(|stood| stood.mount_id == mount.mount_id);
        (recorded, mount.path == record.mount_point, mount.mount_id)
    };
    found.mounts.iter().filter(|mount| mount.alive).max_by_key(rank).map(|mount| mount.mount_id)
}

fn orphan(reason: &str) -> Then {
    Then::Orphan { reason: reason.to_owned() }
}

#[cfg(test)]
mod tests;
