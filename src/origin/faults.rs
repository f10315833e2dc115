//! [`Faulty`]: an origin that misbehaves on demand and counts what it is asked, for tests of all that stands on origins.
//!
//! Nothing constructs it by itself: whoever wants one wraps an origin in it and keeps the [`Faults`].

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;

use super::{BlobSize, FetchError, Origin, ResolveError, SMALL_TREE, Snapshot, TreeBody, Want};
use crate::types::{Oid, OriginName, RepoPath};

/// How the origin behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    /// As it is.
    #[default]
    None,
    /// Every request is refused at once: `Unreachable`.
    Refusing,
    /// No request is ever answered, not even when the fault is lifted.
    BlackHole,
    /// Every answer comes so much later.
    Slow(Duration),
    /// Bodies end half-way; sizes and revisions break off as `Unreachable`.
    Truncating,
    /// Bodies have one bit flipped, or one byte too many when empty; sizes are one too large; revisions lead where they
    /// should.
    WrongBytes,
    /// Nothing is there: `Absent`, and `NoSuchRevision`.
    Absent,
}

/// Requests and wants that reached the origin, whatever became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Calls of `resolve`.
    pub resolves: u64,
    /// Trees asked for.
    pub trees: u64,
    /// Blobs asked for.
    pub blobs: u64,
    /// Sizes asked for.
    pub sizes: u64,
    /// Calls of `trees`, `blobs` and `sizes`, each with any number of wants.
    pub batches: u64,
}

/// The switch and the counters of a [`Faulty`] origin. Cheap to clone.
#[derive(Clone, Default)]
pub struct Faults(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    fault: Fault,
    asked: Asked,
    bodies: HashMap<Oid, u64>,
}

/// An origin behind [`Faults`].
pub struct Faulty<O> {
    inner: O,
    faults: Faults,
}

impl Faults {
    /// Changes how requests that come from now on are treated.
    pub fn set(&self, fault: Fault) {
        self.state().fault = fault;
    }

    /// What was asked so far.
    pub fn asked(&self) -> Asked {
        self.state().asked
    }

    /// How often the body of this tree or blob was asked for.
    pub fn asked_for(&self, oid: Oid) -> u64 {
        self.state().bodies.get(&oid).copied().unwrap_or(0)
    }

    /// How often the body asked for most often was asked for: 1 when each was fetched once.
    pub fn most_asked(&self) -> u64 {
        self.state().bodies.values().copied().max().unwrap_or(0)
    }

    /// Starts counting at zero.
    pub fn reset(&self) {
        let mut state = self.state();
        state.asked = Asked::default();
        state.bodies.clear();
    }

    /// Counts under the lock that also reads the mode, so that a request is counted before it can be answered.
    fn count(&self, add: impl FnOnce(&mut Asked), bodies: &[Want]) -> Fault {
        let mut state = self.state();
        add(&mut state.asked);
        for want in bodies {
            *state.bodies.entry(want.oid).or_default() += 1;
        }
        state.fault
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<O: Origin> Faulty<O> {
    /// Wraps `inner`; it behaves until told otherwise.
    pub fn new(inner: O) -> (Faulty<O>, Faults) {
        let faults = Faults::default();
        (Faulty { inner, faults: faults.clone() }, faults)
    }

    fn unreachable(&self, reason: &str) -> FetchError {
        FetchError::Unreachable { origin: self.name().clone(), reason: reason.to_owned() }
    }

    /// What hinders every request alike.
    async fn hinder(&self, fault: Fault) -> Result<(), FetchError> {
        match fault {
            Fault::Refusing => Err(self.unreachable("connection refused")),
            Fault::BlackHole => std::future::pending().await,
            Fault::Slow(delay) => {
                tokio::time::sleep(delay).await;
                Ok(())
            }
            Fault::None | Fault::Truncating | Fault::WrongBytes | Fault::Absent => Ok(()),
        }
    }

    /// What hinders each want by itself.
    async fn hinder_each<T>(&self, fault: Fault, wants: &[Want]) -> Result<(), Vec<Result<T, FetchError>>> {
        let each =
            |error: &dyn Fn(Oid) -> FetchError| Err(wants.iter().map(|want| Err(error(want.oid))).collect());
        if let Err(error) = self.hinder(fault).await {
            return each(&|_| error.clone());
        }
        if fault == Fault::Absent {
            return each(&|oid| FetchError::Absent { origin: self.name().clone(), oid });
        }
        Ok(())
    }
}

#[async_trait]
impl<O: Origin> Origin for Faulty<O> {
    fn name(&self) -> &OriginName {
        self.inner.name()
    }

    async fn resolve(&self, rev: Option<&str>, path: &RepoPath) -> Result<Snapshot, ResolveError> {
        let fault = self.faults.count(|asked| asked.resolves += 1, &[]);
        self.hinder(fault).await?;
        match fault {
            Fault::Truncating => Err(self.unreachable("connection broke off").into()),
            Fault::Absent => Err(ResolveError::NoSuchRevision {
                origin: self.name().clone(),
                rev: rev.unwrap_or("HEAD").to_owned(),
            }),
            _ => self.inner.resolve(rev, path).await,
        }
    }

    async fn trees(&self, wants: &[Want]) -> Vec<Result<TreeBody, FetchError>> {
        let add = |asked: &mut Asked| {
            asked.trees += wants.len() as u64;
            asked.batches += 1;
        };
        let fault = self.faults.count(add, wants);
        match self.hinder_each(fault, wants).await {
            Err(answers) => answers,
            Ok(()) => {
                let spoiled =
                    |tree: TreeBody| TreeBody { body: spoil(fault, tree.body), boundary: tree.boundary };
                self.inner.trees(wants).await.into_iter().map(|answer| answer.map(spoiled)).collect()
            }
        }
    }

    async fn small_trees(&self, wants: &[Want]) -> Vec<Result<Option<TreeBody>, FetchError>> {
        let trees = self.trees(wants).await.into_iter();
        let small = |tree: TreeBody| Some(tree).filter(|tree| tree.body.len() as u64 <= SMALL_TREE);
        trees.map(|answer| answer.map(small)).collect()
    }

    async fn blobs(&self, wants: &[Want]) -> Vec<Result<Bytes, FetchError>> {
        let add = |asked: &mut Asked| {
            asked.blobs += wants.len() as u64;
            asked.batches += 1;
        };
        let fault = self.faults.count(add, wants);
        match self.hinder_each(fault, wants).await {
            Err(answers) => answers,
            Ok(()) => spoil_all(fault, self.inner.blobs(wants).await),
        }
    }

    async fn sizes(&self, wants: &[Want]) -> Vec<Result<BlobSize, FetchError>> {
        let add = |asked: &mut Asked| {
            asked.sizes += wants.len() as u64;
            asked.batches += 1;
        };
        let fault = self.faults.count(add, &[]);
        if let Err(answers) = self.hinder_each(fault, wants).await {
            return answers;
        }
        let sizes = self.inner.sizes(wants).await.into_iter();
        match fault {
            Fault::Truncating => sizes.map(|_| Err(self.unreachable("connection broke off"))).collect(),
            Fault::WrongBytes => sizes.map(|size| size.map(|size| BlobSize::from(size.bytes + 1))).collect(),
            _ => sizes.collect(),
        }
    }

    fn sizes_are_cheap(&self) -> bool {
        self.inner.sizes_are_cheap()
    }

    fn trees_pass(&self) -> bool {
        self.inner.trees_pass()
    }
}

fn spoil_all(fault: Fault, answers: Vec<Result<Bytes, FetchError>>) -> Vec<Result<Bytes, FetchError>> {
    answers.into_iter().map(|answer| answer.map(|body| spoil(fault, body))).collect()
}

fn spoil(fault: Fault, body: Bytes) -> Bytes {
    match fault {
        Fault::Truncating => body.slice(..body.len() / 2),
        Fault::WrongBytes if body.is_empty() => Bytes::from_static(b"\0"),
        Fault::WrongBytes => {
            let mut wrong = body.to_vec();
            wrong[0] ^= 1;
            wrong.into()
        }
        _ => body,
    }
}
