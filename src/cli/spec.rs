//! `ORIGIN:PATH[@REV]` → what it may mean.
//!
//! Paths such as `node_modules/@types` exist, so the last `@` parts path and revision only if what follows it is a
//! revision; only the daemon knows. [`readings`] says what to ask it, in that order.

use std::fmt;

use crate::types::{OriginName, RepoPath};

/// One thing that can be mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// Which origin.
    pub origin: OriginName,
    /// Directory in it, without a leading slash; empty for the whole.
    pub path: String,
    /// Branch, tag or commit.
    pub rev: Option<String>,
}

/// Why a text is no [`Spec`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSpec {
    /// Nothing says which origin.
    #[error(
        "`{0}` names no origin; write ORIGIN:PATH, such as `linux:drivers/usb`, or `linux:` for the whole"
    )]
    NoColon(String),
    /// What stands before the colon is no name.
    #[error("{0}")]
    BadOrigin(String),
    /// What stands behind it is no path.
    #[error("`{path}` is no path in a repository: {reason}")]
    BadPath {
        /// As written.
        path: String,
        /// Why not.
        reason: String,
    },
    /// `--rev ''`.
    #[error("the revision is empty; leave --rev out for the origin's default")]
    EmptyRev,
}

/// The ways to read `text`, likeliest first: one, or two where a part behind the last `@` may be a revision or belong to
/// the path. With `rev` (`--rev`) every `@` is the path's.
pub fn readings(text: &str, rev: Option<&str>) -> Result<Vec<Spec>, BadSpec> {
    let (origin, rest) = text.split_once(':').ok_or_else(|| BadSpec::NoColon(text.to_owned()))?;
    let origin: OriginName = origin.parse().map_err(|error| BadSpec::BadOrigin(format!("{error}")))?;
    let spec = |path: &str, rev: Option<&str>| {
        Ok(Spec { origin: origin.clone(), path: clean(path)?, rev: rev.map(str::to_owned) })
    };
    match (rev, rest.rsplit_once('@')) {
        (Some(""), _) => Err(BadSpec::EmptyRev),
        (Some(rev), _) => Ok(vec![spec(rest, Some(rev))?]),
        (None, Some((path, rev))) if !rev.is_empty() => {
            let mut readings = vec![spec(path, Some(rev))?];
            readings.extend(spec(rest, None));
            Ok(readings)
        }
        (None, _) => Ok(vec![spec(rest, None)?]),
    }
}

fn clean(path: &str) -> Result<String, BadSpec> {
    let bad = |reason: String| BadSpec::BadPath { path: path.to_owned(), reason };
    let bytes = path.parse::<RepoPath>().map_err(|error| bad(error.to_string()))?.to_bytes();
    String::from_utf8(bytes).map_err(|error| bad(error.to_string()))
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.origin, self.path)?;
        self.rev.as_ref().map_or(Ok(()), |rev| write!(f, "@{rev}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each reading as `origin|path|rev`.
    fn read(text: &str, rev: Option<&str>) -> Result<Vec<String>, String> {
        let show =
            |spec: &Spec| format!("{}|{}|{}", spec.origin, spec.path, spec.rev.as_deref().unwrap_or("-"));
        readings(text, rev).map(|specs| specs.iter().map(show).collect()).map_err(|error| error.to_string())
    }

    #[test]
    fn the_last_at_sign_is_tried_as_a_revision_first() {
        for (text, expected) in [
            ("o:", vec!["o||-"]),
            ("o:/", vec!["o||-"]),
            ("o:/p/", vec!["o|p|-"]),
            ("o:p/q", vec!["o|p/q|-"]),
            ("o:@v1", vec!["o||v1", "o|@v1|-"]),
            ("o:p@v1", vec!["o|p|v1", "o|p@v1|-"]),
            ("o:/p@feature/x", vec!["o|p|feature/x", "o|p@feature/x|-"]),
            ("o:/p@r@s", vec!["o|p@r|s", "o|p@r@s|-"]),
            ("o:node_modules/@types", vec!["o|node_modules|types", "o|node_modules/@types|-"]),
            (
                "o:node_modules/@types/node@v2",
                vec!["o|node_modules/@types/node|v2", "o|node_modules/@types/node@v2|-"],
            ),
            ("o:p@", vec!["o|p@|-"]),
            ("o:a:b", vec!["o|a:b|-"]),
            ("o:p@HEAD~3", vec!["o|p|HEAD~3", "o|p@HEAD~3|-"]),
            // as a path it cannot be, so there is one reading
            ("o:p@a//b", vec!["o|p|a//b"]),
        ] {
            assert_eq!(read(text, None), Ok(expected.iter().map(ToString::to_string).collect()), "{text}");
        }
    }

    #[test]
    fn with_rev_every_at_sign_is_the_paths() {
        assert_eq!(read("o:node_modules/@types", Some("v1")), Ok(vec!["o|node_modules/@types|v1".into()]));
        assert_eq!(read("o:", Some("HEAD@{1}")), Ok(vec!["o||HEAD@{1}".into()]));
        assert!(read("o:", Some("")).unwrap_err().starts_with("the revision is empty"));
    }

    #[test]
    fn what_is_no_spec_is_refused_with_an_example() {
        let example =
            "names no origin; write ORIGIN:PATH, such as `linux:drivers/usb`, or `linux:` for the whole";
        for (text, expected) in [
            ("", format!("`` {example}")),
            ("a@v1", format!("`a@v1` {example}")),
            ("node_modules/@types", format!("`node_modules/@types` {example}")),
            (
                ":p",
                "`` is no origin name: 1 to 64 of a-z, 0-9, `-`, `_`, `.`, starting with a letter or digit"
                    .into(),
            ),
            ("o:a/../b", "`a/../b` is no path in a repository: a name is `.` or `..`".into()),
            ("o:a//b", "`a//b` is no path in a repository: a name is empty".into()),
            ("o:..@v1", "`..` is no path in a repository: a name is `.` or `..`".into()),
        ] {
            assert_eq!(read(text, None), Err(expected), "{text}");
        }
    }
}
