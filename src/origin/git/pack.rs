//! [`Data`]: a pack's entries; [`Unpacker`]: the objects they stand for, deltas undone.
//!
//! Everything is read where it is needed and as it is at that moment. The owner of the repository may change or cut the
//! file at any time, which then is an error of one object; what comes out is compared with its id elsewhere.

use std::{
    fs::File,
    io::{self, BufReader, Read},
    os::unix::fs::FileExt as _,
    path::Path,
};

use gix::{
    objs::Kind,
    odb::pack::{
        cache::{DecodeEntry as _, lru::MemoryCappedHashmap},
        data::{Entry, entry::Header},
    },
    zlib::{Decompress, stream::inflate},
};

use super::{
    delta::{self, SIZES_MAX, Sizes},
    error::{OpenError, ReadError},
    shelf::Pack,
};
use crate::types::Oid;

/// Memory for decoding one packed object: base, delta and result at once.
const DECODE_MAX: u64 = 5 << 29; // 2.5 GiB
/// Deltas behind one object. Git makes at most 4,095, and fifty unless told otherwise.
const CHAIN_MAX: usize = 4096;
/// Decoded bases of deltas kept per thread. Chains in real packs overlap, trees above all; with 8 MiB reading all trees of
/// a repository decodes each base about once.
const BASES_KEPT: usize = 8 * 1024 * 1024;
/// Read for the head of an entry: kind, size, base, and the sizes a delta begins with.
const READ_HEAD: usize = 64;
/// Read at once of an entry: most are shorter than the smaller number, and for large ones a call of the kernel per 64 KiB
/// is nothing beside inflating them.
const READ_SMALL: usize = 4 << 10;
const READ_LARGE: usize = 64 << 10;
/// Memory taken on the word of a header alone; more only as content comes.
const RESERVE_MAX: usize = 1 << 20;
/// Magic, version, number of objects.
const HEADER_BYTES: usize = 12;

/// A pack's data.
#[derive(Debug)]
pub(super) struct Data {
    file: File,
    /// What the cache of decoded bases knows the pack by; never given twice.
    number: u32,
}

/// One thread's means to decode objects.
pub(super) struct Unpacker {
    inflate: Decompress,
    bases: MemoryCappedHashmap,
}

/// Where an entry's deflated bytes are read.
type Deflated<'file> = BufReader<At<'file>>;

/// A file from an offset on.
struct At<'file> {
    file: &'file File,
    offset: u64,
}

/// A delta on the way to its base.
struct Step {
    offset: u64,
    entry: Entry,
}

/// Where the base of an entry is.
enum Base {
    /// It needs none, being an object of this kind.
    None(Kind),
    /// At this offset of the same pack.
    At(u64),
}

impl Data {
    /// The pack at `path`, open as `file`; `number` is given to no other.
    pub(super) fn open(path: &Path, file: File, number: u32) -> Result<Data, OpenError> {
        let mut head = [0; HEADER_BYTES];
        let read = file.read_exact_at(&mut head, 0);
        read.map_err(|error| OpenError::unreadable(path, format!("the pack is damaged: {error}")))?;
        match &head[..8] {
            b"PACK\0\0\0\x02" | b"PACK\0\0\0\x03" => Ok(Data { file, number }),
            _ => Err(OpenError::unreadable(path, "the pack is damaged: its header is wrong")),
        }
    }

    /// The entry at `offset`.
    fn entry(&self, offset: u64) -> Result<Entry, ReadError> {
        Entry::from_read(&mut self.bytes(offset, READ_HEAD), offset, 20).map_err(|error| damaged(&error))
    }

    fn bytes(&self, offset: u64, buffer: usize) -> Deflated<'_> {
        BufReader::with_capacity(buffer, At { file: &self.file, offset })
    }
}

impl Read for At<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(bytes, self.offset)?;
        self.offset += read as u64;
        Ok(read)
    }
}

impl Unpacker {
    /// With nothing kept.
    pub(super) fn new() -> Unpacker {
        Unpacker { inflate: Decompress::new(), bases: MemoryCappedHashmap::new(BASES_KEPT) }
    }

    /// Kind and size of the object at `offset`: of a delta only its first bytes are inflated.
    pub(super) fn header(&mut self, pack: &Pack, offset: u64) -> Result<(Kind, u64), ReadError> {
        let data = pack.data()?;
        let mut entry = data.entry(offset)?;
        let size = if entry.header.is_delta() {
            self.delta_sizes(data, &entry)?.result
        } else {
            entry.decompressed_size
        };
        let mut at = offset;
        for _ in 0..=CHAIN_MAX {
            match base(pack, at, &entry)? {
                Base::None(kind) => return Ok((kind, size)),
                Base::At(offset) => at = offset,
            }
            entry = data.entry(at)?;
        }
        Err(too_long())
    }

    /// Kind and body of the object at `offset`. The caller has bounded its size.
    pub(super) fn object(&mut self, pack: &Pack, offset: u64) -> Result<(Kind, Vec<u8>), ReadError> {
        let data = pack.data()?;
        let mut steps = Vec::new();
        let mut at = offset;
        let (kind, mut body) = loop {
            if let Some(kept) = self.kept(data, at) {
                break kept;
            }
            let entry = data.entry(at)?;
            match base(pack, at, &entry)? {
                Base::None(kind) => break (kind, self.inflated(data, &entry, 0)?),
                Base::At(base) => steps.push(Step { offset: std::mem::replace(&mut at, base), entry }),
            }
            if steps.len() > CHAIN_MAX {
                return Err(too_long());
            }
        };
        if !steps.is_empty() {
            self.keep(data, at, kind, &body);
        }
        while let Some(Step { offset, entry }) = steps.pop() {
            let taken = body.len() as u64;
            let delta = self.inflated(data, &entry, taken)?;
            let (sizes, _) = delta::sizes(&delta).map_err(flawed)?;
            fits(taken.saturating_add(entry.decompressed_size).saturating_add(sizes.result))?;
            body = delta::apply(&body, &delta).map_err(flawed)?;
            self.keep(data, offset, kind, &body);
        }
        Ok((kind, body))
    }

    /// All that is deflated in `entry`, while `taken` bytes are in use for the same object.
    fn inflated(&mut self, data: &Data, entry: &Entry, taken: u64) -> Result<Vec<u8>, ReadError> {
        fits(taken.saturating_add(entry.decompressed_size))?;
        let size = usize::try_from(entry.decompressed_size).map_err(|_| too_large(u64::MAX))?;
        let mut deflated =
            data.bytes(entry.data_offset, if size > READ_SMALL { READ_LARGE } else { READ_SMALL });
        let mut body = Vec::new();
        self.inflate.reset();
        while body.len() < size {
            let (full, room) = (body.len(), size.min(RESERVE_MAX.max(2 * body.len())));
            body.try_reserve_exact(room - full).map_err(|error| damaged(&error))?;
            body.resize(room, 0);
            if self.inflate_into(&mut body[full..], &mut deflated)? < room - full {
                return Err(damaged(&"an entry is shorter than it says"));
            }
        }
        Ok(body)
    }

    fn delta_sizes(&mut self, data: &Data, entry: &Entry) -> Result<Sizes, ReadError> {
        let mut head = [0; SIZES_MAX];
        let most = usize::try_from(entry.decompressed_size).map_or(SIZES_MAX, |size| size.min(SIZES_MAX));
        self.inflate.reset();
        let written = self.inflate_into(&mut head[..most], &mut data.bytes(entry.data_offset, READ_HEAD))?;
        delta::sizes(&head[..written]).map(|(sizes, _)| sizes).map_err(flawed)
    }

    /// As much as fits, and returns how much it was.
    fn inflate_into(&mut self, body: &mut [u8], deflated: &mut Deflated<'_>) -> Result<usize, ReadError> {
        inflate::read(deflated, &mut self.inflate, body).map_err(|error| damaged(&error))
    }

    fn kept(&mut self, data: &Data, offset: u64) -> Option<(Kind, Vec<u8>)> {
        let mut body = Vec::new();
        let (kind, _) = self.bases.get(data.number, offset, &mut body)?;
        Some((kind, body))
    }

    fn keep(&mut self, data: &Data, offset: u64, kind: Kind, body: &[u8]) {
        // One that takes more than a part would push out what is of more use.
        if body.len() <= BASES_KEPT / 4 {
            self.bases.put(data.number, offset, body, kind, 0);
        }
    }
}

fn base(pack: &Pack, offset: u64, entry: &Entry) -> Result<Base, ReadError> {
    let kind = match entry.header {
        Header::OfsDelta { base_distance } => {
            let base = offset.checked_sub(base_distance).filter(|_| base_distance != 0);
            return base.map(Base::At).ok_or_else(|| damaged(&"a delta's base is before the pack"));
        }
        Header::RefDelta { base_id } => {
            let base = Oid::from_slice(base_id.as_bytes()).map(|oid| pack.find(oid)).transpose()?.flatten();
            return base.map(Base::At).ok_or_else(|| damaged(&"a delta's base is not in the pack"));
        }
        Header::Blob => Kind::Blob,
        Header::Tree => Kind::Tree,
        Header::Commit => Kind::Commit,
        Header::Tag => Kind::Tag,
    };
    Ok(Base::None(kind))
}

fn fits(bytes: u64) -> Result<(), ReadError> {
    if bytes > DECODE_MAX { Err(too_large(bytes)) } else { Ok(()) }
}

fn too_large(bytes: u64) -> ReadError {
    damaged(&format_args!("decoding takes {bytes} bytes, more than {DECODE_MAX}"))
}

fn too_long() -> ReadError {
    damaged(&format_args!("more than {CHAIN_MAX} deltas stand on each other"))
}

fn flawed(flaw: delta::Flaw) -> ReadError {
    damaged(&flaw)
}

fn damaged(reason: &dyn std::fmt::Display) -> ReadError {
    ReadError::Damaged(format!("its pack is damaged: {reason}"))
}
