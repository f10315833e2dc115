//! [`Limited`]: deadlines and a bound on requests in flight, around any origin.
//!
//! Waiting for a turn counts towards the deadline: a caller is answered in time whatever the origin does. A request
//! that ran out of time is dropped; what the origin does with that is its own affair.

use std::{future::Future, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::{sync::Semaphore, time::timeout};

use super::{BlobSize, FetchError, Origin, ResolveError, Snapshot, TreeBody, Want};
use crate::types::{OriginName, RepoPath};

/// What an origin may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How long one request may take, the wait for its turn included.
    pub deadline: Duration,
    /// Requests at once.
    pub requests: usize,
}

/// An origin kept within [`Limits`].
pub struct Limited<O> {
    inner: O,
    deadline: Duration,
    turns: Semaphore,
}

impl<O: Origin> Limited<O> {
    /// Puts limits on `inner`.
    pub fn new(inner: O, limits: Limits) -> Limited<O> {
        let requests = limits.requests.clamp(1, Semaphore::MAX_PERMITS);
        Limited { inner, deadline: limits.deadline, turns: Semaphore::new(requests) }
    }

    async fn within<T>(&self, request: impl Future<Output = T>) -> Result<T, FetchError> {
        let turn = async {
            let _turn = self.turns.acquire().await.expect("the semaphore is never closed");
            request.await
        };
        let late = |_| FetchError::TimedOut { origin: self.inner.name().clone(), after: self.deadline };
        timeout(self.deadline, turn).await.map_err(late)
    }

    async fn all_within<T>(
        &self,
        wants: &[Want],
        request: impl Future<Output = Vec<Result<T, FetchError>>>,
    ) -> Vec<Result<T, FetchError>> {
        match self.within(request).await {
            Ok(answers) => answers,
            Err(error) => wants.iter().map(|_| Err(error.clone())).collect(),
        }
    }
}

#[async_trait]
impl<O: Origin> Origin for Limited<O> {
    fn name(&self) -> &OriginName {
        self.inner.name()
    }

    async fn resolve(&self, rev: Option<&str>, path: &RepoPath) -> Result<Snapshot, ResolveError> {
        self.within(self.inner.resolve(rev, path)).await?
    }

    async fn trees(&self, wants: &[Want]) -> Vec<Result<TreeBody, FetchError>> {
        self.all_within(wants, self.inner.trees(wants)).await
    }

    async fn small_trees(&self, wants: &[Want]) -> Vec<Result<Option<TreeBody>, FetchError>> {
        self.all_within(wants, self.inner.small_trees(wants)).await
    }

    async fn blobs(&self, wants: &[Want]) -> Vec<Result<Bytes, FetchError>> {
        self.all_within(wants, self.inner.blobs(wants)).await
    }

    async fn sizes(&self, wants: &[Want]) -> Vec<Result<BlobSize, FetchError>> {
        self.all_within(wants, self.inner.sizes(wants)).await
    }

    fn sizes_are_cheap(&self) -> bool {
        self.inner.sizes_are_cheap()
    }

    fn trees_pass(&self) -> bool {
        self.inner.trees_pass()
    }
}
