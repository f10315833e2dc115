//! Names: from a directory and a name to a node, and from a node to the object behind it.

use std::sync::Arc;

use super::{Attr, Dicfuse, Found, Need, Stop, record::BlockKind, table::Place};
use crate::{
    origin::Want,
    types::{EntryKind, NodeId, Oid, OriginName, RootId, Tree, TreeEntry},
};

/// A directory that can be listed: its entries have ids.
pub(super) struct Directory {
    pub place: Place,
    pub tree: Arc<Tree>,
    /// Id of its first entry; without meaning when there are none.
    pub first: u64,
}

/// What a node is, and the object behind it.
#[derive(Clone, Copy)]
pub(super) struct Object {
    pub kind: EntryKind,
    pub oid: Oid,
}

impl Object {
    pub(super) fn of(entry: &TreeEntry) -> Object {
        Object { kind: entry.kind, oid: entry.oid }
    }
}

impl Directory {
    pub(super) fn node_of(&self, index: usize) -> NodeId {
        NodeId(self.first + index as u64)
    }

    /// Attributes of entry `index`, whose size is known.
    pub(super) fn attr(&self, index: usize, size: u64) -> Attr {
        let kind = self.tree.entries()[index].kind;
        Attr { node: self.node_of(index), kind, size, mtime: self.place.mtime }
    }

    /// What `..` is.
    pub(super) fn parent(&self) -> NodeId {
        match self.place.block.kind {
            BlockKind::Top => NodeId::ROOT,
            BlockKind::Entries { dir } => dir,
        }
    }
}

impl Dicfuse {
    pub(super) fn lookup_root(&self, name: &[u8]) -> Result<Option<Attr>, Stop> {
        let id = std::str::from_utf8(name).ok().and_then(|text| text.parse::<RootId>().ok());
        let Some(id) = id else { return Ok(None) };
        let attr = |(node, mtime)| Attr { node, kind: EntryKind::Tree, size: 0, mtime };
        Ok(self.inner.table.top(id)?.map(attr))
    }

    pub(super) fn lookup_entry(&self, parent: NodeId, name: &[u8]) -> Result<Option<Attr>, Stop> {
        let directory = self.directory(parent)?;
        let Some((index, _)) = directory.tree.find(name) else { return Ok(None) };
        self.stat_entry(&directory, index as usize).map(Some)
    }

    pub(super) fn lookup_known_entry(&self, parent: NodeId, name: &[u8]) -> Result<Option<Found>, Stop> {
        let directory = self.directory(parent)?;
        let Some((index, _)) = directory.tree.find(name) else { return Ok(None) };
        self.known_entry(&directory, index as usize).map(Some)
    }

    /// The directory with ids for its entries; they are recorded when this returns.
    pub(super) fn directory(&self, dir: NodeId) -> Result<Directory, Stop> {
        let (place, listed) = self.inner.table.directory(dir)?.ok_or(Stop::NoNode(dir))?;
        if let Some(listed) = listed {
            let tree = self.tree_of(&place.origin, dir, listed.tree, Some(listed.count))?;
            return Ok(Directory { place, tree, first: listed.first });
        }
        let object = self.object(&place)?;
        // Never on an id that only stands for a tree: what has ids must not change beneath them.
        let oid = self.inner.store.stands_for(&place.origin, object.oid);
        let tree = match object.kind {
            EntryKind::Tree => self.tree_of(&place.origin, dir, oid, None)?,
            EntryKind::Gitlink => Arc::default(),
            EntryKind::Blob | EntryKind::Executable | EntryKind::Symlink => return Err(Stop::WrongKind(dir)),
        };
        let count = u32::try_from(tree.len()).expect("a parsed tree counts its entries in 32 bits");
        let first = match count {
            // A block without ids would stand under the key of the next one.
            0 => 0,
            _ => self.allocate(&place, oid, count)?,
        };
        Ok(Directory { place, tree, first })
    }

    fn allocate(&self, place: &Place, tree: Oid, count: u32) -> Result<u64, Stop> {
        let first = self.inner.table.allocate(place.block.root, place.node, tree, count)?;
        first.ok_or(Stop::NoNode(place.node))
    }

    /// What the node at `place` is.
    pub(super) fn object(&self, place: &Place) -> Result<Object, Stop> {
        match place.block.kind {
            BlockKind::Top => Ok(Object { kind: EntryKind::Tree, oid: place.block.tree }),
            BlockKind::Entries { dir } => {
                let tree = self.tree_of(&place.origin, dir, place.block.tree, Some(place.block.count))?;
                Ok(Object::of(&tree.entries()[place.index as usize]))
            }
        }
    }

    /// The tree `oid` of directory `dir`, of which a record may say how many entries it has.
    fn tree_of(
        &self,
        origin: &OriginName,
        dir: NodeId,
        oid: Oid,
        count: Option<u32>,
    ) -> Result<Arc<Tree>, Stop> {
        let Some(tree) = self.cached_tree(origin, dir, oid)? else {
            let (root, path) = self.way_to(dir)?;
            let hint = root.hint(path);
            return Err(Stop::need(Need::Tree(root.origin, Want { oid, hint })));
        };
        check_count(dir, &tree, count)?;
        Ok(tree)
    }

    /// The tree `oid` of directory `dir`, if it is here.
    pub(super) fn cached_tree(
        &self,
        origin: &OriginName,
        dir: NodeId,
        oid: Oid,
    ) -> Result<Option<Arc<Tree>>, Stop> {
        let key = (origin.clone(), oid);
        if let Some(tree) = self.inner.trees.get(&key) {
            return Ok(Some(tree));
        }
        if oid == Oid::EMPTY_TREE {
            // Git itself does not store this one, so no origin need have it.
            return Ok(Some(Arc::default()));
        }
        let Some(raw) = self.inner.store.cached_tree(origin, oid)? else { return Ok(None) };
        let tree = Tree::parse(&raw).map_err(|source| Stop::BadTree { node: dir, source })?;
        let tree = Arc::new(tree);
        self.inner.trees.insert(key, tree.clone());
        Ok(Some(tree))
    }
}

/// A block of another length than its tree would give ids to nothing, or one id to two.
fn check_count(dir: NodeId, tree: &Tree, count: Option<u32>) -> Result<(), Stop> {
    match count {
        Some(count) if count as usize != tree.len() => {
            Err(super::TableError::Corrupt { what: "number of entries of", key: dir.0 }.into())
        }
        _ => Ok(()),
    }
}
