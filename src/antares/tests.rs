//! A host whose kernel and origin are stand-ins, so that every step can fail, hang or be the last one before a crash;
//! its disk is real.

mod crash;
mod creation;
mod disk_full;
mod draining;
mod endings;
mod giving;
mod restart;

use std::{
    collections::{BTreeMap, HashSet},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, SystemTime},
};

use async_trait::async_trait;

use super::{driver::Moment, table::lock, *};
use crate::{
    dicfuse::Root,
    engine::{
        LiveMount, MountError, MountSpec, Mounted, PointFault, PointIdentity, SessionReport, UnmountError,
        Upper,
    },
    origin::{ResolveError, Snapshot},
    store::Pin,
    sys::idmap::Owners,
    types::{Oid, OriginName, RepoPath, RootId},
};

const ALICE: u32 = 1000;

/// What outlives the daemon: mounts, and what will go wrong.
#[derive(Default)]
struct Kernel {
    mounts: std::sync::Mutex<Vec<(u64, LiveMount)>>,
    next_id: AtomicU64,
    epoch: AtomicU64,
    busy: std::sync::Mutex<HashSet<WorkspaceId>>,
    refuse_mounts: AtomicBool,
    refuse_maps: AtomicBool,
    shown: std::sync::Mutex<Vec<Owners>>,
    /// Mount points whose mounts never come about.
    stuck: std::sync::Mutex<HashSet<PathBuf>>,
    specs: std::sync::Mutex<Vec<MountSpec>>,
    lazily: std::sync::Mutex<Vec<WorkspaceId>>,
    /// Happens once between the reading of the mounts and what is done with them.
    behind_survey: std::sync::Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

/// The engine of one process.
struct Engine {
    kernel: Arc<Kernel>,
    roots: Arc<FakeRoots>,
    epoch: u64,
}

fn point_error(path: &Path, fault: PointFault) -> MountError {
    MountError::Point { path: path.to_owned(), fault, reason: format!("{fault:?}") }
}

#[async_trait]
impl OverlayEngine for Engine {
    async fn mount(&self, spec: &MountSpec) -> Result<Mounted, MountError> {
        lock(&self.kernel.specs).push(spec.clone());
        let path = &spec.point.path;
        if lock(&self.kernel.stuck).contains(path) {
            std::future::pending::<()>().await;
        }
        if self.kernel.refuse_mounts.load(Ordering::SeqCst) {
            let source = std::io::Error::from_raw_os_error(libc::EIO);
            let step = "fsmount".to_owned();
            return Err(MountError::Kernel { workspace: spec.workspace.clone(), step, source });
        }
        let stat = std::fs::metadata(path).map_err(|_| point_error(path, PointFault::Missing))?;
        let point = PointIdentity { dev: stat.dev(), ino: stat.ino() };
        if spec.point.expect.is_some_and(|expect| expect != point) {
            return Err(point_error(path, PointFault::Displaced));
        }
        let mut mounts = lock(&self.kernel.mounts);
        if mounts.iter().any(|(_, mount)| mount.path == *path) {
            return Err(point_error(path, PointFault::Busy));
        }
        if let Upper::Writable { upper, work, .. } = &spec.upper {
            assert!(upper.is_dir() && work.read_dir().unwrap().next().is_none());
        }
        let mount_id = self.kernel.next_id.fetch_add(1, Ordering::SeqCst) + 100;
        let workspace = spec.workspace.clone();
        mounts.push((self.epoch, LiveMount { workspace, mount_id, path: path.clone(), alive: true }));
        Ok(Mounted { mount_id, point })
    }

    async fn unmount(&self, workspace: &WorkspaceId, mount_id: u64, lazy: bool) -> Result<(), UnmountError> {
        let mut mounts = lock(&self.kernel.mounts);
        let Some(at) = mounts.iter().position(|(_, mount)| mount.mount_id == mount_id) else { return Ok(()) };
        if lock(&self.kernel.busy).contains(workspace) {
            if !lazy {
                let path = mounts[at].1.path.clone();
                return Err(UnmountError::Busy { path, holders: Vec::new() });
            }
            lock(&self.kernel.lazily).push(workspace.clone());
        }
        mounts.remove(at);
        Ok(())
    }

    async fn unmount_unused(&self) {
        let busy = lock(&self.kernel.busy).clone();
        lock(&self.kernel.mounts).retain(|(_, mount)| busy.contains(&mount.workspace));
    }

    async fn can_show(&self, dir: &Path, owners: &Owners) -> std::io::Result<()> {
        assert!(dir.is_dir());
        lock(&self.kernel.shown).push(*owners);
        if self.kernel.refuse_maps.load(Ordering::SeqCst) {
            return Err(std::io::Error::from_raw_os_error(libc::EINVAL));
        }
        Ok(())
    }

    async fn is_held(&self, upper: &Path) -> std::io::Result<bool> {
        Ok(lock(&self.kernel.lazily).iter().any(|id| upper.parent().unwrap().ends_with(id.as_str())))
    }

    fn survey(&self) -> std::io::Result<Vec<LiveMount>> {
        let seen =
            |(epoch, mount): &(u64, LiveMount)| LiveMount { alive: *epoch == self.epoch, ..mount.clone() };
        let found = lock(&self.kernel.mounts).iter().map(seen).collect();
        let behind = lock(&self.kernel.behind_survey).take();
        behind.into_iter().for_each(|act| act());
        Ok(found)
    }

    fn release_root(&self, root: RootId) {
        lock(&self.roots.served).remove(&root.tree).expect("only roots that are served are released");
    }

    fn sessions(&self) -> Vec<SessionReport> {
        Vec::new()
    }

    async fn shutdown(&self, _leave: Leave) {}
}

/// An origin with one tree per path, and the roots that are served.
#[derive(Default)]
struct FakeRoots {
    served: std::sync::Mutex<BTreeMap<Oid, Root>>,
    refuse_roots: AtomicBool,
}

#[async_trait]
impl Roots for FakeRoots {
    async fn resolve(
        &self,
        origin: &OriginName,
        rev: Option<&str>,
        path: &RepoPath,
    ) -> Result<Snapshot, WorkspaceError> {
        if origin.as_str() != "origin" {
            return Err(WorkspaceError::NoSuchOrigin(origin.clone()));
        }
        if rev == Some("missing") {
            let (origin, rev) = (origin.clone(), "missing".to_owned());
            return Err(ResolveError::NoSuchRevision { origin, rev }.into());
        }
        let tree = Oid::of(crate::types::ObjectKind::Blob, &path.to_bytes()).unwrap();
        Ok(Snapshot { commit: Oid::EMPTY_TREE, path: path.clone(), tree })
    }

    fn add_root(&self, origin: &OriginName, snapshot: &Snapshot, mtime: i64) -> Result<Root, WorkspaceError> {
        if self.refuse_roots.load(Ordering::SeqCst) {
            return Err(WorkspaceError::Tree("refused".into()));
        }
        let mut served = lock(&self.served);
        let number = u32::try_from(served.len()).unwrap();
        let new = || Root {
            id: RootId { number, tree: snapshot.tree },
            origin: origin.clone(),
            snapshot: snapshot.clone(),
            mtime,
        };
        Ok(served.entry(snapshot.tree).or_insert_with(new).clone())
    }

    fn pin(&self, _root: &Root) -> Option<Pin> {
        None
    }

    fn served(&self) -> Result<Vec<RootId>, WorkspaceError> {
        Ok(lock(&self.served).values().map(|root| root.id).collect())
    }
}

/// A host: what a daemon finds and leaves behind.
struct Host {
    dir: tempfile::TempDir,
    kernel: Arc<Kernel>,
    roots: Arc<FakeRoots>,
    boot_id: String,
    limits: Limits,
    /// Records and uppers under different roots.
    split: bool,
}

impl Host {
    fn new() -> Host {
        let limits = Limits {
            workspaces_per_user: 64,
            workspaces_per_host: 1024,
            connections_per_user: 1,
            calls_per_user: 1,
            connections: 1,
            max_ttl: Duration::from_secs(90 * 86400),
        };
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("home")).unwrap();
        let (kernel, roots) = (Arc::default(), Arc::default());
        Host { dir, kernel, roots, boot_id: "boot-1".into(), limits, split: false }
    }

    fn split() -> Host {
        Host { split: true, ..Host::new() }
    }

    async fn open(&self) -> Antares {
        self.open_with(Hook::default()).await
    }

    async fn open_with(&self, hook: Hook) -> Antares {
        self.try_open(hook).await.unwrap()
    }

    async fn try_open(&self, hook: Hook) -> Result<Antares, WorkspaceError> {
        let epoch = self.kernel.epoch.fetch_add(1, Ordering::SeqCst) + 1;
        let engine =
            Arc::new(Engine { kernel: Arc::clone(&self.kernel), roots: Arc::clone(&self.roots), epoch });
        let config = AntaresConfig {
            state_dir: self.dir.path().join("state"),
            upper_root: self.uppers(),
            boot_id: self.boot_id.clone(),
            limits: self.limits,
        };
        Antares::open_on(config, engine, Arc::clone(&self.roots) as Arc<dyn Roots>, hook).await
    }

    fn records(&self) -> PathBuf {
        self.dir.path().join("state/workspaces")
    }

    fn uppers(&self) -> PathBuf {
        if self.split { self.dir.path().join("uppers") } else { self.records() }
    }

    fn record(&self, id: &WorkspaceId) -> PathBuf {
        self.records().join(id.as_str()).join("record")
    }

    /// The host restarts: mounts are gone, and so are the roots.
    fn reboot(&mut self) {
        self.boot_id.push('+');
        lock(&self.kernel.mounts).clear();
        lock(&self.roots.served).clear();
    }

    /// A mount point of that name.
    fn point(&self, name: &str) -> PathBuf {
        let path = self.dir.path().join("home").join(name);
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    fn request(&self, name: &str) -> Create {
        Create {
            origin: "origin".parse().unwrap(),
            rev: None,
            path: RepoPath::root(),
            mount_point: self.point(name),
            options: Options::default(),
        }
    }

    fn ephemeral(&self, name: &str) -> Create {
        let options = Options { ephemeral: true, ..Options::default() };
        Create { options, ..self.request(name) }
    }

    /// Everything under state and uppers: path, mode, owner.
    fn tree(&self) -> Vec<String> {
        let mut found = Vec::new();
        for top in ["state", "uppers"] {
            walk(&self.dir.path().join(top), self.dir.path(), &mut found);
        }
        found.sort();
        found
    }

    fn mounted(&self) -> Vec<WorkspaceId> {
        let mut ids: Vec<_> =
            lock(&self.kernel.mounts).iter().map(|(_, mount)| mount.workspace.clone()).collect();
        ids.sort();
        ids
    }

    fn fail_mounts(&self, fail: bool) {
        self.kernel.refuse_mounts.store(fail, Ordering::SeqCst);
    }

    fn occupy(&self, id: &WorkspaceId) {
        lock(&self.kernel.busy).insert(id.clone());
    }

    fn vacate(&self, id: &WorkspaceId) {
        lock(&self.kernel.busy).remove(id);
    }

    fn served(&self) -> usize {
        lock(&self.roots.served).len()
    }
}

fn walk(path: &Path, top: &Path, found: &mut Vec<String>) {
    let Ok(stat) = path.symlink_metadata() else { return };
    let name = path.strip_prefix(top).unwrap().display();
    found.push(format!("{name} {:o} {}", stat.permissions().mode(), stat.uid()));
    for entry in path.read_dir().into_iter().flatten() {
        walk(&entry.unwrap().path(), top, found);
    }
}

fn alice() -> Identity {
    Identity { uid: ALICE, gid: 100, groups: vec![27] }
}

const ALL: Scope = Scope::Everybody;

impl Antares {
    /// Waits until what was removed has been deleted.
    fn settle(&self) {
        self.inner.trash.settle();
    }

    fn state(&self, id: &WorkspaceId) -> State {
        self.get(&ALL, id).unwrap().state
    }
}

/// A hook that calls `act` with each moment.
fn hook(act: impl Fn(Moment) + Send + Sync + 'static) -> Hook {
    Hook(Some(Arc::new(move |moment| {
        act(moment);
        Box::pin(std::future::ready(()))
    })))
}
