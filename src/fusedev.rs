//! The FUSE wire protocol over a `/dev/fuse` descriptor that we hold ourselves. Knows nothing of git.
//!
//! ```text
//! worker ─ read ─► decode ─► policy ──► FileSystem::ask ─┬─ Now ────────► encode ─ write ─► kernel
//!                                │                       └─ Later ─► park ─┘
//!                                └─ ENOSYS, EROFS, nothing              ▲ INTERRUPT, deadline, bound
//! ```
//!
//! - `abi`: numbers and structures; `decode`, `encode`, `listing`: bytes to requests, answers to bytes;
//! - `policy`: what is done with each opcode; `init`: the handshake and its record; all pure;
//! - `park`: the questions that wait; `asker`: whom they are accounted to; `repeat`: those that need not wait again;
//! - `slots`, `landing`: what was read and not answered, where a successor finds it;
//! - `counters`, `throttle` and `pulse`: what is told;
//! - `device`, `worker`, `session`: the descriptor, the threads on it, their owner.
//!
//! A session is stateless: node ids are permanent, handles are 0, FORGET and RELEASE mean nothing. So whoever holds
//! the descriptor can answer any request, and [`Session::resume`] goes on where another process stopped.

mod abi;
mod asker;
mod counters;
mod decode;
mod device;
mod encode;
mod init;
mod landing;
mod listing;
mod park;
mod policy;
mod pulse;
mod repeat;
mod session;
mod slots;
mod throttle;
mod worker;

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;

pub use self::{
    asker::{Asker, User},
    device::open_device,
    encode::UNKNOWN_SIZE,
    init::NegotiatedError,
    listing::DirBuffer,
    policy::refusal,
    session::Session,
    slots::{Slots, SlotsError, SlotsId},
};
use crate::config::Replay;

/// Attributes of an inode as the protocol carries them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileAttr {
    /// Inode number, also the node id.
    pub ino: u64,
    /// Bytes.
    pub size: u64,
    /// Seconds since the epoch, for all three times.
    pub mtime: i64,
    /// Type and permissions.
    pub mode: u32,
    /// Number of links.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// A question of the kernel to a read-only file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question<'a> {
    /// Look `name` up in directory `parent`.
    Lookup {
        /// Node id of the directory.
        parent: u64,
        /// The name.
        name: &'a [u8],
    },
    /// Attributes of a node.
    GetAttr {
        /// Node id.
        node: u64,
    },
    /// Target of a symlink.
    ReadLink {
        /// Node id.
        node: u64,
    },
    /// Bytes of a file.
    Read {
        /// Node id.
        node: u64,
        /// From this byte.
        offset: u64,
        /// As many, or up to the end of the file.
        size: u32,
    },
    /// Entries of a directory.
    ReadDir {
        /// Node id.
        node: u64,
        /// 0 or the offset of the last entry received.
        offset: u64,
        /// Room in the answer.
        size: u32,
        /// With attributes (READDIRPLUS) or without.
        plus: bool,
    },
    /// Size and use of the file system.
    StatFs,
}

/// An answer to a [`Question`].
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// A name was found; name and attributes are valid for ever.
    Entry(FileAttr),
    /// A name was found whose size cannot be had now. The name is valid for ever, its attributes not at all: who wants
    /// them, or opens the file, asks again. The size in them means nothing; the kernel is told one beyond all files.
    Unsized(FileAttr),
    /// There is no such name, and never will be.
    NoEntry,
    /// Attributes, valid for ever.
    Attr(FileAttr),
    /// Content of a file or symlink.
    Data(Bytes),
    /// A listing, built with [`DirBuffer`].
    Listing(DirBuffer),
    /// Size and use of the file system.
    StatFs(Usage),
    /// A failure, which the kernel does not remember: also ENOENT, for a name that may come to be. One to 511, and
    /// never ENOSYS, except to [`Question::StatFs`] for an empty [`Usage`].
    Errno(i32),
}

/// Size and use of a file system, for `df`. Nothing of it is free: it is read-only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of all files.
    pub bytes: u64,
    /// Number of inodes.
    pub files: u64,
}

/// How a question is answered.
pub enum Answered {
    /// At once.
    Now(Answer),
    /// When the future ends. The session polls it on its runtime, bounds it in time and number and drops it when the
    /// asker is interrupted.
    Later(BoxFuture<'static, Answer>),
    /// The same, of a look-up; where it may not wait, or not so long, or its asker is interrupted, it is answered with this
    /// instead of EIO or EINTR.
    LaterOr(BoxFuture<'static, Answer>, Answer),
}

/// A read-only file system. Called from several threads at once; must not wait for a network or another process.
pub trait FileSystem: Send + Sync + 'static {
    /// Answers one question.
    fn ask(&self, question: Question<'_>, asker: &Asker) -> Answered;
}

/// Bounds of a session.
#[derive(Clone, Copy, Debug)]
pub struct SessionLimits {
    /// Threads that read the device.
    pub workers: usize,
    /// Questions that may wait for an origin; one more is answered EIO.
    pub parked: usize,
    /// Of them, those of one user.
    pub parked_per_user: usize,
    /// How long a question may wait before it is answered EIO.
    pub deadline: Duration,
    /// How long names and attributes stay valid in the kernel; only tests ask for less than for ever.
    pub entry_ttl: Duration,
}

/// What was negotiated with the kernel; a successor of this process needs it to go on with the session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Negotiated {
    /// Protocol minor.
    pub minor: u32,
    /// All 64 flag bits both sides agreed on.
    pub flags: u64,
    /// The generation of all node ids of the session.
    pub generation: u32,
}

/// Counters of a session. Exact.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionStats {
    /// Messages read from the device, of any kind.
    pub reads: u64,
    /// Of them by opcode name (`LOOKUP`, `READ`, …).
    pub by_opcode: std::collections::BTreeMap<&'static str, u64>,
    /// Questions waiting now.
    pub parked: u64,
    /// Questions answered with EIO because a bound or deadline was reached.
    pub refused: u64,
    /// Questions dropped because their asker was interrupted.
    pub interrupted: u64,
    /// Messages that were not understood; answered EIO.
    pub malformed: u64,
    /// Panics of the file system and answers of it that could not be passed on; answered EIO.
    pub faults: u64,
}

/// Why a session cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The device failed.
    #[error("the FUSE device failed while {doing}: {source}")]
    Device {
        /// What was being done.
        doing: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// The kernel lacks something this file system cannot do without.
    #[error("the kernel's FUSE {0}")]
    Kernel(String),
}

/// What the session asks of the kernel at INIT.
#[derive(Clone, Copy, Debug)]
pub struct Features {
    /// Ask for `FUSE_ALLOW_IDMAP` (kernel ≥ 6.12) and fail when it is not granted.
    pub idmap: bool,
    /// How a successor gets the requests that this process has read and not answered.
    pub replay: Replay,
    /// What tells this session's node ids from equal ones of another session that stand for other files. It is part of the
    /// file handles that the kernel makes; overlayfs stores one with each file it copies up, and before Linux 6.9 it
    /// looks for the file behind it whenever it meets the copy again, after a reboot too.
    pub generation: u32,
}
