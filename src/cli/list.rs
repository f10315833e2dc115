//! `scorpioctl list`: workspaces, one a line.

use clap::Args;

use super::{Session, daemon::state_word, exit::Exit, failure::Failure, mount::label, text::columns};
use crate::api::WorkspaceView;

const EXAMPLES: &str = "\
Examples:
  scorpioctl list
  scorpioctl list --label build=1742
  scorpioctl list --json | jq -r '.[] | select(.state != \"mounted\") | .id'";

/// List your workspaces, mounted or kept.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct List {
    /// Those of all users; needs the right to manage others' workspaces
    #[arg(long, short)]
    all: bool,

    /// Only those with this label; may be given several times
    #[arg(long, value_name = "KEY=VALUE", value_parser = label)]
    label: Vec<(String, String)>,
}

impl List {
    /// Runs the verb.
    pub(crate) async fn run(self, session: &Session) -> Result<Exit, Failure> {
        let daemon = session.daemon();
        let workspaces = daemon.workspaces(self.all, &self.label.into_iter().collect()).await?;
        session.screen.data(&workspaces, |workspaces| table(workspaces, self.all))?;
        if workspaces.is_empty() && !session.screen.json {
            session.screen.note("There are none. scorpioctl origins lists what you may mount.");
        }
        Ok(Exit::Ok)
    }
}

fn table(workspaces: &[WorkspaceView], with_user: bool) -> String {
    let header = ["ID", "STATE", "SOURCE", "MOUNT POINT", "USER"];
    let shown = if with_user { header.len() } else { header.len() - 1 };
    let rows = workspaces.iter().map(|workspace| {
        let mut row = vec![
            workspace.id.clone(),
            state_word(workspace.state).to_owned(),
            source(workspace),
            workspace.mount_point.clone(),
            owner(workspace),
        ];
        row.truncate(shown);
        row
    });
    columns(&header[..shown], rows)
}

/// `ORIGIN:PATH@REV`, as `mount` takes it.
pub(crate) fn source(workspace: &WorkspaceView) -> String {
    let rev = workspace.rev.as_ref().map(|rev| format!("@{rev}")).unwrap_or_default();
    format!("{}:{}{rev}", workspace.origin, workspace.path)
}

/// The owner's name, or the number where there is none.
pub(crate) fn owner(workspace: &WorkspaceView) -> String {
    workspace.user.clone().unwrap_or_else(|| workspace.uid.to_string())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::api::WorkspaceState;

    /// A workspace of alice's.
    pub(crate) fn workspace() -> WorkspaceView {
        WorkspaceView {
            id: "abcdefghijkm".into(),
            state: WorkspaceState::Mounted,
            reason: None,
            uid: 1000,
            user: Some("alice".into()),
            stored_uid: None,
            stored_gid: None,
            origin: "linux".into(),
            path: "drivers/usb".into(),
            rev: Some("v6.12".into()),
            commit: "adc218676eef25575469234709c2d87185ca223a".into(),
            tree: "4b825dc642cb6eb9a060e54bf8d69288fbee4904".into(),
            mount_point: "/home/alice/usb".into(),
            ephemeral: false,
            read_only: false,
            labels: [("build".into(), "1742".into())].into(),
            created: "2026-01-02T03:04:05Z".into(),
            expires: None,
            pinned: None,
            pinned_trees: None,
        }
    }

    #[test]
    fn a_list_has_one_aligned_line_for_each() {
        let other = WorkspaceView {
            id: "nopqrstuvwxy".into(),
            state: WorkspaceState::Displaced,
            user: None,
            rev: None,
            path: String::new(),
            mount_point: "/home/alice/a\nb".into(),
            ..workspace()
        };
        let both = [workspace(), other];
        assert_eq!(
            table(&both, false),
            "ID            STATE      SOURCE                   MOUNT POINT\n\
             abcdefghijkm  mounted    linux:drivers/usb@v6.12  /home/alice/usb\n\
             nopqrstuvwxy  displaced  linux:                   /home/alice/a\\nb"
        );
        assert_eq!(
            table(&both[..1], true),
            "ID            STATE    SOURCE                   MOUNT POINT      USER\n\
             abcdefghijkm  mounted  linux:drivers/usb@v6.12  /home/alice/usb  alice"
        );
    }
}
