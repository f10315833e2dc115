//! [`FileName`]: one name in a directory, as the kernel would take it.

use std::{borrow::Borrow, fmt};

/// A name without `/` and NUL that is neither empty, `.` nor `..`, of at most 255 bytes; any bytes otherwise.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileName(Box<[u8]>);

/// Why bytes are no file name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    /// No bytes at all.
    #[error("a name is empty")]
    Empty,
    /// `.` or `..`.
    #[error("a name is `.` or `..`")]
    Dots,
    /// Contains `/`.
    #[error("a name contains a slash")]
    Slash,
    /// Contains NUL.
    #[error("a name contains a NUL byte")]
    Nul,
    /// More than [`FileName::MAX`] bytes.
    #[error("a name is longer than 255 bytes")]
    TooLong,
}

impl FileName {
    /// NAME_MAX: the kernel refuses longer names.
    pub const MAX: usize = 255;

    /// Checks `bytes`.
    pub fn new(bytes: &[u8]) -> Result<FileName, BadName> {
        FileName::check(bytes)?;
        Ok(FileName(bytes.into()))
    }

    /// Says whether [`FileName::new`] would take `bytes`, without a copy.
    pub fn check(bytes: &[u8]) -> Result<(), BadName> {
        match bytes {
            [] => Err(BadName::Empty),
            b"." | b".." => Err(BadName::Dots),
            _ if bytes.contains(&b'/') => Err(BadName::Slash),
            _ if bytes.contains(&0) => Err(BadName::Nul),
            _ if bytes.len() > FileName::MAX => Err(BadName::TooLong),
            _ => Ok(()),
        }
    }

    /// The name's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Borrow<[u8]> for FileName {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

impl fmt::Debug for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_are_refused() {
        let long = vec![b'x'; 256];
        let cases: [(&[u8], Option<BadName>); 10] = [
            (b"", Some(BadName::Empty)),
            (b".", Some(BadName::Dots)),
            (b"..", Some(BadName::Dots)),
            (b"a/b", Some(BadName::Slash)),
            (b"/", Some(BadName::Slash)),
            (b"a\0", Some(BadName::Nul)),
            (&long, Some(BadName::TooLong)),
            (&long[..255], None),
            (b"...", None),
            (b"\xff new\nline", None),
        ];
        for (bytes, error) in cases {
            assert_eq!(FileName::new(bytes).err(), error, "{}", bytes.escape_ascii());
        }
    }
}
