//! `scorpioctl mount`: make a workspace, or mount a kept one again.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    path::PathBuf,
    time::{Duration, Instant},
};

use clap::Args;

use super::{
    Session,
    daemon::Daemon,
    exit::Exit,
    failure::Failure,
    place::MountPoint,
    spec::{self, Spec},
    text::short,
};
use crate::api::{CreateWorkspace, ErrorKind, MountWorkspace, WorkspaceView, method};

const EXAMPLES: &str = "\
Examples:
  scorpioctl mount linux: ~/linux                       the whole tree, at its default revision
  scorpioctl mount linux:drivers/usb@v6.12 ~/usb        one directory of a tag
  scorpioctl mount web:node_modules/@types ~/types      an `@` that is the path's: it is no revision
  scorpioctl mount linux: ~/old --rev 'HEAD@{yesterday}'
  scorpioctl mount linux: ./job --ephemeral --ttl 2h --label build=1742
  scorpioctl mount --workspace k3x8d2m5p7qa             a kept workspace, where it was before

Prints the workspace's id on standard output.";

/// Mount a directory of an origin, writable and yours, or a workspace that was kept.
///
/// DIR is made if it is missing; it must be empty and yours. What you write in it is kept over unmounts, restarts and
/// reboots until `scorpioctl remove`, unless it is --ephemeral.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES,
          override_usage = "scorpioctl mount [OPTIONS] ORIGIN:PATH[@REV] DIR\n       \
                            scorpioctl mount [OPTIONS] --workspace ID [DIR]")]
pub(crate) struct Mount {
    /// What to mount: an origin, a directory in it (empty for all), a branch, tag or commit
    #[arg(value_name = "ORIGIN:PATH[@REV]", required_unless_present = "workspace")]
    spec: Option<OsString>,

    /// Where to mount it
    #[arg(value_name = "DIR", required_unless_present = "workspace", value_hint = clap::ValueHint::DirPath)]
    dir: Option<PathBuf>,

    /// Mount this kept workspace again, at DIR or where it was before
    #[arg(long, value_name = "ID",
          conflicts_with_all = ["rev", "ephemeral", "read_only", "label", "ttl", "mode"])]
    workspace: Option<String>,

    #[command(flatten)]
    options: Options,
}

/// What kind of workspace it is to be.
#[derive(Debug, Default, Args)]
pub(crate) struct Options {
    /// Branch, tag or commit; every `@` then belongs to the path
    #[arg(long, value_name = "REV")]
    rev: Option<String>,

    /// Throw away what was written when it is unmounted or the daemon restarts
    #[arg(long)]
    ephemeral: bool,

    /// Refuse writes
    #[arg(long)]
    read_only: bool,

    /// Mark it, to find it by; may be given several times
    #[arg(long, value_name = "KEY=VALUE", value_parser = label)]
    label: Vec<(String, String)>,

    /// End it by itself after this time: 90s, 2h, 7d
    #[arg(long, value_name = "TIME", value_parser = ttl)]
    ttl: Option<Duration>,

    /// Permission bits of the mount's root [default: 0700]
    #[arg(long, value_name = "OCTAL", value_parser = mode)]
    mode: Option<String>,
}

/// `key=value`.
pub(crate) fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write KEY=VALUE, such as build=1742".to_owned()),
    }
}

fn ttl(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(time) if time >= Duration::from_secs(1) => Ok(time),
        Ok(_) => Err("at least one second".to_owned()),
        Err(_) => Err("write a time such as 90s, 2h or 7d".to_owned()),
    }
}

fn mode(text: &str) -> Result<String, String> {
    match u32::from_str_radix(text, 8) {
        Ok(bits) if bits <= 0o777 => Ok(format!("{bits:04o}")),
        _ => Err("write octal permission bits from 0000 to 0777, such as 0755".to_owned()),
    }
}

impl Mount {
    /// Runs the verb.
    pub(crate) async fn run(self, session: &Session) -> Result<Exit, Failure> {
        let begun = Instant::now();
        let spinner = session.spinner("mounting");
        let mounted = tokio::select! {
            mounted = self.mount(session) => mounted,
            _ = tokio::signal::ctrl_c() => Err(interrupted()),
        };
        spinner.finish_and_clear();
        let workspace = mounted?;
        session.screen.data(&workspace, |workspace| workspace.id.clone())?;
        session.screen.notes(&mounted_lines(&workspace, begun.elapsed()));
        Ok(Exit::Ok)
    }

    async fn mount(self, session: &Session) -> Result<WorkspaceView, Failure> {
        match (self.workspace, self.spec, self.dir) {
            (Some(_), Some(_), Some(_)) => {
                Err(Failure::new(Exit::Usage, "with --workspace there is at most one other argument, DIR"))
            }
            // The one positional argument of `mount --workspace ID DIR` is DIR.
            (Some(id), dir, None) => again(session, id, dir.map(PathBuf::from)).await,
            (Some(id), None, dir) => again(session, id, dir).await,
            (None, Some(spec), Some(dir)) => create(session, spec, dir, self.options).await,
            (None, ..) => Err(Failure::new(Exit::Usage, "ORIGIN:PATH and DIR are needed")),
        }
    }
}

/// Closing the connection is what tells the daemon to take the mount back.
fn interrupted() -> Failure {
    Failure::new(Exit::Interrupted, "interrupted; the daemon takes back what was begun")
        .try_this("scorpioctl list shows whether the mount was made before")
}

async fn again(session: &Session, id: String, dir: Option<PathBuf>) -> Result<WorkspaceView, Failure> {
    let daemon = session.daemon();
    let point = match dir {
        Some(dir) => Some(mount_point(&daemon, dir).await?),
        None => None,
    };
    let mount_point = point.as_ref().map(MountPoint::text).transpose()?;
    let workspace = daemon.call(method::WORKSPACE_MOUNT, &MountWorkspace { id, mount_point }).await?;
    point.into_iter().for_each(MountPoint::keep);
    Ok(workspace)
}

async fn create(
    session: &Session,
    spec: OsString,
    dir: PathBuf,
    options: Options,
) -> Result<WorkspaceView, Failure> {
    let not_text = |_| Failure::new(Exit::Usage, "ORIGIN:PATH is not UTF-8 text");
    let spec = spec.into_string().map_err(not_text)?;
    let bad = |error: spec::BadSpec| Failure::new(Exit::Usage, error.to_string());
    let readings = spec::readings(&spec, options.rev.as_deref()).map_err(bad)?;
    let daemon = session.daemon();
    let point = mount_point(&daemon, dir).await?;
    let text = point.text()?;
    let workspace = first_that_resolves(&daemon, &readings, |spec| options.request(spec, &text)).await?;
    point.keep();
    Ok(workspace)
}

async fn mount_point(daemon: &Daemon, dir: PathBuf) -> Result<MountPoint, Failure> {
    let own = daemon.workspaces(false, &BTreeMap::new()).await?;
    let points: Vec<_> = own.into_iter().map(|workspace| workspace.mount_point.into()).collect();
    MountPoint::prepare(&dir, &points)
}

async fn first_that_resolves(
    daemon: &Daemon,
    readings: &[Spec],
    request: impl Fn(&Spec) -> CreateWorkspace,
) -> Result<WorkspaceView, Failure> {
    let mut refused: Option<Failure> = None;
    for spec in readings {
        match daemon.call(method::WORKSPACE_CREATE, &request(spec)).await {
            Ok(workspace) => return Ok(workspace),
            Err(failure) if failure.kind == Some(ErrorKind::NoSuchRevision) && refused.is_none() => {
                refused = Some(failure);
            }
            Err(failure) => return Err(both(refused, failure)),
        }
    }
    Err(refused.unwrap_or_else(|| Failure::new(Exit::Usage, "there is nothing to mount")))
}

/// Neither reading resolved: the user meant one of them, and we do not know which. An error of another kind has nothing
/// to do with the two readings and stands alone.
fn both(as_revision: Option<Failure>, as_path: Failure) -> Failure {
    match as_revision {
        Some(first) if as_path.kind == Some(ErrorKind::NoSuchPath) => {
            let why = format!("taken as a part of the path: {}", as_path.what);
            Failure { why: Some(why), ..first }
        }
        _ => as_path,
    }
}

impl Options {
    fn request(&self, spec: &Spec, mount_point: &str) -> CreateWorkspace {
        CreateWorkspace {
            origin: spec.origin.to_string(),
            path: spec.path.clone(),
            rev: spec.rev.clone(),
            mount_point: mount_point.to_owned(),
            ephemeral: self.ephemeral,
            read_only: self.read_only,
            labels: self.label.iter().cloned().collect(),
            ttl_s: self.ttl.map(|ttl| ttl.as_secs()),
            mode: self.mode.clone(),
        }
    }
}

/// What a person is told about a fresh mount.
fn mounted_lines(workspace: &WorkspaceView, took: Duration) -> Vec<String> {
    let WorkspaceView { id, mount_point, .. } = workspace;
    let rev = workspace.rev.as_ref().map(|rev| format!("{rev}, ")).unwrap_or_default();
    let what = format!("{}:{} ({rev}{})", workspace.origin, workspace.path, short(&workspace.commit));
    let took = format!("{} ms", took.as_millis());
    let next = if workspace.ephemeral {
        format!("End it, and throw away what was written: scorpioctl unmount {mount_point}")
    } else {
        format!(
            "Unmount and keep your changes: scorpioctl unmount {mount_point}; back: scorpioctl mount --workspace {id}"
        )
    };
    vec![format!("mounted {what} at {mount_point} in {took}"), next]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::list::tests::workspace;

    #[test]
    fn a_fresh_mount_is_told_with_the_next_step() {
        let lines = mounted_lines(&workspace(), Duration::from_micros(34_567));
        assert_eq!(
            lines,
            [
                "mounted linux:drivers/usb (v6.12, adc218676eef) at /home/alice/usb in 34 ms",
                "Unmount and keep your changes: scorpioctl unmount /home/alice/usb; back: scorpioctl mount --workspace abcdefghijkm",
            ]
        );
        let ephemeral = WorkspaceView { ephemeral: true, rev: None, ..workspace() };
        assert_eq!(
            mounted_lines(&ephemeral, Duration::ZERO),
            [
                "mounted linux:drivers/usb (adc218676eef) at /home/alice/usb in 0 ms",
                "End it, and throw away what was written: scorpioctl unmount /home/alice/usb",
            ]
        );
    }

    #[test]
    fn when_neither_reading_resolves_both_are_told() {
        let refused = |kind, what: &str| Failure { kind: Some(kind), ..Failure::new(Exit::NotFound, what) };
        let first = refused(ErrorKind::NoSuchRevision, "no revision `v9`");
        let failure = both(Some(first.clone()), refused(ErrorKind::NoSuchPath, "no path `a@v9`"));
        assert_eq!(
            failure.lines(),
            ["no revision `v9`", "  why: taken as a part of the path: no path `a@v9`"]
        );
        let busy = refused(ErrorKind::BadMountPoint, "not empty");
        assert_eq!(both(Some(first), busy.clone()), busy);
    }

    #[test]
    fn options_are_checked_before_the_daemon_is_asked() {
        assert_eq!(mode("755"), Ok("0755".into()));
        assert!(mode("1777").is_err() && mode("rwx").is_err() && mode("-1").is_err());
        assert_eq!(ttl("2h"), Ok(Duration::from_secs(7200)));
        assert!(ttl("10ms").is_err() && ttl("soon").is_err());
        assert_eq!(label("k=v=w"), Ok(("k".into(), "v=w".into())));
        assert!(label("k").is_err() && label("=v").is_err());
    }
}
