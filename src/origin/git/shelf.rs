//! [`Shelf`]: the packs of a repository, opened once and shared by all threads that read it.
//!
//! Packs are immutable and named by what is in them, so an open pack is good as long as it is listed. What is listed
//! changes (`git gc`, a fetch, another repository put in its place), and is compared with the disk by the stamp of the
//! `pack` directory before each piece of work, and once more before anything is called absent.

use std::{
    collections::HashMap,
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, SystemTime},
};

use super::{
    error::{OpenError, ReadError},
    files::open_regular,
    index::Index,
    pack::Data,
};
use crate::types::Oid;

/// Packs of one object directory. `git gc` keeps them below 50; a pack takes two descriptors, of which the service has
/// half a million for everything.
const PACKS_MAX: usize = 4096;
/// A directory that changed less than this ago may change again without a new stamp: file systems keep times in ticks,
/// the coarsest in two seconds.
const UNSETTLED: Duration = Duration::from_secs(2);

/// How sure the caller must be that the disk holds nothing newer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Freshness {
    /// The stamps are compared.
    Stamped,
    /// The stamps are compared, and one too young to be trusted counts as changed.
    Certain,
}

/// All open packs, by object directory.
#[derive(Default)]
pub(super) struct Shelf {
    dirs: Mutex<HashMap<PathBuf, Arc<ObjectDir>>>,
    next_pack: AtomicU32,
}

/// One object directory and its packs, newest first.
pub(super) struct ObjectDir {
    pub(super) path: PathBuf,
    pub(super) packs: Vec<Arc<Pack>>,
    /// What could not be looked into: an object not found may be there.
    pub(super) flaws: Vec<OpenError>,
    stamp: Result<Stamp, OpenError>,
    settled: bool,
}

/// A pack whose index is open; its data is opened when the first object is read from it.
pub(super) struct Pack {
    pub(super) index: Index,
    key: PackKey,
    number: u32,
    data: OnceLock<Data>,
}

/// What tells two states of a directory apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    objects: (u64, u64),
    pack: Option<FileStamp>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileStamp {
    file: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct PackKey {
    index: PathBuf,
    stamp: FileStamp,
}

impl Shelf {
    /// The object directories `dirs` as they are now; whatever else was open is let go.
    pub(super) fn view(&self, dirs: &[PathBuf], freshness: Freshness) -> Vec<Arc<ObjectDir>> {
        let mut known = self.dirs.lock().unwrap_or_else(PoisonError::into_inner);
        let viewed: Vec<_> = dirs.iter().map(|path| self.current(&known, path, freshness)).collect();
        *known = viewed.iter().map(|dir| (dir.path.clone(), dir.clone())).collect();
        viewed
    }

    /// Lets go of everything.
    pub(super) fn clear(&self) {
        self.dirs.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn current(
        &self,
        known: &HashMap<PathBuf, Arc<ObjectDir>>,
        path: &Path,
        freshness: Freshness,
    ) -> Arc<ObjectDir> {
        let stamp = Stamp::of(path);
        let former = known.get(path);
        match former {
            Some(dir) if dir.stamp == stamp && (dir.settled || freshness == Freshness::Stamped) => {
                dir.clone()
            }
            _ => Arc::new(self.scan(path, stamp, former)),
        }
    }

    fn scan(
        &self,
        path: &Path,
        stamp: Result<Stamp, OpenError>,
        former: Option<&Arc<ObjectDir>>,
    ) -> ObjectDir {
        let settled = stamp.as_ref().is_ok_and(|stamp| stamp.is_settled(SystemTime::now()));
        let flaws = stamp.as_ref().err().cloned().into_iter().collect();
        let mut dir = ObjectDir { path: path.to_owned(), packs: Vec::new(), flaws, stamp, settled };
        let former: HashMap<&Path, &Arc<Pack>> = former
            .map(|dir| dir.packs.iter().map(|pack| (pack.key.index.as_path(), pack)).collect())
            .unwrap_or_default();
        let indices = indices(&path.join("pack"), &mut dir.flaws);
        for index in indices {
            match self.pack(index, &former) {
                Ok(pack) => dir.packs.push(pack),
                // Deleted since it was listed: what took its place has changed the directory's stamp.
                Err(OpenError::Missing { .. }) => {}
                Err(flaw) => dir.flaws.push(flaw),
            }
        }
        dir.packs.sort_by_key(|pack| std::cmp::Reverse(pack.key.stamp.modified));
        dir
    }

    fn pack(&self, index: PathBuf, former: &HashMap<&Path, &Arc<Pack>>) -> Result<Arc<Pack>, OpenError> {
        let metadata = fs::metadata(&index).map_err(|error| OpenError::from_io(&index, &error))?;
        let key = PackKey { index, stamp: FileStamp::of(&metadata) };
        if let Some(pack) = former.get(key.index.as_path()).filter(|pack| pack.key == key) {
            return Ok(Arc::clone(pack));
        }
        let file = open_regular(&key.index)?;
        // An index without its pack is what an interrupted deletion leaves.
        fs::metadata(key.index.with_extension("pack"))
            .map_err(|error| OpenError::from_io(&key.index.with_extension("pack"), &error))?;
        let index = Index::open(&key.index, file)?;
        let number = self.next_pack.fetch_add(1, Ordering::Relaxed);
        Ok(Arc::new(Pack { index, key, number, data: OnceLock::new() }))
    }
}

impl Pack {
    /// The pack's data.
    pub(super) fn data(&self) -> Result<&Data, ReadError> {
        if let Some(data) = self.data.get() {
            return Ok(data);
        }
        let path = self.key.index.with_extension("pack");
        let file = open_regular(&path)?;
        let data = Data::open(&path, file, self.number)?;
        Ok(self.data.get_or_init(|| data))
    }

    /// Where the object is in the pack's data, if it is in this pack.
    pub(super) fn find(&self, oid: Oid) -> Result<Option<u64>, ReadError> {
        let entry = self.index.find(oid)?;
        Ok(entry.map(|entry| self.index.offset(entry)).transpose()?)
    }
}

impl Stamp {
    fn of(objects: &Path) -> Result<Stamp, OpenError> {
        let metadata = fs::metadata(objects).map_err(|error| OpenError::from_io(objects, &error))?;
        let pack = objects.join("pack");
        let pack = match fs::metadata(&pack) {
            Ok(metadata) => Some(FileStamp::of(&metadata)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(OpenError::from_io(&pack, &error)),
        };
        Ok(Stamp { objects: (metadata.dev(), metadata.ino()), pack })
    }

    fn is_settled(&self, now: SystemTime) -> bool {
        let Some(pack) = &self.pack else { return true };
        let changed = u64::try_from(pack.changed.0).unwrap_or(0);
        // A time to come (another host's clock) is not settled either.
        now.duration_since(SystemTime::UNIX_EPOCH + Duration::from_secs(changed))
            .is_ok_and(|age| age > UNSETTLED)
    }
}

impl FileStamp {
    fn of(metadata: &fs::Metadata) -> FileStamp {
        FileStamp {
            file: (metadata.dev(), metadata.ino()),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

fn indices(pack_dir: &Path, flaws: &mut Vec<OpenError>) -> Vec<PathBuf> {
    match list_indices(pack_dir) {
        Ok(mut paths) if paths.len() > PACKS_MAX => {
            flaws.push(OpenError::unreadable(pack_dir, format!("it holds more than {PACKS_MAX} packs")));
            paths.truncate(PACKS_MAX);
            paths
        }
        Ok(paths) => paths,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => {
            flaws.push(OpenError::from_io(pack_dir, &error));
            Vec::new()
        }
    }
}

fn list_indices(pack_dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(pack_dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "idx") && paths.len() <= PACKS_MAX {
            paths.push(path);
        }
    }
    Ok(paths)
}
