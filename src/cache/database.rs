//! The LMDB environment: how it is opened, and typed reads within a transaction.
//!
//! Flags are LMDB's defaults and `NOSYNC`: what was committed survives the death of any process, and is not waited
//! for on disk. A write map is never used (a full disk would then be a SIGBUS). The map is set to its full size at once: it is
//! a read-only mapping of the file, so it reserves address space, neither memory nor disk, and the file grows as pages are
//! written. Where even the address space is limited, the map is halved until it fits.
//!
//! Readers copy and close at once: a transaction that lives long keeps every page written since.
#![allow(unsafe_code)] // mapping a file is unsafe by nature: the database directory is root's alone and locked

use std::{os::unix::fs::DirBuilderExt, path::Path};

use heed::{CommitOrAbort, Env, EnvFlags, EnvOpenOptions, MdbError, RoTxn, RwTxn, WithoutTls, types};

use super::{
    record::{self, Record, SCHEMA, SEAL_LEN, Totals},
    word::{self, OriginNumber, Word},
};
use crate::types::{Oid, OriginName};

pub(super) type Table = heed::Database<'static, types::Bytes, types::Bytes>;

/// Names of the tables inside the environment.
const TREES: &str = "trees";
const BLOBS: &str = "blobs";
const INDEX: &str = "index";
const WORDS: &str = "words";
const META: &str = "meta";
const TABLES: u32 = 5;

/// All of them.
pub(super) const TABLE_NAMES: [&str; TABLES as usize] = [TREES, BLOBS, INDEX, WORDS, META];

/// LMDB's name for the file in the environment's directory.
pub(super) const DATA_FILE: &str = "data.mdb";

const META_SCHEMA: &[u8] = b"schema";
const META_EPOCH: &[u8] = b"epoch";
const META_TOTALS: &[u8] = b"totals";

/// What the number of an origin is kept under, before its name.
const META_ORIGIN: &str = "origin ";

/// Slots for read transactions open at one moment. A thread holds at most one; tokio's blocking threads (512) and the
/// FUSE workers fit twice.
const MAX_READERS: u32 = 1024;

/// Below this a map is not worth opening; reached only under an address space limit.
const MIN_MAP_BYTES: usize = 16 << 20;

/// The open environment with its tables. Cheap to clone.
#[derive(Clone)]
pub(super) struct Database {
    pub(super) env: Env<WithoutTls>,
    pub(super) trees: Table,
    pub(super) blobs: Table,
    pub(super) index: Table,
    pub(super) words: Table,
    meta: Table,
}

/// What a table says of an object.
pub(super) enum Found<T> {
    /// Nothing.
    Nothing,
    /// This.
    Known(T),
    /// Something that is damaged.
    Damaged,
}

impl Database {
    /// Opens the environment in `dir` for reading and writing, making it when it is not there.
    pub(super) fn open(dir: &Path, map_bytes: u64) -> Result<Database, heed::Error> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let env = map(dir, map_bytes, EnvFlags::NO_SYNC)?;
        // Slots of a reader that was killed would keep old pages alive for ever.
        env.clear_stale_readers()?;
        let txn = env.write_txn()?;
        let tables = env.create_databases_and_commit(txn, |opener, txn| {
            let mut table = |name| opener.create_database::<types::Bytes, types::Bytes>(txn, Some(name));
            let tables = [table(TREES)?, table(BLOBS)?, table(INDEX)?, table(WORDS)?, table(META)?];
            Ok::<_, heed::Error>(CommitOrAbort::<_, ()>::Commit(tables))
        })?;
        Database::of(env, tables.commit())
    }

    /// Opens what is in `dir` for reading, without its locks: nobody else may be writing to it.
    pub(super) fn open_for_check(dir: &Path) -> Result<Database, heed::Error> {
        // A size of 0 stands for the one that is written in the file.
        let env = map(dir, 0, EnvFlags::READ_ONLY | EnvFlags::NO_LOCK)?;
        let txn = env.read_txn()?;
        let tables = env.open_databases_and_commit(txn, |opener, txn| {
            let table = |name| opener.open_database::<types::Bytes, types::Bytes>(txn, Some(name));
            let tables = [table(TREES)?, table(BLOBS)?, table(INDEX)?, table(WORDS)?, table(META)?];
            Ok::<_, heed::Error>(match tables {
                [Some(trees), Some(blobs), Some(index), Some(words), Some(meta)] => {
                    CommitOrAbort::Commit([trees, blobs, index, words, meta])
                }
                _ => CommitOrAbort::Abort(()),
            })
        })?;
        Database::of(env, tables.commit())
    }

    fn of(env: Env<WithoutTls>, tables: Option<[Table; TABLES as usize]>) -> Result<Database, heed::Error> {
        let [trees, blobs, index, words, meta] = tables.ok_or(heed::Error::Mdb(MdbError::Invalid))?;
        Ok(Database { env, trees, blobs, index, words, meta })
    }

    /// The schema version written in it.
    pub(super) fn schema(&self, txn: &RoTxn) -> Result<Option<u32>, heed::Error> {
        let value = self.sealed_meta(txn, META_SCHEMA)?;
        Ok(value.and_then(|bytes| bytes.try_into().ok()).map(u32::from_le_bytes))
    }

    /// The sums over the index.
    pub(super) fn totals(&self, txn: &RoTxn) -> Result<Option<Totals>, heed::Error> {
        Ok(self.sealed_meta(txn, META_TOTALS)?.and_then(Totals::decode))
    }

    pub(super) fn put_totals(&self, txn: &mut RwTxn, totals: Totals) -> Result<(), heed::Error> {
        put_sealed(self.meta, txn, META_TOTALS, &totals.encode())
    }

    /// Begins the epoch of `boot_id`, or goes on with it. A new database gets its schema version here; the totals are
    /// summed anew with each epoch.
    pub(super) fn begin_epoch(&self, boot_id: &str) -> Result<u32, heed::Error> {
        let mut txn = self.env.write_txn()?;
        match self.schema(&txn)? {
            Some(SCHEMA) => {}
            None if self.meta.is_empty(&txn)? => {
                put_sealed(self.meta, &mut txn, META_SCHEMA, &SCHEMA.to_le_bytes())?;
                put_sealed(self.meta, &mut txn, META_EPOCH, &record::encode_epoch(0, ""))?;
                self.put_totals(&mut txn, Totals::default())?;
            }
            _ => return Err(heed::Error::Mdb(MdbError::VersionMismatch)),
        }
        let epoch = self.sealed_meta(&txn, META_EPOCH)?.and_then(record::decode_epoch);
        let (epoch, of_boot) = epoch.ok_or(heed::Error::Mdb(MdbError::Corrupted))?;
        if of_boot == boot_id {
            return Ok(epoch);
        }
        let epoch = epoch.wrapping_add(1);
        put_sealed(self.meta, &mut txn, META_EPOCH, &record::encode_epoch(epoch, boot_id))?;
        let totals = self.sum(&txn)?;
        self.put_totals(&mut txn, totals)?;
        txn.commit()?;
        Ok(epoch)
    }

    fn sum(&self, txn: &RoTxn) -> Result<Totals, heed::Error> {
        let mut totals = Totals::default();
        for entry in self.index.iter(txn)? {
            let (key, value) = entry?;
            if let Some(record) = record::unseal(key, value).and_then(Record::decode) {
                totals.add(&record);
            }
        }
        Ok(totals)
    }

    /// What the index says of `oid`.
    pub(super) fn record(&self, txn: &RoTxn, oid: Oid) -> Result<Found<Record>, heed::Error> {
        find(self.index, txn, oid.as_bytes(), Record::decode)
    }

    /// The word of an origin on `oid`.
    pub(super) fn word(
        &self,
        txn: &RoTxn,
        origin: OriginNumber,
        oid: Oid,
    ) -> Result<Found<Word>, heed::Error> {
        find(self.words, txn, &word::key(origin, oid), Word::decode)
    }

    pub(super) fn put_word(
        &self,
        txn: &mut RwTxn,
        origin: OriginNumber,
        oid: Oid,
        word: Word,
    ) -> Result<(), heed::Error> {
        put_sealed(self.words, txn, &word::key(origin, oid), &word.encode())
    }

    /// All origins that ever delivered or said something, and their numbers.
    pub(super) fn origins(&self, txn: &RoTxn) -> Result<Vec<(OriginName, OriginNumber)>, heed::Error> {
        let damaged = || heed::Error::Mdb(MdbError::Corrupted);
        let mut origins = Vec::new();
        for entry in self.meta.prefix_iter(txn, META_ORIGIN.as_bytes())? {
            let (key, value) = entry?;
            let name = std::str::from_utf8(&key[META_ORIGIN.len()..]).ok().and_then(|name| name.parse().ok());
            let number = record::unseal(key, value).and_then(|number| number.try_into().ok());
            let number = number.map(OriginNumber::from_le_bytes);
            origins.push((name.ok_or_else(damaged)?, number.ok_or_else(damaged)?));
        }
        Ok(origins)
    }

    /// Records the number of `origin`, unless it is recorded.
    pub(super) fn put_origin(
        &self,
        txn: &mut RwTxn,
        origin: &OriginName,
        number: OriginNumber,
    ) -> Result<(), heed::Error> {
        let key = format!("{META_ORIGIN}{}", origin.as_str());
        if self.meta.get(txn, key.as_bytes())?.is_some() {
            return Ok(());
        }
        put_sealed(self.meta, txn, key.as_bytes(), &number.to_le_bytes())
    }

    pub(super) fn put_record(&self, txn: &mut RwTxn, oid: Oid, record: Record) -> Result<(), heed::Error> {
        put_sealed(self.index, txn, oid.as_bytes(), &record.encode())
    }

    fn sealed_meta<'txn>(&self, txn: &'txn RoTxn, key: &[u8]) -> Result<Option<&'txn [u8]>, heed::Error> {
        Ok(self.meta.get(txn, key)?.and_then(|value| record::unseal(key, value)))
    }
}

fn find<T>(
    table: Table,
    txn: &RoTxn,
    key: &[u8],
    decode: fn(&[u8]) -> Option<T>,
) -> Result<Found<T>, heed::Error> {
    let Some(value) = table.get(txn, key)? else { return Ok(Found::Nothing) };
    Ok(record::unseal(key, value).and_then(decode).map_or(Found::Damaged, Found::Known))
}

/// Writes `content` under `key` with its checksum.
pub(super) fn put_sealed(
    table: Table,
    txn: &mut RwTxn,
    key: &[u8],
    content: &[u8],
) -> Result<(), heed::Error> {
    table.put_reserved(txn, key, content.len() + SEAL_LEN, |space| {
        std::io::Write::write_all(space, content)?;
        std::io::Write::write_all(space, &record::seal(key, content))
    })
}

fn map(dir: &Path, map_bytes: u64, flags: EnvFlags) -> Result<Env<WithoutTls>, heed::Error> {
    let page = rustix::param::page_size();
    let mut bytes = usize::try_from(map_bytes).unwrap_or(usize::MAX / 2) / page * page;
    loop {
        let mut options = EnvOpenOptions::new().read_txn_without_tls();
        options.max_dbs(TABLES).max_readers(MAX_READERS).map_size(bytes);
        // SAFETY: the flags drop syncing, which costs durability across a power loss only (such a database is checked
        // before use), or locking, for a reader that is alone. The file is written by nobody but LMDB: its directory
        // is root's, and one process holds the lock of the cache.
        let opened = unsafe { options.flags(flags).open(dir) };
        match opened {
            Err(heed::Error::Io(why)) if out_of_space(&why) && bytes / 2 >= MIN_MAP_BYTES => {
                bytes = bytes / 2 / page * page;
                tracing::warn!(path = %dir.display(), map_bytes = bytes, "address space is limited: opening the cache with a smaller map");
            }
            other => return other,
        }
    }
}

fn out_of_space(why: &std::io::Error) -> bool {
    why.raw_os_error() == Some(libc::ENOMEM)
}
