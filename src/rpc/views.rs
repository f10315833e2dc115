//! What the layers below know → what the contract shows.

use std::time::{Duration, SystemTime};

use super::backends::LogLevel;
use crate::{
    antares::{Orphan, State, Usage, Workspace},
    api::{LogLevelView, OrphanView, PinState, SessionCounters, UsageView, WorkspaceState, WorkspaceView},
    auth::accounts::Accounts,
    engine::SessionReport,
    store::Pinned,
    sys::idmap::Ids,
};

/// The last second that RFC 3339 has four digits of a year for: 9999-12-31T23:59:59Z.
const LAST_SECOND: u64 = 253_402_300_799;

/// A workspace, with its owner's name where that can be had.
pub(super) async fn workspace(workspace: Workspace, accounts: &Accounts) -> WorkspaceView {
    let user = accounts.user_name(workspace.owner.uid).await;
    let (state, reason) = state(workspace.state);
    let stored = Some(workspace.stored).filter(|stored| *stored != Ids::from(&workspace.owner));
    WorkspaceView {
        id: workspace.id.to_string(),
        state,
        reason,
        uid: workspace.owner.uid,
        user,
        origin: workspace.origin.configured().to_string(),
        stored_uid: stored.map(|ids| ids.uid),
        stored_gid: stored.map(|ids| ids.gid),
        path: workspace.snapshot.path.to_string(),
        rev: workspace.rev,
        commit: workspace.snapshot.commit.to_string(),
        tree: workspace.snapshot.tree.to_string(),
        mount_point: workspace.mount_point.to_string_lossy().into_owned(),
        ephemeral: workspace.options.ephemeral,
        read_only: workspace.options.read_only,
        labels: workspace.options.labels,
        created: rfc3339(workspace.created),
        expires: workspace.expires.map(rfc3339),
        pinned: workspace.pinning.map(|pinning| pin_state(pinning.state)),
        pinned_trees: workspace.pinning.map(|pinning| pinning.trees),
    }
}

fn pin_state(pinned: Pinned) -> PinState {
    match pinned {
        Pinned::Walking => PinState::Walking,
        Pinned::Yes => PinState::Yes,
        Pinned::Broken => PinState::Broken,
    }
}

fn state(state: State) -> (WorkspaceState, Option<String>) {
    match state {
        State::Mounting => (WorkspaceState::Mounting, None),
        State::Mounted => (WorkspaceState::Mounted, None),
        State::Unmounted => (WorkspaceState::Unmounted, None),
        State::Displaced { reason } => (WorkspaceState::Displaced, Some(reason)),
        State::Failed { reason } => (WorkspaceState::Failed, Some(reason)),
        State::Removing => (WorkspaceState::Removing, None),
    }
}

/// A state's name as JSON shows it.
pub(super) fn state_name(state: &State) -> &'static str {
    match state {
        State::Mounting => "mounting",
        State::Mounted => "mounted",
        State::Unmounted => "unmounted",
        State::Displaced { .. } => "displaced",
        State::Failed { .. } => "failed",
        State::Removing => "removing",
    }
}

/// What lies in a workspace's upper.
pub(super) async fn usage(workspace: &Workspace, usage: Usage, accounts: &Accounts) -> UsageView {
    UsageView {
        id: workspace.id.to_string(),
        uid: workspace.owner.uid,
        user: accounts.user_name(workspace.owner.uid).await,
        mount_point: workspace.mount_point.to_string_lossy().into_owned(),
        bytes: usage.bytes,
        inodes: usage.inodes,
        partial: usage.partial,
    }
}

pub(super) fn orphan(orphan: Orphan) -> OrphanView {
    OrphanView {
        id: orphan.id.to_string(),
        path: orphan.path.to_string_lossy().into_owned(),
        uid: orphan.uid,
        reason: orphan.reason,
    }
}

pub(super) fn session(report: SessionReport) -> (String, SessionCounters) {
    let stats = report.stats;
    let counters = SessionCounters {
        requests: stats.reads,
        by_opcode: stats.by_opcode.into_iter().map(|(name, count)| (name.to_owned(), count)).collect(),
        parked: stats.parked,
        refused: stats.refused,
        interrupted: stats.interrupted,
        queued: report.queued,
    };
    (report.name, counters)
}

pub(super) fn log_level(level: LogLevel) -> LogLevelView {
    let LogLevel { level, configured, until } = level;
    LogLevelView { level, configured, ends: until.map(rfc3339) }
}

/// A time from a record may be anything; what cannot be written is shown as the nearest that can.
pub(super) fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let shown = SystemTime::UNIX_EPOCH + since.min(Duration::from_secs(LAST_SECOND));
    humantime::format_rfc3339_seconds(shown).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_time_can_be_shown() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(rfc3339(at(1_700_000_000)), "2023-11-14T22:13:20Z");
        assert_eq!(rfc3339(at(1 << 60)), "9999-12-31T23:59:59Z");
        assert_eq!(rfc3339(SystemTime::UNIX_EPOCH - Duration::from_secs(1)), "1970-01-01T00:00:00Z");
    }

    #[test]
    fn a_states_name_is_the_one_that_json_shows() {
        let reason = String::new();
        for given in [
            State::Mounting,
            State::Mounted,
            State::Unmounted,
            State::Displaced { reason: reason.clone() },
            State::Failed { reason },
            State::Removing,
        ] {
            let name = state_name(&given);
            assert_eq!(serde_json::to_value(state(given).0).unwrap(), name);
        }
    }
}
