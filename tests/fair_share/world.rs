//! A session over an origin that answers what the test says, when the test says.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use scorpio::{
    cache::{Cache, CacheOptions},
    config::Replay,
    dicfuse::{Dicfuse, NodeTableOptions, Stop},
    engine::serve::Served,
    fusedev::{Features, Session, SessionLimits},
    origin::{self, BlobSize, FetchError, Origin, ResolveError, Snapshot, TreeBody, Want, limits::Limited},
    store::{ObjectStore, StoreLimits},
    types::{NodeId, ObjectKind, Oid, OriginName, RepoPath},
};
use tokio::{runtime::Runtime, sync::watch};

use crate::kernel::Kernel;

/// Files of the one directory: few enough for their sizes to come at once.
const FILES: usize = 201;
/// Nothing ends by itself.
const FOR_EVER: Duration = Duration::from_secs(3600);

fn name() -> OriginName {
    "memory".parse().unwrap()
}

pub(crate) fn content(n: usize) -> Vec<u8> {
    format!("file {n}\n").into_bytes()
}

struct Gated {
    name: OriginName,
    tree: Bytes,
    files: HashMap<Oid, usize>,
    /// Files whose content was asked for, in order.
    asked: Mutex<Vec<usize>>,
    /// Files whose content is given out.
    open: watch::Sender<HashSet<usize>>,
}

#[async_trait]
impl Origin for Gated {
    fn name(&self) -> &OriginName {
        &self.name
    }

    async fn resolve(&self, _: Option<&str>, _: &RepoPath) -> Result<Snapshot, ResolveError> {
        unreachable!("the test names its tree")
    }

    async fn trees(&self, wants: &[Want]) -> Vec<Result<TreeBody, FetchError>> {
        wants.iter().map(|_| Ok(self.tree.clone().into())).collect()
    }

    async fn blobs(&self, wants: &[Want]) -> Vec<Result<Bytes, FetchError>> {
        let [want] = wants else { panic!("one blob at a time") };
        let n = self.files[&want.oid];
        self.asked.lock().unwrap().push(n);
        self.open.subscribe().wait_for(|open| open.contains(&n)).await.unwrap();
        vec![Ok(content(n).into())]
    }

    async fn sizes(&self, wants: &[Want]) -> Vec<Result<BlobSize, FetchError>> {
        wants.iter().map(|want| Ok((content(self.files[&want.oid]).len() as u64).into())).collect()
    }

    fn sizes_are_cheap(&self) -> bool {
        true
    }

    fn trees_pass(&self) -> bool {
        false
    }
}

/// A session whose names and sizes are known, and no content.
pub(crate) struct World {
    pub(crate) kernel: Kernel,
    nodes: Vec<NodeId>,
    origin: Arc<Gated>,
    store: ObjectStore,
    // Before the runtime that its futures run on.
    session: Session,
    _runtime: Runtime,
    _dir: tempfile::TempDir,
}

impl World {
    /// The origin takes `requests` at once, `per_user` fetches of each user are under way.
    pub(crate) fn new(requests: usize, per_user: usize) -> World {
        let dir = tempfile::tempdir().unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let origin = Arc::new(Gated::new());
        let limits = origin::Limits { deadline: FOR_EVER, requests };
        let limited = Arc::new(Limited::new(Arc::clone(&origin), limits)) as Arc<dyn Origin>;
        let boot_id = "boot".to_owned();
        let cache = CacheOptions {
            dir: dir.path().join("cache"),
            map_bytes: 64 << 20,
            inline_max_bytes: 64 << 10,
            boot_id: boot_id.clone(),
            checker: None,
        };
        let store = ObjectStore::new(
            Cache::open(cache).unwrap(),
            BTreeMap::from([(name(), limited)]),
            &dir.path().join("state"),
            StoreLimits { flight_bytes: 64 << 20, batch: 1024 },
        );
        let nodes = NodeTableOptions { dir: dir.path().join("nodes"), map_bytes: 64 << 20, boot_id };
        let dicfuse = Dicfuse::open(nodes, store.clone()).unwrap();
        let nodes = runtime.block_on(look_up_all(&dicfuse, &origin));
        let (kernel, device) = Kernel::pair();
        kernel.offer();
        let limits = SessionLimits {
            workers: 2,
            parked: 4096,
            parked_per_user: 1024,
            deadline: FOR_EVER,
            entry_ttl: FOR_EVER,
        };
        let features = Features { idmap: false, replay: Replay::Auto, generation: 1 };
        let served = Arc::new(Served::new(dicfuse, 0, 0, FOR_EVER, per_user));
        let session = Session::start(device, served, features, limits, runtime.handle().clone()).unwrap();
        assert!(kernel.answer_of(2).is_ok());
        World { kernel, nodes, origin, store, session, _runtime: runtime, _dir: dir }
    }

    /// `uid` reads file `n`.
    pub(crate) fn read(&self, uid: u32, n: usize) {
        self.kernel.read(self.unique(n), self.nodes[n].0, uid);
    }

    /// The number of the request that reads file `n`.
    pub(crate) fn unique(&self, n: usize) -> u64 {
        100 + 2 * n as u64
    }

    /// Questions that wait.
    pub(crate) fn parked(&self) -> u64 {
        self.session.stats().parked
    }

    /// Contents that the store has asked for, which may have to wait for their turn at the origin.
    pub(crate) fn fetches(&self) -> usize {
        // The tree was one object.
        usize::try_from(self.store.fetch_stats()[&name()].fetched).unwrap() - 1
    }

    /// Files whose content the origin was asked for, in order.
    pub(crate) fn asked(&self) -> Vec<usize> {
        self.origin.asked.lock().unwrap().clone()
    }

    /// The origin answers for file `n`.
    pub(crate) fn answer(&self, n: usize) {
        self.origin.open.send_modify(|open| {
            open.insert(n);
        });
    }
}

impl Gated {
    fn new() -> Gated {
        let (mut tree, mut files) = (Vec::new(), HashMap::new());
        for n in 0..FILES {
            let oid = Oid::of(ObjectKind::Blob, &content(n)).unwrap();
            tree.extend(format!("100644 {n:03}\0").into_bytes());
            tree.extend(oid.as_bytes());
            files.insert(oid, n);
        }
        let open = watch::Sender::new(HashSet::new());
        Gated { name: name(), tree: tree.into(), files, asked: Mutex::default(), open }
    }
}

async fn look_up_all(dicfuse: &Dicfuse, origin: &Gated) -> Vec<NodeId> {
    let tree = Oid::of(ObjectKind::Tree, &origin.tree).unwrap();
    let snapshot = Snapshot { commit: Oid::from_bytes([0xcc; 20]), path: RepoPath::root(), tree };
    let root = dicfuse.add_root(&name(), &snapshot, 1_700_000_000).unwrap();
    let top = look_up(dicfuse, NodeId::ROOT, &root.id.to_string()).await;
    let mut nodes = Vec::new();
    for n in 0..FILES {
        nodes.push(look_up(dicfuse, top, &format!("{n:03}")).await);
    }
    nodes
}

async fn look_up(dicfuse: &Dicfuse, parent: NodeId, name: &str) -> NodeId {
    loop {
        match dicfuse.lookup(parent, name.as_bytes()) {
            Ok(found) => return found.unwrap().node,
            Err(Stop::Need(need)) => dicfuse.fetch(*need).await.unwrap(),
            Err(other) => panic!("{other}"),
        }
    }
}
