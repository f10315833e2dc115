//! Promises of the store, over a real cache and an origin that counts, hangs and lies on demand.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)] // tests may, in their own functions too

mod memory_origin;

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::FutureExt;
use memory_origin::{Fault, Home, Memory, until, want};
use scorpio::{
    cache::CacheError,
    origin::{BlobSize, FetchError},
    store::{FetchStats, ObjectStore, StoreLimits},
    types::{ObjectKind, Oid, OriginName},
};
use tempfile::TempDir;
use tokio::sync::Barrier;

const MIB: usize = 1 << 20;

struct World {
    dir: TempDir,
    origin: Arc<Memory>,
    store: ObjectStore,
}

/// How long somebody waits for what comes with others. On a machine so busy that this takes longer it is asked for once more.
const A_MOMENT: Duration = Duration::from_millis(100);

const LIMITS: StoreLimits = StoreLimits { flight_bytes: 64 << 20, batch: 4 };

fn world(bodies: impl IntoIterator<Item = (ObjectKind, Bytes)>) -> World {
    world_with(bodies, LIMITS)
}

fn world_with(bodies: impl IntoIterator<Item = (ObjectKind, Bytes)>, limits: StoreLimits) -> World {
    let dir = TempDir::new().unwrap();
    let origin = Memory::new("memory");
    for (kind, body) in bodies {
        origin.put(kind, body);
    }
    let store = memory_origin::store(Home::of(dir.path()), &[&origin], limits);
    World { dir, origin, store }
}

/// The same directory and origin after a reboot.
fn next_boot(dir: &TempDir, origin: &Arc<Memory>) -> ObjectStore {
    memory_origin::store(Home { boot_id: "next boot", ..Home::of(dir.path()) }, &[origin], LIMITS)
}

fn origin() -> OriginName {
    "memory".parse().unwrap()
}

fn content(seed: u8, len: usize) -> Bytes {
    (0..len).map(|at| (at as u8).wrapping_mul(31) ^ (at >> 8) as u8 ^ seed).collect()
}

fn blob(seed: u8, len: usize) -> (Oid, (ObjectKind, Bytes)) {
    let content = content(seed, len);
    (Oid::of(ObjectKind::Blob, &content).unwrap(), (ObjectKind::Blob, content))
}

fn tree(seed: u8) -> (Oid, (ObjectKind, Bytes)) {
    let body: Bytes = [b"100644 a\0".as_slice(), &[seed; 20]].concat().into();
    (Oid::of(ObjectKind::Tree, &body).unwrap(), (ObjectKind::Tree, body))
}

fn mismatch(result: &Result<(), FetchError>) -> bool {
    matches!(result, Err(FetchError::Mismatch { .. }))
}

fn unreachable(result: &Result<(), FetchError>) -> bool {
    matches!(result, Err(FetchError::Unreachable { .. }))
}

#[tokio::test]
async fn what_was_fetched_is_in_the_cache_and_is_not_fetched_again() {
    let ((tree, tree_body), (small, small_body), (large, large_body)) =
        (tree(1), blob(1, 10), blob(2, 3 * MIB));
    let world = world([tree_body.clone(), small_body.clone(), large_body.clone()]);
    let store = &world.store;
    for _ in 0..2 {
        store.fetch_tree(&origin(), want(tree)).await.unwrap();
        store.fetch_blob(&origin(), want(small)).await.unwrap();
        store.fetch_blob(&origin(), want(large)).await.unwrap();
    }
    assert_eq!(store.cached_tree(&origin(), tree).unwrap(), Some(tree_body.1.clone()));
    assert_eq!(store.cached_blob(&origin(), small, 0, u32::MAX).unwrap(), Some(small_body.1));
    assert_eq!(store.cached_blob(&origin(), large, 0, u32::MAX).unwrap(), Some(large_body.1));
    assert_eq!(store.cached_size(&origin(), small).unwrap(), Some(10));
    assert_eq!(store.cached_size(&origin(), large).unwrap(), Some(3 * MIB as u64));
    assert_eq!(world.origin.asked().len(), 3);
    let bytes = (tree_body.1.len() + 10 + 3 * MIB) as u64;
    assert_eq!(store.fetch_stats()[&origin()], FetchStats { fetched: 3, bytes, failed: 0, sizes: 0 });
}

#[tokio::test]
async fn the_empty_tree_is_known_without_any_origin() {
    let world = world([]);
    assert_eq!(world.store.cached_tree(&origin(), Oid::EMPTY_TREE).unwrap(), Some(Bytes::new()));
    world.store.fetch_tree(&origin(), want(Oid::EMPTY_TREE)).await.unwrap();
    assert!(world.origin.asked().is_empty());
}

#[tokio::test]
async fn an_unknown_origin_is_unreachable() {
    let world = world([]);
    let nobody: OriginName = "nobody".parse().unwrap();
    assert!(world.store.origin(&nobody).is_none());
    assert!(world.store.origin(&origin()).is_some());
    assert!(unreachable(&world.store.fetch_tree(&nobody, want(tree(1).0)).await));
    assert!(unreachable(&world.store.fetch_blob(&nobody, want(blob(1, 1).0)).await));
    assert!(unreachable(&world.store.fetch_sizes(&nobody, vec![want(blob(1, 1).0)], 0).await));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn twenty_callers_at_once_are_one_fetch() {
    let ((large, large_body), (small, small_body), (listing, listing_body)) =
        (blob(1, 2 * MIB), blob(2, 10), tree(3));
    let world = world([large_body, small_body, listing_body]);
    for (asked_before, oid, is_tree) in [(0, large, false), (1, small, false), (2, listing, true)] {
        let gate = world.origin.close();
        let barrier = Arc::new(Barrier::new(20));
        let callers: Vec<_> = (0..20)
            .map(|_| {
                let (store, barrier) = (world.store.clone(), barrier.clone());
                tokio::spawn(async move {
                    barrier.wait().await;
                    match is_tree {
                        true => store.fetch_tree(&origin(), want(oid)).await,
                        false => store.fetch_blob(&origin(), want(oid)).await,
                    }
                })
            })
            .collect();
        world.origin.arrived.notified().await;
        gate.add_permits(20);
        for caller in callers {
            caller.await.unwrap().unwrap();
        }
        assert_eq!(world.origin.asked()[asked_before..], [vec![oid]]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_second_fetch_slips_in_while_the_first_one_lands() {
    let blobs: Vec<_> = (0..200).map(|seed| blob(seed, 100)).collect();
    let world = world(blobs.iter().map(|(_, body)| body.clone()));
    for (oid, _) in &blobs {
        let callers: Vec<_> = (0..8)
            .map(|_| {
                let (store, oid) = (world.store.clone(), *oid);
                tokio::spawn(async move { store.fetch_blob(&origin(), want(oid)).await })
            })
            .collect();
        for caller in callers {
            caller.await.unwrap().unwrap();
        }
    }
    assert_eq!(world.origin.asked().len(), blobs.len());
}

/// A flight has begun, and before its first look what it is to bring has come in another way.
#[tokio::test]
async fn what_came_before_a_flight_looked_is_not_fetched() {
    let (oid, body) = blob(1, 100);
    let world = world([body]);
    world.origin.sends_content.store(true, Ordering::SeqCst);
    let mut waiting = Box::pin({
        let store = world.store.clone();
        async move { store.fetch_blob(&origin(), want(oid)).await }
    });
    assert!(waiting.as_mut().now_or_never().is_none(), "its flight is a task, which has not run yet");
    let other = std::thread::spawn({
        let store = world.store.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        move || runtime.block_on(store.fetch_sizes(&origin(), vec![want(oid)], 0))
    });
    // Blocks this runtime, on purpose.
    other.join().unwrap().unwrap();
    waiting.await.unwrap();
    assert_eq!(world.origin.asked().len(), 1, "it came with its size");
}

#[tokio::test]
async fn somebody_elses_lack_of_time_is_no_answer_for_who_has_more() {
    let (oid, body) = blob(1, 10);
    let world = world([body]);
    let gate = world.origin.close();
    let in_time = |time: Duration| world.store.until(tokio::time::Instant::now() + time);
    let (hasty, patient) = (in_time(Duration::from_millis(200)), in_time(Duration::from_secs(60)));
    let hasty = tokio::spawn(async move { hasty.fetch_blob(&origin(), want(oid)).await });
    world.origin.arrived.notified().await;
    let mut waiting = Box::pin(async { patient.fetch_blob(&origin(), want(oid)).await });
    assert!(waiting.as_mut().now_or_never().is_none(), "it has joined the flight");
    assert!(matches!(hasty.await.unwrap(), Err(FetchError::TimedOut { .. })));
    gate.add_permits(1);
    waiting.await.unwrap();
    assert_eq!(world.origin.asked().len(), 2);
}

#[tokio::test]
async fn a_first_caller_who_leaves_does_not_stop_the_flight() {
    let (oid, body) = blob(1, 10);
    let world = world([body]);
    let gate = world.origin.close();
    let first = tokio::spawn({
        let store = world.store.clone();
        async move { store.fetch_blob(&origin(), want(oid)).await }
    });
    world.origin.arrived.notified().await;
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    gate.add_permits(1);
    world.store.fetch_blob(&origin(), want(oid)).await.unwrap();
    assert_eq!(world.origin.asked().len(), 1);
}

#[tokio::test]
async fn wrong_bytes_are_never_kept_and_a_good_answer_is_taken_later() {
    let ((file, file_body), (large, large_body), (listing, listing_body)) =
        (blob(1, 10), blob(2, MIB), tree(3));
    let world = world([file_body, large_body, listing_body]);
    let store = &world.store;
    for fault in [Fault::WrongBytes, Fault::Truncated] {
        world.origin.set(fault);
        for oid in [file, large] {
            assert!(mismatch(&store.fetch_blob(&origin(), want(oid)).await), "{fault:?}");
            assert_eq!(store.cached_blob(&origin(), oid, 0, 1).unwrap(), None);
            assert_eq!(store.cached_size(&origin(), oid).unwrap(), None);
        }
        assert!(mismatch(&store.fetch_tree(&origin(), want(listing)).await), "{fault:?}");
        assert_eq!(store.cached_tree(&origin(), listing).unwrap(), None);
    }
    let stats = store.fetch_stats()[&origin()];
    assert_eq!((stats.fetched, stats.bytes, stats.failed), (6, 0, 6));
    let cache = store.cache_stats().unwrap();
    assert_eq!((cache.trees, cache.inline_blobs, cache.file_blobs, cache.blob_bytes), (0, 0, 0, 0));
    world.origin.set(Fault::None);
    store.fetch_blob(&origin(), want(file)).await.unwrap();
    store.fetch_blob(&origin(), want(large)).await.unwrap();
    store.fetch_tree(&origin(), want(listing)).await.unwrap();
}

#[tokio::test]
async fn a_tree_is_no_answer_for_a_blob() {
    let (listing, body) = tree(1);
    let world = world([body]);
    assert!(mismatch(&world.store.fetch_blob(&origin(), want(listing)).await));
}

#[tokio::test]
async fn no_failure_is_remembered() {
    let (oid, body) = blob(1, 10);
    let world = world([body]);
    let faults = [Fault::Absent, Fault::Unreachable, Fault::NoAnswers, Fault::TooManyAnswers, Fault::Panic];
    for (round, fault) in faults.into_iter().enumerate() {
        world.origin.set(fault);
        let result = world.store.fetch_blob(&origin(), want(oid)).await;
        match fault {
            Fault::Absent => assert_eq!(result, Err(FetchError::Absent { origin: origin(), oid })),
            _ => assert!(unreachable(&result), "{fault:?}: {result:?}"),
        }
        assert_eq!(world.origin.asked().len(), round + 1, "{fault:?} was asked anew");
    }
    world.origin.set(Fault::None);
    world.store.fetch_blob(&origin(), want(oid)).await.unwrap();
    assert_eq!(world.store.fetch_stats()[&origin()].failed, faults.len() as u64);
}

#[tokio::test]
async fn a_failure_reaches_all_who_wait_even_a_panic() {
    let (oid, body) = blob(1, 10);
    let world = world([body]);
    for (round, fault) in [Fault::Unreachable, Fault::Panic].into_iter().enumerate() {
        world.origin.set(fault);
        let gate = world.origin.close();
        let callers: Vec<_> = (0..5)
            .map(|_| {
                let store = world.store.clone();
                tokio::spawn(async move { store.fetch_blob(&origin(), want(oid)).await })
            })
            .collect();
        // On one thread the callers have all run up to their wait before the flight they started does.
        world.origin.arrived.notified().await;
        gate.add_permits(5);
        for caller in callers {
            assert!(unreachable(&caller.await.unwrap()), "{fault:?}");
        }
        assert_eq!(world.origin.asked().len(), round + 1);
    }
}

#[tokio::test]
async fn sizes_come_in_batches_with_the_wanted_one_apart() {
    let blobs: Vec<_> = (0..10).map(|seed| blob(seed, 100 + usize::from(seed))).collect();
    let world = world(blobs.iter().map(|(_, body)| body.clone()));
    let wants: Vec<_> = blobs.iter().map(|(oid, _)| want(*oid)).collect();
    world.store.fetch_sizes(&origin(), wants.clone(), 7).await.unwrap();
    assert_eq!(world.store.cached_size(&origin(), blobs[7].0).unwrap(), Some(107));
    let all_known =
        || blobs.iter().all(|(oid, _)| world.store.cached_size(&origin(), *oid).unwrap().is_some());
    until("all sizes", all_known).await;
    for (index, (oid, _)) in blobs.iter().enumerate() {
        assert_eq!(world.store.cached_size(&origin(), *oid).unwrap(), Some(100 + index as u64));
    }
    let mut lengths: Vec<_> = world.origin.asked().iter().map(Vec::len).collect();
    lengths.sort_unstable();
    assert_eq!(lengths, [1, 1, 4, 4]);
    world.store.fetch_sizes(&origin(), wants, 0).await.unwrap();
    assert_eq!(world.origin.asked().len(), 4, "known sizes were asked for again");
    let stats = world.store.fetch_stats()[&origin()];
    assert_eq!(stats, FetchStats { fetched: 0, bytes: 0, failed: 0, sizes: 10 });
    assert_eq!(world.store.cached_blob(&origin(), blobs[0].0, 0, 1).unwrap(), None);
}

#[tokio::test]
async fn the_wanted_size_is_there_while_a_sibling_hangs() {
    let blobs: Vec<_> = (0..4).map(|seed| blob(seed, 100)).collect();
    let world = world(blobs.iter().map(|(_, body)| body.clone()));
    world.origin.hang(blobs[1].0);
    let wants: Vec<_> = blobs.iter().map(|(oid, _)| want(*oid)).collect();
    let name = origin();
    let first = world.store.fetch_sizes(&name, wants.clone(), 0);
    tokio::time::timeout(Duration::from_secs(20), first).await.expect("it waited for the sibling").unwrap();
    until("the others are asked for", || world.origin.asked().len() == 2).await;
    let again = world.store.fetch_sizes(&name, wants, 1).now_or_never();
    assert_eq!(again, None, "the size of the hanging one cannot be known");
    tokio::task::yield_now().await;
    assert_eq!(world.origin.asked().len(), 2, "a size under way was asked for again");
}

#[tokio::test]
async fn a_size_whose_siblings_take_long_is_asked_for_alone_where_sizes_are_dear() {
    let blobs: Vec<_> = (0..4).map(|seed| blob(seed, 100 + usize::from(seed))).collect();
    let world = world(blobs.iter().map(|(_, body)| body.clone()));
    let wants: Vec<_> = blobs.iter().map(|(oid, _)| want(*oid)).collect();
    world.origin.hang(blobs[3].0);
    world.store.fetch_sizes(&origin(), wants.clone(), 0).await.unwrap();
    until("the siblings' batch", || world.origin.asked().len() == 2).await;
    let origin = origin();
    let second = tokio::time::timeout(Duration::from_secs(20), world.store.fetch_sizes(&origin, wants, 1));
    second.await.expect("it does not wait for the one that hangs").unwrap();
    assert_eq!(world.store.cached_size(&origin, blobs[1].0).unwrap(), Some(101));
    assert_eq!(world.origin.asked()[2], [blobs[1].0]);
}

#[tokio::test]
async fn sizes_that_nobody_waits_for_come_in_few_batches_at_once() {
    let blobs: Vec<_> = (0..10).map(|seed| blob(seed, 100 + usize::from(seed))).collect();
    let world = world(blobs.iter().map(|(_, body)| body.clone()));
    let gate = world.origin.close();
    for (oid, _) in &blobs {
        // Each a directory of its own, of which none is waited for.
        world.store.fetch_sizes(&origin(), vec![want(*oid)], usize::MAX).await.unwrap();
    }
    until("four are asked for", || world.origin.asked().len() == 4).await;
    for ended in 1..=6 {
        gate.add_permits(1);
        until("another one", || world.origin.asked().len() == 4 + ended).await;
    }
    gate.add_permits(4);
    let is_known = |oid: Oid| world.store.cached_size(&origin(), oid).unwrap().is_some();
    until("all are known", || blobs.iter().all(|(oid, _)| is_known(*oid))).await;
    assert_eq!(world.origin.most_under_way.load(Ordering::SeqCst), 4);
}

#[tokio::test]
async fn an_origin_is_asked_for_no_longer_than_its_asker_waits() {
    let (oid, body) = blob(1, 100);
    let world = world([body]);
    let gate = world.origin.close();
    let soon = world.store.until(tokio::time::Instant::now() + Duration::from_millis(20));
    let expected = Err(FetchError::TimedOut { origin: origin(), after: Duration::from_secs(1) });
    assert_eq!(soon.fetch_blob(&origin(), want(oid)).await, expected);
    assert_eq!(soon.fetch_sizes(&origin(), vec![want(oid)], 0).await, expected);
    assert_eq!(world.origin.asked().len(), 2);
    gate.add_permits(1);
    assert_eq!(world.store.fetch_blob(&origin(), want(oid)).await, Ok(()), "and nothing of it is left");
}

#[tokio::test]
async fn content_that_comes_with_a_size_is_verified_and_kept() {
    let blobs: Vec<_> = (0..3).map(|seed| blob(seed, 100 + usize::from(seed))).collect();
    let world = world(blobs.iter().map(|(_, body)| body.clone()));
    world.origin.sends_content.store(true, Ordering::SeqCst);
    let sizes = async |index: usize| world.store.fetch_sizes(&origin(), vec![want(blobs[index].0)], 0).await;
    sizes(0).await.unwrap();
    let (oid, (_, content)) = &blobs[0];
    assert_eq!(world.store.cached_size(&origin(), *oid).unwrap(), Some(100));
    assert_eq!(world.store.cached_blob(&origin(), *oid, 0, u32::MAX).unwrap().as_ref(), Some(content));
    world.store.fetch_blob(&origin(), want(*oid)).await.unwrap();
    assert_eq!(world.origin.asked().len(), 1, "it came with its size");
    let stats = world.store.fetch_stats()[&origin()];
    assert_eq!(stats, FetchStats { fetched: 0, bytes: 100, failed: 0, sizes: 1 });

    world.origin.set(Fault::WrongBytes);
    assert!(mismatch(&sizes(1).await), "wrong content");
    world.origin.set(Fault::None);
    world.origin.tell(blobs[2].0, BlobSize { bytes: 99, content: Some(blobs[2].1.1.clone()) });
    assert!(mismatch(&sizes(2).await), "a size that is not the content's");
    for (oid, _) in &blobs[1..] {
        assert_eq!(world.store.cached_size(&origin(), *oid).unwrap(), None);
        assert_eq!(world.store.cached_blob(&origin(), *oid, 0, u32::MAX).unwrap(), None);
    }
}

#[tokio::test]
async fn cheap_sizes_come_with_the_wanted_one() {
    let blobs: Vec<_> = (0..3).map(|seed| blob(seed, 100)).collect();
    let world = world(blobs.iter().map(|(_, body)| body.clone()));
    world.origin.cheap_sizes.store(true, Ordering::SeqCst);
    let wants: Vec<_> = blobs.iter().map(|(oid, _)| want(*oid)).collect();
    let begin = Instant::now();
    world.store.fetch_sizes(&origin(), wants, 1).await.unwrap();
    let has_waited_long = begin.elapsed() >= A_MOMENT;
    let [first, second, third] = [0, 1, 2].map(|index: usize| blobs[index].0);
    let asked = world.origin.asked();
    assert_eq!(asked[0], [second, first, third]);
    assert!(asked.len() == 1 || has_waited_long, "{asked:?}");
    for (oid, _) in &blobs {
        assert_eq!(world.store.cached_size(&origin(), *oid).unwrap(), Some(100));
    }
}

#[tokio::test]
async fn a_cheap_size_does_not_wait_for_a_sibling_that_hangs() {
    let blobs: Vec<_> = (0..3).map(|seed| blob(seed, 100)).collect();
    let world = world(blobs.iter().map(|(_, body)| body.clone()));
    world.origin.cheap_sizes.store(true, Ordering::SeqCst);
    let [first, hanging, third] = [0, 1, 2].map(|index: usize| blobs[index].0);
    world.origin.hang(hanging);
    let wants: Vec<_> = blobs.iter().map(|(oid, _)| want(*oid)).collect();
    let ask = |index| {
        let (store, wants) = (world.store.clone(), wants.clone());
        tokio::spawn(async move { store.fetch_sizes(&origin(), wants, index).await })
    };
    let answers = [ask(0), ask(2), ask(0), ask(2)];
    for answer in answers {
        let answer = tokio::time::timeout(Duration::from_secs(20), answer).await;
        answer.expect("it waited for the sibling").unwrap().unwrap();
    }
    assert_eq!(world.store.cached_size(&origin(), hanging).unwrap(), None);
    let mut asked = world.origin.asked();
    asked[1..].sort_unstable();
    let mut alone = [vec![first], vec![third]];
    alone.sort_unstable();
    assert_eq!(asked[0], [first, hanging, third]);
    assert_eq!(asked[1..], alone, "each is asked for once more, however many wait");
}

#[tokio::test]
async fn a_size_that_does_not_come_fails_that_name_only() {
    let (here, body) = blob(1, 100);
    let gone = blob(2, 100).0;
    let world = world([body]);
    let wants = vec![want(gone), want(here), want(gone)];
    let absent = Err(FetchError::Absent { origin: origin(), oid: gone });
    assert_eq!(world.store.fetch_sizes(&origin(), wants.clone(), 0).await, absent);
    assert_eq!(world.store.fetch_sizes(&origin(), wants.clone(), 2).await, absent, "and is not remembered");
    world.store.fetch_sizes(&origin(), wants, 1).await.unwrap();
    assert_eq!(world.store.cached_size(&origin(), gone).unwrap(), None);
    assert_eq!(world.store.cached_size(&origin(), here).unwrap(), Some(100));
}

#[tokio::test]
async fn impossible_sizes_and_miscounted_answers_are_refused() {
    let (oid, body) = blob(1, 100);
    let world = world([body]);
    world.origin.tell(oid, u64::MAX);
    assert!(mismatch(&world.store.fetch_sizes(&origin(), vec![want(oid)], 0).await));
    for fault in [Fault::NoAnswers, Fault::TooManyAnswers, Fault::Panic] {
        world.origin.set(fault);
        assert!(unreachable(&world.store.fetch_sizes(&origin(), vec![want(oid)], 0).await), "{fault:?}");
    }
    assert_eq!(world.store.cached_size(&origin(), oid).unwrap(), None);
    world.store.fetch_sizes(&origin(), vec![], 0).await.unwrap();
}

#[tokio::test]
async fn a_blob_that_disagrees_with_its_size_fails_instead_of_being_cut() {
    let (oid, body) = blob(1, 100);
    let world = world([body.clone()]);
    world.origin.tell(oid, 90);
    world.store.fetch_sizes(&origin(), vec![want(oid)], 0).await.unwrap();
    assert_eq!(world.store.cached_size(&origin(), oid).unwrap(), Some(90));
    for _ in 0..2 {
        world.store.fetch_blob(&origin(), want(oid)).await.unwrap();
        assert_eq!(world.store.cached_size(&origin(), oid).unwrap(), Some(100));
        let read = world.store.cached_blob(&origin(), oid, 0, 100);
        assert!(matches!(read, Err(CacheError::SizeDisputed { size: 100, .. })), "{read:?}");
    }
    assert_eq!(world.origin.asked().len(), 2, "it is here, and not fetched again");
    let World { dir, origin: source, store: first } = world;
    drop(first);
    let store = next_boot(&dir, &source);
    assert_eq!(store.cached_blob(&origin(), oid, 0, 100).unwrap(), Some(body.1));
}

#[tokio::test]
async fn a_file_of_another_boot_is_looked_at_and_not_fetched() {
    let (oid, body) = blob(1, MIB);
    let World { dir, origin: source, store: first } = world([body.clone()]);
    first.fetch_blob(&origin(), want(oid)).await.unwrap();
    drop(first);
    let store = next_boot(&dir, &source);
    assert_eq!(store.cached_blob(&origin(), oid, 0, 1).unwrap(), None, "unchecked content is not served");
    source.set(Fault::Unreachable);
    store.fetch_blob(&origin(), want(oid)).await.unwrap();
    assert_eq!(store.cached_blob(&origin(), oid, 0, u32::MAX).unwrap(), Some(body.1));
    assert_eq!(source.asked().len(), 1);
}

#[tokio::test]
async fn bytes_under_way_are_bounded() {
    let blobs: Vec<_> = (0..6).map(|seed| blob(seed, MIB)).collect();
    let limits = StoreLimits { flight_bytes: 2 * MIB as u64, batch: 100 };
    let world = world_with(blobs.iter().map(|(_, body)| body.clone()), limits);
    let wants: Vec<_> = blobs.iter().map(|(oid, _)| want(*oid)).collect();
    world.store.fetch_sizes(&origin(), wants.clone(), 0).await.unwrap();
    until("all sizes", || {
        blobs.iter().all(|(oid, _)| world.store.cached_size(&origin(), *oid).unwrap().is_some())
    })
    .await;
    let gate = world.origin.close();
    world.origin.most_under_way.store(0, Ordering::SeqCst);
    let callers: Vec<_> = wants
        .into_iter()
        .map(|want| {
            let store = world.store.clone();
            tokio::spawn(async move { store.fetch_blob(&origin(), want).await })
        })
        .collect();
    until("two are under way", || world.origin.under_way.load(Ordering::SeqCst) == 2).await;
    gate.add_permits(6);
    for caller in callers {
        caller.await.unwrap().unwrap();
    }
    assert_eq!(world.origin.most_under_way.load(Ordering::SeqCst), 2);
}
