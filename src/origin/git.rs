//! [`GitOrigin`]: any local git repository, read in-process.
//!
//! - [`error`]: [`OpenError`], and how failures look from outside
//! - [`layout`]: where the parts of a repository are, and its format
//! - [`files`]: reading small files of a hostile owner
//! - [`shelf`]: packs, opened once and compared with the disk
//! - [`index`], [`pack`], [`delta`]: what is in a pack and where
//! - [`loose`]: loose objects
//! - [`reader`]: finding and reading objects in all of these
//! - [`refs`], [`revision`], [`resolve`]: from a name to a commit to a directory
//! - [`pool`], [`batch`]: the threads that do it, and how work is shared among them
//!
//! The repository is not opened once but looked at anew for each piece of work, so it may be absent when the daemon
//! starts, go away, come back, be repacked or replaced; requests fail while it is gone and succeed when it is there. It is
//! read with the rights of one user, by threads that have no other rights. Nothing in it is executed or obeyed: no hooks,
//! no includes, no replacement or grafted objects.
//!
//! No file of a repository is mapped: its owner may cut one short while it is read, and the kernel answers an access
//! behind the new end with SIGBUS, which would end the daemon and every user's mount with it. So packs are read by
//! `pread`, which fails instead, and `gix`, whose packs are mappings, gives the formats only: entry headers, inflating,
//! commits and tags. Its object store also takes an unreadable pack for an absent one and waits in a loop for a thread
//! that hangs on one, and its reference store reads whatever file stands in a name's place.

mod batch;
mod delta;
mod error;
mod files;
mod index;
mod layout;
mod loose;
mod pack;
mod pool;
mod reader;
mod refs;
mod resolve;
mod revision;
mod shelf;

use std::{path::Path, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use gix::objs::Kind;
use tokio::sync::oneshot;

pub use self::error::OpenError;
use self::{
    batch::Read,
    pool::{Job, Pool, PoolError, Shape},
    reader::{Reader, Repository},
    resolve::{Resolution, Unresolved},
};
use super::{BlobSize, FetchError, Origin, ResolveError, SMALL_TREE, Snapshot, TreeBody, Want};
use crate::{
    sys::identity::Identity,
    types::{Oid, OriginName, RepoPath},
};

/// Threads per repository: objects are local files and processor time, and a host has few origins. Twice as many
/// would let one repository on a slow disk take twice as many threads hostage.
const THREADS: usize = 4;
/// Jobs waiting in front of them; a request is at most [`THREADS`] jobs.
const QUEUE: usize = 256;

/// A git repository on this host.
pub struct GitOrigin {
    name: OriginName,
    repository: Arc<Repository>,
    reader_uid: u32,
    pool: Pool<Reader>,
}

impl GitOrigin {
    /// An origin that reads the repository at `path` with the rights of `reader`.
    ///
    /// The repository is not waited for and need not be there: [`GitOrigin::probe`] says how it is. Fails when threads
    /// cannot be had, or cannot act as `reader`.
    pub fn open(name: OriginName, path: &Path, reader: Identity) -> Result<GitOrigin, OpenError> {
        let repository = Arc::new(Repository::new(name.clone(), path));
        let shared = repository.clone();
        let reader_uid = reader.uid;
        let shape =
            Shape { name: format!("origin-{name}"), threads: THREADS, queue: QUEUE, identity: reader };
        let pool = Pool::start(&shape, move || Reader::new(shared.clone())).map_err(|error| {
            let path = path.to_owned();
            match error {
                PoolError::Spawn(error) => OpenError::Threads { path, reason: error.to_string() },
                PoolError::Identity(error) => {
                    OpenError::Reader { path, uid: reader_uid, reason: error.to_string() }
                }
            }
        })?;
        let origin = GitOrigin { name, repository, reader_uid, pool };
        // Only so that the journal says at the start what is wrong with it; nobody waits.
        let look = Call {
            asker: None::<oneshot::Sender<()>>,
            ask: |reader: &mut Reader, _: &dyn Fn() -> bool| drop(reader.view()),
        };
        origin.submit(Box::new(look))?;
        Ok(origin)
    }

    /// Whether the repository can be read now, and if not, why.
    pub async fn probe(&self) -> Result<(), OpenError> {
        self.call(|reader, _| reader.view().map(drop)).await?
    }

    /// Runs `ask` on one of the threads; the function it is given says whether the answer is still waited for.
    async fn call<T, F>(&self, ask: F) -> Result<T, OpenError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Reader, &dyn Fn() -> bool) -> T + Send + 'static,
    {
        let (asker, answer) = oneshot::channel();
        self.submit(Box::new(Call { asker: Some(asker), ask }))?;
        answer.await.map_err(|_| self.busy("it is being closed"))
    }

    /// One answer per want, in their order.
    async fn read_all<T: Send + 'static>(&self, wants: &[Want], read: Read<T>) -> Vec<Result<T, FetchError>> {
        if wants.is_empty() {
            return Vec::new();
        }
        let oids: Vec<Oid> = wants.iter().map(|want| want.oid).collect();
        match self.try_read_all(oids, read).await {
            Ok(answers) => answers
                .into_iter()
                .zip(wants)
                .map(|(answer, want)| {
                    answer.map_err(|error| error.into_fetch_error(&self.name, self.reader_uid, want.oid))
                })
                .collect(),
            Err(error) => {
                let error = error.into_fetch_error(&self.name, self.reader_uid);
                wants.iter().map(|_| Err(error.clone())).collect()
            }
        }
    }

    async fn try_read_all<T: Send + 'static>(
        &self,
        oids: Vec<Oid>,
        read: Read<T>,
    ) -> Result<batch::Answers<T>, OpenError> {
        let (tickets, answers) = batch::tickets(oids, self.pool.threads(), read);
        for (number, ticket) in tickets.into_iter().enumerate() {
            match self.submit(Box::new(ticket)) {
                // The first ticket alone answers everything, only later.
                Err(_) if number > 0 => break,
                other => other?,
            }
        }
        answers.await.map_err(|_| self.busy("it is being closed"))
    }

    fn submit(&self, job: Box<dyn Job<Reader>>) -> Result<(), OpenError> {
        self.pool.submit(job).map_err(|pool::Refused| self.busy("too many requests wait for it already"))
    }

    fn busy(&self, reason: &str) -> OpenError {
        OpenError::Busy { path: self.repository.path().to_owned(), reason: reason.to_owned() }
    }
}

#[async_trait]
impl Origin for GitOrigin {
    fn name(&self) -> &OriginName {
        &self.name
    }

    async fn resolve(&self, rev: Option<&str>, path: &RepoPath) -> Result<Snapshot, ResolveError> {
        let rev = rev.unwrap_or("HEAD").to_owned();
        let (asked_rev, asked_path) = (rev.clone(), path.clone());
        let answer = self.call(move |reader, abandoned| {
            let view = reader.view_certainly()?;
            Resolution { reader, view, abandoned }.run(&asked_rev, &asked_path)
        });
        let answer = answer.await.unwrap_or_else(|error| Err(Unresolved::Repository(error)));
        answer.map_err(|error| error.into_resolve_error(&self.name, self.reader_uid, &rev))
    }

    async fn trees(&self, wants: &[Want]) -> Vec<Result<TreeBody, FetchError>> {
        self.read_all(wants, |reader, view, oid| {
            if oid == Oid::EMPTY_TREE {
                return Ok(Bytes::new().into());
            }
            reader.body(view, oid, Kind::Tree).map(|body| Bytes::from(body).into())
        })
        .await
    }

    async fn small_trees(&self, wants: &[Want]) -> Vec<Result<Option<TreeBody>, FetchError>> {
        self.read_all(wants, |reader, view, oid| {
            if reader.header(view, oid)?.1 > SMALL_TREE {
                return Ok(None);
            }
            reader.body(view, oid, Kind::Tree).map(|body| Some(Bytes::from(body).into()))
        })
        .await
    }

    async fn blobs(&self, wants: &[Want]) -> Vec<Result<Bytes, FetchError>> {
        self.read_all(wants, |reader, view, oid| reader.body(view, oid, Kind::Blob).map(Bytes::from)).await
    }

    async fn sizes(&self, wants: &[Want]) -> Vec<Result<BlobSize, FetchError>> {
        self.read_all(wants, |reader, view, oid| reader.blob_size(view, oid).map(BlobSize::from)).await
    }

    /// Object headers are enough.
    fn sizes_are_cheap(&self) -> bool {
        true
    }

    fn trees_pass(&self) -> bool {
        false
    }
}

/// A question to one thread.
struct Call<T, F> {
    /// `None` when nobody waits and it is to be done all the same.
    asker: Option<oneshot::Sender<T>>,
    ask: F,
}

impl<T, F> Job<Reader> for Call<T, F>
where
    T: Send + 'static,
    F: FnOnce(&mut Reader, &dyn Fn() -> bool) -> T + Send + 'static,
{
    fn run(self: Box<Self>, reader: &mut Reader) -> Option<Box<dyn Job<Reader>>> {
        let Call { asker, ask } = *self;
        let abandoned = || asker.as_ref().is_some_and(oneshot::Sender::is_closed);
        let answer = ask(reader, &abandoned);
        if let Some(asker) = asker {
            // Who has gone meanwhile needs no answer.
            let _ = asker.send(answer);
        }
        None
    }

    fn is_abandoned(&self) -> bool {
        self.asker.as_ref().is_some_and(oneshot::Sender::is_closed)
    }
}
