//! Attributes of the tree → `rfuse3`'s structures.

use std::time::Duration;

use ::rfuse3::{
    FileType, Timestamp,
    raw::reply::{FileAttr, ReplyEntry, ReplyStatFs},
};

use super::Rfuse3;
use crate::{
    dicfuse::Attr,
    engine::serve::LINKS,
    fusedev,
    types::{EntryKind, NodeId},
};

/// Bytes of a block in `st_blocks`, whatever the file system's own are.
const STAT_BLOCK: u64 = 512;

/// The block size that attributes and `statfs` speak of: a page.
const BLOCK: u32 = 4096;

/// A file system of unknown size, of which nothing is free: overlays show the numbers of their upper.
pub(super) const NOTHING: ReplyStatFs = ReplyStatFs {
    blocks: 0,
    bfree: 0,
    bavail: 0,
    files: 0,
    ffree: 0,
    bsize: BLOCK,
    namelen: 255,
    frsize: BLOCK,
};

impl Rfuse3 {
    pub(super) fn entry(&self, attr: Attr) -> ReplyEntry {
        ReplyEntry { ttl: self.ttl, attr: self.file_attr(attr), generation: self.generation() }
    }

    /// An entry of unknown size, as our own sessions tell it; but `rfuse3` has one validity for name and attributes.
    pub(super) fn unsized_entry(&self, node: NodeId, kind: EntryKind, mtime: i64) -> ReplyEntry {
        let attr = Attr { node, kind, size: fusedev::UNKNOWN_SIZE, mtime };
        ReplyEntry { ttl: Duration::ZERO, ..self.entry(attr) }
    }

    /// There is no such name, and there never will be: an entry with node id 0.
    pub(super) fn no_entry(&self) -> ReplyEntry {
        ReplyEntry { ttl: self.ttl, attr: blank(), generation: self.generation() }
    }

    /// Of all node ids.
    pub(super) fn generation(&self) -> u64 {
        self.served.dicfuse().generation().into()
    }

    pub(super) fn file_attr(&self, attr: Attr) -> FileAttr {
        let time = Timestamp::new(attr.mtime, 0);
        let (uid, gid) = self.served.owner();
        FileAttr {
            ino: attr.node.0,
            size: attr.size,
            blocks: attr.size.div_ceil(STAT_BLOCK),
            atime: time,
            mtime: time,
            ctime: time,
            kind: file_type(attr.kind),
            perm: permissions(attr.kind),
            nlink: LINKS,
            uid,
            gid,
            rdev: 0,
            blksize: BLOCK,
        }
    }
}

/// Attributes of nothing; with them an entry is a plain name that the kernel looks up when it needs it.
pub(super) fn blank() -> FileAttr {
    let time = Timestamp::new(0, 0);
    FileAttr {
        ino: 0,
        size: 0,
        blocks: 0,
        atime: time,
        mtime: time,
        ctime: time,
        kind: FileType::RegularFile,
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 0,
    }
}

pub(super) fn file_type(kind: EntryKind) -> FileType {
    match kind {
        EntryKind::Blob | EntryKind::Executable => FileType::RegularFile,
        EntryKind::Symlink => FileType::Symlink,
        EntryKind::Tree | EntryKind::Gitlink => FileType::Directory,
    }
}

fn permissions(kind: EntryKind) -> u16 {
    u16::try_from(kind.unix_mode() & 0o7777).expect("permissions have 12 bits")
}

/// Number of a node, as the protocol has it.
pub(super) fn inode(node: NodeId) -> u64 {
    node.0
}
