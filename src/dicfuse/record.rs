//! Records of the node table: their bytes, and nothing of where they are kept.
//!
//! Every record is `version (1) · fields, big-endian · CRC-32 of all before it (4)`. What does not read back exactly is
//! [`None`]: a table that a crash left behind is not believed.

use crate::{
    origin::Snapshot,
    types::{NodeId, Oid, OriginName, RepoPath},
};

/// Version of all records; another one means another table.
pub(super) const VERSION: u8 = 1;

const CRC_LEN: usize = 4;

/// Node ids `first .. first + count`, given in one step; kept under `first`.
///
/// `version · kind (1: 0 top, 1 entries) · root (4) · dir (8) · tree (20) · count (4) · CRC`, 42 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Block {
    /// Number of the root it belongs to.
    pub root: u32,
    /// What the ids stand for.
    pub kind: BlockKind,
    /// For entries: the tree they are the entries of. For a top: the root's own tree.
    pub tree: Oid,
    /// How many ids.
    pub count: u32,
}

/// What the ids of a block stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BlockKind {
    /// One id: the top directory of a root.
    Top,
    /// The entries of directory `dir`, in the order of its tree.
    Entries {
        /// The directory.
        dir: NodeId,
    },
}

/// A root, kept under its number.
///
/// `version · top (8) · mtime (8) · tree (20) · commit (20) · origin length (1) · origin · path length (2) · path · CRC`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RootRecord {
    /// Node id of its top directory.
    pub top: NodeId,
    /// Its one modification time, in seconds.
    pub mtime: i64,
    /// Where its objects come from.
    pub origin: OriginName,
    /// What it shows.
    pub snapshot: Snapshot,
}

/// What is given next.
///
/// `version · first node (8) · next node (8) · next root (4) · CRC`, 25 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Counters {
    /// The first id this table could give.
    pub first_node: u64,
    /// The next node id.
    pub next_node: u64,
    /// The next root number.
    pub next_root: u32,
}

impl Block {
    pub(super) fn encode(&self) -> Vec<u8> {
        let (kind, dir) = match self.kind {
            BlockKind::Top => (0, NodeId::ROOT),
            BlockKind::Entries { dir } => (1, dir),
        };
        let mut out = vec![VERSION, kind];
        out.extend(self.root.to_be_bytes());
        out.extend(dir.0.to_be_bytes());
        out.extend(self.tree.as_bytes());
        out.extend(self.count.to_be_bytes());
        seal(out)
    }

    /// Reads the block kept under `first`.
    pub(super) fn decode(first: u64, bytes: &[u8]) -> Option<Block> {
        let mut fields = Fields::open(bytes)?;
        let [kind] = fields.take()?;
        let root = u32::from_be_bytes(fields.take()?);
        let dir = u64::from_be_bytes(fields.take()?);
        let tree = Oid::from_bytes(fields.take()?);
        let count = u32::from_be_bytes(fields.take()?);
        fields.end()?;
        let kind = match kind {
            0 if dir == NodeId::ROOT.0 && count == 1 => BlockKind::Top,
            // A directory has its id before its entries have theirs, so a walk towards the top always ends.
            1 if dir > NodeId::ROOT.0 && dir < first => BlockKind::Entries { dir: NodeId(dir) },
            _ => return None,
        };
        let in_range = count > 0 && first.checked_add(u64::from(count))? <= NodeId::MAX + 1;
        in_range.then_some(Block { root, kind, tree, count })
    }
}

impl RootRecord {
    pub(super) fn encode(&self) -> Vec<u8> {
        let (origin, path) = (self.origin.as_str().as_bytes(), self.snapshot.path.to_bytes());
        let mut out = vec![VERSION];
        out.extend(self.top.0.to_be_bytes());
        out.extend(self.mtime.to_be_bytes());
        out.extend(self.snapshot.tree.as_bytes());
        out.extend(self.snapshot.commit.as_bytes());
        out.push(
            u8::try_from(origin.len())
                .expect("an origin's name has at most 64 bytes, and a user's number 11"),
        );
        out.extend(origin);
        out.extend(u16::try_from(path.len()).expect("add_root refuses longer paths").to_be_bytes());
        out.extend(path);
        seal(out)
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<RootRecord> {
        let mut fields = Fields::open(bytes)?;
        let top = NodeId(u64::from_be_bytes(fields.take()?));
        let mtime = i64::from_be_bytes(fields.take()?);
        let tree = Oid::from_bytes(fields.take()?);
        let commit = Oid::from_bytes(fields.take()?);
        let [origin_len] = fields.take()?;
        let origin = std::str::from_utf8(fields.slice(usize::from(origin_len))?).ok()?.parse().ok()?;
        let path_len = u16::from_be_bytes(fields.take()?);
        let path = RepoPath::parse(fields.slice(usize::from(path_len))?).ok()?;
        fields.end()?;
        Some(RootRecord { top, mtime, origin, snapshot: Snapshot { commit, path, tree } })
    }

    /// Time and origin, without building the rest: every `stat` needs them.
    pub(super) fn decode_brief(bytes: &[u8]) -> Option<(i64, OriginName)> {
        let mut fields = Fields::open(bytes)?;
        let _top: [u8; 8] = fields.take()?;
        let mtime = i64::from_be_bytes(fields.take()?);
        let _ids: [u8; 2 * Oid::LEN] = fields.take()?;
        let [origin_len] = fields.take()?;
        let origin = std::str::from_utf8(fields.slice(usize::from(origin_len))?).ok()?.parse().ok()?;
        Some((mtime, origin))
    }
}

impl Counters {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        out.extend(self.first_node.to_be_bytes());
        out.extend(self.next_node.to_be_bytes());
        out.extend(self.next_root.to_be_bytes());
        seal(out)
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Counters> {
        let mut fields = Fields::open(bytes)?;
        let first_node = u64::from_be_bytes(fields.take()?);
        let next_node = u64::from_be_bytes(fields.take()?);
        let next_root = u32::from_be_bytes(fields.take()?);
        fields.end()?;
        let in_range = NodeId::ROOT.0 < first_node && first_node <= next_node && next_node <= NodeId::MAX + 1;
        in_range.then_some(Counters { first_node, next_node, next_root })
    }
}

fn seal(mut record: Vec<u8>) -> Vec<u8> {
    let crc = crc32fast::hash(&record);
    record.extend(crc.to_be_bytes());
    record
}

/// What is left of a record whose version and checksum are right.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn open(bytes: &'a [u8]) -> Option<Fields<'a>> {
        let (body, crc) = bytes.split_last_chunk::<CRC_LEN>()?;
        let (&version, fields) = body.split_first()?;
        (version == VERSION && crc32fast::hash(body) == u32::from_be_bytes(*crc)).then_some(Fields(fields))
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    fn slice(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn end(&self) -> Option<()> {
        self.0.is_empty().then_some(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn entries() -> Block {
        let kind = BlockKind::Entries { dir: NodeId(0x0203) };
        Block { root: 7, kind, tree: Oid::from_bytes([0xaa; 20]), count: 3 }
    }

    fn root() -> RootRecord {
        RootRecord {
            top: NodeId(2),
            mtime: -1,
            origin: "linux".parse().unwrap(),
            snapshot: Snapshot {
                commit: Oid::from_bytes([0xcc; 20]),
                path: "a/b".parse().unwrap(),
                tree: Oid::from_bytes([0xaa; 20]),
            },
        }
    }

    #[test]
    fn a_block_of_entries_has_these_bytes() {
        let bytes = entries().encode();
        let fields = format!("01010000000700000000000002 03{}00000003", "aa".repeat(20)).replace(' ', "");
        assert_eq!(hex(&bytes[..38]), fields);
        assert_eq!(bytes[38..], crc32fast::hash(&bytes[..38]).to_be_bytes());
        assert_eq!(bytes.len(), 42);
        assert_eq!(Block::decode(0x0204, &bytes), Some(entries()));
    }

    #[test]
    fn a_top_block_has_these_bytes() {
        let block = Block { root: 7, kind: BlockKind::Top, tree: Oid::from_bytes([0xaa; 20]), count: 1 };
        let bytes = block.encode();
        assert_eq!(hex(&bytes[..38]), format!("0100000000070000000000000001{}00000001", "aa".repeat(20)));
        assert_eq!(Block::decode(2, &bytes), Some(block));
    }

    #[test]
    fn a_root_has_these_bytes() {
        let bytes = root().encode();
        let fields = format!(
            "010000000000000002ffffffffffffffff{}{}056c696e75780003612f62",
            "aa".repeat(20),
            "cc".repeat(20)
        );
        assert_eq!(hex(&bytes[..bytes.len() - 4]), fields);
        assert_eq!(RootRecord::decode(&bytes), Some(root()));
        assert_eq!(RootRecord::decode_brief(&bytes), Some((-1, root().origin)));
    }

    #[test]
    fn counters_have_these_bytes() {
        let counters = Counters { first_node: 2, next_node: 0x010203, next_root: 9 };
        let bytes = counters.encode();
        assert_eq!(hex(&bytes[..21]), "0100000000000000020000000000010203 00000009".replace(' ', ""));
        assert_eq!(Counters::decode(&bytes), Some(counters));
    }

    #[test]
    fn a_record_out_of_bounds_is_refused_even_with_a_right_checksum() {
        let top = Block { kind: BlockKind::Top, count: 1, ..entries() };
        for (first, block) in [
            (0x0203, entries()),                       // not behind its directory
            (0x0204, Block { count: 0, ..entries() }), // no ids
            (NodeId::MAX - 1, entries()),              // ids wider than 48 bits
            (u64::MAX - 1, entries()),                 // ids beyond all numbers
            (9, Block { count: 2, ..top }),            // two tops
            (9, Block { kind: BlockKind::Entries { dir: NodeId::ROOT }, ..entries() }),
        ] {
            assert_eq!(Block::decode(first, &block.encode()), None, "{first} {block:?}");
        }
        for wrong in [
            Counters { first_node: 1, next_node: 5, next_root: 1 },
            Counters { first_node: 5, next_node: 4, next_root: 1 },
            Counters { first_node: 2, next_node: NodeId::MAX + 2, next_root: 1 },
        ] {
            assert_eq!(Counters::decode(&wrong.encode()), None, "{wrong:?}");
        }
        let mut version = entries().encode()[..38].to_vec();
        version[0] = VERSION + 1;
        assert_eq!(Block::decode(0x0204, &seal(version)), None);
        let longer = [&entries().encode()[..38], b"x"].concat();
        assert_eq!(Block::decode(0x0204, &seal(longer)), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_reading_panic(bytes in proptest::collection::vec(any::<u8>(), 0..120), first: u64) {
            let _ = Block::decode(first, &seal(bytes.clone()));
            let _ = RootRecord::decode(&seal(bytes.clone()));
            let _ = RootRecord::decode_brief(&seal(bytes.clone()));
            let _ = Counters::decode(&seal(bytes));
        }

        #[test]
        fn one_flipped_bit_is_noticed(bit in 0usize..42 * 8) {
            let mut bytes = entries().encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(Block::decode(0x0204, &bytes), None);
        }
    }
}
