//! The whole stack below the control socket, over real git repositories that can be made to misbehave. Needs root.
//!
//! This process serves the mounts, so it must never walk into one: what users do is done by processes of their own,
//! which are killed when they take too long.
#![allow(dead_code, missing_docs, unreachable_pub, clippy::unwrap_used)] // each test binary uses a part

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::{self, Permissions},
    os::unix::{
        fs::{PermissionsExt, chown, symlink},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use scorpio::{
    antares::{Antares, AntaresConfig, Create, Options, Workspace},
    cache::{Cache, CacheOptions},
    config::{Limits, LowerKind, Replay},
    dicfuse::{Dicfuse, NodeTableOptions},
    engine::{
        OverlayEngine,
        kernel::{KernelEngine, KernelOptions, Launcher},
    },
    fusedev::SessionLimits,
    origin::{
        self, Origin,
        faults::{Faults, Faulty},
        git::GitOrigin,
        limits::Limited,
    },
    store::{ObjectStore, StoreLimits},
    sys::{
        boot,
        identity::Identity,
        mount::{self, Unmount},
        mountinfo::{self, Whose},
    },
    types::RepoPath,
};

/// Users without accounts.
pub const ALICE: u32 = 61_001;
pub const BOB: u32 = 61_002;

/// Longer than anything takes here; reaching it is a failure.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What a stack is started with.
#[derive(Clone, Copy)]
pub struct Plan {
    pub lower: LowerKind,
    pub deadline: Duration,
    pub parked: usize,
    pub parked_per_user: usize,
    /// Requests at once to one origin.
    pub requests: usize,
    /// Of them, one user's.
    pub fetches_per_user: usize,
}

impl Plan {
    pub fn new(lower: LowerKind, deadline: Duration) -> Plan {
        // More than any test has hanging: what hangs must not keep others from being asked.
        let (requests, fetches_per_user) = (64, 64);
        Plan { lower, deadline, parked: 4096, parked_per_user: 1024, requests, fetches_per_user }
    }
}

/// A directory for repositories and a host's state; everything mounted below is unmounted at the end, whatever happened.
pub struct Ground {
    dir: tempfile::TempDir,
    /// One at a time: a start detaches every workspace mount of its mount namespace that it does not know.
    _turn: fs::File,
}

impl Ground {
    pub fn new() -> Ground {
        assert!(nix::unistd::geteuid().is_root(), "these tests mount: run them as root");
        // ext4 or the like: overlayfs takes no upper on a container's overlay.
        let dir = tempfile::Builder::new().prefix("scorpio-test.").tempdir_in("/var/tmp").unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        let turn = fs::File::create(std::env::temp_dir().join("scorpio-stack.lock")).unwrap();
        turn.lock().unwrap();
        Ground { dir, _turn: turn }
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn mounts(&self) -> Vec<PathBuf> {
        let entries = mountinfo::read(Whose::Own).unwrap().into_iter();
        entries.map(|entry| entry.mount_point).filter(|path| path.starts_with(self.dir.path())).collect()
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        for path in self.mounts().iter().rev() {
            let _ = mount::unmount(path, Unmount::Lazily);
        }
    }
}

/// A host whose origins are repositories behind [`Faults`] and a deadline.
pub struct Stack {
    pub antares: Antares,
    pub engine: Arc<KernelEngine>,
    pub store: ObjectStore,
    faults: BTreeMap<String, Faults>,
    ground: Ground,
}

impl Stack {
    /// Serves the repositories at `<ground>/<origin>`.
    pub async fn start(ground: Ground, plan: Plan, origins: &[&str]) -> Stack {
        for name in ["run", "nodes", "home"] {
            fs::create_dir(ground.at(name)).unwrap();
        }
        symlink(env!("CARGO_BIN_EXE_scorpiod"), ground.at("mounter")).unwrap();
        let boot_id = boot::boot_id().unwrap();
        let (store, faults) = open_store(&ground, plan, origins, &boot_id);
        let nodes =
            NodeTableOptions { dir: ground.at("nodes"), map_bytes: 1 << 28, boot_id: boot_id.clone() };
        let dicfuse = Dicfuse::open(nodes, store.clone()).unwrap();
        let engine = open_engine(&ground, plan, dicfuse.clone()).await;
        let limits = Limits {
            workspaces_per_user: 64,
            workspaces_per_host: 1024,
            connections_per_user: 32,
            calls_per_user: 64,
            connections: 512,
            max_ttl: Duration::from_secs(3600),
        };
        let upper_root = ground.at("state/workspaces");
        let config = AntaresConfig { state_dir: ground.at("state"), upper_root, boot_id, limits };
        let antares = Antares::open(config, Arc::clone(&engine) as _, dicfuse, store.clone()).await.unwrap();
        Stack { antares, engine, store, faults, ground }
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.ground.at(name)
    }

    pub fn faults(&self, origin: &str) -> &Faults {
        &self.faults[origin]
    }

    /// Mounts `origin` for `uid` at a new directory.
    pub async fn mount(&self, uid: u32, origin: &str, name: &str) -> Workspace {
        let home = self.at(&format!("home/{uid}"));
        let point = home.join(name);
        for dir in [&home, &point] {
            fs::create_dir_all(dir).unwrap();
            chown(dir, Some(uid), Some(uid)).unwrap();
        }
        let owner = Identity { uid, gid: uid, groups: Vec::new() };
        let origin = origin.parse().unwrap();
        let options = Options::default();
        let request = Create { origin, rev: None, path: RepoPath::root(), mount_point: point, options };
        self.antares.create(&owner, request).await.unwrap()
    }

    /// Messages read from all FUSE devices so far, by opcode.
    pub fn requests(&self) -> BTreeMap<&'static str, u64> {
        let mut requests = BTreeMap::new();
        for (name, count) in self.engine.sessions().into_iter().flat_map(|session| session.stats.by_opcode) {
            *requests.entry(name).or_default() += count;
        }
        requests
    }

    /// Questions that wait for an origin now.
    pub fn parked(&self) -> u64 {
        self.engine.sessions().iter().map(|session| session.stats.parked).sum()
    }

    /// Returns when so many wait.
    pub async fn until_parked(&self, count: u64) {
        let begin = Instant::now();
        while self.parked() != count {
            assert!(begin.elapsed() < PATIENCE, "{} wait, not {count}", self.parked());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Ends everything; afterwards nothing is mounted.
    pub async fn stop(self) {
        self.antares.shutdown(scorpio::engine::Leave::Nothing).await;
        self.engine.shutdown(scorpio::engine::Leave::Nothing).await;
        assert_eq!(self.ground.mounts(), Vec::<PathBuf>::new());
    }
}

fn open_store(
    ground: &Ground,
    plan: Plan,
    names: &[&str],
    boot_id: &str,
) -> (ObjectStore, BTreeMap<String, Faults>) {
    let options = CacheOptions {
        dir: ground.at("cache"),
        map_bytes: 1 << 30,
        inline_max_bytes: 65_536,
        boot_id: boot_id.to_owned(),
        checker: None,
    };
    let cache = Cache::open(options).unwrap();
    let (mut origins, mut switches) = (BTreeMap::new(), BTreeMap::new());
    for name in names {
        let repository = GitOrigin::open(name.parse().unwrap(), &ground.at(name), Identity::root()).unwrap();
        let (faulty, faults) = Faulty::new(repository);
        let limits = origin::Limits { deadline: plan.deadline, requests: plan.requests };
        let limited = Limited::new(faulty, limits);
        origins.insert(name.parse().unwrap(), Arc::new(limited) as Arc<dyn Origin>);
        switches.insert((*name).to_owned(), faults);
    }
    let limits = StoreLimits { flight_bytes: 64 << 20, batch: 1024 };
    (ObjectStore::new(cache, origins, &ground.at("state"), limits), switches)
}

async fn open_engine(ground: &Ground, plan: Plan, dicfuse: Dicfuse) -> Arc<KernelEngine> {
    let options = KernelOptions {
        runtime_dir: ground.at("run"),
        lower: plan.lower,
        replay: Replay::Auto,
        limits: SessionLimits {
            workers: 2,
            parked: plan.parked,
            parked_per_user: plan.parked_per_user,
            deadline: plan.deadline,
            entry_ttl: Duration::from_secs(1 << 25),
        },
        fetches_per_user: plan.fetches_per_user,
        mount_timeout: Duration::from_secs(20),
        launcher: Launcher { program: ground.at("mounter"), args: vec![OsString::from("mounter")] },
        boot_id: boot::boot_id().unwrap(),
        handover: scorpio::engine::handover::Handover::default(),
    };
    let runtime = tokio::runtime::Handle::current();
    let engine = tokio::task::spawn_blocking(move || KernelEngine::new(options, dicfuse, runtime));
    Arc::new(engine.await.unwrap().unwrap())
}

/// A shell script of `uid` in a directory, killed after [`PATIENCE`].
pub fn shell(uid: u32, at: &Path, script: &str) -> Command {
    let mut command = Command::new("timeout");
    command
        .args(["-s", "KILL", &PATIENCE.as_secs().to_string(), "sh", "-euc"])
        .arg(format!("cd \"$0\" && {{ {script}\n}}"))
        .arg(at)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("LC_ALL", "C")
        .current_dir("/")
        .uid(uid)
        .gid(uid)
        .stdin(Stdio::null());
    command
}

/// A process and when it began.
pub struct Running {
    pub script: String,
    pub child: Child,
    begin: Instant,
}

/// What became of it.
pub struct Ended {
    pub script: String,
    pub output: Output,
    pub took: Duration,
}

pub fn spawn(uid: u32, at: &Path, script: &str) -> Running {
    let mut command = shell(uid, at, script);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let begin = Instant::now();
    Running { script: script.to_owned(), child: command.spawn().unwrap(), begin }
}

impl Running {
    pub async fn end(self) -> Ended {
        let Running { script, child, begin } = self;
        let output =
            tokio::task::spawn_blocking(move || (child.wait_with_output().unwrap(), begin.elapsed()));
        let (output, took) = output.await.unwrap();
        Ended { script, output, took }
    }
}

impl Ended {
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.output.stdout).into_owned()
    }

    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.output.stderr).into_owned()
    }

    /// It failed with EIO and with nothing else, having read nothing.
    #[track_caller]
    pub fn assert_eio(&self, context: &str) {
        let (said, read) = (self.stderr(), self.stdout());
        let is_eio = !self.output.status.success() && said.contains("Input/output error");
        assert!(is_eio, "{context}: {}: {:?} {said}{read}", self.script, self.output.status);
        assert!(!said.contains("No such file"), "{context}: {}: {said}", self.script);
        assert_eq!(read, "", "{context}: {}", self.script);
    }
}

/// What a script of `uid` prints; it must succeed.
#[track_caller]
pub fn says(uid: u32, at: &Path, script: &str) -> impl Future<Output = String> {
    let caller = std::panic::Location::caller();
    let running = spawn(uid, at, script);
    async move {
        let ended = running.end().await;
        assert!(ended.output.status.success(), "{caller}: {}: {}", ended.script, ended.stderr());
        ended.stdout()
    }
}
