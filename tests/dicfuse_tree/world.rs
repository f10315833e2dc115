//! A repository in memory behind a real store and a real cache, and a way to ask until there is an answer.

use std::{
    path::Path,
    sync::{Arc, atomic::Ordering},
};

use scorpio::{
    dicfuse::{Attr, Attrs, Dicfuse, Need, NodeTableOptions, Root, Stop},
    origin::{FetchError, Snapshot},
    store::StoreLimits,
    types::{EntryKind, NodeId, Oid, OriginName},
};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::memory_origin::{self, Home, Memory};

pub(crate) const MTIME: i64 = 1_700_000_000;

pub(crate) fn origin_name() -> OriginName {
    "memory".parse().unwrap()
}

/// A tree of one origin, on empty directories.
pub(crate) struct World {
    pub(crate) runtime: Runtime,
    pub(crate) repo: Arc<Memory>,
    pub(crate) dicfuse: Dicfuse,
    pub(crate) dir: TempDir,
}

pub(crate) fn open(dir: &Path, cache: &str, repo: &Arc<Memory>, boot_id: &str) -> Dicfuse {
    let limits = StoreLimits { flight_bytes: 64 << 20, batch: 1024 };
    let store = memory_origin::store(Home { dir, cache, boot_id }, &[repo], limits);
    let nodes = NodeTableOptions { dir: dir.join("nodes"), map_bytes: 64 << 20, boot_id: boot_id.to_owned() };
    Dicfuse::open(nodes, store).unwrap()
}

impl World {
    pub(crate) fn new() -> World {
        let (dir, repo) = (TempDir::new().unwrap(), Memory::new("memory"));
        repo.cheap_sizes.store(true, Ordering::SeqCst);
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
