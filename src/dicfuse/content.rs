//! Content: bytes of files and targets of symlinks, in the length that was promised or not at all.

use bytes::Bytes;

use super::{Dicfuse, Need, Stop, table::Place, walk::Object};
use crate::{
    origin::Want,
    types::{EntryKind, NodeId},
};

/// PATH_MAX without its NUL: what the kernel takes as a symlink's target.
const MAX_TARGET: u32 = 4095;

/// Why content cannot be served although it is here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadContent {
    /// The blob is not as long as its size says, and that size may be what the kernel goes by. A read that is shorter
    /// than it expects would cut the file off in its page cache for good.
    #[error("its blob is not as long as was told: {expected} bytes were due and {found} came")]
    Length {
        /// Bytes that the size promises for this read.
        expected: u64,
        /// Bytes that the blob gave.
        found: u64,
    },
    /// A target that `symlink(2)` would refuse: empty, or longer than 4095 bytes.
    #[error("its target is {0} bytes long, and a symlink's has 1 to 4095")]
    TargetLength(u64),
    /// A target with a NUL byte.
    #[error("its target contains a NUL byte")]
    TargetNul,
}

impl Dicfuse {
    pub(super) fn read_file(&self, node: NodeId, offset: u64, len: u32) -> Result<Bytes, Stop> {
        let (place, object) =
            self.blob(node, |kind| matches!(kind, EntryKind::Blob | EntryKind::Executable))?;
        let Some(size) = self.inner.store.cached_size(&place.origin, object.oid)? else {
            return Err(self.need_blob(&place, object)?);
        };
        let expected = size.saturating_sub(offset).min(u64::from(len));
        // The blob is asked even when nothing is due (the kernel may know a size that turned out to be wrong), and for all
        // of `len` (so that a blob longer than its size is noticed too).
        match self.inner.store.cached_blob(&place.origin, object.oid, offset, len)? {
            Some(bytes) => check_length(node, expected, bytes),
            None if expected == 0 => Ok(Bytes::new()),
            None => Err(self.need_blob(&place, object)?),
        }
    }

    pub(super) fn read_target(&self, node: NodeId) -> Result<Bytes, Stop> {
        let (place, object) = self.blob(node, |kind| kind == EntryKind::Symlink)?;
        let Some(size) = self.inner.store.cached_size(&place.origin, object.oid)? else {
            return Err(self.need_blob(&place, object)?);
        };
        if size == 0 || size > u64::from(MAX_TARGET) {
            return Err(Stop::BadContent { node, reason: BadContent::TargetLength(size) });
        }
        let Some(target) = self.inner.store.cached_blob(&place.origin, object.oid, 0, MAX_TARGET + 1)? else {
            return Err(self.need_blob(&place, object)?);
        };
        let target = check_length(node, size, target)?;
        if target.contains(&0) {
            return Err(Stop::BadContent { node, reason: BadContent::TargetNul });
        }
        Ok(target)
    }

    fn blob(&self, node: NodeId, is_right: fn(EntryKind) -> bool) -> Result<(Place, Object), Stop> {
        let place = self.inner.table.place(node)?.ok_or(Stop::NoNode(node))?;
        let object = self.object(&place)?;
        if is_right(object.kind) { Ok((place, object)) } else { Err(Stop::WrongKind(node)) }
    }

    fn need_blob(&self, place: &Place, object: Object) -> Result<Stop, Stop> {
        let (root, path) = self.way_to(place.node)?;
        let hint = root.hint(path);
        Ok(Stop::need(Need::Blob(root.origin, Want { oid: object.oid, hint })))
    }
}

fn check_length(node: NodeId, expected: u64, bytes: Bytes) -> Result<Bytes, Stop> {
    let found = bytes.len() as u64;
    if found == expected {
        return Ok(bytes);
    }
    Err(Stop::BadContent { node, reason: BadContent::Length { expected, found } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_of_another_length_is_no_answer() {
        let node = NodeId(7);
        let check = |expected| check_length(node, expected, Bytes::from_static(b"four"));
        assert_eq!(check(4).unwrap(), "four");
        for expected in [0, 3, 5] {
            let refused = check(expected).unwrap_err();
            let reason = BadContent::Length { expected, found: 4 };
            assert!(
                matches!(refused, Stop::BadContent { node: at, reason: why } if at == node && why == reason)
            );
        }
    }
}
