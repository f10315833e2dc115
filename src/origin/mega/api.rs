//! [`Api`]: the questions that are asked of a server, each with its answer's meaning.

use bytes::Bytes;

use super::{
    address::Endpoint,
    answer::{self, BadAnswer, Listed},
    id_of,
    transport::{Answer, Transport, Wanted},
};
use crate::{
    origin::{BlobSize, FetchError},
    types::{ObjectKind, Oid, RepoPath},
};

/// A server's API.
pub(super) struct Api {
    transport: Transport,
    imports: RepoPath,
    small_blob_bytes: u32,
}

impl Api {
    pub(super) fn new(transport: Transport, imports: RepoPath, small_blob_bytes: u32) -> Api {
        Api { transport, imports, small_blob_bytes }
    }

    pub(super) fn transport(&self) -> &Transport {
        &self.transport
    }

    /// The commit that is the head now.
    pub(super) async fn head(&self) -> Result<Oid, FetchError> {
        let endpoint = Endpoint::LatestCommit { refs: None };
        self.meant(&endpoint, answer::commit).await
    }

    /// The commit that `name` leads to; `None` where there is none.
    pub(super) async fn commit(&self, name: &str) -> Result<Option<Oid>, FetchError> {
        let endpoint = Endpoint::LatestCommit { refs: Some(name) };
        match self.transport.get(&endpoint, Wanted::Whole).await? {
            Answer::Found(body) => {
                answer::commit(&body).map(Some).map_err(|error| self.nonsense(&endpoint, &error))
            }
            // A name that it does not know is a fault of its own to the server. Whether it is well otherwise shows here.
            Answer::Fault | Answer::Missing => self.head().await.map(|_| None),
            Answer::Long(_) => Err(self.unexpected(&endpoint, "too much")),
        }
    }

    /// The raw tree at `path` as it is now; empty where there is none, too.
    pub(super) async fn tree(&self, path: &RepoPath) -> Result<Bytes, FetchError> {
        self.whole(&Endpoint::Tree { path }).await
    }

    /// Names and ids in the directory at `path`, of a commit or as they are now; empty where there is none, too.
    pub(super) async fn listing(
        &self,
        path: &RepoPath,
        commit: Option<Oid>,
    ) -> Result<Vec<Listed>, FetchError> {
        self.meant(&Endpoint::ContentHash { path, refs: commit }, answer::listing).await
    }

    /// The id of the directory at `path`, which is not the top; `None` where there is none.
    pub(super) async fn directory(
        &self,
        path: &RepoPath,
        commit: Option<Oid>,
    ) -> Result<Option<Oid>, FetchError> {
        let entries = self.meant(&Endpoint::DirHash { path, refs: commit }, answer::listing).await?;
        Ok(entries.into_iter().find(|entry| entry.is_dir).map(|entry| entry.oid))
    }

    /// Whether a repository begins at `path`, which is below the directory of imports.
    pub(super) async fn begins_repository(&self, path: &RepoPath) -> Result<bool, FetchError> {
        self.meant(&Endpoint::CanClone { path }, answer::truth).await
    }

    /// Whether repositories may be found at or above `path`.
    pub(super) fn is_below_imports(&self, path: &RepoPath) -> bool {
        let (names, imports) = (path.names(), self.imports.names());
        names.len() > imports.len() && names.starts_with(imports)
    }

    /// How many names there are in the path of the directory of imports.
    pub(super) fn imports_depth(&self) -> usize {
        self.imports.names().len()
    }

    /// The content of a blob.
    pub(super) async fn blob(&self, oid: Oid) -> Result<Bytes, FetchError> {
        if oid == Oid::EMPTY_BLOB {
            return Ok(Bytes::new());
        }
        let endpoint = Endpoint::Blob { oid };
        match self.transport.get(&endpoint, Wanted::Whole).await? {
            Answer::Found(body) => Ok(body),
            Answer::Missing => Err(self.absent(oid)),
            Answer::Fault => Err(self.fault(&endpoint)),
            Answer::Long(_) => Err(self.unexpected(&endpoint, "too much")),
        }
    }

    /// The size of a blob, and the content of a small one.
    pub(super) async fn size(&self, oid: Oid) -> Result<BlobSize, FetchError> {
        if oid == Oid::EMPTY_BLOB {
            return Ok(BlobSize { bytes: 0, content: Some(Bytes::new()) });
        }
        let endpoint = Endpoint::Blob { oid };
        match self.transport.get(&endpoint, Wanted::UpTo(self.small_blob_bytes.into())).await? {
            Answer::Long(bytes) => Ok(bytes.into()),
            Answer::Missing => Err(self.absent(oid)),
            Answer::Fault => Err(self.fault(&endpoint)),
            Answer::Found(body) => match id_of(ObjectKind::Blob, &body).await {
                Some(id) if id == oid => Ok(BlobSize { bytes: body.len() as u64, content: Some(body) }),
                _ => Err(self.mismatch(oid, format!("its {} bytes have another id", body.len()))),
            },
        }
    }

    pub(super) fn mismatch(&self, oid: Oid, reason: String) -> FetchError {
        FetchError::Mismatch { origin: self.transport.origin().clone(), oid, reason }
    }

    fn absent(&self, oid: Oid) -> FetchError {
        FetchError::Absent { origin: self.transport.origin().clone(), oid }
    }

    async fn meant<T>(
        &self,
        endpoint: &Endpoint<'_>,
        meaning: impl Fn(&[u8]) -> Result<T, BadAnswer>,
    ) -> Result<T, FetchError> {
        let body = self.whole(endpoint).await?;
        meaning(&body).map_err(|error| self.nonsense(endpoint, &error))
    }

    async fn whole(&self, endpoint: &Endpoint<'_>) -> Result<Bytes, FetchError> {
        match self.transport.get(endpoint, Wanted::Whole).await? {
            Answer::Found(body) => Ok(body),
            Answer::Fault => Err(self.fault(endpoint)),
            Answer::Missing => Err(self.unexpected(endpoint, "404")),
            Answer::Long(_) => Err(self.unexpected(endpoint, "too much")),
        }
    }

    fn nonsense(&self, endpoint: &Endpoint<'_>, error: &BadAnswer) -> FetchError {
        self.transport.unreachable(format!("{} answers what cannot be used: {error}", endpoint.name()))
    }

    fn unexpected(&self, endpoint: &Endpoint<'_>, what: &str) -> FetchError {
        self.transport.unreachable(format!("{} answers {what}", endpoint.name()))
    }

    /// The server puts paths of imported repositories into its queries as they are.
    fn fault(&self, endpoint: &Endpoint<'_>) -> FetchError {
        let quoted = endpoint.path().filter(|path| self.is_below_imports(path) && has_apostrophe(path));
        match quoted {
            Some(path) => self.transport.unreachable(format!(
                "{} answers 500 for `{path}`: the server cannot look up paths with an apostrophe below `{}`",
                endpoint.name(),
                self.imports
            )),
            None => self.unexpected(endpoint, "500"),
        }
    }
}

fn has_apostrophe(path: &RepoPath) -> bool {
    path.names().iter().any(|name| name.as_bytes().contains(&b'\''))
}
