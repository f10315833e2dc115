//! [`Lazy`]: an origin that is set up by the first request that finds its source there.
//!
//! A repository may be on a disk that is mounted later, or away when the daemon starts. Until it can be set up every
//! request fails with the reason, and each tries again; once it is, the origin looks after itself.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{Mutex, OnceCell};

use super::{BlobSize, FetchError, Origin, ResolveError, Snapshot, TreeBody, Want};
use crate::types::{OriginName, RepoPath};

/// Sets the origin up, or says why it cannot be now. Runs on a blocking thread.
pub type SetUp = Box<dyn Fn() -> Result<Arc<dyn Origin>, String> + Send + Sync>;

/// An origin that may not be there yet.
pub struct Lazy {
    name: OriginName,
    trees_pass: bool,
    set_up: Arc<SetUp>,
    origin: OnceCell<Arc<dyn Origin>>,
    /// One try at a time: the others wait for it, and a source that hangs takes one thread.
    trying: Mutex<()>,
    deadline: Duration,
}

impl Lazy {
    /// The origin `name` that `set_up` makes; a request waits for it no longer than `deadline`. Whether its trees pass is
    /// known beforehand: what stands on it after a restart is pinned before anybody asks it for anything.
    pub fn new(name: OriginName, deadline: Duration, trees_pass: bool, set_up: SetUp) -> Lazy {
        let set_up = Arc::new(set_up);
        Lazy { name, trees_pass, set_up, origin: OnceCell::new(), trying: Mutex::new(()), deadline }
    }

    async fn get(&self) -> Result<Arc<dyn Origin>, FetchError> {
        if let Some(origin) = self.origin.get() {
            return Ok(origin.clone());
        }
        let late = |_| FetchError::TimedOut { origin: self.name.clone(), after: self.deadline };
        tokio::time::timeout(self.deadline, self.try_now()).await.map_err(late)?
    }

    async fn try_now(&self) -> Result<Arc<dyn Origin>, FetchError> {
        let _one_at_a_time = self.trying.lock().await;
        let made = self.origin.get_or_try_init(|| async {
            let set_up = Arc::clone(&self.set_up);
            let outcome = tokio::task::spawn_blocking(move || set_up()).await;
            outcome.unwrap_or_else(|panicked| Err(panicked.to_string()))
        });
        let unreachable = |reason| FetchError::Unreachable { origin: self.name.clone(), reason };
        made.await.cloned().map_err(unreachable)
    }

    fn none<T>(wants: &[Want], error: &FetchError) -> Vec<Result<T, FetchError>> {
        wants.iter().map(|_| Err(error.clone())).collect()
    }
}

#[async_trait]
impl Origin for Lazy {
    fn name(&self) -> &OriginName {
        &self.name
    }

    async fn resolve(&self, rev: Option<&str>, path: &RepoPath) -> Result<Snapshot, ResolveError> {
        self.get().await?.resolve(rev, path).await
    }

    async fn trees(&self, wants: &[Want]) -> Vec<Result<TreeBody, FetchError>> {
        match self.get().await {
            Ok(origin) => origin.trees(wants).await,
            Err(error) => Lazy::none(wants, &error),
        }
    }

    async fn small_trees(&self, wants: &[Want]) -> Vec<Result<Option<TreeBody>, FetchError>> {
        match self.get().await {
            Ok(origin) => origin.small_trees(wants).await,
            Err(error) => Lazy::none(wants, &error),
        }
    }

    async fn blobs(&self, wants: &[Want]) -> Vec<Result<Bytes, FetchError>> {
        match self.get().await {
            Ok(origin) => origin.blobs(wants).await,
            Err(error) => Lazy::none(wants, &error),
        }
    }

    async fn sizes(&self, wants: &[Want]) -> Vec<Result<BlobSize, FetchError>> {
        match self.get().await {
            Ok(origin) => origin.sizes(wants).await,
            Err(error) => Lazy::none(wants, &error),
        }
    }

    fn sizes_are_cheap(&self) -> bool {
        self.origin.get().is_some_and(Origin::sizes_are_cheap)
    }

    fn trees_pass(&self) -> bool {
        self.trees_pass
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};

    use super::*;
    use crate::{origin::Hint, types::Oid};

    struct Empty(OriginName);

    #[async_trait]
    impl Origin for Empty {
        fn name(&self) -> &OriginName {
            &self.0
        }
        async fn resolve(&self, _: Option<&str>, _: &RepoPath) -> Result<Snapshot, ResolveError> {
            Ok(Snapshot { commit: Oid::EMPTY_TREE, path: RepoPath::root(), tree: Oid::EMPTY_TREE })
        }
        async fn trees(&self, wants: &[Want]) -> Vec<Result<TreeBody, FetchError>> {
            wants.iter().map(|_| Ok(Bytes::new().into())).collect()
        }
        async fn small_trees(&self, wants: &[Want]) -> Vec<Result<Option<TreeBody>, FetchError>> {
            wants.iter().map(|_| Ok(Some(Bytes::new().into()))).collect()
        }
        async fn blobs(&self, wants: &[Want]) -> Vec<Result<Bytes, FetchError>> {
            wants.iter().map(|_| Ok(Bytes::new())).collect()
        }
        async fn sizes(&self, wants: &[Want]) -> Vec<Result<BlobSize, FetchError>> {
            wants.iter().map(|_| Ok(0.into())).collect()
        }
        fn sizes_are_cheap(&self) -> bool {
            true
        }

        fn trees_pass(&self) -> bool {
            false
        }
    }

    #[tokio::test]
    async fn an_origin_that_comes_late_is_set_up_once() {
        let name: OriginName = "late".parse().unwrap();
        let (there, tries) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
        let set_up: SetUp = {
            let (name, there, tries) = (name.clone(), there.clone(), tries.clone());
            Box::new(move || {
                tries.fetch_add(1, SeqCst);
                if there.load(SeqCst) { Ok(Arc::new(Empty(name.clone()))) } else { Err("not yet".to_owned()) }
            })
        };
        let lazy = Lazy::new(name.clone(), Duration::from_secs(5), true, set_up);
        let hint = Hint { commit: Oid::EMPTY_TREE, path: RepoPath::root() };
        let want = [Want { oid: Oid::EMPTY_TREE, hint }];
        let unreachable = FetchError::Unreachable { origin: name, reason: "not yet".to_owned() };
        assert_eq!(lazy.trees(&want).await, [Err(unreachable.clone())]);
        assert_eq!(lazy.sizes(&want).await, [Err(unreachable)]);
        assert!(!lazy.sizes_are_cheap());
        assert!(lazy.trees_pass());
        there.store(true, SeqCst);
        assert_eq!(lazy.blobs(&want).await, [Ok(Bytes::new())]);
        assert_eq!(lazy.sizes(&want).await, [Ok(0.into())]);
        assert_eq!(lazy.small_trees(&want).await, [Ok(Some(Bytes::new().into()))]);
        assert!(lazy.resolve(None, &RepoPath::root()).await.is_ok());
        assert!(lazy.sizes_are_cheap());
        assert_eq!(tries.load(SeqCst), 3);
    }
}
