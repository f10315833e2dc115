//! Room for blobs in memory on their way from an origin to the cache.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Room is given in pieces of this size, so that a `u32` of them is enough for any blob (16 TiB).
const PIECE_BYTES: u64 = 4096;

/// What a blob of unknown size is counted as. Reads come after `stat`, which learns sizes, so it is rare; most blobs are
/// smaller, and a larger one only makes the bound less sharp.
const UNKNOWN_BYTES: u64 = 1 << 20;

/// A bound on bytes. Who waits is served in order, so a large blob is not starved by small ones.
pub(super) struct Room {
    pieces: Arc<Semaphore>,
    total: u32,
}

impl Room {
    /// Room for `bytes`.
    pub(super) fn new(bytes: u64) -> Room {
        let total = u32::try_from(bytes / PIECE_BYTES).unwrap_or(u32::MAX).max(1);
        Room { pieces: Arc::new(Semaphore::new(total as usize)), total }
    }

    /// Waits for room for a blob of that size. One that is larger than all there is takes all, and goes alone.
    ///
    /// `None` never comes: the semaphore is not closed.
    pub(super) async fn take(&self, size: Option<u64>) -> Option<OwnedSemaphorePermit> {
        self.pieces.clone().acquire_many_owned(self.pieces_for(size)).await.ok()
    }

    fn pieces_for(&self, size: Option<u64>) -> u32 {
        let pieces = size.unwrap_or(UNKNOWN_BYTES).div_ceil(PIECE_BYTES);
        u32::try_from(pieces).unwrap_or(u32::MAX).clamp(1, self.total)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn room_is_counted_in_pieces_and_never_more_than_there_is() {
        let room = Room::new(10 * PIECE_BYTES);
        for (size, pieces) in [(0, 1), (1, 1), (4096, 1), (4097, 2), (40960, 10), (40961, 10), (u64::MAX, 10)]
        {
            assert_eq!(room.pieces_for(Some(size)), pieces, "{size}");
        }
        assert_eq!(room.pieces_for(None), 10);
        assert_eq!(Room::new(0).pieces_for(Some(1)), 1, "a bound of nothing still lets one pass");
    }

    #[test]
    fn a_blob_larger_than_the_room_goes_alone() {
        let room = Room::new(10 * PIECE_BYTES);
        let small = room.take(Some(1)).now_or_never().unwrap();
        assert!(room.take(Some(u64::MAX)).now_or_never().is_none(), "it must wait for the small one");
        drop(small);
        let large = room.take(Some(u64::MAX)).now_or_never().unwrap();
        assert!(room.take(Some(0)).now_or_never().is_none(), "nothing goes beside it");
        drop(large);
        assert!(room.take(Some(0)).now_or_never().is_some());
    }
}
