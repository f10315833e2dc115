//! An origin in memory under a real store: it notes what it is asked for, and waits, goes away or lies on demand.
#![allow(dead_code, missing_docs, unreachable_pub, clippy::unwrap_used)] // each test binary uses a part

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use scorpio::{
    cache::{Cache, CacheOptions, Checker},
    origin::{BlobSize, FetchError, Hint, Origin, ResolveError, SMALL_TREE, Snapshot, TreeBody, Want},
    store::{ObjectStore, StoreLimits},
    types::{ObjectKind, Oid, OriginName, RepoPath},
};
use tokio::sync::{Notify, Semaphore};

/// What is wrong with the origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    Absent,
    Unreachable,
    WrongBytes,
    Truncated,
    NoAnswers,
    TooManyAnswers,
    Panic,
}

pub struct Memory {
    pub name: OriginName,
    objects: Mutex<HashMap<Oid, Bytes>>,
    boundaries: Mutex<HashMap<Oid, Oid>>,
    told: Mutex<HashMap<Oid, BlobSize>>,
    hanging: Mutex<HashSet<Oid>>,
    fault: Mutex<Fault>,
    gate: Mutex<Option<Arc<Semaphore>>>,
    /// Told of each request that arrives.
    pub arrived: Notify,
    asked: Mutex<Vec<Vec<Want>>>,
    pub cheap_sizes: AtomicBool,
    /// Sizes come with what it takes for the content.
    pub sends_content: AtomicBool,
    /// Its trees can be had for some time only.
    pub passing: AtomicBool,
    pub under_way: AtomicUsize,
    pub most_under_way: AtomicUsize,
}

impl Memory {
    pub fn new(name: &str) -> Arc<Memory> {
        Arc::new(Memory {
            name: name.parse().unwrap(),
            objects: Mutex::default(),
            boundaries: Mutex::default(),
            told: Mutex::default(),
            hanging: Mutex::default(),
            fault: Mutex::new(Fault::None),
            gate: Mutex::default(),
            arrived: Notify::new(),
            asked: Mutex::default(),
            cheap_sizes: AtomicBool::new(false),
            sends_content: AtomicBool::new(false),
            passing: AtomicBool::new(false),
            under_way: AtomicUsize::new(0),
            most_under_way: AtomicUsize::new(0),
        })
    }

    pub fn put(&self, kind: ObjectKind, body: impl Into<Bytes>) -> Oid {
        let body = body.into();
        let oid = Oid::of(kind, &body).unwrap();
        self.put_as(oid, body);
        oid
    }

    /// Has these bytes under an id that need not be theirs.
    pub fn put_as(&self, oid: Oid, body: Bytes) {
        self.objects.lock().unwrap().insert(oid, body);
    }

    pub fn blob(&self, content: impl AsRef<[u8]>) -> Oid {
        self.put(ObjectKind::Blob, content.as_ref().to_vec())
    }

    /// A tree of modes, names and ids.
    pub fn tree(&self, entries: &[(&str, &str, Oid)]) -> Oid {
        let entry = |(mode, name, oid): &(&str, &str, Oid)| {
            [format!("{mode} {name}\0").as_bytes(), oid.as_bytes()].concat()
        };
        self.put(ObjectKind::Tree, entries.iter().flat_map(entry).collect::<Vec<_>>())
    }

    pub fn body(&self, oid: Oid) -> Bytes {
        self.objects.lock().unwrap()[&oid].clone()
    }

    pub fn forget(&self, oid: Oid) {
        self.objects.lock().unwrap().remove(&oid);
    }

    /// From now on `oid` stands for `tree`; for itself again if it is the same.
    pub fn stands_for(&self, oid: Oid, tree: Oid) {
        self.boundaries.lock().unwrap().insert(oid, tree);
    }

    /// Says this of a blob's size instead of the truth.
    pub fn tell(&self, oid: Oid, size: impl Into<BlobSize>) {
        self.told.lock().unwrap().insert(oid, size.into());
    }

    /// Requests that name this never end.
    pub fn hang(&self, oid: Oid) {
        self.hanging.lock().unwrap().insert(oid);
    }

    pub fn set(&self, fault: Fault) {
        *self.fault.lock().unwrap() = fault;
    }

    /// From now on each request waits for a permit.
    pub fn close(&self) -> Arc<Semaphore> {
        let gate = Arc::new(Semaphore::new(0));
        *self.gate.lock().unwrap() = Some(gate.clone());
        gate
    }

    /// The ids of every request, in order.
    pub fn asked(&self) -> Vec<Vec<Oid>> {
        let asked = self.asked.lock().unwrap();
        asked.iter().map(|wants| wants.iter().map(|want| want.oid).collect()).collect()
    }

    /// All that was wanted, one after another.
    pub fn wanted(&self) -> Vec<Want> {
        self.asked.lock().unwrap().concat()
    }

    async fn answer(&self, wants: &[Want]) -> Vec<Result<Bytes, FetchError>> {
        self.asked.lock().unwrap().push(wants.to_vec());
        let now = self.under_way.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_under_way.fetch_max(now, Ordering::SeqCst);
        self.arrived.notify_one();
        let hangs = wants.iter().any(|want| self.hanging.lock().unwrap().contains(&want.oid));
        if hangs {
            std::future::pending::<()>().await;
        }
        let gate = self.gate.lock().unwrap().clone();
        if let Some(gate) = gate {
            gate.acquire().await.unwrap().forget();
        }
        self.under_way.fetch_sub(1, Ordering::SeqCst);
        let fault = *self.fault.lock().unwrap();
        let mut answers: Vec<_> = wants.iter().map(|want| self.answer_one(want, fault)).collect();
        match fault {
            Fault::NoAnswers => answers.clear(),
            Fault::TooManyAnswers => answers.push(Ok(Bytes::new())),
            _ => {}
        }
        answers
    }

    fn answer_one(&self, want: &Want, fault: Fault) -> Result<Bytes, FetchError> {
        let (origin, oid) = (self.name.clone(), want.oid);
        let found = self.objects.lock().unwrap().get(&self.behind(oid).unwrap_or(oid)).cloned();
        match (fault, found) {
            (Fault::Unreachable, _) => Err(FetchError::Unreachable { origin, reason: "refused".into() }),
            (Fault::Panic, _) => panic!("asked to"),
            (Fault::Absent, _) | (_, None) if self.trees_pass() => {
                Err(FetchError::Moved { origin, oid, path: want.hint.path.clone() })
            }
            (Fault::Absent, _) | (_, None) => Err(FetchError::Absent { origin, oid }),
            (Fault::WrongBytes, Some(body)) => Ok([b"x", body.as_ref()].concat().into()),
            (Fault::Truncated, Some(body)) => Ok(body.slice(..body.len() / 2)),
            (_, Some(body)) => Ok(body),
        }
    }

    /// The tree that an id stands for, where that is another one.
    fn behind(&self, oid: Oid) -> Option<Oid> {
        self.boundaries.lock().unwrap().get(&oid).copied().filter(|tree| *tree != oid)
    }
}

#[async_trait]
impl Origin for Memory {
    fn name(&self) -> &OriginName {
        &self.name
    }

    async fn resolve(&self, _rev: Option<&str>, _path: &RepoPath) -> Result<Snapshot, ResolveError> {
        unreachable!("the tests name their trees")
    }

    async fn trees(&self, wants: &[Want]) -> Vec<Result<TreeBody, FetchError>> {
        let answers = self.answer(wants).await.into_iter().enumerate();
        let boundary = |index: usize| wants.get(index).and_then(|want| self.behind(want.oid));
        answers.map(|(index, body)| body.map(|body| TreeBody { body, boundary: boundary(index) })).collect()
    }

    async fn small_trees(&self, wants: &[Want]) -> Vec<Result<Option<TreeBody>, FetchError>> {
        let small = |tree: TreeBody| Some(tree).filter(|tree| tree.body.len() as u64 <= SMALL_TREE);
        self.trees(wants).await.into_iter().map(|answer| answer.map(small)).collect()
    }

    async fn blobs(&self, wants: &[Want]) -> Vec<Result<Bytes, FetchError>> {
        self.answer(wants).await
    }

    async fn sizes(&self, wants: &[Want]) -> Vec<Result<BlobSize, FetchError>> {
        let answers = self.answer(wants).await.into_iter().enumerate();
        let sends_content = self.sends_content.load(Ordering::SeqCst);
        let told = self.told.lock().unwrap();
        let size = |(index, body): (usize, Result<Bytes, FetchError>)| {
            let told = wants.get(index).and_then(|want| told.get(&want.oid)).cloned();
            let truth =
                |body: Bytes| BlobSize { bytes: body.len() as u64, content: sends_content.then_some(body) };
            body.map(|body| told.unwrap_or_else(|| truth(body)))
        };
        answers.map(size).collect()
    }

    fn sizes_are_cheap(&self) -> bool {
        self.cheap_sizes.load(Ordering::SeqCst)
    }

    fn trees_pass(&self) -> bool {
        self.passing.load(Ordering::SeqCst)
    }
}

/// Where a store keeps things, and in which boot it does.
#[derive(Clone, Copy)]
pub struct Home<'a> {
    pub dir: &'a Path,
    /// The cache's directory in it.
    pub cache: &'a str,
    pub boot_id: &'a str,
}

impl<'a> Home<'a> {
    pub fn of(dir: &'a Path) -> Home<'a> {
        Home { dir, cache: "cache", boot_id: "boot" }
    }
}

/// A store on these origins.
pub fn store(home: Home<'_>, origins: &[&Arc<Memory>], limits: StoreLimits) -> ObjectStore {
    let options = CacheOptions {
        dir: home.dir.join(home.cache),
        map_bytes: 1 << 30,
        inline_max_bytes: 64 << 10,
        boot_id: home.boot_id.into(),
        checker: Some(Checker::new("/bin/true", [])),
    };
    let dynamic = |origin: &&Arc<Memory>| (origin.name.clone(), Arc::clone(origin) as Arc<dyn Origin>);
    let origins: BTreeMap<OriginName, Arc<dyn Origin>> = origins.iter().map(dynamic).collect();
    ObjectStore::new(Cache::open(options).unwrap(), origins, &home.dir.join("state"), limits)
}

pub fn want(oid: Oid) -> Want {
    Want { oid, hint: Hint { commit: Oid::EMPTY_TREE, path: RepoPath::root() } }
}

/// Waits, within a bound, for what happens in the background.
pub async fn until(what: &str, is_so: impl Fn() -> bool) {
    let waited = tokio::time::timeout(Duration::from_secs(60), async {
        while !is_so() {
            tokio::task::yield_now().await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("never: {what}"));
}
