//! One origin as the store sees it: asked, checked, counted. What it answers is believed only when it has the right id.

use std::{
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use futures_util::FutureExt;

use super::{FetchStats, flights::What};
use crate::{
    origin::{BlobSize, FetchError, Origin, Want},
    types::{ObjectKind, Oid, OriginName},
};

/// Bodies larger than this are hashed on a thread that may be busy: it takes more than some 100 µs.
const HASH_HERE_BYTES: usize = 32 << 10;

/// The largest size that a file can have on this system.
const MAX_SIZE: u64 = i64::MAX as u64;

/// An origin and its counters.
pub(super) struct Source {
    pub(super) name: OriginName,
    pub(super) origin: Arc<dyn Origin>,
    fetched: AtomicU64,
    bytes: AtomicU64,
    failed: AtomicU64,
    sizes: AtomicU64,
}

impl Source {
    pub(super) fn new(name: OriginName, origin: Arc<dyn Origin>) -> Source {
        let zero = || AtomicU64::new(0);
        Source { name, origin, fetched: zero(), bytes: zero(), failed: zero(), sizes: zero() }
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

    /// One object, verified.
    pub(super) async fn object(&self, what: What, want: &Want) -> Result<Bytes, FetchError> {
        self.fetched.fetch_add(1, Ordering::Relaxed);
        let body = self.verified(what, want).await;
        match &body {
            Ok(body) => drop(self.bytes.fetch_add(body.len() as u64, Ordering::Relaxed)),
            Err(why) => self.note_failure(want, why),
        }
        body
    }

    async fn verified(&self, what: What, want: &Want) -> Result<Bytes, FetchError> {
        let wants = std::slice::from_ref(want);
        let (kind, answers) = match what {
            What::Tree => {
                let trees = self.ask(self.origin.trees(wants)).await?;
                let bodies = trees.into_iter().map(|tree| tree.map(|tree| tree.body));
                (ObjectKind::Tree, bodies.collect())
            }
            What::Blob | What::Size | What::SizeAlone => {
                (ObjectKind::Blob, self.ask(self.origin.blobs(wants)).await?)
            }
        };
        let [body] = <[_; 1]>::try_from(answers).map_err(|answers| self.miscounted(1, answers.len()))?;
        let body = body?;
        match id_of(kind, &body).await {
            Some(id) if id == want.oid => Ok(body),
            Some(id) => Err(self.mismatch(want.oid, format!("its {} bytes are {kind} {id}", body.len()))),
            None => Err(self.mismatch(want.oid, "it could not be hashed, or is a SHA-1 collision".into())),
        }
    }

    /// Sizes of blobs, one result per want.
    pub(super) async fn sizes(&self, wants: &[Want]) -> Vec<Result<u64, FetchError>> {
        self.sizes.fetch_add(wants.len() as u64, Ordering::Relaxed);
        let answers = match self.ask(self.origin.sizes(wants)).await {
            Ok(answers) if answers.len() == wants.len() => answers,
            Ok(answers) => vec![Err(self.miscounted(wants.len(), answers.len())); wants.len()],
            Err(why) => vec![Err(why); wants.len()],
        };
        let plausible = |(want, answer): (&Want, Result<BlobSize, FetchError>)| {
            let checked = answer.and_then(|size| match size.bytes {
                // The kernel never reads a file of no bytes, so nobody would find out that it has some.
                size if (size == 0) != (want.oid == Oid::EMPTY_BLOB) => {
                    Err(self.mismatch(want.oid, format!("its size is not {size} bytes")))
                }
                size @ 0..=MAX_SIZE => Ok(size),
                size => Err(self.mismatch(want.oid, format!("no file has {size} bytes"))),
            });
            checked.inspect_err(|why| self.note_failure(want, why))
        };
        wants.iter().zip(answers).map(plausible).collect()
    }

    /// An origin whose code panics is an origin that broke off.
    async fn ask<T>(&self, answer: impl Future<Output = T>) -> Result<T, FetchError> {
        let caught = AssertUnwindSafe(answer).catch_unwind().await;
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
            tracing::warn!(scorpio_origin = %self.name, oid = %want.oid, commit = %want.hint.commit, reason, "an origin answered with something else than was asked for; it is not kept");
        } else {
            tracing::debug!(scorpio_origin = %self.name, oid = %want.oid, error = %why, "an object did not come");
        }
    }
}

async fn id_of(kind: ObjectKind, body: &Bytes) -> Option<Oid> {
    if body.len() <= HASH_HERE_BYTES {
        return Oid::of(kind, body);
    }
    let body = body.clone();
    tokio::task::spawn_blocking(move || Oid::of(kind, &body)).await.ok().flatten()
}
