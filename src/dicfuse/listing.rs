//! Listings: `.`, `..` and the entries of a tree, with the attributes that are known.

use std::ops::Range;

use super::{Attrs, Dicfuse, DirEntry, Stop, walk::Directory};
use crate::types::{EntryKind, NodeId};

/// Offsets of a listing: 0 is before `.`, 1 before `..`, and `n + 2` before entry `n` of the tree.
const DOTS: u64 = 2;

/// Entries whose sizes are looked up together, and must be known before the first is handed out: about as many as fit
/// into the smallest answer a kernel asks for (4 KiB). With more, an answer would look at many entries it has no room for;
/// with fewer, it would end at the first size that is still on its way.
const WINDOW: usize = 32;

impl Dicfuse {
    pub(super) fn list_root(&self, offset: u64, take: &mut dyn FnMut(DirEntry<'_>) -> bool) {
        list_dots(NodeId::ROOT, NodeId::ROOT, offset, take);
    }

    pub(super) fn list(
        &self,
        dir: NodeId,
        offset: u64,
        attrs: Attrs,
        take: &mut dyn FnMut(DirEntry<'_>) -> bool,
    ) -> Result<(), Stop> {
        let directory = self.directory(dir)?;
        let from = usize::try_from(offset.saturating_sub(DOTS)).unwrap_or(usize::MAX);
        let mut listing = Listing { dicfuse: self, directory: &directory, attrs };
        let first = listing.window(from)?;
        if let Some(index) = listing.unfetched(&first)? {
            return Err(self.sizes_from(&directory, index)?);
        }
        match list_dots(dir, directory.parent(), offset, take) {
            true => listing.entries(first, take),
            false => Ok(()),
        }
    }
}

/// A listing under way.
struct Listing<'a> {
    dicfuse: &'a Dicfuse,
    directory: &'a Directory,
    attrs: Attrs,
}

/// Some entries and their sizes, where known.
struct Window {
    range: Range<usize>,
    sizes: Vec<Option<u64>>,
}

impl Listing<'_> {
    fn window(&self, from: usize) -> Result<Window, Stop> {
        let entries = self.directory.tree.entries();
        let range = from.min(entries.len())..from.saturating_add(WINDOW).min(entries.len());
        let sizes = match self.attrs {
            Attrs::Omit => vec![None; range.len()],
            Attrs::Known | Attrs::Fetch => {
                self.dicfuse.known_sizes(&self.directory.place.origin, &entries[range.clone()])?
            }
        };
        Ok(Window { range, sizes })
    }

    /// The first entry of the window whose size is to be fetched before it is handed out.
    fn unfetched(&mut self, window: &Window) -> Result<Option<usize>, Stop> {
        if self.attrs != Attrs::Fetch {
            return Ok(None);
        }
        let unknown = window.sizes.iter().position(Option::is_none);
        if unknown.is_some() && !self.dicfuse.sizes_are_cheap(self.directory) {
            self.attrs = Attrs::Known;
            return Ok(None);
        }
        Ok(unknown.map(|position| window.range.start + position))
    }

    /// Hands out entries from the start of `window` on. At a later one whose size is to be fetched it ends: the next
    /// question begins there, with a need.
    fn entries(
        &mut self,
        mut window: Window,
        take: &mut dyn FnMut(DirEntry<'_>) -> bool,
    ) -> Result<(), Stop> {
        while !window.range.is_empty() {
            for (index, size) in window.range.clone().zip(&window.sizes) {
                if !take(self.entry(index, *size)) {
                    return Ok(());
                }
            }
            window = self.window(window.range.end)?;
            if let Some(index) = self.unfetched(&window)? {
                window.range.end = index;
            }
        }
        Ok(())
    }

    fn entry(&self, index: usize, size: Option<u64>) -> DirEntry<'_> {
        let entry = &self.directory.tree.entries()[index];
        DirEntry {
            node: self.directory.node_of(index),
            kind: entry.kind,
            name: entry.name.as_bytes(),
            attr: size.map(|size| self.directory.attr(index, size)),
            next: index as u64 + DOTS + 1,
        }
    }
}

/// Hands out what of `.` and `..` lies behind `offset`; says whether to go on.
fn list_dots(dir: NodeId, parent: NodeId, offset: u64, take: &mut dyn FnMut(DirEntry<'_>) -> bool) -> bool {
    let dots: [(NodeId, &[u8], u64); 2] = [(dir, b".", 1), (parent, b"..", 2)];
    dots.into_iter()
        .filter(|(_, _, next)| offset < *next)
        .all(|(node, name, next)| take(DirEntry { node, kind: EntryKind::Tree, name, attr: None, next }))
}
