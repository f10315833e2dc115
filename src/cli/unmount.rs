//! `scorpioctl unmount`: out of sight; a durable workspace is kept.

use std::ffi::OsString;

use clap::Args;

use super::{
    Session,
    exit::Exit,
    failure::Failure,
    place::{self, Nearness},
};
use crate::api::{Done, UnmountWorkspace, WorkspaceView, method};

const EXAMPLES: &str = "\
Examples:
  scorpioctl unmount ~/linux
  scorpioctl unmount k3x8d2m5p7qa --lazy    even if processes use it";

/// Unmount a workspace. What you wrote is kept, unless it is ephemeral.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Unmount {
    /// Its id, or its mount point
    #[arg(value_name = "ID|DIR")]
    workspace: OsString,

    /// Even if processes use it: out of sight now, gone when they are
    #[arg(long)]
    lazy: bool,
}

impl Unmount {
    /// Runs the verb.
    pub(crate) async fn run(self, session: &Session) -> Result<Exit, Failure> {
        let daemon = session.daemon();
        let workspace = place::workspace(&daemon, &self.workspace, Nearness::Exact).await?;
        let request = UnmountWorkspace { id: workspace.id.clone(), lazy: self.lazy };
        let _: Done = daemon.call(method::WORKSPACE_UNMOUNT, &request).await?;
        session.done(&workspace.id, "unmounted")?;
        session.screen.notes(&lines(&workspace));
        Ok(Exit::Ok)
    }
}

fn lines(workspace: &WorkspaceView) -> Vec<String> {
    let WorkspaceView { id, mount_point, .. } = workspace;
    if workspace.ephemeral {
        return vec![format!("unmounted {mount_point}; workspace {id} was ephemeral and is gone")];
    }
    vec![
        format!("unmounted {mount_point}; what you wrote is kept in workspace {id}"),
        format!("Mount it again: scorpioctl mount --workspace {id}; take it away: scorpioctl remove {id}"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::list::tests::workspace;

    #[test]
    fn the_user_learns_whether_changes_are_kept() {
        assert_eq!(
            lines(&workspace()),
            [
                "unmounted /home/alice/usb; what you wrote is kept in workspace abcdefghijkm",
                "Mount it again: scorpioctl mount --workspace abcdefghijkm; take it away: scorpioctl remove abcdefghijkm",
            ]
        );
        let ephemeral = WorkspaceView { ephemeral: true, ..workspace() };
        assert_eq!(
            lines(&ephemeral),
            ["unmounted /home/alice/usb; workspace abcdefghijkm was ephemeral and is gone"]
        );
    }
}
