//! [`MegaOrigin`]: a Mega server, read over its HTTP API.
//!
//! - [`options`]: [`MegaOptions`], and why there is no such origin
//! - [`credential`]: [`CredentialSource`], the secret a server is asked with
//! - [`address`]: the addresses of the API's endpoints
//! - [`retry`]: what is asked again, and when
//! - [`client`], [`transport`]: the HTTP client; one question, asked until it is answered or time is up
//! - [`answer`]: what comes back, as text → as it is meant
//! - [`api`]: the questions
//! - [`revision`], [`resolve`]: from a name and a path to a directory
//! - [`listing`], [`rebuild`]: the tree of a directory, and that of a directory which has moved on
//!
//! The server names trees by path, as they are at its head; what a path was at a commit it tells without modes and in
//! another order. So a tree is taken when its bytes have the wanted id, and rebuilt from both when they have not. A
//! repository that is shown in the monorepo's tree is not hashed into it: its entry's id stands for whatever is there,
//! and no commit of the monorepo says what that was.

mod address;
mod answer;
mod api;
mod client;
mod credential;
mod listing;
mod options;
mod rebuild;
mod resolve;
mod retry;
mod revision;
mod transport;

use std::{collections::HashMap, future::Future, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};

use self::{api::Api, transport::Transport};
pub use self::{
    credential::{CredentialError, CredentialSource, FileCredential, Secret},
    options::{MegaOptions, OpenError},
};
use super::{BlobSize, FetchError, Origin, ResolveError, Snapshot, TreeBody, Want};
use crate::types::{ObjectKind, Oid, OriginName, RepoPath};

/// Bodies larger than this are hashed on a thread that may be busy: it takes more than some 100 µs.
const HASH_HERE_BYTES: usize = 32 << 10;

/// A Mega server.
pub struct MegaOrigin {
    api: Arc<Api>,
    /// Requests that one batch may have under way: half of all, so that a single file never waits for a whole directory.
    share: usize,
}

impl MegaOrigin {
    /// The server that `options` describe. Asks it nothing yet; fails when the certificates cannot be read or an address
    /// is none.
    pub fn new(name: OriginName, options: MegaOptions) -> Result<MegaOrigin, OpenError> {
        let share = (options.requests / 2).max(1);
        let imports = options.imports.clone();
        let small_blob_bytes = options.small_blob_bytes;
        let transport = Transport::new(name, options)?;
        Ok(MegaOrigin { api: Arc::new(Api::new(transport, imports, small_blob_bytes)), share })
    }

    /// HTTP requests sent so far, those sent again included.
    pub fn requests_sent(&self) -> u64 {
        self.api.transport().requests_sent()
    }

    /// One answer per want, in their order; what stands there twice is asked once.
    async fn each<T, F, Answer>(&self, wants: &[Want], ask: F) -> Vec<Result<T, FetchError>>
    where
        T: Clone + Send,
        F: Fn(Arc<Api>, Want) -> Answer + Send,
        Answer: Future<Output = Result<T, FetchError>> + Send,
    {
        let mut numbers = HashMap::new();
        let mut distinct: Vec<Want> = Vec::new();
        let places: Vec<usize> = wants
            .iter()
            .map(|want| {
                *numbers.entry((want.oid, want.hint.path.clone())).or_insert_with(|| {
                    distinct.push(want.clone());
                    distinct.len() - 1
                })
            })
            .collect();
        let mut asked = Vec::with_capacity(distinct.len());
        for (number, want) in distinct.into_iter().enumerate() {
            let answer = ask(self.api.clone(), want);
            asked.push(async move { (number, answer.await) });
        }
        let mut answers: HashMap<usize, Result<T, FetchError>> =
            stream::iter(asked).buffer_unordered(self.share).collect().await;
        let mut left = HashMap::<usize, usize>::new();
        places.iter().for_each(|place| *left.entry(*place).or_default() += 1);
        let mut take = |place: &usize| {
            let left = left.get_mut(place)?;
            *left -= 1;
            if *left == 0 { answers.remove(place) } else { answers.get(place).cloned() }
        };
        places.iter().map(|place| take(place).expect("every distinct want was asked")).collect()
    }
}

#[async_trait]
impl Origin for MegaOrigin {
    fn name(&self) -> &OriginName {
        self.api.transport().origin()
    }

    async fn resolve(&self, rev: Option<&str>, path: &RepoPath) -> Result<Snapshot, ResolveError> {
        self.api.resolve(rev, path).await
    }

    async fn trees(&self, wants: &[Want]) -> Vec<Result<TreeBody, FetchError>> {
        self.each(wants, |api, want| async move { api.listed(&want).await }).await
    }

    async fn blobs(&self, wants: &[Want]) -> Vec<Result<Bytes, FetchError>> {
        self.each(wants, |api, want| async move { api.blob(want.oid).await }).await
    }

    async fn sizes(&self, wants: &[Want]) -> Vec<Result<BlobSize, FetchError>> {
        self.each(wants, |api, want| async move { api.size(want.oid).await }).await
    }

    /// Each costs the server a whole read.
    fn sizes_are_cheap(&self) -> bool {
        false
    }

    fn trees_pass(&self) -> bool {
        true
    }
}

/// The id of an answer; `None` for what has no trustworthy one.
async fn id_of(kind: ObjectKind, body: &Bytes) -> Option<Oid> {
    if body.len() <= HASH_HERE_BYTES {
        return Oid::of(kind, body);
    }
    let body = body.clone();
    tokio::task::spawn_blocking(move || Oid::of(kind, &body)).await.ok().flatten()
}
