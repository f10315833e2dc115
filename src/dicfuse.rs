//! The shared read-only tree: roots, directories and permanent node ids, as answers to lookup, getattr, readlink,
//! read and readdir. Knows no user, no path on the host and no FUSE message.
//!
//! Every question is put in two steps: an answer from what is cached, at once and without waiting; or a [`Need`], which
//! the caller has [`Dicfuse::fetch`]ed and then asks again. Every fetch that succeeds brings the answer nearer, so asking
//! again ends.
//!
//! - `walk`: lookup
//! - `listing`: readdir
//! - `ahead`: walks, and what they come to next
//! - `attrs`: attributes, and the sizes they need
//! - `content`: files and symlinks
//! - `way`: paths of nodes, as hints for origins
//! - `trees`: parsed trees in memory
//! - `table`: which node id stands for what; `env` and `marker` open it, `record` holds its bytes

mod ahead;
mod attrs;
mod content;
mod env;
mod listing;
mod marker;
mod record;
mod table;
mod trees;
mod walk;
mod way;

pub use ahead::Ahead;
pub use content::BadContent;
pub use table::TableError;

use std::{path::PathBuf, sync::Arc};

use bytes::Bytes;

use crate::{
    cache::CacheError,
    origin::{FetchError, Snapshot, Want},
    store::ObjectStore,
    types::{EntryKind, NodeId, OriginName, RootId, tree::BadTree},
};

use self::{ahead::Walks, table::NodeTable, trees::TreeCache};

/// Bytes of parsed trees in memory: some 70,000 entries, a walk's working set. Half of it would parse the trees of a
/// large directory and its children again and again; double gains nothing that the cache below does not give.
const TREE_CACHE_BYTES: usize = 16 << 20;

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

/// What a name stands for, as far as it can be said without fetching a size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// All of it is known.
    Known(Attr),
    /// Its size is not.
    Unsized {
        /// The node.
        node: NodeId,
        /// What it is.
        kind: EntryKind,
        /// As in [`Attr`].
        mtime: i64,
    },
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
    /// Full attributes if all of them are known; never for `.` and `..`, whose attributes the kernel does not take.
    pub attr: Option<Attr>,
    /// Offset to continue behind this entry.
    pub next: u64,
}

/// What a listing tells of its entries beyond name, kind and node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attrs {
    /// Nothing (READDIR).
    Omit,
    /// Attributes of those whose size is known. Never a [`Need`] for sizes: the answer to give when fetching them failed,
    /// for a listing does not fail because a size is unknown.
    Known,
    /// The same, but sizes that the origin tells cheaply are a [`Need`] first (READDIRPLUS).
    Fetch,
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
        /// Those whose sizes are unknown, each blob once; at most 4096.
        wants: Vec<Want>,
        /// The one that was asked for.
        first: usize,
    },
}

impl Need {
    /// Whom it is fetched from.
    pub fn origin(&self) -> &OriginName {
        match self {
            Need::Tree(origin, _) | Need::Blob(origin, _) | Need::Sizes { origin, .. } => origin,
        }
    }
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
    /// The content cannot be served.
    #[error("content of node {node} cannot be served: {reason}")]
    BadContent {
        /// The file or symlink.
        node: NodeId,
        /// What is wrong with it.
        reason: BadContent,
    },
    /// The cache failed.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// The node table failed.
    #[error(transparent)]
    Nodes(#[from] TableError),
}

impl Stop {
    fn need(need: Need) -> Stop {
        Stop::Need(Box::new(need))
    }
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
pub struct Dicfuse {
    inner: Arc<Inner>,
}

struct Inner {
    table: NodeTable,
    store: ObjectStore,
    trees: TreeCache,
    walks: Walks,
}

impl Dicfuse {
    /// Opens the node table and serves the roots recorded in it.
    ///
    /// Blocks for as long as removing the rest of a root takes that was being dropped when the process died.
    #[expect(clippy::needless_pass_by_value, reason = "whoever opens a table has no further use for them")]
    pub fn open(options: NodeTableOptions, store: ObjectStore) -> Result<Dicfuse, Stop> {
        let table = NodeTable::open(&options)?;
        let trees = TreeCache::new(TREE_CACHE_BYTES);
        Ok(Dicfuse { inner: Arc::new(Inner { table, store, trees, walks: Walks::default() }) })
    }

    /// Serves `snapshot` of `origin`: the root already there for that origin and tree, or a new one with `mtime`.
    ///
    /// A root already there keeps its time, commit and path, which may differ from those given: the tree is the same, and
    /// objects are asked for by the place where they were met first. So the commit of a workspace is not read from its
    /// root. Not to be called while the same root is being dropped.
    pub fn add_root(&self, origin: &OriginName, snapshot: &Snapshot, mtime: i64) -> Result<Root, Stop> {
        Ok(self.inner.table.add_root(origin, snapshot, mtime)?)
    }

    /// Forgets a root and its records; none of its ids and names is ever given again. The caller knows that no mount
    /// stands on it any more. A root that is not there is `Ok`.
    pub fn drop_root(&self, id: RootId) -> Result<(), Stop> {
        Ok(self.inner.table.drop_root(id)?)
    }

    /// What tells this tree's node ids from those of every other table, whatever was lost in between: a session may only
    /// be gone on with by who has the table that its ids come from.
    pub fn identity(&self) -> [u8; 16] {
        self.inner.table.identity()
    }

    /// The generation of all its node ids, made of the identity. Never 0, and another table with the same one is as likely
    /// as one random number of 32 bits is like another.
    pub fn generation(&self) -> u32 {
        let [a, b, c, d, ..] = self.identity();
        u32::from_le_bytes([a, b, c, d]).max(1)
    }

    /// The roots being served.
    pub fn roots(&self) -> Result<Vec<Root>, Stop> {
        Ok(self.inner.table.roots()?)
    }

    /// The entry `name` of a directory; `Ok(None)` when there is surely none. Below [`NodeId::ROOT`] the names are
    /// those of roots, and a missing one must not be remembered by the kernel (a root may come).
    pub fn lookup(&self, parent: NodeId, name: &[u8]) -> Result<Option<Attr>, Stop> {
        match parent {
            NodeId::ROOT => self.lookup_root(name),
            _ => self.lookup_entry(parent, name),
        }
    }

    /// As [`Dicfuse::lookup`], without the size where that is not known. Never a [`Need`] for sizes: the answer to give
    /// when fetching them failed, for a name that is there must not seem to be missing because of it.
    pub fn lookup_known(&self, parent: NodeId, name: &[u8]) -> Result<Option<Found>, Stop> {
        match parent {
            NodeId::ROOT => Ok(self.lookup_root(name)?.map(Found::Known)),
            _ => self.lookup_known_entry(parent, name),
        }
    }

    /// The attributes of a node.
    pub fn getattr(&self, node: NodeId) -> Result<Attr, Stop> {
        match node {
            NodeId::ROOT => Ok(Attr { node, kind: EntryKind::Tree, size: 0, mtime: 0 }),
            _ => self.stat(node),
        }
    }

    /// The target of a symlink, 1 to 4095 bytes.
    pub fn readlink(&self, node: NodeId) -> Result<Bytes, Stop> {
        self.read_target(node)
    }

    /// Exactly `min(len, size − offset)` bytes of a file.
    pub fn read(&self, node: NodeId, offset: u64, len: u32) -> Result<Bytes, Stop> {
        self.read_file(node, offset, len)
    }

    /// Hands entries from `offset` (0 or a former [`DirEntry::next`]) to `take` until it says false or all were given:
    /// `.`, `..`, then the tree's, in its order. A [`Need`] comes before anything is handed out; a listing may end early
    /// where the next entry has one.
    pub fn readdir(
        &self,
        dir: NodeId,
        offset: u64,
        attrs: Attrs,
        take: &mut dyn FnMut(DirEntry<'_>) -> bool,
    ) -> Result<(), Stop> {
        match dir {
            NodeId::ROOT => self.list_root(offset, take),
            _ => self.list(dir, offset, attrs, take)?,
        }
        Ok(())
    }

    /// Brings what a question needs into the cache.
    pub async fn fetch(&self, need: Need) -> Result<(), FetchError> {
        Dicfuse::fetch_from(&self.inner.store, need).await
    }

    /// The same for a question that waits until then and no longer.
    pub async fn fetch_until(&self, at: tokio::time::Instant, need: Need) -> Result<(), FetchError> {
        Dicfuse::fetch_from(&self.inner.store.until(at), need).await
    }

    async fn fetch_from(store: &ObjectStore, need: Need) -> Result<(), FetchError> {
        match need {
            Need::Tree(origin, want) => store.fetch_tree(&origin, want).await,
            Need::Blob(origin, want) => store.fetch_blob(&origin, want).await,
            Need::Sizes { origin, wants, first } => store.fetch_sizes(&origin, wants, first).await,
        }
    }

    /// Counters.
    pub fn stats(&self) -> Result<DicfuseStats, Stop> {
        Ok(self.inner.table.stats()?)
    }
}
