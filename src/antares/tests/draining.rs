//! A host that takes no new mounts, and what lies in uppers.

use std::{
    os::unix::fs::MetadataExt,
    sync::OnceLock,
    time::{Instant, UNIX_EPOCH},
};

use super::*;
use crate::antares::state::Step;

const ROOT: u32 = 0;

fn is_refused<T>(result: &Result<T, WorkspaceError>) -> bool {
    matches!(result, Err(WorkspaceError::Draining))
}

#[tokio::test]
async fn a_drained_host_refuses_what_users_ask_for_and_touches_nothing_that_stands() {
    let host = Host::new();
    let antares = host.open().await;
    let stands = antares.create(&alice(), host.request("stands")).await.unwrap();
    let rests = antares.create(&alice(), host.request("rests")).await.unwrap();
    antares.unmount(&ALL, &rests.id, false).await.unwrap();
    assert_eq!(antares.draining(), None);
    let begun = antares.begin_drain(ROOT).await.unwrap();
    assert_eq!((begun.by, antares.draining()), (Some(ROOT), Some(begun)));
    assert!(begun.since.is_some_and(|since| since > UNIX_EPOCH));
    assert_eq!(antares.begin_drain(7).await.unwrap(), begun, "it has begun before");
    let before = host.tree();
    assert!(is_refused(&antares.create(&alice(), host.request("new")).await));
    assert!(is_refused(&antares.create(&Identity::root(), host.request("roots")).await));
    assert!(is_refused(&antares.mount(&ALL, &rests.id, None).await));
    assert_eq!((host.tree(), host.mounted()), (before, vec![stands.id.clone()]));
    assert_eq!(antares.state(&rests.id), State::Unmounted);
    // Whoever has one may end it.
    antares.unmount(&Scope::User(ALICE), &stands.id, false).await.unwrap();
    antares.remove(&Scope::User(ALICE), &rests.id, true, false).await.unwrap();
    antares.end_drain(ROOT).await.unwrap();
    antares.end_drain(ROOT).await.unwrap();
    assert_eq!(antares.draining(), None);
    antares.mount(&ALL, &stands.id, None).await.unwrap();
    antares.create(&alice(), host.request("new")).await.unwrap();
}

#[tokio::test]
async fn draining_outlives_daemon_and_boot_and_what_was_mounted_comes_back() {
    let mut host = Host::new();
    let antares = host.open().await;
    let made = antares.create(&alice(), host.request("w")).await.unwrap();
    let begun = antares.begin_drain(1000).await.unwrap();
    antares.shutdown(Leave::Nothing).await;
    host.reboot();
    let antares = host.open().await;
    assert_eq!(antares.draining(), Some(begun));
    assert_eq!(antares.state(&made.id), State::Mounted);
    assert!(is_refused(&antares.create(&alice(), host.request("new")).await));
    antares.end_drain(ROOT).await.unwrap();
    antares.shutdown(Leave::Nothing).await;
    host.reboot();
    assert_eq!(host.open().await.draining(), None);
}

#[tokio::test]
async fn a_creation_under_way_is_taken_back_or_was_seen() {
    let host = Host::new();
    let known: Arc<OnceLock<Antares>> = Arc::default();
    let seen = Arc::clone(&known);
    let hook = Hook(Some(Arc::new(move |moment| {
        let antares = seen.get().filter(|_| moment == Moment::Before(Step::Mount)).cloned();
        Box::pin(async move {
            if let Some(antares) = antares {
                antares.begin_drain(ROOT).await.unwrap();
                assert_eq!(antares.list(&ALL).len(), 1, "who lists them after this sees it");
            }
        })
    })));
    let antares = host.open_with(hook).await;
    let before = host.tree();
    known.set(antares.clone()).ok().unwrap();
    assert!(is_refused(&antares.create(&alice(), host.request("w")).await));
    assert_eq!((antares.list(&ALL), host.mounted()), (Vec::new(), Vec::new()));
    antares.end_drain(ROOT).await.unwrap();
    assert_eq!((host.tree(), host.served()), (before, 0));
}

#[tokio::test]
async fn a_full_or_broken_disk_keeps_it_from_beginning_and_says_so() {
    let host = Host::new();
    let antares = host.open().await;
    // The temporary file cannot be made.
    std::fs::create_dir(host.dir.path().join("state/.drain.tmp")).unwrap();
    let error = antares.begin_drain(ROOT).await.unwrap_err();
    assert!(matches!(error, WorkspaceError::Disk { action: "write", .. }), "{error}");
    assert_eq!(antares.draining(), None);
    antares.create(&alice(), host.request("w")).await.unwrap();
}

#[tokio::test]
async fn what_was_written_is_measured_for_those_who_may_see_it() {
    for host in [Host::new(), Host::split()] {
        let antares = host.open().await;
        let budget = || Budget::until(Instant::now() + Duration::from_secs(60));
        let made = antares.create(&alice(), host.request("w")).await.unwrap();
        std::fs::write(made.upper.join("file"), vec![1; 50_000]).unwrap();
        let blocks = [&made.upper, &made.upper.join("file")].map(|path| path.metadata().unwrap().blocks());
        let whole = Usage { bytes: (blocks[0] + blocks[1]) * 512, inodes: 2, partial: None };
        assert_eq!(antares.measure(&Scope::User(ALICE), &made.id, &budget()).unwrap(), whole);
        let other = antares.measure(&Scope::User(ALICE + 1), &made.id, &budget());
        assert!(matches!(other, Err(WorkspaceError::NoSuchWorkspace(_))), "{other:?}");
        let options = Options { read_only: true, ..Options::default() };
        let request = Create { options, ..host.request("read-only") };
        let nothing = antares.create(&alice(), request).await.unwrap();
        assert_eq!(antares.measure(&ALL, &nothing.id, &budget()).unwrap(), Usage::default());
        std::fs::remove_dir_all(&made.upper).unwrap();
        let lost = antares.measure(&ALL, &made.id, &budget()).unwrap();
        assert!(lost.partial.unwrap().starts_with("its upper cannot be opened: "));
    }
}
