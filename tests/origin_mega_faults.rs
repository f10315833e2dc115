//! A Mega server that misbehaves in every way it can: which error that is, how often it is asked again, and that all is
//! well as soon as the server is.
#![allow(missing_docs, clippy::unwrap_used)] // a test that fails panics

mod mega_ground;
mod mega_server;
mod origin_fixture;

use std::{
    fs,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use mega_ground::Ground;
use mega_server::{
    Endpoint, MegaServer,
    faults::{Act, Rule},
    tunnel::{Manner, Tunnel},
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

/// What a spoilt answer comes to, for a blob, a size and a tree, each asked for once; and how many requests each took.
/// A tree whose bytes are wrong is put together from its listing in JSON, where that leads to the wanted id.
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
        (Act::WrongBytes, [Wrong, Mismatch, Right], 1),
        (Act::Empty, [Wrong, Mismatch, Right], 1),
        (Act::Garbage, [Wrong, Mismatch, Right], 1),
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
async fn a_tree_whose_bytes_are_wrong_and_whose_listing_does_not_help_is_told_from_one_that_moved() {
    // More modes than can be tried out.
    let ground = Ground::new(
        "mkdir many; for n in $(seq 60); do echo $n > many/$n; done; cd many; for n in $(seq 3 3 60); do chmod 755 $n; done; cd ..",
    );
    let (origin, many) = (ground.origin(), ground.want("many"));
    for act in [Act::Empty, Act::Garbage] {
        ground.server.misbehave(Rule::new(act.clone()).on(Endpoint::FileTree));
        assert_eq!(tree(&origin, &many).await, Comes::Mismatch, "{act:?}");
        ground.server.behave();
        assert_eq!(tree(&origin, &many).await, Comes::Right, "{act:?}");
    }
}

#[tokio::test]
async fn what_passes_is_asked_again_until_it_comes() {
    let ground = Ground::new(REPOSITORY);
    let origin = ground.origin();
    let file = ground.want("dir/file");
    for (act, times) in [
        (Act::Status(500), 1),
        (Act::Status(503), 2),
        (Act::Status(502), 2),
        (Act::Drop, 2),
        (Act::Truncate, 2),
    ] {
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
    assert!(
        answers.iter().all(|answer| [Comes::Unreachable, Comes::TimedOut].contains(answer)),
        "{answers:?}"
    );
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
            for act in [
                Act::Status(500),
                Act::Drop,
                Act::Truncate,
                Act::Garbage,
                Act::Empty,
                Act::BlackHole,
                Act::Status(404),
            ] {
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
    let refused = origin.blobs(std::slice::from_ref(&file)).await.remove(0).unwrap_err();
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
    let refused = token.origin(&ground).trees(std::slice::from_ref(&dir)).await.remove(0).unwrap_err();
    assert_eq!(denied(refused), "credential `mega-token`: the server refuses it (403)");
    fs::remove_file(&token.path).unwrap();
    let refused = token.origin(&ground).trees(std::slice::from_ref(&dir)).await.remove(0).unwrap_err();
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
    assert_eq!(
        (ground.server.seen().len(), elsewhere.seen().len()),
        (1, 0),
        "no redirect leads to another server"
    );

    let mut options = MegaOptions::new("http://mega.example");
    options.credential = Some(Arc::new(FileCredential::new("mega-token", Some(token.path.clone()))));
    let refused = MegaOrigin::new(name("mega"), options).err();
    assert!(matches!(refused, Some(OpenError::InTheClear { .. })), "{refused:?}");
}

/// An authority, and a certificate of its for this host and [`INVALID`]: `ca.pem`, `cert.pem`, `key.pem`.
const CERTIFICATES: &str = r#"
    new='-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes'
    openssl req -x509 $new -keyout ca.key -out ca.pem -subj /CN=authority -days 2
    openssl req $new -keyout key.pem -out request.pem -subj /CN=mega -addext subjectAltName=IP:127.0.0.1,DNS:mega.invalid
    openssl x509 -req -in request.pem -CA ca.pem -CAkey ca.key -out cert.pem -days 2 -copy_extensions copy
"#;

/// A host that no name server knows.
const INVALID: &str = "mega.invalid";

/// The ground's repository over https, with [`CERTIFICATES`] in the ground's directory.
fn start_with_tls(ground: &Ground) -> MegaServer {
    let dir = ground.dir.path();
    let made = Command::new("sh").args(["-ec", CERTIFICATES]).current_dir(dir).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    MegaServer::start_with_tls(&ground.mono, &dir.join("cert.pem"), &dir.join("key.pem"))
}

#[tokio::test]
async fn a_certificate_is_checked_against_the_configured_authority() {
    let ground = Ground::new(REPOSITORY);
    let at = |name: &str| ground.dir.path().join(name);
    let server = start_with_tls(&ground);
    server.restrict("/", &["good"]);
    let token = Token::new(&ground, "good");
    let origin = |ca_file: Option<&str>, host: &str| {
        ground.origin_with(|options| {
            options.url = server.url().replace("127.0.0.1", host);
            options.ca_file = ca_file.map(at);
            options.credential = Some(Arc::new(FileCredential::new("mega-token", Some(token.path.clone()))));
        })
    };
    assert_eq!(all(&origin(Some("ca.pem"), "127.0.0.1"), &ground).await, [Comes::Right; 3]);
    let connections = server.connections();
    assert_eq!(blob(&origin(None, "127.0.0.1"), &ground.want("dir/file")).await, Comes::Unreachable);
    assert_eq!(
        blob(&origin(Some("ca.pem"), "localhost"), &ground.want("dir/file")).await,
        Comes::Unreachable
    );
    assert!(server.connections() > connections, "they were tried");
    assert_eq!(server.seen().len(), 3, "and no request, with its token, was sent");
    let mut options = MegaOptions::new(&server.url());
    options.ca_file = Some(at("key.pem"));
    let refused = MegaOrigin::new(name("mega"), options).err();
    assert!(matches!(refused, Some(OpenError::Certificates { .. })), "{refused:?}");
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
    assert!(
        ground
            .server
            .seen()
            .iter()
            .all(|seen| seen.proxied && seen.uri.starts_with("http://mega.invalid/api/"))
    );
    ground.server.forget();
    assert_eq!(all(&ground.origin(), &ground).await, [Comes::Right; 3]);
    assert!(ground.server.seen().iter().all(|seen| !seen.proxied));
}

#[tokio::test]
async fn https_through_a_proxy_is_checked_and_sealed_as_without_one() {
    let ground = Ground::new(REPOSITORY);
    let server = start_with_tls(&ground);
    server.restrict("/", &["good"]);
    let token = Token::new(&ground, "good");
    let tunnel = Tunnel::to(server.address()).await;
    let origin = |ca_file: Option<&str>, host: &str| {
        ground.origin_with(|options| {
            options.url = format!("https://{host}");
            options.proxy = Some(tunnel.url());
            options.patience = PATIENCE;
            options.ca_file = ca_file.map(|name| ground.dir.path().join(name));
            options.credential = Some(Arc::new(FileCredential::new("mega-token", Some(token.path.clone()))));
        })
    };
    let file = ground.want("dir/file");

    // The proxy is told the host's name, which only it need know, and nothing else.
    let well = origin(Some("ca.pem"), INVALID);
    assert_eq!(all(&well, &ground).await, [Comes::Right; 3]);
    let heads = tunnel.take_heads();
    assert_eq!(heads.len(), 1, "one connection is used again: {heads:?}");
    assert!(heads[0].starts_with("CONNECT mega.invalid:443 HTTP/1.1\r\n"), "{heads:?}");
    assert!(!heads[0].contains("good") && !heads[0].to_lowercase().contains("authorization"), "{heads:?}");
    let seen = server.seen();
    let is_right = |seen: &mega_server::Seen| seen.token.as_deref() == Some("good") && !seen.proxied;
    assert!(seen.len() == 3 && seen.iter().all(is_right), "{seen:?}");

    // Whoever is at the other end of the tunnel must prove to be the server.
    for (ca_file, host) in [(None, INVALID), (Some("ca.pem"), "other.invalid")] {
        assert_eq!(blob(&origin(ca_file, host), &file).await, Comes::Unreachable, "{host}");
        assert!(!tunnel.take_heads().is_empty(), "{host}: it was tried");
    }
    assert_eq!(server.seen().len(), 3, "no request, with its token, was sent");

    // A proxy that does not do its work is an error in time, and heals.
    for (manner, comes, asked) in [
        (Manner::Refuse(407), Comes::Unreachable, 3),
        (Manner::Refuse(502), Comes::Unreachable, 3),
        (Manner::Cut, Comes::Unreachable, 3),
        (Manner::Silent, Comes::TimedOut, 1),
    ] {
        tunnel.behave(manner);
        let ill = origin(Some("ca.pem"), INVALID);
        let begin = Instant::now();
        assert_eq!(blob(&ill, &file).await, comes, "{manner:?}");
        assert!(begin.elapsed() < PATIENCE + Duration::from_secs(2), "{manner:?}: {:?}", begin.elapsed());
        assert_eq!(tunnel.take_heads().len(), asked, "{manner:?}");
        assert_eq!(server.seen().len(), 3, "{manner:?}: no request goes round the proxy");
        tunnel.behave(Manner::Open);
        assert_eq!(blob(&ill, &file).await, Comes::Right, "{manner:?}: heals");
        server.forget();
        tunnel.take_heads();
        assert_eq!(all(&ill, &ground).await, [Comes::Right; 3], "{manner:?}: heals");
    }
    // Without the proxy there is no way, also where there would be one.
    let direct = origin(Some("ca.pem"), &server.address().to_string());
    assert_eq!(blob(&direct, &file).await, Comes::Right);
    drop(tunnel);
    let (origin, connections) = (direct, server.connections());
    server.stop();
    server.resume();
    assert_eq!(blob(&origin, &file).await, Comes::Unreachable);
    assert_eq!(server.connections(), connections);
}
