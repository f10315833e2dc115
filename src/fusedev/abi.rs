//! The numbers and structures of the FUSE wire protocol, version 7, in the machine's own byte order.
//!
//! Field names and order are the kernel's (`include/uapi/linux/fuse.h`); only what a read-only file system meets is
//! here. Nothing in this file decides anything.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The major version this module speaks; there has been no other since 2006.
pub(crate) const MAJOR: u32 = 7;

/// The minor version this module knows: 7.41 brought `FUSE_ALLOW_IDMAP`, the newest thing it uses.
pub(crate) const MINOR: u32 = 41;

/// The oldest minor it can work with: 7.31 (Linux 5.4) has all that [`super::init`] cannot do without.
pub(crate) const MINOR_MIN: u32 = 31;

/// The node id of `/`.
pub(crate) const ROOT_ID: u64 = 1;

/// The code of the notification that makes the kernel send unanswered requests again.
pub(crate) const NOTIFY_RESEND: i32 = 7;

/// The header of every request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(crate) struct InHeader {
    pub(crate) len: u32,
    pub(crate) opcode: u32,
    /// Bit 63 is set on a request that is sent again; an answer must echo it.
    pub(crate) unique: u64,
    pub(crate) nodeid: u64,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) pid: u32,
    /// Length of the extensions at the end, in units of eight bytes.
    pub(crate) total_extlen: u16,
    pub(crate) padding: u16,
}

/// The header of every answer; `error` is 0, a negative errno or, with `unique` 0, a notification code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(crate) struct OutHeader {
    pub(crate) len: u32,
    pub(crate) error: i32,
    pub(crate) unique: u64,
}

/// The part of INIT that kernels of every age send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(crate) struct InitIn {
    pub(crate) major: u32,
    pub(crate) minor: u32,
    pub(crate) max_readahead: u32,
    pub(crate) flags: u32,
}

/// The answer to INIT (since 7.23).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(crate) struct InitOut {
    pub(crate) major: u32,
    pub(crate) minor: u32,
    pub(crate) max_readahead: u32,
    pub(crate) flags: u32,
    pub(crate) max_background: u16,
    pub(crate) congestion_threshold: u16,
    pub(crate) max_write: u32,
    pub(crate) time_gran: u32,
    pub(crate) max_pages: u16,
    pub(crate) map_alignment: u16,
    pub(crate) flags2: u32,
    pub(crate) max_stack_depth: u32,
    pub(crate) request_timeout: u16,
    pub(crate) unused: [u16; 11],
}

/// Body of READ, READDIR and READDIRPLUS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(crate) struct ReadIn {
    pub(crate) fh: u64,
    pub(crate) offset: u64,
    pub(crate) size: u32,
    pub(crate) read_flags: u32,
    pub(crate) lock_owner: u64,
    pub(crate) flags: u32,
    pub(crate) padding: u32,
}

/// Body of GETATTR.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(crate) struct GetAttrIn {
    pub(crate) getattr_flags: u32,
    pub(crate) dummy: u32,
    pub(crate) fh: u64,
}

/// Body of INTERRUPT: the request that is not wanted any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(crate) struct InterruptIn {
    pub(crate) unique: u64,
}

/// Attributes of an inode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(crate) struct Attr {
    pub(crate) ino: u64,
    pub(crate) size: u64,
    pub(crate) blocks: u64,
    pub(crate) atime: u64,
    pub(crate) mtime: u64,
    pub(crate) ctime: u64,
    pub(crate) atimensec: u32,
    pub(crate) mtimensec: u32,
    pub(crate) ctimensec: u32,
    pub(crate) mode: u32,
    pub(crate) nlink: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) rdev: u32,
    pub(crate) blksize: u32,
    pub(crate) flags: u32,
}

/// The answer to LOOKUP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(crate) struct EntryOut {
    /// 0 means that there is no such name, and that the kernel may remember that.
    pub(crate) nodeid: u64,
    pub(crate) generation: u64,
    pub(crate) entry_valid: u64,
    pub(crate) attr_valid: u64,
    pub(crate) entry_valid_nsec: u32,
    pub(crate) attr_valid_nsec: u32,
    pub(crate) attr: Attr,
}

/// The answer to GETATTR.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(crate) struct AttrOut {
    pub(crate) attr_valid: u64,
    pub(crate) attr_valid_nsec: u32,
    pub(crate) dummy: u32,
    pub(crate) attr: Attr,
}

/// One entry of READDIR without its name, which follows and is padded with zeros to eight bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(crate) struct Dirent {
    pub(crate) ino: u64,
    pub(crate) off: u64,
    pub(crate) namelen: u32,
    pub(crate) kind: u32,
}

/// The answer to STATFS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(crate) struct StatFsOut {
    pub(crate) blocks: u64,
    pub(crate) bfree: u64,
    pub(crate) bavail: u64,
    pub(crate) files: u64,
    pub(crate) ffree: u64,
    pub(crate) bsize: u32,
    pub(crate) namelen: u32,
    pub(crate) frsize: u32,
    pub(crate) padding: u32,
    pub(crate) spare: [u32; 6],
}

/// INIT flags, both words in one: `flags | flags2 << 32`.
pub(crate) mod flag {
    /// Several readahead requests of one file at once.
    pub(crate) const ASYNC_READ: u64 = 1;
    /// Locks of processes are asked of the server. Never wanted: the kernel keeps them better.
    #[cfg(test)]
    pub(crate) const POSIX_LOCKS: u64 = 1 << 1;
    /// Look up `.` and `..` by node id for NFS. Never wanted, see `NO_EXPORT_SUPPORT`.
    #[cfg(test)]
    pub(crate) const EXPORT_SUPPORT: u64 = 1 << 4;
    /// READDIRPLUS exists.
    pub(crate) const DO_READDIRPLUS: u64 = 1 << 13;
    /// It is used when it is likely to help.
    pub(crate) const READDIRPLUS_AUTO: u64 = 1 << 14;
    /// Written pages stay in the kernel. Never wanted: nothing is written here.
    #[cfg(test)]
    pub(crate) const WRITEBACK_CACHE: u64 = 1 << 16;
    /// OPEN may be answered with ENOSYS.
    pub(crate) const NO_OPEN_SUPPORT: u64 = 1 << 17;
    /// Lookups and listings of one directory at once.
    pub(crate) const PARALLEL_DIROPS: u64 = 1 << 18;
    /// `max_pages` in the answer counts.
    pub(crate) const MAX_PAGES: u64 = 1 << 22;
    /// Targets of symlinks are kept.
    pub(crate) const CACHE_SYMLINKS: u64 = 1 << 23;
    /// OPENDIR may be answered with ENOSYS.
    pub(crate) const NO_OPENDIR_SUPPORT: u64 = 1 << 24;
    /// Cached pages are dropped only on request, not when an mtime looks different.
    pub(crate) const EXPLICIT_INVAL_DATA: u64 = 1 << 25;
    /// The second flags word counts.
    pub(crate) const INIT_EXT: u64 = 1 << 30;
    /// File handles are never decoded. Without it overlayfs stores handles of lower files, decodes them after an
    /// eviction into disconnected dentries and answers ESTALE for copied-up files.
    pub(crate) const NO_EXPORT_SUPPORT: u64 = 1 << 38;
    /// The kernel can send unanswered requests again.
    pub(crate) const HAS_RESEND: u64 = 1 << 39;
    /// Mounts of the session may be idmapped.
    pub(crate) const ALLOW_IDMAP: u64 = 1 << 40;
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::{offset_of, size_of};

    #[test]
    fn structures_have_the_sizes_of_the_kernel() {
        assert_eq!(size_of::<InHeader>(), 40);
        assert_eq!(size_of::<OutHeader>(), 16);
        assert_eq!(size_of::<InitIn>(), 16);
        assert_eq!(size_of::<InitOut>(), 64);
        assert_eq!(size_of::<ReadIn>(), 40);
        assert_eq!(size_of::<GetAttrIn>(), 16);
        assert_eq!(size_of::<InterruptIn>(), 8);
        assert_eq!(size_of::<Attr>(), 88);
        assert_eq!(size_of::<EntryOut>(), 128);
        assert_eq!(size_of::<AttrOut>(), 104);
        assert_eq!(size_of::<Dirent>(), 24);
        assert_eq!(size_of::<StatFsOut>(), 80);
    }

    #[test]
    fn fields_lie_where_the_kernel_looks() {
        assert_eq!(offset_of!(InHeader, pid), 32);
        assert_eq!(offset_of!(InHeader, total_extlen), 36);
        assert_eq!(offset_of!(InitOut, max_write), 20);
        assert_eq!(offset_of!(InitOut, max_pages), 28);
        assert_eq!(offset_of!(InitOut, flags2), 32);
        assert_eq!(offset_of!(EntryOut, attr), 40);
        assert_eq!(offset_of!(Attr, mode), 60);
    }
}
