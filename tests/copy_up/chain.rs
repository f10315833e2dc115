//! Requests and results of each step, for a file of each class of size.

use std::{collections::BTreeMap, path::Path, sync::PoisonError};

use crate::{
    CACHES, configuration, inventory, shared,
    support::{ALICE, Host, LOWERS},
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
    Host::with_repo(&configuration(kind), &script)
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
    let program = |open: &str| {
        format!("/usr/bin/python3 -c 'import os; fd = os.open(\"d{size}/f\", os.O_RDWR{open}); {{}}'")
    };
    [
        ("getattr", format!("stat d{size}/f > /dev/null")),
        ("getattr again", format!("stat d{size}/f > /dev/null")),
        ("chmod", format!("chmod 600 d{size}/f")),
        ("open to write", program("").replace("{}", "os.close(fd)")),
        ("write", program("").replace("{}", "os.pwrite(fd, b\"x\", 0)")),
        ("read", format!("cat d{size}/f > /dev/null")),
    ]
}

/// What each step asks, without READs. Everything that the kernel asks once in the life of a session was asked.
const EXPECTED: [&[(&str, u64)]; 6] = [
    &[("LOOKUP", 2)],
    &[],
    // For the flags of the file, and of its directory, which goes up with it.
    &[("IOCTL", 2)],
    &[],
    &[],
    &[],
];
/// The step that reads the file, and the smallest and largest piece that readahead makes of it: it begins with small ones.
const COPY: usize = 3;
const PIECES: [u64; 2] = [128 << 10, 1 << 20];

/// Whether each step asked what it may: the copy asks for each page once, the others for none.
fn fits(size: u64, seen: &[(&str, Asked)]) -> bool {
    let mut steps = seen.iter().zip(EXPECTED).enumerate();
    steps.all(|(number, ((_, asked), expected))| {
        let [most, least] = PIECES.map(|piece| if number == COPY { size.div_ceil(piece) } else { 0 });
        let reads = asked.get("READ").copied().unwrap_or(0);
        // What the kernel forgets it says, and nobody listens.
        let others =
            asked.iter().filter(|(op, _)| !["READ", "FORGET", "BATCH_FORGET"].contains(&op.as_str()));
        (least..=most).contains(&reads)
            && others.map(|(op, count)| (op.as_str(), *count)).eq(expected.iter().copied())
    })
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
    asked(
        &host,
        &at,
        "cat first > /dev/null; ls > /dev/null; chmod 600 first; echo more >> first; cat first > /dev/null",
    );
    for size in SIZES {
        let mut last = Vec::new();
        let found = (0..ATTEMPTS).any(|attempt| {
            last = run(&host, size, attempt);
            fits(size, &last)
        });
        assert!(found, "{kind}, {size} bytes: {last:#?} instead of {EXPECTED:?}");
    }
}

#[test]
fn each_step_of_a_copy_up_asks_exactly_what_it_needs() {
    let _caches = CACHES.write().unwrap_or_else(PoisonError::into_inner);
    LOWERS.into_iter().for_each(each_step_asks_exactly_this);
}

fn what_appears(kind: &str) {
    let host = Host::with_repo(
        &configuration(kind),
        "mkdir -p a/b c; head -c 100000 /dev/urandom > a/b/f; echo x > a/b/g; echo y > c/h; ln -s h c/l; git add -A && git commit -q -m first",
    );
    let (at, id) = host.mount(ALICE, "w", &[]);
    let work = |script: &str| {
        host.sh_as(ALICE, &format!("cd '{}'; {script}", at.display()));
        inventory(&host, &id)
    };
    assert_eq!(work("cat a/b/f > /dev/null; ls -R > /dev/null; exec 3< a/b/g"), "");
    // The metadata alone: size and owner are there, the data is the lower's.
    let seen = work("chmod 600 a/b/f");
    let directories = format!("d 755 {ALICE} 4096 stored a\nd 755 {ALICE} 4096 stored a/b\n");
    let marks = "a trusted.overlay.impure=\"y\"\na trusted.overlay.origin=\"\"\n\
                 a/b trusted.overlay.impure=\"y\"\na/b trusted.overlay.origin=\"\"\n";
    let file = |stored: &str| format!("f 600 {ALICE} 100000 {stored} a/b/f\n");
    let file_marks = "a/b/f trusted.overlay.metacopy=\"\"\na/b/f trusted.overlay.origin=\"\"\n";
    assert_eq!(seen, format!("{directories}{}{marks}{file_marks}", file("-")));
    // Then the data: the mark goes. An origin is empty, for it would name what a later session does not know.
    let seen = work(": >> a/b/f");
    assert_eq!(seen, format!("{directories}{}{marks}a/b/f trusted.overlay.origin=\"\"\n", file("stored")));
    // What is gone and what has moved.
    let seen = work("mv c d; rm a/b/g; mkdir new; ln -sf x d/l");
    let expected = [
        "c 0 0 0 - a/b/g",
        "c 0 0 0 - c",
        &format!("d 755 {ALICE} 4096 stored d"),
        &format!("l 777 {ALICE} 1 - d/l"),
        "d trusted.overlay.redirect=\"c\"",
        "new trusted.overlay.opaque=\"y\"",
    ];
    for line in expected {
        assert!(seen.lines().any(|seen| seen == line), "{line} is not in\n{seen}");
    }
}

#[test]
fn what_appears_in_the_upper_is_this() {
    let _caches = shared();
    LOWERS.into_iter().for_each(what_appears);
}
