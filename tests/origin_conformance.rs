//! What every origin promises, shown on a reference repository made by stock git.
//!
//! [`conforms`] runs against any [`Origin`]: here for a git repository in each shape one can have, and for a Mega server
//! that serves such a repository. What only git can tell (any revision's name, trees of any commit, the kind of an object
//! by its id alone) is in [`git_conforms`].
#![allow(missing_docs, clippy::unwrap_used)]

mod conformance;
mod origin_fixture;

use std::{fs, path::Path, sync::Arc, time::Duration};

use conformance::{ABSENT, Case, conforms};
use origin_fixture::{build, git, myself, name, oid, want};
use scorpio::{
    config::OriginKind,
    origin::{self, FetchError, Limits, Origin, ResolveError, git::GitOrigin},
    types::{Oid, RepoPath},
};

const LIMITS: Limits = Limits { deadline: Duration::from_secs(60), requests: 16 };

/// What every origin promises, and what git can tell beyond that.
async fn git_conforms(case: &Case) {
    conforms(case).await;
    an_object_of_another_kind_is_told_apart(case).await;
    revisions_lead_where_git_says(case).await;
    what_leads_nowhere_is_told_apart(case).await;
}

async fn an_object_of_another_kind_is_told_apart(case: &Case) {
    let (tree, _) = case.objects.trees.last_key_value().unwrap();
    let (blob, _) = case.objects.blobs.last_key_value().unwrap();
    let commit = case.objects.commits.keys().next().unwrap();
    let asked = case.wants([blob, &ABSENT, tree, commit]);
    let absent = FetchError::Absent { origin: case.origin.name().clone(), oid: ABSENT };
    let is_mismatch = |answer: Option<&FetchError>, oid: &Oid| matches!(answer, Some(FetchError::Mismatch { oid: named, .. }) if named == oid);
    let blobs = case.origin.blobs(&asked).await;
    assert!(is_mismatch(blobs[2].as_ref().err(), tree) && is_mismatch(blobs[3].as_ref().err(), commit));
    let trees = case.origin.trees(&asked).await;
    assert!(is_mismatch(trees[0].as_ref().err(), blob) && is_mismatch(trees[3].as_ref().err(), commit));
    assert_eq!(trees[1], Err(absent.clone()));
    let sizes = case.origin.sizes(&asked).await;
    assert_eq!(sizes[1], Err(absent));
    assert!(is_mismatch(sizes[2].as_ref().err(), tree) && is_mismatch(sizes[3].as_ref().err(), commit));
}

async fn revisions_lead_where_git_says(case: &Case) {
    let full = oid(&case.repository, "HEAD").to_string();
    let (upper, short) = (full.to_uppercase(), git(&case.repository, &["rev-parse", "--short", "HEAD"]));
    let tag = oid(&case.repository, "refs/tags/v1").to_string();
    let revisions = [
        "HEAD",
        "main",
        "heads/main",
        "refs/heads/main",
        "side/branch",
        "v1",
        "tags/v1",
        "refs/tags/v1",
        "vv",
        "light",
        "HEAD~1",
        "HEAD~",
        "HEAD^",
        "main~2",
        "main~1^2",
        "main^^2~1",
        "v1~0",
        "v1^0",
        &full,
        &upper,
        &short,
        &tag,
        &full[..39],
    ];
    for rev in revisions {
        let commit = oid(&case.repository, &format!("{rev}^{{commit}}"));
        for path in ["", "src", "src/deep"] {
            let tree = oid(&case.repository, &format!("{commit}:{path}"));
            let path: RepoPath = path.parse().unwrap();
            let snapshot = case.origin.resolve(Some(rev), &path).await.unwrap();
            assert_eq!((snapshot.commit, &snapshot.path, snapshot.tree), (commit, &path, tree), "{rev}");
        }
    }
}

async fn what_leads_nowhere_is_told_apart(case: &Case) {
    let tree = oid(&case.repository, "HEAD^{tree}").to_string();
    let blob = oid(&case.repository, "HEAD:README").to_string();
    let absent = ABSENT.to_string();
    let long = "x".repeat(257);
    for rev in [
        "nothing",
        "",
        "HEAD~1000",
        "HEAD~70000",
        "main^3",
        "main^9",
        "ablob",
        "atree",
        "-main",
        "--all",
        ":/first",
        "HEAD:src",
        "HEAD^{tree}",
        "HEAD^{/first}",
        "main@{0}",
        "@{1.day.ago}",
        "HEAD..main",
        "main...v1",
        "abc",
        "ma\nin",
        "main\0",
        "../HEAD",
        "config",
        "refs",
        "refs/heads",
        "zzzz",
        "main/",
        "/main",
        ".",
        "HEAD.lock",
        &tree,
        &tree[..12],
        &blob,
        &absent,
        &long,
    ] {
        let answer = case.origin.resolve(Some(rev), &RepoPath::root()).await;
        let is_it = matches!(&answer, Err(ResolveError::NoSuchRevision { rev: named, .. }) if named == rev);
        assert!(is_it, "{rev:?}: {answer:?}");
    }
    for (path, error) in [
        ("nothing", "there is no `/nothing` at revision `main` of origin `reference`"),
        ("src/nothing/below", "there is no `/src/nothing` at revision `main` of origin `reference`"),
        ("SRC", "there is no `/SRC` at revision `main` of origin `reference`"),
        ("README", "`/README` at revision `main` of origin `reference` is not a directory"),
        ("script/x", "`/script` at revision `main` of origin `reference` is not a directory"),
        ("link", "`/link` at revision `main` of origin `reference` is not a directory"),
        ("vendored", "`/vendored` at revision `main` of origin `reference` is not a directory"),
        ("vendored/x", "`/vendored` at revision `main` of origin `reference` is not a directory"),
    ] {
        let answer = case.origin.resolve(Some("main"), &path.parse().unwrap()).await;
        assert_eq!(answer.unwrap_err().to_string(), error, "{path}");
    }
}

fn opened(path: &Path) -> Arc<dyn Origin> {
    let kind = OriginKind::Git { path: path.to_owned(), read_as: None };
    origin::open(&name("reference"), &kind, myself(), LIMITS).unwrap()
}

fn case(repository: &Path, path: &Path) -> Case {
    Case::of_all(opened(path), repository)
}

#[tokio::test]
async fn a_work_tree_conforms_loose_and_after_gc_under_an_open_origin() {
    let dir = tempfile::tempdir().unwrap();
    let repository = dir.path().join("work");
    build(&repository);
    let case = case(&repository, &repository);
    git_conforms(&case).await;
    git(&repository, &["gc", "-q", "--prune=now"]);
    assert!(
        !repository
            .join(".git/objects")
            .join(&case.objects.blobs.keys().next().unwrap().to_string()[..2])
            .exists()
    );
    git_conforms(&case).await;
    git(&repository, &["repack", "-q", "-a", "-d", "-f", "--depth=3"]);
    git_conforms(&case).await;
    // What old versions and other programs write: the first index format, and bases named by id.
    let old = ["-c", "pack.indexVersion=1", "-c", "repack.useDeltaBaseOffset=false"];
    git(&repository, &[&old[..], &["repack", "-q", "-a", "-d", "-f", "--depth=250"]].concat());
    git_conforms(&case).await;
    let by_git_dir = case.with(opened(&repository.join(".git")));
    git_conforms(&by_git_dir).await;
}

#[tokio::test]
async fn a_packed_bare_repository_conforms_and_again_after_it_was_away() {
    let dir = tempfile::tempdir().unwrap();
    let (work, bare) = (dir.path().join("work"), dir.path().join("bare.git"));
    build(&work);
    git(dir.path(), &["clone", "-q", "--mirror", "--no-local", "work", "bare.git"]);
    assert!(bare.join("packed-refs").exists());
    let case = case(&bare, &bare);
    git_conforms(&case).await;
    let away = dir.path().join("away.git");
    fs::rename(&bare, &away).unwrap();
    let blob = *case.objects.blobs.keys().next().unwrap();
    let gone = |answer: &FetchError| matches!(answer, FetchError::Unreachable { .. });
    assert!(gone(case.origin.blobs(&[want(blob)]).await[0].as_ref().unwrap_err()));
    assert!(gone(case.origin.sizes(&[want(blob)]).await[0].as_ref().unwrap_err()));
    let unresolved = case.origin.resolve(None, &RepoPath::root()).await.unwrap_err();
    assert!(matches!(&unresolved, ResolveError::Fetch(error) if gone(error)), "{unresolved}");
    fs::rename(&away, &bare).unwrap();
    git_conforms(&case).await;
}

#[tokio::test]
async fn alternates_and_linked_work_trees_conform() {
    let dir = tempfile::tempdir().unwrap();
    let (work, shared, linked) =
        (dir.path().join("work"), dir.path().join("shared"), dir.path().join("linked"));
    build(&work);
    git(dir.path(), &["clone", "-q", "--shared", "work", "shared"]);
    git(&shared, &["branch", "-q", "side/branch", "origin/side/branch"]);
    assert!(shared.join(".git/objects/info/alternates").exists());
    git_conforms(&case(&shared, &shared)).await;
    git(&work, &["worktree", "add", "-q", "--no-checkout", "--detach", "../linked", "main"]);
    assert!(linked.join(".git").is_file());
    git_conforms(&case(&linked, &linked)).await;
    git(&work, &["checkout", "-q", "-f", "side/branch"]);
    git_conforms(&case(&linked, &linked.join(".git"))).await;
}

#[tokio::test]
async fn an_ambiguous_abbreviation_is_called_so() {
    let dir = tempfile::tempdir().unwrap();
    git(dir.path(), &["init", "-q", "-b", "main"]);
    // With 1,200 commits some share four digits (65,536 / 1,200 squared, twice over).
    let mut stream = String::new();
    for number in 0..1200 {
        stream.push_str(&format!("commit refs/heads/main\ncommitter C <c@e> {number} +0000\ndata 0\n\n"));
    }
    origin_fixture::git_with_input(dir.path(), &["fast-import", "--quiet"], stream.as_bytes());
    let commits = git(dir.path(), &["rev-list", "main"]);
    let mut sorted: Vec<&str> = commits.lines().collect();
    sorted.sort_unstable();
    let twins = sorted.windows(2).find(|pair| pair[0][..4] == pair[1][..4]).unwrap();
    let origin = GitOrigin::open(name("reference"), dir.path(), myself()).unwrap();
    let answer = origin.resolve(Some(&twins[0][..4]), &RepoPath::root()).await;
    assert!(
        matches!(&answer, Err(ResolveError::Ambiguous { rev, .. }) if *rev == twins[0][..4]),
        "{answer:?}"
    );
    let answer = origin.resolve(Some(&twins[0][..20]), &RepoPath::root()).await;
    assert_eq!(answer.unwrap().commit.to_string(), twins[0]);
    let far = origin.resolve(Some("main~1199"), &RepoPath::root()).await.unwrap();
    assert_eq!(
        (far.commit.to_string(), far.tree),
        (commits.lines().last().unwrap().to_owned(), Oid::EMPTY_TREE)
    );
}
