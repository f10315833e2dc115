//! The tests' Mega server answers as a real one did when it was recorded, and misbehaves as it is told.
#![allow(missing_docs, clippy::unwrap_used)] // a test that fails panics

mod mega_server;
mod origin_fixture;

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    time::Duration,
};

use mega_server::{
    Endpoint, MegaServer,
    faults::{Act, Rule},
};
use origin_fixture::git;
use scorpio::types::{ObjectKind, Oid};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(10);

/// An answer as it came over the wire.
#[derive(Debug)]
struct Got {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// The connection was closed before the announced end.
    short: bool,
}

impl Got {
    fn parse(raw: &[u8]) -> Option<Got> {
        let end = raw.windows(4).position(|at| at == b"\r\n\r\n")?;
        let head = String::from_utf8(raw[..end].to_vec()).unwrap();
        let mut lines = head.lines();
        let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
        let headers: Vec<(String, String)> = lines
            .map(|line| line.split_once(": ").unwrap())
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        let body = raw[end + 4..].to_vec();
        let mut got = Got { status, headers, body, short: false };
        got.short = got.header("content-length").is_some_and(|len| len != got.body.len().to_string());
        Some(got)
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|why| panic!("{why}: {self:?}"))
    }

    fn data(&self) -> Value {
        self.json()["data"].clone()
    }
}

fn send(server: &MegaServer, method: &str, uri: &str, header: &str) -> Option<Got> {
    let mut stream = TcpStream::connect(server.address()).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = format!("{method} {uri} HTTP/1.1\r\nhost: mega\r\nconnection: close\r\n{header}\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut raw = Vec::new();
    let _ = stream.read_to_end(&mut raw);
    Got::parse(&raw)
}

#[track_caller]
fn get(server: &MegaServer, uri: &str) -> Got {
    send(server, "GET", &format!("/api/v1/{uri}"), "").unwrap()
}

/// A recorded request's method and URI, and its answer.
fn sample(name: &str) -> (String, String, Got) {
    let text = fs::read_to_string(Path::new("tests/fixtures/mega").join(name)).unwrap().replace("\r\n", "\n");
    let (command, answer) = text.split_once('\n').unwrap();
    let words: Vec<&str> = command.split(' ').collect();
    let uri = words[4].trim_matches('\'').strip_prefix("http://127.0.0.1:18000").unwrap();
    let (head, body) = answer.split_once("\n\n").unwrap();
    // The recording ends each body with a line's end of its own.
    let raw = format!("{}\r\n\r\n{}", head.replace('\n', "\r\n"), body.trim_end_matches('\n'));
    (words[3].to_owned(), uri.to_owned(), Got::parse(raw.as_bytes()).unwrap())
}

fn init(dir: &Path) {
    fs::create_dir_all(dir).unwrap();
    git(dir, &["init", "-q", "-b", "main"]);
}

fn put(dir: &Path, name: &str, content: &str) {
    let file = dir.join(name);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, content).unwrap();
}

fn commit(dir: &Path, message: &str) {
    git(dir, &["add", "-A"]);
    git(dir, &["commit", "-q", "--allow-empty", "-m", message]);
}

/// The monorepo and the import repository of the recorded server, as far as their names go.
struct Ground {
    server: MegaServer,
    dir: tempfile::TempDir,
}

impl Ground {
    fn new() -> Ground {
        let dir = tempfile::tempdir().unwrap();
        let (mono, import) = (dir.path().join("mono"), dir.path().join("tree2k"));
        init(&mono);
        for name in ["project", "doc", "release", "model", "toolchains", ".cedar"] {
            put(&mono, &format!("{name}/.gitkeep"), name);
        }
        put(&mono, ".mega_cedar.json", "{}");
        put(&mono, ".buckroot", "");
        put(&mono, ".buckconfig", "[cells]\n");
        commit(&mono, "Init Mega Directory");
        init(&import);
        for name in (0..10).map(|n| format!("mod{n:02}")).chain(["odd names+1.5#x".into(), "中文目录".into()])
        {
            put(&import, &format!("{name}/x"), &name);
        }
        for name in ["README.md", "big.bin", "empty.txt"] {
            put(&import, name, if name == "empty.txt" { "" } else { name });
        }
        put(&import, "run.sh", "#!/bin/sh\n");
        fs::set_permissions(import.join("run.sh"), fs::Permissions::from_mode(0o755)).unwrap();
        for name in ["link_dangling", "link_dir", "link_file"] {
            symlink(format!("to {name}"), import.join(name)).unwrap();
        }
        commit(&import, "import tree");
        let server = MegaServer::start(&mono);
        server.import("tree2k", &import);
        Ground { server, dir }
    }

    fn git(&self, repository: &str, args: &[&str]) -> String {
        git(&self.dir.path().join(repository), args)
    }
}

/// The names of a JSON value's parts and the types of its leaves; of a list, its first element's.
fn shape(value: &Value) -> Value {
    match value {
        Value::Object(parts) => {
            Value::Object(parts.iter().map(|(name, part)| (name.clone(), shape(part))).collect())
        }
        Value::Array(parts) => Value::Array(parts.first().map(shape).into_iter().collect()),
        Value::String(_) => "text".into(),
        Value::Number(_) => 0.into(),
        Value::Bool(_) | Value::Null => value.clone(),
    }
}

fn is_id(text: &str) -> bool {
    text.parse::<Oid>().is_ok()
}

/// The same with every object id replaced, and a tree's items by name: the server keeps its own order there.
fn without_ids(mut value: Value) -> Value {
    fn walk(value: &mut Value) {
        match value {
            Value::Object(parts) => parts.values_mut().for_each(walk),
            Value::Array(parts) => parts.iter_mut().for_each(walk),
            Value::String(text) if is_id(text) => *text = "id".into(),
            _ => {}
        }
        if let Some(items) = value.get_mut("tree_items").and_then(Value::as_array_mut) {
            items.sort_by_key(|item| item["name"].to_string());
        }
    }
    walk(&mut value);
    value
}

#[test]
fn recorded_requests_are_answered_as_recorded() {
    let ground = Ground::new();
    ground.server.open_cl("BYCWPQDW", "main", "main");
    enum Same {
        Bytes,
        ButIds,
        Shape,
    }
    let head = ground.server.head().to_string();
    for (name, same) in [
        ("01_status", Same::Bytes),
        ("02_tree_root", Same::ButIds),
        ("03_content_hash_root", Same::ButIds),
        ("04_dir_hash", Same::ButIds),
        ("05_dir_hash_root", Same::Bytes),
        ("06_latest_commit", Same::Shape),
        ("07_content_hash_missing", Same::Bytes),
        ("08_tree_missing", Same::ButIds),
        ("09_blob_404", Same::Bytes),
        ("10_blob_bad", Same::Bytes),
        ("11_refs_bad", Same::Bytes),
        ("12_refs_badsha", Same::Bytes),
        ("13_refs_ok", Same::ButIds),
        ("31_cl_detail", Same::Bytes),
        ("31_cl_update-status", Same::ButIds),
        ("52_import_content_hash", Same::ButIds),
        ("53_commit_info", Same::Shape),
        ("54_file_tree_oid_guard_mismatch", Same::Bytes),
        ("55_file_tree_missing", Same::Bytes),
    ] {
        let (method, uri, recorded) = sample(&format!("{name}.txt"));
        let uri = uri.replace("b2f16be12004ba48f7d23188fbccfe752edc0b5a", &head);
        let got = send(&ground.server, &method, &uri, "").unwrap();
        assert_eq!(got.status, recorded.status, "{name}");
        let names = |got: &Got| -> Vec<String> {
            let names = got.headers.iter().map(|(name, _)| name.clone());
            let mut names: Vec<_> = names.filter(|name| name != "connection").collect();
            names.sort();
            names
        };
        assert_eq!(names(&got), names(&recorded), "{name}");
        for header in ["content-type", "content-disposition", "vary"] {
            assert_eq!(got.header(header), recorded.header(header), "{name}: {header}");
        }
        match same {
            Same::Bytes => assert_eq!(got.text(), recorded.text(), "{name}"),
            Same::ButIds => assert_eq!(without_ids(got.json()), without_ids(recorded.json()), "{name}"),
            Same::Shape => assert_eq!(shape(&got.json()), shape(&recorded.json()), "{name}"),
        }
    }
}

#[test]
fn change_lists_are_listed_as_recorded() {
    let ground = Ground::new();
    let mono = ground.dir.path().join("mono");
    git(&mono, &["checkout", "-q", "--orphan", "base"]);
    git(&mono, &["rm", "-rfq", "."]);
    put(&mono, ".gitkeep", "Placeholder\n");
    put(&mono, "README.md", "hello\nand some more lines\nso that it is found again\n");
    put(&mono, "src/main.rs", "fn main(){}\n");
    commit(&mono, "base");
    git(&mono, &["checkout", "-q", "-b", "tip"]);
    fs::rename(mono.join("README.md"), mono.join("README2.md")).unwrap();
    fs::remove_file(mono.join(".gitkeep")).unwrap();
    put(&mono, "new.sh", "#!/bin/sh\n");
    put(&mono, "src/main.rs", "fn main(){ }\n");
    commit(&mono, "tip");
    ground.server.open_cl("RENAMED1", "base", "tip");
    let got = get(&ground.server, "cl/RENAMED1/files-list").data();
    let line =
        |item: &Value| format!("{} {} {}", item["action"], item["path"], item["old_path"]).replace('"', "");
    let lines: Vec<String> = got.as_array().unwrap().iter().map(line).collect();
    assert_eq!(
        lines,
        [
            "deleted .gitkeep null",
            "renamed README2.md README.md",
            "new new.sh null",
            "modified src/main.rs null"
        ]
    );
    assert_eq!(
        got[0]["sha"],
        ground.git("mono", &["rev-parse", "base:.gitkeep"]),
        "the old id of what is gone"
    );
    assert_eq!(got[3]["sha"], ground.git("mono", &["rev-parse", "tip:src/main.rs"]));
    let recorded = fs::read("tests/fixtures/mega/35_cl_files_list_renamed.json").unwrap();
    let recorded: Value = serde_json::from_slice(&recorded).unwrap();
    assert_eq!(shape(&got[1]), shape(&recorded["data"][0]), "a rename");
    assert_eq!(shape(&got[3]), shape(&recorded["data"][1]), "anything else");
    let absent = get(&ground.server, "cl/NOTTHERE/files-list");
    assert_eq!((absent.status, absent.json()["req_result"].clone()), (404, false.into()));
}

#[test]
fn an_import_repository_hides_behind_a_placeholder_that_each_push_renews() {
    let ground = Ground::new();
    let server = &ground.server;
    let listed =
        || get(server, "tree/content-hash?path=/third-party").data()[0]["oid"].as_str().unwrap().to_owned();
    let body = || get(server, "file/tree?path=/third-party/tree2k").body;
    let real = ground.git("tree2k", &["rev-parse", "main^{tree}"]);
    let (first, old) = (listed(), server.head());
    assert_eq!(Oid::of(ObjectKind::Tree, &body()).unwrap().to_string(), real);
    assert_ne!(first, real);
    assert_eq!(get(server, "tree/dir-hash?path=/third-party/tree2k").data()[0]["oid"], first);

    server.push_import("tree2k", "main");
    let second = listed();
    assert_ne!(second, first, "the same content pushed again");
    let pinned = get(server, &format!("tree/content-hash?path=/third-party&refs={old}"));
    assert_eq!(pinned.data()[0]["oid"], first, "the parent can be pinned");

    let import = ground.dir.path().join("tree2k");
    put(&import, "mod00/new", "n");
    commit(&import, "second");
    server.push_import("tree2k", "main");
    let names = |uri: &str| -> Vec<String> {
        let data = get(server, uri).data();
        data.as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap().to_owned()).collect()
    };
    let pinned = format!("tree/content-hash?path=/third-party/tree2k/mod00&refs={old}");
    assert_eq!(names(&pinned), ["new", "x"], "revisions are ignored in it");
    assert_eq!(
        names("tree/content-hash?path=/third-party/tree2kextra"),
        [""; 0],
        "taken for a path in tree2k"
    );
    for (path, can) in
        [("/project", true), ("/third-party/tree2k", true), ("/third-party/tree2k/mod00", false)]
    {
        assert_eq!(get(server, &format!("tree/path-can-clone?path={path}")).data(), can, "{path}");
    }
    let apostrophe = get(server, "file/tree?path=/third-party/it's");
    assert_eq!((apostrophe.status, apostrophe.text()), (500, get(server, "file/blob/xyz").text()));
    assert_eq!(get(server, "file/tree?path=/it's").status, 200);
    let head = get(server, "latest-commit?path=/").json()["oid"].clone();
    assert_eq!(head, server.head().to_string());
    let top = get(server, "file/tree?path=/").body;
    assert_eq!(Oid::of(ObjectKind::Tree, &top), Some(server.head_tree()));
    let placeholder = get(server, &format!("file/tree?path=/third-party&oid={}", real)).body;
    assert_eq!(placeholder, b"", "the guard knows the parent's id");
}

#[test]
fn trees_out_of_order_have_the_ids_of_their_bytes() {
    let ground = Ground::new();
    let server = &ground.server;
    let sorted = get(server, "file/tree?path=/").body;
    server.disorder(&["/", "/project"]);
    let served = get(server, "file/tree?path=/").body;
    assert!(served.starts_with(b"40000 toolchains\0") && served.len() == sorted.len());
    assert_eq!(Oid::of(ObjectKind::Tree, &served), Some(server.head_tree()));
    let hash = get(server, "tree/dir-hash?path=/third-party").data()[0]["oid"].as_str().unwrap().to_owned();
    let below = get(server, "file/tree?path=/third-party").body;
    assert_eq!(Oid::of(ObjectKind::Tree, &below).unwrap().to_string(), hash);
}

#[test]
fn the_head_moves_when_it_is_pushed_and_old_heads_can_be_listed() {
    let ground = Ground::new();
    let (server, mono) = (&ground.server, ground.dir.path().join("mono"));
    let old = server.head();
    put(&mono, "project/new", "n");
    commit(&mono, "more");
    server.misbehave(Rule::new(Act::Push("main".into())).on(Endpoint::FileTree).after(1).times(1));
    let guard = get(server, "tree/dir-hash?path=/project").data()[0]["oid"].as_str().unwrap().to_owned();
    let guarded = format!("file/tree?path=/project&oid={guard}");
    assert!(!get(server, &guarded).body.is_empty());
    assert_eq!(server.head(), old);
    assert_eq!(get(server, &guarded).body, b"", "moved on before this one was answered");
    assert_ne!(server.head(), old);
    let pinned = get(server, &format!("tree/content-hash?path=/project&refs={old}")).data();
    assert_eq!(pinned.as_array().unwrap().len(), 1);
    assert_eq!(get(server, "tree/content-hash?path=/project").data().as_array().unwrap().len(), 2);
    let base = ground.git("mono", &["rev-parse", "main"]);
    assert_eq!(get(server, "latest-commit?path=/project").json()["oid"], base);
}

#[test]
fn paths_are_decoded_as_queries_are() {
    let ground = Ground::new();
    let encoded = "/third-party/tree2k/odd%20names%2B1.5%23x";
    assert!(!get(&ground.server, &format!("file/tree?path={encoded}")).body.is_empty());
    assert!(!get(&ground.server, "file/tree?path=/third-party/tree2k/odd+names%2b1.5%23x").body.is_empty());
    assert!(get(&ground.server, "file/tree?path=/third-party/tree2k/odd+names+1.5%23x").body.is_empty());
    assert!(
        !get(&ground.server, "file/tree?path=/third-party/tree2k/%E4%B8%AD%E6%96%87%E7%9B%AE%E5%BD%95")
            .body
            .is_empty()
    );
}

#[test]
fn every_misbehaviour_does_what_it_says_and_ends() {
    let ground = Ground::new();
    let server = &ground.server;
    let blob = ground.git("tree2k", &["rev-parse", "main:README.md"]);
    let uri = format!("file/blob/{blob}");
    let good = get(server, &uri);
    assert_eq!((good.status, good.text(), good.short), (200, "README.md", false));
    let once = |act: Act| {
        server.misbehave(Rule::new(act).on(Endpoint::FileBlob).at(&blob).times(1));
        let got = send(server, "GET", &format!("/api/v1/{uri}"), "");
        server.behave();
        assert_eq!(get(server, &uri).text(), "README.md", "it heals");
        got
    };
    let internal = once(Act::Status(500)).unwrap();
    assert_eq!(
        (internal.status, internal.json()["err_message"].clone()),
        (500, "Internal server error".into())
    );
    assert_eq!(once(Act::Status(503)).unwrap().status, 503);
    let busy = once(Act::RetryAfter(429, 7)).unwrap();
    assert_eq!((busy.status, busy.header("retry-after")), (429, Some("7")));
    assert!(once(Act::Drop).is_none());
    let truncated = once(Act::Truncate).unwrap();
    assert_eq!((truncated.text(), truncated.short), ("READ", true));
    assert_eq!(once(Act::WrongBytes).unwrap().text(), "READLE.md");
    let empty = once(Act::Empty).unwrap();
    assert_eq!((empty.status, empty.text(), empty.short), (200, "", false));
    assert!(serde_json::from_slice::<Value>(&once(Act::Garbage).unwrap().body).is_err());
    let redirect = once(Act::Redirect).unwrap();
    assert_eq!(
        (redirect.status, redirect.header("location")),
        (307, Some(format!("/api/v1/{uri}").as_str()))
    );
    assert_eq!(once(Act::RedirectTo("http://x/".into())).unwrap().header("location"), Some("http://x/"));
    assert_eq!(once(Act::Drip(1)).unwrap().text(), "README.md");
    let begin = std::time::Instant::now();
    assert_eq!(once(Act::Delay(200)).unwrap().text(), "README.md");
    assert!(begin.elapsed() >= Duration::from_millis(200));
}

#[test]
fn answers_without_end_and_without_beginning() {
    let ground = Ground::new();
    let server = &ground.server;
    for act in [Act::Endless, Act::Huge] {
        server.misbehave(Rule::new(act).times(1));
        let mut stream = TcpStream::connect(server.address()).unwrap();
        stream.write_all(b"GET /api/v1/status HTTP/1.1\r\nhost: m\r\n\r\n").unwrap();
        let mut some = vec![0; 10 << 20];
        stream.read_exact(&mut some).unwrap();
    }
    server.misbehave(Rule::new(Act::BlackHole).times(1));
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    stream.write_all(b"GET /api/v1/status HTTP/1.1\r\nhost: m\r\n\r\n").unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    assert_eq!(get(server, "status").text(), "\"http ready\"", "others are answered");
    server.stop();
    assert!(matches!(stream.read(&mut [0]), Ok(0) | Err(_)), "open connections end");
    assert!(TcpStream::connect(server.address()).is_err(), "new ones are refused");
    server.resume();
    assert_eq!(get(server, "status").text(), "\"http ready\"");
}

#[test]
fn private_parts_need_a_token_that_may_and_has_not_expired() {
    let ground = Ground::new();
    let server = &ground.server;
    server.restrict("/third-party/tree2k", &["good"]);
    server.know("other");
    let blob = ground.git("tree2k", &["rev-parse", "main:README.md"]);
    let open = ground.git("mono", &["rev-parse", "main:.buckconfig"]);
    let ask = |uri: &str, header: &str| send(server, "GET", &format!("/api/v1/{uri}"), header).unwrap();
    let tree = "file/tree?path=/third-party/tree2k/mod00";
    for uri in [tree, "tree/content-hash?path=/third-party/tree2k", &format!("file/blob/{blob}")] {
        let nobody = ask(uri, "");
        assert_eq!((nobody.status, nobody.text()), (401, "Login first"), "{uri}");
        assert_eq!(ask(uri, "authorization: Bearer wrong\r\n").status, 401, "{uri}");
        assert_eq!(ask(uri, "authorization: Bearer other\r\n").status, 403, "{uri}");
        assert_eq!(ask(uri, "authorization: Bearer good\r\n").status, 200, "{uri}");
        // x:good
        assert_eq!(ask(uri, "authorization: Basic eDpnb29k\r\n").status, 200, "{uri}");
        server.expire("good", true);
        assert_eq!(ask(uri, "authorization: Bearer good\r\n").status, 401, "{uri}");
        server.expire("good", false);
        assert_eq!(ask(uri, "authorization: Bearer good\r\n").status, 200, "{uri}");
    }
    for uri in [&format!("file/blob/{open}"), "tree?path=/project", "status"] {
        assert_eq!(ask(uri, "").status, 200, "{uri}");
    }
    assert_eq!(server.count(|seen| seen.token.as_deref() == Some("other")), 3);
}

#[test]
fn head_tells_a_blobs_length_and_ranges_are_ignored() {
    let ground = Ground::new();
    let blob = ground.git("tree2k", &["rev-parse", "main:README.md"]);
    let uri = format!("/api/v1/file/blob/{blob}");
    let head = send(&ground.server, "HEAD", &uri, "").unwrap();
    assert_eq!((head.status, head.header("content-length"), head.body.len()), (200, Some("9"), 0));
    let range = send(&ground.server, "GET", &uri, "range: bytes=0-3\r\n").unwrap();
    assert_eq!((range.status, range.text()), (200, "README.md"));
    let tree = ground.git("tree2k", &["rev-parse", "main^{tree}"]);
    assert_eq!(get(&ground.server, &format!("file/blob/{tree}")).status, 404, "trees are not served by id");
    assert_eq!(send(&ground.server, "POST", &uri, "content-length: 0\r\n").unwrap().status, 405);
}

#[test]
fn a_script_can_do_what_a_test_does() {
    let ground = Ground::new();
    let server = &ground.server;
    let control = |method: &str, what: &str, body: &str| {
        let mut stream = TcpStream::connect(server.address()).unwrap();
        let len = body.len();
        let request = format!(
            "{method} /control/{what} HTTP/1.1\r\nhost: m\r\nconnection: close\r\ncontent-length: {len}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut raw = Vec::new();
        stream.read_to_end(&mut raw).unwrap();
        Got::parse(&raw).unwrap()
    };
    let fault = r#"{"act": {"retry-after": [503, 2]}, "endpoint": "status", "after": 1, "times": 1}"#;
    assert_eq!(control("POST", "fault", fault).text(), "\"done\"");
    let statuses: Vec<u16> = (0..3).map(|_| get(server, "status").status).collect();
    assert_eq!(statuses, [200, 503, 200]);
    assert_eq!(control("GET", "counts", "").json()["requests"][0]["requests"], 3);
    assert_eq!(control("GET", "requests", "").json().as_array().unwrap().len(), 3);
    assert_eq!(control("POST", "fault", r#"{"act": "black-holes"}"#).status, 400);
    assert_eq!(control("POST", "restrict", r#"{"below": "/doc", "tokens": ["t"]}"#).status, 200);
    assert_eq!(get(server, "file/tree?path=/doc").status, 401);
    let old = server.head();
    assert_eq!(control("POST", "push", r#"{"rev": "main"}"#).status, 200);
    assert_ne!(server.head(), old, "what is mounted in it makes each head a new one");
    assert_eq!(control("GET", "nothing", "").status, 404);
}
