//! A mount of a [`Tree`] that never outlives its test, and processes in it that cannot hang the suite.

use std::{
    ffi::CString,
    io::Read,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::{fs::PermissionsExt, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use scorpio::{
    config::Replay,
    fusedev::{Features, Negotiated, Session, SessionLimits, SessionStats, Slots, SlotsId, open_device},
};

use crate::tree::Tree;

/// Longer than anything here takes on a loaded machine; reaching it is a failure.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const LIMITS: SessionLimits = SessionLimits {
    workers: 3,
    parked: 64,
    parked_per_user: 32,
    deadline: PATIENCE,
    entry_ttl: Duration::MAX,
};

pub(crate) const PLAIN: Features = Features { idmap: false, replay: Replay::Auto, generation: 1 };

/// The handshake's record, and memory with its id.
pub(crate) type Left = (Vec<u8>, Option<(OwnedFd, SlotsId)>);

pub(crate) struct Mounted {
    pub(crate) tree: Arc<Tree>,
    pub(crate) session: Option<Session>,
    /// A duplicate of the device, as a service manager would keep it.
    pub(crate) kept: OwnedFd,
    pub(crate) runtime: tokio::runtime::Runtime,
    at: PathBuf,
    _dir: tempfile::TempDir,
}

impl Mounted {
    pub(crate) fn new(limits: SessionLimits, features: Features, gate_open: bool) -> Mounted {
        assert!(rustix::process::geteuid().is_root(), "these tests mount: run them as root");
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let at = dir.path().join("m");
        std::fs::create_dir(&at).unwrap();
        let device = open_device().unwrap();
        let data = format!(
            "fd={},rootmode=40755,user_id=0,group_id=0,allow_other,default_permissions",
            device.as_raw_fd()
        );
        let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
        mount("fusedev-test", &at, "fuse", flags, CString::new(data).unwrap().as_c_str()).unwrap();
        let guard = Unmount(Some(at.clone()));
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let tree = Arc::new(Tree::new(gate_open));
        let kept = device.try_clone().unwrap();
        let session =
            Session::start(device, Arc::clone(&tree) as _, features, limits, runtime.handle().clone())
                .unwrap();
        guard.keep();
        Mounted { tree, session: Some(session), kept, runtime, at, _dir: dir }
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.at.join(name).to_str().unwrap().to_owned()
    }

    pub(crate) fn session(&self) -> &Session {
        self.session.as_ref().unwrap()
    }

    /// Ends the session, not the connection; what it leaves.
    pub(crate) fn end(&mut self) -> Left {
        let session = self.session.take().unwrap();
        let slots = session.slots().map(|slots| (slots.as_fd().try_clone_to_owned().unwrap(), *slots.id()));
        (session.negotiated().to_bytes().to_vec(), slots)
    }

    /// Goes on with it, asking `tree`.
    pub(crate) fn resume(&mut self, (record, slots): Left) {
        let resumed = Session::resume(
            self.kept.try_clone().unwrap(),
            Negotiated::from_bytes(&record).unwrap(),
            slots.map(|(file, id)| Slots::open(file, &id).unwrap()),
            Arc::clone(&self.tree) as _,
            LIMITS,
            self.runtime.handle().clone(),
        );
        self.session = Some(resumed.unwrap());
    }

    pub(crate) fn stats(&self) -> SessionStats {
        self.session().stats()
    }

    pub(crate) fn count(&self, opcode: &str) -> u64 {
        self.stats().by_opcode.get(opcode).copied().unwrap_or(0)
    }

    pub(crate) fn unmount(&self) {
        unmount(&self.at, UnmountFlags::DETACH).unwrap();
    }

    /// Waits until `what` holds.
    pub(crate) fn until(&self, what: &str, holds: impl Fn(&SessionStats) -> bool) {
        eventually(what, || holds(&self.stats()));
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        drop(Unmount(Some(self.at.clone())));
    }
}

struct Unmount(Option<PathBuf>);

impl Unmount {
    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Unmount {
    fn drop(&mut self) {
        if let Some(at) = &self.0 {
            let _ = unmount(at, UnmountFlags::DETACH); // a test may have done it already
        }
    }
}

pub(crate) fn eventually(what: &str, holds: impl Fn() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < until, "never came true: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A process that is killed when the test is over, and waited for with a limit.
pub(crate) struct Process(Child);

pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) out: Vec<u8>,
    pub(crate) err: String,
}

pub(crate) fn spawn(program: impl AsRef<Path>, args: &[&str], uid: u32) -> Process {
    let mut command = Command::new(program.as_ref());
    command.args(args).env("LC_ALL", "C").stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    if uid != 0 {
        command.uid(uid).gid(uid);
    }
    Process(command.spawn().unwrap())
}

pub(crate) fn run(program: impl AsRef<Path>, args: &[&str]) -> Ended {
    spawn(program, args, 0).end()
}

impl Process {
    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Waits for its end, reading what it says meanwhile.
    pub(crate) fn end(mut self) -> Ended {
        let out = drain(self.0.stdout.take().unwrap());
        let err = drain(self.0.stderr.take().unwrap());
        let status = self.wait();
        Ended { status, out: out.join().unwrap(), err: String::from_utf8(err.join().unwrap()).unwrap() }
    }

    fn wait(&mut self) -> ExitStatus {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < until, "a process hangs in the mount");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill(); // it has ended, unless the test has failed
    }
}

fn drain(mut from: impl Read + Send + 'static) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut all = Vec::new();
        from.read_to_end(&mut all).unwrap();
        all
    })
}
