//! From a revision and a path to a directory's tree id.
//!
//! The server tells of the top's tree only as it is at the head, so the head is looked at before and after; everything
//! below the top is named together with its commit.

use super::{api::Api, id_of, revision::Revision};
use crate::{
    origin::{FetchError, ResolveError, Snapshot},
    types::{ObjectKind, Oid, OriginName, RepoPath},
};

/// How often the head may move while the top is read. A monorepo takes some commits a second at most.
const TRIES: usize = 5;

/// How deep below the directory of imports a repository may begin.
const REPOSITORY_DEPTH_MAX: usize = 8;

/// A commit, and what was asked for.
struct Named<'a> {
    commit: Oid,
    /// Whether it is asked for as what is newest.
    is_head: bool,
    rev: &'a str,
}

impl Api {
    /// The directory at `path` of the commit that `rev` names.
    pub(super) async fn resolve(&self, rev: Option<&str>, path: &RepoPath) -> Result<Snapshot, ResolveError> {
        let rev = rev.unwrap_or("HEAD");
        let missing = || ResolveError::NoSuchRevision { origin: self.origin_name(), rev: rev.to_owned() };
        let (commit, is_head) = match Revision::parse(rev).ok_or_else(missing)? {
            Revision::Head => (self.head().await?, true),
            Revision::Commit(oid) => {
                self.commit(&oid.to_string()).await?.ok_or_else(missing)?;
                (oid, false)
            }
            Revision::Tag(name) => (self.commit(name).await?.ok_or_else(missing)?, false),
        };
        let named = Named { commit, is_head, rev };
        if path.names().is_empty() {
            return self.top(named).await;
        }
        let tree = match self.repository_at_or_above(path).await? {
            Some(repository) => self.imported(&named, &repository, path).await?,
            None => match self.directory(path, Some(commit)).await? {
                Some(tree) => tree,
                None => return Err(self.first_missing(&named, path, Some(commit)).await?),
            },
        };
        Ok(Snapshot { commit, path: path.clone(), tree })
    }

    async fn top(&self, named: Named<'_>) -> Result<Snapshot, ResolveError> {
        let (path, mut commit) = (RepoPath::root(), named.commit);
        for _ in 0..TRIES {
            let body = self.tree(&path).await?;
            let head = self.head().await?;
            if head == commit {
                // An empty answer may be a fault; the same directory listed another way tells.
                if body.is_empty() && !self.listing(&path, Some(commit)).await?.is_empty() {
                    return Err(self.transport().unreachable("it sends nothing for `/`".to_owned()).into());
                }
                let tree = id_of(ObjectKind::Tree, &body).await;
                let tree =
                    tree.ok_or_else(|| self.mismatch(commit, "its tree is a SHA-1 collision".to_owned()))?;
                return Ok(Snapshot { commit, path, tree });
            }
            if !named.is_head {
                let reason = format!(
                    "it tells the tree of `/` for its newest commit only, which is {head} and not {commit}; a directory below \
                     `/` can be had of any commit"
                );
                return Err(self.transport().unreachable(reason).into());
            }
            commit = head;
        }
        let reason = format!("its head moved {TRIES} times while `/` was read");
        Err(self.transport().unreachable(reason).into())
    }

    /// The repository of its own that `path` is in or at the top of.
    async fn repository_at_or_above(&self, path: &RepoPath) -> Result<Option<RepoPath>, FetchError> {
        if !self.is_below_imports(path) {
            return Ok(None);
        }
        let (names, first) = (path.names(), self.imports_depth() + 1);
        for depth in first..=names.len().min(self.imports_depth() + REPOSITORY_DEPTH_MAX) {
            let above = names[..depth].iter().cloned().collect();
            if self.begins_repository(&above).await? {
                return Ok(Some(above));
            }
        }
        Ok(None)
    }

    /// The tree at `path` in the repository, which is told as it is now and never otherwise.
    async fn imported(
        &self,
        named: &Named<'_>,
        repository: &RepoPath,
        path: &RepoPath,
    ) -> Result<Oid, ResolveError> {
        let body = self.tree(path).await?;
        if body.is_empty() {
            return self.empty_imported(named, path).await;
        }
        self.check_unmoved(named, repository).await?;
        let tree = id_of(ObjectKind::Tree, &body).await;
        Ok(tree.ok_or_else(|| self.mismatch(named.commit, "its tree is a SHA-1 collision".to_owned()))?)
    }

    /// An empty directory, no directory, or nothing.
    async fn empty_imported(&self, named: &Named<'_>, path: &RepoPath) -> Result<Oid, ResolveError> {
        match self.directory(path, None).await? {
            Some(tree) if tree == Oid::EMPTY_TREE => Ok(tree),
            Some(_) => Err(self.transport().unreachable(format!("it sends nothing for `{path}`")).into()),
            None => Err(self.first_missing(named, path, None).await?),
        }
    }

    /// A commit that was asked for by name must show the repository as it is now: its entry is renewed with every push.
    async fn check_unmoved(&self, named: &Named<'_>, repository: &RepoPath) -> Result<(), ResolveError> {
        if named.is_head {
            return Ok(());
        }
        let then = self.entry(repository, Some(named.commit)).await?;
        let now = self.entry(repository, None).await?;
        if then.is_some() && then == now {
            return Ok(());
        }
        Err(match then {
            Some(then) => {
                let (origin, path) = (self.origin_name(), repository.clone());
                FetchError::Moved { origin, oid: then.oid, path }.into()
            }
            None => ResolveError::NoSuchPath {
                origin: self.origin_name(),
                rev: named.rev.to_owned(),
                path: repository.clone(),
            },
        })
    }

    /// Which name on the way to `path` is not there, or is no directory.
    async fn first_missing(
        &self,
        named: &Named<'_>,
        path: &RepoPath,
        commit: Option<Oid>,
    ) -> Result<ResolveError, FetchError> {
        let (origin, rev) = (self.origin_name(), named.rev.to_owned());
        for depth in 1..=path.names().len() {
            let path: RepoPath = path.names()[..depth].iter().cloned().collect();
            match self.entry(&path, commit).await? {
                None => return Ok(ResolveError::NoSuchPath { origin, rev, path }),
                Some(entry) if !entry.is_dir => {
                    return Ok(ResolveError::NotADirectory { origin, rev, path });
                }
                Some(_) => {}
            }
        }
        let reason = format!("it lists `{path}` as a directory and does not say which");
        Ok(self.transport().unreachable(reason).into())
    }

    fn origin_name(&self) -> OriginName {
        self.transport().origin().clone()
    }
}
