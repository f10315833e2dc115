//! `scorpioctl watch`: changes as they happen.

use std::ffi::OsString;

use clap::Args;

use super::{
    Session,
    daemon::{self, state_word},
    exit::Exit,
    failure::Failure,
    place::{self, Nearness},
    text::plain,
};
use crate::api::{WatchWorkspaces, WorkspaceEvent};

const EXAMPLES: &str = "\
Examples:
  scorpioctl watch
  scorpioctl watch ~/linux --json | jq -r .event

Ends when the workspace is gone (0), the daemon stops (5), or you press Ctrl-C. Status 8 says that events were missed.";

/// Follow your workspaces, or one of them: first as they are, then every change.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Watch {
    /// Only this one: its id, or its mount point
    #[arg(value_name = "ID|DIR")]
    workspace: Option<OsString>,
}

impl Watch {
    /// Runs the verb.
    pub(crate) async fn run(self, session: &Session) -> Result<Exit, Failure> {
        let daemon = session.daemon();
        let id = match self.workspace {
            Some(text) => Some(place::workspace(&daemon, &text, Nearness::Inside).await?.id),
            None => None,
        };
        let mut events = daemon.watch(&WatchWorkspaces { id }).await?;
        let mut missed = false;
        while let Some(event) = events.next().await {
            let event = event.map_err(daemon::failure)?;
            session.screen.data(&event, line)?;
            match event {
                WorkspaceEvent::End { reason } => return end(&reason, missed),
                WorkspaceEvent::Lagged { .. } => missed = true,
                WorkspaceEvent::State { .. } | WorkspaceEvent::Gone { .. } => {}
            }
        }
        Ok(Exit::Ok)
    }
}

fn end(reason: &str, missed: bool) -> Result<Exit, Failure> {
    match reason {
        "stopping" => {
            Err(Failure::new(Exit::Unreachable, "the daemon is stopping")
                .try_this("watch again when it is back"))
        }
        _ if missed => Ok(Exit::Partial),
        _ => Ok(Exit::Ok),
    }
}

fn line(event: &WorkspaceEvent) -> String {
    let text = match event {
        WorkspaceEvent::State { workspace } => {
            let reason = workspace.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
            format!("{} {} at {}{reason}", workspace.id, state_word(workspace.state), workspace.mount_point)
        }
        WorkspaceEvent::Gone { id } => format!("{id} gone"),
        WorkspaceEvent::Lagged { missed } => format!("{missed} events were missed; see: scorpioctl list"),
        WorkspaceEvent::End { reason } => format!("over: {reason}"),
    };
    plain(&text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::list::tests::workspace;

    #[test]
    fn each_event_is_a_line() {
        for (event, expected) in [
            (WorkspaceEvent::State { workspace: workspace() }, "abcdefghijkm mounted at /home/alice/usb"),
            (WorkspaceEvent::Gone { id: "abcdefghijkm".into() }, "abcdefghijkm gone"),
            (WorkspaceEvent::Lagged { missed: 7 }, "7 events were missed; see: scorpioctl list"),
            (WorkspaceEvent::End { reason: "gone".into() }, "over: gone"),
        ] {
            assert_eq!(line(&event), expected);
        }
    }

    #[test]
    fn how_it_ends_is_in_the_status() {
        assert_eq!(end("gone", false), Ok(Exit::Ok));
        assert_eq!(end("gone", true), Ok(Exit::Partial));
        assert_eq!(end("stopping", false).map_err(|failure| failure.exit), Err(Exit::Unreachable));
    }
}
