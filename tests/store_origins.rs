//! Several origins behind one store: what came from one is not here for another. And what an origin may say beside bytes:
//! ids that only stand for a tree, sizes with the content, trees that pass.

#![allow(clippy::unwrap_used)] // a test that fails panics

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use scorpio::{
    cache::{Cache, CacheOptions},
    origin::{BlobSize, FetchError, Hint, Origin, ResolveError, Snapshot, TreeBody, Want},
    store::{FetchStats, ObjectStore, Pinned, Pinning, StoreLimits},
    types::{ObjectKind, Oid, OriginName, RepoPath},
};
use tempfile::TempDir;
use tokio::sync::{Notify, Semaphore};

/// An origin in memory.
struct Memory {
    name: OriginName,
    objects: Mutex<HashMap<Oid, Bytes>>,
    /// Ids that stand for trees of other ids.
    boundaries: Mutex<HashMap<Oid, Oid>>,
    /// What it says instead of the truth with a size.
    told: Mutex<HashMap<Oid, BlobSize>>,
    with_content: AtomicBool,
    passing: AtomicBool,
    away: AtomicBool,
    asked: Mutex<Vec<(Oid, String)>>,
    gate: Mutex<Option<Arc<Semaphore>>>,
    arrived: Notify,
}

impl Memory {
    fn new(name: &str) -> Arc<Memory> {
        Arc::new(Memory {
            name: name.parse().unwrap(),
            objects: Mutex::default(),
            boundaries: Mutex::default(),
            told: Mutex::default(),
            with_content: AtomicBool::new(false),
            passing: AtomicBool::new(false),
            away: AtomicBool::new(false),
            asked: Mutex::default(),
            gate: Mutex::default(),
            arrived: Notify::new(),
        })
    }

    fn put(&self, kind: ObjectKind, body: impl Into<Bytes>) -> Oid {
        let body = body.into();
        let oid = Oid::of(kind, &body).unwrap();
        self.objects.lock().unwrap().insert(oid, body);
        oid
    }

    fn blob(&self, content: &str) -> Oid {
        self.put(ObjectKind::Blob, content.as_bytes().to_vec())
    }

    /// A tree of directories and, if there are none, of a file.
    fn tree(&self, dirs: &[(&str, Oid)]) -> Oid {
        let dir = |(name, oid): &(&str, Oid)| [format!("40000 {name}\0").as_bytes(), oid.as_bytes()].concat();
        let file = [b"100644 file\0".as_slice(), &[u8::try_from(dirs.len()).unwrap(); 20]].concat();
        self.put(ObjectKind::Tree, dirs.iter().flat_map(dir).chain(file).collect::<Vec<_>>())
    }

    /// From now on `oid` stands for `tree`.
    fn stands_for(&self, oid: Oid, tree: Oid) {
        self.boundaries.lock().unwrap().insert(oid, tree);
    }

    fn forget(&self, oid: Oid) {
        self.objects.lock().unwrap().remove(&oid);
    }

    fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }

    async fn get(&self, want: &Want) -> Result<Bytes, FetchError> {
        self.asked.lock().unwrap().push((want.oid, want.hint.path.to_string()));
        self.arrived.notify_one();
        let gate = self.gate.lock().unwrap().clone();
        if let Some(gate) = gate {
            gate.acquire().await.unwrap().forget();
        }
        if self.away.load(Ordering::SeqCst) {
            return Err(FetchError::Unreachable { origin: self.name.clone(), reason: "away".into() });
        }
        let tree = self.boundaries.lock().unwrap().get(&want.oid).copied();
        let found = self.objects.lock().unwrap().get(&tree.unwrap_or(want.oid)).cloned();
        found.ok_or_else(|| match self.passing.load(Ordering::SeqCst) {
            true => {
                FetchError::Moved { origin: self.name.clone(), oid: want.oid, path: want.hint.path.clone() }
            }
            false => FetchError::Absent { origin: self.name.clone(), oid: want.oid },
        })
    }
}

#[async_trait]
impl Origin for Memory {
    fn name(&self) -> &OriginName {
        &self.name
    }

    async fn resolve(&self, _rev: Option<&str>, _path: &RepoPath) -> Result<Snapshot, ResolveError> {
        unreachable!("the store never resolves")
    }

    async fn trees(&self, wants: &[Want]) -> Vec<Result<TreeBody, FetchError>> {
        let mut trees = Vec::new();
        for want in wants {
            let boundary = self.boundaries.lock().unwrap().get(&want.oid).copied();
            trees.push(self.get(want).await.map(|body| TreeBody { body, boundary }));
        }
        trees
    }

    async fn blobs(&self, wants: &[Want]) -> Vec<Result<Bytes, FetchError>> {
        futures_util::future::join_all(wants.iter().map(|want| self.get(want))).await
    }

    async fn sizes(&self, wants: &[Want]) -> Vec<Result<BlobSize, FetchError>> {
        let bodies = self.blobs(wants).await;
        let with_content = self.with_content.load(Ordering::SeqCst);
        let size = |(want, body): (&Want, Result<Bytes, FetchError>)| {
            let told = self.told.lock().unwrap().get(&want.oid).cloned();
            let truth =
                |body: Bytes| BlobSize { bytes: body.len() as u64, content: with_content.then_some(body) };
            body.map(|body| told.unwrap_or_else(|| truth(body)))
        };
        wants.iter().zip(bodies).map(size).collect()
    }

    fn sizes_are_cheap(&self) -> bool {
        false
    }

    fn trees_pass(&self) -> bool {
        self.passing.load(Ordering::SeqCst)
    }
}

fn store_in(dir: &Path, cache: &str, origins: &[&Arc<Memory>]) -> ObjectStore {
    let options = CacheOptions {
        dir: dir.join(cache),
        map_bytes: 256 << 20,
        inline_max_bytes: 64 << 10,
        boot_id: "boot".into(),
        checker: None,
    };
    let dynamic = |origin: &&Arc<Memory>| (origin.name.clone(), Arc::clone(origin) as Arc<dyn Origin>);
    let origins: BTreeMap<OriginName, Arc<dyn Origin>> = origins.iter().map(dynamic).collect();
    let limits = StoreLimits { flight_bytes: 64 << 20, batch: 100 };
    ObjectStore::new(Cache::open(options).unwrap(), origins, &dir.join("state"), limits)
}

fn want(oid: Oid) -> Want {
    want_at(oid, "some/where")
}

fn want_at(oid: Oid, path: &str) -> Want {
    Want { oid, hint: Hint { commit: Oid::EMPTY_TREE, path: path.parse().unwrap() } }
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
    let (tree, sized) = (alices.tree(&[]), alices.blob("only its size is known"));
    store.fetch_tree(&alices.name, want(tree)).await.unwrap();
    store.fetch_blob(&alices.name, want(small)).await.unwrap();
    store.fetch_blob(&alices.name, want(large)).await.unwrap();
    store.fetch_sizes(&alices.name, vec![want(sized)], 0).await.unwrap();
    let asked = alices.asked();
    let nowhere = all_that_is_told(&store, &bobs.name, some_id(0xbb)).await;
    for oid in [small, large, tree, sized] {
        assert_eq!(all_that_is_told(&store, &bobs.name, oid).await, nowhere, "{oid}");
    }
    assert_eq!(alices.asked(), asked, "alice's origin is never asked for bob");

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
    bobs.told.lock().unwrap().insert(oid, 5.into());
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
    let (placeholder, first) = (some_id(0xaa), mega.tree(&[]));
    let second = mega.tree(&[("newer", first)]);
    mega.stands_for(placeholder, first);
    assert_eq!(store.stands_for(&mega.name, placeholder), placeholder, "nothing is known yet");
    let gate = Arc::new(Semaphore::new(0));
    *mega.gate.lock().unwrap() = Some(gate.clone());
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
    assert_eq!(mega.asked(), 1);
    let body = mega.objects.lock().unwrap()[&first].clone();
    assert_eq!(store.stands_for(&mega.name, placeholder), first);
    for oid in [placeholder, first] {
        assert_eq!(store.cached_tree(&mega.name, oid).unwrap().as_ref(), Some(&body));
    }

    // While it is here, nobody asks; when the cache is lost, only the same tree will do.
    mega.stands_for(placeholder, second);
    store.fetch_tree(&mega.name, want(placeholder)).await.unwrap();
    assert_eq!(mega.asked(), 1);
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
    mega.boundaries.lock().unwrap().clear();
    mega.stands_for(placeholder, first);
    store.fetch_tree(&mega.name, want(placeholder)).await.unwrap();
    assert_eq!(store.cached_tree(&mega.name, placeholder).unwrap(), Some(body));
}

#[tokio::test]
async fn a_boundary_is_only_what_has_the_id_it_was_said_to_have() {
    let (dir, mega, other, store) = two();
    let (placeholder, tree) = (some_id(0xaa), mega.tree(&[]));
    mega.stands_for(placeholder, some_id(0xbb));
    let body = mega.objects.lock().unwrap()[&tree].clone();
    mega.objects.lock().unwrap().insert(some_id(0xbb), body);
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
    let plain = mega.tree(&[("plain", tree)]);
    store.fetch_tree(&mega.name, want(plain)).await.unwrap();
    assert_eq!(fs::read(&record).unwrap(), b"rot");
}

#[tokio::test]
async fn content_that_came_with_its_size_is_kept_and_wrong_content_is_not() {
    let (_dir, mega, _, store) = two();
    let blobs: Vec<Oid> = ["one", "two", "three"].map(|content| mega.blob(content)).into();
    mega.with_content.store(true, Ordering::SeqCst);
    let lies = [(blobs[0], "ONE", 3), (blobs[1], "two", 4)];
    for (oid, content, bytes) in lies {
        let told = BlobSize { bytes, content: Some(content.into()) };
        mega.told.lock().unwrap().insert(oid, told);
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
    let asked = mega.asked();
    store.fetch_blob(&mega.name, want(blobs[2])).await.unwrap();
    assert_eq!(mega.asked(), asked, "it came with its size");
    let stats = store.fetch_stats()[&mega.name];
    assert_eq!((stats.fetched, stats.bytes), (0, 5));
}

#[tokio::test]
async fn dear_sizes_come_in_small_batches() {
    let (_dir, mega, _, store) = two();
    let blobs: Vec<Oid> = (0..40).map(|number| mega.blob(&format!("blob {number}"))).collect();
    let gate = Arc::new(Semaphore::new(1));
    *mega.gate.lock().unwrap() = Some(gate.clone());
    store.fetch_sizes(&mega.name, blobs.iter().map(|oid| want(*oid)).collect(), 5).await.unwrap();
    until("the first batch is under way", || mega.asked() == 17).await;
    tokio::task::yield_now().await;
    assert_eq!(mega.asked(), 17, "the wanted one, and sixteen contents in memory at most");
    assert!(store.is_size_coming(&mega.name, blobs[39]) && !store.is_size_coming(&mega.name, blobs[5]));
    gate.add_permits(100);
    until("all", || blobs.iter().all(|oid| store.cached_size(&mega.name, *oid).unwrap().is_some())).await;
}

/// Waits, within a bound, for what happens in the background.
async fn until(what: &str, is_so: impl Fn() -> bool) {
    let waited = tokio::time::timeout(Duration::from_secs(60), async {
        while !is_so() {
            tokio::task::yield_now().await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// `top` ─ `a` ─ (`b`, `c`), and `c` at the top again.
fn small_repository(mega: &Memory) -> (Snapshot, Vec<Oid>) {
    mega.passing.store(true, Ordering::SeqCst);
    let b = mega.tree(&[]);
    let c = mega.tree(&[("b", b)]);
    let a = mega.tree(&[("b", b), ("c", c)]);
    let top = mega.tree(&[("a", a), ("c", c)]);
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
    let mut asked = mega.asked.lock().unwrap().clone();
    asked[1..].sort_by_key(|(_, path)| path.clone());
    let paths: Vec<_> = asked.iter().map(|(_, path)| path.as_str()).collect();
    assert_eq!(paths[0], "/dir");
    assert_eq!(paths.len(), 4, "each tree once: {paths:?}");
    for oid in &trees {
        mega.forget(*oid);
        assert!(store.cached_tree(&mega.name, *oid).unwrap().is_some());
    }
    drop((pin, store));

    // The next start passes over what is here.
    mega.asked.lock().unwrap().clear();
    let store = store_in(dir.path(), "cache", &[&mega]);
    let pin = store.pin(&mega.name, &snapshot).unwrap();
    until("it is pinned again", || pin.progress().state == Pinned::Yes).await;
    assert_eq!((pin.progress().trees, mega.asked()), (4, 0));
}

#[tokio::test]
async fn a_walk_waits_for_an_origin_that_is_away() {
    let (_dir, mega, _, store) = two();
    let (snapshot, _) = small_repository(&mega);
    mega.away.store(true, Ordering::SeqCst);
    let pin = store.pin(&mega.name, &snapshot).unwrap();
    until("it tried", || mega.asked() > 0).await;
    assert_eq!(pin.progress(), Pinning { state: Pinned::Walking, trees: 0 });
    mega.away.store(false, Ordering::SeqCst);
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
    let gate = Arc::new(Semaphore::new(0));
    *mega.gate.lock().unwrap() = Some(gate.clone());
    let pin = store.pin(&mega.name, &snapshot).unwrap();
    mega.arrived.notified().await;
    drop(pin);
    gate.add_permits(100);
    until("what was under way has landed", || {
        store.cached_tree(&mega.name, snapshot.tree).unwrap().is_some()
    })
    .await;
    tokio::task::yield_now().await;
    assert_eq!(mega.asked(), 1);
}
