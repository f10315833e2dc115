//! Reads a whole cache database and believes nothing: its structure first, then through LMDB its content. Run in a process
//! of its own, because LMDB trusts its file and a damaged one can kill whoever opens it.

use std::path::Path;

use super::{
    database::{self, Database, Found},
    open, pages,
    record::{self, Place, Record, SCHEMA},
    word::{OriginNumber, Word},
};
use crate::types::{ObjectKind, Oid};

/// Checks the database of the cache in `dir`: structure, schema, checksums, and the id of every tree and of every blob
/// it holds. Large files are not read; each is checked before its first use.
///
/// Nobody may write to the database meanwhile: [`super::Cache::open`] runs this (through [`super::Checker`]) while it
/// holds the lock. Call it in a process that may die: a damaged file can raise SIGSEGV or SIGBUS here, or never end.
pub fn check(dir: &Path) -> Result<(), String> {
    // A crash is an answer here; nobody wants a core file as large as the map.
    let quiet = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
    quiet.map_err(|why| format!("core files cannot be switched off: {why}"))?;
    let database = open::database_dir(dir);
    pages::check(&database.join(database::DATA_FILE), &database::TABLE_NAMES)
        .map_err(|why| why.to_string())?;
    let database = Database::open_for_check(&database).map_err(|why| why.to_string())?;
    walk(&database)
}

fn walk(database: &Database) -> Result<(), String> {
    let failed = |why: heed::Error| why.to_string();
    let txn = database.env.read_txn().map_err(failed)?;
    if database.schema(&txn).map_err(failed)? != Some(SCHEMA) {
        return Err("it is of another version".into());
    }
    database.totals(&txn).map_err(failed)?.ok_or("its totals are damaged")?;
    let numbers: Vec<OriginNumber> =
        database.origins(&txn).map_err(failed)?.into_iter().map(|(_, number)| number).collect();
    for entry in database.words.iter(&txn).map_err(failed)? {
        let (key, value) = entry.map_err(failed)?;
        word(&numbers, key, value)?;
    }
    for entry in database.trees.iter(&txn).map_err(failed)? {
        let (key, value) = entry.map_err(failed)?;
        content(ObjectKind::Tree, key, value)?;
    }
    for entry in database.blobs.iter(&txn).map_err(failed)? {
        let (key, value) = entry.map_err(failed)?;
        let (oid, size) = content(ObjectKind::Blob, key, value)?;
        let indexed = database.record(&txn, oid).map_err(failed)?;
        let fits = |record: &Record| record.place == Place::Inline && record.size == size;
        if !matches!(&indexed, Found::Known(record) if fits(record)) {
            return Err(format!("blob {oid} is not what the index says"));
        }
    }
    let mut inline = 0;
    for entry in database.index.iter(&txn).map_err(failed)? {
        let (key, value) = entry.map_err(failed)?;
        let record = record::unseal(key, value).and_then(Record::decode);
        let record = record.ok_or_else(|| format!("the index record of {} is damaged", hex(key)))?;
        inline += u64::from(record.place == Place::Inline);
    }
    if inline == database.blobs.len(&txn).map_err(failed)? {
        Ok(())
    } else {
        Err("the index names blobs that are not here".into())
    }
}

/// A word may be of an object that is not here any more; nobody may be given an object for the word of an unknown origin.
fn word(numbers: &[OriginNumber], key: &[u8], value: &[u8]) -> Result<(), String> {
    let named = || format!("the word {} is damaged", hex(key));
    let (number, oid) = key.split_first_chunk().ok_or_else(named)?;
    let number = OriginNumber::from_be_bytes(*number);
    let is_sound = Oid::from_slice(oid).is_some() && numbers.contains(&number);
    let is_word = record::unseal(key, value).and_then(Word::decode).is_some();
    if is_sound && is_word { Ok(()) } else { Err(named()) }
}

fn content(kind: ObjectKind, key: &[u8], value: &[u8]) -> Result<(Oid, u64), String> {
    let oid = Oid::from_slice(key).ok_or_else(|| format!("{} is no object id", hex(key)))?;
    let body = record::unseal(key, value).ok_or_else(|| format!("{kind} {oid} is damaged"))?;
    if Oid::of(kind, body) == Some(oid) {
        Ok((oid, body.len() as u64))
    } else {
        Err(format!("{kind} {oid} has another id"))
    }
}

fn hex(key: &[u8]) -> String {
    key.iter().take(size_of::<OriginNumber>() + Oid::LEN).map(|byte| format!("{byte:02x}")).collect()
}
