//! A Mega server that misbehaves in every way it can: which error that is, how often it is asked again, and that all is
//! well as soon as the server is.
#![allow(missing_docs, clippy::unwrap_used)] // a test that fails panics

mod mega_ground;
mod mega_server;
mod origin_fixture;

use std::{
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use mega_ground::Ground;
use mega_server::{
    Endpoint, MegaServer,
    faults::{Act, Rule},
};
use origin_fixture::name;
use scorpio::{
    origin::{
        FetchError, Origin, ResolveError, Want,
        mega::{FileCredential, MegaOptions, MegaOrigin, OpenError},
    },
    types::{ObjectKind, Oid, RepoPath},
};

const REPOSITORY: &str = "mkdir -p dir/sub; echo blob > dir/file; echo x > dir/sub/x; chmod 755 dir/file";

/// What comes of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comes {
    Right,
    Unreachable,
    TimedOut,
    Mismatch,
    /// Bytes that are not the object's: whoever asked finds out by their id.
    Wrong,
}

fn comes_of<T>(answer: Result<T, FetchError>, right: impl Fn(&T) -> bool) -> Comes {
    match answer {
        Ok(value) if right(&value) => Comes::Right,
        Ok(_) => Comes::Wrong,
        Err(FetchError::Unreachable { .. }) => Comes::Unreachable,
        Err(FetchError::TimedOut { .. }) => Comes::TimedOut,
        Err(FetchError::Mismatch { .. }) => Comes::Mismatch,
        Err(other) => panic!("{other:?}"),
    }
}

async fn blob(origin: &MegaOrigin, want: &Want) -> Comes {
    let answer = origin.blobs(std::slice::from_ref(want)).await.remove(0);
    comes_of(answer, |body: &Bytes| body == "blob\n")
}

async fn size(origin: &MegaOrigin, want: &Want) -> Comes {
    let answer = origin.sizes(std::slice::from_ref(want)).await.remove(0);
    comes_of(answer, |size| size.bytes == 5 && size.content.as_deref() == Some(b"blob\n"))
}

async fn tree(origin: &MegaOrigin, want: &Want) -> Comes {
    let answer = origin.trees(std::slice::from_ref(want)).await.remove(0);
    comes_of(answer, |tree| Oid::of(ObjectKind::Tree, &tree.body) == Some(want.oid))
}

/// What a spoilt answer comes to, for a blob, a size and a tree, each asked for once; and how many requests a blob took.
const FAULTS: [(Act, [Comes; 3], usize); 12] = {
    use Comes::{Mismatch, Right, TimedOut, Unreachable, Wrong};
    [
        (Act::Delay(50), [Right; 3], 1),
        (Act::Status(500), [Unreachable; 3], 2),
        (Act::Status(503), [Unreachable; 3], 3),
        (Act::Status(418), [Unreachable; 3], 1),
        (Act::RetryAfter(429, 3600), [Unreachable; 3], 1),
        (Act::Drop, [Unreachable; 3], 3),
        (Act::Truncate, [Unreachable; 3], 3),
        (Act::WrongBytes, [Wrong, Mismatch, Mismatch], 1),
        (Act::Empty, [Wrong, Mismatch, Mismatch], 1),
        (Act::Garbage, [Wrong, Mismatch, Mismatch], 1),
        (Act::Redirect, [Unreachable; 3], 4),
        (Act::BlackHole, [TimedOut; 3], 1),
    ]
};

const PATIENCE: Duration = Duration::from_secs(2);

#[tokio::test]
async fn every_fault_has_its_error_and_its_number_of_requests_and_heals() {
    let ground = Ground::new(REPOSITORY);
    let origin = ground.origin_with(|options| options.patience = PATIENCE);
    let (file, dir) = (ground.want("dir/file"), ground.want("dir"));
    let target = file.oid.to_string();
    for (act, comes, requests) in FAULTS {
        ground.server.forget();
        ground.server.misbehave(Rule::new(act.clone()).on(Endpoint::FileBlob));
        ground.server.misbehave(Rule::new(act.clone()).on(Endpoint::FileTree));
        let begin = Instant::now();
        assert_eq!(blob(&origin, &file).await, comes[0], "{act:?}: blob");
        assert_eq!(ground.server.asked(Endpoint::FileBlob, &target), requests, "{act:?}: blob");
        assert!(begin.elapsed() < PATIENCE + Duration::from_secs(2), "{act:?}: {:?}", begin.elapsed());
        assert_eq!(size(&origin, &file).await, comes[1], "{act:?}: size");
        assert_eq!(ground.server.asked(Endpoint::FileBlob, &target), 2 * requests, "{act:?}: size");
        assert_eq!(tree(&origin, &dir).await, comes[2], "{act:?}: tree");
        assert_eq!(ground.server.asked(Endpoint::FileTree, "/dir"), requests, "{act:?}: tree");
        ground.server.behave();
        assert_eq!(all(&origin, &ground).await, [Comes::Right; 3], "{act:?}: heals");
    }
}

async fn all(origin: &MegaOrigin, ground: &Ground) -> [Comes; 3] {
    let (file, dir) = (ground.want("dir/file"), ground.want("dir"));
    [blob(origin, &file).await, size(origin, &file).await, tree(origin, &dir).await]
}

#[tokio::test]
async fn what_passes_is_asked_again_until_it_comes() {
    let ground = Ground::new(REPOSITORY);
    let origin = ground.origin();
    let file = ground.want("dir/file");
    for (act, times) in
        [(Act::Status(500), 1), (Act::Status(503), 2), (Act::Status(502), 2), (Act::Drop, 2), (Act::Truncate, 2)]
    {
        let sent = origin.requests_sent();
        ground.server.misbehave(Rule::new(act.clone()).times(times));
        assert_eq!(blob(&origin, &file).await, Comes::Right, "{act:?}");
        assert_eq!(origin.requests_sent() - sent, times + 1, "{act:?}");
        ground.server.behave();
    }
    ground.server.misbehave(Rule::new(Act::RetryAfter(503, 1)).times(1));
    let begin = Instant::now();
    assert_eq!(blob(&origin, &file).await, Comes::Right);
    assert!(begin.elapsed() >= Duration::from_secs(1), "the server said when: {:?}", begin.elapsed());
}

#[tokio::test]
async fn a_server_that_is_stopped_is_asked_three_times_and_found_again() {
    let ground = Ground::new(REPOSITORY);
    let origin = ground.origin();
    assert_eq!(all(&origin, &ground).await, [Comes::Right; 3]);
    ground.server.stop();
    let sent = origin.requests_sent();
    assert_eq!(blob(&origin, &ground.want("dir/file")).await, Comes::Unreachable);
    assert_eq!(origin.requests_sent() - sent, 3);
    assert_eq!(all(&origin, &ground).await, [Comes::Unreachable; 3]);
    let gone = origin.resolve(None, &RepoPath::root()).await;
    assert!(matches!(gone, Err(ResolveError::Fetch(FetchError::Unreachable { .. }))), "{gone:?}");
    ground.server.resume();
    assert_eq!(all(&origin, &ground).await, [Comes::Right; 3]);
}

#[tokio::test]
async fn an_answer_byte_by_byte_ends_with_the_deadline() {
    let ground = Ground::new("head -c 10000 /dev/zero > file");
    let origin = ground.origin_with(|options| options.patience = PATIENCE);
    ground.server.misbehave(Rule::new(Act::Drip(50)));
    let begin = Instant::now();
    let answer = origin.blobs(&[ground.want("file")]).await.remove(0);
    assert_eq!(answer, Err(FetchError::TimedOut { origin: name("mega"), after: PATIENCE }));
    assert!(begin.elapsed() < PATIENCE + Duration::from_secs(2), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn an_answer_without_end_is_cut_off() {
    let ground = Ground::new(REPOSITORY);
    let origin = ground.origin_with(|options| options.patience = PATIENCE);
    let (file, dir) = (ground.want("dir/file"), ground.want("dir"));
    ground.server.misbehave(Rule::new(Act::Huge));
    assert_eq!([blob(&origin, &file).await, tree(&origin, &dir).await], [Comes::Unreachable; 2]);
    ground.server.behave();
    ground.server.misbehave(Rule::new(Act::Endless));
    let begin = Instant::now();
    let answers = [tree(&origin, &dir).await, size(&origin, &file).await];
    assert!(answers.iter().all(|answer| [Comes::Unreachable, Comes::TimedOut].contains(answer)), "{answers:?}");
    assert!(begin.elapsed() < 2 * PATIENCE + Duration::from_secs(2), "{:?}", begin.elapsed());
    ground.server.behave();
    assert_eq!(all(&origin, &ground).await, [Comes::Right; 3]);
}

#[tokio::test]
async fn every_step_of_a_resolution_may_fail() {
    let ground = Ground::new(REPOSITORY);
    ground.import("imp", "mkdir d; echo x > d/x");
    let origin = ground.origin_with(|options| options.patience = PATIENCE);
    for (place, endpoints) in [
        ("", &[Endpoint::LatestCommit, Endpoint::FileTree][..]),
        ("dir/sub", &[Endpoint::LatestCommit, Endpoint::DirHash]),
        ("third-party/imp/d", &[Endpoint::LatestCommit, Endpoint::PathCanClone, Endpoint::FileTree]),
        ("not/there", &[Endpoint::LatestCommit, Endpoint::DirHash, Endpoint::ContentHash]),
    ] {
        let path: RepoPath = place.parse().unwrap();
        let healthy = origin.resolve(None, &path).await.map_err(|error| error.to_string());
        assert_eq!(healthy.is_ok(), place != "not/there", "{healthy:?}");
        for endpoint in endpoints {
            for act in [Act::Status(500), Act::Drop, Act::Truncate, Act::Garbage, Act::Empty, Act::BlackHole, Act::Status(404)] {
                ground.server.misbehave(Rule::new(act.clone()).on(*endpoint));
                let answer = origin.resolve(None, &path).await;
                let is_it = matches!(
                    &answer,
                    Err(ResolveError::Fetch(FetchError::Unreachable { .. } | FetchError::TimedOut { .. }))
                );
                // A tree's bytes are not JSON: what of them is no tree is found out by who reads it.
                let is_tree = *endpoint == Endpoint::FileTree && act == Act::Garbage;
                assert!(is_it || is_tree, "`{place}` {endpoint:?} {act:?}: {answer:?}");
                ground.server.behave();
                let healed = origin.resolve(None, &path).await.map_err(|error| error.to_string());
                assert_eq!(healed, healthy, "`{place}` {endpoint:?} {act:?}");
            }
        }
    }
}

struct Token {
    path: std::path::PathBuf,
}

impl Token {
    fn new(ground: &Ground, text: &str) -> Token {
        let token = Token { path: ground.dir.path().join("token") };
        token.set(text);
        token
    }

    fn set(&self, text: &str) {
        fs::write(&self.path, text).unwrap();
    }

    fn origin(&self, ground: &Ground) -> MegaOrigin {
        let credential = FileCredential::new("mega-token", Some(self.path.clone()));
        ground.origin_with(|options| options.credential = Some(Arc::new(credential)))
    }
}

#[tokio::test]
async fn a_private_part_is_read_with_the_credential_and_refusals_name_it() {
    let ground = Ground::new(REPOSITORY);
    ground.server.restrict("/", &["good", "better"]);
    ground.server.know("poor");
    let token = Token::new(&ground, "good\n");
    let origin = token.origin(&ground);
    let (file, dir) = (ground.want("dir/file"), ground.want("dir"));
    let denied = |answer: FetchError| match answer {
        FetchError::Denied { reason, .. } => reason,
        other => panic!("{other:?}"),
    };
    assert_eq!(all(&origin, &ground).await, [Comes::Right; 3]);
    assert_eq!(ground.server.count(|seen| seen.token.as_deref() != Some("good")), 0);

    ground.server.expire("good", true);
    ground.server.forget();
    let refused = origin.blobs(&[file.clone()]).await.remove(0).unwrap_err();
    assert_eq!(denied(refused), "credential `mega-token`: the server refuses it (401)");
    assert_eq!(ground.server.seen().len(), 1, "a refusal is final");
    let refused = origin.resolve(None, &RepoPath::root()).await.unwrap_err();
    assert!(matches!(refused, ResolveError::Fetch(FetchError::Denied { .. })), "{refused:?}");

    token.set("better");
    ground.server.forget();
    assert_eq!(blob(&origin, &file).await, Comes::Right, "a renewed credential is found");
    let tokens: Vec<_> = ground.server.seen().into_iter().map(|seen| seen.token.unwrap()).collect();
    assert_eq!(tokens, ["good", "better"]);

    token.set("poor");
    let refused = token.origin(&ground).trees(&[dir.clone()]).await.remove(0).unwrap_err();
    assert_eq!(denied(refused), "credential `mega-token`: the server refuses it (403)");
    fs::remove_file(&token.path).unwrap();
    let refused = token.origin(&ground).trees(&[dir.clone()]).await.remove(0).unwrap_err();
    assert_eq!(denied(refused), "credential `mega-token`: it was not given to the service");
    let refused = ground.origin().sizes(&[file]).await.remove(0).unwrap_err();
    assert_eq!(denied(refused), "it answers 401 and no credential is configured for it");
}

#[tokio::test]
async fn a_credential_goes_to_its_server_alone() {
    let ground = Ground::new(REPOSITORY);
    let elsewhere = MegaServer::start(&ground.mono);
    let token = Token::new(&ground, "good");
    let origin = token.origin(&ground);
    let blob_url = format!("{}/api/v1/file/blob/{}", elsewhere.url(), ground.want("dir/file").oid);
    ground.server.misbehave(Rule::new(Act::RedirectTo(blob_url)));
    assert_eq!(blob(&origin, &ground.want("dir/file")).await, Comes::Unreachable);
    assert_eq!((ground.server.seen().len(), elsewhere.seen().len()), (1, 0), "no redirect leads to another server");

    let mut options = MegaOptions::new("http://mega.example");
    options.credential = Some(Arc::new(FileCredential::new("mega-token", Some(token.path.clone()))));
    let refused = MegaOrigin::new(name("mega"), options).err();
    assert!(matches!(refused, Some(OpenError::InTheClear { .. })), "{refused:?}");
}

#[tokio::test]
async fn the_configured_proxy_is_asked_and_no_other() {
    let ground = Ground::new(REPOSITORY);
    // A server that is asked as a proxy answers for any host.
    let proxied = ground.origin_with(|options| {
        options.proxy = Some(options.url.clone());
        options.url = "http://mega.invalid/prefix/..".to_owned();
    });
    assert_eq!(all(&proxied, &ground).await, [Comes::Right; 3]);
    assert!(ground.server.seen().iter().all(|seen| seen.proxied && seen.uri.starts_with("http://mega.invalid/api/")));
    ground.server.forget();
    assert_eq!(all(&ground.origin(), &ground).await, [Comes::Right; 3]);
    assert!(ground.server.seen().iter().all(|seen| !seen.proxied));
}
