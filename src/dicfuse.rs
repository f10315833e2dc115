//! The shared read-only tree: roots, directories and permanent node ids, as answers to lookup, getattr, readlink,
//! read and readdir. Knows no user, no path on the host and no FUSE message.
//!
//! Every question is put in two steps: an answer from what is cached, at once and without waiting; or a [`Need`], which
//! the caller has [`Dicfuse::fetch`]ed and then asks again.

use std::path::PathBuf;

use bytes::Bytes;

use crate::{
    cache::CacheError,
    origin::{FetchError, Snapshot, Want},
    store::ObjectStore,
    types::{EntryKind, NodeId, OriginName, RootId, tree::BadTree},
};

/// Where and how large the node table may be.
#[derive(Clone, Debug)]
pub struct NodeTableOptions {
    /// Its directory, which outlives the process and not the boot.
    pub dir: PathBuf,
    /// Upper bound of its map in bytes.
    pub map_bytes: u64,
    /// A table of another boot is thrown away.
    pub boot_id: String,
}

/// What `stat` shows of a node, but for its owner, which the session decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attr {
    /// The node.
    pub node: NodeId,
    /// What it is.
    pub kind: EntryKind,
    /// Bytes of content; 0 for directories.
    pub size: u64,
    /// Modification time in seconds: one for all of a root, fixed when the root is first used on this host.
    pub mtime: i64,
}

/// One entry of a listing.
#[derive(Clone, Copy, Debug)]
pub struct DirEntry<'a> {
    /// Its node id (for `.` and `..` too).
    pub node: NodeId,
    /// What it is.
    pub kind: EntryKind,
    /// Its name.
    pub name: &'a [u8],
    /// Full attributes if all of them are known.
    pub attr: Option<Attr>,
    /// Offset to continue behind this entry.
    pub next: u64,
}

/// Objects that must be in the cache before a question can be answered.
#[derive(Clone, Debug)]
pub enum Need {
    /// The listing of a directory.
    Tree(OriginName, Want),
    /// The content of a file or symlink.
    Blob(OriginName, Want),
    /// Sizes of the files of one directory; that of `wants[first]` is waited for.
    Sizes {
        /// Whose blobs.
        origin: OriginName,
        /// All whose sizes are unknown.
        wants: Vec<Want>,
        /// The one that was asked for.
        first: usize,
    },
}

/// Why there is no answer now.
#[derive(Debug, thiserror::Error)]
pub enum Stop {
    /// Fetch this, then ask again.
    #[error("an object must be fetched first")]
    Need(Box<Need>),
    /// No node has this id (its root was dropped, or it never existed).
    #[error("there is no node {0}")]
    NoNode(NodeId),
    /// The node is not of the kind the question is for.
    #[error("node {0} is not of the kind asked for")]
    WrongKind(NodeId),
    /// The tree cannot be served.
    #[error("tree of node {node} cannot be served: {source}")]
    BadTree {
        /// The directory.
        node: NodeId,
        /// What is wrong with it.
        source: BadTree,
    },
    /// The cache failed.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// The node table failed.
    #[error("the node table failed: {0}")]
    Nodes(String),
}

/// A root that is being served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    /// Name of its directory below a session's `/`.
    pub id: RootId,
    /// Where its objects come from.
    pub origin: OriginName,
    /// What it shows.
    pub snapshot: Snapshot,
    /// Its one modification time, in seconds.
    pub mtime: i64,
}

/// Counters of the tree.
#[derive(Clone, Copy, Debug, Default)]
pub struct DicfuseStats {
    /// Roots being served.
    pub roots: u64,
    /// Directories listed so far: one record each.
    pub blocks: u64,
    /// Node ids given so far.
    pub nodes: u64,
}

/// The tree of all roots. Cheap to clone; every method but [`Dicfuse::fetch`] is synchronous and never waits for an
/// origin.
#[derive(Clone)]
pub struct Dicfuse {}

impl Dicfuse {
    /// Opens the node table and serves the roots recorded in it.
    pub fn open(_options: NodeTableOptions, _store: ObjectStore) -> Result<Dicfuse, Stop> {
        todo!()
    }

    /// Serves `snapshot` of `origin`: the root already there for that origin and tree, or a new one with `mtime`.
    pub fn add_root(&self, _origin: &OriginName, _snapshot: &Snapshot, _mtime: i64) -> Result<Root, Stop> {
        todo!()
    }

    /// Forgets a root and its records. The caller knows that no mount stands on it any more.
    pub fn drop_root(&self, _id: RootId) -> Result<(), Stop> {
        todo!()
    }

    /// The roots being served.
    pub fn roots(&self) -> Result<Vec<Root>, Stop> {
        todo!()
    }

    /// The entry `name` of a directory; `Ok(None)` when there is surely none. Below [`NodeId::ROOT`] the names are
    /// those of roots, and a missing one must not be remembered by the kernel (a root may come).
    pub fn lookup(&self, _parent: NodeId, _name: &[u8]) -> Result<Option<Attr>, Stop> {
        todo!()
    }

    /// The attributes of a node.
    pub fn getattr(&self, _node: NodeId) -> Result<Attr, Stop> {
        todo!()
    }

    /// The target of a symlink.
    pub fn readlink(&self, _node: NodeId) -> Result<Bytes, Stop> {
        todo!()
    }

    /// Exactly `min(len, size − offset)` bytes of a file.
    pub fn read(&self, _node: NodeId, _offset: u64, _len: u32) -> Result<Bytes, Stop> {
        todo!()
    }

    /// Hands entries from `offset` (0 or a former [`DirEntry::next`]) to `take` until it says false or all were given.
    /// With `attrs`, entries carry their attributes where these are known, and sizes that the origin tells cheaply
    /// are a [`Need`] first.
    pub fn readdir(
        &self,
        _dir: NodeId,
        _offset: u64,
        _attrs: bool,
        _take: &mut dyn FnMut(DirEntry<'_>) -> bool,
    ) -> Result<(), Stop> {
        todo!()
    }

    /// Brings what a question needs into the cache.
    pub async fn fetch(&self, _need: Need) -> Result<(), FetchError> {
        todo!()
    }

    /// Counters.
    pub fn stats(&self) -> Result<DicfuseStats, Stop> {
        todo!()
    }
}
