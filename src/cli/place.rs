//! A path as a user writes it → the path that the daemon knows, without looking into any mount.
//!
//! `realpath` would ask the file system of every component, and hang for ever on a mount that is stuck: the very one
//! that the user wants to be rid of. [`locate`] stops asking at the first component that is a known mount point.

use std::{
    collections::VecDeque,
    ffi::{OsStr, OsString},
    fs, io,
    path::{Component, Path, PathBuf},
};

use super::{
    daemon::Daemon,
    exit::Exit,
    failure::{Failure, io_failure},
};
use crate::{api::WorkspaceView, sys::durable, types::WorkspaceId};

/// As many links as the kernel follows in one path.
const MAX_LINKS: usize = 40;

/// How near a path must be to a workspace to mean it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nearness {
    /// The mount point itself: for verbs that end something.
    Exact,
    /// It, or something in it: for verbs that look.
    Inside,
}

/// The workspace that `text` names: an id, or a directory. An id-like directory is written `./name`.
pub(crate) async fn workspace(
    daemon: &Daemon,
    text: &OsStr,
    nearness: Nearness,
) -> Result<WorkspaceView, Failure> {
    if let Some(id) = text.to_str().filter(|text| text.parse::<WorkspaceId>().is_ok()) {
        return daemon.workspace(id).await;
    }
    let path = absolute(Path::new(text))?;
    let own = daemon.workspaces(false, &Default::default()).await?;
    if let Some(found) = find(&path, &own, nearness) {
        return Ok(found.clone());
    }
    match daemon.workspaces(true, &Default::default()).await {
        Ok(all) => find(&path, &all, nearness).cloned().ok_or_else(|| unknown(&path)),
        Err(failure) if failure.exit == Exit::NotAuthorised => Err(unknown(&path)),
        Err(failure) => Err(failure),
    }
}

fn unknown(path: &Path) -> Failure {
    Failure::new(Exit::NotFound, format!("no workspace of yours is at {}", path.display()))
        .try_this("scorpioctl list shows your workspaces and where they are")
}

fn find<'a>(path: &Path, workspaces: &'a [WorkspaceView], nearness: Nearness) -> Option<&'a WorkspaceView> {
    let points: Vec<PathBuf> =
        workspaces.iter().map(|workspace| workspace.mount_point.clone().into()).collect();
    let path = locate(path, &points, &|path| fs::read_link(path).ok());
    let mounted_first = |workspace: &&WorkspaceView| {
        let mounted = workspace.state == crate::api::WorkspaceState::Mounted;
        (workspace.mount_point.len(), mounted)
    };
    let near = |workspace: &&WorkspaceView| match nearness {
        Nearness::Exact => path == Path::new(&workspace.mount_point),
        Nearness::Inside => path.starts_with(&workspace.mount_point),
    };
    workspaces.iter().filter(near).max_by_key(mounted_first)
}

/// `path` from the root, as written.
pub(crate) fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    if path.as_os_str().is_empty() {
        return Err(Failure::new(Exit::Usage, "the directory's name is empty"));
    }
    let here = std::env::current_dir;
    if path.is_absolute() {
        Ok(path.to_owned())
    } else {
        Ok(here().map_err(io_failure("find", Path::new(".")))?.join(path))
    }
}

/// `path` without symlinks, `.` and `..`. Nothing at or below one of `points` is asked about: there the rest is taken as
/// written. `read_link` gives the target of a symlink, and `None` for anything else, also for what is not there.
pub(crate) fn locate(
    path: &Path,
    points: &[PathBuf],
    read_link: &dyn Fn(&Path) -> Option<PathBuf>,
) -> PathBuf {
    let mut rest: VecDeque<OsString> = names(path);
    let mut found = PathBuf::from("/");
    let mut links = 0;
    while let Some(name) = rest.pop_front() {
        if name == ".." {
            found.pop();
            continue;
        }
        found.push(&name);
        let covered = points.iter().any(|point| found.starts_with(point));
        if covered || links == MAX_LINKS {
            continue;
        }
        if let Some(target) = read_link(&found) {
            links += 1;
            found.pop();
            if target.is_absolute() {
                found = PathBuf::from("/");
            }
            rest = names(&target).into_iter().chain(rest).collect();
        }
    }
    found
}

fn names(path: &Path) -> VecDeque<OsString> {
    let name = |component: Component<'_>| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    };
    path.components().filter_map(name).collect()
}

/// A directory to mount on: made if it was not there, and taken away again unless [`MountPoint::keep`] is called.
#[derive(Debug)]
pub(crate) struct MountPoint {
    path: PathBuf,
    made: bool,
}

impl MountPoint {
    /// Finds the directory that `dir` means, and makes its last component (as the user) if it is missing. What is at or
    /// below one of `points` is left for the daemon to judge.
    pub(crate) fn prepare(dir: &Path, points: &[PathBuf]) -> Result<MountPoint, Failure> {
        let path = locate(&absolute(dir)?, points, &|path| fs::read_link(path).ok());
        if points.iter().any(|point| path.starts_with(point)) {
            return Ok(MountPoint { path, made: false });
        }
        let made = match fs::create_dir(&path) {
            Ok(()) => {
                // The workspace outlives a power failure, and so must its place. Where the user may make a directory and not
                // read the one it is in, nothing can be synced: the workspace is then displaced, and mounted elsewhere.
                let _ = durable::sync_name(&path);
                true
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
            Err(error) => return Err(io_failure("make the directory", &path)(error)),
        };
        Ok(MountPoint { path, made })
    }

    /// As the daemon takes it.
    pub(crate) fn text(&self) -> Result<String, Failure> {
        let refused = || Failure::new(Exit::Usage, format!("{} is not UTF-8 text", self.path.display()));
        self.path.to_str().map(str::to_owned).ok_or_else(refused)
    }

    /// The mount is there: the directory stays.
    pub(crate) fn keep(mut self) {
        self.made = false;
    }
}

impl Drop for MountPoint {
    fn drop(&mut self) {
        if self.made {
            // The user wants to know why there is no mount, not that an empty directory was left; while the daemon still
            // takes a mount back, the directory is in use and stays.
            let _ = fs::remove_dir(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn check(path: &str, links: &[(&str, &str)], points: &[&str]) -> String {
        let links: HashMap<_, _> =
            links.iter().map(|(at, to)| (PathBuf::from(at), PathBuf::from(to))).collect();
        let points: Vec<_> = points.iter().map(PathBuf::from).collect();
        let read_link = |path: &Path| {
            assert!(
                !points.iter().any(|point| path.starts_with(point)),
                "looked into a mount: {}",
                path.display()
            );
            links.get(path).cloned()
        };
        locate(Path::new(path), &points, &read_link).to_str().unwrap().to_owned()
    }

    #[test]
    fn symlinks_are_followed_up_to_a_mount_and_never_into_it() {
        let home = [("/home", "/data/home"), ("/data/home/a/link", "src/../src"), ("/up", "../x")];
        for (path, expected) in [
            ("/home/a/src", "/data/home/a/src"),
            ("/home/a/./src/", "/data/home/a/src"),
            ("/home/a/src/..", "/data/home/a"),
            ("/home/a/link", "/data/home/a/src"),
            ("/home/a/link/sub/file", "/data/home/a/src/sub/file"),
            ("/data/home/a/src/sub/../other", "/data/home/a/src/other"),
            ("/up", "/x"),
            ("/../..", "/"),
        ] {
            assert_eq!(check(path, &home, &["/data/home/a/src"]), expected, "{path}");
        }
    }

    #[test]
    fn a_loop_of_links_ends() {
        assert_eq!(check("/a/b", &[("/a", "/a")], &[]), "/a/b");
    }

    #[test]
    fn a_directory_that_was_made_goes_unless_it_is_kept() {
        let place = tempfile::tempdir().unwrap();
        let dir = place.path().join("new");
        let point = MountPoint::prepare(&dir, &[]).unwrap();
        assert!(dir.is_dir());
        drop(point);
        assert!(!dir.exists());
        MountPoint::prepare(&dir, &[]).unwrap().keep();
        assert!(dir.is_dir());
        // One that was there before is never taken away.
        drop(MountPoint::prepare(&dir, &[]).unwrap());
        assert!(dir.is_dir());
        let failure = MountPoint::prepare(&place.path().join("no/such"), &[]).unwrap_err();
        assert_eq!(failure.exit, Exit::NotFound);
    }
}
