//! State and uppers on a file system without room.

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::*;

/// A tmpfs of a few pages, filled up on demand.
struct Small(PathBuf);

impl Small {
    fn under(host: &Host) -> Small {
        let path = host.dir.path().join("state");
        std::fs::create_dir(&path).unwrap();
        let size = Some("size=128k,mode=0700");
        mount(Some("tmpfs"), &path, Some("tmpfs"), MsFlags::empty(), size).unwrap();
        Small(path)
    }

    fn fill(&self) {
        use std::io::Write as _;
        let mut file = std::fs::File::create(self.0.join("filler")).unwrap();
        while file.write_all(&[0; 4096]).is_ok() {}
    }

    fn free(&self) {
        std::fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        umount2(&self.0, MntFlags::MNT_DETACH).unwrap();
    }
}

fn errno(error: &WorkspaceError) -> Option<i32> {
    match error {
        WorkspaceError::Disk { source, .. } => source.raw_os_error(),
        _ => None,
    }
}

#[tokio::test]
async fn a_full_disk_refuses_cleanly_and_heals() {
    let host = Host::new();
    let small = Small::under(&host);
    let antares = host.open().await;
    let made = antares.create(&alice(), host.request("w")).await.unwrap();
    std::fs::write(made.upper.join("precious"), "every byte").unwrap();
    small.fill();
    let before = host.tree();

    let error = antares.create(&alice(), host.request("other")).await.unwrap_err();
    assert_eq!(errno(&error), Some(libc::ENOSPC), "{error}");
    assert_eq!((host.tree(), host.mounted()), (before, vec![made.id.clone()]));

    let error = antares.unmount(&ALL, &made.id, false).await.unwrap_err();
    assert_eq!(errno(&error), Some(libc::ENOSPC), "{error}");
    assert_eq!(
        (antares.state(&made.id), host.mounted()),
        (State::Unmounted, vec![]),
        "unmounted, not yet recorded"
    );
    let error = antares.mount(&ALL, &made.id, None).await.unwrap_err();
    assert_eq!((errno(&error), antares.state(&made.id)), (Some(libc::ENOSPC), State::Unmounted), "{error}");

    small.free();
    antares.unmount(&ALL, &made.id, false).await.unwrap();
    drop(antares);
    let antares = host.open().await;
    assert_eq!(antares.state(&made.id), State::Unmounted);
    antares.mount(&ALL, &made.id, None).await.unwrap();
    assert_eq!(std::fs::read(made.upper.join("precious")).unwrap(), b"every byte");
}

#[tokio::test]
async fn a_workspace_can_be_removed_from_a_full_disk() {
    let host = Host::new();
    let small = Small::under(&host);
    let antares = host.open().await;
    let made = antares.create(&alice(), host.request("w")).await.unwrap();
    std::fs::write(made.upper.join("large"), vec![0; 8192]).unwrap();
    small.fill();
    antares.remove(&ALL, &made.id, true, false).await.unwrap();
    antares.settle();
    assert!(!made.upper.exists());
    antares.create(&alice(), host.request("next")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_start_on_a_full_disk_loses_nothing_and_mounts_when_there_is_room() {
    let host = Host::new();
    let small = Small::under(&host);
    let antares = host.open().await;
    let made = antares.create(&alice(), host.request("w")).await.unwrap();
    drop(antares);
    small.fill();
    let antares = host.open().await;
    assert!(matches!(antares.state(&made.id), State::Failed { .. }), "{:?}", antares.state(&made.id));
    let mut events = antares.watch();
    small.free();
    while antares.state(&made.id) != State::Mounted {
        events.recv().await.unwrap();
    }
    assert_eq!(host.mounted(), [made.id]);
}
