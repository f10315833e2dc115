//! `scorpioctl orphans`: changes that no workspace speaks for. For administrators.

use std::{collections::BTreeMap, path::PathBuf};

use clap::{Args, Subcommand};

use super::{
    Session,
    exit::Exit,
    failure::Failure,
    list::source,
    place,
    spec::{self, Spec},
    text::columns,
};
use crate::api::{AdoptOrphan, CreateWorkspace, Done, OrphanView, WorkspaceRef, WorkspaceView, method};

const EXAMPLES: &str = "\
Examples:
  scorpioctl orphans list
  scorpioctl orphans adopt k3x8d2m5p7qa --uid 1000 linux: /home/alice/linux --rev v6.12
  scorpioctl orphans discard k3x8d2m5p7qa";

/// List, adopt or discard changes that lost their workspace; needs the right to manage others' workspaces.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Orphans {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List them
    List,
    /// Make one a workspace again: unmounted, on what it stood on before
    Adopt(Adopt),
    /// Delete one and all that was written in it
    Discard(Discard),
}

#[derive(Debug, Args)]
struct Adopt {
    /// Its id, from `orphans list`
    #[arg(value_name = "ID")]
    id: String,

    /// What it stood on; a revision is given with --rev
    #[arg(value_name = "ORIGIN:PATH")]
    spec: String,

    /// Where its owner will mount it
    #[arg(value_name = "DIR")]
    dir: PathBuf,

    /// Uid of the user who gets it
    #[arg(long, value_name = "UID")]
    uid: u32,

    /// Branch, tag or commit that it stood on
    #[arg(long, value_name = "REV")]
    rev: Option<String>,
}

#[derive(Debug, Args)]
struct Discard {
    /// Its id, from `orphans list`
    #[arg(value_name = "ID")]
    id: String,

    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

impl Orphans {
    /// Runs the verb.
    pub(crate) async fn run(self, session: &Session) -> Result<Exit, Failure> {
        match self.verb {
            Verb::List => list(session).await,
            Verb::Adopt(adopt) => adopt.run(session).await,
            Verb::Discard(discard) => discard.run(session).await,
        }
    }
}

async fn list(session: &Session) -> Result<Exit, Failure> {
    let daemon = session.daemon();
    let orphans: Vec<OrphanView> = daemon.ask(method::ORPHAN_LIST).await?;
    session.screen.data(&orphans, |orphans| table(orphans))?;
    Ok(Exit::Ok)
}

fn table(orphans: &[OrphanView]) -> String {
    let row = |orphan: &OrphanView| {
        vec![orphan.id.clone(), orphan.uid.to_string(), orphan.path.clone(), orphan.reason.clone()]
    };
    columns(&["ID", "UID", "PATH", "REASON"], orphans.iter().map(row))
}

impl Adopt {
    async fn run(self, session: &Session) -> Result<Exit, Failure> {
        let request = self.request()?;
        let daemon = session.daemon();
        let workspace: WorkspaceView = daemon.call(method::ORPHAN_ADOPT, &request).await?;
        session.screen.data(&workspace, |workspace| workspace.id.clone())?;
        session.screen.note(&format!(
            "workspace {} ({}) is there again; its owner mounts it: scorpioctl mount --workspace {}",
            workspace.id,
            source(&workspace),
            workspace.id
        ));
        Ok(Exit::Ok)
    }

    /// The base must be the one that the changes were made on, so nothing is guessed: an `@` belongs to the path.
    fn request(self) -> Result<AdoptOrphan, Failure> {
        let bad = |error: spec::BadSpec| Failure::new(Exit::Usage, error.to_string());
        let with_rev = spec::readings(&self.spec, self.rev.as_deref()).map_err(bad)?;
        let whole = with_rev.into_iter().next_back();
        let Spec { origin, path, rev } =
            whole.ok_or_else(|| Failure::new(Exit::Usage, "ORIGIN:PATH is needed"))?;
        let dir = place::locate(&place::absolute(&self.dir)?, &[], &|path| std::fs::read_link(path).ok());
        let mount_point = dir.into_os_string().into_string();
        let workspace = CreateWorkspace {
            origin: origin.to_string(),
            path,
            rev,
            mount_point: mount_point.map_err(|_| Failure::new(Exit::Usage, "DIR is not UTF-8 text"))?,
            ephemeral: false,
            read_only: false,
            labels: BTreeMap::new(),
            ttl_s: None,
            mode: None,
        };
        Ok(AdoptOrphan { id: self.id, uid: self.uid, workspace })
    }
}

impl Discard {
    async fn run(self, session: &Session) -> Result<Exit, Failure> {
        let question = format!("Delete orphan {} and all that was written in it for good?", self.id);
        if !session.confirm(self.yes, &question)? {
            return Ok(Exit::Failed);
        }
        let daemon = session.daemon();
        let _: Done = daemon.call(method::ORPHAN_DISCARD, &WorkspaceRef { id: self.id.clone() }).await?;
        session.done(&self.id, "discarded")?;
        session.screen.note(&format!("discarded orphan {}", self.id));
        Ok(Exit::Ok)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orphans_are_listed_with_their_reason() {
        let orphan = OrphanView {
            id: "abcdefghijkm".into(),
            path: "/var/lib/scorpio/workspaces/abcdefghijkm".into(),
            uid: 1000,
            reason: "there is no record".into(),
        };
        assert_eq!(
            table(&[orphan]),
            "ID            UID   PATH                                      REASON\n\
             abcdefghijkm  1000  /var/lib/scorpio/workspaces/abcdefghijkm  there is no record"
        );
    }
}
