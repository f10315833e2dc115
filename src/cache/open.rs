//! Opening a cache: whether what lies there may be believed, and throwing it away when not.
//!
//! ```text
//!  lock ─► marker of this boot? ──yes───────────────────────► open
//!             │ no: power may have failed since                ▲   │ LMDB refuses it
//!             ▼                                                │   ▼
//!          child checks it ──whole──► marker of this boot ─────┘  throw away, once
//!             │ damaged, killed, too slow, no checker          ▲
//!             └────────► throw away ───────────────────────────┘
//! ```
//!
//! The marker is a plain file, because the database may not be opened to ask it. It is written before the first use, so that
//! a crash at any moment leaves a marker of the boot that wrote. It needs no sync: a marker lost or emptied
//! by a power failure is no marker of the next boot.

use std::{
    collections::HashMap,
    ffi::OsString,
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::FlockOperation,
    process::{Pid, PidfdFlags, pidfd_open},
};

use crate::telemetry::event;

use super::{CacheError, CacheOptions, database::Database, record::SCHEMA, word::OriginNumber};
use crate::types::OriginName;

/// How long a check may take: a database that takes longer costs more to check than to fetch again, and the service
/// is not up meanwhile.
const CHECK_TIMEOUT: Duration = Duration::from_secs(60);

/// What becomes of a check that failed: shown in the journal, in one line.
const REASON_BYTES: u64 = 1024;

/// The program that checks a database: run with `args` and then the cache's directory, it calls [`super::check`] and exits
/// with 0 if the database is whole.
#[derive(Clone, Debug)]
pub struct Checker {
    /// Path of the program.
    pub program: PathBuf,
    /// Arguments before the directory.
    pub args: Vec<OsString>,
    /// After this long the database counts as damaged.
    pub timeout: Duration,
}

impl Checker {
    /// A checker with the usual patience (60 s).
    pub fn new(program: impl Into<PathBuf>, args: impl IntoIterator<Item = OsString>) -> Checker {
        Checker { program: program.into(), args: args.into_iter().collect(), timeout: CHECK_TIMEOUT }
    }
}

/// A cache directory that is ours.
pub(super) struct Opened {
    pub(super) database: Database,
    pub(super) epoch: u32,
    /// Numbers of all origins that anything came from.
    pub(super) origins: HashMap<OriginName, OriginNumber>,
    pub(super) lock: File,
}

/// Where the database of the cache in `dir` lies.
pub(super) fn database_dir(dir: &Path) -> PathBuf {
    dir.join("db")
}

/// Locks the directory, decides what may be believed, and opens it.
pub(super) fn open(options: &CacheOptions) -> Result<Opened, CacheError> {
    let dir = &options.dir;
    let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(|source| CacheError::Io { action: "create", path: dir.clone(), source })?;
    let lock = lock(dir)?;
    discard_leftovers(dir)?;
    if let Err(reason) = believable(options) {
        throw_away(dir, &reason)?;
    }
    let opened = match open_marked(options) {
        Err(why) if is_healed_by_throwing_away(&why) => {
            throw_away(dir, &why.to_string())?;
            open_marked(options)
        }
        other => other,
    };
    let (database, epoch, origins) = opened?;
    Ok(Opened { database, epoch, origins, lock })
}

fn throw_away(dir: &Path, reason: &str) -> Result<(), CacheError> {
    tracing::warn!(message_id = event::CACHE_DISCARDED, path = %dir.display(), reason, "the object cache is thrown away and filled anew");
    discard(dir)
}

type Parts = (Database, u32, HashMap<OriginName, OriginNumber>);

fn open_marked(options: &CacheOptions) -> Result<Parts, CacheError> {
    mark(&options.dir, &options.boot_id)?;
    open_database(options).map_err(|source| CacheError::database(&options.dir, source))
}

fn open_database(options: &CacheOptions) -> Result<Parts, heed::Error> {
    let database = Database::open(&database_dir(&options.dir), options.map_bytes)?;
    let epoch = database.begin_epoch(&options.boot_id)?;
    let txn = database.env.read_txn()?;
    let origins = database.origins(&txn)?.into_iter().collect();
    drop(txn);
    Ok((database, epoch, origins))
}

/// What LMDB does not accept, and a disk without room even to open: the cache may be what fills it.
fn is_healed_by_throwing_away(why: &CacheError) -> bool {
    use heed::MdbError::{Corrupted, Incompatible, Invalid, PageNotFound, VersionMismatch};
    match why {
        CacheError::Database { source, .. } => match &**source {
            heed::Error::Mdb(Corrupted | Incompatible | Invalid | PageNotFound | VersionMismatch) => true,
            heed::Error::Io(why) => why.kind() == io::ErrorKind::StorageFull,
            _ => false,
        },
        CacheError::Io { source, .. } => source.kind() == io::ErrorKind::StorageFull,
        _ => false,
    }
}

fn lock(dir: &Path) -> Result<File, CacheError> {
    let path = dir.join("lock");
    let opened = File::options().create(true).truncate(false).write(true).open(&path);
    let file = opened.map_err(|source| CacheError::Io { action: "create", path: path.clone(), source })?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(CacheError::InUse { dir: dir.to_owned() }),
        Err(why) => Err(CacheError::Io { action: "lock", path, source: why.into() }),
    }
}

/// Whether the database may be opened by this process; if not, why.
fn believable(options: &CacheOptions) -> Result<(), String> {
    if !database_dir(&options.dir).exists() {
        // Without an index, files are of no use.
        return if objects_dir(&options.dir).exists() { Err("it has no database".into()) } else { Ok(()) };
    }
    match fs::read_to_string(marker(&options.dir)) {
        Ok(text) if text == marker_text(&options.boot_id) => return Ok(()),
        Ok(text)
            if text.lines().next().is_some_and(|line| line.starts_with(MARKER) && line != marker_head()) =>
        {
            return Err("it is of another version".into());
        }
        // Another boot's, cut short by a power failure, not there: the database itself must tell.
        _ => {}
    }
    let checker =
        options.checker.as_ref().ok_or("it was written under another boot and cannot be checked")?;
    tracing::info!(path = %options.dir.display(), "checking the object cache: it was written under another boot");
    checked_by(checker, &options.dir)
}

const MARKER: &str = "scorpio cache ";

fn marker(dir: &Path) -> PathBuf {
    dir.join("boot")
}

fn marker_head() -> String {
    format!("{MARKER}{SCHEMA}")
}

fn marker_text(boot_id: &str) -> String {
    format!("{}\n{boot_id}\n", marker_head())
}

fn mark(dir: &Path, boot_id: &str) -> Result<(), CacheError> {
    let path = marker(dir);
    if fs::read_to_string(&path).is_ok_and(|text| text == marker_text(boot_id)) {
        return Ok(());
    }
    let temporary = dir.join("boot.new");
    let written = fs::write(&temporary, marker_text(boot_id)).and_then(|()| fs::rename(&temporary, &path));
    written.map_err(|source| CacheError::Io { action: "write", path, source })
}

fn checked_by(checker: &Checker, dir: &Path) -> Result<(), String> {
    let mut command = Command::new(&checker.program);
    command.args(&checker.args).arg(dir);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command
        .spawn()
        .map_err(|why| format!("its checker {} cannot be run: {why}", checker.program.display()))?;
    match wait(&mut child, checker.timeout) {
        Ok(Some(status)) if status.success() => Ok(()),
        Ok(Some(status)) => Err(format!("its check failed: {status}{}", last_words(&mut child))),
        Ok(None) => {
            Err(format!("its check took longer than {}", humantime::format_duration(checker.timeout)))
        }
        Err(why) => Err(format!("its check could not be waited for: {why}")),
    }
}

/// Waits for the child's end; `None` when it had to be killed.
fn wait(child: &mut Child, timeout: Duration) -> io::Result<Option<ExitStatus>> {
    let ended = wait_for_end(child, timeout);
    if !matches!(ended, Ok(true)) {
        child.kill()?;
    }
    let status = child.wait()?;
    Ok(ended?.then_some(status))
}

fn wait_for_end(child: &Child, timeout: Duration) -> io::Result<bool> {
    let pid = Pid::from_child(child);
    let descriptor = pidfd_open(pid, PidfdFlags::empty())?;
    let timeout = Timespec::try_from(timeout).map_err(io::Error::other)?;
    loop {
        let mut watched = [PollFd::new(&descriptor, PollFlags::IN)];
        match poll(&mut watched, Some(&timeout)) {
            Ok(ready) => return Ok(ready > 0),
            // A signal only starts the wait anew; none comes often enough to matter.
            Err(rustix::io::Errno::INTR) => {}
            Err(why) => return Err(why.into()),
        }
    }
}

fn last_words(child: &mut Child) -> String {
    let mut words = Vec::new();
    if let Some(pipe) = child.stderr.take() {
        // What cannot be read is missing from a message, nothing more.
        drop(io::Read::read_to_end(&mut io::Read::take(pipe, REASON_BYTES), &mut words));
    }
    let words = String::from_utf8_lossy(&words);
    let line = words.trim().replace('\n', "; ");
    if line.is_empty() { line } else { format!(" ({line})") }
}

const DISCARDED: &str = "discarded";

fn objects_dir(dir: &Path) -> PathBuf {
    dir.join("objects")
}

/// Moves all content aside and removes it. Moved first, so that a crash in between leaves no half of a cache.
fn discard(dir: &Path) -> Result<(), CacheError> {
    let aside = dir.join(DISCARDED);
    let moved = fs::create_dir_all(&aside)
        .and_then(|()| move_into(&aside, &database_dir(dir)))
        .and_then(|()| move_into(&aside, &objects_dir(dir)));
    moved.map_err(|source| CacheError::Io { action: "move aside", path: dir.to_owned(), source })?;
    discard_leftovers(dir)
}

fn move_into(aside: &Path, from: &Path) -> io::Result<()> {
    let name = from.file_name().unwrap_or_default();
    match fs::rename(from, aside.join(name)) {
        Err(why) if why.kind() != io::ErrorKind::NotFound => Err(why),
        _ => Ok(()),
    }
}

fn discard_leftovers(dir: &Path) -> Result<(), CacheError> {
    let aside = dir.join(DISCARDED);
    match fs::remove_dir_all(&aside) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(CacheError::Io { action: "remove", path: aside, source })
        }
        _ => Ok(()),
    }
}
