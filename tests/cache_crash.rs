//! The cache after crashes and corruption. Whatever happened to its files, opening it never takes the process down.
//!
//! Parts run in processes of their own: this test binary, started again with the name of one ignored test.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)] // tests may, in their own functions too

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{BufRead, BufReader},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use bytes::Bytes;
use scorpio::{
    cache::{self, Cache, CacheError, CacheOptions, Checker, Put},
    types::{ObjectKind, Oid, OriginName},
};
use tempfile::TempDir;

const INLINE_MAX: u32 = 64 << 10;

fn options(dir: &Path, boot_id: &str) -> CacheOptions {
    CacheOptions {
        dir: dir.to_owned(),
        map_bytes: 1 << 30,
        inline_max_bytes: INLINE_MAX,
        boot_id: boot_id.into(),
        checker: Some(Checker::new(std::env::current_exe().unwrap(), child_args("child_checks"))),
    }
}

/// Arguments that make this binary run one ignored test; the cache directory follows them.
fn child_args(test: &str) -> Vec<OsString> {
    ["--ignored", "--exact", "--nocapture", "--test-threads=1", test].map(OsString::from).to_vec()
}

/// The directory a child was started with; `None` when somebody merely runs all ignored tests.
fn child_dir() -> Option<PathBuf> {
    std::env::args_os().last().map(PathBuf::from).filter(|path| path.is_absolute() && path.is_dir())
}

#[test]
#[ignore = "runs in a child of the other tests"]
fn child_checks() {
    if let Some(dir) = child_dir() {
        cache::check(&dir).unwrap();
    }
}

#[test]
#[ignore = "runs in a child of the other tests"]
fn child_writes_until_killed() {
    let Some(dir) = child_dir() else { return };
    let cache = Cache::open(options(&dir, "boot")).unwrap();
    let start = cache.stats().unwrap().trees as usize;
    runtime().block_on(async {
        for number in start.. {
            let (tree, small, large) =
                (tree(number), blob(number, 100), blob(number, INLINE_MAX as usize + 1));
            let puts = [Put::Tree(tree.0, tree.1), Put::Blob(small.0, small.1), Put::Blob(large.0, large.1)];
            cache.put(&origin(), puts.into()).await.unwrap();
            println!("kept {number}");
        }
    });
}

#[test]
#[ignore = "runs in a child of the other tests"]
fn child_opens_in_little_address_space() {
    let Some(dir) = child_dir() else { return };
    // What is mapped already, and some MiB for threads and the heap beside the smallest map.
    let statm = fs::read_to_string("/proc/self/statm").unwrap();
    let mapped = statm.split(' ').next().unwrap().parse::<u64>().unwrap() * 4096;
    let limit = mapped + (1 << 30);
    nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_AS, limit, limit).unwrap();
    let cache = Cache::open(CacheOptions { map_bytes: 64 << 30, ..options(&dir, "boot") }).unwrap();
    let (oid, content) = blob(1, 100);
    runtime().block_on(cache.put(&origin(), vec![Put::Blob(oid, content.clone())])).unwrap();
    assert_eq!(cache.read_blob(&origin(), oid, 0, 100).unwrap(), Some(content));
}

fn origin() -> OriginName {
    "memory".parse().unwrap()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Starts this binary again for one test on `dir`.
fn child(test: &str, dir: &Path) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(child_args(test)).arg(dir).stdout(Stdio::piped()).spawn().unwrap()
}

fn content(seed: usize, len: usize) -> Bytes {
    let mut state = seed as u64 + 1;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}

fn blob(seed: usize, len: usize) -> (Oid, Bytes) {
    let content = content(seed, len);
    (Oid::of(ObjectKind::Blob, &content).unwrap(), content)
}

fn tree(seed: usize) -> (Oid, Bytes) {
    let body: Bytes = [b"100644 a\0".as_slice(), &content(seed, 20)].concat().into();
    (Oid::of(ObjectKind::Tree, &body).unwrap(), body)
}

/// A cache with a database of several levels, overflow pages and free pages.
fn filled(dir: &Path) -> Vec<(Oid, Bytes)> {
    let cache = Cache::open(options(dir, "first boot")).unwrap();
    let mut kept = Vec::new();
    runtime().block_on(async {
        for number in 0..300 {
            let blob = blob(number, number * 7 % 9000);
            let tree = tree(number);
            cache
                .put(&origin(), vec![Put::Tree(tree.0, tree.1), Put::Blob(blob.0, blob.1.clone())])
                .await
                .unwrap();
            kept.push(blob);
        }
    });
    kept
}

fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(status.success());
}

/// A way to spoil the database file.
enum Spoil {
    Truncate(u64),
    Fill(u64, u64, u8),
    Randomise(u64, u64, usize),
    FlipEvery(u64),
    Delete,
}

fn spoil(path: &Path, how: &Spoil) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    match how {
        Spoil::Truncate(len) => file.set_len(*len).unwrap(),
        Spoil::Fill(at, len, byte) => file.write_all_at(&vec![*byte; *len as usize], *at).unwrap(),
        Spoil::Randomise(at, len, seed) => file.write_all_at(&content(*seed, *len as usize), *at).unwrap(),
        Spoil::FlipEvery(step) => {
            let len = file.metadata().unwrap().len();
            for at in (0..len).step_by(*step as usize) {
                let mut byte = [0];
                file.read_exact_at(&mut byte, at).unwrap();
                file.write_all_at(&[byte[0] ^ 0x08], at).unwrap();
            }
        }
        Spoil::Delete => fs::remove_file(path).unwrap(),
    }
}

#[test]
fn no_corruption_of_another_boot_kills_the_process_or_is_served() {
    let world = TempDir::new().unwrap();
    let template = world.path().join("template");
    let kept = filled(&template);
    let len = fs::metadata(template.join("db/data.mdb")).unwrap().len();
    let page = 4096;
    let last = len / page * page - page;
    let mut spoils = vec![
        Spoil::Truncate(0),
        Spoil::Truncate(1),
        Spoil::Truncate(page),
        Spoil::Truncate(2 * page),
        Spoil::Truncate(len / 2),
        Spoil::Truncate(len - page),
        Spoil::Truncate(len - 1),
        Spoil::Fill(0, len, 0),
        Spoil::Fill(0, len, 0xff),
        Spoil::Fill(2 * page, len - 2 * page, 0),
        Spoil::Fill(2 * page, len - 2 * page, 0xff),
        Spoil::Randomise(0, len, 1),
        Spoil::Randomise(0, page, 2),
        Spoil::Randomise(16, 136, 3),
        Spoil::Randomise(page, page, 4),
        Spoil::Randomise(2 * page, len - 2 * page, 5),
        Spoil::Randomise(len / 2, page, 6),
        Spoil::Randomise(last, page, 7),
        Spoil::FlipEvery(page),
        Spoil::FlipEvery(997),
        Spoil::Delete,
    ];
    // Every page in turn would take long; every 23rd meets branches, leaves, overflow and free pages.
    spoils.extend(
        (2..len / page).step_by(23).map(|number| Spoil::Randomise(number * page, page, number as usize)),
    );
    spoils.extend(
        (3..len / page).step_by(97).map(|number| Spoil::Randomise(number * page + 10, 6, number as usize)),
    );
    let runtime = runtime();
    for (round, how) in spoils.iter().enumerate() {
        let dir = world.path().join(format!("round-{round}"));
        copy(&template, &dir);
        spoil(&dir.join("db/data.mdb"), how);
        let cache = Cache::open(options(&dir, "next boot")).unwrap();
        for (oid, content) in &kept {
            let read = cache.read_blob(&origin(), *oid, 0, u32::MAX).unwrap();
            assert!(read.is_none_or(|read| read == content), "round {round}: wrong bytes of {oid}");
        }
        // And it is written to, through whatever the file says is free.
        runtime.block_on(async {
            for number in 1000..1040 {
                let (oid, content) = blob(number, 5000);
                cache.put(&origin(), vec![Put::Blob(oid, content.clone())]).await.unwrap();
                assert_eq!(
                    cache.read_blob(&origin(), oid, 0, u32::MAX).unwrap(),
                    Some(content),
                    "round {round}"
                );
            }
        });
        drop(cache);
        fs::remove_dir_all(dir).unwrap();
    }
}

#[test]
fn a_whole_cache_of_another_boot_is_kept() {
    let world = TempDir::new().unwrap();
    let dir = world.path().join("cache");
    let kept = filled(&dir);
    let cache = Cache::open(options(&dir, "next boot")).unwrap();
    for (oid, content) in kept {
        assert_eq!(cache.read_blob(&origin(), oid, 0, u32::MAX).unwrap(), Some(content));
    }
}

#[test]
fn everything_acknowledged_survives_ten_kills() {
    let world = TempDir::new().unwrap();
    let dir = world.path().join("cache");
    fs::create_dir(&dir).unwrap();
    let mut acknowledged = 0;
    let mut known = Vec::new();
    for round in 0..10 {
        let mut writer = child("child_writes_until_killed", &dir);
        let mut lines = BufReader::new(writer.stdout.take().unwrap()).lines();
        let mut kept = || loop {
            let line = lines.next()?.unwrap();
            if let Some((_, number)) = line.rsplit_once("kept ") {
                return Some(number.parse::<usize>().unwrap() + 1);
            }
        };
        for _ in 0..10 + 3 * round {
            acknowledged = kept().expect("the writer ended by itself");
        }
        writer.kill().unwrap();
        while let Some(number) = kept() {
            acknowledged = number;
        }
        writer.wait().unwrap();
        let cache = Cache::open(options(&dir, "boot")).unwrap();
        for number in known.len()..acknowledged {
            known.push((tree(number), blob(number, 100), blob(number, INLINE_MAX as usize + 1)));
        }
        for (tree, small, large) in &known {
            assert_eq!(cache.tree(&origin(), tree.0).unwrap().as_ref(), Some(&tree.1), "in round {round}");
            for (oid, content) in [small, large] {
                let read = cache.read_blob(&origin(), *oid, 0, u32::MAX).unwrap();
                assert!(read.as_ref() == Some(content), "blob {oid} in round {round}");
            }
        }
        assert_eq!(fs::read_dir(dir.join("objects/tmp")).unwrap().count(), 0);
    }
    cache::check(&dir).unwrap();
}

#[test]
fn a_cache_in_use_by_another_process_says_so() {
    let world = TempDir::new().unwrap();
    let dir = world.path().join("cache");
    fs::create_dir(&dir).unwrap();
    let mut writer = child("child_writes_until_killed", &dir);
    let mut lines = BufReader::new(writer.stdout.take().unwrap()).lines();
    lines.find(|line| line.as_ref().unwrap().contains("kept ")).unwrap().unwrap();
    let refused = Cache::open(options(&dir, "boot")).err().unwrap();
    assert!(matches!(&refused, CacheError::InUse { dir: of } if *of == dir), "{refused}");
    writer.kill().unwrap();
    writer.wait().unwrap();
    Cache::open(options(&dir, "boot")).unwrap();
}

#[test]
fn a_limited_address_space_makes_the_map_smaller() {
    let world = TempDir::new().unwrap();
    let output = child("child_opens_in_little_address_space", world.path()).wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "the child ran no test");
}
