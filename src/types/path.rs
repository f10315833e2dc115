//! [`RepoPath`]: a path inside a repository, always from its top.

use std::{fmt, str::FromStr};

use super::name::{BadName, FileName};

/// Zero or more checked names; the empty path is the repository's top.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct RepoPath(Vec<FileName>);

/// Why a text is no path in a repository.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadPath {
    /// A component is no file name.
    #[error("{0}")]
    Name(#[from] BadName),
    /// More than [`RepoPath::MAX_BYTES`] bytes.
    #[error("the path is longer than 4096 bytes")]
    TooLong,
}

impl RepoPath {
    /// PATH_MAX: what no system call could name is not a path.
    pub const MAX_BYTES: usize = 4096;

    /// The repository's top.
    pub fn root() -> RepoPath {
        RepoPath::default()
    }

    /// Parses `a/b/c`; one leading and any trailing slashes are taken, empty components in the middle are not.
    pub fn parse(bytes: &[u8]) -> Result<RepoPath, BadPath> {
        if bytes.len() > RepoPath::MAX_BYTES {
            return Err(BadPath::TooLong);
        }
        let inner = bytes.strip_prefix(b"/").unwrap_or(bytes);
        let end = inner.iter().rposition(|byte| *byte != b'/').map_or(0, |last| last + 1);
        if end == 0 {
            return Ok(RepoPath::root());
        }
        inner[..end]
            .split(|byte| *byte == b'/')
            .map(|name| Ok(FileName::new(name)?))
            .collect::<Result<_, _>>()
            .map(RepoPath)
    }

    /// This path with one more component.
    pub fn join(&self, name: FileName) -> RepoPath {
        RepoPath(self.0.iter().cloned().chain([name]).collect())
    }

    /// The components from the top down.
    pub fn names(&self) -> &[FileName] {
        &self.0
    }

    /// `a/b/c` without a leading slash, as git writes paths; empty for the top.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.iter().map(FileName::as_bytes).collect::<Vec<_>>().join(&b'/')
    }
}

impl FromIterator<FileName> for RepoPath {
    fn from_iter<I: IntoIterator<Item = FileName>>(names: I) -> RepoPath {
        RepoPath(names.into_iter().collect())
    }
}

impl FromStr for RepoPath {
    type Err = BadPath;

    fn from_str(text: &str) -> Result<RepoPath, BadPath> {
        RepoPath::parse(text.as_bytes())
    }
}

impl fmt::Display for RepoPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", String::from_utf8_lossy(&self.to_bytes()))
    }
}

impl fmt::Debug for RepoPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", self.to_bytes().escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_from_the_top() {
        for (text, shown) in [("", "/"), ("/", "/"), ("//", "/"), ("/a/b/", "/a/b"), ("a/b", "/a/b")] {
            assert_eq!(text.parse::<RepoPath>().unwrap().to_string(), shown, "{text:?}");
        }
    }

    #[test]
    fn a_path_cannot_leave_the_repository() {
        for (text, error) in [
            ("..", BadName::Dots),
            ("a/../b", BadName::Dots),
            ("a/./b", BadName::Dots),
            ("a//b", BadName::Empty),
            ("a\0", BadName::Nul),
        ] {
            assert_eq!(text.parse::<RepoPath>(), Err(BadPath::Name(error)), "{text:?}");
        }
        assert_eq!("x/".repeat(2049).parse::<RepoPath>(), Err(BadPath::TooLong));
    }
}
