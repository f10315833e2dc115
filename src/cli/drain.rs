//! `scorpioctl drain`: no new mounts on this host; who is left.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use clap::Args;
use serde::Serialize;

use super::{
    Session,
    daemon::{Daemon, state_word},
    exit::Exit,
    failure::Failure,
    list::owner,
    text::columns,
};
use crate::api::{DrainView, Health, WorkspaceState, WorkspaceView, method};

/// How often to look whether anybody is left: people unmount, and nobody waits for the last moment.
const POLL: Duration = Duration::from_millis(500);

const EXAMPLES: &str = "\
Examples:
  scorpioctl drain                  no new mounts from now on; who has some
  scorpioctl drain --timeout 30m    wait until they have unmounted; ends with 6 if some have not
  scorpioctl drain --undo           mounts are taken again";

/// Take no new mounts on this host; needs the right to manage others' workspaces.
///
/// What is mounted stays until its user unmounts it, and comes back after a restart or reboot. New workspaces, and mounts of
/// kept ones, are refused until `drain --undo`, over restarts and reboots too.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Drain {
    /// Take mounts again
    #[arg(long, conflicts_with = "timeout")]
    undo: bool,

    /// Wait so long until nothing is mounted any more
    #[arg(long, value_name = "TIME", value_parser = time)]
    timeout: Option<Duration>,
}

fn time(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_| "write a time such as 0s, 90s or 2h".to_owned())
}

/// What `--json` shows.
#[derive(Serialize)]
struct Report<'a> {
    #[serde(flatten)]
    drain: &'a DrainView,
    /// Those that are mounted.
    left: Vec<WorkspaceView>,
}

impl Drain {
    /// Runs the verb.
    pub(crate) async fn run(self, session: &Session) -> Result<Exit, Failure> {
        let daemon = session.daemon();
        if self.undo {
            let ended: DrainView = daemon.ask(method::DRAIN_END).await?;
            session.screen.note("mounts are taken again");
            return report(session, &ended, Vec::new());
        }
        let begun: DrainView = daemon.ask(method::DRAIN_BEGIN).await?;
        session.screen.note("no new mounts are taken on this host; `scorpioctl drain --undo` ends that");
        if let Some(timeout) = self.timeout {
            let spinner = session.spinner("waiting until nothing is mounted");
            let waited = wait(&daemon, timeout).await;
            spinner.finish_and_clear();
            waited?;
        }
        let left = mounted(&daemon).await?;
        let is_over = left.is_empty() || self.timeout.is_none();
        report(session, &begun, left)?;
        Ok(if is_over { Exit::Ok } else { Exit::Conflict })
    }
}

fn report(session: &Session, drain: &DrainView, left: Vec<WorkspaceView>) -> Result<Exit, Failure> {
    let left_over = left.len();
    let drain = DrainView { mounted: left_over as u64, ..drain.clone() };
    if left_over > 0 || session.screen.json {
        session.screen.data(&Report { drain: &drain, left }, |report| table(&report.left))?;
    }
    if left_over == 0 && drain.draining {
        session.screen.note("nothing is mounted");
    }
    Ok(Exit::Ok)
}

/// Until nothing is mounted, or the time is over.
async fn wait(daemon: &Daemon, timeout: Duration) -> Result<(), Failure> {
    let end = Instant::now().checked_add(timeout);
    loop {
        let health: Health = daemon.ask(method::HEALTH).await?;
        let there = [WorkspaceState::Mounted, WorkspaceState::Mounting];
        let is_left = there.into_iter().any(|state| health.workspaces.contains_key(state_word(state)));
        let time_left = end.map_or(POLL, |end| end.saturating_duration_since(Instant::now()));
        if !is_left || time_left.is_zero() {
            return Ok(());
        }
        tokio::time::sleep(POLL.min(time_left)).await;
    }
}

async fn mounted(daemon: &Daemon) -> Result<Vec<WorkspaceView>, Failure> {
    let mut all = daemon.workspaces(true, &BTreeMap::new()).await?;
    all.retain(|workspace| matches!(workspace.state, WorkspaceState::Mounted | WorkspaceState::Mounting));
    Ok(all)
}

fn table(left: &[WorkspaceView]) -> String {
    let row = |workspace: &WorkspaceView| {
        vec![
            owner(workspace),
            workspace.id.clone(),
            state_word(workspace.state).to_owned(),
            workspace.mount_point.clone(),
        ]
    };
    columns(&["USER", "ID", "STATE", "MOUNT POINT"], left.iter().map(row))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::list::tests::workspace;

    #[test]
    fn who_is_left_is_listed_by_name() {
        assert_eq!(
            table(&[workspace()]),
            "USER   ID            STATE    MOUNT POINT\n\
             alice  abcdefghijkm  mounted  /home/alice/usb"
        );
    }

    #[test]
    fn the_states_counted_in_health_are_those_of_the_contract() {
        for state in [WorkspaceState::Mounted, WorkspaceState::Mounting] {
            assert_eq!(serde_json::to_value(state).unwrap(), state_word(state));
        }
    }
}
