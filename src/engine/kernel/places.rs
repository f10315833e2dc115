//! The engine's directories below the runtime directory, both closed to everybody but root:
//!
//! ```text
//! fs/<session>        where FUSE sessions are mounted; lowers are cloned from there
//! layers/<workspace>  where a lower is attached for the moment in which overlayfs asks for it by name; the upper beside
//!                     it, as <workspace>-upper, where it is shown with other ids than it is stored with
//! mounts/<workspace>  what its mount stands on: see `foundations`
//! ```
//!
//! The first two are a mount of its own without propagation: what is mounted below is not copied into other mount namespaces,
//! where it would keep sessions alive.

use std::{
    fs::DirBuilder,
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use crate::sys::{
    mount::{self, MountCallError, Unmount},
    mountinfo::{self, Whose},
};

/// The directories, ready. Undone when dropped, unless left to a successor.
#[derive(Debug)]
pub(super) struct Places {
    pub(super) sessions: PathBuf,
    pub(super) layers: PathBuf,
    left: bool,
}

/// Why a directory cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// A directory operation failed.
    #[error("cannot {doing} {}: {source}", path.display())]
    Directory {
        /// What was attempted.
        doing: &'static str,
        /// On which directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A mount operation failed.
    #[error("cannot prepare {}: {source}", path.display())]
    Mount {
        /// Which directory.
        path: PathBuf,
        /// What the kernel said.
        source: MountCallError,
    },
}

impl Places {
    /// Where sessions are mounted below `runtime_dir`.
    pub(super) fn sessions_of(runtime_dir: &Path) -> PathBuf {
        runtime_dir.join("fs")
    }

    /// Where it is noted what mounts stand on.
    pub(super) fn foundations_of(runtime_dir: &Path) -> PathBuf {
        runtime_dir.join("mounts")
    }

    /// Detaches what an earlier process left, but for the sessions named in `survivors`, and makes both directories anew.
    /// `runtime_dir` must have no symlink in it.
    pub(super) fn prepare(runtime_dir: &Path, survivors: &[&str]) -> Result<Places, PlaceError> {
        let (sessions, layers) = (Places::sessions_of(runtime_dir), runtime_dir.join("layers"));
        let places = Places { sessions, layers, left: false };
        prepare_one(&places.layers, &[])?;
        let kept: Vec<PathBuf> = survivors.iter().map(|name| places.sessions.join(name)).collect();
        prepare_one(&places.sessions, &kept)?;
        Ok(places)
    }

    /// Leaves everything as it is.
    pub(super) fn leave(mut self) {
        self.left = true;
    }
}

fn prepare_one(dir: &Path, kept: &[PathBuf]) -> Result<(), PlaceError> {
    make_directory(dir)?;
    // What is kept stands on the directory's own mount.
    let around = (!kept.is_empty()).then(|| dir.to_owned());
    detach_below(dir, |path| !kept.iter().chain(&around).any(|kept| kept == path))?;
    remove_children(dir, kept)?;
    if around.is_none() {
        mount::make_private_mount(dir)
            .map_err(|source| PlaceError::Mount { path: dir.to_owned(), source })?;
    }
    Ok(())
}

impl Drop for Places {
    fn drop(&mut self) {
        if self.left {
            return;
        }
        for dir in [&self.sessions, &self.layers] {
            if let Err(error) = detach_below(dir, |_| true) {
                tracing::warn!(path = %dir.display(), %error, "a directory stays mounted");
            }
        }
    }
}

/// Makes a directory that only root can enter, if it is not there.
pub(super) fn make_directory(path: &Path) -> Result<(), PlaceError> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(PlaceError::Directory { doing: "create", path: path.to_owned(), source: error })
        }
        _ => Ok(()),
    }
}

/// Detaches what is mounted at or below `dir` where `goes` says so. Paths come from mountinfo, and detaching asks no file
/// system anything: what is mounted there may be dead.
fn detach_below(dir: &Path, goes: impl Fn(&Path) -> bool) -> Result<(), PlaceError> {
    let read = mountinfo::read(Whose::Own);
    let entries = read.map_err(|source| PlaceError::Directory {
        doing: "list the mounts of",
        path: dir.to_owned(),
        source,
    })?;
    let below =
        |entry: &&mountinfo::MountEntry| entry.mount_point.starts_with(dir) && goes(&entry.mount_point);
    let below: Vec<_> = entries.iter().filter(below).collect();
    // Later mounts lie over or below earlier ones.
    for entry in below.iter().rev() {
        let path = &entry.mount_point;
        match mount::unmount(path, Unmount::Lazily) {
            Ok(()) => tracing::debug!(path = %path.display(), "detached"),
            // Gone with the one above it.
            Err(error) if matches!(error.source.raw_os_error(), Some(libc::EINVAL | libc::ENOENT)) => {}
            Err(source) => return Err(PlaceError::Mount { path: path.clone(), source }),
        }
    }
    Ok(())
}

/// Removes the empty directories that mounts stood on, all but those `kept`.
fn remove_children(dir: &Path, kept: &[PathBuf]) -> Result<(), PlaceError> {
    let failed = |doing, path: &Path| {
        let path = path.to_owned();
        move |source| PlaceError::Directory { doing, path, source }
    };
    for child in std::fs::read_dir(dir).map_err(failed("list", dir))? {
        let path = child.map_err(failed("list", dir))?.path();
        if !kept.contains(&path) {
            std::fs::remove_dir(&path).map_err(failed("remove", &path))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mounted_below(dir: &Path) -> usize {
        mountinfo::read(Whose::Own).unwrap().iter().filter(|entry| entry.mount_point.starts_with(dir)).count()
    }

    #[test]
    fn what_an_earlier_process_left_is_detached_and_nothing_stays() {
        let dir = tempfile::tempdir().unwrap();
        let first = Places::prepare(dir.path(), &[]).unwrap();
        for path in [first.sessions.join("shared"), first.layers.join("abc")] {
            make_directory(&path).unwrap();
            mount::make_private_mount(&path).unwrap();
            mount::make_private_mount(&path).unwrap();
        }
        assert_eq!(mounted_below(dir.path()), 6);
        let _never_dropped = std::mem::ManuallyDrop::new(first); // as if its process was killed
        let second = Places::prepare(dir.path(), &[]).unwrap();
        assert_eq!(mounted_below(dir.path()), 2);
        assert_eq!(std::fs::read_dir(&second.layers).unwrap().count(), 0);
        drop(second);
        assert_eq!(mounted_below(dir.path()), 0);
    }

    #[test]
    fn sessions_that_live_on_keep_their_mounts_and_all_else_goes() {
        let dir = tempfile::tempdir().unwrap();
        let first = Places::prepare(dir.path(), &[]).unwrap();
        let paths = [first.sessions.join("shared"), first.sessions.join("lost"), first.layers.join("abc")];
        for path in &paths {
            make_directory(path).unwrap();
            mount::make_private_mount(path).unwrap();
        }
        let id_of = |path: &Path| {
            let table = mountinfo::read(Whose::Own).unwrap();
            table.iter().find(|entry| entry.mount_point == path).map(|entry| entry.mount_id)
        };
        let before = (id_of(&first.sessions), id_of(&paths[0]));
        first.leave();
        assert_eq!(mounted_below(dir.path()), 5);
        let second = Places::prepare(dir.path(), &["shared"]).unwrap();
        assert_eq!((id_of(&second.sessions), id_of(&paths[0])), before);
        assert_eq!((id_of(&paths[1]), id_of(&paths[2]), mounted_below(dir.path())), (None, None, 3));
        assert_eq!(std::fs::read_dir(&second.sessions).unwrap().count(), 1);
        drop(second);
        assert_eq!(mounted_below(dir.path()), 0);
    }
}
