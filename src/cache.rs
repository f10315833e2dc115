//! The host's shared object cache: LMDB for trees, small blobs and the index, files for large blobs.
//!
//! It holds only what was verified, belongs to no user, and may be lost at any time.

use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::types::Oid;

/// How a cache is opened.
#[derive(Clone, Debug)]
pub struct CacheOptions {
    /// Directory of the cache; created 0700 when missing.
    pub dir: PathBuf,
    /// Upper bound of the LMDB map, in bytes of address space.
    pub map_bytes: u64,
    /// Blobs up to this many bytes live in LMDB, larger ones in files.
    pub inline_max_bytes: u32,
    /// This boot's id: a cache last written under another one is checked before it is used.
    pub boot_id: String,
}

/// Why the cache cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// LMDB failed.
    #[error("the cache database in {} failed: {source}", dir.display())]
    Database {
        /// The cache directory.
        dir: PathBuf,
        /// What LMDB said.
        source: heed::Error,
    },
    /// A file operation failed.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// Verb: `read`, `write`, `create`.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// What is kept in one step. Everything in it has been verified.
#[derive(Clone, Debug)]
pub enum Put {
    /// The raw body of a tree.
    Tree(Oid, Bytes),
    /// The content of a blob; its size is kept with it.
    Blob(Oid, Bytes),
    /// The size of a blob that is not here yet.
    Size(Oid, u64),
}

/// Counters, for `stats` and metrics.
#[derive(Clone, Copy, Debug, Default)]
pub struct CacheStats {
    /// Trees held.
    pub trees: u64,
    /// Blobs held in LMDB.
    pub inline_blobs: u64,
    /// Blobs held as files.
    pub file_blobs: u64,
    /// Bytes of blob content held.
    pub blob_bytes: u64,
    /// Bytes of the database file in use.
    pub database_bytes: u64,
}

/// An open cache. Cheap to clone; all methods but [`Cache::put`] are synchronous and take microseconds on a warm page
/// cache.
#[derive(Clone)]
pub struct Cache {}

impl Cache {
    /// Opens the cache; one that is damaged or of another version is thrown away and made anew.
    pub fn open(_options: CacheOptions) -> Result<Cache, CacheError> {
        todo!()
    }

    /// The raw body of a tree.
    pub fn tree(&self, _oid: Oid) -> Result<Option<Bytes>, CacheError> {
        todo!()
    }

    /// The size of a blob, whether or not its content is here.
    pub fn size(&self, _oid: Oid) -> Result<Option<u64>, CacheError> {
        todo!()
    }

    /// Whether the blob's content is here.
    pub fn has_blob(&self, _oid: Oid) -> Result<bool, CacheError> {
        todo!()
    }

    /// Exactly `min(len, size − offset)` bytes of a blob, or `None` when its content is not here.
    pub fn read_blob(&self, _oid: Oid, _offset: u64, _len: u32) -> Result<Option<Bytes>, CacheError> {
        todo!()
    }

    /// Keeps what was verified; returns when it is visible to every reader.
    pub async fn put(&self, _puts: Vec<Put>) -> Result<(), CacheError> {
        todo!()
    }

    /// Counters.
    pub fn stats(&self) -> Result<CacheStats, CacheError> {
        todo!()
    }

    /// Directory of the cache.
    pub fn dir(&self) -> &Path {
        todo!()
    }
}
