//! A repository in memory behind a real store and a real cache, and a way to ask until there is an answer.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use async_trait::async_trait;
use bytes::Bytes;
use scorpio::{
    cache::{Cache, CacheOptions},
    dicfuse::{Attr, Attrs, Dicfuse, Need, NodeTableOptions, Root, Stop},
    origin::{BlobSize, FetchError, Origin, ResolveError, Snapshot, TreeBody, Want},
    store::{ObjectStore, StoreLimits},
    types::{EntryKind, NodeId, ObjectKind, Oid, OriginName, RepoPath},
};
use tempfile::TempDir;
use tokio::runtime::Runtime;

pub(crate) const MTIME: i64 = 1_700_000_000;

/// Objects in memory. What is asked for is written down; it can be made to lie about sizes and to go away.
#[derive(Default)]
pub(crate) struct Repo {
    objects: Mutex<HashMap<Oid, Bytes>>,
    lies: Mutex<HashMap<Oid, u64>>,
    pub(crate) gone: AtomicBool,
    pub(crate) dear_sizes: AtomicBool,
}

impl Repo {
    fn put(&self, kind: ObjectKind, body: Vec<u8>) -> Oid {
        let oid = Oid::of(kind, &body).unwrap();
        self.objects.lock().unwrap().insert(oid, body.into());
        oid
    }

    pub(crate) fn blob(&self, content: impl AsRef<[u8]>) -> Oid {
        self.put(ObjectKind::Blob, content.as_ref().to_vec())
    }

    pub(crate) fn raw_tree(&self, body: Vec<u8>) -> Oid {
        self.put(ObjectKind::Tree, body)
    }

    pub(crate) fn tree(&self, entries: &[(&str, &str, Oid)]) -> Oid {
        let entry = |(mode, name, oid): &(&str, &str, Oid)| {
            [format!("{mode} {name}\0").as_bytes(), oid.as_bytes()].concat()
        };
        self.raw_tree(entries.iter().flat_map(entry).collect())
    }

    pub(crate) fn lie_about(&self, oid: Oid, size: u64) {
        self.lies.lock().unwrap().insert(oid, size);
    }

    pub(crate) fn forget(&self, oid: Oid) {
        self.objects.lock().unwrap().remove(&oid);
    }

    fn get(&self, oid: Oid) -> Result<Bytes, FetchError> {
        if self.gone.load(Ordering::SeqCst) {
            return Err(FetchError::Unreachable { origin: origin_name(), reason: "switched off".into() });
        }
        let found = self.objects.lock().unwrap().get(&oid).cloned();
        found.ok_or(FetchError::Absent { origin: origin_name(), oid })
    }
}

pub(crate) fn origin_name() -> OriginName {
    "memory".parse().unwrap()
}

struct Memory(Arc<Repo>, OriginName);

#[async_trait]
impl Origin for Memory {
    fn name(&self) -> &OriginName {
        &self.1
    }

    async fn resolve(&self, _rev: Option<&str>, _path: &RepoPath) -> Result<Snapshot, ResolveError> {
        panic!("the tests name their trees")
    }

    async fn trees(&self, wants: &[Want]) -> Vec<Result<TreeBody, FetchError>> {
        wants.iter().map(|want| self.0.get(want.oid).map(TreeBody::from)).collect()
    }

    async fn blobs(&self, wants: &[Want]) -> Vec<Result<Bytes, FetchError>> {
        wants.iter().map(|want| self.0.get(want.oid)).collect()
    }

    async fn sizes(&self, wants: &[Want]) -> Vec<Result<BlobSize, FetchError>> {
        let lies = self.0.lies.lock().unwrap();
        let size = |want: &Want| {
            let body = self.0.get(want.oid)?;
            Ok(lies.get(&want.oid).copied().unwrap_or(body.len() as u64).into())
        };
        wants.iter().map(size).collect()
    }

    fn sizes_are_cheap(&self) -> bool {
        !self.0.dear_sizes.load(Ordering::SeqCst)
    }

    fn trees_pass(&self) -> bool {
        false
    }
}

/// A tree of one origin, on empty directories.
pub(crate) struct World {
    pub(crate) runtime: Runtime,
    pub(crate) repo: Arc<Repo>,
    pub(crate) dicfuse: Dicfuse,
    pub(crate) dir: TempDir,
}

pub(crate) fn open(dir: &Path, cache: &str, repo: &Arc<Repo>, boot_id: &str) -> Dicfuse {
    let cache = CacheOptions {
        dir: dir.join(cache),
        map_bytes: 256 << 20,
        inline_max_bytes: 64 << 10,
        boot_id: boot_id.to_owned(),
        checker: None,
    };
    let origin: Arc<dyn Origin> = Arc::new(Memory(repo.clone(), origin_name()));
    let store = ObjectStore::new(
        Cache::open(cache).unwrap(),
        BTreeMap::from([(origin_name(), origin)]),
        StoreLimits { flight_bytes: 64 << 20, batch: 1024 },
    );
    let nodes = NodeTableOptions { dir: dir.join("nodes"), map_bytes: 64 << 20, boot_id: boot_id.to_owned() };
    Dicfuse::open(nodes, store).unwrap()
}

impl World {
    pub(crate) fn new() -> World {
        let (dir, repo) = (TempDir::new().unwrap(), Arc::<Repo>::default());
        let runtime = Runtime::new().unwrap();
        let guard = runtime.enter();
        let dicfuse = open(dir.path(), "cache", &repo, "boot");
        drop(guard);
        World { runtime, repo, dicfuse, dir }
    }

    /// The same node table under another process's eyes: with nothing in memory, and nothing in its cache.
    pub(crate) fn restarted(self) -> World {
        let World { runtime, repo, dicfuse, dir } = self;
        drop(dicfuse);
        let guard = runtime.enter();
        let dicfuse = open(dir.path(), "another-cache", &repo, "boot");
        drop(guard);
        World { runtime, repo, dicfuse, dir }
    }

    pub(crate) fn root(&self, tree: Oid) -> (Root, NodeId) {
        self.root_at(tree, "")
    }

    pub(crate) fn root_at(&self, tree: Oid, path: &str) -> (Root, NodeId) {
        let snapshot = Snapshot { commit: Oid::from_bytes([0xcc; 20]), path: path.parse().unwrap(), tree };
        let root = self.dicfuse.add_root(&origin_name(), &snapshot, MTIME).unwrap();
        let top = self.dicfuse.lookup(NodeId::ROOT, root.id.to_string().as_bytes()).unwrap().unwrap();
        (root, top.node)
    }

    /// Asks until there is an answer, and gives what had to be fetched for it too.
    pub(crate) fn ask_noting<T>(
        &self,
        question: impl Fn(&Dicfuse) -> Result<T, Stop>,
    ) -> (Result<T, Failure>, Vec<Need>) {
        let mut needs = Vec::new();
        loop {
            match question(&self.dicfuse) {
                Ok(answer) => return (Ok(answer), needs),
                Err(Stop::Need(need)) => {
                    assert!(needs.len() < 10_000, "asking never ends: {need:?}");
                    needs.push((*need).clone());
                    if let Err(error) = self.runtime.block_on(self.dicfuse.fetch(*need)) {
                        return (Err(Failure::Fetch(error)), needs);
                    }
                }
                Err(stop) => return (Err(Failure::Stop(stop)), needs),
            }
        }
    }

    pub(crate) fn ask<T>(&self, question: impl Fn(&Dicfuse) -> Result<T, Stop>) -> Result<T, Failure> {
        self.ask_noting(question).0
    }

    pub(crate) fn lookup(&self, parent: NodeId, name: &str) -> Option<Attr> {
        self.ask(|dicfuse| dicfuse.lookup(parent, name.as_bytes())).unwrap()
    }

    pub(crate) fn node(&self, parent: NodeId, name: &str) -> NodeId {
        self.lookup(parent, name).unwrap_or_else(|| panic!("no {name}")).node
    }

    /// The whole listing, in answers of at most `room` entries.
    pub(crate) fn list(&self, dir: NodeId, attrs: Attrs, room: usize) -> Vec<Entry> {
        let mut all: Vec<Entry> = Vec::new();
        loop {
            let offset = all.last().map_or(0, |entry| entry.next);
            let page = self.ask(|dicfuse| page(dicfuse, dir, offset, attrs, room)).unwrap();
            if page.is_empty() {
                return all;
            }
            all.extend(page);
        }
    }
}

/// Why asking ended without an answer.
#[derive(Debug)]
pub(crate) enum Failure {
    Stop(Stop),
    Fetch(FetchError),
}

/// An entry of a listing, kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) node: NodeId,
    pub(crate) kind: EntryKind,
    pub(crate) name: String,
    pub(crate) attr: Option<Attr>,
    pub(crate) next: u64,
}

/// One answer of a listing.
pub(crate) fn page(
    dicfuse: &Dicfuse,
    dir: NodeId,
    offset: u64,
    attrs: Attrs,
    room: usize,
) -> Result<Vec<Entry>, Stop> {
    let mut entries = Vec::new();
    dicfuse.readdir(dir, offset, attrs, &mut |entry| {
        let name = String::from_utf8(entry.name.to_vec()).unwrap();
        entries.push(Entry { node: entry.node, kind: entry.kind, name, attr: entry.attr, next: entry.next });
        entries.len() < room
    })?;
    Ok(entries)
}
