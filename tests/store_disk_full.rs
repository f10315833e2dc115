//! A full disk under the cache: an error to whoever waits, nothing else, and gone when there is space again. Needs root.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)] // tests may, in their own functions too

mod memory_origin;

use std::{fs, io::Write, path::Path};

use bytes::Bytes;
use memory_origin::{Home, Memory, want};
use scorpio::{
    cache::{Cache, CacheOptions, Checker, Put},
    origin::FetchError,
    store::StoreLimits,
    types::{ObjectKind, Oid, OriginName},
};
use tempfile::TempDir;

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
    let origin = Memory::new("memory");
    let name = &origin.name;
    let small: Vec<_> = (0..40).map(|byte| blob(byte, 60_000)).collect();
    let large = blob(100, 1 << 20);
    for (_, content) in small.iter().chain([&large]) {
        origin.blob(content);
    }
    let limits = StoreLimits { flight_bytes: 64 << 20, batch: 100 };
    let store = memory_origin::store(Home::of(disk.path()), &[&origin], limits);
    let fetch = async |oid: Oid| store.fetch_blob(name, want(oid)).await;
    let not_stored = |result: &Result<(), FetchError>| matches!(result, Err(FetchError::NotStored { .. }));

    fetch(small[0].0).await.unwrap();
    for _ in 0..2 {
        disk.fill();
        let result = fetch(large.0).await;
        assert!(not_stored(&result), "{result:?}");
        let mut failed = 0;
        for (oid, content) in &small[1..] {
            let result = fetch(*oid).await;
            let read = store.cached_blob(name, *oid, 0, u32::MAX).unwrap();
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
        assert_eq!(store.cached_blob(name, small[0].0, 0, u32::MAX).unwrap(), Some(small[0].1.clone()));
        assert_eq!(fs::read_dir(disk.path().join("cache/objects/tmp")).unwrap().count(), 0);
        disk.free();
    }
    fetch(large.0).await.unwrap();
    assert_eq!(store.cached_blob(name, large.0, 0, u32::MAX).unwrap(), Some(large.1));
    for (oid, content) in small {
        fetch(oid).await.unwrap();
        assert_eq!(store.cached_blob(name, oid, 0, u32::MAX).unwrap(), Some(content));
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
    let name: OriginName = "memory".parse().unwrap();
    cache.put(&name, vec![Put::Blob(oid, content.clone())]).await.unwrap();
    drop(cache);
    disk.fill();
    let cache = Cache::open(options("boot")).unwrap();
    assert_eq!(cache.read_blob(&name, oid, 0, u32::MAX).unwrap(), Some(content));
    drop(cache);
    // A new boot must write; where it cannot, the cache itself gives the room.
    let cache = Cache::open(options("next boot")).unwrap();
    assert!(!cache.has_blob(&name, oid).unwrap());
}
