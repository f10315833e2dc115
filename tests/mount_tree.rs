//! What a mount shows is what a plain checkout would: names, types, modes, targets and every byte, read cold by many.
//!
//! The reference is made by stock `git archive | tar x`. Needs root.

#![allow(clippy::unwrap_used)] // a test that fails panics

mod support;

use std::{fs, path::PathBuf};

use support::{
    ALICE, BOB, Host, LOWERS, lower,
    reference::{ODD_THINGS, Reference, real_files},
};

/// A repository "of a few thousand files".
const ENOUGH_FILES: usize = 4000;
/// A crate with more than this is left out: bytes of bindings would only make the test long.
const LARGEST_CRATE_KIB: usize = 4000;

/// A host whose repository has crates' sources, [`ODD_THINGS`], a large directory and a submodule.
fn host(kind: &str) -> Host {
    let script = format!(
        r#"
        {}
        {ODD_THINGS}
        mkdir many; seq 3000 | while read n; do echo $n > many/file-$n; done
        git update-index --add --cacheinfo 160000,1234567890123456789012345678901234567890,odd/submodule
        git add -A -f . && git commit -q -m first && git tag v1
        git checkout -q -b feature/x && echo branch > on-branch && git add -f on-branch && git commit -q -m second
        git checkout -q main
        "#,
        real_files(ENOUGH_FILES, LARGEST_CRATE_KIB)
    );
    Host::with_repo(&lower(kind), &script)
}

/// Distinct objects of a kind that the tree of `HEAD` needs.
fn distinct(host: &Host, what: &str) -> u64 {
    let script = format!(
        "cd repo && (git ls-tree -r -t HEAD; echo 040000 tree $(git rev-parse HEAD^{{tree}})) | grep '^[0-9]* {what} ' \
         | cut -d ' ' -f 3 | cut -c 1-40 | sort -u | wc -l"
    );
    host.sh(&script).trim().parse().unwrap()
}

fn a_cold_mount_is_what_a_plain_checkout_is(kind: &str) {
    let host = host(kind);
    let reference = Reference::check_out(&host, &[(&host.path("repo"), "")]);
    assert!(reference.files() > ENOUGH_FILES + 3000, "{} files", reference.files());
    let (point, _) = host.mount(ALICE, "cold", &[]);
    reference.assert_read_by_many(ALICE, &point);

    // An empty file and an empty tree are known without asking.
    let (trees, blobs) = (distinct(&host, "tree"), distinct(&host, "blob") - 1);
    let stats = host.json(0, &["stats"]);
    let counted = [&stats["cache"]["trees"], &stats["cache"]["blobs"], &stats["origins"]["repo"]["fetched"]];
    assert_eq!(
        counted.map(|count| count.as_u64().unwrap()),
        [trees, blobs, trees + blobs],
        "one fetch for each"
    );
    assert_eq!(stats["origins"]["repo"]["failed"], 0);

    // Another user's mount of the same is served from the cache.
    let (bobs, _) = host.mount(BOB, "warm", &[]);
    reference.assert_content(BOB, &bobs);
    assert_eq!(host.origin_counter("fetched"), trees + blobs);
}

fn parts_and_revisions_are_what_was_named(kind: &str) {
    let host = Host::with_repo(
        &lower(kind),
        "mkdir -p sub/inner && echo 1 > sub/inner/file && echo top > top && git add . && git commit -q -m 1 && git tag v1
         echo 2 > sub/inner/file && git add . && git commit -q -m 2 && git tag -a -m annotated v2
         git checkout -q -b feature/x && echo 3 > sub/inner/file && git add . && git commit -q -m 3
         mkdir -p node_modules/@types && echo t > node_modules/@types/t && git add . && git commit -q -m 4
         git checkout -q main",
    );
    let commit = |rev: &str| host.sh(&format!("git -C repo rev-parse '{rev}^{{commit}}'")).trim().to_owned();
    let first = commit("v1");
    let cases = [
        ("repo:", "sub/inner/file", "2", "main"),
        ("repo:/", "sub/inner/file", "2", "main"),
        ("repo:sub", "inner/file", "2", "main"),
        ("repo:/sub/inner/", "file", "2", "main"),
        ("repo:@v1", "sub/inner/file", "1", "v1"),
        ("repo:sub@v2", "inner/file", "2", "v2"),
        (&format!("repo:sub@{first}"), "inner/file", "1", "v1"),
        (&format!("repo:sub@{}", &first[..12]), "inner/file", "1", "v1"),
        ("repo:sub/inner@feature/x", "file", "3", "feature/x"),
        ("repo:node_modules/@types@feature/x", "t", "t", "feature/x"),
        ("repo:sub@main~1", "inner/file", "1", "v1"),
    ];
    for (number, (spec, file, content, rev)) in cases.into_iter().enumerate() {
        let point = host.point(ALICE, &format!("p{number}"));
        let view = host.json(ALICE, &["mount", spec, point.to_str().unwrap()]);
        assert_eq!(
            host.sh_as(ALICE, &format!("cat '{}'", point.join(file).display())).trim(),
            content,
            "{spec}"
        );
        assert_eq!(view["commit"], commit(rev), "{spec}");
    }
    let names = |point: PathBuf| -> Vec<_> {
        let mut names: Vec<_> =
            fs::read_dir(point).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names(host.path("mnt/p0")), ["sub", "top"]);
    assert_eq!(names(host.path("mnt/p2")), ["inner"]);
}

/// Processes that ask for one file at the same moment.
const AT_ONCE: usize = 20;

fn one_file_asked_for_by_many_comes_once(kind: &str) {
    let host = Host::with_repo(
        &lower(kind),
        "head -c 3000000 /dev/urandom > large && git add . && git commit -q -m 1",
    );
    let points = [ALICE, BOB].map(|uid| host.mount(uid, &format!("ws{uid}"), &[]).0);
    let mut command = std::process::Command::new("sha256sum");
    let expected = command.arg(host.path("repo/large")).output().unwrap().stdout[..64].to_vec();
    let before = host.origin_counter("fetched");
    let gate = std::sync::Barrier::new(AT_ONCE);
    std::thread::scope(|scope| {
        for number in 0..AT_ONCE {
            let (host, gate, expected) = (&host, &gate, &expected);
            let (uid, point) = [(ALICE, &points[0]), (BOB, &points[1])][number % 2];
            scope.spawn(move || {
                gate.wait();
                let found = host.sh_as(uid, &format!("sha256sum < '{}/large'", point.display()));
                assert_eq!(found.as_bytes()[..64], expected[..]);
            });
        }
    });
    let (tree, blob) = (1, 1);
    assert_eq!(host.origin_counter("fetched"), before.max(tree) + blob);
}

/// Names in one directory of somebody who wants to see what happens: a million in the long run, over which an unoptimised
/// build thinks for a minute.
fn crowd_size() -> u64 {
    if std::env::var_os("SCORPIO_LONG").is_some_and(|value| value == "1") { 1_000_000 } else { 100_000 }
}

#[test]
fn a_crowded_directory_is_listed_and_each_name_is_found() {
    let size = crowd_size();
    let script = format!(
        r#"
        blob=$(echo x | git hash-object -w --stdin)
        crowd=$(seq -f '%07.0f' {size} | sed "s/.*/100644 blob $blob\t&/" | git mktree)
        top=$(printf '040000 tree %s\tcrowd\n100644 blob %s\tbeside\n' $crowd $blob | git mktree)
        git update-ref refs/heads/main $(git commit-tree -m crowd $top)
        "#
    );
    let host = Host::with_repo(&lower("auto"), &script);
    let (alices, _) = host.mount(ALICE, "crowd", &[]);
    let counted = host.sh_as(ALICE, &format!("cd '{}'; ls -U crowd | wc -l; cat beside", alices.display()));
    assert_eq!(counted, format!("{size}\nx\n"));
    let found = host.sh_as(
        ALICE,
        &format!(
            "cd '{}/crowd'; cat 0000001 0050000 {size:07}; ls 0000000 {:07} 2>&1 | grep -c 'No such file'
             rm 0050000; ls -U | wc -l",
            alices.display(),
            size + 1
        ),
    );
    assert_eq!(found, format!("x\nx\nx\n2\n{}\n", size - 1));
    // Another mount of it lists all of it.
    let (bobs, _) = host.mount(BOB, "crowd-too", &[]);
    assert_eq!(host.sh_as(BOB, &format!("ls -U '{}/crowd' | wc -l", bobs.display())), format!("{size}\n"));
}

#[test]
fn one_file_asked_for_by_many_comes_once_on_both_lowers() {
    LOWERS.into_iter().for_each(one_file_asked_for_by_many_comes_once);
}

#[test]
fn a_cold_mount_is_what_a_plain_checkout_is_on_the_shared_lower() {
    a_cold_mount_is_what_a_plain_checkout_is("shared");
}

#[test]
fn a_cold_mount_is_what_a_plain_checkout_is_on_the_owners_lower() {
    a_cold_mount_is_what_a_plain_checkout_is("per-owner");
}

#[test]
fn parts_and_revisions_are_what_was_named_on_both_lowers() {
    LOWERS.into_iter().for_each(parts_and_revisions_are_what_was_named);
}
