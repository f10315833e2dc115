//! [`Tree`]: the entries of a git tree object, in the order the origin has them.
//!
//! Entries come in any order (servers exist that do not sort as git does), so nothing here searches by bisection
//! and nothing re-encodes a tree: an id is always that of the raw bytes. What a directory must not hold (`.`,
//! `..`, `/`, NUL, an empty or doubled name, an unknown mode) is refused as a whole.

use std::collections::HashMap;

use super::{
    name::{BadName, FileName},
    oid::Oid,
};

/// What an entry of a tree is, from its git mode.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum EntryKind {
    /// `040000`: a directory.
    Tree,
    /// `100644`, and git's historic `100664`: a regular file.
    Blob,
    /// `100755`: an executable file.
    Executable,
    /// `120000`: a symlink.
    Symlink,
    /// `160000`: a commit of another repository, shown as an empty directory.
    Gitlink,
}

/// One entry of a tree.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TreeEntry {
    /// Its name, unique in the tree.
    pub name: FileName,
    /// What it is.
    pub kind: EntryKind,
    /// Id of the blob, tree or (for a gitlink) foreign commit.
    pub oid: Oid,
}

/// A parsed tree object. An entry's index is its position in the raw bytes, and so a stable address.
#[derive(Debug, Default)]
pub struct Tree {
    entries: Vec<TreeEntry>,
    by_name: HashMap<FileName, u32>,
}

/// Why bytes are no tree that can be served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadTree {
    /// Cut off or without the separators a tree has.
    #[error("the tree is malformed at byte {at}")]
    Malformed {
        /// Offset of the entry that could not be read.
        at: usize,
    },
    /// A mode that git does not write.
    #[error("entry `{name}` has the unknown mode {mode}")]
    Mode {
        /// Whose mode.
        name: String,
        /// The mode as it stands in the tree, escaped.
        mode: String,
    },
    /// A name no directory can hold.
    #[error("entry `{name}` cannot be served: {reason}")]
    Name {
        /// The name, escaped.
        name: String,
        /// What is wrong with it.
        reason: BadName,
    },
    /// `.git`, which git itself keeps out of trees: a repository's configuration, brought along by its content, would be
    /// obeyed by whoever runs git there.
    #[error("the tree holds `.git`, which no tree may bring along")]
    DotGit,
    /// One name twice.
    #[error("entry `{name}` stands twice in the tree")]
    Twice {
        /// The name, escaped.
        name: String,
    },
}

impl EntryKind {
    /// The kind that a git mode means.
    pub fn from_git_mode(mode: &[u8]) -> Option<EntryKind> {
        match mode {
            b"40000" | b"040000" => Some(EntryKind::Tree),
            b"100644" | b"100664" => Some(EntryKind::Blob),
            b"100755" => Some(EntryKind::Executable),
            b"120000" => Some(EntryKind::Symlink),
            b"160000" => Some(EntryKind::Gitlink),
            _ => None,
        }
    }

    /// The mode git writes for this kind.
    pub fn git_mode(self) -> u32 {
        match self {
            EntryKind::Tree => 0o040000,
            EntryKind::Blob => 0o100644,
            EntryKind::Executable => 0o100755,
            EntryKind::Symlink => 0o120000,
            EntryKind::Gitlink => 0o160000,
        }
    }

    /// Type and permission bits as `stat` shows them; setuid, setgid and sticky never.
    pub fn unix_mode(self) -> u32 {
        match self {
            EntryKind::Tree | EntryKind::Gitlink => 0o040755,
            EntryKind::Blob => 0o100644,
            EntryKind::Executable => 0o100755,
            EntryKind::Symlink => 0o120777,
        }
    }

    /// Shown as a directory (gitlinks are empty ones).
    pub fn is_dir(self) -> bool {
        matches!(self, EntryKind::Tree | EntryKind::Gitlink)
    }

    /// Has content behind its id: a file or a symlink.
    pub fn is_blob(self) -> bool {
        matches!(self, EntryKind::Blob | EntryKind::Executable | EntryKind::Symlink)
    }
}

impl Tree {
    /// Parses the body of a tree object, checking every entry.
    pub fn parse(raw: &[u8]) -> Result<Tree, BadTree> {
        let mut tree = Tree::default();
        let mut rest = raw;
        while !rest.is_empty() {
            let at = raw.len() - rest.len();
            let (entry, after) = parse_entry(rest, at)?;
            let index = u32::try_from(tree.entries.len()).map_err(|_| BadTree::Malformed { at })?;
            if tree.by_name.insert(entry.name.clone(), index).is_some() {
                return Err(BadTree::Twice { name: entry.name.to_string() });
            }
            tree.entries.push(entry);
            rest = after;
        }
        Ok(tree)
    }

    /// All entries, in the tree's own order.
    pub fn entries(&self) -> &[TreeEntry] {
        &self.entries
    }

    /// Index and entry of `name`.
    pub fn find(&self, name: &[u8]) -> Option<(u32, &TreeEntry)> {
        let index = *self.by_name.get(name)?;
        Some((index, &self.entries[index as usize]))
    }

    /// Entries in the tree.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether the directory is empty.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

fn parse_entry(bytes: &[u8], at: usize) -> Result<(TreeEntry, &[u8]), BadTree> {
    let malformed = || BadTree::Malformed { at };
    let space = bytes.iter().take(8).position(|byte| *byte == b' ').ok_or_else(malformed)?;
    let (mode, rest) = (&bytes[..space], &bytes[space + 1..]);
    let nul = rest.iter().position(|byte| *byte == 0).ok_or_else(malformed)?;
    let (name, rest) = (&rest[..nul], &rest[nul + 1..]);
    let (id, rest) = rest.split_at_checked(Oid::LEN).ok_or_else(malformed)?;
    let shown = || name.escape_ascii().to_string();
    let kind = EntryKind::from_git_mode(mode)
        .ok_or_else(|| BadTree::Mode { name: shown(), mode: mode.escape_ascii().to_string() })?;
    let name = FileName::new(name).map_err(|reason| BadTree::Name { name: shown(), reason })?;
    if name.as_bytes().eq_ignore_ascii_case(b".git") {
        return Err(BadTree::DotGit);
    }
    let oid = Oid::from_slice(id).ok_or_else(malformed)?;
    Ok((TreeEntry { name, kind, oid }, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(entries: &[(&str, &[u8])]) -> Vec<u8> {
        let entry = |(mode, name): &(&str, &[u8])| [mode.as_bytes(), b" ", name, b"\0", &[7; 20]].concat();
        entries.iter().flat_map(entry).collect()
    }

    #[test]
    fn entries_keep_the_origins_order() {
        let tree = Tree::parse(&raw(&[("100755", b"z"), ("40000", b"a"), ("120000", b"\xff\n")])).unwrap();
        let kinds: Vec<_> = tree.entries().iter().map(|entry| entry.kind).collect();
        assert_eq!(kinds, [EntryKind::Executable, EntryKind::Tree, EntryKind::Symlink]);
        assert_eq!(tree.find(b"a").unwrap().0, 1);
        assert!(tree.find(b"b").is_none());
        assert!(Tree::parse(b"").unwrap().is_empty());
    }

    #[test]
    fn hostile_trees_are_refused_with_the_reason() {
        let cases: [(Vec<u8>, &str); 12] = [
            (raw(&[("40000", b".git")]), "the tree holds `.git`, which no tree may bring along"),
            (raw(&[("100644", b".GIT")]), "the tree holds `.git`, which no tree may bring along"),
            (raw(&[("40000", b"..")]), "entry `..` cannot be served: a name is `.` or `..`"),
            (raw(&[("40000", b".")]), "entry `.` cannot be served: a name is `.` or `..`"),
            (raw(&[("100644", b"a/b")]), "entry `a/b` cannot be served: a name contains a slash"),
            (raw(&[("100644", b"")]), "entry `` cannot be served: a name is empty"),
            (raw(&[("100644", b"a"), ("40000", b"a")]), "entry `a` stands twice in the tree"),
            (raw(&[("104755", b"su")]), "entry `su` has the unknown mode 104755"),
            (raw(&[("0", b"x")]), "entry `x` has the unknown mode 0"),
            (raw(&[("100644", b"a")])[..20].to_vec(), "the tree is malformed at byte 0"),
            (b"100644".to_vec(), "the tree is malformed at byte 0"),
            (
                [raw(&[("100644", b"a")]), b"junkjunkjunk".to_vec()].concat(),
                "the tree is malformed at byte 29",
            ),
        ];
        for (bytes, error) in cases {
            assert_eq!(Tree::parse(&bytes).unwrap_err().to_string(), error);
        }
    }
}
