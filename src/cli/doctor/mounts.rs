//! Checks of mounts, without touching one: requests that wait in the kernel, workspaces that are not where they should be.

use std::{collections::BTreeMap, fs, io, path::Path, time::Duration};

use super::Check;
use crate::{
    api::{WorkspaceState, WorkspaceView},
    cli::daemon::state_word,
    sys::mountinfo::{self, MountEntry, Whose},
};

/// One directory for each FUSE connection of this host.
const CONNECTIONS: &str = "/sys/fs/fuse/connections";

/// What brings everything back after the daemon was given up. Without the first half it is refused for a minute.
const REPAIR: &str =
    "systemctl reset-failed scorpio.socket scorpio.service; systemctl start scorpio.socket scorpio.service";

/// A request that is being answered is gone after this; one that is still there is worth a word.
const SETTLE: Duration = Duration::from_millis(500);

/// All checks of mounts; those against `workspaces` only if the daemon told them.
pub(super) async fn checks(workspaces: Option<&[WorkspaceView]>) -> Vec<Check> {
    let mut checks = vec![waiting_twice().await];
    match (workspaces, mountinfo::read(Whose::Own)) {
        (Some(workspaces), Ok(mounted)) => checks.extend(standing(workspaces, &mounted)),
        (None, Ok(mounted)) => checks.extend(forsaken(&mounted)),
        (_, Err(error)) => checks.push(Check::warn(
            "mounts",
            format!("the table of mounts cannot be read: {error}"),
            "is /proc mounted?",
        )),
    }
    checks
}

/// Requests by connection; `None` for a connection that only its owner or root may ask.
type Waiting = BTreeMap<String, Option<u64>>;

async fn waiting_twice() -> Check {
    let first = waiting(Path::new(CONNECTIONS));
    let any =
        first.as_ref().is_ok_and(|first| first.values().any(|count| count.is_some_and(|count| count > 0)));
    if any {
        tokio::time::sleep(SETTLE).await;
    }
    let names = |connection: &str| sources(connection, &mountinfo::read(Whose::Own).unwrap_or_default());
    match (first, waiting(Path::new(CONNECTIONS))) {
        (Ok(first), Ok(second)) => judge_waiting(&first, &second, &names),
        (Err(error), _) | (_, Err(error)) => Check::warn(
            "waiting requests",
            format!("{CONNECTIONS} cannot be read: {error}"),
            "mount -t fusectl fusectl /sys/fs/fuse/connections",
        ),
    }
}

fn waiting(connections: &Path) -> io::Result<Waiting> {
    let mut found = Waiting::new();
    for entry in fs::read_dir(connections)? {
        let entry = entry?;
        let count = fs::read_to_string(entry.path().join("waiting")).ok();
        let count = count.and_then(|count| count.trim().parse().ok());
        found.insert(entry.file_name().to_string_lossy().into_owned(), count);
    }
    Ok(found)
}

/// What is mounted from a connection: its name is the minor number of the mount's device.
fn sources(connection: &str, mounted: &[MountEntry]) -> String {
    let of_it = |entry: &&MountEntry| entry.device.major == 0 && entry.device.minor.to_string() == connection;
    let name = mounted.iter().find(of_it).map(|entry| entry.fs_type.to_string_lossy().into_owned());
    name.unwrap_or_else(|| "not mounted here".to_owned())
}

fn judge_waiting(first: &Waiting, second: &Waiting, names: &dyn Fn(&str) -> String) -> Check {
    const NAME: &str = "waiting requests";
    let stuck = second.iter().filter_map(|(connection, now)| {
        let (before, now) = (first.get(connection).copied().flatten()?, (*now)?);
        (before > 0 && now > 0)
            .then(|| format!("{now} on FUSE connection {connection} ({})", names(connection)))
    });
    let stuck: Vec<_> = stuck.collect();
    let hidden = second.values().filter(|count| count.is_none()).count();
    if !stuck.is_empty() {
        return Check::warn(
            NAME,
            format!("{} for {} ms or longer", stuck.join(", "), SETTLE.as_millis()),
            "an origin may be slow: scorpioctl stats; if the number stays and nothing moves: scorpioctl logs",
        );
    }
    match hidden {
        0 => Check::ok(NAME, "none"),
        _ => Check::ok(
            NAME,
            format!("none that you may see ({hidden} connections are root's: sudo shows them)"),
        ),
    }
}

fn standing(workspaces: &[WorkspaceView], mounted: &[MountEntry]) -> Vec<Check> {
    const NAME: &str = "workspace";
    let is_there = |workspace: &WorkspaceView| {
        let at = |entry: &MountEntry| entry.mount_point == Path::new(&workspace.mount_point);
        mounted.iter().any(|entry| at(entry) && is_ours(entry))
    };
    let judge = |workspace: &WorkspaceView| {
        let WorkspaceView { id, mount_point, state, .. } = workspace;
        let reason = workspace.reason.as_deref().unwrap_or("no reason was given");
        match state {
            WorkspaceState::Mounted if !is_there(workspace) => Some(Check::fail(
                NAME,
                format!("{id} should be mounted at {mount_point}, and is not"),
                format!(
                    "scorpioctl unmount {id}; scorpioctl mount --workspace {id}; what was written is kept"
                ),
            )),
            WorkspaceState::Displaced | WorkspaceState::Failed => Some(Check::warn(
                NAME,
                format!("{id} is {} ({reason}); what was written is kept", state_word(*state)),
                format!("scorpioctl mount --workspace {id} DIR"),
            )),
            _ => None,
        }
    };
    let mut checks: Vec<_> = workspaces.iter().filter_map(judge).collect();
    if checks.is_empty() {
        checks.push(Check::ok("workspaces", format!("{} are as the daemon says", workspaces.len())));
    }
    checks
}

/// Mounts of workspaces of which nobody says anything, because the daemon does not answer.
fn forsaken(mounted: &[MountEntry]) -> Option<Check> {
    let is_one = |entry: &&MountEntry| entry.source.to_string_lossy().starts_with("scorpio:");
    let count = mounted.iter().filter(is_one).count();
    (count > 0).then(|| {
        Check::fail(
            "mounts",
            format!(
                "{count} workspaces are mounted and no daemon answers for them: what is not cached waits, or is an error once \
                 the unit has failed; what was written is safe, and the next start of the daemon mounts them anew"
            ),
            REPAIR,
        )
    })
}

/// A workspace is an overlay, or a FUSE mount with the other engine.
fn is_ours(entry: &MountEntry) -> bool {
    let kind = entry.fs_type.to_string_lossy();
    kind == "overlay" || kind.starts_with("fuse")
}

#[cfg(test)]
mod tests {
    use super::super::Outcome;
    use super::*;
    use crate::cli::list::tests::workspace;

    fn table(text: &str) -> Vec<MountEntry> {
        mountinfo::parse(text.as_bytes()).collect::<Result<_, _>>().unwrap()
    }

    const OVERLAY: &str = "90 30 0:55 / /home/alice/usb rw - overlay scorpio rw\n";
    const PLAIN: &str = "90 30 8:1 / /home/alice/usb rw - ext4 /dev/sda1 rw\n";

    #[test]
    fn a_mounted_workspace_must_be_in_the_table_of_mounts() {
        assert_eq!(
            standing(&[workspace()], &table(OVERLAY)),
            [Check::ok("workspaces", "1 are as the daemon says")]
        );
        for mounted in ["", PLAIN] {
            let checks = standing(&[workspace()], &table(mounted));
            assert_eq!(checks[0].outcome, Outcome::Fail);
            assert_eq!(checks[0].says, "abcdefghijkm should be mounted at /home/alice/usb, and is not");
        }
    }

    #[test]
    fn mounts_without_a_daemon_are_told_with_what_brings_them_back() {
        let ours = "91 30 0:56 / /home/bob/w rw - overlay scorpio:abcdefghijkm rw\n";
        assert_eq!(forsaken(&table(&format!("{OVERLAY}{PLAIN}"))), None);
        let check = forsaken(&table(&format!("{PLAIN}{ours}"))).unwrap();
        assert_eq!(check.outcome, Outcome::Fail);
        assert!(check.says.starts_with("1 workspaces are mounted and no daemon answers"), "{}", check.says);
        assert_eq!(check.advice.as_deref(), Some(REPAIR));
    }

    #[test]
    fn a_displaced_workspace_is_told_with_its_reason() {
        let displaced = WorkspaceView {
            state: WorkspaceState::Displaced,
            reason: Some("the directory is not empty".into()),
            ..workspace()
        };
        let checks = standing(&[displaced], &[]);
        assert_eq!(checks[0].outcome, Outcome::Warn);
        assert_eq!(
            checks[0].says,
            "abcdefghijkm is displaced (the directory is not empty); what was written is kept"
        );
    }

    #[test]
    fn only_requests_that_stay_are_told() {
        let counts = |list: &[(&str, Option<u64>)]| -> Waiting {
            list.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
        };
        let name = |_: &str| "fuse.scorpio".to_owned();
        let judge = |first, second| judge_waiting(&counts(first), &counts(second), &name);
        let stays = judge(&[("44", Some(3))], &[("44", Some(2))]);
        assert_eq!(stays.outcome, Outcome::Warn);
        assert_eq!(stays.says, "2 on FUSE connection 44 (fuse.scorpio) for 500 ms or longer");
        assert_eq!(judge(&[("44", Some(3))], &[("44", Some(0))]), Check::ok("waiting requests", "none"));
        assert_eq!(judge(&[], &[("44", Some(3))]), Check::ok("waiting requests", "none"));
        let hidden = judge(&[("44", None)], &[("44", None)]);
        assert!(hidden.outcome == Outcome::Ok && hidden.says.contains("1 connections are root's"));
    }

    #[test]
    fn connections_are_read_from_their_files() {
        let place = tempfile::tempdir().unwrap();
        for (name, text) in [("44", "3\n"), ("45", "0\n"), ("46", "?")] {
            fs::create_dir(place.path().join(name)).unwrap();
            fs::write(place.path().join(name).join("waiting"), text).unwrap();
        }
        let expected: Waiting = [("44".into(), Some(3)), ("45".into(), Some(0)), ("46".into(), None)].into();
        assert_eq!(waiting(place.path()).unwrap(), expected);
        assert_eq!(sources("55", &table(OVERLAY)), "overlay");
    }
}
