//! The daemon's life: sessions that end under it, starts that fail one after the other, a configuration read again.
//!
//! Needs root, overlayfs and FUSE, and Linux 6.9 or newer where sessions are handed over.
#![allow(clippy::unwrap_used, unreachable_pub)] // tests may, in their own functions too

mod support;

use std::{
    fs,
    io::Write as _,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use nix::sys::signal::Signal::{self, SIGCONT, SIGHUP, SIGKILL, SIGSTOP, SIGTERM};
use support::{ALICE, BOB, Host, LOWERS, PATIENCE, become_user, lower};

const REPOSITORY: &str =
    "mkdir tree && for n in 0 1 2 3 4 5 6 7; do echo $n >tree/$n; done && git add -A && git commit -qm first";

/// A daemon whose sessions are kept, and the kernel's list of connections.
fn host(extra: &str) -> Host {
    let mut host = Host::new(extra);
    fs::create_dir(host.path("repo")).unwrap();
    host.sh(&format!(
        "cd repo && git init -q -b main . && git config user.name t && git config user.email t@t && git config gc.auto 0 && {REPOSITORY}"
    ));
    host.sh("mkdir fusectl && mount -t fusectl none fusectl");
    host.manage();
    host.start();
    host
}

fn lines(host: &Host, kind: &str) -> Vec<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let top = host.path("").display().to_string();
    table.lines().filter(|line| line.contains(&top) && line.contains(kind)).map(str::to_owned).collect()
}

fn overlays(host: &Host) -> Vec<String> {
    lines(host, " - overlay scorpio:")
}

fn connections(host: &Host) -> Vec<PathBuf> {
    let minor = |line: &String| {
        let device = line.split(' ').nth(2).unwrap();
        host.path("fusectl").join(device.split(':').nth(1).unwrap())
    };
    lines(host, " - fuse.scorpio ").iter().map(minor).collect()
}

fn abort(host: &Host) {
    for connection in connections(host) {
        fs::write(connection.join("abort"), "1").unwrap();
    }
}

#[track_caller]
fn until(host: &Host, what: &str, holds: impl Fn() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < PATIENCE, "never came true: {what}\n{}", host.log());
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn signal(host: &Host, signal: Signal) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(host.pid().cast_signed()), signal).unwrap();
}

/// Somebody who reads `file` in the host's directory.
fn reader(host: &Host, file: &str) -> Child {
    let mut command = Command::new("cat");
    command.arg(host.path(file)).stdout(Stdio::null()).stderr(Stdio::null());
    become_user(&mut command, ALICE).spawn().unwrap()
}

fn wait_for_a_waiter(host: &Host) {
    let waiting = |connection: &PathBuf| {
        fs::read_to_string(connection.join("waiting")).is_ok_and(|count| count.trim() != "0")
    };
    until(host, "somebody waits", || connections(host).iter().any(waiting));
}

fn all_mounted(host: &Host, count: usize) -> bool {
    let list = host.json(0, &["list", "--all"]);
    let list = list.as_array().unwrap();
    list.len() == count && list.iter().all(|workspace| workspace["state"] == "mounted")
}

fn times(host: &Host, text: &str) -> usize {
    host.log().matches(text).count()
}

#[test]
fn aborted_sessions_are_replaced_and_their_workspaces_mounted_again() {
    for kind in LOWERS {
        let mut host = host(&lower(kind));
        let sessions = if kind == "shared" { 1 } else { 2 };
        let (point, _) = host.mount(ALICE, "alice", &[]);
        host.mount(BOB, "bob", &["--ephemeral"]);
        host.sh_as(ALICE, "cd mnt/alice && echo mine >new && rm tree/0 && mv tree/1 moved");
        host.sh_as(BOB, "echo his >mnt/bob/new");
        let mut open = fs::OpenOptions::new().append(true).open(point.join("new")).unwrap();
        let before = overlays(&host);
        // Somebody waits for an answer meanwhile.
        signal(&host, SIGSTOP);
        let mut waits = reader(&host, "mnt/alice/tree/5");
        wait_for_a_waiter(&host);
        abort(&host);
        assert!(!waits.wait().unwrap().success(), "whoever waited gets an error");
        signal(&host, SIGCONT);
        until(&host, "new mounts", || {
            let now = overlays(&host);
            now.len() == 2 && now.iter().all(|line| !before.contains(line))
        });
        until(&host, "all is told to be mounted", || all_mounted(&host, 2));
        // What is open in a dead mount is written on.
        open.write_all(b"and more\n").unwrap();
        let seen = host.sh_as(ALICE, "cd mnt/alice && cat new moved tree/5 && test ! -e tree/0");
        assert_eq!(seen, "mine\nand more\n1\n5\n");
        assert_eq!(host.sh_as(BOB, "cat mnt/bob/new mnt/bob/tree/0"), "his\n0\n");
        assert_eq!(times(&host, "the kernel has ended a session"), sessions, "{}", host.log());
        // The manager has forgotten the old ones: device and record of each new one.
        assert_eq!(host.manager().names().len(), 2 * sessions, "{:?}", host.manager().names());
        let before = overlays(&host);
        host.end(SIGKILL);
        host.start();
        assert_eq!(overlays(&host), before);
        drop(open);
        host.end(SIGTERM);
        assert_eq!(host.mounts(), Vec::<PathBuf>::new());
    }
}

/// The file handle that overlayfs would store for the file `tree/0` of the only root: node id and generation.
fn handle(host: &Host) -> (u64, u32) {
    const PROGRAM: &str = r#"
import ctypes, glob, os, struct, subprocess
class Handle(ctypes.Structure):
    _fields_ = [("bytes", ctypes.c_uint), ("type", ctypes.c_int), ("handle", ctypes.c_ubyte * 128)]
tree = subprocess.check_output(["git", "-C", "repo", "rev-parse", "HEAD^{tree}"], text=True).strip()
paths = [f"{session}/{number}-{tree}/tree/0" for session in glob.glob("run/fs/*") for number in range(8)]
[path] = filter(os.path.exists, paths)
handle, mount, call = Handle(128), ctypes.c_int(), ctypes.CDLL(None, use_errno=True).name_to_handle_at
AT_FDCWD, AT_HANDLE_FID = -100, 0x200
if call(AT_FDCWD, path.encode(), ctypes.byref(handle), ctypes.byref(mount), AT_HANDLE_FID):
    raise OSError(ctypes.get_errno(), path)
high, low, generation = struct.unpack("=III", bytes(handle.handle[:handle.bytes]))
print(high << 32 | low, generation)
"#;
    fs::write(host.path("handle.py"), PROGRAM).unwrap();
    let said = host.sh("exec /usr/bin/python3 handle.py");
    let (node, generation) = said.trim().split_once(' ').unwrap();
    (node.parse().unwrap(), generation.parse().unwrap())
}

#[test]
fn a_handle_of_the_last_boot_fits_no_file_of_this_one() {
    for kind in LOWERS {
        let mut host = host(&lower(kind));
        host.mount(ALICE, "alice", &[]);
        let (node, generation) = handle(&host);
        assert_ne!(generation, 0, "what was stored by versions without generations");
        host.end(SIGKILL);
        host.start();
        assert_eq!(handle(&host), (node, generation), "the session goes on");
        host.end(SIGTERM);
        host.start();
        assert_eq!(handle(&host), (node, generation), "another session with the same node ids");
        host.end(SIGTERM);
        // As a boot does.
        fs::remove_dir_all(host.path("run")).unwrap();
        host.start();
        let (again, other) = handle(&host);
        assert_eq!(again, node, "the ids are given from the first one on");
        assert_ne!(other, generation);
        assert_ne!(other, 0);
    }
}

#[test]
fn a_session_that_somebody_unmounted_is_served_on_and_others_get_a_new_one() {
    let host = host(&lower("shared"));
    host.mount(ALICE, "alice", &[]);
    let before = overlays(&host);
    host.sh("umount -l run/fs/shared");
    host.mount(BOB, "bob", &[]);
    assert_eq!(host.sh_as(ALICE, "cat mnt/alice/tree/3"), "3\n");
    assert_eq!(host.sh_as(BOB, "cat mnt/bob/tree/3"), "3\n");
    assert!(before.iter().all(|line| overlays(&host).contains(line)), "alice's mount is the same");
    assert_eq!(times(&host, "somebody unmounted a session"), 1, "{}", host.log());
}

/// Starts a daemon that does not come up.
#[track_caller]
fn fails_to_start(host: &Host) {
    let log = fs::OpenOptions::new().append(true).open(host.path("log")).unwrap();
    let mut command = host.manager().command(env!("CARGO_BIN_EXE_scorpiod"));
    command.arg("--config").arg(host.path("scorpio.toml"));
    let status = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).status().unwrap();
    assert_eq!(status.code(), Some(1), "{}", host.log());
}

#[test]
fn sessions_with_which_nobody_comes_up_are_let_go_and_nobody_is_stuck() {
    let mut host = host(&lower("shared"));
    host.mount(ALICE, "alice", &[]);
    host.sh_as(ALICE, "echo mine >mnt/alice/new && mv mnt/alice/tree/1 mnt/alice/moved");
    let before = overlays(&host);
    // Twice is not enough, and coming up starts anew.
    host.end(SIGKILL);
    for _ in 0..2 {
        host.sh("mv state away && touch state");
        fails_to_start(&host);
        fails_to_start(&host);
        host.sh("rm state && mv away state");
        host.start();
        assert_eq!(overlays(&host), before, "{}", host.log());
        host.end(SIGKILL);
    }
    host.sh("mv state away && touch state");
    for _ in 0..3 {
        fails_to_start(&host);
    }
    assert_eq!(host.manager().names(), ["session-shared"; 2], "three are borne");
    let mut waits = reader(&host, "mnt/alice/tree/5");
    wait_for_a_waiter(&host);
    fails_to_start(&host);
    assert!(!waits.wait().unwrap().success());
    assert_eq!(times(&host, "a session is let go: 3 processes"), 1, "{}", host.log());
    host.sh("rm state && mv away state");
    host.start();
    assert!(all_mounted(&host, 1));
    assert!(overlays(&host).iter().all(|line| !before.contains(line)));
    assert_eq!(host.sh_as(ALICE, "cat mnt/alice/new mnt/alice/moved mnt/alice/tree/5"), "mine\n1\n5\n");
    host.end(SIGTERM);
}

/// Writes a drop-in and has the daemon read it; returns what it logged about that.
#[track_caller]
fn reload(host: &Host, drop_in: &str) -> String {
    let dir = host.path("scorpio.toml.d");
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("50-test.toml"), drop_in).unwrap();
    let before = host.log().len();
    signal(host, SIGHUP);
    let told = || host.log()[before..].to_owned();
    until(host, "it is reloaded", || {
        told().contains("the configuration is reloaded")
            || told().contains("the configuration is not reloaded")
    });
    told()
}

fn more(host: &Host) -> String {
    format!("[origin.more]\nkind = 'git'\npath = '{}'\n", host.path("repo").display())
}

fn origins(host: &Host, uid: u32) -> Vec<String> {
    let list = host.json(uid, &["origins"]);
    list.as_array().unwrap().iter().map(|origin| origin["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_reload_takes_up_what_it_can_and_names_the_rest() {
    let host = Host::with_repo("", REPOSITORY);
    host.mount(ALICE, "first", &[]);
    assert_eq!(origins(&host, ALICE), ["repo"]);
    let told = reload(
        &host,
        &format!(
            "engine.workers = 3\nlimits.connections = 99\nlimits.workspaces_per_user = 1\nauth.mount = ['{ALICE}']\n{}allow = ['{ALICE}']",
            more(&host)
        ),
    );
    assert!(
        told.contains("taken up: limits.workspaces_per_user, auth.mount, origin.more\n")
            || told.contains("taken up: limits.workspaces_per_user, auth.mount, origin.more "),
        "{told}"
    );
    for key in ["engine.workers", "limits.connections"] {
        assert!(told.contains(&format!("{key} changed; it takes effect at the next restart")), "{told}");
    }
    assert_eq!(
        (origins(&host, ALICE), origins(&host, BOB)),
        (vec!["more".into(), "repo".into()], vec!["repo".to_owned()])
    );
    let point = host.point(ALICE, "second");
    assert_eq!(host.refused(ALICE, &["mount", "more:/", point.to_str().unwrap()]).1, "LimitReached");
    let point = host.point(BOB, "bob");
    assert_eq!(host.refused(BOB, &["mount", "repo:/", point.to_str().unwrap()]).1, "NotAuthorised");
    // A second time there is nothing to take up, and what waits still waits.
    signal(&host, SIGHUP);
    until(&host, "a second reload", || times(&host, "taken up: nothing") == 1);
    until(&host, "it is named again", || times(&host, "engine.workers changed") == 2);
}

#[test]
fn a_wrong_configuration_changes_nothing_and_is_named_by_file_line_and_key() {
    let host = Host::with_repo("", REPOSITORY);
    reload(&host, &more(&host));
    let told = reload(&host, "[limits]\nworkspaces_per_user = 1\nmax_ttl = 'soon'\n");
    assert!(told.contains("50-test.toml:3: limits.max_ttl: "), "{told}");
    assert_eq!(origins(&host, ALICE), ["more", "repo"]);
    host.mount(ALICE, "first", &[]);
    host.mount(ALICE, "second", &[]);
    assert!(reload(&host, "").contains("taken up: origin.more"));
}

#[test]
fn an_origin_that_is_taken_away_is_read_on_by_those_who_stand_on_it() {
    let host = Host::with_repo("", REPOSITORY);
    host.sh("git clone -q --bare repo other.git");
    let other =
        |path: &str| format!("[origin.other]\nkind = 'git'\npath = '{}'\n", host.path(path).display());
    reload(&host, &other("other.git"));
    let point = host.point(ALICE, "w");
    let id =
        host.json(ALICE, &["mount", "other:/", point.to_str().unwrap()])["id"].as_str().unwrap().to_owned();
    let told = reload(&host, "");
    assert!(told.contains("origin other left the configuration, and workspaces stand on it"), "{told}");
    assert_eq!(host.sh_as(ALICE, "cat mnt/w/tree/4"), "4\n");
    let again = host.point(ALICE, "again");
    assert_eq!(host.refused(ALICE, &["mount", "other:/", again.to_str().unwrap()]).1, "NoSuchOrigin");
    // It comes back somewhere else.
    host.sh("mv other.git moved.git");
    reload(&host, &other("moved.git"));
    assert_eq!(host.sh_as(ALICE, "cat mnt/w/tree/6"), "6\n");
    assert_eq!(origins(&host, ALICE), ["other", "repo"]);
    // When nobody stands on it any more, it is gone.
    host.json(ALICE, &["remove", &id]);
    assert!(!reload(&host, "").contains("left the configuration"));
}

#[test]
fn the_log_level_is_changed_for_a_while_by_administrators_alone() {
    let host = Host::with_repo("", REPOSITORY);
    assert_eq!(host.refused(ALICE, &["log-level", "debug"]), (4, "NotAuthorised".to_owned()));
    assert_eq!(host.refused(0, &["log-level", "scorpio=loud"]), (2, "BadParameter".to_owned()));
    assert!(!host.log().contains("DEBUG"));
    let told = host.json(0, &["log-level", "debug", "--for", "2s"]);
    assert_eq!((told["level"].as_str(), told["configured"].as_str()), (Some("debug"), Some("info")));
    assert!(told["ends"].is_string());
    host.ctl(ALICE, &["whoami"]);
    until(&host, "details are logged", || host.log().contains("DEBUG"));
    until(&host, "it falls back", || host.log().contains("the log level is the configuration's again"));
    let before = times(&host, "DEBUG");
    host.ctl(ALICE, &["whoami"]);
    assert_eq!(times(&host, "DEBUG"), before);
    host.json(0, &["log-level", "trace", "--for", "1h"]);
    let told = host.json(0, &["log-level", "--reset"]);
    assert_eq!((told["level"].as_str(), told.get("ends")), (Some("info"), None));
}
