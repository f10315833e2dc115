//! Daemons that are killed and started again, under users who work in their workspaces: nobody notices.
//!
//! Needs root, overlayfs and FUSE, and Linux 6.9 or newer for those in which the kernel asks again.
#![allow(clippy::unwrap_used, unreachable_pub)] // tests may, in their own functions too

mod support;

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    os::{fd::OwnedFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use nix::sys::signal::Signal::{self, SIGKILL, SIGTERM};
use serde_json::Value;
use support::{ALICE, BOB, Host, systemd::Systemd};

/// A tree with enough in it that readers are always on the way to the daemon.
const REPOSITORY: &str = r#"
    mkdir -p tree changed && for dir in 0 1 2 3 4 5 6 7; do mkdir tree/$dir
        for file in 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19; do
            head -c $((dir * 9000 + file * 700 + 1)) /dev/urandom > tree/$dir/$file
        done
    done
    head -c 1500000 /dev/urandom > tree/large
    for file in $(seq 0 39); do head -c 300 /dev/urandom > changed/$file; done
    printf lock > lock
    git add -A && git commit -qm first
"#;

/// How a successor gets what was not answered: from the kernel, or out of memory.
const RESEND: &str = "resend";
const SLOTS: &str = "slots";

fn host(lower: &str, replay: &str) -> Host {
    let mut host = Host::new(&format!("[engine]\nlower = \"{lower}\"\nreplay = \"{replay}\""));
    fs::create_dir(host.path("repo")).unwrap();
    host.sh(&format!(
        "cd repo && git init -q -b main . && git config user.name t && git config user.email t@t && {REPOSITORY}"
    ));
    host.sh("cd repo && git ls-files | xargs sha256sum | \
         awk 'BEGIN { printf \"{\" } { printf \"%s\\\"%s\\\":\\\"%s\\\"\", (NR > 1 ? \",\" : \"\"), $2, $1 } \
         END { print \"}\" }' > ../manifest");
    host.sh("mkdir fusectl && mount -t fusectl none fusectl");
    host.manage();
    host.start();
    host
}

/// Lines of mountinfo of this host's workspaces and sessions: id, parent, device, place, everything.
fn mounts(host: &Host) -> Vec<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let top = host.path("").display().to_string();
    let ours = |line: &&str| line.contains(&top) && (line.contains(" scorpio") || line.contains("scorpio:"));
    table.lines().filter(ours).map(str::to_owned).collect()
}

/// Requests that the kernel waits for, in all sessions of the host.
fn waiting(host: &Host) -> u64 {
    let sessions = mounts(host).into_iter().filter(|line| line.contains(" - fuse.scorpio "));
    let minor = |line: String| line.split(' ').nth(2).unwrap().split(':').nth(1).unwrap().to_owned();
    let file = |minor| host.path("fusectl").join(minor).join("waiting");
    let count = |path: PathBuf| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    sessions.filter_map(|line| count(file(minor(line)))).sum()
}

/// Users at work; see `handover/load.py`.
struct Load {
    children: Vec<(Child, BufReader<ChildStdout>)>,
    dropping: Arc<AtomicBool>,
    dropper: Option<std::thread::JoinHandle<()>>,
}

impl Load {
    fn start(host: &Host, uid: u32, point: &Path, roles: &[&str]) -> Load {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/handover/load.py");
        let start = |role: &&str| {
            Command::new("python3")
                .arg(&script)
                .args([role, uid.to_string().as_str()])
                .args([point, &host.path("")])
                .stdout(Stdio::piped())
                .spawn()
                .unwrap()
        };
        let children: Vec<Child> = roles.iter().map(start).collect();
        // Everybody has done something before anything happens to them.
        let begun = |mut child: Child| {
            let mut output = BufReader::new(child.stdout.take().unwrap());
            let mut line = String::new();
            output.read_line(&mut line).unwrap();
            assert_eq!(line, "begun\n");
            (child, output)
        };
        let children = children.into_iter().map(begun).collect();
        let dropping = Arc::new(AtomicBool::new(true));
        let go_on = Arc::clone(&dropping);
        // Names and attributes go too, so that a part of all lookups is cold.
        let dropper = std::thread::spawn(move || {
            while go_on.load(Relaxed) {
                fs::write("/proc/sys/vm/drop_caches", "2").unwrap();
                std::thread::sleep(Duration::from_millis(150));
            }
        });
        Load { children, dropping, dropper: Some(dropper) }
    }

    /// Ends the work: every role has done something, and nothing failed. Says what was done in all, and the longest wait.
    #[track_caller]
    fn finish(mut self, host: &Host) -> (u64, f64) {
        fs::write(host.path("stop"), "").unwrap();
        let mut all = (0, 0.0_f64);
        for (mut child, mut output) in self.children.drain(..) {
            let mut told = String::new();
            output.read_to_string(&mut told).unwrap();
            assert!(child.wait().unwrap().success(), "{told}");
            let told: Value = serde_json::from_str(&told).unwrap();
            assert_eq!(told["failed"], serde_json::json!([]), "{}\n{}", told["role"], host.log());
            let done = told["done"].as_u64().unwrap();
            assert!(done > 0, "{told}");
            all = (all.0 + done, all.1.max(told["longest"].as_f64().unwrap()));
        }
        self.dropping.store(false, Relaxed);
        self.dropper.take().unwrap().join().unwrap();
        fs::remove_file(host.path("stop")).unwrap();
        all
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.dropping.store(false, Relaxed);
        for (child, _) in &mut self.children {
            let _ = child.kill();
        }
    }
}

/// Waits until the kernel waits for the daemon, if it ever does within a second; says for how many answers.
fn await_requests(host: &Host) -> u64 {
    let begin = Instant::now();
    loop {
        let now = waiting(host);
        if now > 0 || begin.elapsed() > Duration::from_secs(1) {
            return now;
        }
    }
}

/// Requests that successors found in memory, and whether any asked the kernel.
fn resumptions(host: &Host) -> (u64, bool) {
    let log = host.log();
    let resumed = || log.lines().filter(|line| line.contains("FUSE session resumed"));
    let number = |line: &str| line.split("replayed=").nth(1)?.split_whitespace().next()?.parse::<u64>().ok();
    assert!(resumed().next().is_some(), "{log}");
    (
        resumed().map(|line| number(line).expect(line)).sum(),
        resumed().any(|line| line.contains("resend=true")),
    )
}

fn identity(path: &Path) -> (u64, u64) {
    let found = fs::metadata(path).unwrap();
    (found.dev(), found.ino())
}

const ROLES: &[&str] =
    &["reader", "reader", "reader", "writer", "mapper", "dweller", "holder", "prober", "inserter", "counter"];

/// Ends the daemon `rounds` times under load and starts it again.
fn survive(mut host: Host, ending: Signal, rounds: u32) {
    let (point, id) = host.mount(ALICE, "alice", &[]);
    let (throw_away, _) = host.mount(BOB, "bob", &["--ephemeral"]);
    host.sh_as(BOB, "echo kept > mnt/bob/new");
    host.sh_as(
        ALICE,
        "sqlite3 mnt/alice/base.db 'pragma journal_mode=wal; create table t (n integer primary key, x text)'",
    );
    // The holder has the lock before anybody looks for it.
    let holder = Load::start(&host, ALICE, &point, &["holder"]);
    let load = Load::start(
        &host,
        ALICE,
        &point,
        &ROLES.iter().copied().filter(|r| *r != "holder").collect::<Vec<_>>(),
    );
    let before = (mounts(&host), identity(&point), identity(&throw_away));
    let file = identity(&point.join("tree/large"));
    let mut busy = 0;
    for round in 0..rounds {
        await_requests(&host);
        host.end(ending);
        let in_flight = waiting(&host);
        busy += u32::from(in_flight > 0);
        host.start();
        assert_eq!(mounts(&host), before.0, "round {round}");
    }
    let (done, longest) = load.finish(&host);
    let (held, _) = holder.finish(&host);
    let (replayed, resent) = resumptions(&host);
    println!(
        "{ending}: {rounds} times, {busy} with requests in flight, {replayed} requests replayed, {done} operations, {held} of the lock's holder, longest wait {longest:.2} s"
    );
    assert_eq!(replayed == 0, resent, "either the kernel asks again or they are kept");
    assert!(busy * 2 > rounds, "only {busy} of {rounds} kills met requests in flight");
    assert_eq!((identity(&point), identity(&throw_away)), (before.1, before.2));
    assert_eq!(identity(&point.join("tree/large")), file);
    assert_eq!(host.sh_as(BOB, "cat mnt/bob/new"), "kept\n");
    assert_eq!(host.sh_as(ALICE, "sqlite3 mnt/alice/base.db 'pragma integrity_check'"), "ok\n");
    // What came through it can still be used, and ended.
    assert_eq!(host.json(ALICE, &["info", &id])["state"], "mounted");
    host.mount(ALICE, "another", &[]);
    if ending == SIGTERM {
        // From now on nobody says that it is a restart.
        host.end(SIGKILL);
        host.set("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent");
        host.start();
    }
    stop_leaves_nothing(&mut host);
}

#[track_caller]
fn stop_leaves_nothing(host: &mut Host) {
    assert!(host.end(SIGTERM).success());
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let left: Vec<_> =
        table.lines().filter(|line| line.contains(&host.path("run").display().to_string())).collect();
    assert_eq!((mounts(host), left), (vec![], vec![]));
    assert_eq!(host.manager().names(), Vec::<String>::new());
}

#[test]
fn nobody_notices_twenty_kills_with_one_session_for_all() {
    survive(host("shared", RESEND), SIGKILL, 20);
}

#[test]
fn nobody_notices_kills_with_a_session_for_each_owner() {
    survive(host("per-owner", RESEND), SIGKILL, 6);
}

#[test]
fn nobody_notices_twenty_kills_where_the_kernel_does_not_ask_again() {
    survive(host("per-owner", SLOTS), SIGKILL, 20);
}

#[test]
fn nobody_notices_kills_of_one_session_where_the_kernel_does_not_ask_again() {
    survive(host("shared", SLOTS), SIGKILL, 10);
}

#[test]
fn nobody_notices_restarts() {
    restarts(RESEND);
}

#[test]
fn nobody_notices_restarts_where_the_kernel_does_not_ask_again() {
    restarts(SLOTS);
}

fn restarts(replay: &str) {
    let place = tempfile::tempdir().unwrap();
    let systemd = Systemd::start(place.path(), "restart");
    let mut host = host("shared", replay);
    host.end(SIGKILL);
    host.set("DBUS_SYSTEM_BUS_ADDRESS", systemd.address());
    host.start();
    survive(host, SIGTERM, 5);
}

#[test]
fn a_restart_that_systemd_is_too_busy_to_confirm_keeps_every_mount() {
    let place = tempfile::tempdir().unwrap();
    let systemd = Systemd::too_busy(place.path());
    let mut host = host("shared", RESEND);
    host.mount(ALICE, "alice", &[]);
    host.mount(BOB, "bob", &["--ephemeral"]);
    host.sh_as(BOB, "echo his > mnt/bob/new");
    let before = mounts(&host);
    host.end(SIGKILL);
    host.set("DBUS_SYSTEM_BUS_ADDRESS", systemd.address());
    host.start();
    assert!(host.end(SIGTERM).success());
    assert_eq!(mounts(&host), before);
    host.start();
    assert_eq!(mounts(&host), before);
    assert_eq!(host.sh_as(BOB, "cat mnt/bob/new && cat mnt/bob/tree/0/0 > /dev/null"), "his\n");
    assert!(host.log().contains("taking it for a restart"), "{}", host.log());
    // Where nobody can be asked, it is a stop.
    drop(systemd);
    stop_leaves_nothing(&mut host);
}

/// What a successor does that cannot go on: the old mounts are detached, new ones made, the upper is what it was.
fn falls_back(replay: &str, spoil: impl FnOnce(&Host)) {
    let mut host = host("shared", replay);
    let (point, id) = host.mount(ALICE, "alice", &[]);
    host.mount(BOB, "bob", &["--ephemeral"]);
    host.sh_as(
        ALICE,
        "cd mnt/alice && echo mine > new && rm tree/0/0 && mv tree/1 moved && chmod 600 tree/large",
    );
    let list = format!(
        "cd state/workspaces/{id}/upper && find . -printf '%p %y %m %U %T@ %s\\n' | sort && \
         find . -type f -exec sha256sum {{}} + | sort"
    );
    let upper = host.sh(&list);
    let before = mounts(&host);
    host.end(SIGKILL);
    spoil(&host);
    host.start();
    let after = mounts(&host);
    assert!(after.iter().all(|line| !before.contains(line)), "{before:#?}\n{after:#?}");
    assert_eq!(host.mounts(), [point], "{}", host.log());
    assert_eq!(host.sh(&list), upper);
    assert_eq!(
        host.sh_as(ALICE, "cd mnt/alice && cat new && test ! -e tree/0/0 && cmp moved/3 ../../repo/tree/1/3"),
        "mine\n"
    );
    assert!(host.log().contains("not gone on with") || host.log().contains("of no use"), "{}", host.log());
    // The new sessions are kept like the old ones.
    let before = mounts(&host);
    host.end(SIGKILL);
    host.start();
    assert_eq!(mounts(&host), before);
    stop_leaves_nothing(&mut host);
}

fn replace_record(host: &Host, content: &[u8]) {
    use scorpio::sys::fdstore::{memory_file, read_memory_file};
    host.manager().with(|stored| {
        let record =
            stored.iter_mut().find(|(_, fd)| read_memory_file(fd, 4096).is_ok_and(|c| !c.is_empty()));
        record.unwrap().1 = memory_file("test", content).unwrap();
    });
}

#[test]
fn a_garbage_record_is_not_gone_on_with() {
    falls_back(RESEND, |host| replace_record(host, &[0xff; 300]));
}

#[test]
fn a_record_of_another_version_is_not_gone_on_with() {
    falls_back(RESEND, |host| {
        let text = "scorpio-session 99 shared idmap 0 0 0:1 boot table handshake";
        let sealed = format!("{text} {:08x}\n", crc32fast::hash(text.as_bytes()));
        replace_record(host, sealed.as_bytes());
    });
}

#[test]
fn a_session_whose_node_table_is_lost_is_not_gone_on_with() {
    falls_back(RESEND, |host| fs::remove_dir_all(host.path("run/nodes")).unwrap());
}

#[test]
fn a_device_without_a_record_is_not_gone_on_with() {
    falls_back(RESEND, |host| {
        use scorpio::sys::fdstore::read_memory_file;
        host.manager().with(|stored| {
            stored.retain(|(_, fd)| read_memory_file(fd, 4096).map_or(true, |c| c.is_empty()));
        });
    });
}

/// What the manager stores of memory that is written to.
fn with_slots(host: &Host, spoil: impl Fn(&mut Vec<(String, OwnedFd)>, usize)) {
    host.manager().with(|stored| {
        let is_one = |(_, fd): &(String, OwnedFd)| scorpio::sys::shared::length_of_writable(fd).is_some();
        let at = stored.iter().position(is_one).expect("slots are stored");
        spoil(stored, at);
    });
}

#[test]
fn a_session_without_its_slots_is_not_gone_on_with() {
    falls_back(SLOTS, |host| {
        with_slots(host, |stored, at| {
            stored.remove(at);
        });
    });
}

#[test]
fn a_session_whose_slots_are_of_another_version_is_not_gone_on_with() {
    falls_back(SLOTS, |host| {
        with_slots(host, |stored, at| {
            rustix::io::pwrite(&stored[at].1, &99u32.to_le_bytes(), 8).unwrap();
        });
    });
}

#[test]
fn a_session_is_not_gone_on_with_by_the_slots_of_another() {
    falls_back(SLOTS, |host| {
        with_slots(host, |stored, at| {
            let length = scorpio::sys::shared::length_of_writable(&stored[at].1).unwrap();
            stored[at].1 = scorpio::sys::shared::writable_memory_file("test", length).unwrap();
        });
    });
}

#[test]
fn without_its_descriptors_a_session_is_mounted_again() {
    let mut host = host("shared", RESEND);
    let (point, _) = host.mount(ALICE, "alice", &[]);
    host.sh_as(ALICE, "echo mine > mnt/alice/new");
    let before = mounts(&host);
    host.end(SIGKILL);
    host.manager().with(Vec::clear);
    host.start();
    assert!(mounts(&host).iter().all(|line| !before.contains(line)));
    assert_eq!(host.mounts(), [point]);
    assert_eq!(host.sh_as(ALICE, "cat mnt/alice/new"), "mine\n");
    stop_leaves_nothing(&mut host);
}
