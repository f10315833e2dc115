//! `scorpioctl du`: how much was written in workspaces.

use std::ffi::OsString;

use clap::Args;

use super::{
    Session,
    daemon::Daemon,
    exit::Exit,
    failure::Failure,
    place::{self, Nearness},
    text::{bytes, columns},
};
use crate::api::{CacheUsage, MeasureWorkspaces, UsagePage, UsageView, method};

const EXAMPLES: &str = "\
Examples:
  scorpioctl du                 your workspaces, the largest first
  scorpioctl du ~/linux
  sudo scorpioctl du --all      those of all users, and the cache that they share
  scorpioctl du --json | jq '[.workspaces[].bytes] | add'";

/// Show how much was written in workspaces: bytes on disk, and files.
///
/// Only what was written counts; what is the repository's takes nothing of anybody's. It is counted when it is asked for,
/// which takes its time where there are millions of files; `>` marks what was counted in part only.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Du {
    /// Only this one: its id, or a directory in it
    #[arg(value_name = "ID|DIR", conflicts_with = "all")]
    workspace: Option<OsString>,

    /// Those of all users; needs the right to manage others' workspaces
    #[arg(long, short)]
    all: bool,
}

impl Du {
    /// Runs the verb.
    pub(crate) async fn run(self, session: &Session) -> Result<Exit, Failure> {
        let daemon = session.daemon();
        let id = match &self.workspace {
            Some(named) => Some(place::workspace(&daemon, named, Nearness::Inside).await?.id),
            None => None,
        };
        let found =
            measure(&daemon, MeasureWorkspaces { id, all: self.all, after: None, limit: None }).await?;
        session.screen.data(&found, |found| text(found, self.all))?;
        let parts = found.workspaces.iter().filter_map(in_part);
        session.screen.notes(&parts.collect::<Vec<_>>());
        Ok(Exit::Ok)
    }
}

/// All pages as one.
async fn measure(daemon: &Daemon, mut question: MeasureWorkspaces) -> Result<UsagePage, Failure> {
    let mut found = UsagePage { workspaces: Vec::new(), next: None, cache: None };
    loop {
        let page: UsagePage = daemon.call(method::WORKSPACE_USAGE, &question).await?;
        found.workspaces.extend(page.workspaces);
        found.cache = found.cache.or(page.cache);
        match page.next {
            None => return Ok(found),
            // A list that does not go on would be read for ever.
            next if next == question.after => {
                return Err(Failure::new(Exit::Failed, "the daemon repeats itself; its list has no end"));
            }
            next => question.after = next,
        }
    }
}

fn text(found: &UsagePage, with_user: bool) -> String {
    let mut largest: Vec<&UsageView> = found.workspaces.iter().collect();
    largest.sort_by(|one, other| other.bytes.cmp(&one.bytes).then_with(|| one.id.cmp(&other.id)));
    let header = ["ID", "USED", "INODES", "MOUNT POINT", "USER"];
    let shown = if with_user { header.len() } else { header.len() - 1 };
    let rows = largest.iter().map(|usage| {
        let at_least = if usage.partial.is_some() { "> " } else { "" };
        let user = usage.user.clone().unwrap_or_else(|| usage.uid.to_string());
        let mut row = vec![
            usage.id.clone(),
            format!("{at_least}{}", bytes(usage.bytes)),
            format!("{at_least}{}", usage.inodes),
            usage.mount_point.clone(),
            user,
        ];
        row.truncate(shown);
        row
    });
    let mut parts = vec![columns(&header[..shown], rows), total(found)];
    parts.extend(found.cache.as_ref().map(cache));
    parts.join("\n\n")
}

fn total(found: &UsagePage) -> String {
    let sum = |of: fn(&UsageView) -> u64| found.workspaces.iter().map(of).fold(0, u64::saturating_add);
    let (used, inodes) = (sum(|usage| usage.bytes), sum(|usage| usage.inodes));
    format!("{} workspaces take {} and {inodes} inodes.", found.workspaces.len(), bytes(used))
}

fn cache(cache: &CacheUsage) -> String {
    format!(
        "The cache that all share holds {} of content; its database takes {} of {} at most.",
        bytes(cache.blob_bytes),
        bytes(cache.database_bytes),
        bytes(cache.database_limit_bytes)
    )
}

fn in_part(usage: &UsageView) -> Option<String> {
    let reason = usage.partial.as_ref()?;
    Some(format!("workspace {} was counted in part only: {reason}", usage.id))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(id: &str, bytes: u64, inodes: u64) -> UsageView {
        UsageView {
            id: id.into(),
            uid: 1000,
            user: Some("alice".into()),
            mount_point: format!("/home/alice/{inodes}"),
            bytes,
            inodes,
            partial: None,
        }
    }

    #[test]
    fn the_largest_come_first_and_all_are_summed_up() {
        let part = Some("counting all of it takes too long".to_owned());
        let large = UsageView { partial: part, user: None, ..usage("nopqrstuvwxy", 3 << 20, 700) };
        let cache =
            CacheUsage { blob_bytes: 1 << 20, database_bytes: 1 << 21, database_limit_bytes: 64 << 30 };
        let found = UsagePage {
            workspaces: vec![usage("abcdefghijkm", 4096, 1), large],
            next: None,
            cache: Some(cache),
        };
        assert_eq!(
            text(&found, true),
            "ID            USED       INODES  MOUNT POINT      USER\n\
             nopqrstuvwxy  > 3.0 MiB  > 700   /home/alice/700  1000\n\
             abcdefghijkm  4.0 KiB    1       /home/alice/1    alice\n\
             \n\
             2 workspaces take 3.0 MiB and 701 inodes.\n\
             \n\
             The cache that all share holds 1.0 MiB of content; its database takes 2.0 MiB of 64 GiB at most."
        );
        assert_eq!(
            found.workspaces.iter().filter_map(in_part).collect::<Vec<_>>(),
            ["workspace nopqrstuvwxy was counted in part only: counting all of it takes too long"]
        );
        let none = UsagePage { workspaces: Vec::new(), next: None, cache: None };
        assert_eq!(
            text(&none, false),
            "ID  USED  INODES  MOUNT POINT\n\n0 workspaces take 0 B and 0 inodes."
        );
    }
}
