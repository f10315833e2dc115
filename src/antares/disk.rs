//! Where workspaces lie on disk. All of it is root's, relative to two directory descriptors, and follows no symlink.
//!
//! ```text
//! <state>/workspaces/<id>/record        the record
//! <upper_root>/<id>/upper               what the user wrote; owned by the user, mode as asked for
//! <upper_root>/<id>/work-<n>            overlayfs's scratch space, a fresh one for every mount
//! <upper_root>/<id>/empty               instead of both, in a read-only workspace
//! <either root>/.trash-<id>-<n>         being deleted
//! ```
//!
//! The two roots may be one directory. A removal is decided by renaming `<state>/workspaces/<id>` to trash: it needs no
//! room on a full disk, and what is left of a removal that was cut short is finished by the next start.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{
        AtFlags, Gid, Mode, RenameFlags, Uid, fchmod, fchown, fstat, fsync, mkdirat, renameat_with, statat,
        unlinkat,
    },
    io::Errno,
};

use super::{
    WorkspaceError,
    options::DEFAULT_MODE,
    record::{self, BadRecord, Record},
    state::Phase,
    trash::{self, Rubbish},
};
use crate::{engine::Upper, sys::durable, types::WorkspaceId};

const RECORD: &str = "record";
const UPPER: &str = "upper";
const EMPTY: &str = "empty";
const WORK: &str = "work-";

/// Only root passes: what lies below may be any user's.
const PRIVATE: Mode = Mode::RWXU;

/// Work directories of this boot that are kept for mounts that may live on where mountinfo does not show them: detached
/// with processes inside, or copied into a container. Two inodes each; someone who mounts the same workspace again 64
/// times in one boot while the first mount is still in use loses copy-up there, not data.
const KEPT_WORKS: u32 = 64;

/// The two roots.
pub(super) struct Disk {
    records: Root,
    uppers: Root,
    same: bool,
}

struct Root {
    fd: OwnedFd,
    path: PathBuf,
}

/// What was found of one workspace's record.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum FoundRecord {
    /// A sound one.
    Good(Box<Record>),
    /// There is no record.
    Missing,
    /// One that cannot be used.
    Bad(BadRecord),
}

/// What was found of one workspace's upper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FoundUpper {
    /// No directory.
    Missing,
    /// Nothing was written.
    Empty {
        /// Its owner.
        uid: u32,
    },
    /// Something was written, or nobody can tell.
    Changed {
        /// Its owner.
        uid: u32,
    },
}

impl Disk {
    /// Opens both roots, making them if need be. A root that others may write to is refused.
    pub(super) fn open(state_dir: &Path, upper_root: &Path) -> Result<Disk, WorkspaceError> {
        let records = Root::open(state_dir.join("workspaces"))?;
        let uppers = Root::open(upper_root.to_owned())?;
        let id = |root: &Root| {
            let stat = fstat(&root.fd).map_err(|error| root.failed("look at", error.into()))?;
            Ok::<_, WorkspaceError>((stat.st_dev, stat.st_ino))
        };
        let same = id(&records)? == id(&uppers)?;
        Ok(Disk { records, uppers, same })
    }

    fn roots(&self) -> impl Iterator<Item = &Root> {
        [Some(&self.records), (!self.same).then_some(&self.uppers)].into_iter().flatten()
    }

    /// Whether anything lies under this id.
    pub(super) fn knows(&self, id: &WorkspaceId) -> bool {
        self.roots().any(|root| statat(&root.fd, id.as_str(), AtFlags::SYMLINK_NOFOLLOW).is_ok())
    }

    /// Takes new directories for `id`; on an error none is left.
    pub(super) fn claim(&self, id: &WorkspaceId) -> Result<(), WorkspaceError> {
        self.records.make(id.as_str())?;
        if self.same {
            return Ok(());
        }
        self.uppers.make(id.as_str()).inspect_err(|_| {
            if let Err(error) = unlinkat(&self.records.fd, id.as_str(), AtFlags::REMOVEDIR) {
                tracing::warn!(scorpio_workspace = %id, errno = error.raw_os_error(), "an empty directory stays");
            }
        })
    }

    /// Writes the record; durable when this returns.
    pub(super) fn write(&self, record: &Record) -> Result<(), WorkspaceError> {
        let path = self.record_path(&record.id);
        let bytes = record::encode(record);
        self.records
            .open_dir(record.id.as_str())
            .and_then(|dir| durable::write(dir.as_fd(), RECORD, &bytes))
            .map_err(|source| WorkspaceError::Disk { action: "write", path, source })
    }

    /// Reads the record of `id`.
    pub(super) fn read(&self, id: &WorkspaceId) -> FoundRecord {
        let bytes = self
            .records
            .open_dir(id.as_str())
            .and_then(|dir| durable::read(dir.as_fd(), RECORD, record::MAX_BYTES));
        match bytes {
            Err(error) if error.kind() == io::ErrorKind::NotFound => FoundRecord::Missing,
            Err(error) => FoundRecord::Bad(BadRecord::Unreadable(error.to_string())),
            Ok(bytes) => match record::decode(&bytes) {
                Ok(record) if record.id == *id => FoundRecord::Good(Box::new(record)),
                Ok(record) => FoundRecord::Bad(BadRecord::SomebodyElses(record.id)),
                Err(bad) => FoundRecord::Bad(bad),
            },
        }
    }

    /// Makes what an adopted upper lacks: the record's directory. A record that could not be used is kept beside.
    pub(super) fn make_room_for_record(&self, id: &WorkspaceId) -> Result<(), WorkspaceError> {
        if statat(&self.records.fd, id.as_str(), AtFlags::SYMLINK_NOFOLLOW).is_err() {
            return self.records.make(id.as_str());
        }
        let failed =
            |source| WorkspaceError::Disk { action: "set aside", path: self.record_path(id), source };
        let dir = self.records.open_dir(id.as_str()).map_err(failed)?;
        for n in 0..u32::MAX {
            let aside = format!("{RECORD}.unusable-{n}");
            match renameat_with(&dir, RECORD, &dir, &aside, RenameFlags::NOREPLACE) {
                Err(Errno::EXIST) => {}
                Ok(()) => return fsync(&dir).map_err(|error| failed(error.into())),
                Err(Errno::NOENT) => return Ok(()),
                Err(error) => return Err(failed(error.into())),
            }
        }
        Err(failed(Errno::EXIST.into()))
    }

    /// Makes what the next mount of `record` needs: the upper, if the workspace is being created, and the fresh work
    /// directory number `work`. Old ones that nothing uses are returned.
    pub(super) fn prepare(
        &self,
        record: &Record,
        work: u32,
    ) -> Result<(Upper, Vec<Rubbish>), WorkspaceError> {
        let id = &record.id;
        let path = self.upper_dir(id);
        let failed = |source| WorkspaceError::Disk { action: "prepare", path: path.clone(), source };
        let dir = self.uppers.open_dir(id.as_str()).map_err(failed)?;
        if record.options.read_only {
            make_owned(&dir, EMPTY, record).map_err(failed)?;
            return Ok((Upper::ReadOnly { empty: path.join(EMPTY) }, Vec::new()));
        }
        if record.phase == Phase::Creating {
            make_owned(&dir, UPPER, record).map_err(failed)?;
        }
        // Never a new one in the place of one that was lost.
        durable::open_dir_at(dir.as_fd(), UPPER).map_err(failed)?;
        let rubbish = self.old_works(record, work, &dir);
        let work = format!("{WORK}{work}");
        make_dir(&dir, &work).map_err(failed)?;
        fsync(&dir).map_err(|error| failed(error.into()))?;
        let volatile = record.options.ephemeral;
        Ok((Upper::Writable { upper: path.join(UPPER), work: path.join(work), volatile }, rubbish))
    }

    /// Renames work directories that surely nothing uses (see [`KEPT_WORKS`]) to trash.
    fn old_works(&self, record: &Record, current: u32, dir: &OwnedFd) -> Vec<Rubbish> {
        let oldest_kept = record.works.since.max(current.saturating_sub(KEPT_WORKS));
        let works = names(dir).unwrap_or_default().into_iter().filter(|name| {
            let number = name.strip_prefix(WORK).and_then(|number| number.parse::<u32>().ok());
            number.is_some_and(|number| number < oldest_kept)
        });
        let trashed = works.filter_map(|name| match self.uppers.trash(dir, &name, &record.id) {
            Ok(rubbish) => rubbish,
            Err(error) => {
                tracing::warn!(scorpio_workspace = %record.id, path = name, %error, "an old work directory stays");
                None
            }
        });
        trashed.collect()
    }

    /// Greatest number of a work directory there is, plus one.
    pub(super) fn next_work(&self, id: &WorkspaceId) -> u32 {
        let names = self.uppers.open_dir(id.as_str()).and_then(|dir| names(&dir)).unwrap_or_default();
        let numbers = names.iter().filter_map(|name| name.strip_prefix(WORK)?.parse::<u32>().ok());
        numbers.max().map_or(0, |last| last.saturating_add(1))
    }

    /// Looks at the upper of `id`.
    pub(super) fn upper(&self, id: &WorkspaceId) -> FoundUpper {
        let dir = match self.uppers.open_dir(id.as_str()) {
            Ok(dir) => dir,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return FoundUpper::Missing,
            Err(_) => return FoundUpper::Changed { uid: 0 },
        };
        let upper = match durable::open_dir_at(dir.as_fd(), UPPER) {
            Ok(upper) => upper,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return FoundUpper::Missing,
            // Not a directory, or unreadable: there is something, and it may be somebody's.
            Err(_) => {
                let stat = statat(&dir, UPPER, AtFlags::SYMLINK_NOFOLLOW);
                return FoundUpper::Changed { uid: stat.map_or(0, |stat| stat.st_uid) };
            }
        };
        let uid = fstat(&upper).map_or(0, |stat| stat.st_uid);
        match is_empty(&upper) {
            Ok(true) => FoundUpper::Empty { uid },
            Ok(false) | Err(_) => FoundUpper::Changed { uid },
        }
    }

    /// The upper of `id`, for looking into it.
    pub(super) fn open_upper(&self, id: &WorkspaceId) -> io::Result<OwnedFd> {
        durable::open_dir_at(self.uppers.open_dir(id.as_str())?.as_fd(), UPPER)
    }

    /// Renames all of `id` to trash. When this fails, everything stands as before.
    pub(super) fn discard(&self, id: &WorkspaceId) -> Result<Vec<Rubbish>, WorkspaceError> {
        let record = self.records.trash_workspace(id)?;
        if self.same {
            return Ok(record.into_iter().collect());
        }
        match self.uppers.trash_workspace(id) {
            // Uppers are deleted first: while the record is in the trash, the next start finishes the removal.
            Ok(upper) => Ok(upper.into_iter().chain(record).collect()),
            Err(error) if record.is_some() => {
                tracing::warn!(scorpio_workspace = %id, %error, "the upper goes at the next start only");
                Ok(Vec::new())
            }
            Err(error) => Err(error),
        }
    }

    /// All ids that anything lies under.
    pub(super) fn ids(&self) -> Result<Vec<WorkspaceId>, WorkspaceError> {
        let mut ids = Vec::new();
        for root in self.roots() {
            let names = names(&root.fd).map_err(|error| root.failed("list", error))?;
            ids.extend(names.iter().filter_map(|name| name.parse::<WorkspaceId>().ok()));
        }
        ids.sort();
        ids.dedup();
        Ok(ids)
    }

    /// Finishes removals that were cut short: what is in the trash, and the uppers of trashed records.
    pub(super) fn unfinished(&self) -> Result<Vec<Rubbish>, WorkspaceError> {
        let mut rubbish = Vec::new();
        for root in self.roots() {
            let names = names(&root.fd).map_err(|error| root.failed("list", error))?;
            for name in names.into_iter().filter(|name| trash::owner(name).is_some()) {
                rubbish.extend(self.finish(root, &name)?);
                rubbish.push(root.rubbish(name)?);
            }
        }
        rubbish.reverse();
        Ok(rubbish)
    }

    /// The upper that belongs to a trashed record, unless it has a record again.
    fn finish(&self, root: &Root, trashed: &str) -> Result<Option<Rubbish>, WorkspaceError> {
        let owner = trash::owner(trashed).filter(|_| !self.same && std::ptr::eq(root, &self.records));
        let Some(id) = owner.filter(|id| self.records.open_dir(id.as_str()).is_err()) else {
            return Ok(None);
        };
        // Synced before the record is deleted for good: an upper that came back alone would be an orphan.
        self.uppers.trash_workspace(&id)
    }

    /// Where the record of `id` lies.
    pub(super) fn record_path(&self, id: &WorkspaceId) -> PathBuf {
        self.records.path.join(id.as_str()).join(RECORD)
    }

    /// Where what a user wrote lies.
    pub(super) fn upper_path(&self, id: &WorkspaceId) -> PathBuf {
        self.upper_dir(id).join(UPPER)
    }

    /// The directory that upper and work directories lie in.
    pub(super) fn upper_dir(&self, id: &WorkspaceId) -> PathBuf {
        self.uppers.path.join(id.as_str())
    }
}

impl Root {
    fn open(path: PathBuf) -> Result<Root, WorkspaceError> {
        let failed = |action, source| WorkspaceError::Disk { action, path: path.clone(), source };
        durable::make_dirs(&path).map_err(|error| failed("make", error))?;
        let fd = durable::open_dir(&path).map_err(|error| failed("open", error))?;
        let stat = fstat(&fd).map_err(|error| failed("look at", error.into()))?;
        let own = rustix::process::geteuid().as_raw();
        if stat.st_uid != own || stat.st_mode & 0o022 != 0 {
            let reason = "others may write to it; it must belong to the service alone";
            return Err(failed("use", io::Error::new(io::ErrorKind::PermissionDenied, reason)));
        }
        Ok(Root { fd, path })
    }

    fn open_dir(&self, name: &str) -> io::Result<OwnedFd> {
        durable::open_dir_at(self.fd.as_fd(), name)
    }

    fn make(&self, name: &str) -> Result<(), WorkspaceError> {
        let made = make_dir(&self.fd, name).and_then(|()| Ok(fsync(&self.fd)?));
        made.map_err(|source| WorkspaceError::Disk { action: "make", path: self.path.join(name), source })
    }

    /// Renames `name` of `dir` to trash; `None` when it is not there.
    fn trash(&self, dir: &OwnedFd, name: &str, id: &WorkspaceId) -> io::Result<Option<Rubbish>> {
        for n in 0..u32::MAX {
            let trashed = trash::name(id, n);
            match renameat_with(dir, name, &self.fd, &trashed, RenameFlags::NOREPLACE) {
                Ok(()) => return Ok(Some(Rubbish { root: self.fd.try_clone()?, name: trashed })),
                Err(Errno::EXIST) => {}
                Err(Errno::NOENT) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
        Err(Errno::EXIST.into())
    }

    fn trash_workspace(&self, id: &WorkspaceId) -> Result<Option<Rubbish>, WorkspaceError> {
        let trashed = self.trash(&self.fd, id.as_str(), id).and_then(|trashed| {
            fsync(&self.fd)?;
            Ok(trashed)
        });
        trashed.map_err(|error| self.failed_on("discard", id, error))
    }

    fn rubbish(&self, name: String) -> Result<Rubbish, WorkspaceError> {
        let root = self.fd.try_clone().map_err(|error| self.failed("hold", error))?;
        Ok(Rubbish { root, name })
    }

    fn failed(&self, action: &'static str, source: io::Error) -> WorkspaceError {
        WorkspaceError::Disk { action, path: self.path.clone(), source }
    }

    fn failed_on(&self, action: &'static str, id: &WorkspaceId, source: io::Error) -> WorkspaceError {
        WorkspaceError::Disk { action, path: self.path.join(id.as_str()), source }
    }
}

/// The directory `name` that the mount's root will show: stored as the user's, with the mode that was asked for.
fn make_owned(dir: &OwnedFd, name: &str, record: &Record) -> io::Result<()> {
    match mkdirat(dir, name, PRIVATE) {
        Ok(()) => {}
        Err(Errno::EXIST) => return Ok(()),
        Err(error) => return Err(error.into()),
    }
    let made = durable::open_dir_at(dir.as_fd(), name)?;
    fchown(&made, Some(Uid::from_raw(record.stored.uid)), Some(Gid::from_raw(record.stored.gid)))?;
    fchmod(&made, Mode::from_raw_mode(record.options.mode.unwrap_or(DEFAULT_MODE)))?;
    fsync(&made)?;
    fsync(dir)?;
    Ok(())
}

/// A new directory for root alone, whatever the umask.
fn make_dir(dir: &OwnedFd, name: &str) -> io::Result<()> {
    mkdirat(dir, name, PRIVATE)?;
    fchmod(durable::open_dir_at(dir.as_fd(), name)?, PRIVATE)?;
    Ok(())
}

/// Names in a directory that are text; ours all are.
fn names(dir: &OwnedFd) -> io::Result<Vec<String>> {
    let entries = rustix::fs::Dir::read_from(dir)?;
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry?;
        names.extend(
            entry.file_name().to_str().ok().filter(|name| !matches!(*name, "." | "..")).map(str::to_owned),
        );
    }
    Ok(names)
}

fn is_empty(dir: &OwnedFd) -> io::Result<bool> {
    for entry in rustix::fs::Dir::read_from(dir)? {
        if !matches!(entry?.file_name().to_bytes(), b"." | b"..") {
            return Ok(false);
        }
    }
    Ok(true)
}
