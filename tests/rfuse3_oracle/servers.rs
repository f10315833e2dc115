//! Both servers over one tree, each with a mount of its own, and processes that look at it.
//!
//! This process serves the mounts, so it must never walk into one.

use std::{
    collections::BTreeMap,
    ffi::CString,
    fs,
    os::{fd::AsRawFd, unix::fs::PermissionsExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use scorpio::{
    cache::{Cache, CacheOptions},
    dicfuse::{Dicfuse, NodeTableOptions, Root},
    engine::{rfuse3::Rfuse3, serve::Served},
    fusedev::{Answer, Answered, Asker, Features, FileSystem, Question, Session, SessionLimits, open_device},
    origin::{Origin, git::GitOrigin},
    store::{ObjectStore, StoreLimits},
    sys::{boot, identity::Identity},
    types::{OriginName, RepoPath},
};

use super::{Answers, origin_fixture::assert_root, repository};

/// Whom the files belong to.
pub(crate) const ALICE: u32 = 61_001;
/// Somebody else.
pub(crate) const BOB: u32 = 61_002;
/// What [`Mounted::wrong`] tells a wrong owner of.
pub(crate) const WRONGED: &str = "names/a b";

const MTIME: i64 = 1_700_000_000;

pub(crate) const LIMITS: SessionLimits = SessionLimits {
    workers: 2,
    parked: 1024,
    parked_per_user: 1024,
    deadline: Duration::from_secs(60),
    entry_ttl: Duration::MAX,
};

/// A tree with all it needs.
pub(crate) struct World {
    pub(crate) dicfuse: Dicfuse,
    pub(crate) root: Root,
    dir: tempfile::TempDir,
}

impl World {
    pub(crate) async fn new() -> World {
        assert_root();
        let dir = tempfile::Builder::new().prefix("scorpio-oracle.").tempdir_in("/var/tmp").unwrap();
        fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let at = |name: &str| dir.path().join(name);
        repository::build(&at("repository"));
        fs::create_dir(at("nodes")).unwrap();
        let name: OriginName = "odd".parse().unwrap();
        let origin = GitOrigin::open(name.clone(), &at("repository"), Identity::root()).unwrap();
        let snapshot = origin.resolve(None, &RepoPath::root()).await.unwrap();
        let boot_id = boot::boot_id().unwrap();
        let cache = CacheOptions {
            dir: at("cache"),
            map_bytes: 1 << 30,
            inline_max_bytes: 65_536,
            boot_id: boot_id.clone(),
            checker: None,
        };
        let origins = BTreeMap::from([(name.clone(), Arc::new(origin) as Arc<dyn Origin>)]);
        let limits = StoreLimits { flight_bytes: 64 << 20, batch: 1024 };
        let store = ObjectStore::new(Cache::open(cache).unwrap(), origins, &at("state"), limits);
        let nodes = NodeTableOptions { dir: at("nodes"), map_bytes: 1 << 28, boot_id };
        let dicfuse = Dicfuse::open(nodes, store).unwrap();
        let root = dicfuse.add_root(&name, &snapshot, MTIME).unwrap();
        World { dicfuse, root, dir }
    }

    /// What our own sessions of it ask for.
    pub(crate) fn features(&self) -> Features {
        let generation = self.dicfuse.generation();
        Features { idmap: false, replay: scorpio::config::Replay::Auto, generation }
    }

    pub(crate) fn served(&self) -> Served {
        Served::new(self.dicfuse.clone(), ALICE, ALICE, std::time::Duration::from_secs(60), 16)
    }

    fn point(&self, name: &str) -> PathBuf {
        let point = self.dir.path().join(name);
        fs::create_dir(&point).unwrap();
        point
    }
}

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Mode {
    /// As the engine mounts it: the kernel refuses changes.
    ReadOnly,
    /// The kernel asks the server, which refuses them.
    Writable,
}

/// Who serves; ends with the mount.
#[allow(dead_code)] // held, not used
enum Server {
    Ours(Session),
    Rfuse3(rfuse3::raw::MountHandle),
}

pub(crate) struct Mounted {
    at: PathBuf,
    tree: String,
    mode: Mode,
    _server: Server,
}

impl Mounted {
    pub(crate) fn ours(world: &World, mode: Mode) -> Mounted {
        Mounted::by_us(world, "ours", mode, Arc::new(world.served()))
    }

    /// Ours, with one file that belongs to somebody else.
    pub(crate) fn wrong(world: &World) -> Mounted {
        let wronged = Wrong { served: world.served(), name: WRONGED.split('/').next_back().unwrap() };
        Mounted::by_us(world, "wrong", Mode::ReadOnly, Arc::new(wronged))
    }

    fn by_us(world: &World, name: &str, mode: Mode, fs: Arc<dyn FileSystem>) -> Mounted {
        let at = world.point(name);
        let device = open_device().unwrap();
        let fd = device.as_raw_fd();
        let data = format!("fd={fd},user_id=0,group_id=0,rootmode=40755,allow_other,default_permissions");
        let flags = if mode == Mode::ReadOnly { MountFlags::RDONLY } else { MountFlags::empty() };
        mount("fuse", &at, "fuse", flags, CString::new(data).unwrap().as_c_str()).unwrap();
        let runtime = tokio::runtime::Handle::current();
        let session = Session::start(device, fs, world.features(), LIMITS, runtime);
        let session = session.inspect_err(|_| detach(&at)).unwrap();
        Mounted { at, tree: world.root.id.to_string(), mode, _server: Server::Ours(session) }
    }

    pub(crate) async fn rfuse3(world: &World, mode: Mode) -> Mounted {
        let at = world.point("rfuse3");
        let mut options = rfuse3::MountOptions::default();
        options.uid(0).gid(0).rootmode(40755).allow_other(true).default_permissions(true);
        options.no_open_support(true).no_open_dir_support(true).read_only(mode == Mode::ReadOnly);
        let session = rfuse3::raw::Session::new(options);
        let handle = session.mount(Rfuse3::new(world.served(), LIMITS), &at).await.unwrap();
        Mounted { at, tree: world.root.id.to_string(), mode, _server: Server::Rfuse3(handle) }
    }

    /// All that `uid` can learn, question by question; one that is put twice has two answers.
    pub(crate) async fn look(&self, uid: u32) -> Answers {
        let mode = if self.mode == Mode::ReadOnly { "ro" } else { "rw" };
        let mut command = Command::new("timeout");
        command.args(["-s", "KILL", "120", "python3", "-c", include_str!("look.py"), &self.tree]);
        command.arg(&self.at).arg(mode).env_clear().env("PATH", "/usr/bin:/bin").current_dir("/");
        std::os::unix::process::CommandExt::gid(&mut command, uid);
        std::os::unix::process::CommandExt::uid(&mut command, uid);
        command.stdin(Stdio::null());
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let mut answers = Answers::new();
        for line in output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let (question, answer) = serde_json::from_slice(line).unwrap();
            answers.entry(question).or_default().push(answer);
        }
        answers
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        detach(&self.at);
    }
}

fn detach(at: &Path) {
    let _ = unmount(at, UnmountFlags::DETACH);
}

/// Has the kernel forget names and pages that nobody uses.
pub(crate) fn drop_caches() {
    fs::write("/proc/sys/vm/drop_caches", "3").unwrap();
}

/// A server that is wrong about one name.
struct Wrong {
    served: Served,
    name: &'static str,
}

impl FileSystem for Wrong {
    fn ask(&self, question: Question<'_>, asker: &Asker) -> Answered {
        let is_it = matches!(question, Question::Lookup { name, .. } if name == self.name.as_bytes());
        match self.served.ask(question, asker) {
            Answered::Now(answer) if is_it => Answered::Now(spoil(answer)),
            Answered::Later(answer) | Answered::LaterOr(answer, _) if is_it => {
                Answered::Later(Box::pin(async move { spoil(answer.await) }))
            }
            other => other,
        }
    }
}

fn spoil(answer: Answer) -> Answer {
    match answer {
        Answer::Entry(mut attr) => {
            attr.nlink += 1;
            Answer::Entry(attr)
        }
        other => other,
    }
}
