//! `scorpioctl logs`: the daemon's diary, by way of journalctl.

use std::{ffi::OsString, fs, io, os::unix::process::CommandExt as _, path::Path, process::Command};

use clap::Args;

use super::{
    Session,
    exit::Exit,
    failure::Failure,
    place::{self, Nearness},
};
use crate::types::WorkspaceId;

const EXAMPLES: &str = "\
Examples:
  scorpioctl logs -f
  scorpioctl logs ~/linux
  scorpioctl logs k3x8d2m5p7qa --json

The journal of a service is read by root and by members of the groups systemd-journal and adm.";

/// The unit whose entries are shown.
const UNIT: &str = "scorpio.service";

/// Where journald keeps what it writes: on disk, or in memory.
const JOURNALS: [&str; 2] = ["/var/log/journal", "/run/log/journal"];

/// Show what the daemon wrote into the journal, of one workspace or of all.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Logs {
    /// Only entries about this one: its id, or a directory in it
    #[arg(value_name = "ID|DIR")]
    workspace: Option<OsString>,

    /// Go on as new entries come
    #[arg(long, short)]
    follow: bool,
}

impl Logs {
    /// Runs the verb: becomes journalctl.
    pub(crate) async fn run(self, session: &Session) -> Result<Exit, Failure> {
        let id = match &self.workspace {
            Some(text) => Some(id(session, text).await?),
            None => None,
        };
        may_read_journal(&JOURNALS.map(Path::new))?;
        let error = Command::new("journalctl")
            .args(arguments(id.as_deref(), self.follow, session.screen.json))
            .exec();
        let why = match error.kind() {
            io::ErrorKind::NotFound => "journalctl is not installed: there is no systemd here".to_owned(),
            _ => error.to_string(),
        };
        Err(Failure::new(Exit::Failed, "the journal cannot be shown").because(why))
    }
}

/// An id is taken as it is, so that logs of a workspace can be read when it, or the daemon, is gone.
async fn id(session: &Session, text: &OsString) -> Result<String, Failure> {
    match text.to_str().filter(|text| text.parse::<WorkspaceId>().is_ok()) {
        Some(id) => Ok(id.to_owned()),
        None => Ok(place::workspace(&session.daemon(), text, Nearness::Inside).await?.id),
    }
}

fn arguments(id: Option<&str>, follow: bool, json: bool) -> Vec<String> {
    let mut arguments = vec!["--unit".to_owned(), UNIT.to_owned()];
    if follow {
        arguments.push("--follow".to_owned());
    }
    if json {
        arguments.push("--output=json".to_owned());
    }
    arguments.extend(id.map(|id| format!("SCORPIO_WORKSPACE={id}")));
    arguments
}

/// journalctl shows a user without the right an empty list, which reads like "nothing happened".
fn may_read_journal(directories: &[&Path]) -> Result<(), Failure> {
    let mut seen = false;
    for directory in directories {
        let Ok(machines) = fs::read_dir(directory) else { continue };
        for machine in machines.flatten() {
            let journal = machine.path().join("system.journal");
            match fs::File::open(journal) {
                Ok(_) => return Ok(()),
                Err(error) => seen |= error.kind() == io::ErrorKind::PermissionDenied,
            }
        }
    }
    if !seen {
        return Ok(()); // No journal where we look for it: journalctl knows better.
    }
    Err(Failure::new(Exit::NotAuthorised, "you may not read the journal of services")
        .because("its files can be read by root and the groups systemd-journal and adm")
        .try_this("ask an administrator: usermod -aG systemd-journal YOU, then log in again"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_of_one_workspace_are_matched_by_field() {
        assert_eq!(
            arguments(Some("abcdefghijkm"), true, true),
            ["--unit", "scorpio.service", "--follow", "--output=json", "SCORPIO_WORKSPACE=abcdefghijkm"]
        );
        assert_eq!(arguments(None, false, false), ["--unit", "scorpio.service"]);
    }

    #[test]
    fn a_readable_journal_is_enough_and_none_is_left_to_journalctl() {
        let place = tempfile::tempdir().unwrap();
        assert_eq!(may_read_journal(&[place.path()]), Ok(()));
        fs::create_dir(place.path().join("machine")).unwrap();
        fs::write(place.path().join("machine/system.journal"), "").unwrap();
        assert_eq!(may_read_journal(&[place.path()]), Ok(()));
    }
}
