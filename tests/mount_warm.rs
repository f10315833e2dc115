//! What has been seen once is not asked for again: counted where messages are read from the FUSE device. Needs root.

#![allow(clippy::unwrap_used)] // a test that fails panics

mod support;

use std::{collections::BTreeMap, path::Path};

use support::{ALICE, Host, lower};

const FILES: u64 = 1200;

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

/// How many pages of files the kernel has had to read again, because it had reclaimed them.
fn refaults() -> u64 {
    let all = std::fs::read_to_string("/proc/vmstat").unwrap();
    all.lines().find_map(|line| line.strip_prefix("workingset_refault_file ")).unwrap().parse().unwrap()
}

/// What was asked between two counts; READs of pages that the kernel says it had reclaimed are not counted.
fn asked(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>, reclaimed: u64) -> BTreeMap<String, u64> {
    let more = |(name, count): (&String, &u64)| (name.clone(), count - before.get(name).unwrap_or(&0));
    let mut asked: BTreeMap<_, _> = after.iter().map(more).filter(|(_, count)| *count > 0).collect();
    let again = asked.get("READ").copied().unwrap_or(0);
    if again <= reclaimed.min(before["READ"] / 20) {
        asked.remove("READ");
    }
    asked
}

fn a_second_look_asks_nothing(kind: &str) {
    let (host, point) = host(kind, "");
    let (listed, content) = (list(&host, &point), read(&host, &point));
    let link = host.sh_as(ALICE, &format!("readlink '{0}/link' '{0}/dangling'; '{0}/program'", point.display()));
    assert_eq!(link, "src/d1/f1\nnowhere\n");

    let (before, reclaimed) = (host.opcodes(), refaults());
    assert!(before["READ"] >= FILES, "{before:?}");
    assert_eq!(list(&host, &point), listed);
    assert_eq!(read(&host, &point), content);
    host.sh_as(
        ALICE,
        &format!(
            "cd '{}'; readlink link dangling; ./program; cat src/d1/absent && exit 1; test ! -e src/d2/absent-too",
            point.display()
        ),
    );
    let first = asked(&before, &host.opcodes(), refaults() - reclaimed);
    // The names that were never asked for before: one question each, and not one more.
    assert_eq!(first, BTreeMap::from([("LOOKUP".to_owned(), 2)]));

    let (before, reclaimed) = (host.opcodes(), refaults());
    list(&host, &point);
    read(&host, &point);
    host.sh_as(ALICE, &format!("cd '{}'; test ! -e src/d1/absent; test ! -e src/d2/absent-too", point.display()));
    assert_eq!(asked(&before, &host.opcodes(), refaults() - reclaimed), BTreeMap::new());
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
