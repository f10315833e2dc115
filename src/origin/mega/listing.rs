//! The tree of a directory, as it was when it was mounted; or why it is not to be had.

use bytes::Bytes;

use super::{answer::Listed, api::Api, id_of, rebuild};
use crate::{
    origin::{FetchError, TreeBody, Want},
    types::{ObjectKind, Oid, RepoPath},
};

impl Api {
    /// The tree that is wanted. What comes back has the wanted id, or is the repository that the wanted id stands for.
    pub(super) async fn listed(&self, want: &Want) -> Result<TreeBody, FetchError> {
        if want.oid == Oid::EMPTY_TREE {
            return Ok(Bytes::new().into());
        }
        let path = &want.hint.path;
        let now = self.tree(path).await?;
        let id = id_of(ObjectKind::Tree, &now).await;
        if id == Some(want.oid) {
            return Ok(now.into());
        }
        if self.stands_for_repository(want).await? {
            // An empty answer may be a path that is gone, and what is taken here is taken for good.
            return match id.filter(|_| !now.is_empty()) {
                Some(id) => Ok(TreeBody { body: now, boundary: Some(id) }),
                None => Err(self.mismatch(want.oid, format!("the repository at `{path}` has no tree"))),
            };
        }
        match self.rebuilt(want, now).await? {
            Some(body) => Ok(body.into()),
            None => Err(self.why_not(want).await?),
        }
    }

    /// Whether the wanted id is that of an entry behind which a repository of its own is shown. The id of a tree in such a
    /// repository stands for nothing but itself, even at its top.
    async fn stands_for_repository(&self, want: &Want) -> Result<bool, FetchError> {
        let path = &want.hint.path;
        if !self.is_below_imports(path) {
            return Ok(false);
        }
        let entry = self.entry(path, Some(want.hint.commit)).await?;
        let is_it = entry.is_some_and(|entry| entry.is_dir && entry.oid == want.oid);
        Ok(is_it && self.begins_repository(path).await?)
    }

    /// The entry at `path`, which is not the top, as its parent lists it.
    pub(super) async fn entry(
        &self,
        path: &RepoPath,
        commit: Option<Oid>,
    ) -> Result<Option<Listed>, FetchError> {
        let Some((last, above)) = path.names().split_last() else { return Ok(None) };
        let name = String::from_utf8_lossy(last.as_bytes());
        let parent = above.iter().cloned().collect();
        let entries = self.listing(&parent, commit).await?;
        Ok(entries.into_iter().find(|entry| entry.name == name))
    }

    /// The tree at the commit that was mounted, from its names and ids there and what is at the path `now`.
    async fn rebuilt(&self, want: &Want, now: Bytes) -> Result<Option<Bytes>, FetchError> {
        let then = self.listing(&want.hint.path, Some(want.hint.commit)).await?;
        if then.is_empty() {
            return Ok(None);
        }
        let wanted = want.oid;
        let rebuilding = tokio::task::spawn_blocking(move || rebuild::rebuild(&then, &now, wanted));
        let broke_off = |error| self.transport().unreachable(format!("rebuilding broke off: {error}"));
        rebuilding.await.map_err(broke_off)
    }

    /// A tree that the server still names but does not hand out is not one that has moved on.
    async fn why_not(&self, want: &Want) -> Result<FetchError, FetchError> {
        let path = &want.hint.path;
        let is_there = if path.names().is_empty() {
            self.head().await? == want.hint.commit
        } else {
            self.directory(path, None).await? == Some(want.oid)
        };
        Ok(if is_there {
            self.mismatch(want.oid, format!("what it sends for `{path}` is not the tree that it names there"))
        } else {
            let origin = self.transport().origin().clone();
            FetchError::Moved { origin, oid: want.oid, path: path.clone() }
        })
    }
}
