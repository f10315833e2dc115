//! Pinning a root: fetching all trees below it while its origin still has them, so that what is mounted stays whatever
//! becomes of the origin's head.
//!
//! ```text
//!            all listed                   an origin that is away: again, after a while
//!  Walking ─────────────► Pinned
//!     │ a tree had moved on, is not there, or makes no sense: the others are listed all the same
//!     └─────────────────► Broken
//! ```
//!
//! A walk takes few of the origin's places and lets users' requests go first. It begins anew with each start of the
//! service, and passes quickly over what is cached.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::{StreamExt, stream::FuturesUnordered};

use super::{
    ObjectStore, not_stored,
    walk::{MAX_TREES, Place, TooMany, Walk},
};
use crate::{
    origin::{FetchError, Hint, Snapshot, Want},
    types::{OriginName, RepoPath, Tree},
};

/// Trees asked for at once: a fraction of what an origin is asked at once by users, and enough to hide its latency.
const AT_ONCE: usize = 4;

/// The first wait after an origin failed; each further one is twice as long, up to [`LONGEST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// An origin that is back is noticed after so long at most.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// How far it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pinned {
    /// Trees are being listed, or the origin is being waited for.
    Walking,
    /// All trees are here.
    Yes,
    /// Some trees are not to be had any more.
    Broken,
}

/// State and count of a walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pinning {
    /// How far it has come.
    pub state: Pinned,
    /// Trees listed so far.
    pub trees: u64,
}

/// A walk under way, or done. It ends when dropped.
#[derive(Debug)]
pub struct Pin {
    progress: Arc<Progress>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Progress {
    trees: AtomicU64,
    done: AtomicBool,
    broken: AtomicBool,
}

impl Pin {
    /// How far it has come.
    pub fn progress(&self) -> Pinning {
        let Progress { trees, done, broken } = &*self.progress;
        let state = match (broken.load(Ordering::Acquire), done.load(Ordering::Acquire)) {
            (true, _) => Pinned::Broken,
            (false, true) => Pinned::Yes,
            (false, false) => Pinned::Walking,
        };
        Pinning { state, trees: trees.load(Ordering::Relaxed) }
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl ObjectStore {
    /// Begins to fetch all trees of a root; `None` where the origin's trees can be had at any time.
    ///
    /// Must be called within a tokio runtime.
    pub fn pin(&self, origin: &OriginName, snapshot: &Snapshot) -> Option<Pin> {
        self.origin(origin).filter(|known| known.trees_pass())?;
        let progress = Arc::<Progress>::default();
        let walker = Walker {
            store: self.clone(),
            origin: origin.clone(),
            snapshot: snapshot.clone(),
            progress: progress.clone(),
        };
        Some(Pin { progress, task: tokio::spawn(walker.run()) })
    }
}

struct Walker {
    store: ObjectStore,
    origin: OriginName,
    snapshot: Snapshot,
    progress: Arc<Progress>,
}

/// What became of one directory.
enum Visit {
    Listed(Tree),
    Lost(Loss),
}

/// Why a directory cannot be listed, now and later.
#[derive(Debug, thiserror::Error)]
enum Loss {
    #[error(transparent)]
    Fetch(FetchError),
    #[error("its tree cannot be read: {0}")]
    Tree(crate::types::tree::BadTree),
}

impl Walker {
    async fn run(self) {
        let begin = Instant::now();
        let mut walk = Walk::new(self.snapshot.tree, self.snapshot.path.clone());
        let mut under_way = FuturesUnordered::new();
        let mut is_whole = true;
        loop {
            while under_way.len() < AT_ONCE
                && let Some(place) = walk.next()
            {
                let want = Want { oid: walk.oid(place), hint: self.hint(walk.path(place)) };
                under_way.push(self.visit(place, want));
            }
            let Some((place, visit)) = under_way.next().await else { break };
            match visit {
                Visit::Listed(tree) => {
                    self.progress.trees.fetch_add(1, Ordering::Relaxed);
                    is_whole &= self.go_on(&mut walk, place, &tree);
                }
                Visit::Lost(why) => self.note_loss(&walk.path(place), &why),
            }
        }
        if !is_whole {
            self.progress.broken.store(true, Ordering::Release);
        }
        self.progress.done.store(true, Ordering::Release);
        self.tell(begin.elapsed());
    }

    fn hint(&self, path: RepoPath) -> Hint {
        Hint { commit: self.snapshot.commit, path }
    }

    /// Takes up what is below a directory; says whether that was all of it.
    fn go_on(&self, walk: &mut Walk, place: Place, tree: &Tree) -> bool {
        match walk.listed(place, tree) {
            Ok(()) => true,
            Err(TooMany) => {
                if !self.progress.broken.swap(true, Ordering::AcqRel) {
                    tracing::warn!(scorpio_origin = %self.origin, tree = %self.snapshot.tree, path = %walk.path(place), "a root has more than {MAX_TREES} trees: the rest is not fetched beforehand, and can be listed only until it moves on the server; mount a directory of it instead");
                }
                false
            }
        }
    }

    /// Lists one directory. Waits for as long as its origin is away.
    async fn visit(&self, place: Place, want: Want) -> (Place, Visit) {
        let mut wait = FIRST_WAIT;
        loop {
            // So much of it may be cached that nothing else here ever waits.
            tokio::task::yield_now().await;
            let why = match self.list(&want).await {
                Ok(body) => {
                    let tree = Tree::parse(&body).map_err(Loss::Tree);
                    return (place, tree.map_or_else(Visit::Lost, Visit::Listed));
                }
                Err(why) if is_final(&why) => return (place, Visit::Lost(Loss::Fetch(why))),
                Err(why) => why,
            };
            tracing::debug!(scorpio_origin = %self.origin, path = %want.hint.path, error = %why, "a tree is not here yet");
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    /// The body of a tree: cached, else fetched.
    async fn list(&self, want: &Want) -> Result<Bytes, FetchError> {
        let cached = || {
            let cached = self.store.cached_tree(&self.origin, want.oid);
            cached.map_err(|why| not_stored(want.oid, &why))
        };
        if let Some(body) = cached()? {
            return Ok(body);
        }
        self.store.fetch_in_background(&self.origin, want.clone()).await?;
        let reason = || "it left the cache at once".to_owned();
        cached()?.ok_or_else(|| FetchError::NotStored { oid: want.oid, reason: reason() })
    }

    /// The first loss of a root is told, the others are no news.
    fn note_loss(&self, path: &RepoPath, why: &Loss) {
        if self.progress.broken.swap(true, Ordering::AcqRel) {
            tracing::debug!(scorpio_origin = %self.origin, path = %path, error = %why, "a tree is not to be had any more");
        } else {
            tracing::warn!(scorpio_origin = %self.origin, tree = %self.snapshot.tree, path = %path, error = %why, "a directory of a mounted root can never be listed: reading it fails with EIO. Save what was changed, unmount, and mount the present state of the origin");
        }
    }

    fn tell(&self, took: Duration) {
        let trees = self.progress.trees.load(Ordering::Relaxed);
        let is_broken = self.progress.broken.load(Ordering::Acquire);
        tracing::info!(scorpio_origin = %self.origin, tree = %self.snapshot.tree, trees, dur_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX), whole = !is_broken, "the trees of a root have been fetched");
    }
}

/// Whether another try would be in vain.
fn is_final(why: &FetchError) -> bool {
    match why {
        FetchError::Moved { .. } | FetchError::Absent { .. } | FetchError::Mismatch { .. } => true,
        FetchError::Unreachable { .. }
        | FetchError::TimedOut { .. }
        | FetchError::Denied { .. }
        | FetchError::NotStored { .. } => false,
    }
}
