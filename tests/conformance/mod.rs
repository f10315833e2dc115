//! What every origin promises: [`conforms`].
//!
//! Wants carry the place where their object was met, as the store's do: an origin that asks by path needs it.
#![allow(dead_code, missing_docs, unreachable_pub, clippy::unwrap_used)] // each test binary uses a part

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use scorpio::{
    origin::{FetchError, Hint, Origin, ResolveError, Want},
    types::{Oid, RepoPath},
};

use super::origin_fixture::{MANY, Objects, git_with_input, oid};

/// An object that is nowhere.
pub const ABSENT: Oid = Oid::from_bytes([0xab; 20]);

/// An origin of the reference repository, the repository itself as git can be asked about it, and the objects that the
/// origin must have.
pub struct Case {
    pub origin: Arc<dyn Origin>,
    pub repository: PathBuf,
    pub objects: Objects,
    places: BTreeMap<Oid, RepoPath>,
    head: Oid,
}

impl Case {
    /// An origin that has every object of the repository.
    pub fn of_all(origin: Arc<dyn Origin>, repository: &Path) -> Case {
        let (objects, head) = (Objects::of(repository), oid(repository, "HEAD"));
        Case { origin, repository: repository.to_owned(), objects, places: places(repository), head }
    }

    /// An origin that has every blob, and the trees of the head alone.
    pub fn of_head(origin: Arc<dyn Origin>, repository: &Path) -> Case {
        let mut case = Case::of_all(origin, repository);
        let places = &case.places;
        case.objects.trees.retain(|tree, _| places.contains_key(tree));
        case
    }

    /// The same objects from another origin.
    pub fn with(self, origin: Arc<dyn Origin>) -> Case {
        Case { origin, ..self }
    }

    /// A want with the object's place at the head; one that has none is said to lie where nothing is.
    pub fn want(&self, oid: Oid) -> Want {
        let nowhere = || "no/such/place".parse().unwrap();
        let path = self.places.get(&oid).cloned().unwrap_or_else(nowhere);
        Want { oid, hint: Hint { commit: self.head, path } }
    }

    pub fn wants<'oid>(&self, oids: impl IntoIterator<Item = &'oid Oid>) -> Vec<Want> {
        oids.into_iter().map(|oid| self.want(*oid)).collect()
    }
}

/// A path at the head for each of its trees and blobs.
fn places(repository: &Path) -> BTreeMap<Oid, RepoPath> {
    let listing = git_with_input(repository, &["ls-tree", "-r", "-t", "-z", "HEAD"], b"");
    let mut places = BTreeMap::from([(oid(repository, "HEAD^{tree}"), RepoPath::root())]);
    for line in listing.split(|byte| *byte == 0).filter(|line| !line.is_empty()) {
        let tab = line.iter().position(|byte| *byte == b'\t').unwrap();
        let object = std::str::from_utf8(&line[..tab]).unwrap().split(' ').nth(2).unwrap();
        places.insert(object.parse().unwrap(), RepoPath::parse(&line[tab + 1..]).unwrap());
    }
    places
}

pub async fn conforms(case: &Case) {
    objects_are_gits_in_the_order_asked(case).await;
    one_bad_want_spoils_no_other(case).await;
    doubled_wants_are_answered_each(case).await;
    askers_at_once_get_their_own(case).await;
    the_head_leads_where_git_says(case).await;
    paths_that_lead_nowhere_are_told_apart(case).await;
}

async fn objects_are_gits_in_the_order_asked(case: &Case) {
    let trees: Vec<Oid> = case.objects.trees.keys().rev().copied().collect();
    for (oid, tree) in trees.iter().zip(case.origin.trees(&case.wants(&trees)).await) {
        assert!(tree.as_ref().is_ok_and(|tree| tree.body == case.objects.trees[oid]), "tree {oid}: {tree:?}");
    }
    let blobs: Vec<Oid> = case.objects.blobs.keys().rev().copied().collect();
    assert!(blobs.len() > MANY);
    let read = case.origin.blobs(&case.wants(&blobs)).await;
    let sizes = case.origin.sizes(&case.wants(&blobs)).await;
    assert_eq!((read.len(), sizes.len()), (blobs.len(), blobs.len()));
    for ((oid, blob), size) in blobs.iter().zip(read).zip(sizes) {
        let body = &case.objects.blobs[oid];
        assert!(blob.is_ok_and(|blob| blob == body), "blob {oid}");
        assert_eq!(size.map(|size| size.bytes), Ok(body.len() as u64), "size of {oid}");
    }
    assert!(case.origin.trees(&[]).await.is_empty());
    assert_eq!(case.origin.trees(&[case.want(Oid::EMPTY_TREE)]).await, [Ok(bytes::Bytes::new().into())]);
}

async fn one_bad_want_spoils_no_other(case: &Case) {
    let (tree, body) = case.objects.trees.last_key_value().unwrap();
    let (blob, content) = case.objects.blobs.last_key_value().unwrap();
    let commit = case.objects.commits.keys().next().unwrap();
    let asked = case.wants([blob, &ABSENT, tree, commit]);
    let blobs = case.origin.blobs(&asked).await;
    assert!(blobs[0].as_ref().is_ok_and(|blob| blob == content));
    assert_eq!(blobs[1], Err(FetchError::Absent { origin: case.origin.name().clone(), oid: ABSENT }));
    assert_eq!([2, 3].map(|bad: usize| named(blobs[bad].as_ref().err())), [Some(*tree), Some(*commit)]);
    let trees = case.origin.trees(&asked).await;
    assert!(trees[2].as_ref().is_ok_and(|tree| tree.body == body));
    let bad = [0, 1, 3].map(|bad: usize| named(trees[bad].as_ref().err()));
    assert_eq!(bad, [Some(*blob), Some(ABSENT), Some(*commit)]);
    let sizes = case.origin.sizes(&asked).await;
    assert_eq!(sizes[0].as_ref().map(|size| size.bytes), Ok(content.len() as u64));
    let bad = [1, 2, 3].map(|bad: usize| named(sizes[bad].as_ref().err()));
    assert_eq!(bad, [Some(ABSENT), Some(*tree), Some(*commit)]);
}

/// The object that an answer says is not there, or not what was asked for.
fn named(error: Option<&FetchError>) -> Option<Oid> {
    match error? {
        FetchError::Absent { oid, .. } | FetchError::Mismatch { oid, .. } | FetchError::Moved { oid, .. } => {
            Some(*oid)
        }
        _ => None,
    }
}

async fn doubled_wants_are_answered_each(case: &Case) {
    let (blob, content) = case.objects.blobs.first_key_value().unwrap();
    let asked = vec![case.want(*blob); 100];
    let read = case.origin.blobs(&asked).await;
    assert!(read.len() == 100 && read.iter().all(|blob| blob.as_ref().is_ok_and(|blob| blob == content)));
    let sizes = case.origin.sizes(&asked).await;
    assert!(
        sizes.len() == 100
            && sizes.iter().all(|size| size.as_ref().is_ok_and(|size| size.bytes == content.len() as u64))
    );
}

async fn askers_at_once_get_their_own(case: &Case) {
    let blobs: Vec<Oid> = case.objects.blobs.keys().copied().collect();
    let gate = Arc::new(tokio::sync::Barrier::new(20));
    let askers = (0..20).map(|number| {
        let (origin, gate) = (case.origin.clone(), gate.clone());
        let asked: Vec<Oid> = blobs.iter().copied().skip(number).step_by(20).collect();
        let wants = case.wants(&asked);
        tokio::spawn(async move {
            gate.wait().await;
            let answers = origin.blobs(&wants).await;
            asked.into_iter().zip(answers).collect::<Vec<_>>()
        })
    });
    for asker in askers.collect::<Vec<_>>() {
        for (oid, blob) in asker.await.unwrap() {
            assert!(blob.is_ok_and(|blob| blob == case.objects.blobs[&oid]), "blob {oid}");
        }
    }
}

async fn the_head_leads_where_git_says(case: &Case) {
    let deep: Vec<String> = (0..60).map(|level| format!("level{level}")).collect();
    for path in ["", "src", "src/deep", "many", "void", &deep.join("/")] {
        let tree = oid(&case.repository, &format!("HEAD:{path}"));
        let path: RepoPath = path.parse().unwrap();
        let snapshot = case.origin.resolve(None, &path).await.unwrap();
        assert_eq!((snapshot.commit, &snapshot.path, snapshot.tree), (case.head, &path, tree));
    }
}

async fn paths_that_lead_nowhere_are_told_apart(case: &Case) {
    let ask = async |path: &str| case.origin.resolve(None, &path.parse().unwrap()).await;
    for (path, missing) in [
        ("nothing", "nothing"),
        ("src/nothing/below", "src/nothing"),
        ("SRC", "SRC"),
        ("src/deep/x", "src/deep/x"),
    ] {
        let answer = ask(path).await;
        let is_it = matches!(&answer, Err(ResolveError::NoSuchPath { path, .. }) if path.to_string() == format!("/{missing}"));
        assert!(is_it, "{path}: {answer:?}");
    }
    for (path, file) in [
        ("README", "README"),
        ("script/x", "script"),
        ("link", "link"),
        ("vendored", "vendored"),
        ("vendored/x", "vendored"),
    ] {
        let answer = ask(path).await;
        let is_it = matches!(&answer, Err(ResolveError::NotADirectory { path, .. }) if path.to_string() == format!("/{file}"));
        assert!(is_it, "{path}: {answer:?}");
    }
}
