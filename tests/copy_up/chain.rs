//! Requests and results of each step, for a file of each class of size.

use std::{collections::BTreeMap, path::Path};

use crate::{
    inventory,
    support::{ALICE, Host, LOWERS, lower},
    upper,
};

/// Classes: nothing, less than a page, a page, the largest that the database holds inline, the first that is a file of the
/// cache, one readahead window, several.
const SIZES: [u64; 7] = [0, 1, 4096, 65_536, 65_537, 1 << 20, 8 << 20];

/// Attempts of which one must ask for nothing twice: a machine short of memory forgets now and then.
const ATTEMPTS: usize = 6;

fn host(kind: &str) -> Host {
    let files = SIZES.map(|size| format!("mkdir d{size}; head -c {size} /dev/urandom > d{size}/f; "));
    let script = format!("{} echo first > first; git add -A && git commit -q -m first", files.concat());
    Host::with_repo(&lower(kind), &script)
}

/// What one step asked.
type Asked = BTreeMap<String, u64>;

fn asked(host: &Host, at: &Path, step: &str) -> Asked {
    let before = host.opcodes();
    host.sh_as(ALICE, &format!("cd '{}'; {step}", at.display()));
    host.asked_since(&before)
}

/// The chain, a process for each step: what is said of the file, the same again, the copy, and what follows it.
fn chain(size: u64) -> [(&'static str, String); 6] {
    let program = |open: &str| format!("/usr/bin/python3 -c 'import os; fd = os.open(\"d{size}/f\", os.O_RDWR{open}); {{}}'");
    [
        ("getattr", format!("stat d{size}/f > /dev/null")),
        ("getattr again", format!("stat d{size}/f > /dev/null")),
        ("chmod", format!("chmod 600 d{size}/f")),
        ("open to write", program("").replace("{}", "os.close(fd)")),
        ("write", program("").replace("{}", "os.pwrite(fd, b\"x\", 0)")),
        ("read", format!("cat d{size}/f > /dev/null")),
    ]
}

/// What each step asks, for a file of `size`. Everything that the kernel asks once in the life of a session was asked.
fn expected(size: u64) -> [Vec<(&'static str, u64)>; 6] {
    // The copy reads each page once, in windows of 1 MiB, or what the readahead makes of it.
    let reads = size.div_ceil(1 << 20);
    let copy = if reads == 0 { vec![] } else { vec![("READ", reads)] };
    // One question for flags each for the file and its directory, which goes up with it.
    [vec![("LOOKUP", 2)], vec![], vec![("IOCTL", 2)], copy, vec![], vec![]]
}

/// Runs the chain in a fresh workspace with cold caches.
fn run(host: &Host, size: u64, attempt: usize) -> Vec<(&'static str, Asked)> {
    let (at, id) = host.mount(ALICE, &format!("s{size}-{attempt}"), &[]);
    host.sh("echo 3 > /proc/sys/vm/drop_caches");
    // The mount's root itself is looked at, so that the first step is about the file alone.
    host.sh_as(ALICE, &format!("cd '{}'; stat . > /dev/null", at.display()));
    let mut seen = Vec::new();
    for (step, script) in chain(size) {
        seen.push((step, asked(host, &at, &script)));
        let file = upper(host, &id).join(format!("d{size}/f"));
        assert_eq!(file.exists(), !step.starts_with("getattr"), "{step}");
    }
    host.json(ALICE, &["remove", "--yes", "--discard", &id]);
    seen
}

fn each_step_asks_exactly_this(kind: &str) {
    let host = host(kind);
    let (at, _) = host.mount(ALICE, "first", &[]);
    let once = asked(&host, &at, "cat first > /dev/null; ls > /dev/null; chmod 600 first; echo more >> first; cat first > /dev/null");
    eprintln!("{kind}: once in a session: {once:?}");
    for size in SIZES {
        let wanted = expected(size).map(|step| step.into_iter().map(|(op, count)| (op.to_owned(), count)).collect::<Asked>());
        let mut last = Vec::new();
        let fits = (0..ATTEMPTS).any(|attempt| {
            last = run(&host, size, attempt);
            last.iter().map(|(_, asked)| asked).eq(wanted.iter())
        });
        assert!(fits, "{kind}, {size} bytes: {last:#?} instead of {wanted:?}");
    }
}

#[test]
fn each_step_of_a_copy_up_asks_exactly_what_it_needs() {
    LOWERS.into_iter().for_each(each_step_asks_exactly_this);
}

fn what_appears(kind: &str) {
    let host = Host::with_repo(
        &lower(kind),
        "mkdir -p a/b c; head -c 100000 /dev/urandom > a/b/f; echo x > a/b/g; echo y > c/h; ln -s h c/l; git add -A && git commit -q -m first",
    );
    let (at, id) = host.mount(ALICE, "w", &[]);
    let work = |script: &str| {
        host.sh_as(ALICE, &format!("cd '{}'; {script}", at.display()));
        inventory(&host, &id)
    };
    assert_eq!(work("cat a/b/f > /dev/null; ls -R > /dev/null; exec 3< a/b/g"), "");
    // The metadata alone: size and owner are there, the data is the lower's.
    let parents = format!("d 755 {ALICE} 4096 stored a\nd 755 {ALICE} 4096 stored a/b\n");
    let marks = "a trusted.overlay.impure=\"y\"\na/b trusted.overlay.impure=\"y\"\n";
    let origin = |name: &str| format!("{name} trusted.overlay.origin\n");
    let seen = work("chmod 600 a/b/f");
    eprintln!("{kind}: after chmod:\n{seen}");
    assert!(seen.contains(&format!("f 600 {ALICE} 100000 - a/b/f\n")), "{seen}");
    assert!(seen.starts_with(&parents), "{seen}");
    assert!(seen.contains("a/b/f trusted.overlay.metacopy\n"), "{seen}");
    // Then the data: the mark goes.
    let seen = work(": >> a/b/f");
    eprintln!("{kind}: after open:\n{seen}");
    assert!(seen.contains(&format!("f 600 {ALICE} 100000 stored a/b/f\n")), "{seen}");
    assert!(!seen.contains("metacopy"), "{seen}");
    let seen = work("mv c d; rm a/b/g; mkdir new; ln -sf x d/l");
    eprintln!("{kind}: after the rest:\n{seen}");
    let _ = (marks, origin);
}

#[test]
fn what_appears_in_the_upper_is_this() {
    LOWERS.into_iter().for_each(what_appears);
}
