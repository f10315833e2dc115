//! What the store promises of reading ahead, over a real cache and an origin that counts and hangs on demand.
#![allow(clippy::unwrap_used)] // tests may, in their own functions too

mod memory_origin;

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use futures_util::FutureExt;
use memory_origin::{Home, Memory, until, want};
use scorpio::{
    store::{FetchStats, ObjectStore, StoreLimits},
    types::{Oid, OriginName},
};
use tempfile::TempDir;

/// How long somebody waits for what is being read ahead. On a machine so busy that it takes longer it is asked for once more.
const PATIENCE: Duration = Duration::from_millis(100);

struct World {
    origin: Arc<Memory>,
    store: ObjectStore,
    _dir: TempDir,
}

impl World {
    fn new() -> World {
        let (dir, origin) = (TempDir::new().unwrap(), Memory::new("memory"));
        let limits = StoreLimits { flight_bytes: 64 << 20, batch: 4 };
        let store = memory_origin::store(Home::of(dir.path()), &[&origin], limits);
        World { origin, store, _dir: dir }
    }

    /// A tree with one file, whose content is nowhere.
    fn tree(&self, seed: u8) -> Oid {
        self.origin.tree(&[("100644", "a", Oid::from_bytes([seed; 20]))])
    }
}

fn origin() -> OriginName {
    "memory".parse().unwrap()
}

#[tokio::test]
async fn who_asks_for_what_is_being_read_ahead_waits_for_it() {
    let world = World::new();
    let oid = world.tree(1);
    let gate = world.origin.close();
    let store = world.store.clone();
    let ahead = tokio::spawn(async move { store.read_ahead(&origin(), vec![want(oid)]).await });
    world.origin.arrived.notified().await;
    let begin = Instant::now();
    let mut waiting = Box::pin(async { world.store.fetch_tree(&origin(), want(oid)).await });
    assert!(waiting.as_mut().now_or_never().is_none());
    gate.add_permits(9);
    waiting.await.unwrap();
    let has_waited_long = begin.elapsed() >= PATIENCE;
    ahead.await.unwrap();
    let asked = world.origin.asked();
    assert_eq!(asked[..2], [vec![oid], vec![Oid::from_bytes([1; 20])]], "the tree, and the size in it");
    assert!(asked.len() == 2 || has_waited_long, "{asked:?}");
}

#[tokio::test]
async fn what_is_read_ahead_and_does_not_come_keeps_nobody_waiting() {
    let world = World::new();
    let (quick, hangs) = (world.tree(1), world.tree(2));
    world.origin.hang(hangs);
    let store = world.store.clone();
    let ahead =
        tokio::spawn(async move { store.read_ahead(&origin(), vec![want(hangs), want(quick)]).await });
    world.origin.arrived.notified().await;
    let fetched = async { world.store.fetch_tree(&origin(), want(quick)).await };
    tokio::time::timeout(Duration::from_secs(10), fetched).await.unwrap().unwrap();
    assert_eq!(world.origin.asked(), [vec![hangs, quick], vec![quick]]);
    ahead.abort();
}

#[tokio::test]
async fn reading_ahead_ends_at_its_bounds() {
    let world = World::new();
    // A chain of directories with two files each, and one that is huge.
    let huge: Vec<(String, Oid)> =
        (0..40_000).map(|n| (format!("{n:06}"), Oid::from_bytes([9; 20]))).collect();
    let entries: Vec<(&str, &str, Oid)> =
        huge.iter().map(|(name, oid)| ("40000", name.as_str(), *oid)).collect();
    let mut below = world.origin.tree(&entries);
    for n in 0..600 {
        let (one, two) = (world.origin.blob(format!("one {n}")), world.origin.blob(format!("two {n}")));
        below = world.origin.tree(&[("100644", "a", one), ("40000", "b", below), ("100644", "c", two)]);
    }
    world.store.read_ahead(&origin(), vec![want(below)]).await;
    let FetchStats { fetched, sizes, failed, .. } = world.store.fetch_stats()[&origin()];
    assert_eq!((fetched, sizes, failed), (512, 1024, 0));
    let top = world.origin.tree(&entries);
    world.store.read_ahead(&origin(), vec![want(top)]).await;
    assert_eq!(world.store.fetch_stats()[&origin()].fetched, 512, "a huge one is left to who asks for it");
    assert!(!world.store.has_tree(&origin(), top));
}

#[tokio::test]
async fn four_read_ahead_of_one_origin_at_once_and_the_fifth_does_without() {
    let world = World::new();
    let gate = world.origin.close();
    let trees: Vec<Oid> = (1..=5).map(|seed| world.tree(seed)).collect();
    let read_ahead = |oid: Oid| {
        let store = world.store.clone();
        tokio::spawn(async move { store.read_ahead(&origin(), vec![want(oid)]).await })
    };
    let four: Vec<_> = trees[..4].iter().map(|oid| read_ahead(*oid)).collect();
    until("four ask", || world.origin.asked().len() == 4).await;
    read_ahead(trees[4]).await.unwrap();
    assert_eq!(world.origin.most_under_way.load(Ordering::SeqCst), 4);
    gate.add_permits(8);
    for one in four {
        one.await.unwrap();
    }
    let here: Vec<bool> = trees.iter().map(|oid| world.store.has_tree(&origin(), *oid)).collect();
    assert_eq!(here, [true, true, true, true, false]);
}
