//! One origin as the store sees it: asked, checked, counted. What it answers is believed only when it has the right id.

use std::{
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::FutureExt;
use tokio::{
    sync::{Semaphore, watch},
    time::Instant,
};

use super::{
    FetchStats,
    ahead::BATCHES_AHEAD,
    boundaries::{Boundaries, BoundaryError},
    flights::What,
    sizes::BATCHES_BEHIND,
};
use crate::{
    cache::Put,
    origin::{BlobSize, FetchError, Origin, TreeBody, Want},
    types::{ObjectKind, Oid, OriginName},
};

/// Bodies larger than this are hashed on a thread that may be busy: it takes more than some 100 µs.
const HASH_HERE_BYTES: usize = 32 << 10;

/// How long a fetch in the background lets users' requests go first. Longer, and a busy day would keep a walk from ending
/// before the head moves, which costs those users more.
const COURTESY: Duration = Duration::from_millis(50);

/// The largest size that a file can have on this system.
const MAX_SIZE: u64 = i64::MAX as u64;

/// An origin and its counters.
pub(super) struct Source {
    pub(super) name: OriginName,
    pub(super) origin: Arc<dyn Origin>,
    pub(super) boundaries: Arc<Boundaries>,
    /// Requests that somebody waits for.
    users: watch::Sender<usize>,
    /// Turns of batches that nobody waits for.
    pub(super) behind: Semaphore,
    /// Turns of those who read ahead.
    pub(super) ahead: Semaphore,
    fetched: AtomicU64,
    bytes: AtomicU64,
    failed: AtomicU64,
    sizes: AtomicU64,
}

impl Source {
    pub(super) fn new(name: OriginName, origin: Arc<dyn Origin>, boundaries: Boundaries) -> Source {
        let zero = || AtomicU64::new(0);
        let boundaries = Arc::new(boundaries);
        let users = watch::Sender::new(0);
        Source {
            name,
            origin,
            boundaries,
            users,
            behind: Semaphore::new(BATCHES_BEHIND),
            ahead: Semaphore::new(BATCHES_AHEAD),
            fetched: zero(),
            bytes: zero(),
            failed: zero(),
            sizes: zero(),
        }
    }

    /// The same origin, read in another way from now on. Its boundaries are in one file, which has one owner.
    pub(super) fn renewed(&self, origin: Arc<dyn Origin>) -> Source {
        let counted = |counter: &AtomicU64| AtomicU64::new(counter.load(Ordering::Relaxed));
        Source {
            name: self.name.clone(),
            origin,
            boundaries: Arc::clone(&self.boundaries),
            users: watch::Sender::new(0),
            behind: Semaphore::new(BATCHES_BEHIND),
            ahead: Semaphore::new(BATCHES_AHEAD),
            fetched: counted(&self.fetched),
            bytes: counted(&self.bytes),
            failed: counted(&self.failed),
            sizes: counted(&self.sizes),
        }
    }

    pub(super) fn stats(&self) -> FetchStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        FetchStats {
            fetched: read(&self.fetched),
            bytes: read(&self.bytes),
            failed: read(&self.failed),
            sizes: read(&self.sizes),
        }
    }

    /// Somebody waits for what is asked, until this is dropped.
    pub(super) fn user(&self) -> User {
        self.users.send_modify(|users| *users += 1);
        User(self.users.clone())
    }

    /// Waits until nobody waits for anything of this origin, but not for long.
    pub(super) async fn let_users_go_first(&self) {
        let mut users = self.users.subscribe();
        // The channel is never closed while this is borrowed; and going on when users do not end is right as well.
        let _ = tokio::time::timeout(COURTESY, users.wait_for(|users| *users == 0)).await;
    }

    /// One object, verified, as it is to be kept.
    pub(super) async fn object(
        &self,
        what: What,
        want: &Want,
        until: Option<Instant>,
    ) -> Result<Put, FetchError> {
        self.fetched.fetch_add(1, Ordering::Relaxed);
        let object = match what {
            What::Tree | What::TreeAhead => self.tree(want, until).await,
            What::Blob | What::Size | What::SizeAlone | What::SizeAhead => self.blob(want, until).await,
        };
        self.note(want, &object);
        object
    }

    fn note(&self, want: &Want, object: &Result<Put, FetchError>) {
        match object {
            Ok(Put::Tree(_, body) | Put::Blob(_, body)) => self.count_bytes(body),
            Ok(Put::Size(..)) => {}
            Err(why) => self.note_failure(want, why),
        }
    }

    async fn blob(&self, want: &Want, until: Option<Instant>) -> Result<Put, FetchError> {
        let answers = self.ask(self.origin.blobs(std::slice::from_ref(want)), until).await?;
        let body = self.only(answers)?;
        self.check_blob(want, &body).await?;
        Ok(Put::Blob(want.oid, body))
    }

    async fn tree(&self, want: &Want, until: Option<Instant>) -> Result<Put, FetchError> {
        let answers = self.ask(self.origin.trees(std::slice::from_ref(want)), until).await?;
        self.check_tree(want, self.only(answers)?).await
    }

    /// Trees that nobody has asked for yet, as they are to be kept: one result per want, nothing for those that are left to
    /// who asks.
    pub(super) async fn small_trees(&self, wants: &[Want]) -> Vec<Result<Option<Put>, FetchError>> {
        let answers = self.one_for_each(wants, self.ask(self.origin.small_trees(wants), None).await);
        let mut trees = Vec::with_capacity(wants.len());
        for (want, answer) in wants.iter().zip(answers) {
            let checked = match answer {
                Ok(None) => {
                    trees.push(Ok(None));
                    continue;
                }
                Ok(Some(tree)) => self.check_tree(want, tree).await,
                Err(why) => Err(why),
            };
            self.fetched.fetch_add(1, Ordering::Relaxed);
            self.note(want, &checked);
            trees.push(checked.map(Some));
        }
        trees
    }

    async fn check_tree(&self, want: &Want, tree: TreeBody) -> Result<Put, FetchError> {
        let TreeBody { body, boundary } = tree;
        let id = self.id_of(ObjectKind::Tree, want, &body).await?;
        let due = self.boundaries.stands_for(want.oid);
        match boundary {
            _ if id == due && boundary.is_none_or(|told| told == id) => {}
            Some(told) if told == id && id != want.oid => self.cross(want, due, id).await?,
            _ => return Err(self.otherwise(ObjectKind::Tree, want, &body, id)),
        }
        Ok(Put::Tree(id, body))
    }

    /// The wanted id stands for tree `id`: from now on for this one and no other.
    async fn cross(&self, want: &Want, due: Oid, id: Oid) -> Result<(), FetchError> {
        let moved =
            || FetchError::Moved { origin: self.name.clone(), oid: want.oid, path: want.hint.path.clone() };
        if due != want.oid {
            return Err(moved());
        }
        let (boundaries, oid) = (self.boundaries.clone(), want.oid);
        let fixed = tokio::task::spawn_blocking(move || boundaries.fix(oid, id)).await;
        match fixed.map_err(|_| self.unreachable("its request broke off".into()))? {
            Ok(()) => Ok(()),
            Err(BoundaryError::Taken) => Err(moved()),
            Err(why) => {
                tracing::warn!(scorpio_origin = %self.name.configured(), scorpio_uid = self.name.user(), oid = %oid, path = %want.hint.path, error = %why, "a boundary cannot be fixed: what lies behind it cannot be listed");
                Err(FetchError::NotStored { oid, reason: why.to_string() })
            }
        }
    }

    /// Sizes of blobs, and contents that came with them, as they are to be kept: one result per want.
    pub(super) async fn sizes(&self, wants: &[Want], until: Option<Instant>) -> Vec<Result<Put, FetchError>> {
        self.sizes.fetch_add(wants.len() as u64, Ordering::Relaxed);
        let answers = self.one_for_each(wants, self.ask(self.origin.sizes(wants), until).await);
        let mut sizes = Vec::with_capacity(wants.len());
        for (want, answer) in wants.iter().zip(answers) {
            let checked = match answer {
                Ok(size) => self.check_size(want, size).await,
                Err(why) => Err(why),
            };
            sizes.push(checked.inspect_err(|why| self.note_failure(want, why)));
        }
        sizes
    }

    async fn check_size(&self, want: &Want, told: BlobSize) -> Result<Put, FetchError> {
        let BlobSize { bytes: size, content } = told;
        // The kernel never reads a file of no bytes, so nobody would find out that it has some.
        if (size == 0) != (want.oid == Oid::EMPTY_BLOB) {
            return Err(self.mismatch(want.oid, format!("its size is not {size} bytes")));
        }
        if size > MAX_SIZE {
            return Err(self.mismatch(want.oid, format!("no file has {size} bytes")));
        }
        let Some(content) = content else { return Ok(Put::Size(want.oid, size)) };
        if content.len() as u64 != size {
            return Err(self.mismatch(want.oid, format!("its {} bytes are not {size}", content.len())));
        }
        self.check_blob(want, &content).await?;
        self.count_bytes(&content);
        Ok(Put::Blob(want.oid, content))
    }

    async fn check_blob(&self, want: &Want, body: &Bytes) -> Result<(), FetchError> {
        match self.id_of(ObjectKind::Blob, want, body).await? {
            id if id == want.oid => Ok(()),
            id => Err(self.otherwise(ObjectKind::Blob, want, body, id)),
        }
    }

    async fn id_of(&self, kind: ObjectKind, want: &Want, body: &Bytes) -> Result<Oid, FetchError> {
        let id = id_of(kind, body).await;
        id.ok_or_else(|| self.mismatch(want.oid, "it could not be hashed, or is a SHA-1 collision".into()))
    }

    fn otherwise(&self, kind: ObjectKind, want: &Want, body: &Bytes, id: Oid) -> FetchError {
        self.mismatch(want.oid, format!("its {} bytes are {kind} {id}", body.len()))
    }

    fn only<T>(&self, answers: Vec<Result<T, FetchError>>) -> Result<T, FetchError> {
        let [answer] = <[_; 1]>::try_from(answers).map_err(|answers| self.miscounted(1, answers.len()))?;
        answer
    }

    /// What an origin that gave another number of answers, or none, is taken to have said to each.
    fn one_for_each<T: Clone>(
        &self,
        wants: &[Want],
        answers: Result<Vec<Result<T, FetchError>>, FetchError>,
    ) -> Vec<Result<T, FetchError>> {
        match answers {
            Ok(answers) if answers.len() == wants.len() => answers,
            Ok(answers) => vec![Err(self.miscounted(wants.len(), answers.len())); wants.len()],
            Err(why) => vec![Err(why); wants.len()],
        }
    }

    fn count_bytes(&self, body: &Bytes) {
        self.bytes.fetch_add(body.len() as u64, Ordering::Relaxed);
    }

    /// An origin whose code panics is an origin that broke off; one that is waited for until a time did not answer in it.
    async fn ask<T>(&self, answer: impl Future<Output = T>, until: Option<Instant>) -> Result<T, FetchError> {
        let begin = Instant::now();
        let caught = AssertUnwindSafe(answer).catch_unwind();
        let caught = match until {
            None => caught.await,
            Some(until) => tokio::time::timeout_at(until, caught).await.map_err(|_| {
                // In whole seconds: the journal says the same text once in a while only.
                let after = Duration::from_secs(begin.elapsed().as_secs() + 1);
                FetchError::TimedOut { origin: self.name.clone(), after }
            })?,
        };
        caught.map_err(|_| self.unreachable("its request broke off".into()))
    }

    pub(super) fn unreachable(&self, reason: String) -> FetchError {
        FetchError::Unreachable { origin: self.name.clone(), reason }
    }

    fn miscounted(&self, asked: usize, answered: usize) -> FetchError {
        self.unreachable(format!("it gave {answered} answers to {asked} questions"))
    }

    fn mismatch(&self, oid: Oid, reason: String) -> FetchError {
        FetchError::Mismatch { origin: self.name.clone(), oid, reason }
    }

    /// The error itself goes to whoever waits; only what someone should look at is a line in the journal.
    fn note_failure(&self, want: &Want, why: &FetchError) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        if let FetchError::Mismatch { reason, .. } = why {
            tracing::warn!(scorpio_origin = %self.name.configured(), scorpio_uid = self.name.user(), oid = %want.oid, commit = %want.hint.commit, reason, "an origin answered with something else than was asked for; it is not kept");
        } else {
            tracing::debug!(scorpio_origin = %self.name, oid = %want.oid, error = %why, "an object did not come");
        }
    }
}

/// See [`Source::user`].
pub(super) struct User(watch::Sender<usize>);

impl Drop for User {
    fn drop(&mut self) {
        self.0.send_modify(|users| *users -= 1);
    }
}

async fn id_of(kind: ObjectKind, body: &Bytes) -> Option<Oid> {
    if body.len() <= HASH_HERE_BYTES {
        return Oid::of(kind, body);
    }
    let body = body.clone();
    tokio::task::spawn_blocking(move || Oid::of(kind, &body)).await.ok().flatten()
}
