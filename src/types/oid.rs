//! [`Oid`]: the SHA-1 id of a git object. An id is either parsed or computed, never assumed.

use std::{
    fmt,
    io::{self, Read},
    str::FromStr,
};

use sha1_checked::{Digest, Sha1};

/// Bytes that [`Oid::of_reader`] asks for at a time: large enough that the hash is what takes the time.
const READ_CHUNK: usize = 256 << 10;

/// Id of a git object: SHA-1 over `"<kind> <len>\0"` and the body.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Oid([u8; Oid::LEN]);

/// The kinds of git object that are served or pinned.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum ObjectKind {
    /// File content or symlink target.
    Blob,
    /// Directory listing.
    Tree,
    /// A commit; read only to find its tree.
    Commit,
}

/// Why a text is no object id.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("an object id has 40 hexadecimal digits")]
pub struct BadOid;

impl Oid {
    /// Bytes in an id.
    pub const LEN: usize = 20;

    /// The tree without entries; git knows it without storing it.
    pub const EMPTY_TREE: Oid = Oid([
        0x4b, 0x82, 0x5d, 0xc6, 0x42, 0xcb, 0x6e, 0xb9, 0xa0, 0x60, 0xe5, 0x4b, 0xf8, 0xd6, 0x92, 0x88, 0xfb,
        0xee, 0x49, 0x04,
    ]);

    /// The blob without content: the only one of size 0.
    pub const EMPTY_BLOB: Oid = Oid([
        0xe6, 0x9d, 0xe2, 0x9b, 0xb2, 0xd1, 0xd6, 0x43, 0x4b, 0x8b, 0x29, 0xae, 0x77, 0x5a, 0xd8, 0xc2, 0xe4,
        0x8c, 0x53, 0x91,
    ]);

    /// An id from its raw bytes.
    pub const fn from_bytes(bytes: [u8; Oid::LEN]) -> Oid {
        Oid(bytes)
    }

    /// An id from a slice of exactly [`Oid::LEN`] bytes.
    pub fn from_slice(bytes: &[u8]) -> Option<Oid> {
        bytes.try_into().ok().map(Oid)
    }

    /// The raw bytes.
    pub const fn as_bytes(&self) -> &[u8; Oid::LEN] {
        &self.0
    }

    /// The id of `body` as an object of `kind`.
    ///
    /// `None` when the body carries a SHA-1 collision attack: such an object has no trustworthy id.
    pub fn of(kind: ObjectKind, body: &[u8]) -> Option<Oid> {
        let mut hasher = Sha1::builder().safe_hash(false).build();
        hasher.update(format!("{kind} {}\0", body.len()));
        hasher.update(body);
        let result = hasher.try_finalize();
        (!result.has_collision()).then(|| Oid((*result.hash()).into()))
    }

    /// The id of what `reader` gives, which should be `len` bytes, as an object of `kind`; in constant memory.
    ///
    /// `None` as in [`Oid::of`], and when `reader` gives more or fewer bytes.
    pub fn of_reader(kind: ObjectKind, len: u64, mut reader: impl Read) -> io::Result<Option<Oid>> {
        let mut hasher = Sha1::builder().safe_hash(false).build();
        hasher.update(format!("{kind} {len}\0"));
        let mut buffer = vec![0; READ_CHUNK];
        let mut seen = 0;
        loop {
            let count = match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(why) if why.kind() == io::ErrorKind::Interrupted => continue,
                Err(why) => return Err(why),
            };
            hasher.update(&buffer[..count]);
            seen += count as u64;
        }
        let result = hasher.try_finalize();
        Ok((seen == len && !result.has_collision()).then(|| Oid((*result.hash()).into())))
    }
}

impl fmt::Display for ObjectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ObjectKind::Blob => "blob",
            ObjectKind::Tree => "tree",
            ObjectKind::Commit => "commit",
        })
    }
}

impl fmt::Display for Oid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Oid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Oid {
    type Err = BadOid;

    fn from_str(text: &str) -> Result<Oid, BadOid> {
        let digits = text.as_bytes();
        if digits.len() != 2 * Oid::LEN {
            return Err(BadOid);
        }
        let mut bytes = [0; Oid::LEN];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = (hex_digit(pair[0])? << 4) | hex_digit(pair[1])?;
        }
        Ok(Oid(bytes))
    }
}

fn hex_digit(digit: u8) -> Result<u8, BadOid> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        b'A'..=b'F' => Ok(digit - b'A' + 10),
        _ => Err(BadOid),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_gits() {
        let empty_blob = "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391";
        assert_eq!(Oid::of(ObjectKind::Blob, b"").unwrap(), Oid::EMPTY_BLOB);
        assert_eq!(Oid::EMPTY_BLOB.to_string(), empty_blob);
        assert_eq!(Oid::of(ObjectKind::Tree, b"").unwrap(), Oid::EMPTY_TREE);
        assert_eq!(empty_blob.to_uppercase().parse::<Oid>().unwrap().to_string(), empty_blob);
    }

    #[test]
    fn a_reader_gives_the_id_of_its_bytes_and_must_have_the_length() {
        let body = vec![7; 3 * READ_CHUNK + 1];
        let len = body.len() as u64;
        let id = Oid::of(ObjectKind::Blob, &body);
        assert_eq!(Oid::of_reader(ObjectKind::Blob, len, body.as_slice()).unwrap(), id);
        for wrong in [0, len - 1, len + 1] {
            assert_eq!(Oid::of_reader(ObjectKind::Blob, wrong, body.as_slice()).unwrap(), None, "{wrong}");
        }
    }

    #[test]
    fn what_is_no_id_is_refused() {
        for text in ["", "e69d", &"g".repeat(40), &"0".repeat(41), &"é".repeat(20)] {
            assert_eq!(text.parse::<Oid>(), Err(BadOid), "{text}");
        }
    }
}
