//! Workspaces that change hands.

use super::*;
use crate::sys::idmap::Ids;

const BOB: u32 = 2000;
const CAROL: u32 = 3000;

pub(super) fn bob() -> Identity {
    Identity { uid: BOB, gid: 200, groups: vec![200, 27] }
}

fn carol() -> Identity {
    Identity { uid: CAROL, gid: 300, groups: vec![300] }
}

pub(super) fn gift(to: Identity) -> Gift {
    Gift { to, by: 0 }
}

fn last_spec(host: &Host) -> MountSpec {
    lock(&host.kernel.specs).last().unwrap().clone()
}

#[tokio::test]
async fn a_workspace_given_away_is_the_recipients_and_nobody_elses() {
    let host = Host::new();
    let antares = host.open().await;
    let made = antares.create(&alice(), host.request("w")).await.unwrap();
    std::fs::write(made.upper.join("precious"), "every byte").unwrap();
    let given = antares.give(&Scope::User(ALICE), &made.id, gift(bob())).await.unwrap();
    assert_eq!((given.owner, given.state, given.mount_id), (bob(), State::Unmounted, None));
    assert_eq!(given.stored, Ids { uid: ALICE, gid: 100 });
    assert_eq!((given.upper, given.snapshot, given.created), (made.upper, made.snapshot, made.created));
    assert!(host.mounted().is_empty());
    // Its former owner cannot do anything any more, and is told what is told of any unknown id.
    let (hers, id) = (Scope::User(ALICE), &made.id);
    let unknown = format!("there is no workspace {id}");
    assert_eq!(antares.list(&hers), []);
    assert_eq!(antares.get(&hers, id).unwrap_err().to_string(), unknown);
    assert_eq!(antares.mount(&hers, id, None).await.unwrap_err().to_string(), unknown);
    assert_eq!(antares.unmount(&hers, id, true).await.unwrap_err().to_string(), unknown);
    assert_eq!(antares.remove(&hers, id, true, true).await.unwrap_err().to_string(), unknown);
    assert_eq!(antares.give(&hers, id, gift(carol())).await.unwrap_err().to_string(), unknown);
    // Its new one mounts it where they like.
    let at = host.point("bobs");
    let mounted = antares.mount(&Scope::User(BOB), id, Some(at.clone())).await.unwrap();
    assert_eq!((mounted.state, &mounted.mount_point), (State::Mounted, &at));
    let spec = last_spec(&host);
    assert_eq!((spec.owner, spec.stored, spec.point.expect), (bob(), Ids { uid: ALICE, gid: 100 }, None));
}

#[tokio::test]
async fn given_on_and_given_back_the_first_ids_stay_on_disk() {
    let mut host = Host::new();
    let mut antares = host.open().await;
    let made = antares.create(&alice(), host.request("w")).await.unwrap();
    let id = &made.id;
    let back = Identity { uid: ALICE, gid: 1, groups: vec![1, 100] };
    for (to, seen_gid) in [(bob(), 200), (carol(), 300), (back, 100)] {
        let uid = to.uid;
        let given = antares.give(&ALL, id, gift(to)).await.unwrap();
        assert_eq!((given.owner.uid, given.owner.gid), (uid, seen_gid));
        assert_eq!(given.stored, Ids { uid: ALICE, gid: 100 });
        let tried = *lock(&host.kernel.shown).last().unwrap();
        assert_eq!((tried.stored(), tried.seen()), (given.stored, Ids { uid, gid: seen_gid }));
        let at = host.point(&format!("w{uid}"));
        assert_eq!(antares.mount(&ALL, id, Some(at)).await.unwrap().owner.uid, uid);
        antares.shutdown(Leave::Nothing).await;
        host.reboot();
        antares = host.open().await;
        let found = antares.get(&Scope::User(uid), id).unwrap();
        assert_eq!((found.stored, found.state), (given.stored, State::Mounted));
        assert_eq!(last_spec(&host).stored, given.stored);
    }
    assert_eq!(antares.get(&ALL, id).unwrap().owner.gid, made.owner.gid);
}

#[tokio::test]
async fn who_uses_it_keeps_it_from_being_given() {
    let host = Host::new();
    let antares = host.open().await;
    let made = antares.create(&alice(), host.request("w")).await.unwrap();
    host.occupy(&made.id);
    let busy = antares.give(&ALL, &made.id, gift(bob())).await.unwrap_err();
    assert!(matches!(busy, WorkspaceError::Unmount(UnmountError::Busy { .. })), "{busy}");
    assert_eq!((antares.state(&made.id), host.mounted()), (State::Mounted, vec![made.id.clone()]));
    // Detached, it is out of sight and still written to.
    antares.unmount(&ALL, &made.id, true).await.unwrap();
    let held = antares.give(&ALL, &made.id, gift(bob())).await.unwrap_err();
    assert!(matches!(held, WorkspaceError::Held(_)), "{held}");
    assert_eq!(antares.get(&ALL, &made.id).unwrap().owner, alice());
    host.vacate(&made.id);
    lock(&host.kernel.lazily).clear();
    antares.give(&ALL, &made.id, gift(bob())).await.unwrap();
}

#[tokio::test]
async fn whom_it_cannot_be_given_to_and_what_cannot_be_given() {
    let host = Host::new();
    let antares = host.open().await;
    let made = antares.create(&alice(), host.request("w")).await.unwrap();
    let before = host.tree();
    let record = std::fs::read(host.record(&made.id)).unwrap();
    let root = antares.give(&ALL, &made.id, gift(Identity::root())).await.unwrap_err();
    assert!(matches!(root, WorkspaceError::BadOption(_)), "{root}");
    let herself = antares.give(&ALL, &made.id, gift(alice())).await.unwrap_err();
    assert_eq!(herself.to_string(), format!("workspace {} belongs to uid {ALICE} already", made.id));
    host.kernel.refuse_maps.store(true, Ordering::SeqCst);
    let unmappable = antares.give(&ALL, &made.id, gift(bob())).await.unwrap_err();
    assert!(matches!(unmappable, WorkspaceError::Disk { .. }), "{unmappable}");
    host.kernel.refuse_maps.store(false, Ordering::SeqCst);
    let nothing = "abcdefghijkm".parse().unwrap();
    assert!(matches!(
        antares.give(&ALL, &nothing, gift(bob())).await,
        Err(WorkspaceError::NoSuchWorkspace(_))
    ));
    // Nothing of it was unmounted or written.
    assert_eq!((antares.state(&made.id), host.tree()), (State::Mounted, before));
    assert_eq!(std::fs::read(host.record(&made.id)).unwrap(), record);
    let throw_away = antares.create(&alice(), host.ephemeral("e")).await.unwrap();
    let refused = antares.give(&ALL, &throw_away.id, gift(bob())).await.unwrap_err();
    assert!(matches!(refused, WorkspaceError::WrongState { .. }), "{refused}");
    assert_eq!(antares.state(&throw_away.id), State::Mounted);
}

#[tokio::test]
async fn a_gift_counts_against_the_recipients_limit_and_no_longer_against_the_givers() {
    let mut host = Host::new();
    host.limits.workspaces_per_user = 2;
    let antares = host.open().await;
    let mut ids = Vec::new();
    for name in ["a", "b"] {
        ids.push(antares.create(&alice(), host.request(name)).await.unwrap().id);
    }
    antares.create(&bob(), host.request("c")).await.unwrap();
    antares.give(&ALL, &ids[0], gift(bob())).await.unwrap();
    let refused = antares.give(&ALL, &ids[1], gift(bob())).await.unwrap_err();
    assert_eq!(refused.to_string(), "user 2000 has 2 workspaces, and no more than 2 are allowed");
    assert_eq!(antares.state(&ids[1]), State::Mounted);
    // Alice has room again, and one that could not be given does not count for bob.
    antares.create(&alice(), host.request("d")).await.unwrap();
    antares.remove(&Scope::User(BOB), &ids[0], true, false).await.unwrap();
    antares.create(&bob(), host.request("e")).await.unwrap();
}

#[tokio::test]
async fn displaced_and_failed_workspaces_can_be_given_too() {
    let mut host = Host::new();
    let antares = host.open().await;
    let displaced = antares.create(&alice(), host.request("displaced")).await.unwrap();
    let failed = antares.create(&alice(), host.request("failed")).await.unwrap();
    antares.shutdown(Leave::Nothing).await;
    host.reboot();
    std::fs::remove_dir(&displaced.mount_point).unwrap();
    host.fail_mounts(true);
    let antares = host.open().await;
    host.fail_mounts(false);
    for id in [&displaced.id, &failed.id] {
        assert!(matches!(antares.state(id), State::Displaced { .. } | State::Failed { .. }));
        let given = antares.give(&ALL, id, gift(bob())).await.unwrap();
        assert_eq!((given.owner.uid, given.state), (BOB, State::Unmounted));
        antares.mount(&Scope::User(BOB), id, Some(host.point(id.as_str()))).await.unwrap();
    }
}

#[tokio::test]
async fn whoever_waits_for_a_workspace_while_it_is_given_away_finds_none() {
    let host = Host::new();
    let (reached, mut waiting) = tokio::sync::mpsc::unbounded_channel();
    let go = Arc::new(tokio::sync::Semaphore::new(0));
    let gate = Arc::clone(&go);
    let stopping = Hook(Some(Arc::new(move |moment| {
        let (reached, gate) = (reached.clone(), Arc::clone(&gate));
        Box::pin(async move {
            if moment == Moment::Before(super::super::state::Step::HandOver) {
                reached.send(()).unwrap();
                gate.acquire().await.unwrap().forget();
            }
        })
    })));
    let antares = host.open_with(stopping).await;
    let made = antares.create(&alice(), host.request("w")).await.unwrap();
    let giving = tokio::spawn({
        let (antares, id) = (antares.clone(), made.id.clone());
        async move { antares.give(&ALL, &id, gift(bob())).await }
    });
    waiting.recv().await.unwrap();
    // Hers still, so these get past the first look and wait for their turn.
    let mut hers = Box::pin(antares.mount(&Scope::User(ALICE), &made.id, None));
    assert!(futures_util::poll!(&mut hers).is_pending());
    tokio::task::yield_now().await;
    go.add_permits(1);
    giving.await.unwrap().unwrap();
    assert!(matches!(hers.await, Err(WorkspaceError::NoSuchWorkspace(_))));
    assert!(host.mounted().is_empty());
}

#[tokio::test]
async fn a_full_disk_leaves_it_with_its_former_owner() {
    let host = Host::new();
    let antares = host.open().await;
    let made = antares.create(&alice(), host.request("w")).await.unwrap();
    // A directory in the place of the new record's temporary file: it cannot be written.
    let dir = host.record(&made.id).parent().unwrap().join(".record.tmp");
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("x"), "").unwrap();
    let refused = antares.give(&ALL, &made.id, gift(bob())).await.unwrap_err();
    assert!(matches!(refused, WorkspaceError::Disk { .. }), "{refused}");
    assert_eq!(antares.list(&Scope::User(BOB)), []);
    assert_eq!(antares.get(&Scope::User(ALICE), &made.id).unwrap().state, State::Unmounted);
    std::fs::remove_dir_all(&dir).unwrap();
    antares.mount(&Scope::User(ALICE), &made.id, None).await.unwrap();
    antares.give(&ALL, &made.id, gift(bob())).await.unwrap();
}

#[tokio::test]
async fn watchers_learn_whose_it_is() {
    let host = Host::new();
    let antares = host.open().await;
    let made = antares.create(&alice(), host.request("w")).await.unwrap();
    let mut changes = antares.watch();
    antares.give(&ALL, &made.id, gift(bob())).await.unwrap();
    let told = changes.recv().await.unwrap().workspace.unwrap();
    assert_eq!((told.owner, told.state), (bob(), State::Unmounted));
}
