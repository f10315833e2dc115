//! Opening the LMDB environment of the node table: only after the marker says that it is whole and of this boot.
#![allow(unsafe_code)] // heed's `open` maps a file into memory and asks that nobody else changes it

use std::{fs, io, os::unix::fs::DirBuilderExt, path::Path};

use heed::{CommitOrAbort, Database, Env, EnvFlags, EnvOpenOptions, WithoutTls, types::Bytes};

use super::{
    NodeTableOptions, TableError,
    marker::{self, Found, Marker, Plan},
    record::{Counters, VERSION},
};

/// A database of plain bytes; the records know their own form.
pub(super) type Db = Database<'static, Bytes, Bytes>;

/// An open environment and its databases.
pub(super) struct Databases {
    pub env: Env<WithoutTls>,
    /// First node id (8, big-endian) → [`super::record::Block`].
    pub blocks: Db,
    /// Root number (4), directory's node id (8) → first node id (8) of its entries.
    pub dirs: Db,
    /// Root number (4) → [`super::record::RootRecord`].
    pub roots: Db,
    /// [`COUNTERS`] → [`Counters`], [`IDENTITY`] → `identity`.
    pub meta: Db,
    /// Differs from that of every other table.
    pub identity: TableIdentity,
}

/// What tells two tables apart.
pub(super) type TableIdentity = [u8; 16];

/// The first key of `meta`.
pub(super) const COUNTERS: &[u8] = b"counters";

/// The other one: which table this is. Random, because a table that vanished with its marker leaves no generation to
/// count from, and ids of the new one would mean other files to a session of the old one.
const IDENTITY: &[u8] = b"identity";

const DATA_FILE: &str = "data.mdb";
const LOCK_FILE: &str = "lock.mdb";
const NAMES: [&str; 4] = ["blocks", "dirs", "roots", "meta"];

/// Transactions at once: one per thread that asks, and LMDB's slot for one is 64 bytes.
const MAX_READERS: u32 = 1024;

/// 2^40 node ids and 2^24 root numbers per generation; 2^8 generations fill 48 and 32 bits.
const GENERATION_NODE_BITS: u32 = 40;
const GENERATION_ROOT_BITS: u32 = 24;

/// Opens the table as it stands, or a new one when it is not of this boot, of this version, or whole.
pub(super) fn open(options: &NodeTableOptions) -> Result<Databases, TableError> {
    let dir = &options.dir;
    create_dir(dir).map_err(io_error("create", dir))?;
    let found = Marker::read(dir).map_err(io_error("read", &dir.join(marker::FILE)))?;
    let data = dir.join(DATA_FILE).exists();
    match marker::plan(&found, data, &options.boot_id) {
        Plan::Keep(generation) => match open_ready(options) {
            Err(error) if is_damage(&error) => {
                tracing::warn!(path = %dir.display(), %error, "the node table is damaged and is made anew");
                make(options, marker::succeed(generation))
            }
            answer => answer,
        },
        fresh => {
            log_fresh(dir, &found);
            make(options, fresh)
        }
    }
}

/// The smallest and the first too large node id and root number of a generation.
pub(super) fn bounds(counters: &Counters) -> (u64, u64) {
    let generation = counters.first_node >> GENERATION_NODE_BITS;
    ((generation + 1) << GENERATION_NODE_BITS, (generation + 1) << GENERATION_ROOT_BITS)
}

/// Whether the table itself is at fault. Live mounts stand on it, so what may pass (no memory, no descriptors, a file
/// system in trouble) must not be answered by throwing it away.
fn is_damage(error: &TableError) -> bool {
    matches!(error, TableError::Database(heed::Error::Mdb(_)) | TableError::Corrupt { .. })
}

fn first_of(generation: u8) -> Counters {
    let first_node = (u64::from(generation) << GENERATION_NODE_BITS) + 2;
    let next_root = (u32::from(generation) << GENERATION_ROOT_BITS) + 1;
    Counters { first_node, next_node: first_node, next_root }
}

fn log_fresh(dir: &Path, found: &Found) {
    let path = dir.display();
    match found {
        Found::Nothing => tracing::debug!(%path, "making the node table"),
        Found::Garbage => tracing::warn!(%path, "the node table's marker is damaged; the table is made anew"),
        Found::Marker(old) => {
            tracing::info!(%path, boot = %old.boot_id, version = old.version, complete = old.ready,
                "the node table is of another boot or version, or incomplete, and is made anew");
        }
    }
}

/// Deletes what is there and makes `plan`'s generation. The marker says `making` until the table is complete, so a kill
/// in between leaves nothing that could be taken for a table.
fn make(options: &NodeTableOptions, plan: Plan) -> Result<Databases, TableError> {
    let dir = &options.dir;
    let Plan::Fresh(generation) = plan else { return Err(TableError::Generations) };
    let mut marker =
        Marker { version: u32::from(VERSION), generation, ready: false, boot_id: options.boot_id.clone() };
    let write = |marker: &Marker| marker.write(dir).map_err(io_error("write", &dir.join(marker::FILE)));
    write(&marker)?;
    for file in [DATA_FILE, LOCK_FILE].map(|name| dir.join(name)) {
        remove_if_there(&file).map_err(io_error("remove", &file))?;
    }
    let mut databases = open_databases(options)?;
    databases.identity = random_identity().map_err(io_error("draw an identity for", dir))?;
    let mut txn = databases.env.write_txn()?;
    databases.meta.put(&mut txn, COUNTERS, &first_of(generation).encode())?;
    databases.meta.put(&mut txn, IDENTITY, &databases.identity)?;
    txn.commit()?;
    marker.ready = true;
    write(&marker)?;
    Ok(databases)
}

fn open_ready(options: &NodeTableOptions) -> Result<Databases, TableError> {
    let mut databases = open_databases(options)?;
    // Slots of readers that were killed would keep freed pages from being used again.
    databases.env.clear_stale_readers()?;
    let txn = databases.env.read_txn()?;
    let counters = databases.meta.get(&txn, COUNTERS)?.and_then(Counters::decode);
    let identity = databases.meta.get(&txn, IDENTITY)?.and_then(|bytes| TableIdentity::try_from(bytes).ok());
    drop(txn);
    counters.ok_or(TableError::Corrupt { what: "counters", key: 0 })?;
    databases.identity = identity.ok_or(TableError::Corrupt { what: "identity", key: 0 })?;
    Ok(databases)
}

fn random_identity() -> io::Result<TableIdentity> {
    let mut identity = TableIdentity::default();
    // So few bytes come whole, or not at all.
    rustix::rand::getrandom(&mut identity, rustix::rand::GetRandomFlags::empty())?;
    Ok(identity)
}

fn open_databases(options: &NodeTableOptions) -> Result<Databases, TableError> {
    let page = rustix::param::page_size();
    let map_bytes = usize::try_from(options.map_bytes).unwrap_or(usize::MAX) / page * page;
    let mut opening = EnvOpenOptions::new().read_txn_without_tls();
    opening.map_size(map_bytes.max(page)).max_readers(MAX_READERS).max_dbs(4);
    // SAFETY: without syncing, a power cut may leave the file half-written; it ends the boot too, and a table of another
    // boot is deleted unopened.
    unsafe { opening.flags(EnvFlags::NO_SYNC) };
    // SAFETY: the file lies in a directory of ours that only root can enter, on a local file system; every process that
    // opens it does so through LMDB and its lock file; heed refuses a second opening within this process.
    let env = unsafe { opening.open(&options.dir) }?;
    let txn = env.write_txn()?;
    let [blocks, dirs, roots, meta] = env
        .create_databases_and_commit(txn, |opener, txn| {
            let [a, b, c, d] = NAMES.map(|name| opener.create_database::<Bytes, Bytes>(txn, Some(name)));
            Ok::<_, heed::Error>(CommitOrAbort::<_, ()>::Commit([a?, b?, c?, d?]))
        })?
        .commit()
        .expect("the closure never aborts");
    Ok(Databases { env, blocks, dirs, roots, meta, identity: TableIdentity::default() })
}

fn create_dir(dir: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

fn remove_if_there(file: &Path) -> io::Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn io_error(action: &'static str, path: &Path) -> impl Fn(io::Error) -> TableError {
    let path = path.to_owned();
    move |source| TableError::Io { action, path: path.clone(), source }
}
