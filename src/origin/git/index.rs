//! [`Index`]: which objects a pack has and where, read from its index file.
//!
//! Only the table of first bytes is held in memory. The rest is read where it is needed and as it is at that moment: the
//! owner of the repository may change or cut the file at any time, which then is an error of one question.

use std::{
    fs::File,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use super::error::OpenError;
use crate::types::Oid;

/// What a version 2 index begins with; one without it is version 1.
const MAGIC: [u8; 8] = [0xff, b't', b'O', b'c', 0, 0, 0, 2];
/// The table of first bytes: how many ids begin with this byte or a smaller one.
const FANOUT: usize = 256;
const FANOUT_BYTES: usize = FANOUT * 4;
const OID_BYTES: u64 = Oid::LEN as u64;
/// Checksums of pack and index at the end.
const TRAILER_BYTES: u64 = 40;
/// Ids read at once at the end of a search: one page or two of the file. Half of them is one more read, twice as many
/// copy more than a read costs.
const ROWS_AT_ONCE: u32 = 128;
/// Set in a 32-bit offset that stands for a row of the 64-bit table.
const LARGE: u32 = 1 << 31;

/// An index.
#[derive(Debug)]
pub(super) struct Index {
    path: PathBuf,
    file: File,
    fanout: Box<[u32; FANOUT]>,
    layout: Layout,
}

/// Where the tables are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    /// Rows of a 32-bit offset and an id.
    V1,
    /// Ids, checksums, 32-bit offsets, 64-bit offsets, each in a table of its own; the last has so many rows.
    V2 { large: u64 },
}

impl Index {
    /// The index at `path`, open as `file`.
    pub(super) fn open(path: &Path, file: File) -> Result<Index, OpenError> {
        let path = path.to_owned();
        let len = file.metadata().map_err(|error| OpenError::from_io(&path, &error))?.len();
        let mut head = [0; MAGIC.len() + FANOUT_BYTES];
        file.read_exact_at(&mut head, 0).map_err(|error| broken(&path, &error))?;
        let is_v2 = head.starts_with(&MAGIC);
        let table = if is_v2 { &head[MAGIC.len()..] } else { &head[..FANOUT_BYTES] };
        let fanout = parse_fanout(table).ok_or_else(|| damaged(&path, "its table of first bytes"))?;
        let count = u64::from(fanout[FANOUT - 1]);
        let layout = if is_v2 { v2(len, count) } else { v1(len, count) };
        let layout = layout.ok_or_else(|| damaged(&path, "its length"))?;
        Ok(Index { path, file, fanout, layout })
    }

    /// The row of `oid`.
    pub(super) fn find(&self, oid: Oid) -> Result<Option<u32>, OpenError> {
        let wanted = oid.as_bytes();
        let row = self.first_not_below(wanted)?;
        let found = self.rows_of(wanted[0]).end > row && self.oid(row)? == *wanted;
        Ok(found.then_some(row))
    }

    /// Ids that begin with the hexadecimal digits `prefix` (at least two), at most `max`.
    pub(super) fn with_prefix(&self, prefix: &str, max: usize) -> Result<Vec<Oid>, OpenError> {
        let first = format!("{prefix:0<40}").parse::<Oid>();
        let Ok(first) = first else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        let end = self.rows_of(first.as_bytes()[0]).end;
        for row in self.first_not_below(first.as_bytes())?..end {
            let oid = Oid::from_bytes(self.oid(row)?);
            if found.len() == max || !oid.to_string().starts_with(prefix) {
                break;
            }
            found.push(oid);
        }
        Ok(found)
    }

    /// Where the object of `row` is in the pack.
    pub(super) fn offset(&self, row: u32) -> Result<u64, OpenError> {
        let Layout::V2 { large } = self.layout else {
            return self
                .read(FANOUT_BYTES as u64 + u64::from(row) * 24)
                .map(u32::from_be_bytes)
                .map(u64::from);
        };
        let offsets = self.oids_at() + self.count() * (OID_BYTES + 4);
        let offset = u32::from_be_bytes(self.read(offsets + u64::from(row) * 4)?);
        if offset & LARGE == 0 {
            return Ok(u64::from(offset));
        }
        let row = u64::from(offset & !LARGE);
        if row >= large {
            return Err(damaged(&self.path, "an offset"));
        }
        self.read(offsets + self.count() * 4 + row * 8).map(u64::from_be_bytes)
    }

    /// The first row whose id is `wanted` or greater, among those that begin with the same byte; else the end of these.
    fn first_not_below(&self, wanted: &[u8; 20]) -> Result<u32, OpenError> {
        let mut rows = self.rows_of(wanted[0]);
        while rows.len() > ROWS_AT_ONCE as usize {
            let middle = rows.start + (rows.end - rows.start) / 2;
            match self.oid(middle)? < *wanted {
                true => rows.start = middle + 1,
                false => rows.end = middle,
            }
        }
        let mut table = vec![0; rows.len() * usize::from(self.stride())];
        self.read_into(&mut table, self.oid_at(rows.start))?;
        let ids = table.chunks_exact(usize::from(self.stride())).map(|row| &row[..Oid::LEN]);
        let below = ids.take_while(|id| *id < wanted.as_slice()).count();
        Ok(rows.start + u32::try_from(below).expect("no more than there are rows"))
    }

    fn rows_of(&self, first_byte: u8) -> std::ops::Range<u32> {
        let at = usize::from(first_byte);
        let start = if at == 0 { 0 } else { self.fanout[at - 1] };
        start..self.fanout[at]
    }

    fn count(&self) -> u64 {
        u64::from(self.fanout[FANOUT - 1])
    }

    fn oid(&self, row: u32) -> Result<[u8; 20], OpenError> {
        self.read(self.oid_at(row))
    }

    /// From one id to the next.
    fn stride(&self) -> u8 {
        if self.layout == Layout::V1 { 24 } else { 20 }
    }

    fn oids_at(&self) -> u64 {
        (if self.layout == Layout::V1 { 4 } else { MAGIC.len() } + FANOUT_BYTES) as u64
    }

    fn oid_at(&self, row: u32) -> u64 {
        self.oids_at() + u64::from(row) * u64::from(self.stride())
    }

    fn read<const N: usize>(&self, at: u64) -> Result<[u8; N], OpenError> {
        let mut bytes = [0; N];
        self.read_into(&mut bytes, at)?;
        Ok(bytes)
    }

    fn read_into(&self, bytes: &mut [u8], at: u64) -> Result<(), OpenError> {
        self.file.read_exact_at(bytes, at).map_err(|error| broken(&self.path, &error))
    }
}

/// The table, if it only grows.
fn parse_fanout(bytes: &[u8]) -> Option<Box<[u32; FANOUT]>> {
    let mut fanout = Box::new([0; FANOUT]);
    for (entry, bytes) in fanout.iter_mut().zip(bytes.chunks_exact(4)) {
        *entry = u32::from_be_bytes(bytes.try_into().ok()?);
    }
    fanout.is_sorted().then_some(fanout)
}

fn v1(len: u64, count: u64) -> Option<Layout> {
    (len == FANOUT_BYTES as u64 + count * 24 + TRAILER_BYTES).then_some(Layout::V1)
}

fn v2(len: u64, count: u64) -> Option<Layout> {
    let fixed = (MAGIC.len() + FANOUT_BYTES) as u64 + count * (OID_BYTES + 8) + TRAILER_BYTES;
    let large = len.checked_sub(fixed).filter(|large| large % 8 == 0)? / 8;
    (large <= count).then_some(Layout::V2 { large })
}

fn damaged(path: &Path, what: &str) -> OpenError {
    OpenError::unreadable(path, format!("the pack index is damaged: {what} is wrong"))
}

fn broken(path: &Path, error: &std::io::Error) -> OpenError {
    OpenError::unreadable(path, format!("the pack index is damaged: {error}"))
}
