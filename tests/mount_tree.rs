//! What a mount shows is what a plain checkout would: names, types, modes, targets and every byte, read cold by many.
//!
//! The reference is made by stock `git archive | tar x`. Needs root.

#![allow(clippy::unwrap_used)] // a test that fails panics

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
};

use support::{ALICE, BOB, Host, LOWERS, crates, lower};

/// Readers released together on an empty cache.
const READERS: usize = 8;
/// A repository "of a few thousand files".
const ENOUGH_FILES: usize = 4000;
/// A crate with more than this is left out: bytes of bindings would only make the test long.
const LARGEST_CRATE_KIB: usize = 4000;

/// Everything a repository can hold that a mount might get wrong.
const ODD_THINGS: &str = r#"
    mkdir odd 'odd/a b' odd/%41 odd/deep many
    printf x > 'odd/a b/c  d'; printf x > odd/%41/%2f%00; printf x > "$(printf 'odd/new\nline')"
    printf x > "$(printf 'odd/\377\376 not UTF-8')"; printf x > "odd/$(printf 'n%.0s' $(seq 255))"
    printf x > 'odd/-rf'; printf x > 'odd/*'; printf x > 'odd/back\slash'; printf x > odd/..., ; printf x > 'odd/"'
    ln -s /etc/hostname odd/absolute; ln -s nowhere/at/all odd/dangling; ln -s 'a b' odd/relative; ln -s loop odd/loop
    ln -s "$(printf 't%.0s' $(seq 4000))" odd/long-target
    printf '#!/bin/sh\necho ran\n' > odd/run; chmod 755 odd/run; : > odd/empty; : > odd/empty-too
    head -c 5242880 /dev/urandom > odd/random; head -c 65536 /dev/urandom > odd/inline; head -c 65537 /dev/urandom > odd/file
    at=odd/deep; for level in $(seq 60); do at=$at/level-$level-of-a-deep-path; done; mkdir -p $at; printf deep > $at/end
    seq 3000 | while read n; do echo $n > many/file-$n; done
    git update-index --add --cacheinfo 160000,1234567890123456789012345678901234567890,odd/submodule
"#;

/// A host whose repository has crates' sources and [`ODD_THINGS`], and the reference in `<dir>/reference`.
fn host(kind: &str) -> Host {
    let script = format!(
        r#"
        files=0
        for crate in {crates}/*/; do
            [ $(du -sk "$crate" | cut -f1) -le {LARGEST_CRATE_KIB} ] || continue
            cp -R "$crate" . ; files=$((files + $(find "$crate" -type f | wc -l)))
            [ $files -lt {ENOUGH_FILES} ] || break
        done
        # What they say about archives and line ends is for git; a mount shows the bytes that git holds.
        find . -name .gitattributes -delete
        {ODD_THINGS}
        git add -A -f . && git commit -q -m first && git tag v1
        git checkout -q -b feature/x && echo branch > on-branch && git add -f on-branch && git commit -q -m second
        git checkout -q main
        "#,
        crates = crates().display()
    );
    let host = Host::with_repo(&lower(kind), &script);
    host.sh("mkdir reference && git -C repo -c tar.umask=0022 archive HEAD | tar -xp -C reference");
    host
}

/// One NUL-ended line for each thing below `at`: path, type, mode, target, and size where it is one of content.
fn shape(host: &Host, uid: u32, at: &Path) -> Vec<Vec<u8>> {
    let script = format!(
        "cd '{}' && find . -mindepth 1 \\( -type d -printf '%p %y %m\\0' -o -printf '%p %y %m %l %s\\0' \\)",
        at.display()
    );
    lines(&host.try_sh_as(uid, &script))
}

fn lines(output: &std::process::Output) -> Vec<Vec<u8>> {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut lines: Vec<_> = output.stdout.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect();
    lines.sort();
    lines
}

/// Hashes of all files below `at`, whose names are taken from the reference and read in random order.
fn hashes(host: &Host, uid: u32, at: &Path) -> Vec<Vec<u8>> {
    let names = host.path("names");
    let script = format!("cd '{}' && shuf -z '{}' | xargs -0 sha256sum -z --", at.display(), names.display());
    lines(&host.try_sh_as(uid, &script))
}

/// Both or the first difference.
#[track_caller]
fn assert_same(found: &[Vec<u8>], expected: &[Vec<u8>], what: &str) {
    let differ = found.iter().zip(expected).find(|(found, expected)| found != expected);
    if let Some((found, expected)) = differ {
        panic!("{what}: {} instead of {}", found.escape_ascii(), expected.escape_ascii());
    }
    assert_eq!(found.len(), expected.len(), "{what}");
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
    let reference = host.path("reference");
    host.sh("cd reference && find . -type f -print0 > ../names");
    let (point, _) = host.mount(ALICE, "cold", &[]);
    let expected = hashes(&host, 0, &reference);
    assert!(expected.len() > ENOUGH_FILES + 3000, "{} files", expected.len());

    let found: Vec<_> = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..READERS).map(|_| scope.spawn(|| hashes(&host, ALICE, &point))).collect();
        readers.into_iter().map(|reader| reader.join().unwrap()).collect()
    });
    for found in found {
        assert_same(&found, &expected, "content");
    }
    assert_same(
        &shape(&host, ALICE, &point),
        &shape(&host, 0, &reference),
        "names, types, modes, targets, sizes",
    );

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
    assert_same(&hashes(&host, BOB, &bobs), &expected, "content for the second user");
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
