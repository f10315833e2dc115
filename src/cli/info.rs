//! `scorpioctl info`: all that is known of one workspace.

use std::ffi::OsString;

use clap::Args;

use super::{
    Session,
    daemon::state_word,
    exit::Exit,
    failure::Failure,
    list::{owner, source},
    place::{self, Nearness},
    text::fields,
};
use crate::api::{PinState, WorkspaceView};

/// Show one workspace.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  scorpioctl info .\n  scorpioctl info k3x8d2m5p7qa --json")]
pub(crate) struct Info {
    /// Its id, or a directory in it
    #[arg(value_name = "ID|DIR", default_value = ".")]
    workspace: OsString,
}

impl Info {
    /// Runs the verb.
    pub(crate) async fn run(self, session: &Session) -> Result<Exit, Failure> {
        let daemon = session.daemon();
        let workspace = place::workspace(&daemon, &self.workspace, Nearness::Inside).await?;
        session.screen.data(&workspace, text)?;
        Ok(Exit::Ok)
    }
}

fn text(workspace: &WorkspaceView) -> String {
    let labels: Vec<_> = workspace.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let reason = workspace.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    let mut pairs = vec![
        ("Workspace", workspace.id.clone()),
        ("State", format!("{}{reason}", state_word(workspace.state))),
        ("Source", source(workspace)),
        ("Commit", workspace.commit.clone()),
        ("Tree", workspace.tree.clone()),
        ("Mount point", workspace.mount_point.clone()),
        ("Owner", format!("{} (uid {})", owner(workspace), workspace.uid)),
        ("Kind", kind(workspace)),
        ("Created", workspace.created.clone()),
    ];
    pairs.extend(stored(workspace).map(|stored| ("Stored as", stored)));
    pairs.extend(workspace.expires.clone().map(|expires| ("Expires", expires)));
    pairs.extend(pinned(workspace).map(|pinned| ("Pinned", pinned)));
    if !labels.is_empty() {
        pairs.push(("Labels", labels.join(", ")));
    }
    fields(&pairs)
}

fn pinned(workspace: &WorkspaceView) -> Option<String> {
    let trees = workspace.pinned_trees.unwrap_or_default();
    Some(match workspace.pinned? {
        PinState::Walking => format!("not yet, {trees} directories listed"),
        PinState::Yes => format!("yes, {trees} directories"),
        PinState::Broken => {
            "no: some directories had moved on before they were listed; unmount, and mount the present state"
                .into()
        }
    })
}

/// The ids on disk, where they are not the owner's.
fn stored(workspace: &WorkspaceView) -> Option<String> {
    let (uid, gid) = workspace.stored_uid.zip(workspace.stored_gid)?;
    Some(format!("uid {uid}, gid {gid} (it was given)"))
}

fn kind(workspace: &WorkspaceView) -> String {
    let life = if workspace.ephemeral { "ephemeral" } else { "durable" };
    let access = if workspace.read_only { "read-only" } else { "writable" };
    format!("{life}, {access}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{api::WorkspaceState, cli::list::tests::workspace};

    #[test]
    fn how_far_the_pinning_is_is_shown_where_it_is_needed() {
        let line = |pinned| {
            let shown = text(&WorkspaceView { pinned, pinned_trees: pinned.map(|_| 7), ..workspace() });
            shown.lines().find_map(|line| line.strip_prefix("Pinned:")).map(|line| line.trim().to_owned())
        };
        assert_eq!(line(None), None);
        assert_eq!(line(Some(PinState::Walking)).as_deref(), Some("not yet, 7 directories listed"));
        assert_eq!(line(Some(PinState::Yes)).as_deref(), Some("yes, 7 directories"));
        let broken =
            "no: some directories had moved on before they were listed; unmount, and mount the present state";
        assert_eq!(line(Some(PinState::Broken)).as_deref(), Some(broken));
    }

    #[test]
    fn one_workspace_is_shown_whole() {
        let displaced = WorkspaceView {
            state: WorkspaceState::Displaced,
            reason: Some("the directory is not empty".into()),
            expires: Some("2026-01-09T03:04:05Z".into()),
            ..workspace()
        };
        assert_eq!(
            text(&displaced),
            "Workspace:   abcdefghijkm\n\
             State:       displaced: the directory is not empty\n\
             Source:      linux:drivers/usb@v6.12\n\
             Commit:      adc218676eef25575469234709c2d87185ca223a\n\
             Tree:        4b825dc642cb6eb9a060e54bf8d69288fbee4904\n\
             Mount point: /home/alice/usb\n\
             Owner:       alice (uid 1000)\n\
             Kind:        durable, writable\n\
             Created:     2026-01-02T03:04:05Z\n\
             Expires:     2026-01-09T03:04:05Z\n\
             Labels:      build=1742"
        );
    }

    #[test]
    fn ids_on_disk_are_shown_where_they_are_not_the_owners() {
        let given = WorkspaceView { stored_uid: Some(1000), stored_gid: Some(100), ..workspace() };
        assert!(
            text(&given).contains("\nStored as:   uid 1000, gid 100 (it was given)\n"),
            "{}",
            text(&given)
        );
        assert!(!text(&workspace()).contains("Stored as"));
    }
}
