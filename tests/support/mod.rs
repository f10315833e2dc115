//! A private daemon on directories of its own, and users without accounts, for tests that need the real thing.
//!
//! Needs root. Everything a [`Host`] makes is gone when it is dropped; mounts first, whatever happened to the daemon.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)] // each test binary is a crate that uses a part of it

use std::{
    collections::BTreeMap,
    fs,
    os::unix::{fs::chown, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;

pub mod manager;
pub mod reference;
pub mod systemd;

use manager::Manager;

/// Two users that no account database knows: the daemon must not need one.
pub const ALICE: u32 = 61001;
/// The second one.
pub const BOB: u32 = 61002;

/// Both ways to have files look like their user's: `[engine] lower`.
pub const LOWERS: [&str; 2] = ["shared", "per-owner"];

/// The TOML that chooses one of [`LOWERS`].
pub fn lower(kind: &str) -> String {
    format!("[engine]\nlower = \"{kind}\"\n")
}

/// Where cargo keeps the sources of this crate's dependencies: real files of all kinds, on every machine that builds us.
pub fn crates() -> PathBuf {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cargo"));
    let sources = fs::read_dir(home.join("registry/src")).unwrap();
    sources.map(|entry| entry.unwrap().path()).max_by_key(|path| fs::read_dir(path).unwrap().count()).unwrap()
}

/// How long anything may take before the test fails instead of hanging.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A daemon and its directories.
pub struct Host {
    dir: TempDir,
    daemon: Option<Child>,
    environment: Vec<(String, String)>,
    manager: Option<Manager>,
}

impl Host {
    /// Directories and a configuration with one origin, `repo`, at `<dir>/repo`; no daemon yet. `extra` is more TOML.
    pub fn new(extra: &str) -> Host {
        assert!(nix::unistd::geteuid().is_root(), "these tests mount: run them as root");
        // ext4 or the like: overlayfs takes no upper on a container's overlay or on every tmpfs.
        let dir = tempfile::Builder::new().prefix("scorpio-test.").tempdir_in("/var/tmp").unwrap();
        fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let host = Host { dir, daemon: None, environment: Vec::new(), manager: None };
        fs::create_dir(host.path("mnt")).unwrap();
        let top = host.dir.path().display();
        let config = format!(
            r#"
            [daemon]
            socket = "{top}/scorpio.sock"
            state_dir = "{top}/state"
            cache_dir = "{top}/cache"
            runtime_dir = "{top}/run"
            [auth]
            mode = "static"
            mount = ["{ALICE}", "{BOB}", "0"]
            [origin.repo]
            kind = "git"
            path = "{top}/repo"
            {extra}
            "#
        );
        fs::write(host.path("scorpio.toml"), config).unwrap();
        host
    }

    /// The same, with the daemon running on the repository that `script` makes in `<dir>/repo`.
    pub fn with_repo(extra: &str, script: &str) -> Host {
        let mut host = Host::new(extra);
        fs::create_dir(host.path("repo")).unwrap();
        // A collection in the background would still write when the directory is removed.
        host.sh(&format!(
            "cd repo && git init -q -b main . && git config user.name t && git config user.email t@t && git config gc.auto 0 && {script}"
        ));
        host.start();
        host
    }

    /// A path among this host's directories.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Sets a variable in the environment of daemons started from now on.
    pub fn set(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Has daemons from now on started by a service manager that keeps descriptors for them.
    pub fn manage(&mut self) {
        self.manager = Some(Manager::new(&self.path("notify")));
    }

    /// The service manager.
    pub fn manager(&self) -> &Manager {
        self.manager.as_ref().expect("there is a service manager")
    }

    /// Starts the daemon and waits until it answers.
    pub fn start(&mut self) {
        assert!(self.daemon.is_none(), "the daemon runs already");
        let log = fs::OpenOptions::new().create(true).append(true).open(self.path("log")).unwrap();
        let program = env!("CARGO_BIN_EXE_scorpiod");
        let command = self.manager.as_ref().map(|manager| manager.command(program));
        let daemon = command
            .unwrap_or_else(|| Command::new(program))
            .arg("--config")
            .arg(self.path("scorpio.toml"))
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.daemon = Some(daemon);
        let begin = Instant::now();
        // Not `health`: what is wrong with a workspace does not keep the daemon from answering.
        while !self.ctl(0, &["whoami"]).status.success() {
            if let Some(status) = self.daemon.as_mut().unwrap().try_wait().unwrap() {
                panic!("the daemon ended with {status}:\n{}", self.log());
            }
            assert!(begin.elapsed() < PATIENCE, "the daemon does not answer:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The daemon's process id.
    pub fn pid(&self) -> u32 {
        self.daemon.as_ref().expect("the daemon runs").id()
    }

    /// Sends the daemon a signal and waits for its end.
    pub fn end(&mut self, signal: nix::sys::signal::Signal) -> std::process::ExitStatus {
        let mut daemon = self.daemon.take().expect("the daemon runs");
        let pid = nix::unistd::Pid::from_raw(i32::try_from(daemon.id()).unwrap());
        nix::sys::signal::kill(pid, signal).unwrap();
        let begin = Instant::now();
        loop {
            if let Some(status) = daemon.try_wait().unwrap() {
                return status;
            }
            assert!(begin.elapsed() < PATIENCE, "the daemon does not end:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// What the daemon logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// Runs `scorpioctl` as `uid`.
    pub fn ctl(&self, uid: u32, args: &[&str]) -> Output {
        run(&mut self.ctl_command(uid, args))
    }

    /// `scorpioctl` as `uid`, to be run; ends in the end whatever the daemon does.
    pub fn ctl_command(&self, uid: u32, args: &[&str]) -> Command {
        let mut command = Command::new("timeout");
        command.args(["--signal=KILL", &(2 * PATIENCE.as_secs()).to_string()]);
        command.arg(env!("CARGO_BIN_EXE_scorpioctl")).arg("--socket").arg(self.path("scorpio.sock"));
        // Somewhere that every user may stand in: `.` is a default argument of some verbs.
        command.args(args).stdin(Stdio::null()).current_dir(self.dir.path());
        become_user(&mut command, uid);
        command
    }

    /// Runs `scorpioctl --json` as `uid`, which must fail. Returns its exit code and the kind of error it told.
    #[track_caller]
    pub fn refused(&self, uid: u32, args: &[&str]) -> (i32, String) {
        let output = self.ctl(uid, &[&["--json"], args].concat());
        assert!(!output.status.success(), "{args:?} worked: {output:?}");
        let told: serde_json::Value = serde_json::from_slice(&output.stderr)
            .unwrap_or_else(|error| panic!("{args:?}: {error}: {output:?}"));
        let kind = told["error"]["kind"].as_str().unwrap_or("-").to_owned();
        (output.status.code().unwrap_or(-1), kind)
    }

    /// Calls a method of the daemon as `uid` without `scorpioctl` in between, and returns its whole answer.
    #[track_caller]
    pub fn call(&self, uid: u32, method: &str, params: &serde_json::Value) -> serde_json::Value {
        let body = serde_json::json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--max-time", &PATIENCE.as_secs().to_string()]);
        command.arg("--unix-socket").arg(self.path("scorpio.sock"));
        command.args([
            "--header",
            "content-type: application/json",
            "--data-binary",
            "@-",
            "http://localhost/",
        ]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = become_user(&mut command, uid).spawn().unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), body.to_string().as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{method}: {error}: {output:?}"))
    }

    /// Messages read from the FUSE devices so far, of all sessions, by opcode.
    pub fn opcodes(&self) -> BTreeMap<String, u64> {
        let mut all = BTreeMap::new();
        for session in self.json(0, &["stats"])["sessions"].as_object().unwrap().values() {
            for (name, count) in session["by_opcode"].as_object().unwrap() {
                *all.entry(name.clone()).or_default() += count.as_u64().unwrap();
            }
        }
        all
    }

    /// What was asked since `before`, by opcode.
    pub fn asked_since(&self, before: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
        let more = |(name, count): (String, u64)| (name.clone(), count - before.get(&name).unwrap_or(&0));
        self.opcodes().into_iter().map(more).filter(|(_, count)| *count > 0).collect()
    }

    /// Runs `scorpioctl --json` as `uid`, which must succeed.
    #[track_caller]
    pub fn json(&self, uid: u32, args: &[&str]) -> serde_json::Value {
        let output = self.ctl(uid, &[&["--json"], args].concat());
        assert!(output.status.success(), "{args:?}: {output:?}\n{}", self.log());
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// A directory of `uid`'s, not there before.
    pub fn point(&self, uid: u32, name: &str) -> PathBuf {
        let path = self.path("mnt").join(name);
        fs::create_dir(&path).unwrap();
        chown(&path, Some(uid), Some(uid)).unwrap();
        path
    }

    /// Mounts `repo:/` for `uid` at a new directory and returns it with the workspace's id.
    #[track_caller]
    pub fn mount(&self, uid: u32, name: &str, args: &[&str]) -> (PathBuf, String) {
        let point = self.point(uid, name);
        let view = self.json(uid, &[&["mount", "repo:/", point.to_str().unwrap()], args].concat());
        (point, view["id"].as_str().unwrap().to_owned())
    }

    /// Messages read from the FUSE devices so far, of all sessions.
    pub fn requests(&self) -> u64 {
        let stats = self.json(0, &["stats"]);
        let sessions = stats["sessions"].as_object().unwrap();
        sessions.values().map(|session| session["requests"].as_u64().unwrap()).sum()
    }

    /// A counter of origin `repo`.
    pub fn origin_counter(&self, name: &str) -> u64 {
        self.json(0, &["stats"])["origins"]["repo"][name].as_u64().unwrap()
    }

    /// Runs a shell script in the host's directory as root; it must succeed.
    #[track_caller]
    pub fn sh(&self, script: &str) -> String {
        self.sh_as(0, script)
    }

    /// Runs a shell script as `uid` in the host's directory; it must succeed. Returns what it printed.
    #[track_caller]
    pub fn sh_as(&self, uid: u32, script: &str) -> String {
        let output = self.try_sh_as(uid, script);
        assert!(output.status.success(), "{script}\n{output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs a shell script as `uid` in the host's directory.
    pub fn try_sh_as(&self, uid: u32, script: &str) -> Output {
        let mut command = Command::new("timeout");
        command.args(["--signal=KILL", &(10 * PATIENCE.as_secs()).to_string(), "sh", "-ec", script]);
        command
            .current_dir(self.dir.path())
            .env("HOME", "/nonexistent")
            .env("GIT_CONFIG_GLOBAL", "/dev/null");
        run(become_user(&mut command, uid))
    }

    /// Runs `scorpiod` with this host's configuration and a subcommand; must succeed.
    #[track_caller]
    pub fn daemon_command(&self, args: &[&str]) -> Vec<u8> {
        let mut command = Command::new("timeout");
        command.args(["--signal=KILL", &PATIENCE.as_secs().to_string(), env!("CARGO_BIN_EXE_scorpiod")]);
        command.arg("--config").arg(self.path("scorpio.toml")).args(args);
        command.envs(self.environment.iter().map(|(name, value)| (name, value))).stdin(Stdio::null());
        let output = run(&mut command);
        assert!(output.status.success(), "{args:?}: {output:?}");
        output.stdout
    }

    /// Everything mounted below this host's directory.
    pub fn all_mounts(&self) -> Vec<PathBuf> {
        mounted_below(self.dir.path(), |_| true)
    }

    /// Mount points of workspaces below this host's directory, by mountinfo alone.
    pub fn mounts(&self) -> Vec<PathBuf> {
        mounted_below(self.dir.path(), |line| line.contains(" - overlay scorpio:"))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the daemon's log\n{}", self.log());
        }
        if let Some(mut daemon) = self.daemon.take() {
            let pid = nix::unistd::Pid::from_raw(i32::try_from(daemon.id()).unwrap());
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
            let begin = Instant::now();
            while matches!(daemon.try_wait(), Ok(None)) && begin.elapsed() < Duration::from_secs(20) {
                std::thread::sleep(Duration::from_millis(5));
            }
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
        for path in mounted_below(self.dir.path(), |_| true).into_iter().rev() {
            let _ = Command::new("umount").arg("-l").arg(path).stderr(Stdio::null()).status();
        }
    }
}

/// Makes `command` run as `uid`, with the group of the same number and no others.
pub fn become_user(command: &mut Command, uid: u32) -> &mut Command {
    if uid != 0 {
        command.uid(uid).gid(uid);
    }
    command
}

fn run(command: &mut Command) -> Output {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap()
}

fn mounted_below(top: &Path, wanted: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let points = table.lines().filter(|line| wanted(line)).filter_map(|line| line.split(' ').nth(4));
    points.map(PathBuf::from).filter(|path| path.starts_with(top)).collect()
}
