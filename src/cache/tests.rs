//! Promises of the cache, on a real LMDB environment and real files.
#![allow(clippy::cast_possible_truncation)] // bytes made from counters

use std::{
    fs,
    os::unix::fs::{FileExt, PermissionsExt},
    time::Duration,
};

use tempfile::TempDir;

use super::*;
use crate::types::ObjectKind;

const INLINE_MAX: u32 = 64 << 10;
const MIB: usize = 1 << 20;

fn options(dir: &TempDir, boot_id: &str) -> CacheOptions {
    CacheOptions {
        dir: dir.path().join("cache"),
        map_bytes: 1 << 30,
        inline_max_bytes: INLINE_MAX,
        boot_id: boot_id.into(),
        checker: None,
    }
}

fn origin() -> OriginName {
    "o".parse().unwrap()
}

/// A checker that finds every database whole.
fn trusting() -> Option<Checker> {
    Some(Checker::new("/bin/true", []))
}

/// A checker that runs `script`.
fn scripted(script: &str, timeout: Duration) -> Option<Checker> {
    Some(Checker { timeout, ..Checker::new("/bin/sh", ["-c".into(), script.into()]) })
}

fn open(dir: &TempDir, boot_id: &str) -> Cache {
    Cache::open(options(dir, boot_id)).unwrap()
}

/// Bytes without a period, so that a wrong offset shows.
fn content(len: usize) -> Bytes {
    let mut state = len as u64 + 1;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}

fn blob(len: usize) -> (Oid, Bytes) {
    let content = content(len);
    (Oid::of(ObjectKind::Blob, &content).unwrap(), content)
}

fn tree() -> (Oid, Bytes) {
    let body = [b"100644 a\0".as_slice(), &[7; 20]].concat();
    (Oid::of(ObjectKind::Tree, &body).unwrap(), body.into())
}

async fn put_blob(cache: &Cache, len: usize) -> (Oid, Bytes) {
    let (oid, content) = blob(len);
    cache.put(&origin(), vec![Put::Blob(oid, content.clone())]).await.unwrap();
    (oid, content)
}

/// Everything queued before has been applied.
async fn settle(cache: &Cache) {
    cache.put(&origin(), vec![]).await.unwrap();
}

#[tokio::test]
async fn reads_are_exactly_the_bytes_that_are_there() {
    let dir = TempDir::new().unwrap();
    let cache = open(&dir, "a");
    let max = INLINE_MAX as usize;
    for len in [0, 1, max - 1, max, max + 1, 10 * MIB] {
        let (oid, content) = put_blob(&cache, len).await;
        let edges = [0, 1, 4095, 4096, len / 2, len.saturating_sub(1), len, len + 1, usize::MAX];
        for offset in edges {
            for count in [0, 1, 4096, INLINE_MAX, 1 << 20, u32::MAX] {
                let start = offset.min(len);
                let end = start.saturating_add(count as usize).min(len);
                let read = cache.read_blob(&origin(), oid, offset as u64, count).unwrap().unwrap();
                assert!(read == content[start..end], "{count} bytes at {offset} of {len}");
            }
        }
        assert_eq!(cache.size(&origin(), oid).unwrap(), Some(len as u64));
        assert!(cache.has_blob(&origin(), oid).unwrap());
    }
    let stats = cache.stats().unwrap();
    assert_eq!((stats.inline_blobs, stats.file_blobs), (4, 2));
    assert_eq!(stats.blob_bytes, (1 + (max - 1) + max + (max + 1) + 10 * MIB) as u64);
}

#[tokio::test]
async fn what_is_not_here_is_a_miss() {
    let dir = TempDir::new().unwrap();
    let cache = open(&dir, "a");
    let (oid, _) = blob(5);
    assert_eq!(cache.tree(&origin(), oid).unwrap(), None);
    assert_eq!(cache.size(&origin(), oid).unwrap(), None);
    assert!(!cache.has_blob(&origin(), oid).unwrap());
    assert_eq!(cache.read_blob(&origin(), oid, 0, 1).unwrap(), None);
    assert!(!cache.recheck(&origin(), oid).await.unwrap());
    cache.put(&origin(), vec![Put::Size(oid, 5)]).await.unwrap();
    assert_eq!(cache.size(&origin(), oid).unwrap(), Some(5));
    assert!(!cache.has_blob(&origin(), oid).unwrap());
    assert_eq!(cache.read_blob(&origin(), oid, 0, 1).unwrap(), None);
}

#[tokio::test]
async fn the_same_boot_finds_everything_again() {
    let dir = TempDir::new().unwrap();
    let cache = open(&dir, "a");
    let (tree, body) = tree();
    cache.put(&origin(), vec![Put::Tree(tree, body.clone())]).await.unwrap();
    let blobs = [put_blob(&cache, 10).await, put_blob(&cache, MIB).await];
    let stats = cache.stats().unwrap();
    drop(cache);
    let cache = open(&dir, "a");
    assert_eq!(cache.tree(&origin(), tree).unwrap(), Some(body));
    for (oid, content) in blobs {
        assert_eq!(cache.read_blob(&origin(), oid, 0, u32::MAX).unwrap(), Some(content));
    }
    let again = cache.stats().unwrap();
    assert_eq!((again.trees, again.inline_blobs, again.file_blobs), (1, 1, 1));
    assert_eq!(again.blob_bytes, stats.blob_bytes);
}

#[tokio::test]
async fn another_boot_without_a_checker_starts_empty() {
    let dir = TempDir::new().unwrap();
    let (small, large) = {
        let cache = open(&dir, "a");
        (put_blob(&cache, 10).await.0, put_blob(&cache, MIB).await.0)
    };
    let cache = open(&dir, "b");
    assert!(!cache.has_blob(&origin(), small).unwrap());
    assert!(!cache.has_blob(&origin(), large).unwrap());
    assert!(!cache.recheck(&origin(), large).await.unwrap());
    assert!(!dir.path().join("cache/discarded").exists());
    put_blob(&cache, 10).await;
    assert!(cache.has_blob(&origin(), small).unwrap());
}

#[tokio::test]
async fn a_check_that_fails_dies_hangs_or_cannot_run_costs_the_cache() {
    let patience = Duration::from_secs(60);
    let missing = Some(Checker::new("/nonexistent", []));
    let checkers = [
        scripted("exit 1", patience),
        scripted("kill -SEGV $$", patience),
        scripted("exec sleep 1000", Duration::from_millis(50)),
        missing,
    ];
    for checker in checkers {
        let dir = TempDir::new().unwrap();
        let oid = put_blob(&open(&dir, "a"), 10).await.0;
        let cache = Cache::open(CacheOptions { checker: checker.clone(), ..options(&dir, "b") }).unwrap();
        assert!(!cache.has_blob(&origin(), oid).unwrap(), "{checker:?}");
    }
}

#[tokio::test]
async fn a_crash_between_check_and_use_is_checked_again() {
    let dir = TempDir::new().unwrap();
    put_blob(&open(&dir, "a"), 10).await;
    let marker = dir.path().join("cache/boot");
    assert_eq!(fs::read_to_string(&marker).unwrap(), "scorpio cache 2\na\n");
    for damaged in ["", "scorpio cache 2\n", "scorpio cache 2\na", "\0\0\0\0"] {
        fs::write(&marker, damaged).unwrap();
        let seen = dir.path().join("seen");
        let checker = scripted(&format!("touch {}", seen.display()), Duration::from_secs(60));
        drop(Cache::open(CacheOptions { checker, ..options(&dir, "a") }).unwrap());
        assert!(seen.exists(), "not checked with the marker {damaged:?}");
        fs::remove_file(seen).unwrap();
    }
}

#[tokio::test]
async fn a_cache_of_another_version_is_thrown_away_unopened() {
    let dir = TempDir::new().unwrap();
    let oid = put_blob(&open(&dir, "a"), 10).await.0;
    fs::write(dir.path().join("cache/boot"), "scorpio cache 1\na\n").unwrap();
    let cache = Cache::open(CacheOptions { checker: trusting(), ..options(&dir, "a") }).unwrap();
    assert!(!cache.has_blob(&origin(), oid).unwrap());
}

#[tokio::test]
async fn a_database_that_lmdb_refuses_is_made_anew() {
    let dir = TempDir::new().unwrap();
    let oid = put_blob(&open(&dir, "a"), 10).await.0;
    fs::write(dir.path().join("cache/db/data.mdb"), [0x5a; 3 * 4096]).unwrap();
    let cache = open(&dir, "a");
    assert!(!cache.has_blob(&origin(), oid).unwrap());
    put_blob(&cache, 10).await;
    assert!(cache.has_blob(&origin(), oid).unwrap());
}

#[tokio::test]
async fn two_users_of_one_directory_are_refused() {
    let dir = TempDir::new().unwrap();
    let cache = open(&dir, "a");
    let second = Cache::open(options(&dir, "a"));
    assert!(matches!(second.err().unwrap(), CacheError::InUse { .. }));
    drop(cache);
    open(&dir, "a");
}

#[tokio::test]
async fn files_of_another_boot_are_not_served_before_they_are_hashed() {
    let dir = TempDir::new().unwrap();
    let (good, bad, short) = {
        let cache = open(&dir, "a");
        (put_blob(&cache, MIB).await, put_blob(&cache, MIB + 1).await, put_blob(&cache, MIB + 2).await)
    };
    let objects = Objects::open(&dir.path().join("cache")).unwrap();
    write_at(&objects.path(bad.0), 1000, b"rot");
    truncate(&objects.path(short.0), 17);
    let cache = Cache::open(CacheOptions { checker: trusting(), ..options(&dir, "b") }).unwrap();
    for oid in [good.0, bad.0, short.0] {
        assert!(!cache.has_blob(&origin(), oid).unwrap());
        assert_eq!(cache.read_blob(&origin(), oid, 0, 10).unwrap(), None);
    }
    assert!(cache.recheck(&origin(), good.0).await.unwrap());
    assert_eq!(cache.read_blob(&origin(), good.0, 0, u32::MAX).unwrap().unwrap(), good.1);
    assert!(!cache.recheck(&origin(), bad.0).await.unwrap());
    assert!(!cache.recheck(&origin(), short.0).await.unwrap());
    assert_eq!(cache.stats().unwrap().damaged, 2);
    assert_eq!(cache.stats().unwrap().file_blobs, 1);
    put_blob(&cache, MIB + 1).await;
    assert_eq!(cache.read_blob(&origin(), bad.0, 0, u32::MAX).unwrap().unwrap(), bad.1);
    drop(cache);
    assert!(open(&dir, "b").has_blob(&origin(), good.0).unwrap(), "one look per boot is enough");
}

#[tokio::test]
async fn files_that_changed_under_us_are_a_miss_and_come_again() {
    let dir = TempDir::new().unwrap();
    let cache = open(&dir, "a");
    let (oid, content) = put_blob(&cache, MIB).await;
    let path = cache.shared.objects.path(oid);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o444);
    for (round, spoil) in
        [remove as fn(&Path), |path| truncate(path, 5), |path| truncate(path, MIB as u64 + 1)]
            .iter()
            .enumerate()
    {
        spoil(&path);
        assert_eq!(cache.read_blob(&origin(), oid, 0, 10).unwrap(), None);
        assert!(!cache.has_blob(&origin(), oid).unwrap());
        settle(&cache).await;
        assert_eq!(cache.stats().unwrap().file_blobs, 0);
        assert_eq!(cache.size(&origin(), oid).unwrap(), Some(MIB as u64), "the size had been verified");
        assert!(cache.stats().unwrap().damaged > round as u64);
        put_blob(&cache, MIB).await;
        assert_eq!(cache.read_blob(&origin(), oid, 0, u32::MAX).unwrap().unwrap(), content);
    }
}

#[tokio::test]
async fn rotten_values_are_a_miss_are_dropped_and_come_again() {
    let dir = TempDir::new().unwrap();
    let cache = open(&dir, "a");
    let (tree, body) = tree();
    cache.put(&origin(), vec![Put::Tree(tree, body.clone())]).await.unwrap();
    let (blob, content) = put_blob(&cache, 100).await;
    let database = cache.shared.database.clone();
    rot(&database, database.trees, tree.as_bytes());
    rot(&database, database.blobs, blob.as_bytes());
    assert_eq!(cache.tree(&origin(), tree).unwrap(), None);
    assert_eq!(cache.read_blob(&origin(), blob, 0, 1).unwrap(), None);
    settle(&cache).await;
    let stats = cache.stats().unwrap();
    assert_eq!((stats.trees, stats.inline_blobs, stats.blob_bytes, stats.damaged), (0, 0, 0, 2));
    cache.put(&origin(), vec![Put::Tree(tree, body.clone())]).await.unwrap();
    put_blob(&cache, 100).await;
    assert_eq!(cache.tree(&origin(), tree).unwrap(), Some(body));
    assert_eq!(cache.read_blob(&origin(), blob, 0, 100).unwrap(), Some(content.clone()));
    rot(&database, database.index, blob.as_bytes());
    assert_eq!(cache.read_blob(&origin(), blob, 0, 1).unwrap(), None);
    settle(&cache).await;
    assert_eq!(cache.stats().unwrap().inline_blobs, 0);
    put_blob(&cache, 100).await;
    assert_eq!(cache.read_blob(&origin(), blob, 0, 100).unwrap(), Some(content.clone()));
    rot(&database, database.words, &word::key(0, blob));
    assert_eq!(cache.size(&origin(), blob).unwrap(), None);
    assert_eq!(cache.read_blob(&origin(), blob, 0, 1).unwrap(), None);
    settle(&cache).await;
    put_blob(&cache, 100).await;
    assert_eq!(cache.read_blob(&origin(), blob, 0, 100).unwrap(), Some(content));
}

#[tokio::test]
async fn good_content_that_came_before_the_damage_was_cleared_stays() {
    let dir = TempDir::new().unwrap();
    let cache = open(&dir, "a");
    let (blob, content) = put_blob(&cache, 100).await;
    let (tree, body) = tree();
    cache.put(&origin(), vec![Put::Tree(tree, body.clone())]).await.unwrap();
    cache.shared.writer.note(Step::DamagedBlob(blob, false));
    cache.shared.writer.note(Step::DamagedTree(tree));
    settle(&cache).await;
    assert_eq!(cache.read_blob(&origin(), blob, 0, 100).unwrap(), Some(content));
    assert_eq!(cache.tree(&origin(), tree).unwrap(), Some(body));
}

#[tokio::test]
async fn a_blob_that_is_not_as_long_as_was_said_fails_until_the_next_boot() {
    let dir = TempDir::new().unwrap();
    for (len, said) in [(10, 11), (MIB, 5)] {
        let cache = Cache::open(CacheOptions { checker: trusting(), ..options(&dir, "a") }).unwrap();
        let (oid, content) = blob(len);
        cache.put(&origin(), vec![Put::Size(oid, said)]).await.unwrap();
        cache.put(&origin(), vec![Put::Size(oid, len as u64)]).await.unwrap();
        assert_eq!(cache.size(&origin(), oid).unwrap(), Some(said), "the first word may have been given out");
        cache.put(&origin(), vec![Put::Blob(oid, content.clone())]).await.unwrap();
        assert_eq!(cache.size(&origin(), oid).unwrap(), Some(len as u64));
        let refused = |cache: &Cache| {
            let size = len as u64;
            matches!(cache.read_blob(&origin(), oid, 0, 1), Err(CacheError::SizeDisputed { oid: of, size: is }) if (of, is) == (oid, size))
        };
        assert!(refused(&cache));
        assert!(cache.has_blob(&origin(), oid).unwrap());
        cache.put(&origin(), vec![Put::Blob(oid, content.clone())]).await.unwrap();
        assert!(refused(&cache), "another put does not change what a kernel was told");
        drop(cache);
        let cache = open(&dir, "a");
        assert!(refused(&cache), "nor does another process");
        drop(cache);
        let cache = Cache::open(CacheOptions { checker: trusting(), ..options(&dir, "b") }).unwrap();
        assert!(cache.recheck(&origin(), oid).await.unwrap());
        assert_eq!(cache.read_blob(&origin(), oid, 0, u32::MAX).unwrap(), Some(content));
        drop(cache);
    }
}

#[tokio::test]
async fn a_full_map_fails_that_put_and_nothing_else() {
    let dir = TempDir::new().unwrap();
    let cache = Cache::open(CacheOptions { map_bytes: 1 << 20, ..options(&dir, "a") }).unwrap();
    let kept = put_blob(&cache, 1000).await;
    let size = INLINE_MAX as usize;
    let mut refused = None;
    for len in size - 64..size {
        let (oid, content) = blob(len);
        if let Err(why) = cache.put(&origin(), vec![Put::Blob(oid, content)]).await {
            refused = Some((oid, why));
            break;
        }
    }
    let (oid, why) = refused.expect("a map of 1 MiB holds no 4 MiB");
    let CacheError::Database { source, .. } = &why else { panic!("{why}") };
    assert!(matches!(**source, heed::Error::Mdb(heed::MdbError::MapFull)), "{why}");
    assert!(!cache.has_blob(&origin(), oid).unwrap());
    assert_eq!(cache.read_blob(&origin(), kept.0, 0, u32::MAX).unwrap(), Some(kept.1));
    // A file needs a small record only.
    let large = put_blob(&cache, MIB).await;
    assert_eq!(cache.read_blob(&origin(), large.0, 0, u32::MAX).unwrap(), Some(large.1));
}

#[tokio::test]
async fn one_job_that_does_not_fit_takes_no_other_with_it() {
    let dir = TempDir::new().unwrap();
    let cache = Cache::open(CacheOptions { map_bytes: 1 << 20, ..options(&dir, "a") }).unwrap();
    let huge: Vec<Put> =
        (1..60).map(|len| blob(INLINE_MAX as usize - len)).map(|(o, c)| Put::Blob(o, c)).collect();
    let (small, content) = blob(9);
    let origin = origin();
    let (failed, kept) =
        tokio::join!(cache.put(&origin, huge), cache.put(&origin, vec![Put::Blob(small, content.clone())]));
    assert!(failed.is_err());
    kept.unwrap();
    assert_eq!(cache.read_blob(&origin, small, 0, 9).unwrap(), Some(content));
}

#[tokio::test]
async fn what_a_killed_process_was_writing_is_gone_after_opening() {
    let dir = TempDir::new().unwrap();
    drop(open(&dir, "a"));
    let half = dir.path().join("cache/objects/tmp/abc");
    fs::write(&half, "half").unwrap();
    fs::create_dir_all(dir.path().join("cache/discarded/db")).unwrap();
    drop(open(&dir, "a"));
    assert!(!half.exists());
    assert!(!dir.path().join("cache/discarded").exists());
}

#[tokio::test]
async fn a_put_that_nobody_waits_for_is_kept() {
    let dir = TempDir::new().unwrap();
    let cache = open(&dir, "a");
    let (oid, content) = blob(10);
    {
        let origin = origin();
        let mut put = std::pin::pin!(cache.put(&origin, vec![Put::Blob(oid, content)]));
        // One poll queues it; then the caller is gone.
        std::future::poll_fn(|context| {
            let _ = put.as_mut().poll(context);
            std::task::Poll::Ready(())
        })
        .await;
    }
    settle(&cache).await;
    assert!(cache.has_blob(&origin(), oid).unwrap());
}

#[tokio::test]
async fn a_whole_cache_passes_its_check_and_a_rotten_one_does_not() {
    let dir = TempDir::new().unwrap();
    let cache = open(&dir, "a");
    let (tree, body) = tree();
    cache.put(&origin(), vec![Put::Tree(tree, body)]).await.unwrap();
    for len in [0, 10, 5000, INLINE_MAX as usize, MIB] {
        put_blob(&cache, len).await;
    }
    let path = dir.path().join("cache");
    drop(cache);
    assert_eq!(check(&path), Ok(()));
    let rot_in = |table: usize, oid: Oid| {
        let database = Database::open(&open::database_dir(&path), 1 << 30).unwrap();
        let word = word::key(0, oid);
        let key = if table == 3 { word.as_slice() } else { oid.as_bytes() };
        rot(&database, [database.trees, database.blobs, database.index, database.words][table], key);
    };
    for (table, oid, says) in [
        (0, tree, format!("tree {tree} is damaged")),
        (1, blob(10).0, format!("blob {} is damaged", blob(10).0)),
        (2, blob(MIB).0, format!("the index record of {} is damaged", blob(MIB).0)),
        (3, tree, format!("the word 00000000{tree} is damaged")),
    ] {
        rot_in(table, oid);
        assert_eq!(check(&path), Err(says));
        rot_in(table, oid);
    }
    assert_eq!(check(&path), Ok(()), "turned back, it is whole again");
    assert!(check(dir.path()).is_err(), "there is nothing");
}

#[tokio::test]
async fn a_value_under_a_wrong_id_fails_the_check_though_its_checksum_fits() {
    let dir = TempDir::new().unwrap();
    let cache = open(&dir, "a");
    let (oid, body) = tree();
    cache.put(&origin(), vec![Put::Tree(blob(3).0, body)]).await.unwrap();
    let path = cache.dir().to_owned();
    drop(cache);
    assert_eq!(check(&path), Err(format!("tree {} has another id", blob(3).0)), "{oid}");
}

fn other() -> OriginName {
    "o+1000".parse().unwrap()
}

/// All that `origin` is told of an object.
fn told(
    cache: &Cache,
    origin: &OriginName,
    oid: Oid,
) -> (Option<Bytes>, Option<u64>, Option<Bytes>, bool, bool) {
    let read = cache.read_blob(origin, oid, 0, u32::MAX).unwrap();
    let (tree, size) = (cache.tree(origin, oid).unwrap(), cache.size(origin, oid).unwrap());
    (tree, size, read, cache.has_tree(origin, oid).unwrap(), cache.has_blob(origin, oid).unwrap())
}

#[tokio::test]
async fn what_one_origin_delivered_is_not_here_for_another() {
    let dir = TempDir::new().unwrap();
    let cache = open(&dir, "a");
    let nothing = (None, None, None, false, false);
    let (tree, body) = tree();
    let blobs = [put_blob(&cache, 0).await, put_blob(&cache, 10).await, put_blob(&cache, MIB).await];
    cache.put(&origin(), vec![Put::Tree(tree, body.clone())]).await.unwrap();
    let sized = blob(20).0;
    cache.put(&origin(), vec![Put::Size(sized, 20)]).await.unwrap();
    for round in ["never heard of", "known, and open", "known, and opened again"] {
        for oid in blobs.iter().map(|(oid, _)| *oid).chain([tree, sized]) {
            assert_eq!(told(&cache, &other(), oid), nothing, "{round}");
            assert!(!cache.recheck(&other(), oid).await.unwrap());
        }
        cache.put(&other(), vec![Put::Size(blob(30).0, 30)]).await.unwrap();
    }
    assert_eq!(cache.stats().unwrap().damaged, 0);
    drop(cache);
    let cache = open(&dir, "a");
    for (oid, content) in &blobs {
        assert_eq!(told(&cache, &other(), *oid), nothing);
        assert_eq!(cache.read_blob(&origin(), *oid, 0, u32::MAX).unwrap().as_ref(), Some(content));
    }
}

#[tokio::test]
async fn content_that_two_origins_delivered_is_kept_once() {
    let dir = TempDir::new().unwrap();
    let cache = open(&dir, "a");
    let (tree, body) = tree();
    cache.put(&origin(), vec![Put::Tree(tree, body.clone())]).await.unwrap();
    let blobs = [put_blob(&cache, 10).await, put_blob(&cache, MIB).await];
    let (before, file) = (cache.stats().unwrap(), cache.shared.objects.path(blobs[1].0));
    let inode = std::os::unix::fs::MetadataExt::ino(&fs::metadata(&file).unwrap());
    let puts = blobs.iter().map(|(oid, content)| Put::Blob(*oid, content.clone()));
    cache.put(&other(), puts.chain([Put::Tree(tree, body.clone())]).collect()).await.unwrap();
    let stats = cache.stats().unwrap();
    assert_eq!((stats.trees, stats.inline_blobs, stats.file_blobs), (1, 1, 1));
    assert_eq!(stats.blob_bytes, before.blob_bytes);
    assert_eq!(
        std::os::unix::fs::MetadataExt::ino(&fs::metadata(&file).unwrap()),
        inode,
        "not written again"
    );
    for origin in [origin(), other()] {
        assert_eq!(cache.tree(&origin, tree).unwrap(), Some(body.clone()));
        for (oid, content) in &blobs {
            assert_eq!(cache.read_blob(&origin, *oid, 0, u32::MAX).unwrap().as_ref(), Some(content));
        }
    }
    // Damage is everybody's, and so is what heals it.
    truncate(&file, 5);
    assert_eq!(cache.read_blob(&other(), blobs[1].0, 0, 1).unwrap(), None);
    settle(&cache).await;
    put_blob(&cache, MIB).await;
    assert_eq!(cache.read_blob(&other(), blobs[1].0, 0, u32::MAX).unwrap().as_ref(), Some(&blobs[1].1));
    let path = cache.dir().to_owned();
    drop(cache);
    assert_eq!(check(&path), Ok(()));
}

#[tokio::test]
async fn a_size_that_one_origin_said_wrongly_is_no_matter_of_another() {
    let dir = TempDir::new().unwrap();
    let cache = open(&dir, "a");
    for len in [10, MIB] {
        let (oid, content) = blob(len);
        cache.put(&other(), vec![Put::Size(oid, 7)]).await.unwrap();
        cache.put(&origin(), vec![Put::Blob(oid, content.clone())]).await.unwrap();
        assert_eq!(cache.read_blob(&origin(), oid, 0, u32::MAX).unwrap(), Some(content.clone()));
        assert_eq!(cache.size(&other(), oid).unwrap(), Some(7), "the true size is not its to know yet");
        cache.put(&other(), vec![Put::Blob(oid, content.clone())]).await.unwrap();
        assert_eq!(cache.size(&other(), oid).unwrap(), Some(len as u64));
        let read = cache.read_blob(&other(), oid, 0, 1);
        assert!(matches!(read, Err(CacheError::SizeDisputed { .. })), "{read:?}");
        assert_eq!(cache.read_blob(&origin(), oid, 0, u32::MAX).unwrap(), Some(content));
    }
}

#[tokio::test]
async fn a_word_of_an_origin_that_nobody_is_fails_the_check() {
    let dir = TempDir::new().unwrap();
    let cache = open(&dir, "a");
    let (oid, _) = put_blob(&cache, 10).await;
    let database = cache.shared.database.clone();
    let mut txn = database.env.write_txn().unwrap();
    database.put_word(&mut txn, 5, oid, Word { blob: true, size: Some(10), ..Word::default() }).unwrap();
    txn.commit().unwrap();
    let path = cache.dir().to_owned();
    drop((database, cache));
    assert_eq!(check(&path), Err(format!("the word 00000005{oid} is damaged")));
}

/// Flips one bit of a value; doing it again turns it back.
fn rot(database: &Database, table: database::Table, key: &[u8]) {
    let mut txn = database.env.write_txn().unwrap();
    let mut value = table.get(&txn, key).unwrap().unwrap().to_vec();
    let middle = value.len() / 2;
    value[middle] ^= 0x10;
    table.put(&mut txn, key, &value).unwrap();
    txn.commit().unwrap();
}

fn remove(path: &Path) {
    fs::remove_file(path).unwrap();
}

fn truncate(path: &Path, len: u64) {
    writable(path).set_len(len).unwrap();
}

fn write_at(path: &Path, offset: u64, bytes: &[u8]) {
    writable(path).write_all_at(bytes, offset).unwrap();
}

fn writable(path: &Path) -> File {
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    File::options().write(true).open(path).unwrap()
}
