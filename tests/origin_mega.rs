//! A Mega server read as it is: heads that move, repositories inside the monorepo, odd names, what is not there, and
//! how much is asked for.
#![allow(missing_docs, clippy::unwrap_used)] // a test that fails panics

mod mega_ground;
mod mega_server;
mod origin_fixture;

use std::{collections::BTreeSet, time::Duration};

use mega_ground::{Ground, commit};
use mega_server::{
    Endpoint,
    faults::{Act, Rule},
};
use origin_fixture::{git, oid};
use scorpio::{
    origin::{FetchError, Hint, Origin, ResolveError, Snapshot, TreeBody, Want, mega::MegaOrigin},
    types::{ObjectKind, Oid, RepoPath},
};

const PROJECT: &str = r#"
    mkdir -p project/src doc
    printf 'a\n' > project/src/a.c; printf '#!/bin/sh\n' > project/run.sh; chmod 755 project/run.sh
    ln -s src/a.c project/link; printf 'top\n' > TOP; printf 'k\n' > doc/k.md
"#;

async fn tree(origin: &MegaOrigin, want: &Want) -> Result<TreeBody, FetchError> {
    origin.trees(std::slice::from_ref(want)).await.remove(0)
}

/// The tree came, and it is the wanted one.
#[track_caller]
fn assert_is(answer: &Result<TreeBody, FetchError>, want: &Want) {
    let body = answer.as_ref().unwrap_or_else(|error| panic!("{}: {error}", want.hint.path));
    assert_eq!(
        (Oid::of(ObjectKind::Tree, &body.body), body.boundary),
        (Some(want.oid), None),
        "{}",
        want.hint.path
    );
}

#[track_caller]
fn assert_moved(answer: &Result<TreeBody, FetchError>, want: &Want) {
    let is_it = matches!(answer, Err(FetchError::Moved { oid, path, .. }) if *oid == want.oid && *path == want.hint.path);
    assert!(is_it, "{}: {answer:?}", want.hint.path);
}

fn path(text: &str) -> RepoPath {
    text.parse().unwrap()
}

#[tokio::test]
async fn trees_that_the_server_keeps_in_an_order_of_its_own_are_taken_as_they_are() {
    let ground = Ground::new(PROJECT);
    let sorted = oid(&ground.mono, "HEAD:project");
    ground.server.disorder(&["/", "/project"]);
    let origin = ground.origin();
    let top = origin.resolve(None, &path("")).await.unwrap();
    assert_eq!(
        top,
        Snapshot { commit: ground.server.head(), path: path(""), tree: ground.server.head_tree() }
    );
    let want = |path: &RepoPath, oid| Want { oid, hint: Hint { commit: top.commit, path: path.clone() } };
    assert_is(&tree(&origin, &want(&top.path, top.tree)).await, &want(&top.path, top.tree));
    let project = origin.resolve(None, &path("project")).await.unwrap();
    assert_ne!(project.tree, sorted);
    let project = want(&project.path, project.tree);
    let body = tree(&origin, &project).await;
    assert_is(&body, &project);
    assert!(body.unwrap().body.starts_with(b"40000 src\0"));
}

/// Ways in which a directory may have changed since it was mounted, after which its old tree can still be had.
const HEALING: [(&str, &str); 7] = [
    ("content", "echo b >> project/src/a.c; echo b >> project/run.sh"),
    ("a new file", "echo n > project/new; echo n > project/src/new"),
    ("a removed file", "rm project/run.sh"),
    ("a removed symlink and a removed executable", "rm project/run.sh project/link"),
    ("a mode", "chmod 644 project/run.sh"),
    ("a removed directory", "rm -r project/src"),
    ("the whole directory removed", "rm -r project"),
];

#[tokio::test]
async fn what_moved_on_is_had_as_it_was_when_its_names_and_ids_are_enough() {
    for (what, script) in HEALING {
        let ground = Ground::new(PROJECT);
        let origin = ground.origin();
        let wants = ["project", "project/src"].map(|path| ground.want(path));
        ground.push(script);
        for (want, answer) in wants.iter().zip(origin.trees(&wants).await) {
            assert!(answer.is_ok(), "{what}: {answer:?}");
            assert_is(&answer, want);
        }
    }
}

#[tokio::test]
async fn what_moved_on_and_cannot_be_told_any_more_is_said_to_have_moved() {
    let modes = "mkdir many; for n in $(seq 60); do echo $n > many/$n; [ $((n % 3)) = 0 ] && chmod 755 many/$n; done; :";
    let ground = Ground::new(&format!("{PROJECT}{modes}"));
    let origin = ground.origin();
    let (many, project) = (ground.want("many"), ground.want("project"));
    ground.push("rm -r many");
    let answers = origin.trees(&[many.clone(), project.clone()]).await;
    assert_moved(&answers[0], &many);
    assert_is(&answers[1], &project);
    let said = answers[0].as_ref().unwrap_err().to_string();
    assert!(said.starts_with("`/many` has moved on at origin `mega` since it was mounted"), "{said}");
    // The top is told of the newest commit alone.
    let mut top = ground.want("");
    top.oid = oid(&ground.mono, "HEAD~1^{tree}");
    ground.push("for n in $(seq 60); do rm -f TOP; echo $n > n$n; done; git rm -rq --cached project doc; rm -r project doc");
    let answer = tree(&origin, &top).await;
    assert!(answer.is_err(), "{answer:?}");
}

#[tokio::test]
async fn a_head_that_moves_between_two_requests_never_makes_a_mixture() {
    let ground = Ground::new(PROJECT);
    let old = ground.server.head();
    ground.commit("echo b > project/src/b.c; rm doc/k.md; echo d > doc/d.md");
    let new = oid(&ground.mono, "HEAD");
    let trees =
        |path: &str| [old, new].map(|commit| (commit, oid(&ground.mono, &format!("{commit}:{path}"))));
    let mut seen = BTreeSet::new();
    for place in ["", "project", "project/src", "doc"] {
        for after in 0..8 {
            ground.server.push(&old.to_string());
            let origin = ground.origin();
            ground.server.misbehave(Rule::new(Act::Push("main".into())).after(after).times(1));
            let snapshot = origin.resolve(None, &path(place)).await.unwrap();
            assert!(
                trees(place).contains(&(snapshot.commit, snapshot.tree)),
                "{place} {after}: {snapshot:?}"
            );
            let want = Want { oid: snapshot.tree, hint: Hint { commit: snapshot.commit, path: path(place) } };
            match tree(&origin, &want).await {
                Err(FetchError::Moved { .. }) => seen.insert(("moved", snapshot.commit == old)),
                answer => {
                    assert_is(&answer, &want);
                    seen.insert(("listed", snapshot.commit == old))
                }
            };
            ground.server.behave();
        }
    }
    assert!(seen.contains(&("listed", true)) && seen.contains(&("listed", false)), "{seen:?}");
}

#[tokio::test]
async fn an_import_repository_is_a_boundary_with_a_tree_of_its_own() {
    let ground = Ground::new(&format!("{PROJECT}mkdir -p third-party/plain; echo p > third-party/plain/p"));
    let import = ground.import("tree2k", "mkdir -p mod/deep; echo x > mod/deep/x; echo r > README; :");
    let origin = ground.origin();
    let real = oid(&import, "HEAD^{tree}");
    let at = |place: &str| path(&format!("third-party/{place}"));
    let there = origin.resolve(None, &at("tree2k")).await.unwrap();
    assert_eq!((there.commit, there.tree), (ground.server.head(), real));
    let inner = origin.resolve(None, &at("tree2k/mod/deep")).await.unwrap();
    assert_eq!(inner.tree, oid(&import, "HEAD:mod/deep"));

    let above = origin.resolve(None, &path("third-party")).await.unwrap();
    let want = |place: &RepoPath, oid| Want { oid, hint: Hint { commit: above.commit, path: place.clone() } };
    let listing = tree(&origin, &want(&above.path, above.tree)).await.unwrap().body;
    let placeholder = scorpio::types::Tree::parse(&listing).unwrap().find(b"tree2k").unwrap().1.clone();
    assert_ne!(placeholder.oid, real);
    let behind = tree(&origin, &want(&at("tree2k"), placeholder.oid)).await.unwrap();
    assert_eq!((Oid::of(ObjectKind::Tree, &behind.body), behind.boundary), (Some(real), Some(real)));
    // Its own id stands for nothing else.
    let own = want(&at("tree2k"), real);
    assert_is(&tree(&origin, &own).await, &own);
    // A directory below the imports that is no repository is hashed like any other.
    let plain = ground.want("third-party/plain");
    assert_is(&tree(&origin, &plain).await, &plain);
    let false_plain = want(&at("plain"), Oid::from_bytes([7; 20]));
    assert_moved(&tree(&origin, &false_plain).await, &false_plain);

    commit(&import, "echo y > mod/deep/y; echo z > mod/z");
    ground.server.push_import("tree2k", "main");
    let now = oid(&import, "HEAD^{tree}");
    let old = want(&at("tree2k/mod/deep"), inner.tree);
    assert_is_or_moved(&tree(&origin, &old).await, &old);
    let behind = tree(&origin, &want(&at("tree2k"), placeholder.oid)).await.unwrap();
    assert_eq!(behind.boundary, Some(now), "the pinned placeholder stands for what is there now");
    let renewed = origin.resolve(None, &at("tree2k")).await.unwrap();
    assert_eq!((renewed.commit, renewed.tree), (ground.server.head(), now));
}

#[track_caller]
fn assert_is_or_moved(answer: &Result<TreeBody, FetchError>, want: &Want) {
    match answer {
        Ok(_) => assert_is(answer, want),
        Err(_) => assert_moved(answer, want),
    }
}

/// Names that a URL or a server might get wrong.
const ODD_NAMES: [&str; 14] = [
    "with space",
    "100%",
    "%2F",
    "a+b",
    "a#b",
    "a&b=c",
    "a?b",
    "中文",
    "ünï",
    "new\nline",
    "back\\slash",
    "\"quoted\"",
    "-option",
    "semi;colon",
];

#[tokio::test]
async fn every_odd_name_is_found_in_the_monorepo_and_in_an_import_repository() {
    let ground = Ground::new(PROJECT);
    let import = ground.import("imp", "echo i > i");
    for repository in [&ground.mono, &import] {
        for name in ODD_NAMES {
            std::fs::create_dir_all(repository.join(name).join(name)).unwrap();
            std::fs::write(repository.join(name).join(name).join("file"), name).unwrap();
        }
        std::fs::create_dir_all(repository.join("it's")).unwrap();
        std::fs::write(repository.join("it's/file"), "its").unwrap();
        commit(repository, "");
    }
    ground.server.push("main");
    ground.server.push_import("imp", "main");
    let origin = ground.origin();
    for name in ODD_NAMES {
        let inner = format!("{name}/{name}");
        for want in [ground.want(&inner), ground.want_in("imp", &inner)] {
            assert_is(&tree(&origin, &want).await, &want);
            let found = origin.resolve(None, &want.hint.path).await.unwrap();
            assert_eq!(found.tree, want.oid, "{}", want.hint.path);
        }
    }
    let apostrophe = ground.want("it's");
    assert_is(&tree(&origin, &apostrophe).await, &apostrophe);
    let bad = ground.want_in("imp", "it's");
    let answer = tree(&origin, &bad).await.unwrap_err();
    let said = answer.to_string();
    assert!(matches!(answer, FetchError::Unreachable { .. }), "{answer:?}");
    assert!(
        said.ends_with("the server cannot look up paths with an apostrophe below `/third-party`"),
        "{said}"
    );
}

#[tokio::test]
async fn a_directory_whose_name_is_no_text_is_an_error_of_its_own() {
    let ground = Ground::new(PROJECT);
    commit(&ground.mono, r#"mkdir "$(printf 'not \377 text')"; echo x > "$(printf 'not \377 text')/x""#);
    ground.server.push("main");
    let listing = git(&ground.mono, &["-c", "core.quotePath=true", "ls-tree", "HEAD"]);
    let line = listing.lines().find(|line| line.contains("not ")).unwrap();
    let oid: Oid = line.split_whitespace().nth(2).unwrap().parse().unwrap();
    let odd = RepoPath::parse(b"not \xff text").unwrap();
    let want = Want { oid, hint: Hint { commit: ground.server.head(), path: odd } };
    let answers = ground.origin().trees(&[want.clone(), ground.want("project")]).await;
    assert!(answers[0].is_err(), "{answers:?}");
    assert_is(&answers[1], &ground.want("project"));
}

#[tokio::test]
async fn a_blob_that_is_nowhere_is_named_alone_and_asked_for_once() {
    let ground = Ground::new("mkdir many; for n in $(seq 200); do echo $n > many/$n; done");
    let origin = ground.origin();
    let absent = Oid::from_bytes([0xab; 20]);
    let mut wants: Vec<Want> = (1..=200).map(|n| ground.want(&format!("many/{n}"))).collect();
    wants[77].oid = absent;
    let error = FetchError::Absent { origin: origin.name().clone(), oid: absent };
    for (number, blob) in origin.blobs(&wants).await.into_iter().enumerate() {
        let expected = if number == 77 { Err(error.clone()) } else { Ok(format!("{}\n", number + 1).into()) };
        assert_eq!(blob, expected);
    }
    let sizes = origin.sizes(&wants).await;
    assert_eq!(sizes[77], Err(error));
    assert_eq!(sizes.iter().filter(|size| size.is_ok()).count(), 199);
    assert_eq!(
        ground.server.asked(Endpoint::FileBlob, &absent.to_string()),
        2,
        "once as a blob, once as a size"
    );
    assert_eq!(ground.server.seen().len(), 400);
}

#[tokio::test]
async fn sizes_bring_small_blobs_with_them() {
    let ground = Ground::new(
        "head -c 65536 /dev/zero > fits; head -c 65537 /dev/zero > large; echo small > small; : > empty
         head -c 3000000 /dev/urandom > random",
    );
    let origin = ground.origin();
    let wants = ["fits", "large", "small", "empty", "random"].map(|path| ground.want(path));
    let sizes: Vec<_> = origin.sizes(&wants).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(sizes.iter().map(|size| size.bytes).collect::<Vec<_>>(), [65_536, 65_537, 6, 0, 3_000_000]);
    let came: Vec<_> = sizes.iter().map(|size| size.content.as_ref().map(bytes::Bytes::len)).collect();
    assert_eq!(came, [Some(65_536), None, Some(6), Some(0), None]);
    assert_eq!(sizes[2].content.as_deref(), Some(&b"small\n"[..]));
    for want in &wants {
        let asked = usize::from(want.oid != Oid::EMPTY_BLOB);
        assert_eq!(ground.server.asked(Endpoint::FileBlob, &want.oid.to_string()), asked);
    }
    assert_eq!(ground.server.count(|seen| seen.method == "HEAD"), 0, "a HEAD costs the server a whole read");
}

#[tokio::test]
async fn doubled_wants_are_one_request_and_batches_are_bounded() {
    let ground = Ground::new("mkdir many; for n in $(seq 100); do echo $n > many/$n; done");
    let origin = std::sync::Arc::new(ground.origin_with(|options| options.requests = 8));
    let one = vec![ground.want("many/7"); 100];
    assert!(origin.blobs(&one).await.iter().all(|blob| blob.as_ref().is_ok_and(|blob| blob == "7\n")));
    assert_eq!(ground.server.seen().len(), 1);
    ground.server.misbehave(Rule::new(Act::Delay(20)));
    let wants: Vec<Want> = (1..=100).map(|n| ground.want(&format!("many/{n}"))).collect();
    ground.server.forget();
    assert!(origin.blobs(&wants).await.iter().all(Result::is_ok));
    assert_eq!(ground.server.most_at_once(), 4, "one batch has half of all requests");
    let batches = (0..4).map(|_| {
        let (origin, wants) = (origin.clone(), wants.clone());
        tokio::spawn(async move { origin.sizes(&wants).await.iter().all(Result::is_ok) })
    });
    for batch in batches.collect::<Vec<_>>() {
        assert!(batch.await.unwrap());
    }
    assert_eq!(ground.server.most_at_once(), 8, "and all together no more than all");
}

#[tokio::test]
async fn revisions_are_the_servers() {
    let ground = Ground::new(PROJECT);
    git(&ground.mono, &["tag", "light"]);
    git(&ground.mono, &["tag", "-a", "-m", "one", "v1"]);
    let first = ground.server.head();
    ground.push("echo b > project/src/b.c");
    let (origin, second) = (ground.origin(), ground.server.head());
    let project = |commit: Oid| oid(&ground.mono, &format!("{commit}:project"));
    for (rev, commit) in [
        ("HEAD", second),
        ("main", second),
        ("refs/heads/main", second),
        ("v1", first),
        ("tags/v1", first),
        ("refs/tags/light", first),
        (&first.to_string(), first),
        (&second.to_string(), second),
    ] {
        let found = origin.resolve(Some(rev), &path("project")).await.unwrap();
        assert_eq!((found.commit, found.tree), (commit, project(commit)), "{rev}");
    }
    let unknown = Oid::from_bytes([0xab; 20]).to_string();
    for rev in ["nothing", "", "HEAD~1", "abc", "v1^0", &first.to_string()[..39], &unknown] {
        let answer = origin.resolve(Some(rev), &path("project")).await;
        let is_it = matches!(&answer, Err(ResolveError::NoSuchRevision { rev: named, .. }) if named == rev);
        assert!(is_it, "{rev}: {answer:?}");
    }
    // An unknown name and a server that fails look alike to who asks once.
    ground.server.misbehave(Rule::new(Act::Status(500)));
    let answer = origin.resolve(Some("nothing"), &path("project")).await;
    assert!(matches!(answer, Err(ResolveError::Fetch(FetchError::Unreachable { .. }))), "{answer:?}");
}

#[tokio::test]
async fn a_repository_that_moved_on_is_not_shown_at_an_older_revision() {
    let ground = Ground::new(PROJECT);
    let import = ground.import("imp", "mkdir d; echo x > d/x");
    let (origin, old) = (ground.origin(), ground.server.head());
    let at = path("third-party/imp/d");
    assert!(origin.resolve(Some(&old.to_string()), &at).await.is_ok());
    commit(&import, "echo y > d/y");
    ground.server.push_import("imp", "main");
    let answer = origin.resolve(Some(&old.to_string()), &at).await;
    assert!(matches!(answer, Err(ResolveError::Fetch(FetchError::Moved { .. }))), "{answer:?}");
    assert!(origin.resolve(None, &at).await.is_ok());
}

#[tokio::test]
async fn a_slow_answer_is_waited_for() {
    let ground = Ground::new(PROJECT);
    ground.server.misbehave(Rule::new(Act::Delay(300)));
    let begin = std::time::Instant::now();
    assert_is(&tree(&ground.origin(), &ground.want("project")).await, &ground.want("project"));
    assert!(begin.elapsed() >= Duration::from_millis(300));
}

#[tokio::test]
async fn the_top_of_a_commit_is_known_later_if_it_was_asked_for_while_it_was_the_head() {
    let ground = Ground::new(PROJECT);
    let (origin, old) = (ground.origin(), ground.server.head());
    let top = origin.resolve(None, &path("")).await.unwrap();
    ground.push("echo b > TOP");
    let rev = old.to_string();
    assert_eq!(origin.resolve(Some(&rev), &path("")).await.unwrap(), top);
    let answer = ground.origin().resolve(Some(&rev), &path("")).await.unwrap_err();
    assert_eq!(
        answer.to_string(),
        format!(
            "origin `mega` tells of `/` at its newest commit only, which is {}: what it was at {old} is not known here",
            ground.server.head()
        )
    );
    assert!(matches!(answer, ResolveError::PastTop { commit, .. } if commit == old), "{answer:?}");
}
