//! Workspaces on the real thing: a git repository, the object store, the shared tree, FUSE and overlayfs. Needs root.
//!
//! This process serves the mounts, so it never walks into one: what users do is done by processes of their own.
#![allow(clippy::unwrap_used)] // a test that cannot go on fails

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::{self, Permissions},
    os::unix::{
        fs::{PermissionsExt, chown, symlink},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use scorpio::{
    antares::{Antares, AntaresConfig, Create, Options, Scope, State, Workspace, WorkspaceError},
    cache::{Cache, CacheOptions},
    config::{Limits, LowerKind, Replay},
    dicfuse::{Dicfuse, NodeTableOptions},
    engine::{
        Leave, OverlayEngine, UnmountError,
        handover::Handover,
        kernel::{KernelEngine, KernelOptions, Launcher},
    },
    fusedev::SessionLimits,
    origin::{Origin, git::GitOrigin},
    store::{ObjectStore, StoreLimits},
    sys::{
        boot,
        identity::Identity,
        mount::{self, Unmount},
        mountinfo::{self, Whose},
    },
    types::{OriginName, RepoPath},
};

const ALICE: u32 = 61001;
const ALL: Scope = Scope::Everybody;

/// A directory that holds a host's state; everything below is unmounted at the end, also of a failed test.
struct Host(tempfile::TempDir);

impl Drop for Host {
    fn drop(&mut self) {
        for path in self.mounts().iter().rev() {
            let _ = mount::unmount(path, Unmount::Lazily);
        }
    }
}

/// One run of the daemon.
struct Daemon {
    antares: Antares,
    engine: Arc<KernelEngine>,
}

impl Host {
    fn new() -> Host {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        for name in ["run", "nodes", "home"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        symlink(env!("CARGO_BIN_EXE_scorpiod"), dir.path().join("mounter")).unwrap();
        make_repository(&dir.path().join("repository"));
        Host(dir)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn mounts(&self) -> Vec<PathBuf> {
        let entries = mountinfo::read(Whose::Own).unwrap().into_iter();
        entries.map(|entry| entry.mount_point).filter(|path| path.starts_with(self.0.path())).collect()
    }

    async fn start(&self) -> Daemon {
        let name: OriginName = "test".parse().unwrap();
        let origin = GitOrigin::open(name.clone(), &self.at("repository"), Identity::root()).unwrap();
        let boot_id = boot::boot_id().unwrap();
        let cache = Cache::open(CacheOptions {
            dir: self.at("cache"),
            map_bytes: 1 << 30,
            inline_max_bytes: 65536,
            boot_id: boot_id.clone(),
            checker: None,
        })
        .unwrap();
        let origins = BTreeMap::from([(name, Arc::new(origin) as Arc<dyn Origin>)]);
        let store = ObjectStore::new(
            cache,
            origins,
            &self.at("state"),
            StoreLimits { flight_bytes: 64 << 20, batch: 1024 },
        );
        let nodes = NodeTableOptions { dir: self.at("nodes"), map_bytes: 1 << 28, boot_id: boot_id.clone() };
        let dicfuse = Dicfuse::open(nodes, store.clone()).unwrap();
        let options = KernelOptions {
            runtime_dir: self.at("run"),
            lower: LowerKind::Auto,
            replay: Replay::Auto,
            limits: SessionLimits {
                workers: 2,
                parked: 256,
                parked_per_user: 128,
                deadline: Duration::from_secs(20),
                entry_ttl: Duration::from_secs(1 << 25),
            },
            fetches_per_user: 16,
            mount_timeout: Duration::from_secs(20),
            launcher: Launcher { program: self.at("mounter"), args: vec![OsString::from("mounter")] },
            boot_id: boot_id.clone(),
            handover: Handover::default(),
        };
        let (tree, runtime) = (dicfuse.clone(), tokio::runtime::Handle::current());
        let engine = tokio::task::spawn_blocking(move || KernelEngine::new(options, tree, runtime));
        let engine = Arc::new(engine.await.unwrap().unwrap());
        let limits = Limits {
            workspaces_per_user: 64,
            workspaces_per_host: 1024,
            connections_per_user: 32,
            calls_per_user: 64,
            connections: 512,
            max_ttl: Duration::from_secs(3600),
        };
        let upper_root = self.at("state/workspaces");
        let config = AntaresConfig { state_dir: self.at("state"), upper_root, boot_id, limits };
        let antares = Antares::open(config, Arc::clone(&engine) as _, dicfuse, store).await.unwrap();
        Daemon { antares, engine }
    }

    fn request(&self, name: &str) -> Create {
        let (home, point) = (self.at("home/alice"), self.at("home/alice").join(name));
        for dir in [&home, &point] {
            fs::create_dir_all(dir).unwrap();
            chown(dir, Some(ALICE), Some(ALICE)).unwrap();
        }
        Create {
            origin: "test".parse().unwrap(),
            rev: None,
            path: RepoPath::root(),
            mount_point: point,
            options: Options::default(),
        }
    }
}

impl Daemon {
    async fn stop(self) {
        self.antares.shutdown(Leave::Nothing).await;
        self.engine.shutdown(Leave::Nothing).await;
    }
}

fn alice() -> Identity {
    Identity { uid: ALICE, gid: ALICE, groups: Vec::new() }
}

fn shell(at: &Path, script: &str) -> Command {
    let mut command = Command::new("timeout");
    command
        .args(["-s", "KILL", "60", "sh", "-euc"])
        .arg(format!("cd \"$0\" && {{ {script}\n}}"))
        .arg(at)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .current_dir("/")
        .uid(ALICE)
        .gid(ALICE)
        .stdin(Stdio::null());
    command
}

/// What a shell script run by alice in her workspace says.
async fn says(workspace: &Workspace, script: &str) -> String {
    let mut command = shell(&workspace.mount_point, script);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn make_repository(path: &Path) {
    fs::create_dir_all(path.join("src")).unwrap();
    fs::write(path.join("README"), "hello\n").unwrap();
    for n in 0..50 {
        fs::write(path.join(format!("src/file-{n}")), format!("content {n}\n")).unwrap();
    }
    for args in [
        &["init", "-q"][..],
        &["add", "-A"],
        &["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "all"],
    ] {
        let done = Command::new("git").current_dir(path).args(args).env("GIT_CONFIG_NOSYSTEM", "1").status();
        assert!(done.unwrap().success(), "git {args:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_survive_stops_and_restarts_and_files_keep_their_times() {
    let host = Host::new();
    let daemon = host.start().await;
    let made = daemon.antares.create(&alice(), host.request("w")).await.unwrap();
    assert_eq!(
        says(&made, "cat README; ls src | wc -l; stat -c %U:%u:%a .").await,
        "hello\n50\nUNKNOWN:61001:700\n"
    );
    says(&made, "echo mine > new; echo more >> README; rm src/file-0; mv src moved; sync").await;
    let times = says(&made, "stat -c %Y moved/file-1").await;
    daemon.stop().await;
    assert_eq!(host.mounts(), Vec::<PathBuf>::new());

    for lazily in [false, true] {
        let daemon = host.start().await;
        let back = daemon.antares.get(&ALL, &made.id).unwrap();
        assert_eq!(back.state, State::Mounted);
        assert_eq!(says(&back, "cat new README; ls moved | wc -l").await, "mine\nhello\nmore\n49\n");
        assert_eq!(says(&back, "stat -c %Y moved/file-1").await, times);
        daemon.antares.unmount(&ALL, &made.id, lazily).await.unwrap();
        daemon.antares.mount(&ALL, &made.id, None).await.unwrap();
        assert_eq!(says(&back, "cat new").await, "mine\n");
        daemon.stop().await;
    }

    let daemon = host.start().await;
    assert!(matches!(
        daemon.antares.remove(&ALL, &made.id, false, false).await,
        Err(WorkspaceError::UnsavedChanges(_))
    ));
    daemon.antares.remove(&ALL, &made.id, true, false).await.unwrap();
    daemon.stop().await;
    assert_eq!(host.mounts(), Vec::<PathBuf>::new());
    assert_eq!(fs::read_dir(&made.mount_point).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_that_dies_leaves_mounts_that_the_next_one_replaces() {
    let host = Host::new();
    let daemon = host.start().await;
    let mut made = Vec::new();
    for n in 0..5 {
        let workspace = daemon.antares.create(&alice(), host.request(&format!("w{n}"))).await.unwrap();
        says(&workspace, &format!("echo {n} > mine; echo x >> README")).await;
        made.push(workspace);
    }
    let options = Options { ephemeral: true, ..Options::default() };
    let job = daemon.antares.create(&alice(), Create { options, ..host.request("job") }).await.unwrap();
    says(&job, "echo scratch > f").await;
    // As after SIGKILL: sessions end, overlays stay behind and answer nothing.
    drop(daemon);
    assert!(host.mounts().len() >= 6);

    let daemon = host.start().await;
    for (n, workspace) in made.iter().enumerate() {
        assert_eq!(daemon.antares.get(&ALL, &workspace.id).unwrap().state, State::Mounted);
        assert_eq!(says(workspace, "cat mine README").await, format!("{n}\nhello\nx\n"));
        assert_eq!(host.mounts().iter().filter(|path| **path == workspace.mount_point).count(), 1);
    }
    assert!(!host.mounts().contains(&job.mount_point));
    assert!(matches!(daemon.antares.get(&ALL, &job.id), Err(WorkspaceError::NoSuchWorkspace(_))));
    daemon.stop().await;
    assert_eq!(host.mounts(), Vec::<PathBuf>::new());
    assert!(!job.upper.exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workspace_in_use_is_not_taken_away_from_under_a_process() {
    let host = Host::new();
    let daemon = host.start().await;
    let made = daemon.antares.create(&alice(), host.request("w")).await.unwrap();
    let mut holder =
        shell(&made.mount_point, "exec 3>log; echo ready; read line; echo $line >&3; cat README")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
    let mut lines = std::io::BufReader::new(holder.stdout.take().unwrap());
    let mut ready = String::new();
    let (lines, _) = tokio::task::spawn_blocking(move || {
        std::io::BufRead::read_line(&mut lines, &mut ready).unwrap();
        (lines, ready)
    })
    .await
    .unwrap();
    for lazy in [false, true] {
        let refused = daemon.antares.remove(&ALL, &made.id, false, lazy).await;
        assert!(
            matches!(
                refused,
                Err(WorkspaceError::UnsavedChanges(_) | WorkspaceError::Unmount(UnmountError::Busy { .. }))
            ),
            "{refused:?}"
        );
    }
    assert!(matches!(
        daemon.antares.unmount(&ALL, &made.id, false).await,
        Err(WorkspaceError::Unmount(UnmountError::Busy { .. }))
    ));
    assert_eq!(daemon.antares.get(&ALL, &made.id).unwrap().state, State::Mounted);
    daemon.antares.unmount(&ALL, &made.id, true).await.unwrap();
    let again = daemon.antares.mount(&ALL, &made.id, None).await.unwrap();
    // The process writes on through the mount that only it still sees, and reads what was never read before.
    std::io::Write::write_all(&mut holder.stdin.take().unwrap(), b"last words\n").unwrap();
    let rest = tokio::task::spawn_blocking(move || {
        let mut rest = String::new();
        std::io::Read::read_to_string(&mut { lines }, &mut rest).unwrap();
        assert!(holder.wait().unwrap().success());
        rest
    });
    assert_eq!(rest.await.unwrap(), "hello\n");
    assert_eq!(fs::read(made.upper.join("log")).unwrap(), b"last words\n");
    says(&again, "echo more > other").await;
    daemon.stop().await;
    assert_eq!(fs::read(made.upper.join("other")).unwrap(), b"more\n");
}
