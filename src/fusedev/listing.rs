//! The entries of one READDIR or READDIRPLUS answer, bounded by the room the kernel gave.

use bytes::Bytes;
use zerocopy::{FromBytes, IntoBytes};

use super::{
    FileAttr,
    abi::{Dirent, EntryOut},
    decode::MAX_ANSWER,
    encode::{Stamp, entry},
};

/// Longest name in a listing, as for every Linux file system.
const MAX_NAME: usize = 255;

/// Entries begin at multiples of this.
const ALIGN: usize = 8;

/// The entries of one READDIR or READDIRPLUS answer, bounded by the room the kernel gave.
#[derive(Clone, Debug, PartialEq)]
pub struct DirBuffer {
    room: usize,
    plus: bool,
    bytes: Vec<u8>,
}

impl DirBuffer {
    /// An empty answer with `room` bytes, with or without attributes. An answer without any entry is the end of the
    /// directory.
    pub fn new(room: u32, plus: bool) -> DirBuffer {
        let room = usize::try_from(room.min(MAX_ANSWER)).expect("a usize has 32 bits at least");
        DirBuffer { room, plus, bytes: Vec::new() }
    }

    /// Appends an entry; `false` when it does not fit any more. Without `attr` a READDIRPLUS entry is a plain name
    /// that the kernel looks up when it needs it. `kind_mode` holds the type bits; `next` is the offset behind it.
    ///
    /// A name that no directory can hold (empty, longer than 255 bytes, with `/` or NUL) is left out with an error in
    /// the log: the kernel would fail the whole listing for it.
    pub fn push(&mut self, ino: u64, next: u64, kind_mode: u32, name: &[u8], attr: Option<FileAttr>) -> bool {
        let Some(namelen) = name_length(name) else {
            tracing::error!(
                node = ino,
                length = name.len(),
                "a listing has a name that no directory can hold"
            );
            return true;
        };
        let start = self.bytes.len();
        if start + self.entry_length(name) > self.room {
            return false;
        }
        if self.plus {
            let found = attr.map_or(EntryOut::default(), |attr| entry(Some(attr), Stamp::NONE));
            self.bytes.extend_from_slice(found.as_bytes());
        }
        let dirent = Dirent { ino, off: next, namelen, kind: (kind_mode & libc::S_IFMT) >> 12 };
        self.bytes.extend_from_slice(dirent.as_bytes());
        self.bytes.extend_from_slice(name);
        self.bytes.resize(self.bytes.len().next_multiple_of(ALIGN), 0);
        true
    }

    /// Whether nothing was pushed.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Whether entries carry attributes.
    pub(crate) fn is_plus(&self) -> bool {
        self.plus
    }

    /// The bytes, with names and attributes under `stamp`.
    pub(crate) fn finish(mut self, stamp: Stamp) -> Bytes {
        if self.plus {
            put_on_all(&mut self.bytes, stamp);
        }
        self.bytes.into()
    }

    fn entry_length(&self, name: &[u8]) -> usize {
        let before = if self.plus { size_of::<EntryOut>() } else { 0 };
        (before + size_of::<Dirent>() + name.len()).next_multiple_of(ALIGN)
    }
}

fn name_length(name: &[u8]) -> Option<u32> {
    let fits =
        !name.is_empty() && name.len() <= MAX_NAME && !name.iter().any(|byte| matches!(byte, 0 | b'/'));
    fits.then(|| u32::try_from(name.len()).ok()).flatten()
}

/// Puts `stamp` on every entry that has attributes. The session knows it, who fills the buffer does not.
fn put_on_all(mut rest: &mut [u8], stamp: Stamp) {
    while let Ok((mut found, _)) = EntryOut::read_from_prefix(rest) {
        if found.nodeid != 0 {
            stamp.put_on(&mut found);
            found.write_to_prefix(rest).expect("it was read from there");
        }
        let Some(tail) = rest.get_mut(size_of::<EntryOut>()..) else { return };
        let Ok((dirent, _)) = Dirent::read_from_prefix(tail) else { return };
        let name = usize::try_from(dirent.namelen).expect("a name has 255 bytes at most");
        let length = (size_of::<Dirent>() + name).next_multiple_of(ALIGN);
        rest = tail.get_mut(length..).unwrap_or_default();
    }
}

#[cfg(test)]
#[path = "listing_tests.rs"]
mod tests;
