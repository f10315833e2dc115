//! `scorpioctl remove`: a workspace is taken away for good.

use std::ffi::OsString;

use clap::Args;

use super::{
    Session,
    exit::Exit,
    failure::Failure,
    list::source,
    place::{self, Nearness},
};
use crate::api::{Done, RemoveWorkspace, WorkspaceView, method};

const EXAMPLES: &str = "\
Examples:
  scorpioctl remove ~/linux                    refused while it holds changes
  scorpioctl export ~/linux -o linux.patch     save them
  scorpioctl remove ~/linux --discard --yes    throw them away without being asked";

/// Take a workspace away for good, mounted or not.
///
/// A workspace that holds changes is only removed with --discard. On a terminal you are asked first.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Remove {
    /// Its id, or its mount point
    #[arg(value_name = "ID|DIR")]
    workspace: OsString,

    /// Even if it holds changes: they are lost
    #[arg(long)]
    discard: bool,

    /// Even if processes use it
    #[arg(long)]
    lazy: bool,

    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

impl Remove {
    /// Runs the verb.
    pub(crate) async fn run(self, session: &Session) -> Result<Exit, Failure> {
        let daemon = session.daemon();
        let workspace = place::workspace(&daemon, &self.workspace, Nearness::Exact).await?;
        if !session.confirm(self.yes, &question(&workspace, self.discard))? {
            return Ok(Exit::Failed);
        }
        let request = RemoveWorkspace { id: workspace.id.clone(), discard: self.discard, lazy: self.lazy };
        let _: Done = daemon.call(method::WORKSPACE_REMOVE, &request).await?;
        session.done(&workspace.id, "removed")?;
        session.screen.note(&format!("removed workspace {}", workspace.id));
        Ok(Exit::Ok)
    }
}

fn question(workspace: &WorkspaceView, discard: bool) -> String {
    let changes = if discard { " and all that was written in it" } else { "" };
    format!(
        "Remove workspace {} ({} at {}){changes} for good?",
        workspace.id,
        source(workspace),
        workspace.mount_point
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::list::tests::workspace;

    #[test]
    fn the_question_says_what_would_be_lost() {
        assert_eq!(
            question(&workspace(), true),
            "Remove workspace abcdefghijkm (linux:drivers/usb@v6.12 at /home/alice/usb) and all that was written in it for good?"
        );
        assert!(!question(&workspace(), false).contains("written"));
    }
}
