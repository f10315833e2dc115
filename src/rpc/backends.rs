//! What the handlers call: [`Workspaces`], [`Credentials`], [`Gauges`], [`LogLevels`] and [`Exporter`].
//!
//! Each hides a layer that needs a kernel and a repository to exist, so that the socket's own promises can be shown
//! without them.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{broadcast, mpsc};

use crate::{
    antares::{
        Antares, Budget, Create, Draining, Event, Gift, Orphan, Scope, Usage, Workspace, WorkspaceError,
    },
    auth::vault::{Secret, VaultError},
    cache::CacheStats,
    dicfuse::{Dicfuse, DicfuseStats},
    engine::{OverlayEngine, SessionReport},
    origin::FetchError,
    store::{FetchStats, ObjectStore},
    sys::identity::Identity,
    types::{OriginName, WorkspaceId},
};

/// The workspaces of this host, as [`Antares`] offers them: see there for what each method promises.
///
/// Dropping the future of [`Workspaces::create`] undoes the creation. The other futures are never dropped before they
/// are done.
#[async_trait]
pub trait Workspaces: Send + Sync + 'static {
    /// Makes and mounts.
    async fn create(&self, owner: &Identity, request: Create) -> Result<Workspace, WorkspaceError>;
    /// Mounts again.
    async fn mount(
        &self,
        scope: &Scope,
        id: &WorkspaceId,
        at: Option<PathBuf>,
    ) -> Result<Workspace, WorkspaceError>;
    /// Unmounts.
    async fn unmount(&self, scope: &Scope, id: &WorkspaceId, lazy: bool) -> Result<(), WorkspaceError>;
    /// Takes away.
    async fn remove(
        &self,
        scope: &Scope,
        id: &WorkspaceId,
        discard: bool,
        lazy: bool,
    ) -> Result<(), WorkspaceError>;
    /// Hands over to another user.
    async fn give(&self, scope: &Scope, id: &WorkspaceId, gift: Gift) -> Result<Workspace, WorkspaceError>;
    /// One of them.
    fn get(&self, scope: &Scope, id: &WorkspaceId) -> Result<Workspace, WorkspaceError>;
    /// All of them, ordered by id.
    fn list(&self, scope: &Scope) -> Vec<Workspace>;
    /// How much lies in an upper. Walks it, on a thread that may wait.
    fn measure(&self, scope: &Scope, id: &WorkspaceId, budget: &Budget) -> Result<Usage, WorkspaceError>;
    /// Whether users get no new mounts.
    fn draining(&self) -> Option<Draining>;
    /// Users get no new mounts from now on.
    async fn begin_drain(&self, by: u32) -> Result<Draining, WorkspaceError>;
    /// They get them again.
    async fn end_drain(&self, by: u32) -> Result<(), WorkspaceError>;
    /// Changes from now on.
    fn watch(&self) -> broadcast::Receiver<Event>;
    /// Uppers without a record. Reads directories.
    fn orphans(&self) -> Result<Vec<Orphan>, WorkspaceError>;
    /// Takes an orphan up.
    async fn adopt(
        &self,
        id: &WorkspaceId,
        owner: &Identity,
        request: Create,
    ) -> Result<Workspace, WorkspaceError>;
    /// Deletes an orphan.
    async fn discard(&self, id: &WorkspaceId) -> Result<(), WorkspaceError>;
}

#[async_trait]
impl Workspaces for Antares {
    async fn create(&self, owner: &Identity, request: Create) -> Result<Workspace, WorkspaceError> {
        Antares::create(self, owner, request).await
    }

    async fn mount(
        &self,
        scope: &Scope,
        id: &WorkspaceId,
        at: Option<PathBuf>,
    ) -> Result<Workspace, WorkspaceError> {
        Antares::mount(self, scope, id, at).await
    }

    async fn unmount(&self, scope: &Scope, id: &WorkspaceId, lazy: bool) -> Result<(), WorkspaceError> {
        Antares::unmount(self, scope, id, lazy).await
    }

    async fn remove(
        &self,
        scope: &Scope,
        id: &WorkspaceId,
        discard: bool,
        lazy: bool,
    ) -> Result<(), WorkspaceError> {
        Antares::remove(self, scope, id, discard, lazy).await
    }

    async fn give(&self, scope: &Scope, id: &WorkspaceId, gift: Gift) -> Result<Workspace, WorkspaceError> {
        Antares::give(self, scope, id, gift).await
    }

    fn get(&self, scope: &Scope, id: &WorkspaceId) -> Result<Workspace, WorkspaceError> {
        Antares::get(self, scope, id)
    }

    fn list(&self, scope: &Scope) -> Vec<Workspace> {
        Antares::list(self, scope)
    }

    fn measure(&self, scope: &Scope, id: &WorkspaceId, budget: &Budget) -> Result<Usage, WorkspaceError> {
        Antares::measure(self, scope, id, budget)
    }

    fn draining(&self) -> Option<Draining> {
        Antares::draining(self)
    }

    async fn begin_drain(&self, by: u32) -> Result<Draining, WorkspaceError> {
        Antares::begin_drain(self, by).await
    }

    async fn end_drain(&self, by: u32) -> Result<(), WorkspaceError> {
        Antares::end_drain(self, by).await
    }

    fn watch(&self) -> broadcast::Receiver<Event> {
        Antares::watch(self)
    }

    fn orphans(&self) -> Result<Vec<Orphan>, WorkspaceError> {
        Antares::orphans(self)
    }

    async fn adopt(
        &self,
        id: &WorkspaceId,
        owner: &Identity,
        request: Create,
    ) -> Result<Workspace, WorkspaceError> {
        Antares::adopt(self, id, owner, request).await
    }

    async fn discard(&self, id: &WorkspaceId) -> Result<(), WorkspaceError> {
        Antares::discard(self, id).await
    }
}

/// What users log in to origins with.
#[async_trait]
pub trait Credentials: Send + Sync + 'static {
    /// Keeps `secret` as what `uid` reads `origin` with, unless the origin refuses it. Whether the origin took it; false
    /// when it could not be asked.
    async fn store(&self, origin: &OriginName, uid: u32, secret: Secret) -> Result<bool, CredentialError>;
    /// Takes it away; whether there was one. Reads a disk.
    fn forget(&self, origin: &OriginName, uid: u32) -> Result<bool, CredentialError>;
    /// Whether there is one, usable or not. Reads a disk.
    fn is_held(&self, origin: &OriginName, uid: u32) -> bool;
}

/// Why a credential is not kept or not forgotten.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// The origin said no to it.
    #[error(transparent)]
    Refused(FetchError),
    /// It cannot be kept on this host.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The thread that was to keep it panicked.
    #[error("keeping the credential broke off: {0}")]
    Broken(String),
}

/// Counters of the layers below. Called from a blocking thread; must touch no mount.
pub trait Gauges: Send + Sync + 'static {
    /// How the lower is owned: `shared` or `per-owner`.
    fn lower(&self) -> &str;
    /// The FUSE sessions being served.
    fn sessions(&self) -> Vec<SessionReport>;
    /// What came from each origin.
    fn origins(&self) -> BTreeMap<OriginName, FetchStats>;
    /// The object cache, or why it cannot say.
    fn cache(&self) -> Result<CacheStats, String>;
    /// How large its database may become.
    fn cache_limit_bytes(&self) -> u64;
    /// The tree, or why it cannot say.
    fn tree(&self) -> Result<DicfuseStats, String>;
}

/// The gauges of a running daemon.
pub struct HostGauges {
    /// Makes the mounts.
    pub engine: Arc<dyn OverlayEngine>,
    /// The shared tree.
    pub dicfuse: Dicfuse,
    /// Cache and origins.
    pub store: ObjectStore,
    /// `shared` or `per-owner`, as the engine was set up.
    pub lower: String,
    /// How large the cache's database may become.
    pub cache_limit_bytes: u64,
}

impl Gauges for HostGauges {
    fn lower(&self) -> &str {
        &self.lower
    }

    fn sessions(&self) -> Vec<SessionReport> {
        self.engine.sessions()
    }

    fn origins(&self) -> BTreeMap<OriginName, FetchStats> {
        self.store.fetch_stats()
    }

    fn cache(&self) -> Result<CacheStats, String> {
        self.store.cache_stats().map_err(|error| error.to_string())
    }

    fn cache_limit_bytes(&self) -> u64 {
        self.cache_limit_bytes
    }

    fn tree(&self) -> Result<DicfuseStats, String> {
        self.dicfuse.stats().map_err(|error| error.to_string())
    }
}

/// How much the journal is told.
pub trait LogLevels: Send + Sync + 'static {
    /// Tells it `level` for `time`, then the configuration's again; the error says why that is none.
    fn lend(&self, level: &str, time: Duration) -> Result<LogLevel, String>;
    /// The configuration's again, now.
    fn reset(&self) -> LogLevel;
}

/// The level in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLevel {
    /// What is logged now.
    pub level: String,
    /// What the configuration says.
    pub configured: String,
    /// When the one falls back to the other, if they differ.
    pub until: Option<SystemTime>,
}

/// How a workspace's changes are written out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportFormat {
    /// A tar archive of what was changed, added and removed.
    Tar,
    /// A git patch.
    Patch,
}

/// A piece of an export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExportPart {
    /// The next bytes.
    Data(Bytes),
    /// All bytes have been sent. An export whose channel closes without this one was cut short, and its reader will
    /// notice.
    Done,
}

/// Writes the changes of a workspace out.
pub trait Exporter: Send + Sync + 'static {
    /// Starts writing and returns at once: the work goes on on a thread of its own, which waits while the bounded
    /// channel is full and stops when the receiver is dropped. `scope` has been authorised; a workspace outside of it
    /// is [`WorkspaceError::NoSuchWorkspace`].
    fn export(
        &self,
        scope: &Scope,
        id: &WorkspaceId,
        format: ExportFormat,
    ) -> Result<mpsc::Receiver<ExportPart>, WorkspaceError>;
}
