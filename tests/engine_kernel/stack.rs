//! The whole stack over a real git repository, and users who work in it from processes of their own: this process
//! serves the mounts, so it must never walk into one.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::{self, Permissions},
    os::unix::{
        ffi::OsStrExt,
        fs::{PermissionsExt, chown, symlink},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::Arc,
    time::Duration,
};

use scorpio::{
    cache::{Cache, CacheOptions},
    config::{LowerKind, Replay},
    dicfuse::{Dicfuse, NodeTableOptions, Root},
    engine::{
        Leave, MountError, MountPoint, MountSpec, Mounted, OverlayEngine, PointIdentity, Upper,
        kernel::{KernelEngine, KernelOptions, Launcher},
    },
    fusedev::SessionLimits,
    origin::{
        Origin,
        faults::{Faults, Faulty},
        git::GitOrigin,
        limits::{Limited, Limits},
    },
    store::{ObjectStore, StoreLimits},
    sys::{
        boot,
        identity::Identity,
        mount::{self, Unmount},
        mountinfo::{self, MountEntry, Whose},
    },
    types::{OriginName, RepoPath, WorkspaceId},
};

pub(crate) const ALICE: u32 = 61001;
pub(crate) const BOB: u32 = 61002;
pub(crate) const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);
pub(crate) const MTIME: i64 = 1_700_000_000;

/// How a stack differs from the usual.
pub(crate) struct Plan {
    pub(crate) lower: LowerKind,
    pub(crate) entry_ttl: Duration,
    pub(crate) mount_timeout: Duration,
    pub(crate) deadline: Duration,
    pub(crate) mounter_args: Vec<&'static str>,
}

impl Plan {
    pub(crate) fn new(lower: LowerKind) -> Plan {
        Plan {
            lower,
            entry_ttl: FOREVER,
            mount_timeout: Duration::from_secs(20),
            deadline: Duration::from_secs(20),
            mounter_args: Vec::new(),
        }
    }
}

/// Detaches whatever is left below the directory, also when a test fails.
struct Sweeper(PathBuf);

impl Drop for Sweeper {
    fn drop(&mut self) {
        for entry in mounts_below(&self.0).iter().rev() {
            let _ = mount::unmount(&entry.mount_point, Unmount::Lazily);
        }
    }
}

pub(crate) struct Stack {
    _sweeper: Sweeper,
    pub(crate) engine: KernelEngine,
    pub(crate) dicfuse: Dicfuse,
    pub(crate) root: Root,
    pub(crate) faults: Faults,
    dir: tempfile::TempDir,
}

/// A workspace's directories.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) id: WorkspaceId,
    pub(crate) uid: u32,
    pub(crate) point: PathBuf,
    pub(crate) state: PathBuf,
}

impl Stack {
    pub(crate) async fn start(plan: Plan) -> Stack {
        Stack::start_in(tempfile::tempdir_in("/var/tmp").unwrap(), plan).await
    }

    async fn start_in(dir: tempfile::TempDir, plan: Plan) -> Stack {
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        for name in ["run", "nodes", "state", "home"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        fs::set_permissions(dir.path().join("state"), Permissions::from_mode(0o700)).unwrap();
        symlink(env!("CARGO_BIN_EXE_scorpiod"), dir.path().join("mounter")).unwrap();
        let repository = dir.path().join("repository");
        make_repository(&repository);
        let name: OriginName = "test".parse().unwrap();
        let origin = GitOrigin::open(name.clone(), &repository, Identity::root()).unwrap();
        let (origin, faults) = Faulty::new(origin);
        let origin = Limited::new(origin, Limits { deadline: plan.deadline / 2, requests: 16 });
        let snapshot = origin.resolve(None, &RepoPath::root()).await.unwrap();
        let boot_id = boot::boot_id().unwrap();
        let cache = Cache::open(CacheOptions {
            dir: dir.path().join("cache"),
            map_bytes: 1 << 30,
            inline_max_bytes: 65536,
            boot_id: boot_id.clone(),
            checker: None,
        })
        .unwrap();
        let origins = BTreeMap::from([(name.clone(), Arc::new(origin) as Arc<dyn Origin>)]);
        let store = ObjectStore::new(
            cache,
            origins,
            &dir.path().join("state"),
            StoreLimits { flight_bytes: 64 << 20, batch: 1024 },
        );
        let nodes = NodeTableOptions { dir: dir.path().join("nodes"), map_bytes: 1 << 28, boot_id };
        let dicfuse = Dicfuse::open(nodes, store).unwrap();
        let root = dicfuse.add_root(&name, &snapshot, MTIME).unwrap();
        let sweeper = Sweeper(dir.path().to_owned());
        let engine = start_engine(dir.path(), &dicfuse, plan).await;
        Stack { _sweeper: sweeper, engine, dicfuse, root, faults, dir }
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Another engine on the same directories, as after the first one's process was killed.
    pub(crate) async fn second_engine(&self, plan: Plan) -> KernelEngine {
        start_engine(self.dir.path(), &self.dicfuse, plan).await
    }

    /// Directories for a workspace of `uid` at `home/<uid>/<name>`, whose home nobody else can enter.
    pub(crate) fn place(&self, uid: u32, name: &str) -> Place {
        let mut random = [0; WorkspaceId::LEN];
        rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty()).unwrap();
        let id = WorkspaceId::from_random(random);
        let home = self.at(&format!("home/{uid}"));
        let (point, state) = (home.join(name), self.at(&format!("state/{id}")));
        for (dir, owner) in [(&home, uid), (&point, uid), (&state, 0)] {
            fs::create_dir_all(dir).unwrap();
            chown(dir, Some(owner), Some(owner)).unwrap();
            fs::set_permissions(dir, Permissions::from_mode(0o700)).unwrap();
        }
        for (name, owner) in [("upper", uid), ("work", 0), ("empty", uid)] {
            let dir = state.join(name);
            fs::create_dir(&dir).unwrap();
            chown(&dir, Some(owner), Some(owner)).unwrap();
            fs::set_permissions(&dir, Permissions::from_mode(0o700)).unwrap();
        }
        Place { id, uid, point, state }
    }

    pub(crate) fn spec(&self, place: &Place) -> MountSpec {
        MountSpec {
            workspace: place.id.clone(),
            root: self.root.clone(),
            owner: Identity { uid: place.uid, gid: place.uid, groups: Vec::new() },
            stored: scorpio::sys::idmap::Ids { uid: place.uid, gid: place.uid },
            point: MountPoint { path: place.point.clone(), expect: None },
            upper: place.writable(),
        }
    }

    pub(crate) async fn mount(&self, place: &Place) -> Mounted {
        self.engine.mount(&self.spec(place)).await.unwrap()
    }

    /// Requests read from all devices so far, by opcode.
    pub(crate) fn requests(&self) -> BTreeMap<&'static str, u64> {
        let mut sum = BTreeMap::new();
        for session in self.engine.sessions() {
            for (opcode, count) in session.stats.by_opcode {
                *sum.entry(opcode).or_default() += count;
            }
        }
        sum
    }

    pub(crate) fn mounts(&self) -> Vec<MountEntry> {
        mounts_below(self.dir.path())
    }

    /// Nothing of any workspace is mounted, and no layer is left.
    pub(crate) fn assert_nothing_left(&self) {
        let overlays: Vec<_> = self.mounts().into_iter().filter(|entry| entry.fs_type == "overlay").collect();
        assert_eq!(overlays, []);
        let layers: Vec<_> = self
            .mounts()
            .into_iter()
            .filter(|entry| entry.mount_point.starts_with(self.at("run/layers/x").parent().unwrap()))
            .collect();
        assert_eq!(layers.len(), 1, "{layers:?}");
        assert_eq!(fs::read_dir(self.at("run/layers")).unwrap().count(), 0);
    }

    /// Ends the engine; afterwards nothing at all is mounted.
    pub(crate) async fn end(self) {
        self.engine.shutdown(Leave::Nothing).await;
        assert_eq!(self.mounts(), []);
    }
}

impl Place {
    pub(crate) fn writable(&self) -> Upper {
        Upper::Writable { upper: self.state.join("upper"), work: self.state.join("work"), volatile: false }
    }

    pub(crate) fn read_only(&self) -> Upper {
        Upper::ReadOnly { empty: self.state.join("empty") }
    }

    pub(crate) fn identity(&self) -> PointIdentity {
        use std::os::unix::fs::MetadataExt;
        let meta = fs::symlink_metadata(&self.point).unwrap();
        PointIdentity { dev: meta.dev(), ino: meta.ino() }
    }

    /// Runs a shell script in the mount point as `uid`; it must succeed. Gives its standard output.
    pub(crate) fn run_as(&self, uid: u32, script: &str) -> String {
        let output = self.try_as(uid, script);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "{script}\n{}\n{}", text(&output.stdout), text(&output.stderr));
        text(&output.stdout)
    }

    /// The same, and it may fail. Killed after a minute.
    pub(crate) fn try_as(&self, uid: u32, script: &str) -> Output {
        self.beside_as(uid, &format!("cd \"$0\" && {{ {script}\n}}"))
    }

    /// The same outside; `$0` is the mount point.
    pub(crate) fn beside_as(&self, uid: u32, script: &str) -> Output {
        Command::new("timeout")
            .args(["-s", "KILL", "60", "sh", "-euc"])
            .arg(script)
            .arg(&self.point)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", "/nonexistent")
            .current_dir("/")
            .uid(uid)
            .gid(uid)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }
}

pub(crate) fn mounts_below(dir: &Path) -> Vec<MountEntry> {
    let entries = mountinfo::read(Whose::Own).unwrap();
    entries.into_iter().filter(|entry| entry.mount_point.starts_with(dir)).collect()
}

pub(crate) fn fault_of(result: Result<Mounted, MountError>) -> scorpio::engine::PointFault {
    match result {
        Err(MountError::Point { fault, .. }) => fault,
        other => panic!("no fault of the point: {other:?}"),
    }
}

async fn start_engine(dir: &Path, dicfuse: &Dicfuse, plan: Plan) -> KernelEngine {
    let args = ["mounter"].iter().chain(&plan.mounter_args).map(OsString::from).collect();
    let options = KernelOptions {
        runtime_dir: dir.join("run"),
        lower: plan.lower,
        replay: Replay::Auto,
        limits: SessionLimits {
            workers: 2,
            parked: 256,
            parked_per_user: 128,
            deadline: plan.deadline,
            entry_ttl: plan.entry_ttl,
        },
        fetches_per_user: 16,
        mount_timeout: plan.mount_timeout,
        launcher: Launcher { program: dir.join("mounter"), args },
        boot_id: scorpio::sys::boot::boot_id().unwrap(),
        handover: scorpio::engine::handover::Handover::default(),
    };
    let (dicfuse, runtime) = (dicfuse.clone(), tokio::runtime::Handle::current());
    tokio::task::spawn_blocking(move || KernelEngine::new(options, dicfuse, runtime)).await.unwrap().unwrap()
}

/// A repository with what is rare: odd names, an executable, symlinks, a wide and a deep directory, a large file.
fn make_repository(path: &Path) {
    fs::create_dir(path).unwrap();
    let write = |name: &[u8], content: &[u8]| {
        let file = path.join(std::ffi::OsStr::from_bytes(name));
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, content).unwrap();
    };
    write(b"README", b"hello\n");
    write(b"empty", b"");
    write(b"src/main.c", b"#include <stdio.h>\nint main(void) { puts(\"built\"); return 0; }\n");
    write(b"src/Makefile", b"main: main.c\n\tcc -o main main.c\n");
    write(b"odd/a b", b"blank");
    write(b"odd/new\nline", b"newline");
    write(b"odd/\xff\xfe", b"no text");
    write(b"odd/100%", b"percent");
    write(&[b"odd/".as_slice(), &[b'n'; 255]].concat(), b"long name");
    write(&[b"deep/".to_vec(), b"d/".repeat(40), b"leaf".to_vec()].concat(), b"deep");
    for number in 0..500 {
        write(format!("wide/file-{number:03}").as_bytes(), format!("content {number}\n").as_bytes());
    }
    let large: Vec<u8> =
        (0..3_000_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    write(b"large", &large);
    write(b"run.sh", b"#!/bin/sh\necho ran\n");
    fs::set_permissions(path.join("run.sh"), Permissions::from_mode(0o755)).unwrap();
    symlink("../README", path.join("src/link")).unwrap();
    symlink("/nowhere/at/all", path.join("dangling")).unwrap();
    git(path, &["init", "-q"]);
    git(path, &["add", "-A"]);
    git(path, &["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-q", "-m", "all"]);
}

pub(crate) fn git(path: &Path, args: &[&str]) {
    let done =
        Command::new("git").current_dir(path).args(args).env("GIT_CONFIG_NOSYSTEM", "1").status().unwrap();
    assert!(done.success(), "git {args:?}");
}
