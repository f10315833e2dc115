//! A control socket over made-up workspaces, and callers of any user for it.
#![allow(unreachable_pub, missing_docs)] // part of one test program

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::PathBuf,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use scorpio::{
    antares::{
        Budget, Create, Draining, Event, Gift, Options, Orphan, Scope, State, Usage, Workspace,
        WorkspaceError,
    },
    auth::{Authorizer, accounts::Accounts, fixed::Fixed, vault::Secret},
    cache::CacheStats,
    config::{AuthConfig, AuthMode, Live, OriginConfig, OriginKind, Principal},
    dicfuse::DicfuseStats,
    engine::SessionReport,
    origin::{ResolveError, Snapshot},
    rpc::{
        self, CredentialError, Credentials, ExportFormat, ExportPart, Exporter, Gauges, LogLevels, RpcLimits,
        Services, Workspaces, backends::LogLevel,
    },
    store::FetchStats,
    sys::{identity::Identity, idmap::Ids},
    types::{Oid, OriginName, RepoPath, WorkspaceId},
};
use serde_json::{Value, json};
use tokio::sync::{broadcast, mpsc, oneshot, watch};

/// May mount, not more.
pub const ALICE: u32 = 61_001;
/// May do nothing.
pub const BOB: u32 = 61_002;
/// May manage others' workspaces, not mount.
pub const CAROL: u32 = 61_003;

/// Longest any exchange may take before a test fails.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Small timeouts, everything else as it is.
pub fn quick() -> RpcLimits {
    RpcLimits {
        head_timeout: Duration::from_millis(300),
        body_timeout: Duration::from_millis(300),
        write_timeout: Duration::from_millis(500),
        accept_pause: Duration::from_millis(20),
        counting_time: Duration::from_millis(300),
        ..RpcLimits::default()
    }
}

pub struct Made {
    pub workspaces: Mutex<BTreeMap<WorkspaceId, Workspace>>,
    pub changes: broadcast::Sender<Event>,
    /// What became of creations on the origin `slow`.
    pub slow: watch::Sender<&'static str>,
    /// Workspaces whose counting takes until it is given up.
    pub endless: Mutex<Vec<WorkspaceId>>,
    pub draining: Mutex<Option<Draining>>,
}

/// Tells when a slow creation is undone.
struct Undone<'a>(&'a watch::Sender<&'static str>);

impl Drop for Undone<'_> {
    fn drop(&mut self) {
        self.0.send_replace("undone");
    }
}

pub fn id(text: &str) -> WorkspaceId {
    text.parse().unwrap()
}

pub fn workspace(id: &WorkspaceId, uid: u32) -> Workspace {
    Workspace {
        id: id.clone(),
        owner: Identity { uid, gid: uid, groups: vec![] },
        stored: Ids { uid, gid: uid },
        origin: "open".parse().unwrap(),
        snapshot: Snapshot { commit: Oid::EMPTY_TREE, path: RepoPath::root(), tree: Oid::EMPTY_TREE },
        rev: None,
        mount_point: PathBuf::from("/home/w"),
        point: None,
        state: State::Mounted,
        mount_id: Some(7),
        options: Options::default(),
        created: SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000),
        expires: None,
        upper: PathBuf::from("/nowhere"),
        pinning: None,
    }
}

impl Made {
    pub fn put(&self, workspace: Workspace) {
        self.workspaces.lock().unwrap().insert(workspace.id.clone(), workspace.clone());
        let _ = self.changes.send(Event { id: workspace.id.clone(), workspace: Some(workspace) });
    }

    pub fn take(&self, id: &WorkspaceId) {
        self.workspaces.lock().unwrap().remove(id);
        let _ = self.changes.send(Event { id: id.clone(), workspace: None });
    }
}

fn in_scope(scope: &Scope, workspace: &Workspace) -> bool {
    match scope {
        Scope::User(uid) => workspace.owner.uid == *uid,
        Scope::Everybody => true,
    }
}

#[async_trait]
impl Workspaces for Made {
    async fn create(&self, owner: &Identity, request: Create) -> Result<Workspace, WorkspaceError> {
        if request.rev.as_deref() == Some("slow") {
            let _undone = Undone(&self.slow);
            self.slow.send_replace("begun");
            std::future::pending::<()>().await;
        }
        if let Some(rev) = request.rev {
            return Err(ResolveError::NoSuchRevision { origin: request.origin, rev }.into());
        }
        let made = Workspace {
            mount_point: request.mount_point,
            options: request.options,
            ..workspace(&id("made23456789"), owner.uid)
        };
        self.put(made.clone());
        Ok(made)
    }

    async fn mount(
        &self,
        scope: &Scope,
        id: &WorkspaceId,
        _at: Option<PathBuf>,
    ) -> Result<Workspace, WorkspaceError> {
        let found = self.get(scope, id)?;
        Err(WorkspaceError::WrongState { id: found.id, state: "mounted".into(), hint: "unmount it".into() })
    }

    async fn unmount(&self, scope: &Scope, id: &WorkspaceId, _lazy: bool) -> Result<(), WorkspaceError> {
        let found = self.get(scope, id)?;
        self.put(Workspace { state: State::Unmounted, ..found });
        Ok(())
    }

    async fn remove(
        &self,
        scope: &Scope,
        id: &WorkspaceId,
        discard: bool,
        _lazy: bool,
    ) -> Result<(), WorkspaceError> {
        let found = self.get(scope, id)?;
        if !discard {
            return Err(WorkspaceError::UnsavedChanges(found.id));
        }
        self.take(id);
        Ok(())
    }

    async fn give(&self, scope: &Scope, id: &WorkspaceId, gift: Gift) -> Result<Workspace, WorkspaceError> {
        let found = self.get(scope, id)?;
        let given = Workspace { owner: gift.to, state: State::Unmounted, ..found };
        self.put(given.clone());
        Ok(given)
    }

    fn get(&self, scope: &Scope, id: &WorkspaceId) -> Result<Workspace, WorkspaceError> {
        let workspaces = self.workspaces.lock().unwrap();
        let found = workspaces.get(id).filter(|workspace| in_scope(scope, workspace));
        found.cloned().ok_or_else(|| WorkspaceError::NoSuchWorkspace(id.clone()))
    }

    fn list(&self, scope: &Scope) -> Vec<Workspace> {
        self.workspaces.lock().unwrap().values().filter(|found| in_scope(scope, found)).cloned().collect()
    }

    fn measure(&self, scope: &Scope, id: &WorkspaceId, budget: &Budget) -> Result<Usage, WorkspaceError> {
        self.get(scope, id)?;
        let is_endless = self.endless.lock().unwrap().contains(id);
        while is_endless && !budget.is_spent() {
            std::thread::sleep(Duration::from_millis(5));
        }
        let partial = (is_endless || budget.is_spent()).then(|| "it takes too long".to_owned());
        Ok(Usage { bytes: 4096, inodes: 2, partial })
    }

    fn draining(&self) -> Option<Draining> {
        *self.draining.lock().unwrap()
    }

    async fn begin_drain(&self, by: u32) -> Result<Draining, WorkspaceError> {
        let since = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let draining = Draining { since: Some(since), by: Some(by) };
        Ok(*self.draining.lock().unwrap().get_or_insert(draining))
    }

    async fn end_drain(&self, _by: u32) -> Result<(), WorkspaceError> {
        self.draining.lock().unwrap().take();
        Ok(())
    }

    fn watch(&self) -> broadcast::Receiver<Event> {
        self.changes.subscribe()
    }

    fn orphans(&self) -> Result<Vec<Orphan>, WorkspaceError> {
        let path = PathBuf::from("/uppers/stray2345678");
        Ok(vec![Orphan { id: id("stray2345678"), path, uid: ALICE, reason: "no record".into() }])
    }

    async fn adopt(
        &self,
        id: &WorkspaceId,
        owner: &Identity,
        _request: Create,
    ) -> Result<Workspace, WorkspaceError> {
        Ok(Workspace { state: State::Unmounted, ..workspace(id, owner.uid) })
    }

    async fn discard(&self, id: &WorkspaceId) -> Result<(), WorkspaceError> {
        if id.as_str() == "stray2345678" { Ok(()) } else { Err(WorkspaceError::NoSuchWorkspace(id.clone())) }
    }
}

impl Exporter for Made {
    fn export(
        &self,
        scope: &Scope,
        id: &WorkspaceId,
        format: ExportFormat,
    ) -> Result<mpsc::Receiver<ExportPart>, WorkspaceError> {
        self.get(scope, id)?;
        let (parts, receiver) = mpsc::channel(2);
        std::thread::spawn(move || {
            for _ in 0..10 {
                let data = ExportPart::Data(vec![b'x'; 100_000].into());
                if parts.blocking_send(data).is_err() {
                    return;
                }
            }
            // A patch breaks off in these tests.
            if format == ExportFormat::Tar {
                let _ = parts.blocking_send(ExportPart::Done);
            }
        });
        Ok(receiver)
    }
}

struct NoVault;

#[async_trait]
impl Credentials for NoVault {
    async fn store(&self, _: &OriginName, _: u32, _: Secret) -> Result<bool, CredentialError> {
        unreachable!("no origin here takes logins")
    }
    fn forget(&self, _: &OriginName, _: u32) -> Result<bool, CredentialError> {
        Ok(false)
    }
    fn is_held(&self, _: &OriginName, _: u32) -> bool {
        false
    }
}

struct NoLevels;

impl LogLevels for NoLevels {
    fn lend(&self, level: &str, time: Duration) -> Result<LogLevel, String> {
        if level == "loud" {
            return Err("it is no log level".to_owned());
        }
        let until = SystemTime::UNIX_EPOCH + time;
        Ok(LogLevel { level: level.to_owned(), configured: "info".to_owned(), until: Some(until) })
    }
    fn reset(&self) -> LogLevel {
        LogLevel { level: "info".to_owned(), configured: "info".to_owned(), until: None }
    }
}

struct NoGauges;

impl Gauges for NoGauges {
    fn lower(&self) -> &str {
        "shared"
    }
    fn sessions(&self) -> Vec<SessionReport> {
        vec![]
    }
    fn origins(&self) -> BTreeMap<OriginName, FetchStats> {
        let stats = FetchStats { fetched: 3, sizes: 2, bytes: 9, failed: 1 };
        ["open", "closed"].into_iter().map(|name| (name.parse().unwrap(), stats)).collect()
    }
    fn cache(&self) -> Result<CacheStats, String> {
        Ok(CacheStats { inline_blobs: 2, file_blobs: 3, ..CacheStats::default() })
    }
    fn cache_limit_bytes(&self) -> u64 {
        1 << 30
    }
    fn tree(&self) -> Result<DicfuseStats, String> {
        Ok(DicfuseStats::default())
    }
}

/// A running server; stopped and waited for by [`Server::stop`].
pub struct Server {
    pub socket: PathBuf,
    pub made: Arc<Made>,
    stop: Option<oneshot::Sender<()>>,
    task: tokio::task::JoinHandle<()>,
    _dir: tempfile::TempDir,
}

impl Server {
    pub fn start(limits: RpcLimits) -> Server {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let socket = dir.path().join("s");
        let made = Arc::new(Made {
            workspaces: Mutex::default(),
            changes: broadcast::channel(16).0,
            slow: watch::channel("never asked").0,
            endless: Mutex::default(),
            draining: Mutex::default(),
        });
        let origin =
            |allow| OriginConfig { allow, kind: OriginKind::Git { path: "/x".into(), read_as: None } };
        let user = |uid: u32| Principal::User(uid.to_string());
        let auth = AuthConfig {
            mode: AuthMode::Static,
            mount: vec![user(ALICE)],
            manage_others: vec![user(CAROL)],
            give: vec![user(ALICE)],
        };
        let accounts = Accounts::default();
        let services = Services {
            credentials: Arc::new(NoVault),
            workspaces: Arc::clone(&made) as Arc<dyn Workspaces>,
            gauges: Arc::new(NoGauges),
            exporter: Some(Arc::clone(&made) as Arc<dyn Exporter>),
            origins: Live::new(BTreeMap::from([
                ("open".parse().unwrap(), origin(vec![Principal::Everybody])),
                ("closed".parse().unwrap(), origin(vec![])),
            ])),
            authorizer: Live::from(Arc::new(Fixed::new(&auth, accounts.clone())) as Arc<dyn Authorizer>),
            configuration_is_wrong: Live::new(false),
            log_levels: Arc::new(NoLevels),
            accounts,
        };
        let listener = rpc::bind(&socket).unwrap();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(async move {
            let stopped = async { drop(stopped.await) };
            rpc::serve(listener, services, limits, stopped).await.unwrap();
        });
        Server { socket, made, stop: Some(stop), task, _dir: dir }
    }

    /// Asks it to stop; returns when nothing of it is left.
    pub async fn stop(mut self) {
        self.stop.take().unwrap().send(()).unwrap();
        tokio::time::timeout(PATIENCE, &mut self.task).await.unwrap().unwrap();
    }

    /// A connection as `uid`.
    pub fn connect_as(&self, uid: u32) -> UnixStream {
        connect_with(&self.socket, uid, uid, &[])
    }

    /// One call on a connection of its own; the whole answer.
    pub async fn call(&self, uid: u32, method: &str, params: Value) -> Value {
        let request = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        let (status, body) = self.post(uid, &request.to_string()).await;
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }

    pub async fn post(&self, uid: u32, body: &str) -> (u16, String) {
        let answer = exchange(self.connect_as(uid), post(body)).await;
        parse(&answer)
    }
}

/// The bytes of a request on a connection that is kept.
pub fn keep(body: &str) -> Vec<u8> {
    let length = body.len();
    format!("POST / HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}")
        .into_bytes()
}

/// The bytes of a request on a connection that is closed behind its answer.
pub fn post(body: &str) -> Vec<u8> {
    let kept = String::from_utf8(keep(body)).unwrap();
    kept.replacen("host: x", "connection: close\r\nhost: x", 1).into_bytes()
}

/// Sends bytes and reads until the server closes.
pub async fn exchange(socket: UnixStream, request: Vec<u8>) -> Vec<u8> {
    let task = tokio::task::spawn_blocking(move || {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_write_timeout(Some(PATIENCE)).unwrap();
        // A server that refuses need not take it all.
        let _ = (&socket).write_all(&request);
        read_all(socket)
    });
    task.await.unwrap()
}

/// What comes until the end, or until the connection is reset.
pub fn read_all(mut socket: UnixStream) -> Vec<u8> {
    let mut answer = Vec::new();
    let mut buffer = vec![0; 65536];
    loop {
        match socket.read(&mut buffer) {
            Ok(0) => return answer,
            Ok(count) => answer.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return answer,
            Err(error) => panic!("the server does not close: {error}"),
        }
    }
}

/// Status and body; (0, "") when there was no answer.
pub fn parse(answer: &[u8]) -> (u16, String) {
    if answer.is_empty() {
        return (0, String::new());
    }
    let text = String::from_utf8_lossy(answer);
    let (head, body) = text.split_once("\r\n\r\n").expect("an HTTP answer");
    let status = head.split(' ').nth(1).expect("a status").parse().unwrap();
    (status, body.to_owned())
}

/// Connects as somebody else: the kernel notes the credentials of the connecting thread.
pub fn connect_with(socket: &std::path::Path, uid: u32, gid: u32, groups: &[u32]) -> UnixStream {
    let (socket, groups) = (socket.to_owned(), groups.to_vec());
    let connect = move || {
        if uid != 0 || gid != 0 || !groups.is_empty() {
            let groups: Vec<_> = groups.into_iter().map(rustix::thread::Gid::from_raw).collect();
            rustix::thread::set_thread_groups(&groups).unwrap();
            let gid = rustix::thread::Gid::from_raw(gid);
            rustix::thread::set_thread_res_gid(gid, gid, gid).unwrap();
            let uid = rustix::thread::Uid::from_raw(uid);
            rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
        }
        UnixStream::connect(socket).unwrap()
    };
    std::thread::spawn(connect).join().unwrap()
}
