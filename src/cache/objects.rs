//! Large blobs as files: `objects/ab/cdef…`, mode 0444, complete or not there.
//!
//! A file is written beside its directory under a temporary name and renamed, so a killed process leaves no short file
//! under an object's name. Nothing is synced: after a power loss a file may be short or hold anything, which is why a
//! file of an earlier boot is not read before [`Objects::rehash`] has seen it. Files are opened for each read: open,
//! `fstat` and close cost some microseconds beside a copy of up to a mebibyte, and no descriptor outlives its file.

use std::{
    fs::{self, DirBuilder, File},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, FileExt, PermissionsExt},
    path::{Path, PathBuf},
};

use bytes::{Bytes, BytesMut};

use super::CacheError;
use crate::types::{ObjectKind, Oid};

/// The directory of large blobs.
#[derive(Clone, Debug)]
pub(super) struct Objects {
    dir: PathBuf,
    temporary: PathBuf,
}

/// A file that is not what the index says.
#[derive(Debug, thiserror::Error)]
pub(super) enum FileFault {
    #[error("its file is missing")]
    Missing,
    #[error("its file has {found} bytes and not {expected}")]
    Length { expected: u64, found: u64 },
    #[error("the content of its file has another id")]
    Content,
    #[error("its file cannot be read: {0}")]
    Io(#[source] io::Error),
}

impl Objects {
    /// Prepares the directories and removes what a killed process was writing. The cache must be locked.
    pub(super) fn open(cache: &Path) -> Result<Objects, CacheError> {
        let objects = Objects { dir: cache.join("objects"), temporary: cache.join("objects/tmp") };
        make_dir(&objects.temporary).and_then(|()| empty(&objects.temporary)).map_err(|source| {
            CacheError::Io { action: "prepare", path: objects.temporary.clone(), source }
        })?;
        Ok(objects)
    }

    /// Where the content of `oid` is kept.
    pub(super) fn path(&self, oid: Oid) -> PathBuf {
        let hex = oid.to_string();
        let (first, rest) = hex.split_at(2);
        self.dir.join(first).join(rest)
    }

    /// Keeps `content`, which has been verified, replacing what was there. Blocks on the disk.
    pub(super) fn write(&self, oid: Oid, content: &[u8]) -> Result<(), CacheError> {
        let path = self.path(oid);
        self.write_and_rename(&path, content).map_err(|source| CacheError::Io {
            action: "write",
            path,
            source,
        })
    }

    fn write_and_rename(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        let mut file = tempfile::Builder::new().prefix("").tempfile_in(&self.temporary)?;
        file.write_all(content)?;
        file.as_file().set_permissions(fs::Permissions::from_mode(0o444))?;
        make_dir(path.parent().unwrap_or(&self.dir))?;
        file.persist(path).map_err(|refused| refused.error)?;
        Ok(())
    }

    /// Forgets the content of `oid`; a file that is not there is fine.
    pub(super) fn remove(&self, oid: Oid) -> io::Result<()> {
        match fs::remove_file(self.path(oid)) {
            Err(why) if why.kind() != io::ErrorKind::NotFound => Err(why),
            _ => Ok(()),
        }
    }

    /// Exactly `len` bytes at `offset` of a file of `size` bytes; the caller has clamped them to the size.
    pub(super) fn read(&self, oid: Oid, size: u64, offset: u64, len: usize) -> Result<Bytes, FileFault> {
        let file = self.open_sized(oid, size)?;
        let mut content = BytesMut::zeroed(len);
        file.read_exact_at(&mut content, offset).map_err(FileFault::Io)?;
        Ok(content.freeze())
    }

    /// Whether the file is there with the right size.
    pub(super) fn probe(&self, oid: Oid, size: u64) -> Result<(), FileFault> {
        self.open_sized(oid, size).map(drop)
    }

    /// Reads the whole file and compares its id. Blocks for as long as the disk takes.
    pub(super) fn rehash(&self, oid: Oid, size: u64) -> Result<(), FileFault> {
        let file = self.open_sized(oid, size)?;
        let found = Oid::of_reader(ObjectKind::Blob, size, file).map_err(FileFault::Io)?;
        if found == Some(oid) { Ok(()) } else { Err(FileFault::Content) }
    }

    fn open_sized(&self, oid: Oid, expected: u64) -> Result<File, FileFault> {
        let file = File::open(self.path(oid)).map_err(|why| match why.kind() {
            io::ErrorKind::NotFound => FileFault::Missing,
            _ => FileFault::Io(why),
        })?;
        let found = file.metadata().map_err(FileFault::Io)?.len();
        if found == expected { Ok(file) } else { Err(FileFault::Length { expected, found }) }
    }
}

impl FileFault {
    /// Whether the file itself is wrong, and not the attempt to read it (too many open files, say).
    pub(super) fn is_damage(&self) -> bool {
        match self {
            FileFault::Missing | FileFault::Length { .. } | FileFault::Content => true,
            FileFault::Io(why) => {
                why.kind() == io::ErrorKind::UnexpectedEof || why.raw_os_error() == Some(libc::EIO)
            }
        }
    }

    /// As the reader's error.
    pub(super) fn into_error(self, path: PathBuf) -> CacheError {
        let source = match self {
            FileFault::Io(why) => why,
            other => io::Error::other(other.to_string()),
        };
        CacheError::Io { action: "read", path, source }
    }
}

fn make_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// The directory itself stays: on a full disk it could not be made again.
fn empty(dir: &Path) -> io::Result<()> {
    fs::read_dir(dir)?.try_for_each(|entry| fs::remove_file(entry?.path()))
}
