//! Where history lives: the trait every origin implements, and what can go wrong in reaching one.
//!
//! - [`open`]: an origin as the configuration describes it
//! - [`git`]: any local git repository
//! - [`mega`]: a Mega server
//! - [`account`]: whose rights a repository is read with
//! - [`lazy`]: an origin set up by the first request that finds its source there
//! - [`limits`]: a decorator with deadlines and a bound on requests in flight
//! - [`faults`]: a decorator that misbehaves on demand, for tests
//!
//! An origin hands out bytes; it is never believed. [`crate::store`] checks every answer against its id.

pub mod account;
pub mod faults;
pub mod git;
pub mod lazy;
pub mod limits;
pub mod mega;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;

pub use self::{
    account::{account_reader, default_reader},
    limits::Limits,
};
use self::{
    git::GitOrigin,
    limits::Limited,
    mega::{CredentialSource, FileCredential, MegaOptions, MegaOrigin},
};
use crate::{
    config::{MegaServer, OriginKind},
    sys::identity::Identity,
    types::{Oid, OriginName, RepoPath},
};

/// One object that is wanted, and where it was met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Want {
    /// The object's id; what comes back must have it.
    pub oid: Oid,
    /// Where the id was found: origins that address by path need it, the others ignore it.
    pub hint: Hint,
}

/// A place in a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hint {
    /// The commit whose tree was mounted.
    pub commit: Oid,
    /// Path of the object from the top of that commit's tree.
    pub path: RepoPath,
}

/// A directory of an origin at one commit: what a mount stands on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The commit the revision led to.
    pub commit: Oid,
    /// The path that was asked for, from the top of the commit's tree.
    pub path: RepoPath,
    /// Id of the tree at that path.
    pub tree: Oid,
}

/// A tree as an origin has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeBody {
    /// The raw body.
    pub body: Bytes,
    /// Set where the wanted id only stands for a tree, and says nothing of what is in it: this tree's own id. Such a
    /// boundary lies between a monorepo's tree and a repository that is shown in it.
    pub boundary: Option<Oid>,
}

/// The size of a blob, and what came with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobSize {
    /// Bytes of content.
    pub bytes: u64,
    /// The content, where the origin had to send it to tell the size.
    pub content: Option<Bytes>,
}

impl From<Bytes> for TreeBody {
    fn from(body: Bytes) -> TreeBody {
        TreeBody { body, boundary: None }
    }
}

impl From<u64> for BlobSize {
    fn from(bytes: u64) -> BlobSize {
        BlobSize { bytes, content: None }
    }
}

/// Why a revision and path lead to no directory. Messages name an origin as the configuration does, also where it is one
/// user's view of it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ResolveError {
    /// No commit has this name here.
    #[error("origin `{}` has no revision `{rev}`", origin.configured())]
    NoSuchRevision {
        /// Which origin was asked.
        origin: OriginName,
        /// What was asked for.
        rev: String,
    },
    /// A commit whose `/` cannot be had any more: the server tells of its newest commit's alone, and this one was not asked
    /// for while it was that.
    #[error(
        "origin `{origin}` tells of `/` at its newest commit only, which is {head}: what it was at {commit} is not known here"
    )]
    PastTop {
        /// Which origin was asked.
        origin: OriginName,
        /// What was asked for.
        commit: Oid,
        /// The newest commit.
        head: Oid,
    },
    /// An abbreviation that fits several commits.
    #[error("revision `{rev}` is ambiguous in origin `{}`", origin.configured())]
    Ambiguous {
        /// Which origin was asked.
        origin: OriginName,
        /// What was asked for.
        rev: String,
    },
    /// The commit has nothing at the path.
    #[error("there is no `{path}` at revision `{rev}` of origin `{}`", origin.configured())]
    NoSuchPath {
        /// Which origin was asked.
        origin: OriginName,
        /// What was asked for.
        rev: String,
        /// The path, from the top.
        path: RepoPath,
    },
    /// The path is a file, symlink or gitlink.
    #[error("`{path}` at revision `{rev}` of origin `{}` is not a directory", origin.configured())]
    NotADirectory {
        /// Which origin was asked.
        origin: OriginName,
        /// What was asked for.
        rev: String,
        /// The path, from the top.
        path: RepoPath,
    },
    /// The origin could not be asked.
    #[error(transparent)]
    Fetch(#[from] FetchError),
}

/// Why an object did not come. None of these is ever kept as an answer. Origins are named as in [`ResolveError`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// The origin answered that it has no such object.
    #[error("origin `{}` does not have object {oid}", origin.configured())]
    Absent {
        /// Which origin was asked.
        origin: OriginName,
        /// The object.
        oid: Oid,
    },
    /// The origin could not be reached or broke off.
    #[error("origin `{}` cannot be reached: {reason}", origin.configured())]
    Unreachable {
        /// Which origin was asked.
        origin: OriginName,
        /// What was tried and what came of it.
        reason: String,
    },
    /// The origin did not answer within the time given to it.
    #[error("origin `{}` did not answer within {}", origin.configured(), humantime::format_duration(*after))]
    TimedOut {
        /// Which origin was asked.
        origin: OriginName,
        /// How long was waited.
        after: Duration,
    },
    /// The answer does not have the id that was asked for, or cannot be what was asked for.
    #[error("origin `{}` answered for object {oid} with something else: {reason}", origin.configured())]
    Mismatch {
        /// Which origin was asked.
        origin: OriginName,
        /// The object that was asked for.
        oid: Oid,
        /// What is wrong with the answer.
        reason: String,
    },
    /// What the path leads to has changed on the server, which tells only of what is there now.
    #[error(
        "`{path}` has moved on at origin `{}` since it was mounted, and was never listed before: tree {oid} is not to be had any more",
        origin.configured()
    )]
    Moved {
        /// Which origin was asked.
        origin: OriginName,
        /// The tree that was wanted.
        oid: Oid,
        /// Where it was.
        path: RepoPath,
    },
    /// The origin refuses the credentials it was read with.
    #[error("origin `{}` refuses access: {reason}", origin.configured())]
    Denied {
        /// Which origin was asked.
        origin: OriginName,
        /// Whose rights or which credential.
        reason: String,
    },
    /// What came could not be kept in the cache.
    #[error("object {oid} could not be stored: {reason}")]
    NotStored {
        /// The object.
        oid: Oid,
        /// What the cache said.
        reason: String,
    },
}

/// Bytes of the largest tree that is fetched before it is asked for: some two thousand entries.
pub const SMALL_TREE: u64 = 64 << 10;

/// A source of snapshots, trees and blobs.
///
/// Called by [`crate::store`] on a miss, from async tasks, concurrently; no lock is held meanwhile. Implementations
/// must not block the calling thread. Batches come with up to some thousand wants and answer in the order asked,
/// one result per want: one failure does not spoil the rest. Answers are raw object bodies, not yet verified.
#[async_trait]
pub trait Origin: Send + Sync + 'static {
    /// Its name in the configuration.
    fn name(&self) -> &OriginName;

    /// Finds the directory that `rev` (a branch, tag or commit; the origin's default when `None`) and `path` name.
    async fn resolve(&self, rev: Option<&str>, path: &RepoPath) -> Result<Snapshot, ResolveError>;

    /// Bodies of tree objects, as the origin has them.
    async fn trees(&self, wants: &[Want]) -> Vec<Result<TreeBody, FetchError>>;

    /// Bodies of trees that nobody has asked for yet: of those with at most [`SMALL_TREE`] bytes, because many of them are in
    /// memory together, and `None` for the others. An origin that is not worth asking beforehand has no small trees.
    async fn small_trees(&self, wants: &[Want]) -> Vec<Result<Option<TreeBody>, FetchError>> {
        wants.iter().map(|_| Ok(None)).collect()
    }

    /// Contents of blobs.
    async fn blobs(&self, wants: &[Want]) -> Vec<Result<Bytes, FetchError>>;

    /// Sizes of blobs, as cheaply as the origin can tell them; with the content where that is what it takes.
    async fn sizes(&self, wants: &[Want]) -> Vec<Result<BlobSize, FetchError>>;

    /// Whether [`Origin::sizes`] costs little enough to be asked whenever a directory is listed with attributes.
    fn sizes_are_cheap(&self) -> bool;

    /// Whether trees can be had only as long as they are at the head: then all trees of a mount are to be fetched soon.
    fn trees_pass(&self) -> bool;
}

#[async_trait]
impl<O: Origin + ?Sized> Origin for Arc<O> {
    fn name(&self) -> &OriginName {
        (**self).name()
    }

    async fn resolve(&self, rev: Option<&str>, path: &RepoPath) -> Result<Snapshot, ResolveError> {
        (**self).resolve(rev, path).await
    }

    async fn trees(&self, wants: &[Want]) -> Vec<Result<TreeBody, FetchError>> {
        (**self).trees(wants).await
    }

    async fn small_trees(&self, wants: &[Want]) -> Vec<Result<Option<TreeBody>, FetchError>> {
        (**self).small_trees(wants).await
    }

    async fn blobs(&self, wants: &[Want]) -> Vec<Result<Bytes, FetchError>> {
        (**self).blobs(wants).await
    }

    async fn sizes(&self, wants: &[Want]) -> Vec<Result<BlobSize, FetchError>> {
        (**self).sizes(wants).await
    }

    fn sizes_are_cheap(&self) -> bool {
        (**self).sizes_are_cheap()
    }

    fn trees_pass(&self) -> bool {
        (**self).trees_pass()
    }
}

/// Why an origin cannot exist, however its source may be doing. A source that is merely away is no such reason.
#[derive(Clone, Debug, thiserror::Error)]
#[error("origin `{}` cannot be set up: {reason}", origin.configured())]
pub struct OpenError {
    /// Which origin.
    pub origin: OriginName,
    /// What hinders it.
    pub reason: OpenReason,
}

/// What hinders an origin from being set up, by its kind.
#[derive(Clone, Debug, thiserror::Error)]
pub enum OpenReason {
    /// A repository on this host.
    #[error(transparent)]
    Git(#[from] git::OpenError),
    /// A Mega server.
    #[error(transparent)]
    Mega(#[from] mega::OpenError),
}

/// The origin that `kind` describes, kept within `limits`; a repository on this host is read with the rights of `reader`.
///
/// Returns at once. Whether its source is there shows with the first request, and in the journal.
pub fn open(
    name: &OriginName,
    kind: &OriginKind,
    reader: Identity,
    limits: Limits,
) -> Result<Arc<dyn Origin>, OpenError> {
    let fail = |reason| OpenError { origin: name.clone(), reason };
    match kind {
        OriginKind::Git { path, .. } => {
            let origin = GitOrigin::open(name.clone(), path, reader).map_err(|error| fail(error.into()))?;
            Ok(Arc::new(Limited::new(origin, limits)))
        }
        OriginKind::Mega(server) => {
            let origin = MegaOrigin::new(name.clone(), mega_options(server, limits));
            Ok(Arc::new(Limited::new(origin.map_err(|error| fail(error.into()))?, limits)))
        }
    }
}

/// A server as it is configured, asked with the service's own credential.
pub fn mega_options(server: &MegaServer, limits: Limits) -> MegaOptions {
    let credential = server.credential.as_ref().map(|credential| {
        let file = FileCredential::new(&credential.name, credential.path.clone());
        Arc::new(file) as Arc<dyn CredentialSource>
    });
    MegaOptions {
        url: server.url.clone(),
        credential,
        ca_file: server.ca_file.clone(),
        proxy: server.proxy.clone(),
        imports: server.imports.clone(),
        small_blob_bytes: server.small_blob_bytes,
        requests: limits.requests,
        patience: limits.deadline,
    }
}
