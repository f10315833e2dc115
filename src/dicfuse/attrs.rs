//! Attributes: what `stat` shows, and the sizes that must be learnt for it.

use std::collections::HashSet;

use super::{
    Attr, Dicfuse, Found, Need, Root, Stop,
    record::BlockKind,
    walk::{Directory, Object},
};
use crate::{
    origin::Want,
    types::{EntryKind, NodeId, Oid, OriginName, RepoPath, TreeEntry},
};

/// Sizes asked for at once where they are cheap; a larger directory takes several rounds.
const MAX_SIZES: usize = 4096;

/// Sizes asked for at once where each costs a request, and perhaps the content: what a walk comes to next. Whoever stats
/// one file of a large directory does not have all of it sent.
const DEAR_SIZES: usize = 64;

/// Entries looked at in one read transaction of the cache: some hundred microseconds, for it must be short.
const CHUNK: usize = 512;

/// Entries looked at for those whose sizes are unknown: some milliseconds in the largest directory.
const SCANNED: usize = 2 * MAX_SIZES;

impl Dicfuse {
    pub(super) fn stat(&self, node: NodeId) -> Result<Attr, Stop> {
        let place = self.inner.table.place(node)?.ok_or(Stop::NoNode(node))?;
        let attr = |kind, size| Attr { node, kind, size, mtime: place.mtime };
        let BlockKind::Entries { dir } = place.block.kind else { return Ok(attr(EntryKind::Tree, 0)) };
        let object = self.object(&place)?;
        match self.known_size(&place.origin, object)? {
            Some(size) => Ok(attr(object.kind, size)),
            None => Err(self.sizes_from(&self.directory(dir)?, place.index as usize)?),
        }
    }

    /// Attributes of entry `index`, or the need for its size and those of its siblings.
    pub(super) fn stat_entry(&self, directory: &Directory, index: usize) -> Result<Attr, Stop> {
        let object = Object::of(&directory.tree.entries()[index]);
        match self.known_size(&directory.place.origin, object)? {
            Some(size) => Ok(directory.attr(index, size)),
            None => Err(self.sizes_from(directory, index)?),
        }
    }

    /// What is known of entry `index`.
    pub(super) fn known_entry(&self, directory: &Directory, index: usize) -> Result<Found, Stop> {
        let object = Object::of(&directory.tree.entries()[index]);
        let (node, kind, mtime) = (directory.node_of(index), object.kind, directory.place.mtime);
        let size = self.known_size(&directory.place.origin, object)?;
        Ok(size
            .map_or(Found::Unsized { node, kind, mtime }, |size| Found::Known(directory.attr(index, size))))
    }

    /// Whether the origin of this directory tells sizes cheaply.
    pub(super) fn sizes_are_cheap(&self, directory: &Directory) -> bool {
        self.inner.store.origin(&directory.place.origin).is_some_and(|origin| origin.sizes_are_cheap())
    }

    /// The need for the size of entry `index` and, with it, for those of the entries behind it and then before it that
    /// are unknown: who walks a directory asks in this order. If its size is on its way, so are those of its siblings.
    pub(super) fn sizes_from(&self, directory: &Directory, index: usize) -> Result<Stop, Stop> {
        let origin = &directory.place.origin;
        let (before, rest) = directory.tree.entries().split_at(index);
        let (asked, behind) = rest.split_first().expect("the entry was found by this index");
        let mut entries = vec![asked];
        if !self.inner.store.is_size_coming(origin, asked.oid) {
            let most = if self.sizes_are_cheap(directory) { MAX_SIZES } else { DEAR_SIZES };
            let chunks = behind.chunks(CHUNK).chain(before.chunks(CHUNK));
            let others = self.unknown(origin, chunks, most)?;
            entries.extend(others.into_iter().filter(|entry| entry.oid != asked.oid));
            entries.truncate(most);
        }
        let (root, path) = self.way_to(directory.place.node)?;
        let wants = entries.into_iter().map(|entry| want(&root, &path, entry)).collect();
        Ok(Stop::need(Need::Sizes { origin: root.origin, wants, first: 0 }))
    }

    /// Those entries whose sizes are unknown, each blob once, about as many as are asked for at once.
    fn unknown<'t>(
        &self,
        origin: &OriginName,
        chunks: impl Iterator<Item = &'t [TreeEntry]>,
        most: usize,
    ) -> Result<Vec<&'t TreeEntry>, Stop> {
        let (mut seen, mut unknown) = (HashSet::new(), Vec::new());
        for chunk in chunks.take(SCANNED / CHUNK) {
            let sizes = self.known_sizes(origin, chunk)?;
            let entries = chunk.iter().zip(sizes).filter(|(_, size)| size.is_none());
            unknown.extend(entries.map(|(entry, _)| entry).filter(|entry| seen.insert(entry.oid)));
            if unknown.len() >= most {
                break;
            }
        }
        Ok(unknown)
    }

    /// Bytes of each entry, where known, in one look at the cache.
    pub(super) fn known_sizes(
        &self,
        origin: &OriginName,
        entries: &[TreeEntry],
    ) -> Result<Vec<Option<u64>>, Stop> {
        let blobs = entries.iter().filter(|entry| entry.kind.is_blob());
        let oids: Vec<Oid> = blobs.map(|entry| entry.oid).collect();
        let mut sizes = self.inner.store.cached_sizes(origin, &oids)?.into_iter();
        let size = |entry: &TreeEntry| if entry.kind.is_blob() { sizes.next().flatten() } else { Some(0) };
        Ok(entries.iter().map(size).collect())
    }

    /// Bytes of an object: of a blob as the cache knows them, 0 of a directory.
    fn known_size(&self, origin: &OriginName, object: Object) -> Result<Option<u64>, Stop> {
        match object.kind.is_blob() {
            true => Ok(self.inner.store.cached_size(origin, object.oid)?),
            false => Ok(Some(0)),
        }
    }
}

fn want(root: &Root, dir: &RepoPath, entry: &TreeEntry) -> Want {
    Want { oid: entry.oid, hint: root.hint(dir.join(entry.name.clone())) }
}
