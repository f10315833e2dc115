//! From a revision and a path to a directory's tree id.
//!
//! The server tells of the top's tree, and of repositories in it, only as they are at the head, so the head is looked at
//! before and after; everything else is named together with its commit.

use bytes::Bytes;

use super::{api::Api, id_of, revision::Revision};
use crate::{
    origin::{FetchError, ResolveError, Snapshot},
    types::{ObjectKind, Oid, OriginName, RepoPath, Tree},
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
        if let Some(repository) = self.repository_at_or_above(path).await? {
            return self.imported(named, &repository, path).await;
        }
        match self.directory(path, Some(commit)).await? {
            Some(tree) => Ok(Snapshot { commit, path: path.clone(), tree }),
            None => Err(self.first_missing(&named, path, Some(commit)).await?),
        }
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
                let tree = self.tree_id(&path, &body).await?;
                self.tops().remember(commit, tree);
                return Ok(Snapshot { commit, path, tree });
            }
            if !named.is_head {
                return self.old_top(commit, head);
            }
            commit = head;
        }
        Err(self.restless(&path))
    }

    /// The top of a commit that is no longer the head.
    fn old_top(&self, commit: Oid, head: Oid) -> Result<Snapshot, ResolveError> {
        if let Some(tree) = self.tops().find(commit) {
            return Ok(Snapshot { commit, path: RepoPath::root(), tree });
        }
        Err(ResolveError::PastTop { origin: self.origin_name(), commit, head })
    }

    /// The id of the tree that was sent for `path`. What is no tree must not become a mount that can never be listed.
    async fn tree_id(&self, path: &RepoPath, body: &Bytes) -> Result<Oid, FetchError> {
        let unusable = |reason: String| {
            self.transport().unreachable(format!("what it sends for `{path}` cannot be used: {reason}"))
        };
        Tree::parse(body).map_err(|error| unusable(error.to_string()))?;
        let id = id_of(ObjectKind::Tree, body).await;
        id.ok_or_else(|| unusable("it is a SHA-1 collision".to_owned()))
    }

    fn restless(&self, path: &RepoPath) -> ResolveError {
        self.transport().unreachable(format!("its head moved {TRIES} times while `{path}` was read")).into()
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
        mut named: Named<'_>,
        repository: &RepoPath,
        path: &RepoPath,
    ) -> Result<Snapshot, ResolveError> {
        for _ in 0..TRIES {
            let body = self.tree(path).await?;
            let tree = match body.is_empty() {
                true => self.empty_imported(&named, path).await?,
                false => self.tree_id(path, &body).await?,
            };
            let found = Snapshot { commit: named.commit, path: path.clone(), tree };
            if !named.is_head {
                self.check_unmoved(&named, repository).await?;
                return Ok(found);
            }
            // Each push to the repository moves the head, too.
            let head = self.head().await?;
            if head == named.commit {
                return Ok(found);
            }
            named.commit = head;
        }
        Err(self.restless(path))
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
