//! Unmounting, removing, expiring, stopping.

use super::*;

#[tokio::test]
async fn a_durable_workspace_is_kept_and_can_come_back_elsewhere() {
    let host = Host::new();
    let antares = host.open().await;
    let made = antares.create(&alice(), host.request("w")).await.unwrap();
    std::fs::write(made.upper.join("f"), "x").unwrap();
    antares.unmount(&ALL, &made.id, false).await.unwrap();
    assert_eq!((antares.state(&made.id), host.mounted(), host.served()), (State::Unmounted, vec![], 1));
    let refusal = antares.unmount(&ALL, &made.id, false).await.unwrap_err().to_string();
    assert_eq!(refusal, format!("workspace {} is not mounted; there is nothing to unmount", made.id));
    let elsewhere = host.point("elsewhere");
    let back = antares.mount(&ALL, &made.id, Some(elsewhere.clone())).await.unwrap();
    assert_eq!((back.state, back.mount_point), (State::Mounted, elsewhere));
    assert_eq!(std::fs::read(made.upper.join("f")).unwrap(), b"x");
    let refusal = antares.mount(&ALL, &made.id, None).await.unwrap_err().to_string();
    assert!(refusal.contains("is mounted; it is there already"), "{refusal}");
}

#[tokio::test]
async fn a_mount_that_fails_leaves_the_workspace_as_it_was() {
    let host = Host::new();
    let antares = host.open().await;
    let made = antares.create(&alice(), host.request("w")).await.unwrap();
    antares.unmount(&ALL, &made.id, false).await.unwrap();
    let before = (antares.get(&ALL, &made.id).unwrap(), std::fs::read(host.record(&made.id)).unwrap());
    let error = antares.mount(&ALL, &made.id, Some("/nonexistent".into())).await.unwrap_err();
    assert_eq!(error.to_string(), "cannot mount at /nonexistent: Missing");
    assert_eq!(antares.get(&ALL, &made.id).unwrap(), before.0);
    drop(antares);
    let antares = host.open().await;
    assert_eq!(antares.get(&ALL, &made.id).unwrap(), before.0);
}

#[tokio::test]
async fn a_workspace_in_use_stays_unless_lazily_unmounted() {
    let host = Host::new();
    let antares = host.open().await;
    let made = antares.create(&alice(), host.request("w")).await.unwrap();
    host.occupy(&made.id);
    let busy = |error: WorkspaceError| matches!(error, WorkspaceError::Unmount(UnmountError::Busy { .. }));
    assert!(busy(antares.unmount(&ALL, &made.id, false).await.unwrap_err()));
    assert!(busy(antares.remove(&ALL, &made.id, true, false).await.unwrap_err()));
    assert!(busy(antares.remove(&ALL, &made.id, false, true).await.unwrap_err()), "changes might be lost");
    assert_eq!((antares.state(&made.id), host.mounted()), (State::Mounted, vec![made.id.clone()]));
    antares.unmount(&ALL, &made.id, true).await.unwrap();
    assert_eq!((antares.state(&made.id), lock(&host.kernel.lazily).len()), (State::Unmounted, 1));
}

#[tokio::test]
async fn changes_go_only_when_a_user_says_so() {
    for mounted in [true, false] {
        let host = Host::new();
        let antares = host.open().await;
        let before = host.tree();
        let made = antares.create(&alice(), host.request("w")).await.unwrap();
        std::fs::write(made.upper.join(".hidden"), "").unwrap();
        if !mounted {
            antares.unmount(&ALL, &made.id, false).await.unwrap();
        }
        let refusal = antares.remove(&ALL, &made.id, false, false).await.unwrap_err().to_string();
        assert_eq!(refusal, format!("workspace {} holds changes", made.id));
        assert_eq!(antares.state(&made.id) == State::Mounted, mounted);
        let mut events = antares.watch();
        antares.remove(&ALL, &made.id, true, false).await.unwrap();
        antares.settle();
        assert_eq!((host.tree(), host.mounted(), host.served()), (before, vec![], 0));
        let last = std::iter::from_fn(|| events.try_recv().ok()).last().unwrap();
        assert_eq!(last, Event { id: made.id.clone(), workspace: None });
        assert!(matches!(antares.get(&ALL, &made.id), Err(WorkspaceError::NoSuchWorkspace(_))));
    }
}

#[tokio::test]
async fn an_untouched_workspace_can_be_removed_without_further_words() {
    let host = Host::split();
    let antares = host.open().await;
    let before = host.tree();
    let made = antares.create(&alice(), host.request("w")).await.unwrap();
    antares.remove(&ALL, &made.id, false, false).await.unwrap();
    antares.settle();
    assert_eq!(host.tree(), before);
}

#[tokio::test]
async fn an_ephemeral_workspace_ends_with_its_mount() {
    let host = Host::new();
    let antares = host.open().await;
    let before = host.tree();
    let made = antares.create(&alice(), host.ephemeral("e")).await.unwrap();
    std::fs::write(made.upper.join("scratch"), "x").unwrap();
    antares.unmount(&ALL, &made.id, false).await.unwrap();
    antares.settle();
    assert_eq!((host.tree(), antares.list(&ALL)), (before.clone(), vec![]));
    let made = antares.create(&alice(), host.ephemeral("e")).await.unwrap();
    std::fs::write(made.upper.join("scratch"), "x").unwrap();
    drop(antares);
    let antares = host.open().await;
    antares.settle();
    assert_eq!((host.tree(), antares.list(&ALL), host.mounted()), (before, vec![], vec![]));
}

#[tokio::test]
async fn roots_go_with_their_last_workspace() {
    let host = Host::new();
    let antares = host.open().await;
    let first = antares.create(&alice(), host.request("a")).await.unwrap();
    let second = antares.create(&alice(), host.request("b")).await.unwrap();
    let path = "sub".parse().unwrap();
    antares.create(&alice(), Create { path, ..host.request("c") }).await.unwrap();
    assert_eq!(host.served(), 2);
    antares.remove(&ALL, &first.id, false, false).await.unwrap();
    assert_eq!(host.served(), 2);
    antares.remove(&ALL, &second.id, false, false).await.unwrap();
    assert_eq!(host.served(), 1);
}

fn with_ttl(request: Create, seconds: u64) -> Create {
    let ttl = Some(Duration::from_secs(seconds));
    Create { options: Options { ttl, ..request.options }, ..request }
}

/// Waits until `id` is told to be as `wanted`; time is paused, so nothing is waited for.
async fn until(antares: &Antares, id: &WorkspaceId, wanted: Option<State>) {
    let mut events = antares.watch();
    while antares.get(&ALL, id).ok().map(|workspace| workspace.state) != wanted {
        events.recv().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn workspaces_end_when_their_time_is_over_and_not_before() {
    let host = Host::new();
    let antares = host.open().await;
    let durable = antares.create(&alice(), with_ttl(host.request("d"), 100)).await.unwrap();
    let ephemeral = antares.create(&alice(), with_ttl(host.ephemeral("e"), 200)).await.unwrap();
    let endless = antares.create(&alice(), host.request("n")).await.unwrap();
    let start = tokio::time::Instant::now();
    until(&antares, &durable.id, Some(State::Unmounted)).await;
    assert_eq!(start.elapsed().as_secs(), 100);
    until(&antares, &ephemeral.id, None).await;
    assert_eq!(start.elapsed().as_secs(), 200);
    assert_eq!(host.mounted(), std::slice::from_ref(&endless.id));
    assert!(durable.upper.exists() && antares.state(&endless.id) == State::Mounted);
}

#[tokio::test(start_paused = true)]
async fn one_in_use_is_waited_for_or_detached_when_its_time_is_over() {
    let host = Host::new();
    let antares = host.open().await;
    let durable = antares.create(&alice(), with_ttl(host.request("d"), 100)).await.unwrap();
    let ephemeral = antares.create(&alice(), with_ttl(host.ephemeral("e"), 100)).await.unwrap();
    host.occupy(&durable.id);
    host.occupy(&ephemeral.id);
    until(&antares, &ephemeral.id, None).await;
    assert_eq!(*lock(&host.kernel.lazily), [ephemeral.id]);
    assert_eq!(antares.state(&durable.id), State::Mounted);
    let start = tokio::time::Instant::now();
    host.vacate(&durable.id);
    until(&antares, &durable.id, Some(State::Unmounted)).await;
    assert_eq!(start.elapsed().as_secs(), 60);
}

#[tokio::test(start_paused = true)]
async fn a_mount_that_somebody_else_ended_is_noticed() {
    let host = Host::new();
    let antares = host.open().await;
    let durable = antares.create(&alice(), host.request("d")).await.unwrap();
    let ephemeral = antares.create(&alice(), host.ephemeral("e")).await.unwrap();
    lock(&host.kernel.mounts).clear();
    until(&antares, &ephemeral.id, None).await;
    until(&antares, &durable.id, Some(State::Unmounted)).await;
    drop(antares);
    let antares = host.open().await;
    assert_eq!(antares.state(&durable.id), State::Mounted, "nobody asked to unmount it");
    lock(&host.kernel.mounts).clear();
    until(&antares, &durable.id, Some(State::Unmounted)).await;
    antares.unmount(&ALL, &durable.id, false).await.unwrap();
    drop(antares);
    assert_eq!(host.open().await.state(&durable.id), State::Unmounted);
}

/// Nobody serves what is mounted any more.
fn end_sessions(host: &Host) {
    lock(&host.kernel.mounts).iter_mut().for_each(|(epoch, _)| *epoch = 0);
}

#[tokio::test(start_paused = true)]
async fn a_mount_whose_session_was_ended_is_made_again_on_what_was_written() {
    let host = Host::new();
    let antares = host.open().await;
    let durable = antares.create(&alice(), host.request("d")).await.unwrap();
    let ephemeral = antares.create(&alice(), host.ephemeral("e")).await.unwrap();
    let unmounted = antares.create(&alice(), host.request("u")).await.unwrap();
    antares.unmount(&ALL, &unmounted.id, false).await.unwrap();
    host.occupy(&durable.id);
    end_sessions(&host);
    for made in [&durable, &ephemeral] {
        std::fs::write(made.upper.join("new"), "written").unwrap();
        let is_new = |now: &Workspace| now.state == State::Mounted && now.mount_id != made.mount_id;
        while !is_new(&antares.get(&ALL, &made.id).unwrap()) {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        assert_eq!(std::fs::read(made.upper.join("new")).unwrap(), b"written");
    }
    let mut both = vec![durable.id.clone(), ephemeral.id.clone()];
    both.sort();
    assert_eq!((host.mounted(), antares.state(&unmounted.id)), (both, State::Unmounted));
    assert_eq!(*lock(&host.kernel.lazily), [durable.id], "whoever is in the dead one stays there");
}

#[tokio::test(start_paused = true)]
async fn a_mount_that_cannot_be_made_again_is_failed_until_it_can() {
    let host = Host::new();
    let antares = host.open().await;
    let made = antares.create(&alice(), host.request("d")).await.unwrap();
    host.fail_mounts(true);
    end_sessions(&host);
    while !matches!(antares.state(&made.id), State::Failed { .. }) {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(host.mounted(), []);
    host.fail_mounts(false);
    until(&antares, &made.id, Some(State::Mounted)).await;
    assert_eq!(host.mounted(), [made.id]);
}

#[tokio::test(start_paused = true)]
async fn a_mount_made_while_mountinfo_is_read_is_not_taken_for_lost() {
    let host = Host::new();
    let antares = host.open().await;
    let (sender, made) = tokio::sync::oneshot::channel();
    let (runtime, making) = (tokio::runtime::Handle::current(), antares.clone());
    let request = host.ephemeral("e");
    *lock(&host.kernel.behind_survey) = Some(Box::new(move || {
        let made = runtime.block_on(making.create(&alice(), request)).unwrap();
        std::fs::write(made.upper.join("work"), "of somebody").unwrap();
        sender.send(made).unwrap();
    }));
    let made = made.await.unwrap();
    // Several rounds later.
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!((antares.state(&made.id), host.mounted()), (State::Mounted, vec![made.id]));
    assert_eq!(std::fs::read(made.upper.join("work")).unwrap(), b"of somebody");
}

#[tokio::test]
async fn a_stop_unmounts_all_and_the_next_start_brings_the_durable_ones_back() {
    let host = Host::new();
    let antares = host.open().await;
    let mut ids = Vec::new();
    for n in 0..20 {
        ids.push(antares.create(&alice(), host.request(&format!("w{n}"))).await.unwrap().id);
    }
    let ephemeral = antares.create(&alice(), host.ephemeral("e")).await.unwrap();
    antares.unmount(&ALL, &ids[0], false).await.unwrap();
    host.occupy(&ids[1]);
    host.occupy(&ephemeral.id);
    antares.shutdown(Leave::Nothing).await;
    assert_eq!(host.mounted(), []);
    assert!(matches!(antares.create(&alice(), host.request("late")).await, Err(WorkspaceError::Stopping)));
    assert!(matches!(antares.unmount(&ALL, &ids[2], true).await, Err(WorkspaceError::Stopping)));
    drop(antares);
    let antares = host.open().await;
    assert_eq!(antares.list(&ALL).len(), 20);
    assert_eq!(antares.state(&ids[0]), State::Unmounted);
    ids[1..].iter().for_each(|id| assert_eq!(antares.state(id), State::Mounted));
    antares.settle();
    assert!(!ephemeral.upper.exists());
}

#[tokio::test(start_paused = true)]
async fn a_stop_takes_creations_back_and_is_bounded() {
    let host = Host::new();
    let antares = host.open().await;
    let before = host.tree();
    let request = host.request("stuck");
    lock(&host.kernel.stuck).insert(request.mount_point.clone());
    let mut events = antares.watch();
    let creating = tokio::spawn({
        let antares = antares.clone();
        async move { antares.create(&alice(), request).await }
    });
    events.recv().await.unwrap();
    antares.shutdown(Leave::Nothing).await;
    assert!(matches!(creating.await.unwrap(), Err(WorkspaceError::Stopping)));
    assert_eq!(host.tree(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn calls_on_one_workspace_never_overlap() {
    let host = Host::new();
    let antares = host.open().await;
    let id = antares.create(&alice(), host.request("w")).await.unwrap().id;
    let mut calls = tokio::task::JoinSet::new();
    for n in 0..40 {
        let (antares, id) = (antares.clone(), id.clone());
        calls.spawn(async move {
            match n % 2 {
                0 => drop(antares.unmount(&ALL, &id, false).await),
                _ => drop(antares.mount(&ALL, &id, None).await),
            }
        });
    }
    calls.join_all().await;
    let mounted = antares.state(&id) == State::Mounted;
    assert_eq!(host.mounted().len(), usize::from(mounted));
    let mut removals = tokio::task::JoinSet::new();
    for _ in 0..10 {
        let (antares, id) = (antares.clone(), id.clone());
        removals.spawn(async move { antares.remove(&ALL, &id, true, true).await.is_ok() });
    }
    assert_eq!(removals.join_all().await.into_iter().filter(|done| *done).count(), 1);
    assert_eq!((host.mounted(), antares.list(&ALL)), (vec![], vec![]));
}
