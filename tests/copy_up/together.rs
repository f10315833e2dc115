//! Copy-ups at the same time as others: first writers of one file, readers of it, its parents, another user.

use std::process::{Child, Command, Stdio};

use crate::{
    configuration, inventory, shared,
    support::{ALICE, BOB, Host, LOWERS, become_user},
    upper,
};

const REPOSITORY: &str = r#"
    mkdir -p a/b/c/d a/other; head -c 8388608 /dev/urandom > a/b/c/d/large; cp a/b/c/d/large a/b/c/d/second
    for n in 1 2 3; do echo $n > a/b/c/d/f$n; echo $n > a/other/f$n; done; chmod 755 a/b/c/d/f1
    git config core.compression 0; git add -A && git commit -q -m first
"#;

/// READs of the large file, were all of them as small as readahead begins with.
const SMALLEST_READS: u64 = 8_388_608 / (128 << 10);

fn start(uid: u32, at: &std::path::Path, script: &str) -> Child {
    let mut command = Command::new("sh");
    command.args(["-ec", script]).current_dir(at).stdout(Stdio::piped()).stderr(Stdio::piped());
    become_user(&mut command, uid).spawn().unwrap()
}

#[track_caller]
fn done(child: Child) -> String {
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn first_writers(kind: &str) {
    let host = Host::with_repo(&configuration(kind), REPOSITORY);
    let (at, id) = host.mount(ALICE, "w", &[]);
    host.sh_as(ALICE, &format!("cat '{}/a/b/c/d/large' > /dev/null", at.display()));
    host.sh("echo 3 > /proc/sys/vm/drop_caches");
    let before = host.opcodes();
    // Appends of one line are atomic, whoever copies the file up.
    let writers: Vec<_> =
        (0..12).map(|n| start(ALICE, &at, &format!("echo line {n} >> a/b/c/d/large"))).collect();
    let readers: Vec<_> =
        (0..3).map(|_| start(ALICE, &at, "head -c 8388608 a/b/c/d/large | sha256sum")).collect();
    writers.into_iter().for_each(|writer| drop(done(writer)));
    let sum = host.sh("sha256sum < repo/a/b/c/d/large");
    for reader in readers {
        assert_eq!(done(reader), sum, "who reads meanwhile reads the file");
    }
    let lines =
        host.sh_as(ALICE, &format!("cd '{}'; tail -c +8388609 a/b/c/d/large | sort -k2n", at.display()));
    let all: String = (0..12).map(|n| format!("line {n}\n")).collect();
    assert_eq!(lines, all);
    assert_eq!(
        host.sh_as(ALICE, &format!("head -c 8388608 '{}/a/b/c/d/large' | sha256sum", at.display())),
        sum
    );
    // The page cache of the lower is one for all of them: each page is asked for once, or a few once more.
    let reads = host.asked_since(&before)["READ"];
    assert!(reads <= 2 * SMALLEST_READS, "{reads} READs for fifteen processes");
    assert!(inventory(&host, &id).contains("a/b/c/d/large\n"));
}

#[test]
fn first_writers_at_once_lose_nothing_and_readers_see_it_whole() {
    let _caches = shared();
    LOWERS.into_iter().for_each(first_writers);
}

fn parents(kind: &str) {
    let host = Host::with_repo(&configuration(kind), REPOSITORY);
    let (at, id) = host.mount(ALICE, "w", &["--mode", "0755"]);
    let look = "stat -c '%n %a %u %g %Y' a a/b a/b/c a/b/c/d a/other";
    let before = host.sh_as(ALICE, &format!("cd '{}'; {look}", at.display()));
    // All at once, each needing the same parents.
    let writers: Vec<_> = (1..=3).map(|n| start(ALICE, &at, &format!("echo more >> a/b/c/d/f{n}"))).collect();
    writers.into_iter().for_each(|writer| drop(done(writer)));
    assert_eq!(
        host.sh_as(ALICE, &format!("cd '{}'; {look}", at.display())),
        before,
        "modes, owners and times are kept"
    );
    let names = host.sh(&format!(
        "cd '{}' && find . -mindepth 1 -printf '%P\\n' | LC_ALL=C sort",
        upper(&host, &id).display()
    ));
    let expected = "a\na/b\na/b/c\na/b/c/d\na/b/c/d/f1\na/b/c/d/f2\na/b/c/d/f3\n";
    assert_eq!(names, expected, "parents alone, and no sibling");
    assert_eq!(
        host.sh_as(ALICE, &format!("cd '{}'; ls a a/b/c/d; stat -c %a a/b/c/d/f1", at.display())),
        "a:\nb\nother\n\na/b/c/d:\nf1\nf2\nf3\nlarge\nsecond\n755\n"
    );
}

#[test]
fn parents_are_copied_up_once_and_look_as_before() {
    let _caches = shared();
    LOWERS.into_iter().for_each(parents);
}

fn another_user(kind: &str) {
    let host = Host::with_repo(&configuration(kind), REPOSITORY);
    let (alices, alice) = host.mount(ALICE, "alices", &[]);
    let (bobs, bob) = host.mount(BOB, "bobs", &[]);
    let both = [(ALICE, &alices), (BOB, &bobs)]
        .map(|(uid, at)| start(uid, at, &format!("echo {uid} >> a/b/c/d/second")));
    both.into_iter().for_each(|writer| drop(done(writer)));
    for (uid, at, id) in [(ALICE, &alices, &alice), (BOB, &bobs, &bob)] {
        assert_eq!(
            host.sh_as(uid, &format!("tail -c +8388609 '{}/a/b/c/d/second'", at.display())),
            format!("{uid}\n")
        );
        assert!(inventory(&host, id).contains(&format!("f 644 {uid} ")));
    }
    let (third, _) = host.mount(BOB, "third", &[]);
    host.sh_as(BOB, &format!("cmp '{}/a/b/c/d/second' repo/a/b/c/d/large", third.display()));
}

#[test]
fn two_users_copy_one_file_up_and_each_has_their_own() {
    let _caches = shared();
    LOWERS.into_iter().for_each(another_user);
}
