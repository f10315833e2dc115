//! The bytes of what the database holds: sealed values and the index record. Pure.
//!
//! Every value, in every database, ends in a CRC-32 over its key and itself, so that rot, a torn page and a value under
//! the wrong key are all found before anything is served. It finds accidents, not malice: object ids do that.
//!
//! ```text
//! sealed value   content · crc32(key · content) u32
//! index record   version u8 · place u8 · 0 u16 · last use u16 · 0 u16 · epoch u32 · 0 u32 · size u64
//! totals         file blobs u64 · blob bytes u64
//! epoch          epoch u32 · boot id (text)
//! ```
//!
//! All numbers are little-endian.

/// Version of everything kept in the cache directory. A cache of another version is thrown away.
pub(super) const SCHEMA: u32 = 2;

/// Bytes that sealing adds to a value.
pub(super) const SEAL_LEN: usize = 4;

const RECORD_LEN: usize = 24;
const RECORD_VERSION: u8 = 2;

/// Where the content of a blob is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In the database.
    Inline,
    /// In a file of its own.
    File,
}

/// What the index knows of a blob that is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// Where its content is.
    pub(super) place: Place,
    /// Bytes of content.
    pub(super) size: u64,
    /// In which epoch (count of boots that wrote to this cache) the content was written or last checked.
    pub(super) epoch: u32,
    /// Days since 1970 when the content was last written: the place where eviction will keep its coarse last use.
    pub(super) last_use: u16,
}

/// Sums over the index, kept in the same transactions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    /// Blobs that are files.
    pub(super) file_blobs: u64,
    /// Bytes of blob content, inline and in files.
    pub(super) blob_bytes: u64,
}

/// The checksum that seals `content` under `key`.
pub(super) fn seal(key: &[u8], content: &[u8]) -> [u8; SEAL_LEN] {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(content);
    hasher.finalize().to_le_bytes()
}

/// The content of a sealed value, or `None` when the checksum does not fit.
pub(super) fn unseal<'a>(key: &[u8], value: &'a [u8]) -> Option<&'a [u8]> {
    let (content, checksum) = value.split_last_chunk::<SEAL_LEN>()?;
    (seal(key, content) == *checksum).then_some(content)
}

impl Record {
    pub(super) fn encode(&self) -> [u8; RECORD_LEN] {
        let mut bytes = [0; RECORD_LEN];
        bytes[0] = RECORD_VERSION;
        bytes[1] = match self.place {
            Place::Inline => 1,
            Place::File => 2,
        };
        bytes[4..6].copy_from_slice(&self.last_use.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.epoch.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.size.to_le_bytes());
        bytes
    }

    /// `None` for what this version did not write.
    pub(super) fn decode(bytes: &[u8]) -> Option<Record> {
        let bytes: &[u8; RECORD_LEN] = bytes.try_into().ok()?;
        let place = match bytes[1] {
            1 => Place::Inline,
            2 => Place::File,
            _ => return None,
        };
        let record = Record {
            place,
            size: u64_at(bytes, 16)?,
            epoch: u32_at(bytes, 8)?,
            last_use: u16::from_le_bytes([bytes[4], bytes[5]]),
        };
        (record.encode() == *bytes).then_some(record)
    }
}

impl Totals {
    pub(super) fn encode(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.file_blobs.to_le_bytes());
        bytes[8..].copy_from_slice(&self.blob_bytes.to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Totals> {
        (bytes.len() == 16).then_some(())?;
        Some(Totals { file_blobs: u64_at(bytes, 0)?, blob_bytes: u64_at(bytes, 8)? })
    }

    /// Counts a record in.
    pub(super) fn add(&mut self, record: &Record) {
        self.blob_bytes = self.blob_bytes.saturating_add(record.size);
        self.file_blobs = self.file_blobs.saturating_add(u64::from(record.place == Place::File));
    }

    /// Counts a record out.
    pub(super) fn remove(&mut self, record: &Record) {
        self.blob_bytes = self.blob_bytes.saturating_sub(record.size);
        self.file_blobs = self.file_blobs.saturating_sub(u64::from(record.place == Place::File));
    }
}

/// The epoch and the boot it belongs to.
pub(super) fn encode_epoch(epoch: u32, boot_id: &str) -> Vec<u8> {
    [&epoch.to_le_bytes(), boot_id.as_bytes()].concat()
}

/// Undoes [`encode_epoch`].
pub(super) fn decode_epoch(bytes: &[u8]) -> Option<(u32, &str)> {
    let (epoch, boot_id) = bytes.split_first_chunk::<4>()?;
    Some((u32::from_le_bytes(*epoch), std::str::from_utf8(boot_id).ok()?))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|chunk| u64::from_le_bytes(*chunk))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|chunk| u32::from_le_bytes(*chunk))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WRITTEN_BY_SCHEMA_2: [u8; 24] = [
        2, 2, 0, 0, 0x34, 0x12, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0xef, 0xcd, 0xab, 0x89, 0x67, 0x45, 0x23, 0x01,
    ];

    fn example() -> Record {
        Record { place: Place::File, size: 0x0123_4567_89ab_cdef, epoch: 7, last_use: 0x1234 }
    }

    #[test]
    fn index_record_bytes_are_pinned() {
        assert_eq!(example().encode(), WRITTEN_BY_SCHEMA_2);
    }

    #[test]
    fn index_record_of_schema_2_is_read() {
        assert_eq!(Record::decode(&WRITTEN_BY_SCHEMA_2), Some(example()));
    }

    #[test]
    fn sealed_value_bytes_are_pinned() {
        assert_eq!(seal(b"key", b"content"), 0x0ccf_3676u32.to_le_bytes());
        assert_eq!(unseal(b"key", b"content\x76\x36\xcf\x0c"), Some(b"content".as_slice()));
        assert_eq!(unseal(b"kez", b"content\x76\x36\xcf\x0c"), None, "a value under another key");
        assert_eq!(unseal(b"key", b"\x01\x02\x03"), None, "shorter than a seal");
    }

    #[test]
    fn totals_and_epoch_bytes_are_pinned() {
        let totals = Totals { file_blobs: 2, blob_bytes: 0x0102 };
        assert_eq!(totals.encode(), [2, 0, 0, 0, 0, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(Totals::decode(&totals.encode()), Some(totals));
        assert_eq!(encode_epoch(3, "ab"), [3, 0, 0, 0, b'a', b'b']);
        assert_eq!(decode_epoch(&[3, 0, 0, 0, b'a', b'b']), Some((3, "ab")));
    }

    proptest! {
        #[test]
        fn records_survive_the_round_trip(is_file: bool, size: u64, epoch: u32, last_use: u16) {
            let place = if is_file { Place::File } else { Place::Inline };
            let record = Record { place, size, epoch, last_use };
            prop_assert_eq!(Record::decode(&record.encode()), Some(record));
        }

        #[test]
        fn foreign_bytes_are_refused_or_mean_what_they_say(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Some(record) = Record::decode(&bytes) {
                prop_assert_eq!(record.encode().to_vec(), bytes);
            }
        }

        #[test]
        fn any_flipped_bit_breaks_the_seal(content in proptest::collection::vec(any::<u8>(), 0..300), bit: usize) {
            let mut value = [content.as_slice(), &seal(b"k", &content)].concat();
            prop_assert_eq!(unseal(b"k", &value), Some(content.as_slice()));
            let bit = bit % (value.len() * 8);
            value[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(unseal(b"k", &value), None);
        }
    }
}
