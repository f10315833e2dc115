//! Deleting what users left behind, on a thread of its own: a tree of any width and depth, written by somebody else.
//!
//! Bounded: at most [`MAX_DEPTH`] descriptors are open; what lies deeper is first moved up to the root. No symlink is
//! followed and no other file system entered. What cannot be deleted stays in the trash for the next start, and the
//! journal says so.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
};

use rustix::{
    fs::{AtFlags, Dir, FileType, Mode, OFlags, RenameFlags, ResolveFlags, openat2, renameat_with, unlinkat},
    io::Errno,
};

use crate::types::WorkspaceId;

const PREFIX: &str = ".trash-";
/// Directories open at once while deleting: deeper ones are moved up first. More would only cost descriptors.
const MAX_DEPTH: usize = 32;
/// Passes over a directory before it is left alone: somebody keeps filling it.
const MAX_PASSES: usize = 16;

/// A directory in the trash.
#[derive(Debug)]
pub(super) struct Rubbish {
    pub(super) root: OwnedFd,
    pub(super) name: String,
}

/// The `n`th name in the trash for something of workspace `id`.
pub(super) fn name(id: &WorkspaceId, n: u32) -> String {
    format!("{PREFIX}{id}-{n}")
}

/// Whose rubbish it is, if it is some.
pub(super) fn owner(name: &str) -> Option<WorkspaceId> {
    let (id, number) = name.strip_prefix(PREFIX)?.split_once('-')?;
    number.parse::<u32>().ok()?;
    id.parse().ok()
}

/// The thread that deletes, one thing after the other. Stopped and joined when dropped; what is left then is deleted
/// after the next start.
pub(super) struct Trash {
    queue: Mutex<Option<mpsc::Sender<Job>>>,
    stop: Arc<AtomicBool>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
}

enum Job {
    Delete(Rubbish),
    #[cfg(test)]
    Tell(mpsc::Sender<()>),
}

impl Trash {
    /// Starts the thread.
    pub(super) fn start() -> io::Result<Trash> {
        let (sender, receiver) = mpsc::channel();
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stop);
        let thread =
            std::thread::Builder::new().name("trash".into()).spawn(move || empty(&receiver, &seen))?;
        Ok(Trash { queue: Mutex::new(Some(sender)), stop, thread: Mutex::new(Some(thread)) })
    }

    /// Deletes `rubbish` some time from now. The queue is as long as there are things in the trash.
    pub(super) fn delete(&self, rubbish: Vec<Rubbish>) {
        for rubbish in rubbish {
            self.send(Job::Delete(rubbish));
        }
    }

    fn send(&self, job: Job) {
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        // Without a receiver we are stopping; the rubbish is found again at the next start.
        let _ = queue.as_ref().map(|queue| queue.send(job));
    }

    /// Stops after the current entry and waits for that.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).take();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::warn!("the thread that deletes removed workspaces has panicked; the next start goes on");
        }
    }

    /// Waits until all that was handed over has been dealt with.
    #[cfg(test)]
    pub(super) fn settle(&self) {
        let (sender, receiver) = mpsc::channel();
        self.send(Job::Tell(sender));
        let _ = receiver.recv();
    }
}

impl Drop for Trash {
    fn drop(&mut self) {
        self.stop();
    }
}

fn empty(queue: &mpsc::Receiver<Job>, stop: &AtomicBool) {
    while let Ok(job) = queue.recv() {
        match job {
            Job::Delete(rubbish) => delete_or_warn(&rubbish, stop),
            #[cfg(test)]
            Job::Tell(sender) => drop(sender),
        }
    }
}

fn delete_or_warn(rubbish: &Rubbish, stop: &AtomicBool) {
    if let Err(error) = delete(rubbish, stop)
        && error.kind() != io::ErrorKind::Interrupted
    {
        tracing::warn!(path = rubbish.name, %error, "cannot delete a removed workspace; tried again at the next start");
    }
}

/// Deletes `rubbish` now. `Interrupted` when `stop` was set meanwhile.
pub(super) fn delete(rubbish: &Rubbish, stop: &AtomicBool) -> io::Result<()> {
    let mut deletion =
        Deletion { root: rubbish.root.as_fd(), id: owner(&rubbish.name), moved: Vec::new(), stop };
    deletion.tree(rubbish.root.as_fd(), rubbish.name.as_ref(), 0)?;
    while let Some(moved) = deletion.moved.pop() {
        deletion.tree(rubbish.root.as_fd(), moved.as_ref(), 0)?;
    }
    Ok(())
}

struct Deletion<'a> {
    root: BorrowedFd<'a>,
    id: Option<WorkspaceId>,
    /// Directories that lay too deep, now beside the one they were in.
    moved: Vec<String>,
    stop: &'a AtomicBool,
}

impl Deletion<'_> {
    fn tree(&mut self, parent: BorrowedFd<'_>, name: &[u8], depth: usize) -> io::Result<()> {
        let dir = match open_below(parent, name) {
            Ok(dir) => dir,
            Err(Errno::NOENT) => return Ok(()),
            Err(Errno::NOTDIR | Errno::LOOP) => return Ok(unlinkat(parent, name, AtFlags::empty())?),
            Err(error) => return Err(error.into()),
        };
        for _ in 0..MAX_PASSES {
            self.entries(&dir, depth)?;
            match unlinkat(parent, name, AtFlags::REMOVEDIR) {
                Err(Errno::NOTEMPTY | Errno::EXIST) => {}
                Ok(()) | Err(Errno::NOENT) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        Err(Errno::NOTEMPTY.into())
    }

    fn entries(&mut self, dir: &OwnedFd, depth: usize) -> io::Result<()> {
        for entry in Dir::read_from(dir)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            if self.stop.load(Ordering::Relaxed) {
                return Err(io::ErrorKind::Interrupted.into());
            }
            match entry.file_type() {
                FileType::Directory | FileType::Unknown => self.directory(dir.as_fd(), name, depth)?,
                _ => unlink(dir.as_fd(), name)?,
            }
        }
        Ok(())
    }

    fn directory(&mut self, parent: BorrowedFd<'_>, name: &[u8], depth: usize) -> io::Result<()> {
        if depth + 1 < MAX_DEPTH {
            return self.tree(parent, name, depth + 1);
        }
        let Some(id) = self.id.clone() else { return Err(io::ErrorKind::InvalidInput.into()) };
        for n in 0..u32::MAX {
            let up = self::name(&id, n);
            match renameat_with(parent, name, self.root, &up, RenameFlags::NOREPLACE) {
                Ok(()) => {
                    self.moved.push(up);
                    return Ok(());
                }
                Err(Errno::EXIST) => {}
                Err(Errno::NOENT) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        Err(Errno::EXIST.into())
    }
}

fn open_below(parent: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    openat2(parent, name, flags, Mode::empty(), resolve)
}

fn unlink(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    match unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink, path::Path};

    use super::*;
    use crate::sys::durable;

    static GO: AtomicBool = AtomicBool::new(false);

    fn rubbish(dir: &Path) -> Rubbish {
        let name = name(&"abcdefghijkm".parse().unwrap(), 0);
        fs::create_dir(dir.join(&name)).unwrap();
        Rubbish { root: durable::open_dir(dir).unwrap(), name }
    }

    #[test]
    fn names_in_the_trash_say_whose_they_are() {
        let id: WorkspaceId = "abcdefghijkm".parse().unwrap();
        assert_eq!(name(&id, 7), ".trash-abcdefghijkm-7");
        assert_eq!(owner(".trash-abcdefghijkm-7"), Some(id));
        for other in
            ["abcdefghijkm", ".trash-", ".trash-abcdefghijkm", ".trash-abcdefghijkm-x", ".trash-../..-1"]
        {
            assert_eq!(owner(other), None, "{other}");
        }
    }

    #[test]
    fn symlinks_are_deleted_and_what_they_point_to_stays() {
        let dir = tempfile::tempdir().unwrap();
        let outside = dir.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("file"), "safe").unwrap();
        let rubbish = rubbish(dir.path());
        let inside = dir.path().join(&rubbish.name);
        symlink(&outside, inside.join("dir-link")).unwrap();
        symlink(outside.join("file"), inside.join("file-link")).unwrap();
        symlink("nowhere", inside.join("dangling")).unwrap();
        fs::create_dir_all(inside.join("a/b")).unwrap();
        symlink("../../..", inside.join("a/b/up")).unwrap();
        fs::write(inside.join("a/x\n y"), "odd name").unwrap();
        nix::unistd::mkfifo(&inside.join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        delete(&rubbish, &GO).unwrap();
        assert_eq!(fs::read(outside.join("file")).unwrap(), b"safe");
        let left: Vec<_> =
            fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["outside"]);
    }

    #[test]
    fn a_tree_deeper_than_paths_can_name_is_deleted_with_few_descriptors() {
        let dir = tempfile::tempdir().unwrap();
        let rubbish = rubbish(dir.path());
        let mut at = durable::open_dir(&dir.path().join(&rubbish.name)).unwrap();
        for _ in 0..3000 {
            rustix::fs::mkdirat(&at, "dddddddd", Mode::empty()).unwrap();
            at = durable::open_dir_at(at.as_fd(), "dddddddd").unwrap();
        }
        drop(at);
        delete(&rubbish, &GO).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_stop_leaves_the_rest_for_the_next_start() {
        let dir = tempfile::tempdir().unwrap();
        let rubbish = rubbish(dir.path());
        fs::write(dir.path().join(&rubbish.name).join("file"), "x").unwrap();
        let error = delete(&rubbish, &AtomicBool::new(true)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Interrupted);
        delete(&rubbish, &GO).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
