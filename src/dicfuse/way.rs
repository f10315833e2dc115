//! Paths: where in a snapshot a directory lies, for origins that are asked by path.

use super::{Dicfuse, Need, Root, Stop};
use crate::{
    origin::{Hint, Want},
    types::{FileName, NodeId, RepoPath},
};

impl Root {
    /// Says to the origin where an object of this root was met.
    pub(super) fn hint(&self, path: RepoPath) -> Hint {
        Hint { commit: self.snapshot.commit, path }
    }
}

impl Dicfuse {
    /// The root and the path of `node` from the top of the commit's tree.
    ///
    /// Names are read from the trees above it, from the top down. Where one is no longer in the cache it is the need: all
    /// those above it are here, so its own path is known, and every fetch brings the walk one step further.
    pub(super) fn way_to(&self, node: NodeId) -> Result<(Root, RepoPath), Stop> {
        let (root, steps) = self.inner.table.way_to(node)?.ok_or(Stop::NoNode(node))?;
        let mut names: Vec<FileName> = root.snapshot.path.names().to_vec();
        for step in steps {
            let Some(tree) = self.cached_tree(&root.origin, step.dir, step.tree)? else {
                let hint = root.hint(names.into_iter().collect());
                return Err(Stop::need(Need::Tree(root.origin, Want { oid: step.tree, hint })));
            };
            let entry = tree.entries().get(step.index as usize).ok_or(Stop::NoNode(node))?;
            names.push(entry.name.clone());
        }
        Ok((root, names.into_iter().collect()))
    }
}
