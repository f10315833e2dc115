//! The daemon dies at every step of everything; the next one finds the same disk and the same kernel.

use std::sync::mpsc;

use super::*;
use crate::antares::state::Step;

/// Runs `before` to its end, then `act` until its `n`th moment, and dies there. `None` when it ended before.
fn die_at<T, F, G>(
    host: &Host,
    n: usize,
    before: impl FnOnce(Antares, Identity) -> F,
    act: impl FnOnce(Antares, T) -> G,
) -> (T, Option<Moment>)
where
    T: Clone + Send + 'static,
    F: Future<Output = T>,
    G: Future<Output = ()> + Send + 'static,
{
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let armed = Arc::new(AtomicBool::new(false));
    let (reached, waiting) = mpsc::channel();
    let ended = reached.clone();
    let (trigger, count) = (Arc::clone(&armed), Arc::new(AtomicU64::new(0)));
    let hook = Hook(Some(Arc::new(move |moment| {
        let dies = trigger.load(Ordering::SeqCst) && count.fetch_add(1, Ordering::SeqCst) == n as u64;
        let reached = reached.clone();
        Box::pin(async move {
            if dies {
                reached.send(Some(moment)).unwrap();
                std::future::pending::<()>().await;
            }
        })
    })));
    let antares = runtime.block_on(host.open_with(hook));
    let prepared = runtime.block_on(before(antares.clone(), alice()));
    armed.store(true, Ordering::SeqCst);
    let acting = act(antares, prepared.clone());
    runtime.spawn(async move {
        acting.await;
        let _ = ended.send(None);
    });
    let moment = waiting.recv().unwrap();
    // Tasks are dropped where they stand, as by SIGKILL; nothing of ours does its work in a destructor.
    drop(runtime);
    (prepared, moment)
}

fn again(host: &Host) -> (tokio::runtime::Runtime, Antares) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let antares = runtime.block_on(host.open());
    antares.settle();
    (runtime, antares)
}

fn hosts() -> impl Iterator<Item = fn() -> Host> {
    [Host::new as fn() -> Host, Host::split].into_iter()
}

#[test]
fn a_creation_cut_short_vanishes_and_one_that_was_recorded_comes_back() {
    for (host, n) in hosts().flat_map(|host| (0..).map(move |n| (host, n)).take_while(|(_, n)| *n <= 10)) {
        let host = host();
        let _ = again(&host);
        let before = host.tree();
        let request = host.request("w");
        let ((), died) = die_at(
            &host,
            n,
            |_, _| async {},
            move |antares, ()| async move {
                antares.create(&alice(), request).await.unwrap();
            },
        );
        let (_runtime, antares) = again(&host);
        let recorded = n >= 9;
        if recorded {
            let found = antares.list(&ALL);
            assert_eq!(found.len(), 1, "{died:?}");
            assert_eq!(found[0].state, State::Mounted, "{died:?}");
            assert_eq!(host.mounted(), [found[0].id.clone()], "{died:?}");
        } else {
            assert_eq!(host.tree(), before, "{died:?}");
            assert!(host.mounted().is_empty() && antares.list(&ALL).is_empty(), "{died:?}");
            assert_eq!(host.served(), 0, "{died:?}");
        }
        assert_eq!(died.is_none(), n == 10, "five steps have ten moments");
        assert_eq!(antares.orphans().unwrap(), [], "{died:?}");
    }
}

/// A workspace with a file in its upper.
async fn with_changes(antares: Antares, owner: Identity, request: Create) -> Workspace {
    let made = antares.create(&owner, request).await.unwrap();
    std::fs::write(made.upper.join("precious"), "every byte").unwrap();
    made
}

#[test]
fn an_unmount_cut_short_keeps_every_byte() {
    for (host, n) in hosts().flat_map(|host| (0..).map(move |n| (host, n)).take_while(|(_, n)| *n <= 4)) {
        let host = host();
        let request = host.request("w");
        let (made, died) = die_at(
            &host,
            n,
            |antares, owner| with_changes(antares, owner, request),
            |antares, made| async move { antares.unmount(&ALL, &made.id, false).await.unwrap() },
        );
        assert_eq!(died.is_none(), n == 4);
        let (_runtime, antares) = again(&host);
        let expected = if n >= 3 { State::Unmounted } else { State::Mounted };
        assert_eq!(antares.state(&made.id), expected, "{died:?}");
        assert_eq!(std::fs::read(made.upper.join("precious")).unwrap(), b"every byte", "{died:?}");
        assert_eq!(host.mounted().len(), usize::from(n < 3), "{died:?}");
    }
}

#[test]
fn a_removal_cut_short_is_whole_or_not_at_all() {
    for (host, n) in hosts().flat_map(|host| (0..).map(move |n| (host, n)).take_while(|(_, n)| *n <= 4)) {
        let host = host();
        let _ = again(&host);
        let before = host.tree();
        let request = host.request("w");
        let (made, died) = die_at(
            &host,
            n,
            |antares, owner| with_changes(antares, owner, request),
            |antares, made| async move { antares.remove(&ALL, &made.id, true, false).await.unwrap() },
        );
        assert_eq!(died.is_none(), n == 4);
        let (_runtime, antares) = again(&host);
        if n < 3 {
            assert_eq!(antares.state(&made.id), State::Mounted, "{died:?}");
            assert_eq!(std::fs::read(made.upper.join("precious")).unwrap(), b"every byte", "{died:?}");
        } else {
            assert_eq!((host.tree(), host.mounted()), (before, vec![]), "{died:?}");
        }
        assert_eq!(antares.orphans().unwrap(), [], "{died:?}");
    }
}

#[test]
fn a_mount_cut_short_is_finished() {
    for n in 0..=8 {
        let host = Host::new();
        let (request, elsewhere) = (host.request("w"), host.point("elsewhere"));
        let (made, died) = die_at(
            &host,
            n,
            |antares, owner| async move {
                let made = with_changes(antares.clone(), owner, request).await;
                antares.unmount(&ALL, &made.id, false).await.unwrap();
                made
            },
            |antares, made| async move {
                antares.mount(&ALL, &made.id, Some(elsewhere)).await.unwrap();
            },
        );
        assert_eq!(died.is_none(), n == 8);
        let (_runtime, antares) = again(&host);
        let expected = if n >= 1 { State::Mounted } else { State::Unmounted };
        assert_eq!(antares.state(&made.id), expected, "{died:?}");
        assert_eq!(std::fs::read(made.upper.join("precious")).unwrap(), b"every byte", "{died:?}");
        assert_eq!(host.mounted().len(), usize::from(n >= 1), "{died:?}");
    }
}

#[test]
fn a_gift_cut_short_is_the_former_owners_or_the_recipients_and_whole() {
    use super::giving::{bob, gift};
    for (host, n) in hosts().flat_map(|host| (0..).map(move |n| (host, n)).take_while(|(_, n)| *n <= 6)) {
        let host = host();
        let request = host.request("w");
        let (made, died) = die_at(
            &host,
            n,
            |antares, owner| with_changes(antares, owner, request),
            |antares, made| async move {
                antares.give(&ALL, &made.id, gift(bob())).await.unwrap();
            },
        );
        assert_eq!(died.is_none(), n == 6, "three steps have six moments");
        let (_runtime, antares) = again(&host);
        let found = antares.get(&ALL, &made.id).unwrap();
        if n < 5 {
            // As if nobody had tried: it was mounted, and is again.
            assert_eq!((found.owner, found.state), (alice(), State::Mounted), "{died:?}");
            assert_eq!(host.mounted(), std::slice::from_ref(&made.id), "{died:?}");
        } else {
            assert_eq!((found.owner, found.state), (bob(), State::Unmounted), "{died:?}");
            assert_eq!(antares.list(&Scope::User(ALICE)), [], "{died:?}");
            assert!(host.mounted().is_empty(), "{died:?}");
        }
        assert_eq!(found.stored, made.stored, "{died:?}");
        assert_eq!(std::fs::read(made.upper.join("precious")).unwrap(), b"every byte", "{died:?}");
        assert_eq!(antares.orphans().unwrap(), [], "{died:?}");
    }
}

#[test]
fn what_was_written_into_a_creation_nobody_heard_of_is_kept() {
    let host = Host::new();
    let request = host.request("w");
    // Dies with the mount standing and the record not yet saying so.
    let ((), died) = die_at(
        &host,
        8,
        |_, _| async {},
        move |antares, ()| async move {
            antares.create(&alice(), request).await.unwrap();
        },
    );
    assert_eq!(died, Some(Moment::Before(Step::Record)));
    let upper = lock(&host.kernel.specs)[0].workspace.clone();
    let upper = host.uppers().join(upper.as_str()).join("upper");
    std::fs::write(upper.join("precious"), "every byte").unwrap();
    for _ in 0..2 {
        let (_runtime, antares) = again(&host);
        let orphans = antares.orphans().unwrap();
        assert_eq!(orphans.len(), 1);
        assert_eq!(orphans[0].reason, "it was never finished, but something was written into it");
        assert_eq!((orphans[0].uid, &orphans[0].path), (ALICE, &upper));
        assert_eq!((host.mounted(), antares.list(&ALL)), (vec![], vec![]));
    }
    assert_eq!(std::fs::read(upper.join("precious")).unwrap(), b"every byte");
}

#[test]
fn a_removal_cut_between_its_two_renames_is_finished() {
    let host = Host::split();
    let request = host.request("w");
    let (made, _) = die_at(&host, 0, |antares, owner| with_changes(antares, owner, request), |_, _| async {});
    let id = made.id.as_str();
    std::fs::rename(host.records().join(id), host.records().join(format!(".trash-{id}-0"))).unwrap();
    let (_runtime, antares) = again(&host);
    assert!(!made.upper.exists() && antares.list(&ALL).is_empty() && antares.orphans().unwrap().is_empty());
    assert!(host.mounted().is_empty());
    assert_eq!(host.tree().len(), 3, "{:?}", host.tree());
}
