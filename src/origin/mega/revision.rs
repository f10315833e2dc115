//! [`Revision`]: what a name may mean to the server.

use crate::types::Oid;

/// Longest name that is asked for; no tag comes near it.
const NAME_MAX_BYTES: usize = 256;

/// A revision, by what the server would take it for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Revision<'a> {
    /// Its only branch.
    Head,
    /// A commit by its full id: it knows no abbreviations.
    Commit(Oid),
    /// Anything else.
    Tag(&'a str),
}

impl Revision<'_> {
    /// `None` for what can name nothing there.
    pub(super) fn parse(text: &str) -> Option<Revision<'_>> {
        if matches!(text, "HEAD" | "main" | "heads/main" | "refs/heads/main") {
            return Some(Revision::Head);
        }
        if let Ok(oid) = text.parse() {
            return Some(Revision::Commit(oid));
        }
        let name = text.strip_prefix("refs/").unwrap_or(text);
        let name = name.strip_prefix("tags/").unwrap_or(text);
        let is_name = !name.is_empty()
            && name.len() <= NAME_MAX_BYTES
            && !name.starts_with('-')
            && !name.chars().any(|letter| letter.is_control() || " ~^:?*[\\".contains(letter))
            && !name.contains("..")
            && !name.contains("@{");
        is_name.then_some(Revision::Tag(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_apart() {
        let digits = "4B825DC642cb6eb9a060e54bf8d69288fbee4904";
        for (text, revision) in [
            ("HEAD", Some(Revision::Head)),
            ("main", Some(Revision::Head)),
            ("refs/heads/main", Some(Revision::Head)),
            (digits, Some(Revision::Commit(Oid::EMPTY_TREE))),
            (&digits[..39], Some(Revision::Tag(&digits[..39]))),
            ("v1.0", Some(Revision::Tag("v1.0"))),
            ("tags/v1", Some(Revision::Tag("v1"))),
            ("refs/tags/v1", Some(Revision::Tag("v1"))),
            ("versión/1", Some(Revision::Tag("versión/1"))),
            ("", None),
            ("tags/", None),
            ("-x", None),
            ("HEAD~1", None),
            ("a..b", None),
            ("main@{0}", None),
            ("a b", None),
            ("a\nb", None),
            ("a\0", None),
        ] {
            assert_eq!(Revision::parse(text), revision, "{text:?}");
        }
        assert_eq!(Revision::parse(&"x".repeat(257)), None);
    }
}
