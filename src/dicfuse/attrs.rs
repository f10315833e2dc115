//! Attributes: what `stat` shows, and the sizes that must be learnt for it.

use std::collections::HashSet;

use super::{
    Attr, Dicfuse, Need, Root, Stop,
    record::BlockKind,
    walk::{Directory, Object},
};
use crate::{
    origin::Want,
    types::{EntryKind, NodeId, RepoPath, TreeEntry},
};

/// Sizes asked for at once. One request of a few hundred kilobytes for an origin that is asked by path; a larger
/// directory takes several.
pub(super) const MAX_SIZES: usize = 4096;

impl Dicfuse {
    pub(super) fn stat(&self, node: NodeId) -> Result<Attr, Stop> {
        let place = self.inner.table.place(node)?.ok_or(Stop::NoNode(node))?;
        let attr = |kind, size| Attr { node, kind, size, mtime: place.mtime };
        let BlockKind::Entries { dir } = place.block.kind else { return Ok(attr(EntryKind::Tree, 0)) };
        let object = self.object(&place)?;
        match self.known_size(object)? {
            Some(size) => Ok(attr(object.kind, size)),
            None => Err(self.sizes_from(&self.directory(dir)?, place.index as usize)?),
        }
    }

    /// Attributes of entry `index`, or the need for its size and those of its siblings.
    pub(super) fn stat_entry(&self, directory: &Directory, index: usize) -> Result<Attr, Stop> {
        match self.known_attr(directory, index)? {
            Some(attr) => Ok(attr),
            None => Err(self.sizes_from(directory, index)?),
        }
    }

    /// Attributes of entry `index`, if its size is known.
    pub(super) fn known_attr(&self, directory: &Directory, index: usize) -> Result<Option<Attr>, Stop> {
        let entry = &directory.tree.entries()[index];
        let node = directory.node_of(index);
        let attr = |size| Attr { node, kind: entry.kind, size, mtime: directory.place.mtime };
        Ok(self.known_size(Object::of(entry))?.map(attr))
    }

    /// Whether the origin of this directory tells sizes cheaply.
    pub(super) fn sizes_are_cheap(&self, directory: &Directory) -> Result<bool, Stop> {
        let node = directory.place.node;
        let root = self.inner.table.root(directory.place.block.root)?.ok_or(Stop::NoNode(node))?;
        Ok(self.inner.store.origin(&root.origin).is_some_and(|origin| origin.sizes_are_cheap()))
    }

    /// The need for the size of entry `index` and, with it, for those of the entries behind it and then before it that
    /// are unknown: who walks a directory asks in this order.
    pub(super) fn sizes_from(&self, directory: &Directory, index: usize) -> Result<Stop, Stop> {
        let (before, rest) = directory.tree.entries().split_at(index);
        let (asked, behind) = rest.split_first().expect("the entry was found by this index");
        let mut entries = vec![asked];
        let others = self.unknown(behind.iter().chain(before))?;
        entries.extend(others.into_iter().filter(|entry| entry.oid != asked.oid));
        entries.truncate(MAX_SIZES);
        let (root, path) = self.way_to(directory.place.node)?;
        let wants = entries.into_iter().map(|entry| want(&root, &path, entry)).collect();
        Ok(Stop::need(Need::Sizes { origin: root.origin, wants, first: 0 }))
    }

    /// Those of `entries` whose sizes are unknown, each blob once, as many as are asked for at once.
    fn unknown<'t>(&self, entries: impl Iterator<Item = &'t TreeEntry>) -> Result<Vec<&'t TreeEntry>, Stop> {
        let (mut seen, mut unknown) = (HashSet::new(), Vec::new());
        for entry in entries {
            if unknown.len() == MAX_SIZES {
                break;
            }
            if self.known_size(Object::of(entry))?.is_none() && seen.insert(entry.oid) {
                unknown.push(entry);
            }
        }
        Ok(unknown)
    }

    /// Bytes of an object: of a blob as the cache knows them, 0 of a directory.
    fn known_size(&self, object: Object) -> Result<Option<u64>, Stop> {
        match object.kind.is_blob() {
            true => Ok(self.inner.store.cached_size(object.oid)?),
            false => Ok(Some(0)),
        }
    }
}

fn want(root: &Root, dir: &RepoPath, entry: &TreeEntry) -> Want {
    Want { oid: entry.oid, hint: root.hint(dir.join(entry.name.clone())) }
}
