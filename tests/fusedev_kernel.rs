//! The FUSE layer against the kernel of this machine. Needs root; leaves no mount behind, whatever fails.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)] // a test that fails panics; 64-bit machines

#[path = "fusedev_kernel/child.rs"]
mod child;
#[path = "fusedev_kernel/mount.rs"]
mod mount;
#[path = "fusedev_kernel/tree.rs"]
mod tree;

use std::{collections::BTreeMap, os::unix::process::ExitStatusExt, sync::Arc, time::Duration};

use rustix::process::Signal;
use scorpio::{
    config::Replay,
    fusedev::{Features, Session, SessionLimits},
};

use mount::{Ended, LIMITS, Mounted, PATIENCE, PLAIN, eventually, run, spawn};
use tree::{FILES, SLOW, SMALL_SIZE, TARGET, Tree, UNSIZED, WAIT, content};

const IO_ERROR: &str = "Input/output error";

fn output(ended: Ended) -> Vec<u8> {
    assert!(ended.status.success(), "{}: {}", ended.status, ended.err);
    ended.out
}

/// How many pages of files the kernel has had to read again, because it had reclaimed them.
fn refaults() -> u64 {
    // Each processor counts for itself, and tells the others once in a second: unless somebody looks there.
    std::fs::read_to_string("/proc/sys/vm/stat_refresh").unwrap();
    let all = std::fs::read_to_string("/proc/vmstat").unwrap();
    all.lines().find_map(|line| line.strip_prefix("workingset_refault_file ")).unwrap().parse().unwrap()
}

/// A `pass` over what is cached sends no request. A machine that reclaims cold pages all the time may read some pages
/// again; then there are at most as many READs as pages it says it had reclaimed, and nothing else is asked ever.
fn asks_nothing(mounted: &Mounted, pass: impl Fn()) {
    let (before, reclaimed) = (mounted.stats(), refaults());
    pass();
    let (mut after, reclaimed) = (mounted.stats(), refaults() - reclaimed);
    let again = after.by_opcode["READ"] - before.by_opcode["READ"];
    assert!(
        again <= reclaimed.min(before.by_opcode["READ"] / 20),
        "{again} READs, {reclaimed} pages reclaimed"
    );
    after.reads -= again;
    after.by_opcode.insert("READ", before.by_opcode["READ"]);
    assert_eq!(after, before);
}

fn small(node: u64) -> Vec<u8> {
    content(node, 0, SMALL_SIZE as usize)
}

#[test]
fn a_tree_looks_as_the_file_system_says() {
    let mounted = Mounted::new(LIMITS, PLAIN, true);
    let names = String::from_utf8(output(run("ls", &["-f", &mounted.path("many")]))).unwrap();
    let names: Vec<_> = names.lines().filter(|name| !name.starts_with('.')).collect();
    let expected: Vec<_> = (0..FILES).map(|number| format!("f{number:05}")).collect();
    assert_eq!(names, expected);
    assert_eq!(output(run("readlink", &[&mounted.path("link")])), format!("{TARGET}\n").into_bytes());
    let stat = output(run("stat", &["-c", "%i %s %f %h %u %g %Y %b", &mounted.path("many/f09999")]));
    assert_eq!(String::from_utf8(stat).unwrap(), "10999 9000 81a4 1 0 0 1700000000 18\n");
    assert_eq!(output(run("cat", &[&mounted.path("many/f09999")])), small(10_999));
    assert_eq!(output(run("cat", &[&mounted.path("link")])), small(1001));
    assert_eq!(output(run("ls", &["-A", &mounted.path("empty")])), b"");
    let usage = output(run("stat", &["-f", "-c", "%b %f %S %l %c", &mounted.path("empty")]));
    assert_eq!(String::from_utf8(usage).unwrap(), "76800 0 4096 255 10000\n");
}

#[test]
fn a_file_of_unknown_size_is_an_error_until_it_is_known_and_exact_from_then_on() {
    let mounted = Mounted::new(LIMITS, PLAIN, false);
    let begin = "import mmap, os, sys; f = os.open(sys.argv[1], os.O_RDONLY)\n";
    let ways = [
        "sys.stdout.buffer.write(os.read(f, 1 << 20)); sys.stdout.flush()\nassert os.read(f, 1) == b''",
        "while os.sendfile(1, f, None, 1 << 20): pass",
        "r, w = os.pipe()\nwhile n := os.splice(f, w, 4096): os.write(1, os.read(r, n))",
        "sys.stdout.buffer.write(mmap.mmap(f, 0, prot=mmap.PROT_READ))",
        "sys.stdout.buffer.write(mmap.mmap(f, 9000, prot=mmap.PROT_READ))",
        "sys.stdout.buffer.write(b''.join(os.pread(f, 1, n) for n in range(9001)))",
        "assert os.pread(f, 4096, 1 << 30) == b''; os.sendfile(1, f, 0, 1 << 20)",
        "assert os.lseek(f, 0, os.SEEK_END) == 9000; os.sendfile(1, f, 0, 1 << 20)",
    ];
    let each = || ways.iter().zip(UNSIZED).map(|(way, node)| (format!("{begin}{way}"), node));
    let read = |way: &str, node: u64| {
        run("python3", &["-c", way, &mounted.path(&format!("unsized-{}", node - UNSIZED.start))])
    };
    for (way, node) in each() {
        let ended = read(&way, node);
        assert!(!ended.status.success() && ended.err.contains(IO_ERROR), "{way}: {}", ended.err);
        assert_eq!(ended.out, b"", "{way}");
    }
    assert_eq!(mounted.count("READ"), 0, "who opens it asks for its size first");
    mounted.tree.set_open(true);
    for (way, node) in each() {
        assert!(output(read(&way, node)) == small(node), "{way}");
    }
    let asked = mounted.count("GETATTR");
    for (way, node) in each() {
        assert!(output(read(&way, node)) == small(node), "{way}");
    }
    assert_eq!(mounted.count("GETATTR"), asked, "a size that is known is not asked for again");
}

#[test]
fn a_large_file_is_the_same_in_order_at_random_and_mapped() {
    let mounted = Mounted::new(LIMITS, PLAIN, true);
    child::check("random", &mounted.path("big"));
    child::check("mmap", &mounted.path("big"));
    child::check("sequential", &mounted.path("big"));
    assert!(mounted.count("READ") > 0);
    asks_nothing(&mounted, || {
        child::check("mmap", &mounted.path("big"));
        child::check("sequential", &mounted.path("big"));
    });
}

#[test]
fn nothing_is_asked_a_second_time() {
    let mounted = Mounted::new(LIMITS, PLAIN, true);
    let walk = || output(run("find", &[&mounted.path(""), "-ls"]));
    let read = || output(run("grep", &["-rc", "x", &mounted.path("many")]));
    let (listed, _) = (walk(), read());
    walk(); // names that came without attributes in the first listing have them now
    let before = mounted.stats();
    assert!(before.reads > FILES, "{before:?}");
    asks_nothing(&mounted, || {
        assert_eq!(walk(), listed);
        read();
    });
}

#[test]
fn without_time_to_live_everything_is_asked_again() {
    let mounted = Mounted::new(SessionLimits { entry_ttl: Duration::ZERO, ..LIMITS }, PLAIN, true);
    let walk = || output(run("find", &[&mounted.path("many"), "-ls"]));
    for _ in 0..5 {
        let before = mounted.stats().reads;
        walk();
        assert!(mounted.stats().reads > before + FILES / 2);
    }
}

#[test]
fn what_the_kernel_may_remember_it_asks_once() {
    let mounted = Mounted::new(LIMITS, PLAIN, true);
    child::check("syscalls", &mounted.path("many/f00007"));
    let all = mounted.stats().by_opcode;
    let once: BTreeMap<_, _> = [
        "OPEN",
        "OPENDIR",
        "FLUSH",
        "FSYNC",
        "FSYNCDIR",
        "GETXATTR",
        "LISTXATTR",
        "LSEEK",
        "POLL",
        "STATX",
        "RELEASE",
        "RELEASEDIR",
    ]
    .into_iter()
    .filter_map(|name| Some((name, *all.get(name)?)))
    .collect();
    let expected =
        ["OPEN", "OPENDIR", "FLUSH", "FSYNC", "FSYNCDIR", "GETXATTR", "LISTXATTR", "LSEEK", "POLL", "STATX"];
    assert_eq!(once, expected.into_iter().map(|name| (name, 1)).collect(), "{all:?}");
}

#[test]
fn a_missing_name_is_remembered_except_in_the_root() {
    let mounted = Mounted::new(LIMITS, PLAIN, true);
    let miss = |name: &str| {
        let before = mounted.stats().reads;
        let ended = run("stat", &[&mounted.path(name)]);
        assert!(ended.err.contains("No such file"), "{}", ended.err);
        mounted.stats().reads - before
    };
    assert!(miss("many/missing") > 0);
    assert_eq!(miss("many/missing"), 0);
    assert!(miss("missing") > 0);
    assert_eq!(miss("missing"), 1);
}

/// A shell has what it starts in the background ignore SIGINT, these tests maybe among it.
const HEARS_INT: &str = "--default-signal=INT";

#[test]
fn an_interrupted_lookup_ends_its_process_at_once() {
    for signal in [Signal::KILL, Signal::INT] {
        let mounted = Mounted::new(LIMITS, PLAIN, false);
        let process = spawn("env", &[HEARS_INT, "cat", &mounted.path("wait-1")], 0);
        mounted.until("the lookup waits", |stats| stats.parked == 1);
        process.signal(signal);
        assert_eq!(process.end().status.signal(), Some(signal.as_raw()));
        mounted.until("it is forgotten", |stats| stats.parked == 0 && stats.interrupted == 1);
        assert_eq!(mounted.stats().refused, 0);
    }
}

#[test]
fn an_interrupted_read_ends_its_process_at_once() {
    for signal in [Signal::KILL, Signal::INT] {
        let mounted = Mounted::new(LIMITS, PLAIN, false);
        let from = format!("if={}", mounted.path("slow"));
        let process = spawn("env", &[HEARS_INT, "dd", &from, "iflag=direct", "bs=4096", "count=1"], 0);
        mounted.until("the read waits", |stats| stats.parked == 1);
        process.signal(signal);
        // dd handles SIGINT and ends with a status of its own; what counts is that it ends.
        assert!(!process.end().status.success());
        mounted.until("it is forgotten", |stats| stats.parked == 0 && stats.interrupted == 1);
    }
}

#[test]
fn a_killed_reader_ends_at_once_although_its_readahead_waits_on() {
    let mounted = Mounted::new(LIMITS, PLAIN, false);
    let process = spawn("cat", &[&mounted.path("slow")], 0);
    mounted.until("the readahead waits", |stats| stats.parked >= 1);
    process.signal(Signal::KILL);
    assert_eq!(process.end().status.signal(), Some(9));
    mounted.tree.set_open(true);
    mounted.until("it is answered", |stats| stats.parked == 0);
    assert_eq!(output(run("cat", &[&mounted.path("slow")])), small(SLOW));
}

#[test]
fn a_deadline_gives_eio_which_is_not_remembered() {
    let limits = SessionLimits { deadline: Duration::from_millis(50), ..LIMITS };
    let mounted = Mounted::new(limits, PLAIN, false);
    for name in ["wait-1", "slow"] {
        let ended = run("cat", &[&mounted.path(name)]);
        assert!(ended.err.contains(IO_ERROR), "{name}: {}", ended.err);
    }
    let stats = mounted.stats();
    assert!(stats.refused >= 2 && stats.parked == 0, "{stats:?}");
    mounted.tree.set_open(true);
    assert_eq!(output(run("cat", &[&mounted.path("wait-1")])), small(WAIT));
    assert_eq!(output(run("cat", &[&mounted.path("slow")])), small(SLOW));
}

/// On an idmapped session requests carry no uid, so the share is kept by asking the process.
#[test]
fn one_user_at_the_bound_is_refused_and_others_are_served() {
    for features in [PLAIN, Features { idmap: true, ..PLAIN }] {
        let limits = SessionLimits { parked: 4, parked_per_user: 3, ..LIMITS };
        let mounted = Mounted::new(limits, features, false);
        let cat = |name: &str, uid| spawn("cat", &[&mounted.path(name)], uid);
        let mut served = Vec::new();
        for number in 1..=3 {
            served.push(cat(&format!("wait-{number}"), 1000));
            mounted.until("alice waits", |stats| stats.parked == number);
        }
        let surplus = cat("wait-4", 1000).end();
        assert!(surplus.err.contains(IO_ERROR), "{}", surplus.err);
        served.push(cat("wait-5", 1001));
        mounted.until("bob waits", |stats| stats.parked == 4);
        let full = cat("wait-6", 1002).end();
        assert!(full.err.contains(IO_ERROR), "{}", full.err);
        assert_eq!((mounted.stats().refused, mounted.stats().parked), (2, 4));
        mounted.tree.set_open(true);
        for process in served {
            assert_eq!(output(process.end()), small(WAIT));
        }
        assert_eq!((mounted.stats().refused, mounted.stats().parked), (2, 0));
    }
}

#[test]
fn faults_of_the_file_system_are_eio_and_everything_else_goes_on() {
    let mounted = Mounted::new(LIMITS, PLAIN, true);
    for name in ["long", "panic", "late-panic"] {
        let before = mounted.stats().faults;
        let ended = run("cat", &[&mounted.path(name)]);
        assert!(ended.err.contains(IO_ERROR), "{name}: {}", ended.err);
        assert!(mounted.stats().faults > before, "{name}");
    }
    for number in 0..20 {
        assert_eq!(output(run("cat", &[&mounted.path(&format!("many/f{number:05}"))])), small(1000 + number));
    }
    assert_eq!(mounted.stats().parked, 0);
}

#[test]
fn unmounting_ends_the_session() {
    let mounted = Mounted::new(LIMITS, PLAIN, false);
    let process = spawn("cat", &[&mounted.path("wait-1")], 0);
    mounted.until("it waits", |stats| stats.parked == 1);
    assert!(!mounted.session().is_over());
    process.signal(Signal::KILL);
    process.end();
    mounted.unmount();
    eventually("the session is over", || mounted.session().is_over());
    mounted.until("nobody waits", |stats| stats.parked == 0);
}

/// How a successor gets what was not answered; this kernel can do both.
const REPLAYS: [Features; 2] = [PLAIN, Features { replay: Replay::Slots, ..PLAIN }];

#[test]
fn a_session_can_be_resumed_and_waiting_readers_get_their_data() {
    for features in REPLAYS {
        let mut mounted = Mounted::new(LIMITS, features, false);
        let opened = spawn("tail", &["-c", "+1", "-f", &mounted.path("many/f00003")], 0);
        let direct = format!("if={}", mounted.path("slow"));
        let waiting = [
            (spawn("cat", &[&mounted.path("wait-1")], 1000), small(WAIT)),
            (spawn("cat", &[&mounted.path("slow")], 1001), small(SLOW)),
            (
                spawn("dd", &[&direct, "iflag=direct", "bs=4096", "count=1", "skip=1"], 0),
                content(SLOW, 4096, 4096),
            ),
        ];
        mounted.until("all wait", |stats| stats.parked >= 3);

        let stopping = std::time::Instant::now();
        let left = mounted.end();
        assert!(stopping.elapsed() < PATIENCE / 6, "workers stop promptly");
        let unread = spawn("cat", &[&mounted.path("many/f00004")], 0); // asks while nobody serves

        mounted.tree = Arc::new(Tree::new(true));
        mounted.resume(left);
        for (process, expected) in waiting {
            assert_eq!(output(process.end()), expected);
        }
        assert_eq!(output(unread.end()), small(1004));
        assert_eq!(mounted.count("INIT"), 0);
        opened.signal(Signal::TERM);
        assert_eq!(opened.end().out, small(1003), "an open file goes on");
    }
}

#[test]
fn an_interrupt_of_a_request_from_before_the_resumption_is_honoured() {
    for features in REPLAYS {
        let mut mounted = Mounted::new(LIMITS, features, false);
        let process = spawn("cat", &[&mounted.path("wait-1")], 0);
        mounted.until("it waits", |stats| stats.parked == 1);
        let left = mounted.end();
        process.signal(Signal::KILL);
        mounted.resume(left);
        assert_eq!(process.end().status.signal(), Some(9), "although the gate is still shut");
        mounted.until("nobody waits", |stats| stats.parked == 0);
    }
}

#[test]
fn many_processes_at_once_see_the_same() {
    let mounted = Mounted::new(LIMITS, PLAIN, true);
    let processes: Vec<_> = (0..8).map(|_| spawn("md5sum", &[&mounted.path("big")], 0)).collect();
    let walks: Vec<_> = (0..4).map(|_| spawn("find", &[&mounted.path("many"), "-ls"], 0)).collect();
    let sums: std::collections::BTreeSet<_> =
        processes.into_iter().map(|process| output(process.end())).collect();
    assert_eq!(sums.len(), 1);
    let lists: std::collections::BTreeSet<_> =
        walks.into_iter().map(|process| output(process.end())).collect();
    assert_eq!(lists.len(), 1);
}

#[test]
fn a_device_that_is_not_mounted_gives_an_error() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let device = scorpio::fusedev::open_device().unwrap();
    let fs = Arc::new(Tree::new(true));
    let error = Session::start(device, fs, PLAIN, LIMITS, runtime.handle().clone()).err().unwrap();
    assert!(error.to_string().contains("waiting for INIT"), "{error}");
}
