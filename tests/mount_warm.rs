//! What has been seen once is not asked for again: counted where messages are read from the FUSE device. Needs root.

#![allow(clippy::unwrap_used)] // a test that fails panics

mod support;

use std::{collections::BTreeMap, path::Path};

use support::{ALICE, Host, lower};

const FILES: u64 = 1200;
/// Passes of which one must find every page in memory.
const PASSES: usize = 10;

/// Small files, one larger than a readahead window, directories, symlinks, something executable.
const REPOSITORY: &str = r#"
    for d in $(seq 40); do mkdir -p src/d$d; for f in $(seq 30); do echo $d $f > src/d$d/f$f; done; done
    head -c 1048577 /dev/urandom > large; cp /bin/true program; ln -s src/d1/f1 link; ln -s nowhere dangling
    git add . && git commit -q -m first
"#;

fn host(kind: &str, more: &str) -> (Host, std::path::PathBuf) {
    let host = Host::with_repo(&(lower(kind) + more), REPOSITORY);
    let (point, _) = host.mount(ALICE, "ws", &[]);
    (host, point)
}

fn list(host: &Host, point: &Path) -> String {
    host.sh_as(ALICE, &format!("find '{}' -ls", point.display()))
}

fn read(host: &Host, point: &Path) -> String {
    host.sh_as(ALICE, &format!("find '{}' -type f -print0 | xargs -0 sha256sum", point.display()))
}

/// What fills the page cache: content, and the listings of directories.
const PAGES: [&str; 3] = ["READ", "READDIR", "READDIRPLUS"];

/// That `pass` asks exactly `expected`. A machine short of memory drops a page now and then, of a file or of a listing, and
/// asks for it again: so one of a few passes must do without any, and nothing else is ever asked.
#[track_caller]
fn assert_asks(host: &Host, expected: &[(&str, u64)], pass: impl Fn(usize)) {
    let expected: BTreeMap<_, _> =
        expected.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
    for attempt in 0..PASSES {
        let before = host.opcodes();
        pass(attempt);
        let mut asked = host.asked_since(&before);
        let again: u64 = PAGES.iter().filter_map(|name| asked.remove(*name)).sum();
        assert_eq!(asked, expected);
        assert!(again * 20 <= before["READ"], "{again} pages of {} once more", before["READ"]);
        if again == 0 {
            return;
        }
    }
    panic!("each of {PASSES} passes asked for pages");
}

fn a_second_look_asks_nothing(kind: &str) {
    let (host, point) = host(kind, "");
    assert_eq!(host.json(0, &["health"])["lower"], kind);
    let (listed, content) = (list(&host, &point), read(&host, &point));
    let links = format!("cd '{}'; readlink -v link dangling; ./program", point.display());
    assert_eq!(host.sh_as(ALICE, &links), "src/d1/f1\nnowhere\n");
    assert!(host.opcodes()["READ"] >= FILES);
    assert_asks(&host, &[], |_| {
        assert_eq!(list(&host, &point), listed);
        assert_eq!(read(&host, &point), content);
        host.sh_as(ALICE, &links);
    });
    // A name that was never asked for is one question, and its absence is remembered like anything else.
    let absent = |name: &str| host.sh_as(ALICE, &format!("! cat '{}/src/d1/{name}' 2>&1", point.display()));
    assert_asks(&host, &[("LOOKUP", 1)], |attempt| drop(absent(&format!("absent-{attempt}"))));
    assert_asks(&host, &[], |_| drop(absent("absent-0")));
}

#[test]
fn a_second_look_asks_nothing_on_the_shared_lower() {
    a_second_look_asks_nothing("shared");
}

#[test]
fn a_second_look_asks_nothing_on_the_owners_lower() {
    a_second_look_asks_nothing("per-owner");
}

#[test]
fn without_time_to_live_the_counter_moves() {
    let (host, point) = host("shared", "entry_ttl = \"0s\"\n");
    list(&host, &point);
    for _ in 0..2 {
        let before = host.requests();
        list(&host, &point);
        let more = host.requests() - before;
        assert!(more > FILES, "{more} requests for {FILES} files");
    }
}
