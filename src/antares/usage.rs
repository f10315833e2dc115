//! How much lies in an upper: counted by walking it, and nothing but it.
//!
//! No mount is asked, no symlink followed, no other file system entered, and no time of access changed. A walk is bounded in
//! time by who asks for it ([`Budget`]) and in memory by the constants here; figures that may be too small say why.

use std::{
    collections::HashSet,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use rustix::{
    fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, fstat, openat2, statat},
    io::Errno,
};

use super::{Scope, Usage, WorkspaceError, inner::Inner};
use crate::types::WorkspaceId;

/// Bytes of paths of directories that wait for their turn: those of a directory with a hundred thousand in it. Beyond it
/// some are left out, rather than let a user choose how much we hold.
const MAX_WAITING: usize = 16 << 20;
/// Files with several names that are remembered, so that each counts once. Beyond it they count once for each name.
const MAX_LINKED: usize = 1 << 16;
/// What `st_blocks` counts in, whatever the file system's own blocks are.
const BLOCK: u64 = 512;

/// How long to measure. Clones are the same budget.
#[derive(Clone, Debug)]
pub struct Budget {
    end: Instant,
    given_up: Arc<AtomicBool>,
}

impl Budget {
    /// Until `end`.
    pub fn until(end: Instant) -> Budget {
        Budget { end, given_up: Arc::default() }
    }

    /// Ends it now: nobody waits for the figures any more.
    pub fn give_up(&self) {
        self.given_up.store(true, Ordering::Relaxed);
    }

    /// Whether it is over.
    pub fn is_spent(&self) -> bool {
        self.given_up.load(Ordering::Relaxed) || Instant::now() >= self.end
    }
}

/// See [`super::Antares::measure`].
pub(super) fn measure(
    inner: &Inner,
    scope: &Scope,
    id: &WorkspaceId,
    budget: &Budget,
) -> Result<Usage, WorkspaceError> {
    let (_, workspace) = inner.table.find(scope, id)?;
    if workspace.options.read_only {
        return Ok(Usage::default());
    }
    Ok(match inner.disk.open_upper(id) {
        Ok(upper) => of_directory(&upper, budget),
        Err(error) => {
            let partial = Some(format!("its upper cannot be opened: {error}"));
            Usage { partial, ..Usage::default() }
        }
    })
}

/// What lies in `upper`, itself included.
fn of_directory(upper: &OwnedFd, budget: &Budget) -> Usage {
    let mut walk = Walk {
        upper: upper.as_fd(),
        usage: Usage::default(),
        waiting: vec![b".".to_vec()],
        waiting_bytes: 1,
        linked: HashSet::new(),
    };
    match fstat(upper) {
        Ok(stat) => walk.count(&stat),
        Err(error) => walk.miss("its upper cannot be looked at", error),
    }
    while let Some(path) = walk.waiting.pop() {
        walk.waiting_bytes -= path.len();
        if !walk.list(&path, budget) {
            walk.usage.partial.get_or_insert_with(|| "counting all of it takes too long".to_owned());
            break;
        }
    }
    walk.usage
}

struct Walk<'a> {
    upper: BorrowedFd<'a>,
    usage: Usage,
    /// Directories still to be listed, by their paths from the upper.
    waiting: Vec<Vec<u8>>,
    waiting_bytes: usize,
    /// Inodes with several names that have been counted.
    linked: HashSet<u64>,
}

impl Walk<'_> {
    /// Counts what lies in the directory `path`; false when the budget is spent.
    fn list(&mut self, path: &[u8], budget: &Budget) -> bool {
        let opened = open_below(self.upper, path).and_then(|dir| Ok((Dir::read_from(&dir)?, dir)));
        let (entries, dir) = match opened {
            Ok(opened) => opened,
            // It went away meanwhile, or something else has its name now.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return !budget.is_spent(),
            Err(error) => {
                self.miss("a directory in it cannot be listed", error);
                return !budget.is_spent();
            }
        };
        for entry in entries {
            if budget.is_spent() {
                return false;
            }
            match entry {
                Ok(entry) => self.entry(path, &dir, entry.file_name().to_bytes()),
                Err(error) => {
                    self.miss("a directory in it cannot be listed to its end", error);
                    break;
                }
            }
        }
        true
    }

    fn entry(&mut self, path: &[u8], dir: &OwnedFd, name: &[u8]) {
        if matches!(name, b"." | b"..") {
            return;
        }
        match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => {
                self.count(&stat);
                if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                    self.remember([path, b"/", name].concat());
                }
            }
            Err(Errno::NOENT) => {}
            Err(error) => self.miss("a file in it cannot be looked at", error),
        }
    }

    fn count(&mut self, stat: &Stat) {
        let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        if stat.st_nlink > 1 && !is_directory {
            let is_known = self.linked.contains(&stat.st_ino);
            if is_known {
                return;
            }
            if self.linked.len() < MAX_LINKED {
                self.linked.insert(stat.st_ino);
            }
        }
        let blocks = u64::try_from(stat.st_blocks).unwrap_or_default();
        self.usage.bytes = self.usage.bytes.saturating_add(blocks.saturating_mul(BLOCK));
        self.usage.inodes += 1;
    }

    fn remember(&mut self, path: Vec<u8>) {
        if self.waiting_bytes + path.len() > MAX_WAITING {
            self.usage.partial.get_or_insert_with(|| "it has too many directories to count in".to_owned());
            return;
        }
        self.waiting_bytes += path.len();
        self.waiting.push(path);
    }

    /// Something is not counted.
    fn miss(&mut self, what: &str, error: Errno) {
        self.usage.partial.get_or_insert_with(|| format!("{what}: {error}"));
    }
}

/// A path longer than any call takes is refused by the kernel, and so not counted.
fn open_below(upper: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::NOATIME | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    openat2(upper, path, flags, Mode::empty(), resolve)
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::{FileExt, MetadataExt, symlink},
        path::Path,
        time::{Duration, SystemTime},
    };

    use super::*;
    use crate::sys::durable;

    fn patient() -> Budget {
        Budget::until(Instant::now() + Duration::from_secs(60))
    }

    fn measured(dir: &Path) -> Usage {
        of_directory(&durable::open_dir(dir).unwrap(), &patient())
    }

    fn whole(paths: &[&Path]) -> Usage {
        let blocks: u64 = paths.iter().map(|path| path.symlink_metadata().unwrap().blocks()).sum();
        Usage { bytes: blocks * 512, inodes: paths.len() as u64, partial: None }
    }

    #[test]
    fn every_inode_counts_once_with_the_blocks_it_takes() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        assert_eq!(measured(dir.path()), whole(&[dir.path()]));
        fs::create_dir_all(at("a/b")).unwrap();
        fs::write(at("a/b/file"), vec![7; 100_000]).unwrap();
        fs::hard_link(at("a/b/file"), at("again")).unwrap();
        fs::hard_link(at("a/b/file"), at("a/and again")).unwrap();
        // Nothing but a length: it takes next to nothing.
        fs::File::create(at("sparse")).unwrap().set_len(1 << 40).unwrap();
        fs::File::create(at("end")).unwrap().write_all_at(b"x", 1 << 30).unwrap();
        symlink("/", at("root")).unwrap();
        symlink("a", at("a/loop")).unwrap();
        nix::unistd::mkfifo(&at("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let all = ["a", "a/b", "a/b/file", "sparse", "end", "root", "a/loop", "fifo"].map(at);
        let mut all: Vec<&Path> = all.iter().map(AsRef::as_ref).collect();
        all.push(dir.path());
        let found = measured(dir.path());
        assert_eq!(found, whole(&all));
        assert!((100_000..1 << 20).contains(&found.bytes), "{found:?}");
    }

    #[test]
    fn counting_leaves_no_mark() {
        let dir = tempfile::tempdir().unwrap();
        let below = dir.path().join("below");
        fs::create_dir(&below).unwrap();
        fs::write(below.join("file"), "x").unwrap();
        // Read long ago and changed since: the next look would be noted.
        let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let directory = fs::File::open(&below).unwrap();
        directory.set_times(fs::FileTimes::new().set_accessed(long_ago)).unwrap();
        assert_eq!(measured(dir.path()).inodes, 3);
        assert_eq!(fs::metadata(&below).unwrap().accessed().unwrap(), long_ago);
    }

    #[test]
    fn what_is_not_counted_is_said() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "x").unwrap();
        let upper = durable::open_dir(dir.path()).unwrap();
        let late = of_directory(&upper, &Budget::until(Instant::now()));
        let too_long = Some("counting all of it takes too long".to_owned());
        assert_eq!(late, Usage { partial: too_long.clone(), ..whole(&[dir.path()]) });
        let given_up = patient();
        given_up.clone().give_up();
        assert_eq!(of_directory(&upper, &given_up).partial, too_long);
        // Deeper than any path can name.
        let mut at = durable::open_dir(dir.path()).unwrap();
        for _ in 0..480 {
            rustix::fs::mkdirat(&at, "dddddddd", Mode::RWXU).unwrap();
            at = durable::open_dir_at(at.as_fd(), "dddddddd").unwrap();
        }
        let deep = measured(dir.path());
        let reason = deep.partial.unwrap();
        assert!(reason.starts_with("a directory in it cannot be listed: "), "{reason}");
        assert!((450..482).contains(&deep.inodes), "{} of 482", deep.inodes);
    }
}
