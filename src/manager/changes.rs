//! Upper + base tree → changes, path by path.
//!
//! Three trees are walked side by side: what the commit has (`base`), what of it shows through the overlay (`lower`, which
//! differs below renamed and replaced directories), and the upper. A directory that no upper touches and whose lower is
//! its base is skipped whole, so the cost grows with what changed and not with the tree.

use std::{collections::BTreeSet, io, sync::Arc};

use bytes::Bytes;

use crate::{
    manager::upper::{Redirect, UpperDir, UpperEntry},
    origin::FetchError,
    types::{EntryKind, FileName, Oid, RepoPath, Tree, TreeEntry, tree::BadTree},
};

/// Deeper than any path the kernel resolves; ends recursion on a hostile upper.
const MAX_DEPTH: usize = 2048;

/// Where base objects come from. Called once per directory on the way to a change; may wait for an origin.
pub trait Base {
    /// The tree `oid`, met at `path`.
    fn tree(&self, oid: Oid, path: &RepoPath) -> Result<Arc<Tree>, ChangesError>;
    /// The content of blob `oid`, met at `path`.
    fn blob(&self, oid: Oid, path: &RepoPath) -> Result<Bytes, ChangesError>;
}

/// One path that is not as the commit has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// From the top of the workspace.
    pub path: RepoPath,
    /// What the commit has.
    pub old: Option<Side>,
    /// What the workspace has.
    pub new: Option<New>,
}

/// A file as the commit has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Side {
    /// File, executable, symlink or gitlink.
    pub kind: EntryKind,
    /// Its id.
    pub oid: Oid,
}

/// A file as the workspace has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum New {
    /// Its content is a blob of the commit (a renamed or re-moded file).
    Lower(Side),
    /// Its content lies in the upper, at the change's path.
    Upper(EntryKind),
    /// A symlink with this target.
    Symlink(Vec<u8>),
    /// A fifo, socket or device: git cannot hold it.
    Special,
}

/// Why changes cannot be listed.
#[derive(Debug, thiserror::Error)]
pub enum ChangesError {
    /// The upper cannot be read.
    #[error("cannot read {path} in the upper: {source}")]
    Upper {
        /// Which entry.
        path: RepoPath,
        /// What the system said.
        source: io::Error,
    },
    /// An object of the commit did not come.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// A tree of the commit cannot be read.
    #[error("the tree at {path} cannot be read: {source}")]
    Tree {
        /// Where.
        path: RepoPath,
        /// What is wrong with it.
        source: BadTree,
    },
    /// Directories nested too deep.
    #[error("directories are nested too deep at {0}")]
    TooDeep(RepoPath),
    /// The cache failed.
    #[error(transparent)]
    Cache(#[from] crate::cache::CacheError),
}

/// A lower directory: its tree, and where in the lower it lies.
#[derive(Clone)]
struct Lower {
    tree: Oid,
    path: RepoPath,
}

/// Hands every change between the tree `root` and the merged view of `upper` over it to `take`, in the order of a walk.
pub fn walk(
    base: &dyn Base,
    root: Oid,
    upper: &UpperDir,
    take: &mut dyn FnMut(&Walked<'_>) -> Result<(), ChangesError>,
) -> Result<(), ChangesError> {
    let top = Lower { tree: root, path: RepoPath::root() };
    let mut walker = Walker { base, root, take };
    walker.directory(&RepoPath::root(), Some(upper), Some(&top), Some(root))
}

/// A change, with the upper directory it lies in.
pub struct Walked<'a> {
    /// What changed.
    pub change: Change,
    /// The directory that holds its new content, for [`New::Upper`].
    pub dir: Option<&'a UpperDir>,
}

struct Walker<'a> {
    base: &'a dyn Base,
    root: Oid,
    take: &'a mut dyn FnMut(&Walked<'_>) -> Result<(), ChangesError>,
}

/// What a name is in the merged view.
enum Now {
    Nothing,
    File(New),
    Directory { upper: Option<UpperDir>, lower: Option<Lower> },
}

impl Walker<'_> {
    fn directory(
        &mut self,
        path: &RepoPath,
        upper: Option<&UpperDir>,
        lower: Option<&Lower>,
        base: Option<Oid>,
    ) -> Result<(), ChangesError> {
        let unchanged = upper.is_none() && lower.map(|lower| lower.tree) == base;
        if unchanged {
            return Ok(());
        }
        if path.names().len() > MAX_DEPTH {
            return Err(ChangesError::TooDeep(path.clone()));
        }
        let lower_tree = lower.map(|lower| self.base.tree(lower.tree, &lower.path)).transpose()?;
        let base_tree = base.map(|oid| self.base.tree(oid, path)).transpose()?;
        for name in self.names(path, upper, lower_tree.as_deref(), base_tree.as_deref())? {
            let old =
                base_tree.as_deref().and_then(|tree| tree.find(name.as_bytes())).map(|(_, entry)| entry);
            let below = lower.zip(lower_tree.as_deref());
            let path = path.join(name.clone());
            let now = self.now(&path, &name, upper, below)?;
            self.compare(&path, old, now, upper)?;
        }
        Ok(())
    }

    fn names(
        &self,
        path: &RepoPath,
        upper: Option<&UpperDir>,
        lower: Option<&Tree>,
        base: Option<&Tree>,
    ) -> Result<BTreeSet<FileName>, ChangesError> {
        let mut names = BTreeSet::new();
        if let Some(upper) = upper {
            names.extend(upper.names().map_err(|source| ChangesError::Upper { path: path.clone(), source })?);
        }
        for tree in [lower, base].into_iter().flatten() {
            names.extend(tree.entries().iter().map(|entry| entry.name.clone()));
        }
        Ok(names)
    }

    /// What `name` is now: the upper's entry if there is one, else the lower's.
    fn now(
        &self,
        path: &RepoPath,
        name: &FileName,
        upper: Option<&UpperDir>,
        lower: Option<(&Lower, &Tree)>,
    ) -> Result<Now, ChangesError> {
        let in_lower =
            lower.and_then(|(dir, tree)| tree.find(name.as_bytes()).map(|(_, entry)| (dir, entry)));
        let failed = |source| ChangesError::Upper { path: path.clone(), source };
        let entry = match upper {
            Some(upper) => upper.entry(name).map_err(failed)?,
            None => None,
        };
        let Some(entry) = entry else {
            return Ok(in_lower.map_or(Now::Nothing, |(dir, entry)| from_lower(dir, entry)));
        };
        Ok(match entry {
            UpperEntry::Whiteout => Now::Nothing,
            UpperEntry::File(stat) => Now::File(New::Upper(file_kind(stat.st_mode))),
            UpperEntry::Symlink(_, target) => Now::File(New::Symlink(target)),
            UpperEntry::Special(_) => Now::File(New::Special),
            UpperEntry::Metacopy { stat, redirect } => {
                let source = self.follow(path, redirect.as_ref(), name, lower)?;
                let blob = source.filter(|(_, entry)| entry.kind.is_blob());
                let (_, entry) =
                    blob.ok_or_else(|| failed(io::Error::other("its content is not in the lower")))?;
                Now::File(New::Lower(Side { kind: file_kind(stat.st_mode), oid: entry.oid }))
            }
            UpperEntry::Directory { opaque, redirect, .. } => {
                let upper = upper.map(|upper| upper.open_dir(name)).transpose().map_err(failed)?;
                let source = if opaque { None } else { self.follow(path, redirect.as_ref(), name, lower)? };
                let lower = source.filter(|(_, entry)| entry.kind == EntryKind::Tree);
                Now::Directory { upper, lower: lower.map(|(path, entry)| Lower { tree: entry.oid, path }) }
            }
        })
    }

    /// The lower entry behind an upper one, with its path in the lower.
    fn follow(
        &self,
        at: &RepoPath,
        redirect: Option<&Redirect>,
        name: &FileName,
        lower: Option<(&Lower, &Tree)>,
    ) -> Result<Option<(RepoPath, TreeEntry)>, ChangesError> {
        let bad = |reason: &str| ChangesError::Upper {
            path: at.clone(),
            source: io::Error::other(reason.to_owned()),
        };
        let name = match redirect {
            Some(Redirect::Absolute(path)) => {
                let path = RepoPath::parse(path).map_err(|_| bad("its redirect is not a path"))?;
                return self.resolve(&path);
            }
            Some(Redirect::Sibling(sibling)) => {
                FileName::new(sibling).map_err(|_| bad("its redirect is not a name"))?
            }
            None => name.clone(),
        };
        let found = lower.and_then(|(dir, tree)| tree.find(name.as_bytes()).map(|(_, entry)| (dir, entry)));
        Ok(found.map(|(dir, entry)| (dir.path.join(name), entry.clone())))
    }

    fn resolve(&self, path: &RepoPath) -> Result<Option<(RepoPath, TreeEntry)>, ChangesError> {
        let mut tree = self.base.tree(self.root, &RepoPath::root())?;
        let mut at = RepoPath::root();
        for (depth, name) in path.names().iter().enumerate() {
            let Some((_, entry)) = tree.find(name.as_bytes()) else { return Ok(None) };
            at = at.join(name.clone());
            if depth + 1 == path.names().len() {
                return Ok(Some((at, entry.clone())));
            }
            if entry.kind != EntryKind::Tree {
                return Ok(None);
            }
            tree = self.base.tree(entry.oid, &at)?;
        }
        Ok(None)
    }

    fn compare(
        &mut self,
        path: &RepoPath,
        old: Option<&TreeEntry>,
        now: Now,
        dir: Option<&UpperDir>,
    ) -> Result<(), ChangesError> {
        let old_tree = old.filter(|entry| entry.kind == EntryKind::Tree).map(|entry| entry.oid);
        let old_file = old.filter(|entry| entry.kind != EntryKind::Tree);
        // A gitlink shows as an empty directory; one that was left alone is not a change.
        let gitlink_kept = old_file.is_some_and(|entry| entry.kind == EntryKind::Gitlink)
            && matches!(now, Now::Directory { .. });
        let old_side =
            old_file.filter(|_| !gitlink_kept).map(|entry| Side { kind: entry.kind, oid: entry.oid });
        let (new, inner) = match now {
            Now::Nothing => (None, None),
            Now::File(new) => (Some(new), None),
            Now::Directory { upper, lower } => (None, Some((upper, lower))),
        };
        let same = match (&old_side, &new) {
            (Some(old), Some(New::Lower(new))) => old == new,
            (None, None) => true,
            _ => false,
        };
        if !same {
            let change = Change { path: path.clone(), old: old_side, new };
            (self.take)(&Walked { change, dir })?;
        }
        match inner {
            Some((upper, lower)) => self.directory(path, upper.as_ref(), lower.as_ref(), old_tree),
            None if old_tree.is_some() => self.directory(path, None, None, old_tree),
            None => Ok(()),
        }
    }
}

fn from_lower(dir: &Lower, entry: &TreeEntry) -> Now {
    match entry.kind {
        EntryKind::Tree => {
            let lower = Lower { tree: entry.oid, path: dir.path.join(entry.name.clone()) };
            Now::Directory { upper: None, lower: Some(lower) }
        }
        EntryKind::Gitlink => Now::Directory { upper: None, lower: None },
        kind => Now::File(New::Lower(Side { kind, oid: entry.oid })),
    }
}

/// git knows one permission bit.
fn file_kind(mode: u32) -> EntryKind {
    if mode & 0o100 != 0 { EntryKind::Executable } else { EntryKind::Blob }
}
