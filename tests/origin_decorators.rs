//! [`Limited`] and [`Faulty`] around a real repository.
#![allow(missing_docs, clippy::unwrap_used)]

mod origin_fixture;

use std::{sync::Arc, time::Duration};

use futures_util::FutureExt as _;
use origin_fixture::{git, git_with_input, myself, name, oid, want};
use scorpio::{
    origin::{
        FetchError, Limits, Origin, ResolveError,
        faults::{Asked, Fault, Faults, Faulty},
        git::GitOrigin,
        limits::Limited,
    },
    types::{Oid, RepoPath},
};

struct Fixture {
    _dir: tempfile::TempDir,
    origin: Arc<dyn Origin>,
    faults: Faults,
    blob: Oid,
    tree: Oid,
}

const AFTER: Duration = Duration::from_secs(2);

fn fixture(requests: usize) -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    git(dir.path(), &["init", "-q", "-b", "main"]);
    git_with_input(
        dir.path(),
        &["fast-import", "--quiet"],
        b"commit refs/heads/main\ncommitter C <c@e> 0 +0000\ndata 0\nM 644 inline f\ndata 4\nabcd\n",
    );
    let (blob, tree) = (oid(dir.path(), "main:f"), oid(dir.path(), "main^{tree}"));
    let origin = GitOrigin::open(name("repo"), dir.path(), myself()).unwrap();
    let (origin, faults) = Faulty::new(origin);
    let origin = Arc::new(Limited::new(origin, Limits { deadline: AFTER, requests }));
    Fixture { _dir: dir, origin, faults, blob, tree }
}

#[tokio::test]
async fn each_fault_is_what_it_says_and_passes_when_lifted() {
    let f = fixture(4);
    let (blob, tree, empty) = ([want(f.blob)], [want(f.tree)], [want(Oid::EMPTY_TREE)]);
    let good_tree = f.origin.trees(&tree).await[0].clone().unwrap().body;
    assert_eq!(f.origin.blobs(&blob).await[0].as_ref().unwrap(), "abcd");

    f.faults.set(Fault::Refusing);
    assert!(matches!(f.origin.blobs(&blob).await[0], Err(FetchError::Unreachable { .. })));
    assert!(matches!(f.origin.sizes(&blob).await[0], Err(FetchError::Unreachable { .. })));
    let unresolved = f.origin.resolve(None, &RepoPath::root()).await;
    assert!(matches!(unresolved, Err(ResolveError::Fetch(FetchError::Unreachable { .. }))));

    f.faults.set(Fault::Truncating);
    assert_eq!(f.origin.blobs(&blob).await[0].as_ref().unwrap(), "ab");
    assert_eq!(f.origin.trees(&tree).await[0].as_ref().unwrap().body, &good_tree[..good_tree.len() / 2]);
    assert!(matches!(f.origin.sizes(&blob).await[0], Err(FetchError::Unreachable { .. })));

    f.faults.set(Fault::WrongBytes);
    assert_eq!(f.origin.blobs(&blob).await[0].as_ref().unwrap(), "`bcd");
    assert_eq!(f.origin.sizes(&blob).await, [Ok(5.into())]);
    assert_eq!(f.origin.trees(&empty).await[0].as_ref().unwrap().body, "\0");

    f.faults.set(Fault::Absent);
    let absent = FetchError::Absent { origin: name("repo"), oid: f.blob };
    assert_eq!(f.origin.blobs(&blob).await, [Err(absent.clone())]);
    assert_eq!(f.origin.sizes(&blob).await, [Err(absent)]);
    let unresolved = f.origin.resolve(Some("main"), &RepoPath::root()).await;
    assert!(matches!(unresolved, Err(ResolveError::NoSuchRevision { rev, .. }) if rev == "main"));

    f.faults.set(Fault::None);
    assert_eq!(f.origin.blobs(&blob).await[0].as_ref().unwrap(), "abcd");
    assert_eq!(f.origin.sizes(&blob).await, [Ok(4.into())]);
    assert_eq!(f.origin.trees(&tree).await[0].as_ref().unwrap().body, good_tree);
}

#[tokio::test]
async fn what_is_asked_is_counted_exactly() {
    let f = fixture(4);
    f.origin.trees(&[want(f.tree)]).await;
    f.faults.set(Fault::Refusing);
    f.origin.blobs(&[want(f.blob), want(f.blob), want(f.tree)]).await;
    f.origin.sizes(&[want(f.blob), want(f.blob)]).await;
    let _ = f.origin.resolve(None, &RepoPath::root()).await;
    assert_eq!(f.faults.asked(), Asked { resolves: 1, trees: 1, blobs: 3, sizes: 2, batches: 3 });
    assert_eq!((f.faults.asked_for(f.blob), f.faults.asked_for(f.tree), f.faults.most_asked()), (2, 2, 2));
    f.faults.reset();
    assert_eq!((f.faults.asked(), f.faults.most_asked()), (Asked::default(), 0));
}

#[tokio::test]
async fn every_request_ends_at_its_deadline_the_wait_for_a_turn_included() {
    let f = fixture(2);
    f.faults.set(Fault::BlackHole);
    let late = FetchError::TimedOut { origin: name("repo"), after: AFTER };
    let (two, top) = ([want(f.blob), want(f.tree)], RepoPath::root());
    let started = tokio::time::Instant::now();
    // Two take both turns; the others wait for one.
    let mut blobs = f.origin.blobs(&two);
    let mut trees = f.origin.trees(&two);
    let mut sizes = f.origin.sizes(&two);
    assert!(blobs.as_mut().now_or_never().is_none());
    assert!(trees.as_mut().now_or_never().is_none());
    assert!(sizes.as_mut().now_or_never().is_none());
    assert_eq!(f.faults.asked(), Asked { blobs: 2, trees: 2, batches: 2, ..Asked::default() });
    let (blobs, trees, sizes, resolved) = tokio::join!(blobs, trees, sizes, f.origin.resolve(None, &top));
    // Had the wait for a turn not counted, it would be twice as long.
    assert!((AFTER..AFTER * 2).contains(&started.elapsed()));
    assert_eq!(blobs, [Err(late.clone()), Err(late.clone())]);
    assert_eq!(trees, [Err(late.clone()), Err(late.clone())]);
    assert_eq!(sizes, [Err(late.clone()), Err(late.clone())]);
    assert!(matches!(resolved, Err(ResolveError::Fetch(error)) if error == late));
}

#[tokio::test]
async fn turns_are_given_back_by_requests_that_ran_out_of_time() {
    let f = fixture(1);
    f.faults.set(Fault::BlackHole);
    let asked = [want(f.blob)];
    assert!(tokio::time::timeout(Duration::from_millis(1), f.origin.blobs(&asked)).await.is_err());
    f.faults.set(Fault::Slow(Duration::from_millis(1)));
    assert_eq!(f.origin.blobs(&asked).await[0].as_ref().unwrap(), "abcd");
}
