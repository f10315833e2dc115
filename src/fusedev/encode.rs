//! An answer → the bytes of its reply. Total: an answer that does not fit its question becomes EIO and a [`Fault`],
//! never a reply that the kernel would reject and leave its asker waiting for.

use std::time::Duration;

use bytes::Bytes;
use zerocopy::IntoBytes;

use super::{
    Answer, FileAttr, Question, Usage,
    abi::{Attr, AttrOut, EntryOut, OutHeader, ROOT_ID, StatFsOut},
};

/// Longest target of a symlink (`PATH_MAX` − 1): the kernel reads it into one page with a final NUL.
const MAX_TARGET: usize = 4095;

/// Largest errno the kernel takes; a reply with a larger one is rejected and the asker never wakes.
const MAX_ERRNO: i32 = 511;

/// The block size that attributes speak of.
const BLOCK: u32 = 4096;

/// The size of a file whose size is not known: beyond all files, so that whatever trusts it (splice, page faults) asks for
/// content and gets it or an error, never an empty or a short file. Not the largest number, near which the kernel's
/// roundings could overflow.
pub const UNKNOWN_SIZE: u64 = 1 << 62;

/// How long the kernel may keep a name or attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ttl {
    secs: u64,
    nanos: u32,
}

impl Ttl {
    /// For ever means ten years: the kernel reckons in signed jiffies, which `u64::MAX` seconds would overflow.
    const FOR_EVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

    /// Not at all.
    pub(crate) const NONE: Ttl = Ttl { secs: 0, nanos: 0 };

    /// A duration of any length.
    pub(crate) fn new(ttl: Duration) -> Ttl {
        let ttl = ttl.min(Ttl::FOR_EVER);
        Ttl { secs: ttl.as_secs(), nanos: ttl.subsec_nanos() }
    }
}

/// What a session adds to every entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// How long name and attributes are valid.
    pub(crate) ttl: Ttl,
    /// Of the node id. With it, it is never given to another file.
    pub(crate) generation: u32,
}

impl Stamp {
    /// Of an entry that gets its own later.
    pub(crate) const NONE: Stamp = Stamp { ttl: Ttl::NONE, generation: 0 };

    /// Puts it on `entry`.
    pub(crate) fn put_on(self, entry: &mut EntryOut) {
        entry.generation = self.generation.into();
        entry.entry_valid = self.ttl.secs;
        entry.attr_valid = self.ttl.secs;
        entry.entry_valid_nsec = self.ttl.nanos;
        entry.attr_valid_nsec = self.ttl.nanos;
    }
}

/// What an answer cannot be passed on for: a bug of the file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    /// It is an answer to another question.
    #[error("the answer is of another kind than the question")]
    Kind,
    /// There is more of it than was asked for; the kernel would take the surplus for the end of the file.
    #[error("the answer has {got} bytes where {room} are allowed")]
    Long {
        /// Its length.
        got: usize,
        /// What fits.
        room: usize,
    },
    /// A node id that no entry can have (0 would say that there is none, 1 is the root).
    #[error("the entry has node id {0}")]
    Node(u64),
    /// Not an errno that may be answered. ENOSYS is none: the kernel would never ask again.
    #[error("{0} is no errno for an answer")]
    Errno(i32),
}

/// A reply without its `unique`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    errno: i32,
    body: Bytes,
}

impl Reply {
    /// Success with nothing to say.
    pub(crate) const DONE: Reply = Reply { errno: 0, body: Bytes::new() };
    /// The answer to whatever went wrong here.
    pub(crate) const EIO: Reply = Reply::errno(libc::EIO);

    /// A failure. `errno` is one the kernel takes.
    pub(crate) const fn errno(errno: i32) -> Reply {
        Reply { errno, body: Bytes::new() }
    }

    /// Success with a body.
    pub(crate) fn body(body: Bytes) -> Reply {
        Reply { errno: 0, body }
    }

    fn structure(part: &(impl IntoBytes + zerocopy::Immutable)) -> Reply {
        Reply::body(Bytes::copy_from_slice(part.as_bytes()))
    }

    /// The errno, 0 for success.
    pub(crate) fn code(&self) -> i32 {
        self.errno
    }

    /// Header and body as they are written, in one `writev`.
    pub(crate) fn parts(&self, unique: u64) -> (OutHeader, &[u8]) {
        let len = size_of::<OutHeader>() + self.body.len();
        let len = u32::try_from(len).expect("no answer is longer than MAX_ANSWER");
        (OutHeader { len, error: -self.errno, unique }, &self.body)
    }
}

/// What of a question its answer is measured by; outlives the message that carried it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Lookup,
    GetAttr,
    ReadLink,
    Read { size: u32 },
    ReadDir { size: u32, plus: bool },
    StatFs,
}

impl From<&Question<'_>> for Shape {
    fn from(question: &Question<'_>) -> Shape {
        match *question {
            Question::Lookup { .. } => Shape::Lookup,
            Question::GetAttr { .. } => Shape::GetAttr,
            Question::ReadLink { .. } => Shape::ReadLink,
            Question::Read { size, .. } => Shape::Read { size },
            Question::ReadDir { size, plus, .. } => Shape::ReadDir { size, plus },
            Question::StatFs => Shape::StatFs,
        }
    }
}

/// The reply that passes `answer` on to a question of this `shape`.
pub(crate) fn reply(shape: Shape, answer: Answer, stamp: Stamp) -> Result<Reply, Fault> {
    match (shape, answer) {
        (Shape::StatFs, Answer::Errno(libc::ENOSYS)) => Ok(Reply::structure(&statfs(Usage::default()))),
        (_, Answer::Errno(errno)) => checked_errno(errno),
        (Shape::Lookup, Answer::Entry(found) | Answer::Unsized(found)) if found.ino <= ROOT_ID => {
            Err(Fault::Node(found.ino))
        }
        (Shape::Lookup, Answer::Unsized(found)) => Ok(Reply::structure(&unsized_entry(found, stamp))),
        (Shape::Lookup, Answer::Entry(found)) => Ok(Reply::structure(&entry(Some(found), stamp))),
        (Shape::Lookup, Answer::NoEntry) => Ok(Reply::structure(&entry(None, stamp))),
        (Shape::GetAttr, Answer::Attr(found)) => Ok(Reply::structure(&AttrOut {
            attr_valid: stamp.ttl.secs,
            attr_valid_nsec: stamp.ttl.nanos,
            dummy: 0,
            attr: attr(found),
        })),
        (Shape::ReadLink, Answer::Data(data)) => bounded(data, MAX_TARGET),
        (Shape::Read { size }, Answer::Data(data)) => bounded(data, room(size)),
        (Shape::ReadDir { size, plus }, Answer::Listing(listing)) => {
            if listing.is_plus() != plus {
                return Err(Fault::Kind);
            }
            bounded(listing.finish(stamp), room(size))
        }
        (Shape::StatFs, Answer::StatFs(usage)) => Ok(Reply::structure(&statfs(usage))),
        _ => Err(Fault::Kind),
    }
}

fn checked_errno(errno: i32) -> Result<Reply, Fault> {
    if (1..=MAX_ERRNO).contains(&errno) && errno != libc::ENOSYS {
        Ok(Reply::errno(errno))
    } else {
        Err(Fault::Errno(errno))
    }
}

fn bounded(data: Bytes, room: usize) -> Result<Reply, Fault> {
    if data.len() > room {
        return Err(Fault::Long { got: data.len(), room });
    }
    Ok(Reply::body(data))
}

fn room(size: u32) -> usize {
    usize::try_from(size).expect("a usize has 32 bits at least")
}

/// An entry, or the reply that says that there is none and lets the kernel remember it.
pub(crate) fn entry(found: Option<FileAttr>, stamp: Stamp) -> EntryOut {
    let mut entry = EntryOut {
        nodeid: found.map_or(0, |found| found.ino),
        attr: found.map_or(Attr::default(), attr),
        ..EntryOut::default()
    };
    stamp.put_on(&mut entry);
    entry
}

/// An entry of unknown size: the name stays valid, as node ids are permanent (an overlay whose lower name expires and
/// cannot be looked up again tells its user ESTALE), and the attributes have to be asked for.
fn unsized_entry(found: FileAttr, stamp: Stamp) -> EntryOut {
    let found = entry(Some(FileAttr { size: UNKNOWN_SIZE, ..found }), stamp);
    EntryOut { attr_valid: 0, attr_valid_nsec: 0, ..found }
}

fn attr(found: FileAttr) -> Attr {
    let time = found.mtime.cast_unsigned(); // the kernel reads the bits as signed again
    Attr {
        ino: found.ino,
        size: found.size,
        blocks: found.size.div_ceil(512),
        atime: time,
        mtime: time,
        ctime: time,
        mode: found.mode,
        nlink: found.nlink,
        uid: found.uid,
        gid: found.gid,
        blksize: BLOCK,
        ..Attr::default()
    }
}

fn statfs(usage: Usage) -> StatFsOut {
    StatFsOut {
        blocks: usage.bytes.div_ceil(u64::from(BLOCK)),
        files: usage.files,
        bsize: BLOCK,
        frsize: BLOCK,
        namelen: 255,
        ..StatFsOut::default()
    }
}

#[cfg(test)]
#[path = "encode_tests.rs"]
mod tests;
