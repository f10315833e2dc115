//! Creating: what is there afterwards, limits, and that nothing stays of what failed.

use tokio::sync::{mpsc, watch};

use super::*;
use crate::antares::state::Step;

#[tokio::test]
async fn a_new_workspace_is_mounted_recorded_and_the_users_own() {
    for host in [Host::new(), Host::split()] {
        let antares = host.open().await;
        let mut events = antares.watch();
        let made = antares.create(&alice(), host.request("w")).await.unwrap();
        assert_eq!(made.state, State::Mounted);
        assert_eq!(host.mounted(), std::slice::from_ref(&made.id));
        assert_eq!(antares.get(&Scope::User(ALICE), &made.id).unwrap(), made);
        assert_eq!(antares.list(&ALL), std::slice::from_ref(&made));
        let stat = made.upper.metadata().unwrap();
        assert_eq!((stat.uid(), stat.gid(), stat.mode() & 0o7777), (ALICE, 100, 0o700));
        let parent = made.upper.parent().unwrap().metadata().unwrap();
        assert_eq!((parent.uid(), parent.mode() & 0o7777), (0, 0o700));
        let states: Vec<_> = std::iter::from_fn(|| events.try_recv().ok())
            .map(|event| event.workspace.map(|it| it.state))
            .collect();
        assert_eq!(states, [Some(State::Mounting), Some(State::Mounted)]);
        let spec = lock(&host.kernel.specs)[0].clone();
        let Upper::Writable { upper, work, volatile } = spec.upper else { panic!("read-only") };
        assert_eq!((upper, volatile), (made.upper.clone(), false));
        assert_eq!(work, made.upper.with_file_name("work-0"));
        assert_eq!(spec.point.expect, None);
    }
}

#[tokio::test]
async fn options_reach_the_disk_and_the_engine() {
    let host = Host::new();
    let antares = host.open().await;
    let options = Options { mode: Some(0o755), read_only: true, ..Options::default() };
    antares.create(&alice(), Create { options, ..host.request("ro") }).await.unwrap();
    let Upper::ReadOnly { empty } = lock(&host.kernel.specs)[0].upper.clone() else { panic!("writable") };
    let stat = empty.metadata().unwrap();
    assert_eq!((stat.uid(), stat.gid(), stat.mode() & 0o7777), (ALICE, 100, 0o755));
    antares.create(&alice(), host.ephemeral("e")).await.unwrap();
    assert!(matches!(lock(&host.kernel.specs)[1].upper, Upper::Writable { volatile: true, .. }));
}

#[tokio::test]
async fn other_users_workspaces_do_not_exist() {
    let host = Host::new();
    let antares = host.open().await;
    let id = antares.create(&alice(), host.request("w")).await.unwrap().id;
    let bob = Scope::User(1001);
    let nothing = format!("there is no workspace {id}");
    assert_eq!(antares.get(&bob, &id).unwrap_err().to_string(), nothing);
    assert_eq!(antares.unmount(&bob, &id, true).await.unwrap_err().to_string(), nothing);
    assert_eq!(antares.remove(&bob, &id, true, true).await.unwrap_err().to_string(), nothing);
    assert_eq!(antares.mount(&bob, &id, None).await.unwrap_err().to_string(), nothing);
    assert_eq!(antares.list(&bob), []);
    assert_eq!(antares.state(&id), State::Mounted);
}

#[tokio::test]
async fn requests_that_lead_nowhere_are_refused_by_name() {
    let host = Host::new();
    let antares = host.open().await;
    let before = host.tree();
    let refused = async |change: fn(&mut Create)| {
        let mut request = host.request("w");
        change(&mut request);
        antares.create(&alice(), request).await.unwrap_err().to_string()
    };
    let no_origin = refused(|request| request.origin = "nowhere".parse().unwrap()).await;
    assert_eq!(no_origin, "there is no origin `nowhere` that you may mount");
    let no_rev = refused(|request| request.rev = Some("missing".into())).await;
    assert_eq!(no_rev, "origin `origin` has no revision `missing`");
    let no_dir = refused(|request| request.mount_point = "/nonexistent/w".into()).await;
    assert_eq!(no_dir, "cannot mount at /nonexistent/w: Missing");
    let mode = refused(|request| request.options.mode = Some(0o077)).await;
    assert_eq!(mode, "mode 0077 would lock the owner out of the workspace");
    assert_eq!(host.tree(), before);
    assert_eq!((antares.list(&ALL).len(), host.served()), (0, 0));
}

/// Makes one step of a creation fail.
type Sabotage = fn(&Host);

fn only_workspace(root: &Path) -> PathBuf {
    root.read_dir().unwrap().next().unwrap().unwrap().path()
}

/// A directory in the place of the temporary file: records cannot be written.
fn block_record(host: &Host) {
    std::fs::create_dir(only_workspace(&host.records()).join(".record.tmp")).unwrap();
}

#[tokio::test]
async fn a_failure_at_any_step_leaves_nothing() {
    let steps: [(&str, Moment, Sabotage); 5] = [
        ("claim", Moment::Before(Step::Claim), |host| std::fs::remove_dir(host.uppers()).unwrap()),
        ("intent", Moment::After(Step::Claim), block_record),
        ("prepare", Moment::Before(Step::Prepare), |host| {
            std::fs::write(only_workspace(&host.uppers()).join("upper"), "in the way").unwrap();
        }),
        ("mount", Moment::Before(Step::Mount), |host| host.fail_mounts(true)),
        ("record", Moment::After(Step::Mount), block_record),
    ];
    for (name, when, sabotage) in steps {
        for split in [false, true] {
            let host = Arc::new(Host { split, ..Host::new() });
            let saboteur = Arc::clone(&host);
            let act = move |moment| {
                if moment == when {
                    sabotage(&saboteur);
                }
            };
            let antares = host.open_with(hook(act)).await;
            if name == "claim" && !split {
                continue;
            }
            let before = host.tree();
            let error = antares.create(&alice(), host.request("w")).await.unwrap_err();
            if name == "claim" {
                std::fs::create_dir(host.uppers()).unwrap();
                std::fs::set_permissions(host.uppers(), std::fs::Permissions::from_mode(0o700)).unwrap();
            }
            assert_eq!(host.tree(), before, "{name}: {error}");
            assert_eq!(host.mounted(), [], "{name}");
            assert_eq!(host.served(), 0, "{name}");
            assert!(antares.list(&ALL).is_empty() && antares.inner.table.all().is_empty(), "{name}");
        }
    }
}

#[tokio::test]
async fn a_root_that_cannot_be_served_leaves_nothing() {
    let host = Host::new();
    let antares = host.open().await;
    let before = host.tree();
    host.roots.refuse_roots.store(true, Ordering::SeqCst);
    let error = antares.create(&alice(), host.request("w")).await.unwrap_err();
    assert_eq!(error.to_string(), "the tree cannot be served: refused");
    assert_eq!(host.tree(), before);
    assert!(antares.inner.table.all().is_empty());
}

/// A hook that stops at the `n`th moment until it is let go.
fn gate(n: usize) -> (Hook, mpsc::UnboundedReceiver<Moment>, watch::Sender<bool>) {
    let (reached, gate) = mpsc::unbounded_channel();
    let (open, opened) = watch::channel(false);
    let count = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let hook = Hook(Some(Arc::new(move |moment| {
        let (reached, mut opened) = (reached.clone(), opened.clone());
        let stop = count.fetch_add(1, Ordering::SeqCst) == n;
        Box::pin(async move {
            if stop {
                reached.send(moment).unwrap();
                opened.wait_for(|open| *open).await.unwrap();
            }
        })
    })));
    (hook, gate, open)
}

#[tokio::test]
async fn a_caller_that_goes_away_at_any_moment_leaves_nothing() {
    for n in 0.. {
        let host = Host::new();
        let (hook, mut reached, open) = gate(n);
        let antares = host.open_with(hook).await;
        let before = host.tree();
        let owner = alice();
        let mut creation = Box::pin(antares.create(&owner, host.request("w")));
        let moment = tokio::select! {
            made = &mut creation => {
                made.unwrap();
                assert_eq!(n, 10, "five steps have ten moments");
                return;
            }
            moment = reached.recv() => moment.unwrap(),
        };
        let entry = antares.inner.table.all().pop().unwrap();
        drop(creation);
        open.send(true).unwrap();
        // The driver holds the core until it is done.
        assert!(entry.core.lock().await.is_none(), "{moment:?}");
        antares.settle();
        assert_eq!(host.tree(), before, "{moment:?}");
        assert!(host.mounted().is_empty() && host.served() == 0, "{moment:?}");
        assert!(antares.inner.table.all().is_empty(), "{moment:?}");
    }
}

#[tokio::test]
async fn a_caller_that_goes_away_while_the_kernel_mounts_leaves_nothing() {
    let host = Host::new();
    let antares = host.open().await;
    let before = host.tree();
    let request = host.request("w");
    lock(&host.kernel.stuck).insert(request.mount_point.clone());
    let mut events = antares.watch();
    let owner = alice();
    let mut creation = Box::pin(antares.create(&owner, request));
    tokio::select! {
        _ = &mut creation => panic!("it is stuck"),
        event = events.recv() => assert_eq!(event.unwrap().workspace.unwrap().state, State::Mounting),
    }
    let entry = antares.inner.table.all().pop().unwrap();
    drop(creation);
    assert!(entry.core.lock().await.is_none());
    assert_eq!((host.tree(), host.served()), (before, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fifty_at_once_never_exceed_a_limit_of_ten() {
    let host = Host { limits: Limits { workspaces_per_user: 10, ..Host::new().limits }, ..Host::new() };
    let antares = host.open().await;
    let mut creations = tokio::task::JoinSet::new();
    for n in 0..50 {
        let (antares, request) = (antares.clone(), host.request(&format!("w{n}")));
        creations.spawn(async move { antares.create(&alice(), request).await });
    }
    let (made, refused): (Vec<_>, Vec<_>) = creations.join_all().await.into_iter().partition(Result::is_ok);
    assert_eq!((made.len(), refused.len()), (10, 40));
    for refusal in refused {
        let text = refusal.unwrap_err().to_string();
        assert_eq!(text, "user 1000 has 10 workspaces, and no more than 10 are allowed");
    }
    assert_eq!((antares.list(&ALL).len(), host.mounted().len()), (10, 10));
    let bob = Identity { uid: 1001, ..alice() };
    antares.create(&bob, host.request("bob")).await.unwrap();
    let id = made[0].as_ref().unwrap().id.clone();
    antares.unmount(&ALL, &id, false).await.unwrap();
    assert!(antares.create(&alice(), host.request("more")).await.is_err(), "an unmounted one counts");
    antares.remove(&ALL, &id, false, false).await.unwrap();
    antares.create(&alice(), host.request("more")).await.unwrap();
}

#[tokio::test]
async fn the_host_has_its_own_limit_and_failures_give_their_places_back() {
    let host = Host { limits: Limits { workspaces_per_host: 2, ..Host::new().limits }, ..Host::new() };
    let antares = host.open().await;
    host.fail_mounts(true);
    for _ in 0..3 {
        assert!(antares.create(&alice(), host.request("w")).await.is_err());
    }
    host.fail_mounts(false);
    antares.create(&alice(), host.request("a")).await.unwrap();
    antares.create(&Identity { uid: 7, ..alice() }, host.request("b")).await.unwrap();
    let refusal = antares.create(&Identity { uid: 8, ..alice() }, host.request("c")).await.unwrap_err();
    assert_eq!(refusal.to_string(), "this host has 2 workspaces, and no more than 2 are allowed");
}
