//! A full disk under the cache: an error to whoever waits, nothing else, and gone when there is space again. Needs root.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)] // tests may, in their own functions too

use std::{collections::BTreeMap, fs, io::Write, path::Path, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use scorpio::{
    cache::{Cache, CacheOptions, Checker, Put},
    origin::{BlobSize, FetchError, Hint, Origin, ResolveError, Snapshot, TreeBody, Want},
    store::{ObjectStore, StoreLimits},
    types::{ObjectKind, Oid, OriginName, RepoPath},
};
use tempfile::TempDir;

/// Blobs of one byte repeated; the id says which.
struct Plain {
    name: OriginName,
    blobs: BTreeMap<Oid, Bytes>,
}

#[async_trait]
impl Origin for Plain {
    fn name(&self) -> &OriginName {
        &self.name
    }

    async fn resolve(&self, _rev: Option<&str>, _path: &RepoPath) -> Result<Snapshot, ResolveError> {
        unreachable!("the store never resolves")
    }

    async fn trees(&self, _wants: &[Want]) -> Vec<Result<TreeBody, FetchError>> {
        unreachable!("no trees here")
    }

    async fn blobs(&self, wants: &[Want]) -> Vec<Result<Bytes, FetchError>> {
        wants.iter().map(|want| Ok(self.blobs[&want.oid].clone())).collect()
    }

    async fn sizes(&self, wants: &[Want]) -> Vec<Result<BlobSize, FetchError>> {
        wants.iter().map(|want| Ok((self.blobs[&want.oid].len() as u64).into())).collect()
    }

    fn sizes_are_cheap(&self) -> bool {
        true
    }

    fn trees_pass(&self) -> bool {
        false
    }
}

/// A small file system, unmounted at the end.
struct Disk(TempDir);

impl Disk {
    fn new(bytes: u64) -> Disk {
        let dir = TempDir::new().unwrap();
        let options = format!("size={bytes},mode=0700");
        let flags = nix::mount::MsFlags::empty();
        nix::mount::mount(Some("scorpio-test"), dir.path(), Some("tmpfs"), flags, Some(options.as_str()))
            .expect("mounting needs root");
        Disk(dir)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Takes all space that is left.
    fn fill(&self) {
        let mut file = fs::File::create(self.path().join("filler")).unwrap();
        for chunk in [1 << 16, 4096, 1] {
            while file.write_all(&vec![0; chunk]).is_ok() {}
        }
    }

    fn free(&self) {
        fs::remove_file(self.path().join("filler")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        nix::mount::umount2(self.0.path(), nix::mount::MntFlags::MNT_DETACH).unwrap();
    }
}

fn blob(byte: u8, len: usize) -> (Oid, Bytes) {
    let content = Bytes::from(vec![byte; len]);
    (Oid::of(ObjectKind::Blob, &content).unwrap(), content)
}

#[tokio::test]
async fn a_full_disk_fails_what_cannot_be_kept_and_heals() {
    let disk = Disk::new(16 << 20);
    let name: OriginName = "plain".parse().unwrap();
    let small: Vec<_> = (0..40).map(|byte| blob(byte, 60_000)).collect();
    let large = blob(100, 1 << 20);
    let origin = Plain { name: name.clone(), blobs: small.iter().cloned().chain([large.clone()]).collect() };
    let cache = Cache::open(CacheOptions {
        dir: disk.path().join("cache"),
        map_bytes: 1 << 30,
        inline_max_bytes: 64 << 10,
        boot_id: "boot".into(),
        checker: None,
    })
    .unwrap();
    let dynamic: Arc<dyn Origin> = Arc::new(origin);
    let limits = StoreLimits { flight_bytes: 64 << 20, batch: 100 };
    let store = ObjectStore::new(cache, BTreeMap::from([(name.clone(), dynamic)]), limits);
    let fetch = async |oid: Oid| {
        let hint = Hint { commit: Oid::EMPTY_TREE, path: RepoPath::root() };
        store.fetch_blob(&name, Want { oid, hint }).await
    };
    let not_stored = |result: &Result<(), FetchError>| matches!(result, Err(FetchError::NotStored { .. }));

    fetch(small[0].0).await.unwrap();
    for _ in 0..2 {
        disk.fill();
        let result = fetch(large.0).await;
        assert!(not_stored(&result), "{result:?}");
        let mut failed = 0;
        for (oid, content) in &small[1..] {
            let result = fetch(*oid).await;
            let read = store.cached_blob(*oid, 0, u32::MAX).unwrap();
            match result {
                Ok(()) => assert_eq!(read.as_ref(), Some(content)),
                refused => {
                    assert!(not_stored(&refused), "{refused:?}");
                    assert_eq!(read, None);
                    failed += 1;
                }
            }
        }
        assert!(failed > 30, "only {failed} did not fit");
        assert_eq!(store.cached_blob(small[0].0, 0, u32::MAX).unwrap(), Some(small[0].1.clone()));
        assert_eq!(fs::read_dir(disk.path().join("cache/objects/tmp")).unwrap().count(), 0);
        disk.free();
    }
    fetch(large.0).await.unwrap();
    assert_eq!(store.cached_blob(large.0, 0, u32::MAX).unwrap(), Some(large.1));
    for (oid, content) in small {
        fetch(oid).await.unwrap();
        assert_eq!(store.cached_blob(oid, 0, u32::MAX).unwrap(), Some(content));
    }
}

#[tokio::test]
async fn a_full_disk_does_not_keep_a_cache_from_opening() {
    let disk = Disk::new(16 << 20);
    let options = |boot_id: &str| CacheOptions {
        dir: disk.path().join("cache"),
        map_bytes: 1 << 30,
        inline_max_bytes: 64 << 10,
        boot_id: boot_id.into(),
        checker: Some(Checker::new("/bin/true", [])),
    };
    let (oid, content) = blob(1, 60_000);
    let cache = Cache::open(options("boot")).unwrap();
    cache.put(vec![Put::Blob(oid, content.clone())]).await.unwrap();
    drop(cache);
    disk.fill();
    let cache = Cache::open(options("boot")).unwrap();
    assert_eq!(cache.read_blob(oid, 0, u32::MAX).unwrap(), Some(content));
    drop(cache);
    // A new boot must write; where it cannot, the cache itself gives the room.
    let cache = Cache::open(options("next boot")).unwrap();
    assert!(!cache.has_blob(oid).unwrap());
}
