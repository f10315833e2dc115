//! Several origins behind one store: what came from one is not here for another. And what an origin may say beside bytes:
//! ids that only stand for a tree, sizes with the content, trees that pass.

#![allow(clippy::unwrap_used)] // a test that fails panics

mod memory_origin;

use std::{
    fs,
    path::Path,
    sync::{Arc, atomic::Ordering},
};

use memory_origin::{Fault, Home, Memory, until, want};
use scorpio::{
    origin::{BlobSize, FetchError, Snapshot},
    store::{FetchStats, ObjectStore, Pinned, Pinning, StoreLimits},
    types::{Oid, OriginName},
};
use tempfile::TempDir;

fn store_in(dir: &Path, cache: &str, origins: &[&Arc<Memory>]) -> ObjectStore {
    let limits = StoreLimits { flight_bytes: 64 << 20, batch: 100 };
    memory_origin::store(Home { cache, ..Home::of(dir) }, origins, limits)
}

/// A tree of directories and a file.
fn tree_of(origin: &Memory, dirs: &[(&str, Oid)]) -> Oid {
    let mut entries: Vec<_> = dirs.iter().map(|(name, oid)| ("40000", *name, *oid)).collect();
    entries.push(("100644", "file", some_id(u8::try_from(dirs.len()).unwrap())));
    origin.tree(&entries)
}

fn some_id(byte: u8) -> Oid {
    Oid::from_bytes([byte; 20])
}

/// Alice's origin, and one that bob may read and make name whatever he likes.
fn two() -> (TempDir, Arc<Memory>, Arc<Memory>, ObjectStore) {
    let dir = TempDir::new().unwrap();
    let (alices, bobs) = (Memory::new("mega+1000"), Memory::new("mega+1001"));
    let store = store_in(dir.path(), "cache", &[&alices, &bobs]);
    (dir, alices, bobs, store)
}

/// Everything that the store tells by `origin` of an id, fetched or not.
async fn all_that_is_told(store: &ObjectStore, origin: &OriginName, oid: Oid) -> String {
    let mut told = format!(
        "{:?} {:?} {:?}",
        store.cached_tree(origin, oid).unwrap(),
        store.cached_size(origin, oid).unwrap(),
        store.cached_blob(origin, oid, 0, u32::MAX).unwrap(),
    );
    let before = store.fetch_stats()[origin];
    let fetched = [
        store.fetch_sizes(origin, vec![want(oid)], 0).await,
        store.fetch_blob(origin, want(oid)).await,
        store.fetch_tree(origin, want(oid)).await,
    ];
    let after = store.fetch_stats()[origin];
    let counted = FetchStats {
        fetched: after.fetched - before.fetched,
        bytes: after.bytes - before.bytes,
        failed: after.failed - before.failed,
        sizes: after.sizes - before.sizes,
    };
    told += &format!(" {fetched:?} {counted:?}");
    told.replace(&format!("{oid:?}"), "ID").replace(&oid.to_string(), "ID")
}

#[tokio::test]
async fn what_one_origin_delivered_is_to_another_like_what_exists_nowhere() {
    let (_dir, alices, bobs, store) = two();
    let large = "large ".repeat(50_000);
    let (small, large) = (alices.blob("alice's own"), alices.blob(&large));
    let (tree, sized) = (tree_of(&alices, &[]), alices.blob("only its size is known"));
    store.fetch_tree(&alices.name, want(tree)).await.unwrap();
    store.fetch_blob(&alices.name, want(small)).await.unwrap();
    store.fetch_blob(&alices.name, want(large)).await.unwrap();
    store.fetch_sizes(&alices.name, vec![want(sized)], 0).await.unwrap();
    let asked = alices.wanted().len();
    let nowhere = all_that_is_told(&store, &bobs.name, some_id(0xbb)).await;
    for oid in [small, large, tree, sized] {
        assert_eq!(all_that_is_told(&store, &bobs.name, oid).await, nowhere, "{oid}");
    }
    assert_eq!(alices.wanted().len(), asked, "alice's origin is never asked for bob");

    // Once his own origin has it, it is his.
    let held = store.cache_stats().unwrap();
    bobs.blob("alice's own");
    store.fetch_blob(&bobs.name, want(small)).await.unwrap();
    let read = store.cached_blob(&bobs.name, small, 0, u32::MAX).unwrap();
    assert_eq!(read.as_deref(), Some(b"alice's own".as_slice()));
    let now = store.cache_stats().unwrap();
    assert_eq!((now.inline_blobs, now.blob_bytes), (held.inline_blobs, held.blob_bytes), "kept once");
}

#[tokio::test]
async fn a_size_told_by_one_origin_disputes_nothing_for_another() {
    let (_dir, alices, bobs, store) = two();
    let oid = alices.blob("eleven byte");
    bobs.blob("eleven byte");
    bobs.tell(oid, 5);
    store.fetch_sizes(&bobs.name, vec![want(oid)], 0).await.unwrap();
    store.fetch_blob(&alices.name, want(oid)).await.unwrap();
    assert_eq!(store.cached_size(&alices.name, oid).unwrap(), Some(11));
    assert_eq!(store.cached_size(&bobs.name, oid).unwrap(), Some(5));
    store.fetch_blob(&bobs.name, want(oid)).await.unwrap();
    assert!(store.cached_blob(&bobs.name, oid, 0, 1).is_err(), "it was said to have five");
    assert_eq!(store.cached_blob(&alices.name, oid, 0, 6).unwrap().as_deref(), Some(b"eleven".as_slice()));
}

fn moved(result: &Result<(), FetchError>) -> bool {
    matches!(result, Err(FetchError::Moved { .. }))
}

#[tokio::test]
async fn the_first_tree_behind_a_boundary_stays_the_one() {
    let (dir, mega, _, store) = two();
    let (placeholder, first) = (some_id(0xaa), tree_of(&mega, &[]));
    let second = tree_of(&mega, &[("newer", first)]);
    mega.stands_for(placeholder, first);
    assert_eq!(store.stands_for(&mega.name, placeholder), placeholder, "nothing is known yet");
    let gate = mega.close();
    let callers: Vec<_> = (0..20)
        .map(|_| {
            let (store, name) = (store.clone(), mega.name.clone());
            tokio::spawn(async move { store.fetch_tree(&name, want(placeholder)).await })
        })
        .collect();
    mega.arrived.notified().await;
    gate.add_permits(100);
    for caller in callers {
        caller.await.unwrap().unwrap();
    }
    assert_eq!(mega.wanted().len(), 1);
    let body = mega.body(first);
    assert_eq!(store.stands_for(&mega.name, placeholder), first);
    for oid in [placeholder, first] {
        assert_eq!(store.cached_tree(&mega.name, oid).unwrap().as_ref(), Some(&body));
    }

    // While it is here, nobody asks; when the cache is lost, only the same tree will do.
    mega.stands_for(placeholder, second);
    store.fetch_tree(&mega.name, want(placeholder)).await.unwrap();
    assert_eq!(mega.wanted().len(), 1);
    drop(store);
    let store = store_in(dir.path(), "another-cache", &[&mega]);
    assert_eq!(store.stands_for(&mega.name, placeholder), first);
    assert_eq!(store.cached_tree(&mega.name, placeholder).unwrap(), None);
    assert!(moved(&store.fetch_tree(&mega.name, want(placeholder)).await));
    mega.stands_for(first, second);
    assert!(
        moved(&store.fetch_tree(&mega.name, want(first)).await),
        "a mount asks for the tree it stands on"
    );
    mega.stands_for(first, first);
    mega.stands_for(placeholder, first);
    store.fetch_tree(&mega.name, want(placeholder)).await.unwrap();
    assert_eq!(store.cached_tree(&mega.name, placeholder).unwrap(), Some(body));
}

#[tokio::test]
async fn a_boundary_is_only_what_has_the_id_it_was_said_to_have() {
    let (dir, mega, other, store) = two();
    let (placeholder, tree) = (some_id(0xaa), tree_of(&mega, &[]));
    mega.stands_for(placeholder, some_id(0xbb));
    mega.put_as(some_id(0xbb), mega.body(tree));
    let result = store.fetch_tree(&mega.name, want(placeholder)).await;
    assert!(matches!(result, Err(FetchError::Mismatch { .. })), "{result:?}");
    assert_eq!(store.stands_for(&mega.name, placeholder), placeholder);
    mega.stands_for(placeholder, tree);
    store.fetch_tree(&mega.name, want(placeholder)).await.unwrap();
    assert_eq!(
        store.stands_for(&other.name, placeholder),
        placeholder,
        "another user's view is another origin"
    );
    drop(store);

    // What is damaged is not fixed anew, and keeps nothing else from being listed.
    let record = dir.path().join("state/boundaries/mega+1000");
    fs::write(&record, "rot").unwrap();
    let store = store_in(dir.path(), "another-cache", &[&mega]);
    let result = store.fetch_tree(&mega.name, want(placeholder)).await;
    assert!(matches!(&result, Err(FetchError::NotStored { .. })), "{result:?}");
    let plain = tree_of(&mega, &[("plain", tree)]);
    store.fetch_tree(&mega.name, want(plain)).await.unwrap();
    assert_eq!(fs::read(&record).unwrap(), b"rot");
}

#[tokio::test]
async fn content_that_came_with_its_size_is_kept_and_wrong_content_is_not() {
    let (_dir, mega, _, store) = two();
    let blobs: Vec<Oid> = ["one", "two", "three"].map(|content| mega.blob(content)).into();
    mega.sends_content.store(true, Ordering::SeqCst);
    let lies = [(blobs[0], "ONE", 3), (blobs[1], "two", 4)];
    for (oid, content, bytes) in lies {
        mega.tell(oid, BlobSize { bytes, content: Some(content.into()) });
    }
    for (index, oid) in blobs.iter().enumerate() {
        let result = store.fetch_sizes(&mega.name, blobs.iter().map(|oid| want(*oid)).collect(), index).await;
        let is_here = store.cached_blob(&mega.name, *oid, 0, 99).unwrap();
        match index {
            2 => assert_eq!((result, is_here.as_deref()), (Ok(()), Some(b"three".as_slice()))),
            _ => {
                assert!(matches!(result, Err(FetchError::Mismatch { .. })), "{result:?}");
                assert_eq!((is_here, store.cached_size(&mega.name, *oid).unwrap()), (None, None));
            }
        }
    }
    let asked = mega.wanted().len();
    store.fetch_blob(&mega.name, want(blobs[2])).await.unwrap();
    assert_eq!(mega.wanted().len(), asked, "it came with its size");
    let stats = store.fetch_stats()[&mega.name];
    assert_eq!((stats.fetched, stats.bytes), (0, 5));
}

#[tokio::test]
async fn dear_sizes_come_in_small_batches() {
    let (_dir, mega, _, store) = two();
    let blobs: Vec<Oid> = (0..40).map(|number| mega.blob(format!("blob {number}"))).collect();
    let gate = mega.close();
    gate.add_permits(1);
    store.fetch_sizes(&mega.name, blobs.iter().map(|oid| want(*oid)).collect(), 5).await.unwrap();
    until("the first batch is under way", || mega.wanted().len() == 17).await;
    tokio::task::yield_now().await;
    assert_eq!(mega.wanted().len(), 17, "the wanted one, and sixteen contents in memory at most");
    assert!(store.is_size_coming(&mega.name, blobs[39]) && !store.is_size_coming(&mega.name, blobs[5]));
    gate.add_permits(100);
    until("all", || blobs.iter().all(|oid| store.cached_size(&mega.name, *oid).unwrap().is_some())).await;
}

/// `top` ─ `a` ─ (`b`, `c`), and `c` at the top again.
fn small_repository(mega: &Memory) -> (Snapshot, Vec<Oid>) {
    mega.passing.store(true, Ordering::SeqCst);
    let b = tree_of(mega, &[]);
    let c = tree_of(mega, &[("b", b)]);
    let a = tree_of(mega, &[("b", b), ("c", c)]);
    let top = tree_of(mega, &[("a", a), ("c", c)]);
    let snapshot = Snapshot { commit: some_id(0xcc), path: "dir".parse().unwrap(), tree: top };
    (snapshot, vec![top, a, c, b])
}

#[tokio::test]
async fn a_root_whose_trees_pass_is_fetched_whole() {
    let (dir, mega, _, store) = two();
    let (snapshot, trees) = small_repository(&mega);
    let pin = store.pin(&mega.name, &snapshot).unwrap();
    until("it is pinned", || pin.progress().state != Pinned::Walking).await;
    assert_eq!(pin.progress(), Pinning { state: Pinned::Yes, trees: 4 });
    let paths: Vec<_> = mega.wanted().iter().map(|want| want.hint.path.to_string()).collect();
    assert_eq!(paths[0], "/dir");
    assert_eq!(paths.len(), 4, "each tree once: {paths:?}");
    for oid in &trees {
        mega.forget(*oid);
        assert!(store.cached_tree(&mega.name, *oid).unwrap().is_some());
    }
    drop((pin, store));

    // The next start passes over what is here.
    let asked = mega.wanted().len();
    let store = store_in(dir.path(), "cache", &[&mega]);
    let pin = store.pin(&mega.name, &snapshot).unwrap();
    until("it is pinned again", || pin.progress().state == Pinned::Yes).await;
    assert_eq!((pin.progress().trees, mega.wanted().len()), (4, asked));
}

#[tokio::test]
async fn a_walk_waits_for_an_origin_that_is_away() {
    let (_dir, mega, _, store) = two();
    let (snapshot, _) = small_repository(&mega);
    mega.set(Fault::Unreachable);
    let pin = store.pin(&mega.name, &snapshot).unwrap();
    until("it tried", || !mega.wanted().is_empty()).await;
    assert_eq!(pin.progress(), Pinning { state: Pinned::Walking, trees: 0 });
    mega.set(Fault::None);
    until("it is pinned", || pin.progress().state == Pinned::Yes).await;
    assert_eq!(pin.progress().trees, 4);
}

#[tokio::test]
async fn a_tree_that_moved_breaks_the_pin_and_the_others_are_fetched() {
    let (_dir, mega, _, store) = two();
    let (snapshot, trees) = small_repository(&mega);
    mega.forget(trees[1]);
    let pin = store.pin(&mega.name, &snapshot).unwrap();
    until("all that is left is here", || pin.progress().trees == 3).await;
    until("it is broken", || pin.progress().state == Pinned::Broken).await;
    for oid in [trees[0], trees[2], trees[3]] {
        assert!(store.cached_tree(&mega.name, oid).unwrap().is_some());
    }
}

#[tokio::test]
async fn a_pin_that_is_dropped_asks_no_more_and_git_needs_none() {
    let (_dir, mega, git, store) = two();
    let (snapshot, _) = small_repository(&mega);
    assert!(store.pin(&git.name, &snapshot).is_none());
    let gate = mega.close();
    let pin = store.pin(&mega.name, &snapshot).unwrap();
    mega.arrived.notified().await;
    drop(pin);
    gate.add_permits(100);
    until("what was under way has landed", || {
        store.cached_tree(&mega.name, snapshot.tree).unwrap().is_some()
    })
    .await;
    tokio::task::yield_now().await;
    assert_eq!(mega.wanted().len(), 1);
}
