//! The word of an origin on an object: what it has delivered or said of it itself. Pure.
//!
//! Content is kept once, however many origins have it; a word is kept for each origin and object. What one origin
//! delivered is here for that origin alone: an id is no secret and no right, and whoever can make an origin name one must
//! not learn from us what another origin holds.
//!
//! ```text
//! key     number of the origin u32, big-endian · object id
//! word    version u8 · flags u8 · 0 u16 · epoch u32 · size u64, little-endian; sealed like every value
//! ```

use super::record::{u32_at, u64_at};
use crate::types::Oid;

/// The number that an origin has in one cache: never given to another one as long as the cache is not thrown away.
pub(super) type OriginNumber = u32;

const WORD_LEN: usize = 16;
const WORD_VERSION: u8 = 1;
const TREE: u8 = 1;
const BLOB: u8 = 2;
const SIZED: u8 = 4;
const DISPUTED: u8 = 8;

/// What an origin has delivered or said of an object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Word {
    /// It has delivered the tree.
    pub(super) tree: bool,
    /// It has delivered the blob.
    pub(super) blob: bool,
    /// Bytes of the blob: verified once it was delivered, until then what the origin said.
    pub(super) size: Option<u64>,
    /// The epoch in which the blob came and had another size than the origin had said before.
    pub(super) disputed: Option<u32>,
}

impl Word {
    pub(super) fn encode(&self) -> [u8; WORD_LEN] {
        let flag = |is_set, flag| if is_set { flag } else { 0 };
        let mut bytes = [0; WORD_LEN];
        bytes[0] = WORD_VERSION;
        bytes[1] = flag(self.tree, TREE)
            | flag(self.blob, BLOB)
            | flag(self.size.is_some(), SIZED)
            | flag(self.disputed.is_some(), DISPUTED);
        bytes[4..8].copy_from_slice(&self.disputed.unwrap_or_default().to_le_bytes());
        bytes[8..16].copy_from_slice(&self.size.unwrap_or_default().to_le_bytes());
        bytes
    }

    /// `None` for what this version did not write.
    pub(super) fn decode(bytes: &[u8]) -> Option<Word> {
        let bytes: &[u8; WORD_LEN] = bytes.try_into().ok()?;
        let is_set = |flag| bytes[1] & flag != 0;
        let word = Word {
            tree: is_set(TREE),
            blob: is_set(BLOB),
            size: is_set(SIZED).then_some(u64_at(bytes, 8)?),
            disputed: is_set(DISPUTED).then_some(u32_at(bytes, 4)?),
        };
        (word.encode() == *bytes).then_some(word)
    }

    /// The same once the blob was delivered, and has `size` bytes. A size that was said before and is wrong gives way, and
    /// is remembered: a kernel that was told the other one must get an error, not a short file.
    pub(super) fn with_blob(self, size: u64, epoch: u32) -> Word {
        let was_wrong = self.size.is_some_and(|said| said != size);
        let disputed = if was_wrong { Some(epoch) } else { self.disputed.filter(|of| *of == epoch) };
        Word { blob: true, size: Some(size), disputed, ..self }
    }
}

/// The key of a word.
pub(super) fn key(origin: OriginNumber, oid: Oid) -> [u8; 4 + Oid::LEN] {
    let mut key = [0; 4 + Oid::LEN];
    key[..4].copy_from_slice(&origin.to_be_bytes());
    key[4..].copy_from_slice(oid.as_bytes());
    key
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn word_and_key_bytes_are_pinned() {
        let word = Word { tree: false, blob: true, size: Some(0x0102), disputed: Some(7) };
        assert_eq!(word.encode(), [1, 14, 0, 0, 7, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(Word { tree: true, ..Word::default() }.encode()[..2], [1, 1]);
        let key = key(0x0102, Oid::from_bytes([9; 20]));
        assert_eq!((&key[..4], &key[4..]), ([0, 0, 1, 2].as_slice(), [9; 20].as_slice()));
    }

    #[test]
    fn a_delivered_blob_disputes_only_a_size_that_was_said_otherwise() {
        let said = |size| Word { size, ..Word::default() };
        assert_eq!(said(None).with_blob(5, 1).disputed, None);
        assert_eq!(said(Some(5)).with_blob(5, 1).disputed, None);
        let disputed = said(Some(6)).with_blob(5, 1);
        assert_eq!((disputed.size, disputed.disputed), (Some(5), Some(1)));
        assert_eq!(disputed.with_blob(5, 1).disputed, Some(1), "a second delivery changes nothing");
        assert_eq!(disputed.with_blob(5, 2).disputed, None, "another boot's kernel was told nothing");
    }

    proptest! {
        #[test]
        fn words_survive_the_round_trip(tree: bool, blob: bool, size: Option<u64>, disputed: Option<u32>) {
            let word = Word { tree, blob, size, disputed };
            prop_assert_eq!(Word::decode(&word.encode()), Some(word));
        }

        #[test]
        fn foreign_bytes_are_refused_or_mean_what_they_say(bytes in proptest::collection::vec(any::<u8>(), 0..24)) {
            if let Some(word) = Word::decode(&bytes) {
                prop_assert_eq!(word.encode().to_vec(), bytes);
            }
        }
    }
}
