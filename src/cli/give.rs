//! `scorpioctl give`: hand a workspace over to another user.

use std::{ffi::OsString, path::PathBuf};

use clap::Args;

use super::{
    Session,
    daemon::Daemon,
    exit::Exit,
    failure::Failure,
    list::owner,
    place::{self, Nearness},
};
use crate::api::{GiveWorkspace, MountWorkspace, WhoAmI, WorkspaceView, method};

const EXAMPLES: &str = "\
Examples:
  scorpioctl give k3x8d2m5p7qa bob                              bob mounts it where he likes
  sudo scorpioctl give /srv/ci/job alice --at /home/alice/job   and it is there at once
  sudo scorpioctl give k3x8d2m5p7qa 5001                        the same person under a new uid";

/// Give a workspace to another user, with all that was written in it; needs the right to, which owners do not have.
///
/// Nothing is copied or changed on disk, however much it is: it goes on counting for the disk quota of whoever made it. It
/// is unmounted first, which is refused while a process uses it. From then on it is USER's alone, who mounts it with
/// `scorpioctl mount --workspace ID DIR`. An ephemeral workspace cannot be given.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Give {
    /// Its id, or its mount point
    #[arg(value_name = "ID|DIR")]
    workspace: OsString,

    /// Who gets it: the name or number of an account of this host
    #[arg(value_name = "USER")]
    user: String,

    /// Mount it there at once: an empty directory of USER's; needs the right to manage others' workspaces
    #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    at: Option<PathBuf>,
}

impl Give {
    /// Runs the verb.
    pub(crate) async fn run(self, session: &Session) -> Result<Exit, Failure> {
        let daemon = session.daemon();
        let found = place::workspace(&daemon, &self.workspace, Nearness::Exact).await?;
        let at = match &self.at {
            Some(dir) => Some(mount_point(&daemon, dir).await?),
            None => None,
        };
        let request = GiveWorkspace { id: found.id.clone(), user: self.user };
        let mut given: WorkspaceView = daemon.call(method::WORKSPACE_GIVE, &request).await?;
        if let Some(at) = at {
            let request = MountWorkspace { id: given.id.clone(), mount_point: Some(at) };
            given = daemon
                .call(method::WORKSPACE_MOUNT, &request)
                .await
                .map_err(|failure| given_all_the_same(&given, failure))?;
        }
        session.screen.data(&given, |workspace| workspace.id.clone())?;
        session.screen.notes(&lines(&found, &given, self.at.is_some()));
        Ok(Exit::Ok)
    }
}

/// Where to mount it at once, found out before anything is given: it must be there, and the caller may mount for others.
async fn mount_point(daemon: &Daemon, dir: &std::path::Path) -> Result<String, Failure> {
    let who: WhoAmI = daemon.ask(method::WHO_AM_I).await?;
    if !(who.may_mount && who.may_manage_others) {
        let refused = Failure::new(Exit::NotAuthorised, "you may not mount workspaces of others");
        return Err(refused.try_this("leave --at out: whom it is given to says where it is mounted"));
    }
    let path = place::locate(&place::absolute(dir)?, &[], &|path| std::fs::read_link(path).ok());
    let text = path.into_os_string().into_string();
    text.map_err(|_| Failure::new(Exit::Usage, "DIR is not UTF-8 text"))
}

/// The first half was done and stays done.
fn given_all_the_same(given: &WorkspaceView, failure: Failure) -> Failure {
    let why = format!("workspace {} is {}'s now, but not mounted", given.id, owner(given));
    Failure { why: Some(why), ..failure }
}

fn lines(before: &WorkspaceView, given: &WorkspaceView, mounted: bool) -> Vec<String> {
    let (id, from, to) = (&given.id, owner(before), owner(given));
    let mut lines = vec![format!("workspace {id} of {from} is {to}'s now")];
    if mounted {
        lines.push(format!("mounted at {}", given.mount_point));
    } else {
        lines.push(format!("{to} mounts it: scorpioctl mount --workspace {id} DIR"));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::list::tests::workspace;

    fn bobs() -> WorkspaceView {
        let (stored_uid, stored_gid) = (Some(1000), Some(100));
        WorkspaceView { uid: 2000, user: Some("bob".into()), stored_uid, stored_gid, ..workspace() }
    }

    #[test]
    fn the_giver_learns_whose_it_is_and_what_is_left_to_do() {
        assert_eq!(
            lines(&workspace(), &bobs(), false),
            [
                "workspace abcdefghijkm of alice is bob's now",
                "bob mounts it: scorpioctl mount --workspace abcdefghijkm DIR"
            ]
        );
        assert_eq!(lines(&workspace(), &bobs(), true)[1], "mounted at /home/alice/usb");
    }

    #[test]
    fn a_mount_that_fails_afterwards_does_not_hide_that_it_was_given() {
        let failure =
            given_all_the_same(&bobs(), Failure::new(Exit::Failed, "cannot mount at /x: it is not empty"));
        assert_eq!(
            failure.lines(),
            [
                "cannot mount at /x: it is not empty",
                "  why: workspace abcdefghijkm is bob's now, but not mounted"
            ]
        );
    }
}
