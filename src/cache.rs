//! The host's shared object cache: LMDB for trees, small blobs and the index, files for large blobs.
//!
//! It holds only what was verified, belongs to no user, and may be lost at any time. What it cannot vouch for, it does
//! not serve: a damaged value is a miss, is dropped and counted, and so is fetched again.
//!
//! Content is kept once, and is here for those origins that have delivered it themselves: whoever may read one origin and
//! knows (or makes up) an object's id learns nothing of what came from another.
//!
//! - [`open`]: lock, boot marker, check of a database of another boot, throwing away
//! - [`check`]: that check, run in a process of its own
//! - [`pages`]: the part of it that proves the structure of the file
//! - [`database`]: the LMDB environment
//! - [`record`], [`word`]: the bytes kept in it
//! - [`objects`]: large blobs as files
//! - [`writer`]: the one thread that writes
//!
//! ```text
//! DIR/lock          held by the process that has the cache open
//! DIR/boot          schema and boot id of the last opening
//! DIR/db/           LMDB environment: trees, blobs, index, words, meta
//! DIR/objects/ab/…  large blobs
//! DIR/objects/tmp/  large blobs being written
//! ```

mod check;
mod database;
mod objects;
mod open;
mod pages;
mod record;
mod word;
mod writer;

use std::{
    collections::HashMap,
    fs::File,
    path::{Path, PathBuf},
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;

pub use self::{check::check, open::Checker};
use self::{
    database::{Database, Found},
    objects::{FileFault, Objects},
    record::{Place, Record},
    word::{OriginNumber, Word},
    writer::{Desk, Step, Writer},
};
use crate::types::{Oid, OriginName};

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
    /// Who checks a cache of another boot. Without it such a cache is thrown away.
    pub checker: Option<Checker>,
}

/// Why the cache cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// LMDB failed.
    #[error("the cache database in {} failed: {source}", dir.display())]
    Database {
        /// The cache directory.
        dir: PathBuf,
        /// What LMDB said; one failed transaction may be the answer to many.
        source: Arc<heed::Error>,
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
    /// Another process (or another part of this one) has it open.
    #[error("the cache in {} is in use by another process", dir.display())]
    InUse {
        /// The cache directory.
        dir: PathBuf,
    },
    /// The cache is being closed, or its writer died.
    #[error("the cache in {} is closed", dir.display())]
    Closed {
        /// The cache directory.
        dir: PathBuf,
    },
    /// The blob is here, but a kernel may have been told another size for it: served now, its file would seem to be cut
    /// short or to end in zeros. Holds until the next boot.
    #[error("blob {oid} has {size} bytes, which is not the size its origin gave before")]
    SizeDisputed {
        /// The blob.
        oid: Oid,
        /// Its verified size.
        size: u64,
    },
}

/// What an origin has delivered, or said. Everything in it has been verified.
#[derive(Clone, Debug)]
pub enum Put {
    /// The raw body of a tree.
    Tree(Oid, Bytes),
    /// The content of a blob; its size is kept with it.
    Blob(Oid, Bytes),
    /// The size of a blob that the origin has not delivered yet. Its first word stands until the content comes.
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
    /// Damaged values met, and not served, since the cache was opened.
    pub damaged: u64,
}

/// An open cache. Cheap to clone; all methods but [`Cache::put`] and [`Cache::recheck`] are synchronous and take
/// microseconds on a warm page cache.
///
/// The last clone to be dropped waits for what is queued to be written.
#[derive(Clone)]
pub struct Cache {
    shared: Arc<Shared>,
}

/// Fields are dropped in this order: the writer ends before its database closes, and the lock goes last.
struct Shared {
    writer: Writer,
    database: Database,
    objects: Objects,
    numbers: RwLock<HashMap<OriginName, OriginNumber>>,
    epoch: u32,
    inline_max_bytes: u32,
    damaged: AtomicU64,
    dir: PathBuf,
    _lock: File,
}

impl Cache {
    /// Opens the cache; one that is damaged or of another version is thrown away and made anew.
    ///
    /// Blocks, for as long as a check may take if the cache was written under another boot.
    pub fn open(options: CacheOptions) -> Result<Cache, CacheError> {
        let opened = open::open(&options)?;
        let CacheOptions { dir, inline_max_bytes, .. } = options;
        let objects = Objects::open(&dir)?;
        let desk = Desk { database: opened.database.clone(), objects: objects.clone(), epoch: opened.epoch };
        let writer = Writer::start(desk).map_err(|source| CacheError::Io {
            action: "start the writer of",
            path: dir.clone(),
            source,
        })?;
        let shared = Shared {
            writer,
            numbers: RwLock::new(opened.origins),
            database: opened.database,
            objects,
            epoch: opened.epoch,
            inline_max_bytes,
            damaged: AtomicU64::new(0),
            dir,
            _lock: opened.lock,
        };
        Ok(Cache { shared: Arc::new(shared) })
    }

    /// The raw body of a tree, if `origin` has delivered it.
    pub fn tree(&self, origin: &OriginName, oid: Oid) -> Result<Option<Bytes>, CacheError> {
        self.look_at_tree(origin, oid, Bytes::copy_from_slice)
    }

    /// Whether a tree is here for `origin`.
    pub fn has_tree(&self, origin: &OriginName, oid: Oid) -> Result<bool, CacheError> {
        Ok(self.look_at_tree(origin, oid, |_| ())?.is_some())
    }

    fn look_at_tree<T>(
        &self,
        origin: &OriginName,
        oid: Oid,
        take: impl FnOnce(&[u8]) -> T,
    ) -> Result<Option<T>, CacheError> {
        let shared = &*self.shared;
        let Some(number) = shared.number(origin) else { return Ok(None) };
        let txn = shared.begin()?;
        if !shared.word(&txn, number, oid)?.is_some_and(|word| word.tree) {
            return Ok(None);
        }
        let found = shared.database.trees.get(&txn, oid.as_bytes()).map_err(|why| shared.failed(why))?;
        let Some(value) = found else { return Ok(None) };
        match record::unseal(oid.as_bytes(), value) {
            Some(body) => Ok(Some(take(body))),
            None => Ok(shared.damaged(oid, &"its checksum is wrong", Step::DamagedTree(oid))),
        }
    }

    /// The size of a blob as `origin` delivered or told it.
    pub fn size(&self, origin: &OriginName, oid: Oid) -> Result<Option<u64>, CacheError> {
        Ok(self.sizes(origin, &[oid])?.pop().flatten())
    }

    /// The sizes of many blobs, in one look.
    pub fn sizes(&self, origin: &OriginName, oids: &[Oid]) -> Result<Vec<Option<u64>>, CacheError> {
        let Some(number) = self.shared.number(origin) else { return Ok(vec![None; oids.len()]) };
        let txn = self.shared.begin()?;
        let size = |oid: &Oid| Ok(self.shared.word(&txn, number, *oid)?.and_then(|word| word.size));
        oids.iter().map(size).collect()
    }

    /// Whether the blob's content is here for `origin` and may be read.
    pub fn has_blob(&self, origin: &OriginName, oid: Oid) -> Result<bool, CacheError> {
        match self.read_blob(origin, oid, 0, 0) {
            Err(CacheError::SizeDisputed { .. }) => Ok(true),
            other => other.map(|content| content.is_some()),
        }
    }

    /// Exactly `min(len, size − offset)` bytes of a blob, or `None` when its content is not here for `origin`.
    ///
    /// A large blob written under another boot is not here until [`Cache::recheck`] has seen it. Where a verified blob
    /// turned out not to have the size that the origin gave before, the answer is [`CacheError::SizeDisputed`].
    pub fn read_blob(
        &self,
        origin: &OriginName,
        oid: Oid,
        offset: u64,
        len: u32,
    ) -> Result<Option<Bytes>, CacheError> {
        let shared = &*self.shared;
        let txn = shared.begin()?;
        let Some(record) = shared.delivered(&txn, origin, oid)? else { return Ok(None) };
        match record.place {
            Place::Inline => {
                let found =
                    shared.database.blobs.get(&txn, oid.as_bytes()).map_err(|why| shared.failed(why))?;
                let content = found.and_then(|value| record::unseal(oid.as_bytes(), value));
                match content.filter(|content| content.len() as u64 == record.size) {
                    Some(content) => Ok(Some(Bytes::copy_from_slice(window(content, offset, len)))),
                    None => Ok(shared.damaged(oid, &"its checksum is wrong", Step::DamagedBlob(oid, false))),
                }
            }
            Place::File if record.epoch != shared.epoch => Ok(None),
            Place::File => {
                drop(txn);
                shared.read_file(oid, record.size, offset, len)
            }
        }
    }

    /// Looks again at a large blob of `origin` written under another boot: reads it whole and compares its id, on a thread
    /// that may block. `true` when it can be read now; `false` when it is damaged (then it is dropped) or there is no
    /// such blob.
    pub async fn recheck(&self, origin: &OriginName, oid: Oid) -> Result<bool, CacheError> {
        let shared = &*self.shared;
        let found = shared.begin().and_then(|txn| shared.delivered(&txn, origin, oid));
        let record = match found {
            Ok(Some(record)) => record,
            Ok(None) => return Ok(false),
            Err(CacheError::SizeDisputed { .. }) => return Ok(true),
            Err(why) => return Err(why),
        };
        if record.place != Place::File || record.epoch == shared.epoch {
            return self.has_blob(origin, oid);
        }
        let objects = shared.objects.clone();
        let hashed = tokio::task::spawn_blocking(move || objects.rehash(oid, record.size));
        match hashed.await.map_err(|_| shared.closed())? {
            Ok(()) => {
                shared.write(vec![Step::Confirm(oid)]).await?;
                self.has_blob(origin, oid)
            }
            Err(fault) if fault.is_damage() => {
                shared.count_damage(oid, &fault);
                shared.write(vec![Step::DamagedBlob(oid, true)]).await?;
                Ok(false)
            }
            Err(fault) => Err(fault.into_error(shared.objects.path(oid))),
        }
    }

    /// Keeps what was verified and came from `origin`; returns when it is visible to every reader.
    ///
    /// Either all of it is kept or an error is returned, after which reading goes on as before. A caller that
    /// stops waiting does not undo it.
    pub async fn put(&self, origin: &OriginName, puts: Vec<Put>) -> Result<(), CacheError> {
        let number = self.shared.number_of(origin);
        let mut steps = Vec::with_capacity(1 + puts.len());
        steps.push(Step::Origin(origin.clone(), number));
        for put in puts {
            steps.push(match put {
                Put::Tree(oid, body) => Step::Tree(number, oid, body),
                Put::Size(oid, size) => Step::Size(number, oid, size),
                Put::Blob(oid, content)
                    if content.len() as u64 <= u64::from(self.shared.inline_max_bytes) =>
                {
                    Step::Inline(number, oid, content)
                }
                Put::Blob(oid, content) => self.shared.write_file(number, oid, content).await?,
            });
        }
        self.shared.write(steps).await
    }

    /// Counters.
    pub fn stats(&self) -> Result<CacheStats, CacheError> {
        let shared = &*self.shared;
        let count = || {
            let txn = shared.database.env.read_txn()?;
            let totals = shared.database.totals(&txn)?.unwrap_or_default();
            Ok(CacheStats {
                trees: shared.database.trees.len(&txn)?,
                inline_blobs: shared.database.blobs.len(&txn)?,
                file_blobs: totals.file_blobs,
                blob_bytes: totals.blob_bytes,
                database_bytes: shared.database.env.real_disk_size()?,
                damaged: shared.damaged.load(Ordering::Relaxed),
            })
        };
        count().map_err(|why| shared.failed(why))
    }

    /// Directory of the cache.
    pub fn dir(&self) -> &Path {
        &self.shared.dir
    }
}

type ReadTxn<'a> = heed::RoTxn<'a, heed::WithoutTls>;

impl Shared {
    fn begin(&self) -> Result<ReadTxn<'_>, CacheError> {
        self.database.env.read_txn().map_err(|why| self.failed(why))
    }

    /// The number of `origin`, if anything ever came from it.
    fn number(&self, origin: &OriginName) -> Option<OriginNumber> {
        // A map is whole whatever panicked beside it.
        self.numbers.read().unwrap_or_else(PoisonError::into_inner).get(origin).copied()
    }

    /// The number of `origin`, from now on. It is recorded with the first thing that is kept of it.
    fn number_of(&self, origin: &OriginName) -> OriginNumber {
        if let Some(number) = self.number(origin) {
            return number;
        }
        let mut numbers = self.numbers.write().unwrap_or_else(PoisonError::into_inner);
        let next = numbers.values().max().map_or(0, |last| last.saturating_add(1));
        *numbers.entry(origin.clone()).or_insert(next)
    }

    fn word(&self, txn: &ReadTxn<'_>, origin: OriginNumber, oid: Oid) -> Result<Option<Word>, CacheError> {
        match self.database.word(txn, origin, oid).map_err(|why| self.failed(why))? {
            Found::Known(word) => Ok(Some(word)),
            Found::Nothing => Ok(None),
            Found::Damaged => {
                let step = Step::DamagedWord(origin, oid);
                Ok(self.damaged(oid, &"what an origin said of it is damaged", step))
            }
        }
    }

    /// What the index says of a blob that `origin` has delivered.
    fn delivered(
        &self,
        txn: &ReadTxn<'_>,
        origin: &OriginName,
        oid: Oid,
    ) -> Result<Option<Record>, CacheError> {
        let Some(number) = self.number(origin) else { return Ok(None) };
        match self.word(txn, number, oid)? {
            Some(Word { blob: true, size: Some(size), disputed, .. }) => match disputed {
                Some(epoch) if epoch == self.epoch => Err(CacheError::SizeDisputed { oid, size }),
                _ => self.record(txn, oid),
            },
            _ => Ok(None),
        }
    }

    fn record(&self, txn: &ReadTxn<'_>, oid: Oid) -> Result<Option<Record>, CacheError> {
        match self.database.record(txn, oid).map_err(|why| self.failed(why))? {
            Found::Known(record) => Ok(Some(record)),
            Found::Nothing => Ok(None),
            Found::Damaged => {
                Ok(self.damaged(oid, &"its index record is damaged", Step::DamagedBlob(oid, false)))
            }
        }
    }

    fn read_file(&self, oid: Oid, size: u64, offset: u64, len: u32) -> Result<Option<Bytes>, CacheError> {
        let rest = size.saturating_sub(offset).min(u64::from(len));
        let read = match usize::try_from(rest) {
            Ok(0) => self.objects.probe(oid, size).map(|()| Bytes::new()),
            Ok(len) => self.objects.read(oid, size, offset, len),
            Err(_) => Err(FileFault::Io(std::io::ErrorKind::OutOfMemory.into())),
        };
        match read {
            Ok(content) => Ok(Some(content)),
            Err(fault) if fault.is_damage() => Ok(self.damaged(oid, &fault, Step::DamagedBlob(oid, false))),
            Err(fault) => Err(fault.into_error(self.objects.path(oid))),
        }
    }

    /// Writes the file of a large blob, unless it is here and was seen to be right under this boot.
    async fn write_file(&self, origin: OriginNumber, oid: Oid, content: Bytes) -> Result<Step, CacheError> {
        let size = content.len() as u64;
        let held = self.begin().and_then(|txn| self.record(&txn, oid))?;
        let is_listed =
            held.is_some_and(|held| (held.place, held.epoch, held.size) == (Place::File, self.epoch, size));
        let objects = self.objects.clone();
        let written = tokio::task::spawn_blocking(move || {
            if is_listed && objects.probe(oid, size).is_ok() {
                return Ok(Step::Held(origin, oid, size));
            }
            objects.write(oid, &content).map(|()| Step::File(origin, oid, size))
        });
        written.await.map_err(|_| self.closed())?
    }

    async fn write(&self, steps: Vec<Step>) -> Result<(), CacheError> {
        let outcome = self.writer.write(steps).await.ok_or_else(|| self.closed())?;
        outcome.map_err(|source| CacheError::Database { dir: self.dir.clone(), source })
    }

    /// A damaged value is a miss: it is dropped soon, and counted.
    fn damaged<T>(&self, oid: Oid, reason: &dyn std::fmt::Display, step: Step) -> Option<T> {
        self.count_damage(oid, reason);
        self.writer.note(step);
        None
    }

    fn count_damage(&self, oid: Oid, reason: &dyn std::fmt::Display) {
        self.damaged.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(oid = %oid, reason = %reason, path = %self.dir.display(), "an object in the cache is damaged: it is dropped and will be fetched again");
    }

    fn failed(&self, source: heed::Error) -> CacheError {
        CacheError::database(&self.dir, source)
    }

    fn closed(&self) -> CacheError {
        CacheError::Closed { dir: self.dir.clone() }
    }
}

impl CacheError {
    fn database(dir: &Path, source: heed::Error) -> CacheError {
        CacheError::Database { dir: dir.to_owned(), source: Arc::new(source) }
    }
}

/// Exactly `min(len, content − offset)` bytes of `content`.
fn window(content: &[u8], offset: u64, len: u32) -> &[u8] {
    let start = usize::try_from(offset).unwrap_or(usize::MAX).min(content.len());
    let end = start.saturating_add(len as usize).min(content.len());
    &content[start..end]
}

#[cfg(test)]
mod tests;
