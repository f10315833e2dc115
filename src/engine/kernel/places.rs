//! The engine's directories below the runtime directory, both closed to everybody but root:
//!
//! ```text
//! fs/<session>        where FUSE sessions are mounted; lowers are cloned from there
//! layers/<workspace>  where a lower is attached for the moment in which overlayfs asks for it by name
//! ```
//!
//! Each is a mount of its own without propagation: what is mounted below is not copied into other mount namespaces,
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

/// The two directories, ready. Undone when dropped.
#[derive(Debug)]
pub(super) struct Places {
    pub(super) sessions: PathBuf,
    pub(super) layers: PathBuf,
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
    /// Detaches what an earlier process left and makes both directories anew. `runtime_dir` must have no symlink in it.
    pub(super) fn prepare(runtime_dir: &Path) -> Result<Places, PlaceError> {
        let places = Places { sessions: runtime_dir.join("fs"), layers: runtime_dir.join("layers") };
        for dir in [&places.sessions, &places.layers] {
            make_directory(dir)?;
            detach_all(dir)?;
            remove_children(dir)?;
            mount::make_private_mount(dir)
                .map_err(|source| PlaceError::Mount { path: dir.clone(), source })?;
        }
        Ok(places)
    }
}

impl Drop for Places {
    fn drop(&mut self) {
        for dir in [&self.sessions, &self.layers] {
            if let Err(error) = detach_all(dir) {
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

/// Detaches everything mounted at or below `dir`. Paths come from mountinfo, and detaching asks no file system
/// anything: what is mounted there may be dead.
fn detach_all(dir: &Path) -> Result<(), PlaceError> {
    let read = mountinfo::read(Whose::Own);
    let entries = read.map_err(|source| PlaceError::Directory {
        doing: "list the mounts of",
        path: dir.to_owned(),
        source,
    })?;
    let below: Vec<_> = entries.iter().filter(|entry| entry.mount_point.starts_with(dir)).collect();
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

/// Removes the empty directories that mounts stood on.
fn remove_children(dir: &Path) -> Result<(), PlaceError> {
    let failed = |doing, path: &Path| {
        let path = path.to_owned();
        move |source| PlaceError::Directory { doing, path, source }
    };
    for child in std::fs::read_dir(dir).map_err(failed("list", dir))? {
        let path = child.map_err(failed("list", dir))?.path();
        std::fs::remove_dir(&path).map_err(failed("remove", &path))?;
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
        let first = Places::prepare(dir.path()).unwrap();
        for path in [first.sessions.join("shared"), first.layers.join("abc")] {
            make_directory(&path).unwrap();
            mount::make_private_mount(&path).unwrap();
            mount::make_private_mount(&path).unwrap();
        }
        assert_eq!(mounted_below(dir.path()), 6);
        let _never_dropped = std::mem::ManuallyDrop::new(first); // as if its process was killed
        let second = Places::prepare(dir.path()).unwrap();
        assert_eq!(mounted_below(dir.path()), 2);
        assert_eq!(std::fs::read_dir(&second.layers).unwrap().count(), 0);
        drop(second);
        assert_eq!(mounted_below(dir.path()), 0);
    }
}
