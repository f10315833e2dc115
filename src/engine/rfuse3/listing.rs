//! Listings, a bounded piece at a time.

use std::{ffi::OsString, os::unix::ffi::OsStringExt, time::Duration};

use ::rfuse3::{
    Result,
    raw::reply::{DirectoryEntry, DirectoryEntryPlus},
};

use super::{
    Rfuse3,
    convert::{blank, file_type, inode},
};
use crate::{
    dicfuse::{Attr, Attrs},
    types::{EntryKind, NodeId},
};

/// Entries of one answer. `rfuse3` does not say how much room there is and takes as many as fit; the kernel goes on
/// where an answer ended. More of them are thrown away in large directories, fewer make more answers.
const PIECE: usize = 1024;

/// One entry, kept until `rfuse3` takes it.
struct Kept {
    node: NodeId,
    kind: EntryKind,
    name: OsString,
    next: i64,
    attr: Option<Attr>,
}

impl Rfuse3 {
    pub(super) async fn list(&self, dir: u64, offset: u64) -> Result<Vec<Result<DirectoryEntry>>> {
        let piece = self.piece(dir, offset, false).await?;
        let entries = piece.into_iter().map(|kept| {
            let (inode, kind) = (inode(kept.node), file_type(kept.kind));
            Ok(DirectoryEntry { inode, kind, name: kept.name, offset: kept.next })
        });
        Ok(entries.collect())
    }

    pub(super) async fn list_plus(&self, dir: u64, offset: u64) -> Result<Vec<Result<DirectoryEntryPlus>>> {
        let piece = self.piece(dir, offset, true).await?;
        Ok(piece.into_iter().map(|kept| Ok(self.plus(kept))).collect())
    }

    fn plus(&self, kept: Kept) -> DirectoryEntryPlus {
        // Without attributes it is a name and nothing more.
        let (ttl, generation) = kept.attr.map_or((Duration::ZERO, 0), |_| (self.ttl, self.generation()));
        DirectoryEntryPlus {
            inode: inode(kept.node),
            generation,
            kind: file_type(kept.kind),
            name: kept.name,
            offset: kept.next,
            attr: kept.attr.map_or_else(blank, |attr| self.file_attr(attr)),
            entry_ttl: ttl,
            attr_ttl: ttl,
        }
    }

    async fn piece(&self, dir: u64, offset: u64, plus: bool) -> Result<Vec<Kept>> {
        self.ask(plus, move |served, attrs| {
            let attrs = if plus { attrs } else { Attrs::Omit };
            let mut piece = Vec::new();
            served.dicfuse().readdir(NodeId(dir), offset, attrs, &mut |entry| {
                if piece.len() == PIECE {
                    return false;
                }
                piece.push(Kept {
                    node: entry.node,
                    kind: entry.kind,
                    name: OsString::from_vec(entry.name.to_vec()),
                    next: entry.next.cast_signed(),
                    attr: entry.attr,
                });
                true
            })?;
            Ok(piece)
        })
        .await
    }
}
