//! A reference repository made by stock git, and what stock git says about it.
#![allow(dead_code, missing_docs, unreachable_pub, clippy::unwrap_used)] // each test binary uses a part

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs,
    io::Write as _,
    os::unix::{ffi::OsStrExt as _, fs::PermissionsExt as _, fs::symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use scorpio::{
    origin::{Hint, Want},
    sys::identity::Identity,
    types::{Oid, OriginName, RepoPath},
};

/// Entries of the directory `many`.
pub const MANY: usize = 5_000;

/// Git with nothing of this machine's configuration.
pub fn command(dir: &Path) -> Command {
    let mut command = Command::new("git");
    command.current_dir(dir).env_clear();
    for (key, value) in [
        ("PATH", std::env::var_os("PATH").unwrap()),
        ("HOME", OsString::from("/nonexistent")),
        ("GIT_CONFIG_NOSYSTEM", OsString::from("1")),
        ("GIT_CONFIG_GLOBAL", OsString::from("/dev/null")),
        ("GIT_CONFIG_COUNT", OsString::from("1")),
        ("GIT_CONFIG_KEY_0", OsString::from("safe.directory")),
        ("GIT_CONFIG_VALUE_0", OsString::from("*")),
        ("GIT_AUTHOR_NAME", OsString::from("A")),
        ("GIT_AUTHOR_EMAIL", OsString::from("a@example.org")),
        ("GIT_AUTHOR_DATE", OsString::from("1700000000 +0000")),
        ("GIT_COMMITTER_NAME", OsString::from("C")),
        ("GIT_COMMITTER_EMAIL", OsString::from("c@example.org")),
        ("GIT_COMMITTER_DATE", OsString::from("1700000000 +0000")),
    ] {
        command.env(key, value);
    }
    command
}

pub fn git(dir: &Path, args: &[&str]) -> String {
    let text = git_with_input(dir, args, b"");
    String::from_utf8(text).unwrap().trim_end().to_owned()
}

pub fn git_with_input(dir: &Path, args: &[&str], input: &[u8]) -> Vec<u8> {
    let mut command = command(dir);
    let pipes = command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = pipes.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let done = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(done.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&done.stderr));
    done.stdout
}

/// The id that git gives for a revision.
pub fn oid(dir: &Path, rev: &str) -> Oid {
    git(dir, &["rev-parse", "--verify", rev]).parse().unwrap()
}

pub fn name(text: &str) -> OriginName {
    text.parse().unwrap()
}

pub fn want(oid: Oid) -> Want {
    Want { oid, hint: Hint { commit: Oid::EMPTY_TREE, path: RepoPath::root() } }
}

pub fn wants<'oid>(oids: impl IntoIterator<Item = &'oid Oid>) -> Vec<Want> {
    oids.into_iter().map(|oid| want(*oid)).collect()
}

/// The identity of this process.
pub fn myself() -> Identity {
    use nix::unistd::{getegid, geteuid, getgroups};
    let groups = getgroups().unwrap().into_iter().map(nix::unistd::Gid::as_raw).collect();
    Identity { uid: geteuid().as_raw(), gid: getegid().as_raw(), groups }
}

/// An account that may read what everybody may.
pub fn nobody() -> Identity {
    Identity { uid: 65_534, gid: 65_534, groups: Vec::new() }
}

pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// A temporary directory that other accounts may enter.
pub fn open_dir() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

/// Makes the reference repository as a work tree with loose objects at `dir`.
///
/// `main` has three commits, the second a merge of `side`; `v1` is an annotated tag of the first, `vv` a tag of that
/// tag, `light` a plain tag, `ablob` and `atree` tags of no commit.
pub fn build(dir: &Path) {
    fs::create_dir_all(dir).unwrap();
    git(dir, &["init", "-q", "-b", "main"]);
    fs::write(dir.join("README"), "first\n").unwrap();
    fs::create_dir_all(dir.join("src/deep")).unwrap();
    fs::write(dir.join("src/deep/file.c"), "int main;\n").unwrap();
    commit(dir, "first");
    git(dir, &["tag", "-a", "-m", "one", "v1"]);
    git(dir, &["tag", "-a", "-m", "two", "vv", "v1"]);
    git(dir, &["tag", "light"]);
    git(dir, &["checkout", "-q", "-b", "side/branch"]);
    fs::write(dir.join("SIDE"), "side\n").unwrap();
    commit(dir, "side");
    git(dir, &["checkout", "-q", "main"]);
    odd_files(dir);
    commit(dir, "odd files");
    git(dir, &["merge", "-q", "--no-ff", "-m", "merge", "side/branch"]);
    with_empty_directory(dir);
    git(dir, &["tag", "ablob", "HEAD:README"]);
    git(dir, &["tag", "atree", "HEAD:src"]);
}

fn commit(dir: &Path, message: &str) {
    git(dir, &["add", "-A"]);
    let gitlink = "160000,1234567890123456789012345678901234567890,vendored";
    if message != "first" {
        git(dir, &["update-index", "--add", "--cacheinfo", gitlink]);
    }
    git(dir, &["commit", "-q", "-m", message]);
}

fn odd_files(dir: &Path) {
    let put = |name: &[u8], content: &[u8]| fs::write(dir.join(OsStr::from_bytes(name)), content).unwrap();
    put(b"empty", b"");
    put(b"with space %41 \\ and \"quote\"", b"x");
    put(b"new\nline", b"y");
    put(b"not \xff\xfe utf-8", b"z");
    put(&[b'n'; 255], b"long name");
    put(b"-option", b"o");
    put(b"CRLF", b"a\r\nb\r\n");
    put(b"large", &noise(10 * 1024 * 1024));
    put(b"script", b"#!/bin/sh\n");
    fs::set_permissions(dir.join("script"), fs::Permissions::from_mode(0o755)).unwrap();
    symlink("src/deep/file.c", dir.join("link")).unwrap();
    symlink("../../../etc/passwd", dir.join("dangling")).unwrap();
    fs::create_dir_all(dir.join("many")).unwrap();
    for number in 0..MANY {
        fs::write(dir.join(format!("many/{number:05}")), format!("{number}\n")).unwrap();
    }
    let deep: PathBuf = (0..60).map(|level| format!("level{level}")).collect();
    fs::create_dir_all(dir.join(&deep)).unwrap();
    fs::write(dir.join(&deep).join("bottom"), "deep").unwrap();
    // A file that grew in each commit becomes a chain of deltas in a pack.
    let lines = |count: u32| (0..count).map(|line| format!("line {line}\n")).collect::<String>();
    fs::write(dir.join("README"), lines(4000)).unwrap();
    fs::write(dir.join("README.more"), lines(4100)).unwrap();
    fs::write(dir.join("README.most"), lines(4200)).unwrap();
}

/// A third commit with what no checkout can hold: a directory without entries.
fn with_empty_directory(dir: &Path) {
    let empty = git(dir, &["mktree"]);
    assert_eq!(empty, Oid::EMPTY_TREE.to_string());
    let mut entries = git_with_input(dir, &["ls-tree", "-z", "HEAD"], b"");
    entries.extend(format!("040000 tree {empty}\tvoid\0").bytes());
    let tree = git_with_input(dir, &["mktree", "-z", "--missing"], &entries);
    let tree = String::from_utf8(tree).unwrap();
    let commit = git(dir, &["commit-tree", "-p", "HEAD", "-m", "void", tree.trim_end()]);
    git(dir, &["update-ref", "HEAD", &commit]);
}

/// Bytes that do not compress, the same each time.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    std::iter::repeat_with(next).take(len).collect()
}

/// Every object of a repository, as `git cat-file` shows it.
#[derive(Default)]
pub struct Objects {
    pub trees: BTreeMap<Oid, Vec<u8>>,
    pub blobs: BTreeMap<Oid, Vec<u8>>,
    pub commits: BTreeMap<Oid, Vec<u8>>,
}

impl Objects {
    pub fn of(repository: &Path) -> Objects {
        let all = git_with_input(repository, &["cat-file", "--batch-all-objects", "--batch"], b"");
        let mut objects = Objects::default();
        let mut rest = &all[..];
        while !rest.is_empty() {
            let end = rest.iter().position(|byte| *byte == b'\n').unwrap();
            let header = std::str::from_utf8(&rest[..end]).unwrap();
            let [oid, kind, size] = header.split(' ').collect::<Vec<_>>().try_into().unwrap();
            let body = &rest[end + 1..][..size.parse::<usize>().unwrap()];
            rest = &rest[end + 1 + body.len() + 1..];
            let kind = match kind {
                "tree" => &mut objects.trees,
                "blob" => &mut objects.blobs,
                "commit" => &mut objects.commits,
                _ => continue,
            };
            kind.insert(oid.parse().unwrap(), body.to_vec());
        }
        objects
    }
}
