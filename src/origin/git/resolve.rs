//! From a revision and a path to a directory's tree id. Every object on the way is checked against its own id.

use gix::objs::Kind;

use super::{
    error::{OpenError, ReadError},
    reader::{Reader, View},
    refs,
    revision::{Revision, Step},
};
use crate::{
    origin::{ResolveError, Snapshot},
    types::{EntryKind, ObjectKind, Oid, OriginName, RepoPath, Tree},
};

/// Tags of tags that are followed.
const TAGS_MAX: usize = 16;
/// Objects that one abbreviation may fit before it is called ambiguous unseen; four digits fit 15 of a million objects.
const CANDIDATES_MAX: usize = 1024;
/// Shortest abbreviation, as in git.
const ABBREVIATION_MIN: usize = 4;

/// Why a revision and path lead nowhere, before names are put to it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unresolved {
    Revision,
    Ambiguous,
    Path(RepoPath),
    NotADirectory(RepoPath),
    Object(Oid, ReadError),
    Repository(OpenError),
}

impl From<OpenError> for Unresolved {
    fn from(error: OpenError) -> Unresolved {
        Unresolved::Repository(error)
    }
}

impl Unresolved {
    /// As seen by who asked `origin` for `rev`.
    pub(super) fn into_resolve_error(self, origin: &OriginName, reader_uid: u32, rev: &str) -> ResolveError {
        let (origin, rev) = (origin.clone(), rev.to_owned());
        match self {
            Unresolved::Revision => ResolveError::NoSuchRevision { origin, rev },
            Unresolved::Ambiguous => ResolveError::Ambiguous { origin, rev },
            Unresolved::Path(path) => ResolveError::NoSuchPath { origin, rev, path },
            Unresolved::NotADirectory(path) => ResolveError::NotADirectory { origin, rev, path },
            Unresolved::Object(oid, error) => error.into_fetch_error(&origin, reader_uid, oid).into(),
            Unresolved::Repository(error) => error.into_fetch_error(&origin, reader_uid).into(),
        }
    }
}

/// A question under way: stops early when nobody waits for the answer.
pub(super) struct Resolution<'reader> {
    pub(super) reader: &'reader mut Reader,
    pub(super) view: View,
    pub(super) abandoned: &'reader dyn Fn() -> bool,
}

impl Resolution<'_> {
    /// The directory at `path` of the commit `rev` names.
    pub(super) fn run(mut self, rev: &str, path: &RepoPath) -> Result<Snapshot, Unresolved> {
        let revision = Revision::parse(rev).ok_or(Unresolved::Revision)?;
        let named = self.named(revision.base)?;
        let mut commit = self.peel(named)?;
        for step in revision.steps {
            commit = self.step(commit, step)?;
        }
        let top = self.commit(commit)?.tree;
        let tree = self.descend(top, path)?;
        Ok(Snapshot { commit, path: path.clone(), tree })
    }

    /// The object a name stands for: a full id, a reference, an abbreviated id, in git's order.
    fn named(&mut self, name: &str) -> Result<Oid, Unresolved> {
        if let Ok(oid) = name.parse::<Oid>() {
            return match self.reader.header(&mut self.view, oid) {
                Ok(_) => Ok(oid),
                Err(ReadError::Absent) => Err(Unresolved::Revision),
                Err(error) => Err(Unresolved::Object(oid, error)),
            };
        }
        match refs::find(&self.view.layout, name)? {
            Some(oid) => Ok(oid),
            None => self.abbreviated(name),
        }
    }

    fn abbreviated(&mut self, digits: &str) -> Result<Oid, Unresolved> {
        let is_hex = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        if !is_hex || digits.len() < ABBREVIATION_MIN || digits.len() > 2 * Oid::LEN {
            return Err(Unresolved::Revision);
        }
        let digits = digits.to_ascii_lowercase();
        let candidates = self.reader.with_prefix(&self.view, &digits, CANDIDATES_MAX).map_err(unasked)?;
        if candidates.len() > CANDIDATES_MAX {
            return Err(Unresolved::Ambiguous);
        }
        let mut found = None;
        for oid in candidates {
            let (kind, _) =
                self.reader.header(&mut self.view, oid).map_err(|error| Unresolved::Object(oid, error))?;
            if matches!(kind, Kind::Commit | Kind::Tag) && found.replace(oid).is_some() {
                return Err(Unresolved::Ambiguous);
            }
        }
        found.ok_or(Unresolved::Revision)
    }

    /// The commit behind a commit or tag.
    fn peel(&mut self, mut oid: Oid) -> Result<Oid, Unresolved> {
        for _ in 0..=TAGS_MAX {
            let (kind, body) = self.checked(oid)?;
            match kind {
                Kind::Commit => return Ok(oid),
                Kind::Tag => oid = tagged(&body).ok_or_else(|| malformed(oid, kind))?,
                Kind::Tree | Kind::Blob => return Err(Unresolved::Revision),
            }
        }
        Err(Unresolved::Object(oid, ReadError::Damaged("tags lead to one another without an end".to_owned())))
    }

    fn step(&mut self, from: Oid, step: Step) -> Result<Oid, Unresolved> {
        let nth = |parents: &[Oid], index: u32| {
            let index = usize::try_from(index).unwrap_or(usize::MAX);
            parents.get(index).copied().ok_or(Unresolved::Revision)
        };
        match step {
            Step::Parent(0) => Ok(from),
            Step::Parent(number) => nth(&self.commit(from)?.parents, number - 1),
            Step::Ancestor(steps) => (0..steps).try_fold(from, |oid, _| nth(&self.commit(oid)?.parents, 0)),
        }
    }

    fn commit(&mut self, oid: Oid) -> Result<Commit, Unresolved> {
        let (kind, body) = self.checked(oid)?;
        if kind != Kind::Commit {
            return Err(malformed(oid, kind));
        }
        Commit::parse(&body).ok_or_else(|| malformed(oid, kind))
    }

    fn descend(&mut self, mut tree: Oid, path: &RepoPath) -> Result<Oid, Unresolved> {
        let mut walked = RepoPath::root();
        for name in path.names() {
            walked = walked.join(name.clone());
            let entries = self.tree(tree)?;
            match entries.find(name.as_bytes()) {
                None => return Err(Unresolved::Path(walked)),
                Some((_, entry)) if entry.kind == EntryKind::Tree => tree = entry.oid,
                Some(_) => return Err(Unresolved::NotADirectory(walked)),
            }
        }
        Ok(tree)
    }

    fn tree(&mut self, oid: Oid) -> Result<Tree, Unresolved> {
        if oid == Oid::EMPTY_TREE {
            return Ok(Tree::default());
        }
        let (kind, body) = self.checked(oid)?;
        if kind != Kind::Tree {
            return Err(malformed(oid, kind));
        }
        Tree::parse(&body).map_err(|error| Unresolved::Object(oid, ReadError::Damaged(error.to_string())))
    }

    /// An object whose body has the id it was asked by; of a blob, only that it is one.
    fn checked(&mut self, oid: Oid) -> Result<(Kind, Vec<u8>), Unresolved> {
        if (self.abandoned)() {
            return Err(Unresolved::Repository(OpenError::Busy {
                path: self.view.layout.git_dir.clone(),
                reason: "nobody waits for the answer any more".to_owned(),
            }));
        }
        let fail = |error| Unresolved::Object(oid, error);
        // No way to a directory leads through a blob, which may be large.
        let (kind, _) = self.reader.header(&mut self.view, oid).map_err(fail)?;
        if kind == Kind::Blob {
            return Ok((kind, Vec::new()));
        }
        let (kind, body) = self.reader.object(&mut self.view, oid).map_err(fail)?;
        if id_of(kind, &body) == Some(oid) {
            return Ok((kind, body));
        }
        Err(fail(ReadError::Damaged(format!("what is stored as this {kind} has another id"))))
    }
}

fn id_of(kind: Kind, body: &[u8]) -> Option<Oid> {
    let kind = match kind {
        Kind::Blob => ObjectKind::Blob,
        Kind::Tree => ObjectKind::Tree,
        Kind::Commit => ObjectKind::Commit,
        Kind::Tag => {
            let id = gix::objs::compute_hash(gix::hash::Kind::Sha1, Kind::Tag, body).ok()?;
            return Oid::from_slice(id.as_bytes());
        }
    };
    Oid::of(kind, body)
}

/// What is needed of a commit.
#[derive(Debug, PartialEq, Eq)]
struct Commit {
    tree: Oid,
    parents: Vec<Oid>,
}

impl Commit {
    fn parse(body: &[u8]) -> Option<Commit> {
        let mut lines = body.split(|byte| *byte == b'\n');
        let tree = id_after(b"tree ", lines.next()?)?;
        let parents = lines.map_while(|line| id_after(b"parent ", line)).collect();
        Some(Commit { tree, parents })
    }
}

fn tagged(body: &[u8]) -> Option<Oid> {
    id_after(b"object ", body.split(|byte| *byte == b'\n').next()?)
}

fn id_after(keyword: &[u8], line: &[u8]) -> Option<Oid> {
    std::str::from_utf8(line.strip_prefix(keyword)?).ok()?.parse().ok()
}

fn malformed(oid: Oid, kind: Kind) -> Unresolved {
    Unresolved::Object(
        oid,
        ReadError::Damaged(format!("the {kind} stored under it is not what belongs there")),
    )
}

fn unasked(error: ReadError) -> Unresolved {
    match error {
        ReadError::Repository(error) => Unresolved::Repository(error),
        ReadError::Absent | ReadError::Damaged(_) => Unresolved::Revision,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commits_and_tags_are_read_by_their_first_lines() {
        let [a, b, c] = [b'a', b'b', b'c'].map(|digit| String::from_utf8(vec![digit; 40]).unwrap());
        let oid = |hex: &str| hex.parse::<Oid>().unwrap();
        let body = format!("tree {a}\nparent {b}\nparent {c}\nauthor x\n\nparent {a}\n");
        let parsed = Commit { tree: oid(&a), parents: vec![oid(&b), oid(&c)] };
        assert_eq!(Commit::parse(body.as_bytes()), Some(parsed));
        assert_eq!(Commit::parse(format!("parent {a}\ntree {a}\n").as_bytes()), None);
        assert_eq!(Commit::parse(b"tree abc\n"), None);
        assert_eq!(Commit::parse(b""), None);
        assert_eq!(tagged(format!("object {a}\ntype commit\n").as_bytes()), Some(oid(&a)));
        assert_eq!(tagged(b"type commit\n"), None);
    }
}
