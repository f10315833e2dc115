//! The tree behind `rfuse3`'s `Filesystem`: a second server of what [`Served`] gives to our own device layer.
//!
//! It is what our protocol layer is compared with, and the form in which a union in user space can take the tree as its
//! lower. Answers, errno, needs and the deadline are those of [`Served`]; the refusals are those of the table in
//! `fusedev`. Structures and their bytes are `rfuse3`'s, which is the point of it.
//!
//! It does not hold what the kernel engine needs: no idmap, no resumption, and a question that waits cannot be
//! interrupted, but ends with its answer or at its deadline.

mod convert;
mod listing;
mod refusals;

use std::{ffi::OsStr, num::NonZeroU32, os::unix::ffi::OsStrExt, sync::Arc, time::Duration};

use ::rfuse3::{
    Errno, Inode, Result, SetAttr,
    raw::{
        Filesystem, Request,
        reply::{
            ReplyAttr, ReplyCopyFileRange, ReplyCreated, ReplyData, ReplyDirectory, ReplyDirectoryPlus,
            ReplyEntry, ReplyInit, ReplyLSeek, ReplyOpen, ReplyStatFs, ReplyWrite, ReplyXAttr,
        },
    },
};
use futures_util::Stream;
use tokio::sync::Semaphore;

use self::refusals::refused;
use super::serve::Served;
use crate::{
    dicfuse::{Attrs, Found, Stop},
    fusedev::SessionLimits,
    types::NodeId,
};
use ::rfuse3::raw::reply::{DirectoryEntry, DirectoryEntryPlus};

/// The least that the kernel takes. Nothing is written.
const MAX_WRITE: NonZeroU32 = NonZeroU32::new(4096).expect("it is not 0");

/// For ever means ten years, as in our own sessions: the kernel reckons in jiffies, which more would overflow.
const FOR_EVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// The tree as `rfuse3` serves it.
pub struct Rfuse3 {
    served: Served,
    ttl: Duration,
    deadline: Duration,
    /// Questions under way; `rfuse3` itself has no bound.
    room: Semaphore,
}

impl Rfuse3 {
    /// Serves `served` within these limits; `workers` and `parked_per_user` mean nothing here.
    pub fn new(served: Served, limits: SessionLimits) -> Rfuse3 {
        let room = Semaphore::new(limits.parked.min(Semaphore::MAX_PERMITS));
        Rfuse3 { served, ttl: limits.entry_ttl.min(FOR_EVER), deadline: limits.deadline, room }
    }

    /// Puts a question until it is answered, or the deadline has passed.
    async fn ask<T, A>(&self, sizeless: bool, put: A) -> Result<T>
    where
        T: Send + 'static,
        A: Fn(&Served, Attrs) -> std::result::Result<T, Stop> + Send + Sync + 'static,
    {
        let Ok(_seat) = self.room.try_acquire() else {
            tracing::warn!("as many questions wait as may: one more is answered EIO");
            return Err(libc::EIO.into());
        };
        match tokio::time::timeout(self.deadline, self.served.settle(sizeless, Arc::new(put))).await {
            Ok(answered) => answered.map_err(Errno::from),
            Err(_) => {
                tracing::warn!(deadline = ?self.deadline, "a question is answered EIO at its deadline");
                Err(libc::EIO.into())
            }
        }
    }
}

impl Filesystem for Rfuse3 {
    async fn init(&self, _req: Request) -> Result<ReplyInit> {
        Ok(ReplyInit { max_write: MAX_WRITE })
    }

    async fn destroy(&self, _req: Request) {}

    async fn lookup(&self, _req: Request, parent: Inode, name: &OsStr) -> Result<ReplyEntry> {
        let (parent, name) = (NodeId(parent), name.as_bytes().to_vec());
        let found = self.ask(true, move |served, attrs| served.find(parent, &name, attrs)).await?;
        match found {
            Some(Found::Known(attr)) => Ok(self.entry(attr)),
            Some(Found::Unsized { node, kind, mtime }) => Ok(self.unsized_entry(node, kind, mtime)),
            // A root may come to be: the kernel must ask again.
            None if parent == NodeId::ROOT => Err(libc::ENOENT.into()),
            None => Ok(self.no_entry()),
        }
    }

    async fn getattr(&self, _req: Request, inode: Inode, _fh: Option<u64>, _flags: u32) -> Result<ReplyAttr> {
        let attr = self.ask(false, move |served, _| served.dicfuse().getattr(NodeId(inode))).await?;
        Ok(ReplyAttr { ttl: self.ttl, attr: self.file_attr(attr) })
    }

    async fn readlink(&self, _req: Request, inode: Inode) -> Result<ReplyData> {
        let target = self.ask(false, move |served, _| served.dicfuse().readlink(NodeId(inode))).await?;
        Ok(ReplyData { data: target })
    }

    async fn read(&self, _req: Request, inode: Inode, _fh: u64, offset: u64, size: u32) -> Result<ReplyData> {
        let put = move |served: &Served, _| served.dicfuse().read(NodeId(inode), offset, size);
        Ok(ReplyData { data: self.ask(false, put).await? })
    }

    async fn readdir<'a>(
        &'a self,
        _req: Request,
        parent: Inode,
        _fh: u64,
        offset: i64,
    ) -> Result<ReplyDirectory<impl Stream<Item = Result<DirectoryEntry>> + Send + 'a>> {
        let entries = self.list(parent, offset.cast_unsigned()).await?;
        Ok(ReplyDirectory { entries: futures_util::stream::iter(entries) })
    }

    async fn readdirplus<'a>(
        &'a self,
        _req: Request,
        parent: Inode,
        _fh: u64,
        offset: u64,
        _lock_owner: u64,
    ) -> Result<ReplyDirectoryPlus<impl Stream<Item = Result<DirectoryEntryPlus>> + Send + 'a>> {
        let entries = self.list_plus(parent, offset).await?;
        Ok(ReplyDirectoryPlus { entries: futures_util::stream::iter(entries) })
    }

    async fn statfs(&self, _req: Request, _inode: Inode) -> Result<ReplyStatFs> {
        Ok(convert::NOTHING)
    }

    async fn release(
        &self,
        _req: Request,
        _inode: Inode,
        _fh: u64,
        _flags: u32,
        _lock_owner: u64,
        _flush: bool,
    ) -> Result<()> {
        Ok(())
    }

    async fn open(&self, _req: Request, _inode: Inode, _flags: u32) -> Result<ReplyOpen> {
        refused("OPEN")
    }

    async fn opendir(&self, _req: Request, _inode: Inode, _flags: u32) -> Result<ReplyOpen> {
        refused("OPENDIR")
    }

    async fn flush(&self, _req: Request, _inode: Inode, _fh: u64, _lock_owner: u64) -> Result<()> {
        refused("FLUSH")
    }

    async fn fsync(&self, _req: Request, _inode: Inode, _fh: u64, _datasync: bool) -> Result<()> {
        refused("FSYNC")
    }

    async fn fsyncdir(&self, _req: Request, _inode: Inode, _fh: u64, _datasync: bool) -> Result<()> {
        refused("FSYNCDIR")
    }

    async fn access(&self, _req: Request, _inode: Inode, _mask: u32) -> Result<()> {
        refused("ACCESS")
    }

    async fn getxattr(&self, _req: Request, _inode: Inode, _name: &OsStr, _size: u32) -> Result<ReplyXAttr> {
        refused("GETXATTR")
    }

    async fn listxattr(&self, _req: Request, _inode: Inode, _size: u32) -> Result<ReplyXAttr> {
        refused("LISTXATTR")
    }

    async fn lseek(
        &self,
        _req: Request,
        _inode: Inode,
        _fh: u64,
        _offset: u64,
        _whence: u32,
    ) -> Result<ReplyLSeek> {
        refused("LSEEK")
    }

    async fn setattr(
        &self,
        _req: Request,
        _inode: Inode,
        _fh: Option<u64>,
        _set_attr: SetAttr,
    ) -> Result<ReplyAttr> {
        refused("SETATTR")
    }

    async fn symlink(
        &self,
        _req: Request,
        _parent: Inode,
        _name: &OsStr,
        _link: &OsStr,
    ) -> Result<ReplyEntry> {
        refused("SYMLINK")
    }

    async fn mknod(
        &self,
        _req: Request,
        _parent: Inode,
        _name: &OsStr,
        _mode: u32,
        _rdev: u32,
    ) -> Result<ReplyEntry> {
        refused("MKNOD")
    }

    async fn mkdir(
        &self,
        _req: Request,
        _parent: Inode,
        _name: &OsStr,
        _mode: u32,
        _umask: u32,
    ) -> Result<ReplyEntry> {
        refused("MKDIR")
    }

    async fn unlink(&self, _req: Request, _parent: Inode, _name: &OsStr) -> Result<()> {
        refused("UNLINK")
    }

    async fn rmdir(&self, _req: Request, _parent: Inode, _name: &OsStr) -> Result<()> {
        refused("RMDIR")
    }

    async fn rename(
        &self,
        _req: Request,
        _parent: Inode,
        _name: &OsStr,
        _new_parent: Inode,
        _new_name: &OsStr,
    ) -> Result<()> {
        refused("RENAME")
    }

    async fn rename2(
        &self,
        _req: Request,
        _parent: Inode,
        _name: &OsStr,
        _new_parent: Inode,
        _new_name: &OsStr,
        _flags: u32,
    ) -> Result<()> {
        refused("RENAME2")
    }

    async fn link(
        &self,
        _req: Request,
        _inode: Inode,
        _new_parent: Inode,
        _new_name: &OsStr,
    ) -> Result<ReplyEntry> {
        refused("LINK")
    }

    async fn create(
        &self,
        _req: Request,
        _parent: Inode,
        _name: &OsStr,
        _mode: u32,
        _flags: u32,
    ) -> Result<ReplyCreated> {
        refused("CREATE")
    }

    async fn write(
        &self,
        _req: Request,
        _inode: Inode,
        _fh: u64,
        _offset: u64,
        _data: &[u8],
        _write_flags: u32,
        _flags: u32,
    ) -> Result<ReplyWrite> {
        refused("WRITE")
    }

    async fn setxattr(
        &self,
        _req: Request,
        _inode: Inode,
        _name: &OsStr,
        _value: &[u8],
        _flags: u32,
        _position: u32,
    ) -> Result<()> {
        refused("SETXATTR")
    }

    async fn removexattr(&self, _req: Request, _inode: Inode, _name: &OsStr) -> Result<()> {
        refused("REMOVEXATTR")
    }

    async fn fallocate(
        &self,
        _req: Request,
        _inode: Inode,
        _fh: u64,
        _offset: u64,
        _length: u64,
        _mode: u32,
    ) -> Result<()> {
        refused("FALLOCATE")
    }

    async fn copy_file_range(
        &self,
        _req: Request,
        _inode: Inode,
        _fh_in: u64,
        _off_in: u64,
        _inode_out: Inode,
        _fh_out: u64,
        _off_out: u64,
        _length: u64,
        _flags: u64,
    ) -> Result<ReplyCopyFileRange> {
        refused("COPY_FILE_RANGE")
    }
}
