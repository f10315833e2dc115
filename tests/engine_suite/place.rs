//! The places that are compared: a writable tree of a user's, and how it is mounted again.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::{
        Arc, RwLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use crate::{
    Family, OK, Outcome,
    support::{ALICE, BOB, Host, become_user, lower},
};

/// No case of either size comes near it.
const LONGEST_CASE_S: u32 = 1800;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A directory of ext4.
    Native,
    /// overlayfs as we mount it, over a directory of ext4.
    Overlay,
    /// A workspace; one session for all users.
    Shared,
    /// A workspace; a session for each owner.
    PerOwner,
}

impl Kind {
    pub const ALL: [Kind; 4] = [Kind::Native, Kind::Overlay, Kind::Shared, Kind::PerOwner];

    pub fn title(self) -> &'static str {
        match self {
            Kind::Native => "ext4",
            Kind::Overlay => "overlayfs on ext4",
            Kind::Shared => "Scorpio, shared lower",
            Kind::PerOwner => "Scorpio, lower per owner",
        }
    }

    pub fn is_scorpio(self) -> bool {
        matches!(self, Kind::Shared | Kind::PerOwner)
    }
}

/// One user's tree.
pub struct Place {
    pub kind: Kind,
    pub uid: u32,
    /// Where it is mounted.
    pub at: PathBuf,
    workspace: String,
    host: Arc<RwLock<Host>>,
}

/// The family's tree in a place of `kind`, for each user of the family.
pub fn make(kind: Kind, family: &Family) -> Vec<Place> {
    let extra = match kind {
        Kind::PerOwner => lower("per-owner"),
        _ => lower("shared"),
    };
    // A build without optimisation takes its time to check a large blob, on a busy machine most of all.
    let mut host = Host::new(&format!("{extra}[fetch]\ndeadline = \"30m\"\n"));
    fs::create_dir(host.path("repo")).unwrap();
    // Large blobs of noise are stored, not squeezed.
    host.sh(&format!(
        "cd repo && git init -q -b main . && git config user.name t && git config user.email t@t && \
         git config gc.auto 0 && git config core.compression 0 && {}\ngit add -A -f . && git commit -q -m first",
        family.tree
    ));
    if kind.is_scorpio() {
        if family.kept {
            host.manage();
        }
        host.start();
    }
    let host = Arc::new(RwLock::new(host));
    let users = if kind.is_scorpio() { family.users } else { &family.users[..1] };
    users.iter().map(|uid| Place::new(kind, *uid, &host)).collect()
}

impl Place {
    fn new(kind: Kind, uid: u32, shared: &Arc<RwLock<Host>>) -> Place {
        let host = shared.read().unwrap();
        let name = if uid == BOB { "bob" } else { "alice" };
        let home = host.point(uid, &format!("{name}-home"));
        assert!(home.is_dir() && (uid == ALICE || uid == BOB));
        let fill = |dir: &str| {
            host.sh(&format!(
                "git -C repo -c tar.umask=022 archive HEAD | tar x -C '{dir}' && chown -R {uid}:{uid} '{dir}'"
            ))
        };
        let (at, workspace) = match kind {
            Kind::Native => {
                let at = host.point(uid, name);
                fill(at.to_str().unwrap());
                (at, String::new())
            }
            Kind::Overlay => {
                let at = host.point(uid, name);
                host.sh(&format!("install -d -m 755 -o {uid} -g {uid} lower upper work"));
                fill("lower");
                (at, String::new())
            }
            Kind::Shared | Kind::PerOwner => host.mount(uid, name, &["--mode", "0755"]),
        };
        let place = Place { kind, uid, at, workspace, host: Arc::clone(shared) };
        drop(host);
        if kind == Kind::Overlay {
            place.mount_overlay();
        }
        place
    }

    fn mount_overlay(&self) {
        // The options of our own mounts.
        self.host.read().unwrap().sh(&format!(
            "mount -t overlay -o nosuid,nodev,lowerdir=lower,upperdir=upper,workdir=work,metacopy=on,redirect_dir=on,\
             xino=on,index=off overlay '{}'",
            self.at.display()
        ));
    }

    /// Takes it down and mounts it again, with cold caches.
    pub fn mount_again(&self) {
        let host = self.host.read().unwrap();
        match self.kind {
            Kind::Native => {}
            Kind::Overlay => {
                host.sh(&format!("umount '{}'", self.at.display()));
                self.mount_overlay();
            }
            Kind::Shared | Kind::PerOwner => {
                host.json(self.uid, &["unmount", &self.workspace]);
                assert_eq!(fs::read_dir(&self.at).unwrap().count(), 0);
                host.json(self.uid, &["mount", "--workspace", &self.workspace]);
            }
        }
        drop_caches();
    }

    /// Kills the daemon and starts it again.
    pub fn kill_daemon(&self) {
        let mut host = self.host.write().unwrap();
        host.end(nix::sys::signal::Signal::SIGKILL);
        host.start();
    }

    /// A path among the host's directories.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.host.read().unwrap().path(name)
    }

    /// A shell script as the user, in the tree; its output is the outcome.
    pub fn sh(&self, script: &str) -> Outcome {
        self.sh_as(self.uid, script)
    }

    pub fn sh_as(&self, uid: u32, script: &str) -> Outcome {
        outcome(&self.command(uid, &["sh", "-ec", script]).output().unwrap())
    }

    /// A Python program as the user, in the tree, with `prelude.py` before it.
    pub fn python(&self, program: &str) -> Outcome {
        self.python_as(self.uid, program)
    }

    pub fn python_as(&self, uid: u32, program: &str) -> Outcome {
        const PRELUDE: &str = include_str!("prelude.py");
        outcome(
            &self.command(uid, &["/usr/bin/python3", "-c", &format!("{PRELUDE}{program}")]).output().unwrap(),
        )
    }

    /// `words` as `uid`, in the tree, with a writable home beside it.
    pub fn command(&self, uid: u32, words: &[&str]) -> Command {
        let mut home = self.at.clone().into_os_string();
        home.push("-home");
        let mut command = Command::new("timeout");
        command.args(["--signal=KILL", &LONGEST_CASE_S.to_string()]).args(words);
        command.current_dir(&self.at).env("HOME", &home).env("LC_ALL", "C");
        command.env("GIT_CONFIG_GLOBAL", Path::new(&home).join("gitconfig")).env_remove("CARGO_TARGET_DIR");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        become_user(&mut command, uid);
        command
    }

    /// Names, types, modes, owners, times, targets, link counts of files, sizes and content of all that is there.
    pub fn everything(&self) -> String {
        let listing = "find . -mindepth 1 \\( -type d -printf '%p %y %m %U %G\\n' \\) -o \
             -printf '%p %y %m %U %G %l %n %s %T@\\n' | LC_ALL=C sort
             find . -type f -print0 | LC_ALL=C sort -z | xargs -0 -r sha256sum";
        self.sh(listing).unwrap()
    }

    /// A directory with the Rust tool chain that the user may enter, made once.
    pub fn tool_chain(&self) -> PathBuf {
        let at = self.beside("toolchain");
        if !at.exists() {
            let sysroot = Command::new("rustc").args(["--print", "sysroot"]).output().unwrap();
            let sysroot = String::from_utf8(sysroot.stdout).unwrap();
            let host = self.host.read().unwrap();
            host.sh(&format!("mkdir toolchain && mount --bind '{}' toolchain", sysroot.trim()));
        }
        at.join("bin")
    }

    /// What the daemon logged, for a failure.
    pub fn log(&self) -> String {
        self.host.read().unwrap().log()
    }
}

fn outcome(output: &Output) -> Outcome {
    let (said, told) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.success() {
        let said = said.trim();
        return Ok(if said.is_empty() { OK.to_owned() } else { said.to_owned() });
    }
    let last = told.lines().chain(said.lines()).map(str::trim).rfind(|line| !line.is_empty());
    eprintln!("{}\n{told}{said}", output.status);
    Err(last.unwrap_or("without a word").to_owned())
}

/// What the kernel can forget, it forgets.
pub fn drop_caches() {
    fs::write("/proc/sys/vm/drop_caches", "3").unwrap();
}

/// Drops caches in a loop until it is dropped.
pub struct Forgetful {
    go_on: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Forgetful {
    pub fn new() -> Forgetful {
        let go_on = Arc::new(AtomicBool::new(true));
        let seen = Arc::clone(&go_on);
        let thread = std::thread::spawn(move || {
            while seen.load(Relaxed) {
                drop_caches();
                std::thread::sleep(Duration::from_millis(250));
            }
        });
        Forgetful { go_on, thread: Some(thread) }
    }
}

impl Drop for Forgetful {
    fn drop(&mut self) {
        self.go_on.store(false, Relaxed);
        let _ = self.thread.take().unwrap().join();
    }
}

/// A program that `cargo install --root target/tools` put there.
pub fn tool(name: &str) -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let target = target.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target"));
    let path = target.join("tools/bin").join(name);
    let mode = fs::metadata(&path).map(|found| found.permissions().mode());
    assert!(mode.is_ok(), "{} is missing: tests/run.sh installs it", path.display());
    path
}
