//! What the control socket promises, shown on real sockets as real users. Needs root, to be several users.
#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

#[path = "rpc_socket/harness.rs"]
mod harness;

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

use harness::{
    ALICE, BOB, CAROL, PATIENCE, Server, connect_with, exchange, id, keep, parse, post, quick, read_all,
    workspace,
};
use scorpio::{
    antares::Workspace,
    api::{WatchWorkspaces, WorkspaceEvent, document, method},
    client::{Client, ClientError, ExportFormat},
    rpc::RpcLimits,
};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;

const ID: &str = "aaaa22223333";
const NO_ID: &str = "zzzz22223333";

fn code(answer: &Value) -> i64 {
    let first = if answer.is_array() { &answer[0] } else { answer };
    first["error"]["code"].as_i64().unwrap_or(0)
}

fn wanted(origin: &str) -> Value {
    json!({"origin": origin, "mount_point": "/home/a"})
}

#[tokio::test(flavor = "multi_thread")]
async fn every_method_answers_those_who_may_and_refuses_the_others() {
    let server = Server::start(quick());
    let adopt = json!({"id": "stray2345678", "uid": 0, "workspace": wanted("open")});
    // Method, parameters, then the code for alice (owner), bob (nobody), carol (manager), root; 0 is success.
    let cases: Vec<(&str, Value, [i64; 4])> = vec![
        (method::WORKSPACE_CREATE, wanted("open"), [0, 1007, 1007, 0]),
        (method::WORKSPACE_CREATE, wanted("closed"), [1003, 1007, 1007, 0]),
        (method::WORKSPACE_CREATE, wanted("absent"), [1003, 1007, 1007, 1003]),
        (method::WORKSPACE_CREATE, json!({"origin": "open", "mount_point": "x"}), [1002; 4]),
        (method::WORKSPACE_CREATE, json!({"origin": "open"}), [-32602; 4]),
        (method::WORKSPACE_LIST, json!({}), [0; 4]),
        (method::WORKSPACE_LIST, json!({"all": true}), [1007, 1007, 0, 0]),
        (method::WORKSPACE_LIST, json!({"limit": 0}), [1001; 4]),
        (method::WORKSPACE_LIST, json!({"limit": 1001}), [1001; 4]),
        (method::WORKSPACE_LIST, json!({"limit": -1}), [-32602; 4]),
        (method::WORKSPACE_GET, json!({"id": ID}), [0, 1006, 0, 0]),
        (method::WORKSPACE_GET, json!({"id": NO_ID}), [1006; 4]),
        (method::WORKSPACE_GET, json!({"id": "../../etc"}), [1001; 4]),
        (method::WORKSPACE_MOUNT, json!({"id": ID}), [1011, 1007, 1007, 1011]),
        (method::WORKSPACE_UNMOUNT, json!({"id": ID}), [0, 1006, 0, 0]),
        (method::WORKSPACE_UNMOUNT, json!({"id": ID, "force": true}), [-32602; 4]),
        (method::WORKSPACE_REMOVE, json!({"id": ID}), [1010, 1006, 1010, 1010]),
        // Alice may give what is hers.
        (method::WORKSPACE_GIVE, json!({"id": ID, "user": "daemon"}), [0, 1007, 1007, 0]),
        (method::WORKSPACE_GIVE, json!({"id": NO_ID, "user": "daemon"}), [1006, 1007, 1007, 1006]),
        (method::WORKSPACE_GIVE, json!({"id": ID, "user": "no-such-user"}), [1001, 1007, 1007, 1001]),
        (method::WORKSPACE_GIVE, json!({"id": ID, "user": "a\nb"}), [1001; 4]),
        (method::WORKSPACE_GIVE, json!({"id": ID, "uid": 1}), [-32602; 4]),
        (method::WORKSPACE_USAGE, json!({}), [0; 4]),
        (method::WORKSPACE_USAGE, json!({"all": true}), [1007, 1007, 0, 0]),
        (method::WORKSPACE_USAGE, json!({"id": ID}), [0, 1006, 0, 0]),
        (method::WORKSPACE_USAGE, json!({"id": NO_ID}), [1006; 4]),
        (method::WORKSPACE_USAGE, json!({"limit": 201}), [1001; 4]),
        (method::WORKSPACE_USAGE, json!({"after": "/"}), [1001; 4]),
        (method::ORIGIN_LIST, json!({}), [0; 4]),
        // `open` needs no login.
        (method::CREDENTIAL_STORE, json!({"origin": "open", "secret": "x"}), [1011, 1007, 1007, 1011]),
        (method::CREDENTIAL_STORE, json!({"origin": "closed", "secret": "x"}), [1003, 1007, 1007, 1011]),
        (method::CREDENTIAL_STORE, json!({"origin": "open", "secret": "a b"}), [1001; 4]),
        (method::CREDENTIAL_STORE, json!({"origin": "open+1", "secret": "x"}), [1001; 4]),
        (method::CREDENTIAL_STORE, json!({"origin": "open"}), [-32602; 4]),
        (method::CREDENTIAL_FORGET, json!({"origin": "open"}), [0; 4]),
        (method::CREDENTIAL_FORGET, json!({"origin": "../open"}), [1001; 4]),
        (method::ORPHAN_LIST, json!({}), [1007, 1007, 0, 0]),
        (method::ORPHAN_ADOPT, adopt, [1007, 1007, 0, 0]),
        (method::ORPHAN_DISCARD, json!({"id": "stray2345678"}), [1007, 1007, 0, 0]),
        (method::ORPHAN_DISCARD, json!({"id": NO_ID}), [1007, 1007, 1006, 1006]),
        (method::DRAIN_BEGIN, json!({}), [1007, 1007, 0, 0]),
        (method::DRAIN_BEGIN, json!({"undo": true}), [-32602; 4]),
        (method::DRAIN_END, json!({}), [1007, 1007, 0, 0]),
        (method::HEALTH, json!({}), [0; 4]),
        (method::HEALTH, json!({"deep": true}), [-32602; 4]),
        (method::COUNTERS, json!({}), [0; 4]),
        (method::LOG_SET_LEVEL, json!({"level": "debug", "for_s": 60}), [1007, 1007, 1007, 0]),
        (method::LOG_SET_LEVEL, json!({"level": "loud"}), [1007, 1007, 1007, 1001]),
        (method::LOG_SET_LEVEL, json!({"level": "debug", "for_s": 0}), [1001; 4]),
        (method::LOG_SET_LEVEL, json!({"level": 7}), [-32602; 4]),
        (method::LOG_SET_LEVEL, json!({}), [1007, 1007, 1007, 0]),
        (method::WHO_AM_I, json!({}), [0; 4]),
        (method::DISCOVER, json!({}), [0; 4]),
        // A subscription needs a WebSocket.
        (method::WORKSPACE_WATCH, json!({}), [-32603; 4]),
    ];
    for method in document::METHODS {
        assert!(cases.iter().any(|(name, ..)| *name == method.name), "{} has no case", method.name);
    }
    for (method, params, codes) in cases {
        for (uid, expected) in [ALICE, BOB, CAROL, 0].into_iter().zip(codes) {
            server.made.put(workspace(&id(ID), ALICE));
            let answer = server.call(uid, method, params.clone()).await;
            assert_eq!(code(&answer), expected, "{method} {params} as {uid}: {answer}");
        }
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_may_not_see_looks_as_if_it_were_not_there() {
    let server = Server::start(quick());
    server.made.put(workspace(&id(ID), ALICE));
    let blur = |answer: Value, name: &str| {
        let mut error = answer["error"].clone();
        assert_ne!(error.as_object_mut().unwrap()["data"]["request_id"].take(), Value::Null);
        error.to_string().replace(name, "NAME")
    };
    let of_alice = server.call(BOB, method::WORKSPACE_GET, json!({"id": ID})).await;
    let missing = server.call(BOB, method::WORKSPACE_GET, json!({"id": NO_ID})).await;
    assert_eq!(blur(of_alice, ID), blur(missing, NO_ID));
    let closed = server.call(ALICE, method::WORKSPACE_CREATE, wanted("closed")).await;
    let absent = server.call(ALICE, method::WORKSPACE_CREATE, wanted("absent")).await;
    assert_eq!(blur(closed, "closed"), blur(absent, "absent"));
    let shown = server.call(ALICE, method::ORIGIN_LIST, json!({})).await;
    assert_eq!(shown["result"], json!([{"name": "open", "kind": "git", "read_with": "service"}]));
    let counters = server.call(ALICE, method::COUNTERS, json!({})).await;
    assert_eq!(counters["result"]["origins"], json!({"open": {"fetched": 3, "bytes": 9, "failed": 1}}));
    assert_eq!(counters["result"].get("cache"), None, "content that several origins have is counted once");
    let counters = server.call(0, method::COUNTERS, json!({})).await;
    assert_eq!(counters["result"]["cache"]["blobs"], 5);
    let listed = server.call(BOB, method::WORKSPACE_LIST, json!({})).await;
    assert_eq!(listed["result"], json!({"workspaces": []}));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_names_its_kind_the_missing_right_and_what_to_do() {
    let server = Server::start(quick());
    let answer = server.call(BOB, method::WORKSPACE_CREATE, wanted("open")).await;
    let error = &answer["error"];
    assert_eq!(error["message"], "you are not authorised to mount workspaces (org.scorpio.mount)");
    assert_eq!(error["data"]["kind"], "NotAuthorised");
    assert_eq!(error["data"]["action"], "org.scorpio.mount");
    assert_eq!(error["data"]["retryable"], false);
    assert_eq!(error["data"]["request_id"].as_str().unwrap().len(), 12);
    assert!(error["data"]["hint"].is_string());
    let health = server.call(BOB, method::HEALTH, json!({})).await;
    assert_eq!(health["result"]["authorizer"], "static");
    assert_eq!(health["result"]["problems"], json!([]));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_come_in_pages_that_can_be_followed() {
    let server = Server::start(quick());
    let names = ["aaaa22222222", "bbbb22222222", "cccc22222222", "dddd22222222", "eeee22222222"];
    for name in names {
        server.made.put(workspace(&id(name), ALICE));
    }
    let mut seen = Vec::new();
    let mut after = Value::Null;
    loop {
        let page = server.call(ALICE, method::WORKSPACE_LIST, json!({"limit": 2, "after": after})).await;
        let page = &page["result"];
        seen.extend(page["workspaces"].as_array().unwrap().iter().map(|view| view["id"].clone()));
        match page.get("next") {
            Some(next) => after = next.clone(),
            None => break,
        }
    }
    assert_eq!(seen, names);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_is_counted_page_by_page_and_the_cache_is_roots_to_see() {
    let server = Server::start(quick());
    let (bobs, slow) = ("bbbb22222222", "cccc22222222");
    for (name, uid) in [("aaaa22222222", ALICE), (bobs, BOB), (slow, ALICE), ("dddd22222222", ALICE)] {
        server.made.put(workspace(&id(name), uid));
    }
    server.made.endless.lock().unwrap().push(id(slow));
    let ids = |answer: &Value| -> Vec<String> {
        let of = answer["result"]["workspaces"].as_array().unwrap().iter();
        of.map(|usage| usage["id"].as_str().unwrap().to_owned()).collect()
    };
    // The page ends before the one that its time was too short for.
    let first = server.call(ALICE, method::WORKSPACE_USAGE, json!({})).await;
    assert_eq!(ids(&first), ["aaaa22222222"]);
    let usage =
        json!({"id": "aaaa22222222", "uid": ALICE, "mount_point": "/home/w", "bytes": 4096, "inodes": 2});
    assert_eq!(first["result"], json!({"workspaces": [usage], "next": "aaaa22222222"}));
    // On the next one it has all the time there is, and is told in part.
    let second = server.call(ALICE, method::WORKSPACE_USAGE, json!({"after": "aaaa22222222"})).await;
    assert_eq!(ids(&second)[0], slow);
    assert_eq!(second["result"]["workspaces"][0]["partial"], "it takes too long");
    let third = server.call(ALICE, method::WORKSPACE_USAGE, json!({"after": slow})).await;
    assert_eq!((ids(&third), third["result"].get("next")), (vec!["dddd22222222".to_owned()], None));
    let all = server.call(0, method::WORKSPACE_USAGE, json!({"all": true, "limit": 2})).await;
    assert_eq!(ids(&all), ["aaaa22222222", bobs]);
    let cache = json!({"blob_bytes": 0, "database_bytes": 0, "database_limit_bytes": 1 << 30});
    assert_eq!(all["result"]["cache"], cache);
    let managed = server.call(CAROL, method::WORKSPACE_USAGE, json!({"all": true, "limit": 1})).await;
    assert_eq!(managed["result"].get("cache"), None, "content that several origins have is counted once");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn draining_is_told_to_everybody_and_by_whom_to_managers() {
    let server = Server::start(quick());
    server.made.put(workspace(&id(ID), ALICE));
    let since = "2023-11-14T22:13:20Z";
    let begun = server.call(CAROL, method::DRAIN_BEGIN, json!({})).await;
    let told = json!({"draining": true, "since": since, "by_uid": CAROL, "mounted": 1});
    assert_eq!(begun["result"], told);
    assert_eq!(server.call(0, method::DRAIN_BEGIN, json!({})).await["result"], told, "it has begun before");
    let health = server.call(BOB, method::HEALTH, json!({})).await;
    assert_eq!(health["result"]["draining"], true);
    assert_eq!(health["result"]["drained_since"], since);
    assert_eq!(health["result"]["problems"], json!([]), "it is wanted");
    let ended = server.call(CAROL, method::DRAIN_END, json!({})).await;
    assert_eq!(ended["result"], json!({"draining": false, "mounted": 1}));
    let health = server.call(BOB, method::HEALTH, json!({})).await;
    assert_eq!(health["result"].get("draining"), None);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_requests_have_exact_answers() {
    let server = Server::start(quick());
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let deep_params = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"health","params":{{"x":{deep}}}}}"#);
    let call = |id: &str| format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"origin.list"}}"#);
    let batch = |count: usize| format!("[{}]", vec![call("1"); count].join(","));
    // Body, then status and JSON-RPC error code; 0 is success.
    let cases: Vec<(&str, String, u16, i64)> = vec![
        ("no JSON", "{".to_owned(), 200, -32700),
        ("no object", "7".to_owned(), 400, 0),
        ("empty body", String::new(), 400, 0),
        ("only spaces", "   ".to_owned(), 400, 0),
        ("deep nesting", deep, 200, -32600),
        ("deep parameters", deep_params, 200, -32602),
        ("300 KiB", " ".repeat(300 << 10), 413, 0),
        ("no such method", r#"{"jsonrpc":"2.0","id":1,"method":"rm"}"#.to_owned(), 200, -32601),
        ("no version", r#"{"id":1,"method":"health"}"#.to_owned(), 200, -32600),
        ("by position", r#"{"jsonrpc":"2.0","id":1,"method":"health","params":[]}"#.to_owned(), 200, -32602),
        ("params null", r#"{"jsonrpc":"2.0","id":1,"method":"health","params":null}"#.to_owned(), 200, 0),
        ("params text", r#"{"jsonrpc":"2.0","id":1,"method":"health","params":"x"}"#.to_owned(), 200, -32602),
        ("huge id", call(&format!("\"{}\"", "9".repeat(100_000))), 200, 0),
        ("an id that is none makes a notification", call("99999999999999999999999"), 200, 0),
        ("batch of 17", batch(17), 200, -32010),
        ("batch of 100,000 numbers", format!("[{}1]", "1,".repeat(99_999)), 200, -32010),
        ("empty batch", "[]".to_owned(), 200, -32600),
    ];
    for (what, body, status, expected) in cases {
        let (got, answer) = server.post(ALICE, &body).await;
        assert_eq!(got, status, "{what}: {answer}");
        if status == 200 {
            let answer: Value = serde_json::from_str(&answer).unwrap();
            assert_eq!(code(&answer), expected, "{what}: {answer}");
        }
    }
    let (_, answer) = server.post(ALICE, &batch(16)).await;
    let answers: Vec<Value> = serde_json::from_str(&answer).unwrap();
    assert_eq!(answers.len(), 16, "duplicate ids are the caller's affair");
    assert!(answers.iter().all(|answer| answer["result"].is_array()));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_http_has_exact_answers() {
    let server = Server::start(quick());
    let head = |rest: &str| {
        format!("POST / HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{rest}").into_bytes()
    };
    let cases: Vec<(&str, Vec<u8>, u16)> = vec![
        ("wrong content type", b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}".to_vec(), 415),
        ("GET without an upgrade", b"GET / HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(), 405),
        ("PUT", b"PUT / HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n".to_vec(), 405),
        ("elsewhere", b"GET /etc/passwd HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(), 404),
        (
            "POST to an export",
            b"POST /export/x HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n".to_vec(),
            405,
        ),
        ("export of nonsense", b"GET /export/..%2f HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(), 400),
        (
            "another upgrade",
            b"GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n".to_vec(),
            405,
        ),
        ("body without end", head("transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n"), 408),
        ("body shorter than it says", head("content-length: 100\r\n\r\n{}"), 408),
        ("body larger than 4 MiB", head("content-length: 99999999\r\n\r\n{}"), 413),
        ("lengths that differ", head("content-length: 2\r\ncontent-length: 3\r\n\r\n{}"), 400),
        ("length and chunks", head("content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"), 400),
        ("bad length", head("content-length: -1\r\n\r\n"), 400),
        ("huge header", head(&format!("x: {}\r\n\r\n", "y".repeat(300_000))), 431),
        ("101 headers", head(&format!("{}\r\n", "x: y\r\n".repeat(101))), 431),
        ("no HTTP", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n".to_vec(), 400),
        ("HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), 0),
        ("slow header", b"POST / HTTP/1.1\r\nhost: x\r\n".to_vec(), 0),
        ("nothing at all", Vec::new(), 0),
    ];
    for (what, request, status) in cases {
        let begun = Instant::now();
        let answer = exchange(server.connect_as(ALICE), request).await;
        let (got, body) = parse(&answer);
        assert_eq!(got, status, "{what}: {body}");
        assert!(begun.elapsed() < Duration::from_secs(5), "{what} was not closed in time");
    }
    let (_, body) = server.post(ALICE, &" ".repeat(300 << 10)).await;
    assert_eq!(body, "a request may have 262144 bytes\n");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_users_connections_do_not_keep_others_out() {
    let limits = RpcLimits { head_timeout: PATIENCE, ..quick() };
    let server = Server::start(limits);
    let held: Vec<_> = (0..limits.connections_per_user).map(|_| server.connect_as(BOB)).collect();
    for _ in 0..8 {
        let answer = exchange(server.connect_as(BOB), post("{}")).await;
        let text = String::from_utf8(answer.clone()).unwrap();
        assert_eq!(parse(&answer).0, 503, "{text}");
        assert!(text.contains("retry-after: 1\r\n"), "{text}");
    }
    for uid in [ALICE, 0] {
        let client = post(r#"{"jsonrpc":"2.0","id":1,"method":"whoami"}"#);
        let mut socket = server.connect_as(uid);
        socket.write_all(&client).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut status = [0; 12];
        socket.read_exact(&mut status).unwrap();
        assert_eq!(&status, b"HTTP/1.1 200");
    }
    drop(held);
    // The places come back: a refusal now would last.
    let freed = async {
        loop {
            let mut socket = server.connect_as(BOB);
            socket.write_all(&post("{}")).unwrap();
            let mut status = [0; 12];
            socket.read_exact(&mut status).unwrap();
            if &status == b"HTTP/1.1 200" {
                break;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, freed).await.unwrap();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn root_gets_in_when_all_places_are_taken() {
    let server = Server::start(RpcLimits { connections: 2, head_timeout: PATIENCE, ..quick() });
    let _held = [server.connect_as(ALICE), server.connect_as(BOB)];
    assert_eq!(parse(&exchange(server.connect_as(CAROL), post("{}")).await).0, 503);
    let client = Client::new(&server.socket, PATIENCE);
    let who: scorpio::api::WhoAmI = client.call(method::WHO_AM_I, &json!({})).await.unwrap();
    assert!(who.uid == 0 && who.may_mount && who.may_manage_others);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_connections_and_pipelined_requests_are_served() {
    let server = Server::start(quick());
    for _ in 0..2_000 {
        drop(UnixStream::connect(&server.socket).unwrap());
    }
    let one = keep(r#"{"jsonrpc":"2.0","id":1,"method":"origin.list"}"#);
    let answer = exchange(server.connect_as(ALICE), one.repeat(1_000)).await;
    let answers = String::from_utf8(answer).unwrap().matches("HTTP/1.1 200").count();
    assert_eq!(answers, 1_000);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_only_stops_sending_gets_its_answer() {
    let server = Server::start(quick());
    let socket = server.connect_as(ALICE);
    (&socket).write_all(&post(r#"{"jsonrpc":"2.0","id":1,"method":"counters"}"#)).unwrap();
    socket.shutdown(std::net::Shutdown::Write).unwrap();
    let answer = tokio::task::spawn_blocking(move || read_all(socket)).await.unwrap();
    assert_eq!(parse(&answer).0, 200);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_creation_whose_caller_goes_away_is_undone() {
    let server = Server::start(quick());
    let params = json!({"origin": "open", "mount_point": "/home/a", "rev": "slow"});
    let request =
        json!({"jsonrpc": "2.0", "id": 1, "method": "workspace.create", "params": params}).to_string();
    let mut fate = server.made.slow.subscribe();
    let mut expect = async |what| {
        let seen = fate.wait_for(|fate| *fate == what);
        assert!(tokio::time::timeout(PATIENCE, seen).await.is_ok(), "a creation was not {what}");
    };
    let socket = server.connect_as(ALICE);
    (&socket).write_all(&post(&request)).unwrap();
    expect("begun").await;
    drop(socket);
    expect("undone").await;
    // The same when a client library gives up waiting.
    let client = Client::new(&server.socket, Duration::from_millis(200));
    let given_up = client.call::<_, Value>(method::WORKSPACE_CREATE, &params).await;
    assert!(matches!(given_up, Err(ClientError::TimedOut { .. })), "{given_up:?}");
    expect("undone").await;
    // And when the daemon stops: it does not wait for ever.
    server.made.slow.send_replace("never asked");
    let socket = server.connect_as(ALICE);
    (&socket).write_all(&post(&request)).unwrap();
    expect("begun").await;
    let made = std::sync::Arc::clone(&server.made);
    let begun = Instant::now();
    server.stop().await;
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    assert_eq!(*made.slow.borrow(), "undone");
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_one_user_at_once_are_bounded() {
    let server = Server::start(RpcLimits { calls_per_user: 1, ..quick() });
    let params = json!({"origin": "open", "mount_point": "/home/a", "rev": "slow"});
    let request =
        json!({"jsonrpc": "2.0", "id": 1, "method": "workspace.create", "params": params}).to_string();
    let held = server.connect_as(ALICE);
    (&held).write_all(&post(&request)).unwrap();
    server.made.slow.subscribe().wait_for(|fate| *fate == "begun").await.unwrap();
    let answer = server.call(ALICE, method::HEALTH, json!({})).await;
    assert_eq!(code(&answer), 1008, "{answer}");
    assert_eq!(answer["error"]["data"]["retryable"], true);
    assert_eq!(answer["error"]["data"]["kind"], "LimitReached");
    assert_eq!(code(&server.call(BOB, method::HEALTH, json!({})).await), 0);
    // Over HTTP alone it says when to try again.
    let request = format!("GET /export/{ID} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").into_bytes();
    let refused = exchange(server.connect_as(ALICE), request).await;
    let text = String::from_utf8(refused).unwrap();
    assert!(text.starts_with("HTTP/1.1 429 ") && text.contains("\r\nretry-after: 1\r\n"), "{text}");
    let counters = server.call(BOB, method::COUNTERS, json!({})).await;
    assert_eq!(
        counters["result"]["calls"],
        json!({"under_way": 2, "turned_away": 2}),
        "alice's, and this one"
    );
    drop(held);
    server.stop().await;
}

fn watching(id: Option<&str>) -> WatchWorkspaces {
    WatchWorkspaces { id: id.map(str::to_owned) }
}

fn describe(event: &WorkspaceEvent) -> String {
    match event {
        WorkspaceEvent::State { workspace } => format!("{} {:?}", workspace.id, workspace.state),
        WorkspaceEvent::Gone { id } => format!("{id} gone"),
        WorkspaceEvent::Lagged { .. } => "lagged".to_owned(),
        WorkspaceEvent::End { reason } => format!("end: {reason}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_is_told_what_there_is_what_changes_and_the_end() {
    let server = Server::start(quick());
    server.made.put(workspace(&id(ID), 0));
    let client = Client::new(&server.socket, PATIENCE);
    let mut one = client.watch(&watching(Some(ID))).await.unwrap();
    let mut all = client.watch(&watching(None)).await.unwrap();
    let next = async |watch: &mut scorpio::client::Watch| {
        describe(&tokio::time::timeout(PATIENCE, watch.next()).await.unwrap().unwrap().unwrap())
    };
    assert_eq!(next(&mut one).await, format!("{ID} Mounted"));
    assert_eq!(next(&mut all).await, format!("{ID} Mounted"));
    server.made.put(workspace(&id(NO_ID), ALICE)); // somebody else's: not told
    let _: Value = client.call(method::WORKSPACE_UNMOUNT, &json!({"id": ID})).await.unwrap();
    server.made.take(&id(NO_ID));
    server.made.take(&id(ID));
    for watch in [&mut one, &mut all] {
        assert_eq!(next(watch).await, format!("{ID} Unmounted"));
        assert_eq!(next(watch).await, format!("{ID} gone"));
    }
    assert_eq!(next(&mut one).await, "end: gone");
    assert!(one.next().await.is_none());
    let missing = client.watch(&watching(Some(NO_ID))).await.err().unwrap();
    assert_eq!(missing.kind(), Some(scorpio::api::ErrorKind::NoSuchWorkspace), "{missing:?}");
    server.stop().await;
    assert_eq!(next(&mut all).await, "end: stopping");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_gives_a_workspace_away_sees_it_go_and_its_stored_ids_are_told() {
    let server = Server::start(quick());
    server.made.put(workspace(&id(ID), 0));
    let client = Client::new(&server.socket, PATIENCE);
    let mut one = client.watch(&watching(Some(ID))).await.unwrap();
    let mut all = client.watch(&watching(None)).await.unwrap();
    let given = server.call(0, method::WORKSPACE_GIVE, json!({"id": ID, "user": "daemon"})).await;
    let view = &given["result"];
    assert_eq!([&view["uid"], &view["stored_uid"], &view["stored_gid"]], [1, 0, 0], "{given}");
    for watch in [&mut one, &mut all] {
        let mut told = Vec::new();
        while told.len() < 2 {
            let next = tokio::time::timeout(PATIENCE, watch.next()).await.unwrap().unwrap().unwrap();
            told.push(describe(&next));
        }
        assert_eq!(told, [format!("{ID} Mounted"), format!("{ID} gone")]);
    }
    // Where both are the same there is nothing to tell.
    let own = server.call(0, method::WORKSPACE_GET, json!({"id": ID})).await;
    assert_eq!(own["result"]["stored_uid"], 0);
    server.made.put(workspace(&id(NO_ID), ALICE));
    let plain = server.call(0, method::WORKSPACE_GET, json!({"id": NO_ID})).await;
    assert!(plain["result"].get("stored_uid").is_none(), "{plain}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workspace_is_not_given_to_those_who_may_not_mount_its_origin() {
    let server = Server::start(quick());
    server.made.put(Workspace { origin: "closed".parse().unwrap(), ..workspace(&id(ID), ALICE) });
    let refused = server.call(0, method::WORKSPACE_GIVE, json!({"id": ID, "user": "daemon"})).await;
    let error = &refused["error"];
    assert_eq!(error["code"], 1003);
    assert_eq!(error["message"], "user daemon may not mount origin `closed`, which the workspace stands on");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_watcher_is_told_that_it_lost_events_and_then_what_there_is() {
    let server = Server::start(quick());
    let client = Client::new(&server.socket, PATIENCE);
    let mut watch = client.watch(&watching(None)).await.unwrap();
    // More than the workspaces' channel and the connection hold, in one go.
    for _ in 0..5_000 {
        server.made.put(workspace(&id(ID), 0));
    }
    server.made.put(workspace(&id("bbbb22223333"), 0));
    let lagged = async {
        let mut lagged = false;
        loop {
            let event = watch.next().await.unwrap().unwrap();
            lagged |= matches!(event, WorkspaceEvent::Lagged { missed } if missed > 0);
            if matches!(event, WorkspaceEvent::State { workspace } if workspace.id == "bbbb22223333") {
                break lagged;
            }
        }
    };
    assert!(tokio::time::timeout(PATIENCE, lagged).await.unwrap());
    server.stop().await;
}

mod websocket {
    //! Just enough of RFC 6455 to be a bad client.
    use super::*;

    pub(crate) fn open(server: &Server, uid: u32) -> UnixStream {
        let mut socket = server.connect_as(uid);
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let request = "GET / HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
            sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        socket.write_all(request.as_bytes()).unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            socket.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        assert!(head.starts_with(b"HTTP/1.1 101"), "{}", head.escape_ascii());
        socket
    }

    pub(crate) fn frame(text: &str) -> Vec<u8> {
        let mut frame = vec![0x81, 0x80 | 127];
        frame.extend((text.len() as u64).to_be_bytes());
        frame.extend([0; 4]); // a mask of zeros changes nothing
        frame.extend(text.as_bytes());
        frame
    }

    /// The next text message; `None` at the end.
    pub(crate) fn read(socket: &mut UnixStream) -> Option<String> {
        loop {
            let mut head = [0; 2];
            socket.read_exact(&mut head).ok()?;
            let length = match head[1] & 127 {
                126 => {
                    let mut bytes = [0; 2];
                    socket.read_exact(&mut bytes).ok()?;
                    u64::from(u16::from_be_bytes(bytes))
                }
                127 => {
                    let mut bytes = [0; 8];
                    socket.read_exact(&mut bytes).ok()?;
                    u64::from_be_bytes(bytes)
                }
                short => u64::from(short),
            };
            let mut payload = vec![0; usize::try_from(length).unwrap()];
            socket.read_exact(&mut payload).ok()?;
            match head[0] & 15 {
                1 => return Some(String::from_utf8(payload).unwrap()),
                8 => return None,
                _ => {}
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_has_eight_subscriptions_and_unsubscribing_frees_one() {
    let server = Server::start(quick());
    let mut socket = websocket::open(&server, ALICE);
    let subscribe = r#"{"jsonrpc":"2.0","id":1,"method":"workspace.watch","params":{}}"#;
    let mut ask = |text: &str| -> Value {
        socket.write_all(&websocket::frame(text)).unwrap();
        serde_json::from_str(&websocket::read(&mut socket).unwrap()).unwrap()
    };
    let first = ask(subscribe)["result"].clone();
    assert!(first.is_u64(), "{first}");
    for _ in 1..8 {
        assert_eq!(code(&ask(subscribe)), 0);
    }
    assert_eq!(code(&ask(subscribe)), -32006);
    assert_eq!(code(&ask(r#"{"jsonrpc":"2.0","id":1,"method":"workspace.watch","params":[]}"#)), -32006);
    let unwatch =
        json!({"jsonrpc": "2.0", "id": 2, "method": "workspace.unwatch", "params": [first]}).to_string();
    // Its answer and the end of the subscription, in whichever order.
    let two = [ask(&unwatch), serde_json::from_str(&websocket::read(&mut socket).unwrap()).unwrap()];
    assert!(two.iter().any(|message| message["result"] == true), "{two:?}");
    let end = json!({"event": "end", "reason": "unsubscribed"});
    assert!(two.iter().any(|message| message["params"]["result"] == end), "{two:?}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_that_is_too_greedy_is_refused_or_closed() {
    let server = Server::start(quick());
    let mut socket = websocket::open(&server, ALICE);
    socket.write_all(&websocket::frame(&" ".repeat(300 << 10))).unwrap();
    let answer: Value = serde_json::from_str(&websocket::read(&mut socket).unwrap()).unwrap();
    assert_eq!(code(&answer), -32007, "{answer}");
    // A frame that claims to be 2^62 bytes long.
    let mut socket = websocket::open(&server, ALICE);
    let mut head = vec![0x81, 0x80 | 127];
    head.extend((1_u64 << 62).to_be_bytes());
    head.extend([0; 4]);
    socket.write_all(&head).unwrap();
    socket.shutdown(std::net::Shutdown::Write).unwrap();
    while websocket::read(&mut socket).is_some() {}
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_that_never_reads_is_dropped() {
    let server = Server::start(RpcLimits { connections_per_user: 1, ..quick() });
    let mut socket = websocket::open(&server, ALICE);
    socket.write_all(&websocket::frame(r#"{"jsonrpc":"2.0","id":1,"method":"workspace.watch"}"#)).unwrap();
    assert!(websocket::read(&mut socket).is_some());
    let mut big = workspace(&id(ID), ALICE);
    big.options.labels = (0..16).map(|n| (format!("{n}{}", "k".repeat(100)), "v".repeat(128))).collect();
    // Until the one place that alice has is free again, although its holder never closes.
    let dropped = async {
        loop {
            for _ in 0..100 {
                server.made.put(big.clone());
            }
            let (status, _) = server.post(ALICE, "{").await;
            if status == 200 {
                break;
            }
            assert_eq!(status, 503);
        }
    };
    tokio::time::timeout(PATIENCE, dropped).await.unwrap();
    drop(socket);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_sends_without_reading_is_cut_off() {
    let server = Server::start(quick());
    let call = r#"{"jsonrpc":"2.0","id":1,"method":"rpc.discover"}"#;
    let callers =
        [(websocket::open(&server, ALICE), websocket::frame(call)), (server.connect_as(ALICE), post(call))];
    for (mut socket, requests) in callers {
        let begun = Instant::now();
        let cut = tokio::task::spawn_blocking(move || {
            socket.set_write_timeout(Some(PATIENCE)).unwrap();
            let mut sent = 0;
            while socket.write_all(&requests).is_ok() {
                sent += requests.len();
            }
            sent
        });
        let sent = cut.await.unwrap();
        assert!(sent < 16 << 20, "{sent} bytes were taken from a caller who reads nothing");
        assert!(begun.elapsed() < PATIENCE);
    }
    assert_eq!(code(&server.call(ALICE, method::HEALTH, json!({})).await), 0);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_is_whole_or_ends_in_an_error() {
    let server = Server::start(quick());
    server.made.put(workspace(&id(ID), ALICE));
    let client = Client::new(&server.socket, PATIENCE);
    let mut whole = Vec::new();
    client.export(ID, ExportFormat::Tar).await.unwrap().read_to_end(&mut whole).await.unwrap();
    assert_eq!(whole.len(), 1_000_000);
    let mut part = Vec::new();
    let broken = client.export(ID, ExportFormat::Patch).await.unwrap().read_to_end(&mut part).await;
    assert_eq!(broken.unwrap_err().kind(), std::io::ErrorKind::UnexpectedEof);
    let missing = client.export(NO_ID, ExportFormat::Tar).await.err().unwrap();
    assert_eq!(missing.kind(), Some(scorpio::api::ErrorKind::NoSuchWorkspace));
    let request = format!("GET /export/{ID} HTTP/1.1\r\nhost: x\r\n\r\n").into_bytes();
    for (uid, status) in [(ALICE, 200), (BOB, 404), (CAROL, 200)] {
        assert_eq!(parse(&exchange(server.connect_as(uid), request.clone()).await).0, status, "{uid}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_says_why_the_daemon_cannot_be_reached() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let ask = async || {
        Client::new(&socket, PATIENCE).call::<_, Value>(method::HEALTH, &json!({})).await.unwrap_err()
    };
    assert!(matches!(ask().await, ClientError::NoSocket { .. }));
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    assert!(matches!(ask().await, ClientError::NotListening { .. }));
    let bound = scorpio::rpc::bind(&socket).unwrap();
    assert_eq!(scorpio::rpc::bind(&socket).unwrap_err().kind(), std::io::ErrorKind::AddrInUse);
    drop(bound);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_goes_on_when_its_idle_connection_was_closed() {
    let server = Server::start(quick());
    let client = Client::new(&server.socket, PATIENCE);
    let ask = async || client.call::<_, Value>(method::HEALTH, &json!({})).await.unwrap();
    ask().await;
    // Longer than an idle connection is kept.
    tokio::time::sleep(Duration::from_millis(400)).await;
    ask().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_are_who_the_kernel_says_they_are() {
    let server = Server::start(quick());
    let socket = connect_with(&server.socket, ALICE, 61_010, &[61_011, 61_012]);
    let answer = exchange(socket, post(r#"{"jsonrpc":"2.0","id":1,"method":"whoami"}"#)).await;
    let answer: Value = serde_json::from_str(&parse(&answer).1).unwrap();
    assert_eq!(answer["result"]["uid"], ALICE);
    assert_eq!(answer["result"]["gid"], 61_010);
    assert_eq!(answer["result"]["pid"], std::process::id());
    assert_eq!(answer["result"]["may_mount"], true);
    assert_eq!(answer["result"]["may_manage_others"], false);
    let peer = scorpio::sys::peer::Peer::of(accepted_from(ALICE, &[61_012, 61_011])).unwrap();
    assert_eq!(peer.identity.groups, [61_011, 61_012]);
    server.stop().await;
}

/// The server's end of a connection by `uid`.
fn accepted_from(uid: u32, groups: &[u32]) -> UnixStream {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let path = dir.path().join("s");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o666)).unwrap();
    let _caller = connect_with(&path, uid, uid, groups);
    listener.accept().unwrap().0
}

/// A call by curl, run below other programs.
async fn curl(server: &Server, below: &[&str], method: &str, params: Value) -> Value {
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string();
    let socket = server.socket.to_str().unwrap();
    let alice = ALICE.to_string();
    let mut command = tokio::process::Command::new("setpriv");
    command.args(["--reuid", &alice, "--regid", &alice, "--clear-groups"]).args(below);
    command.args([
        "curl",
        "-sS",
        "--unix-socket",
        socket,
        "-H",
        "content-type: application/json",
        "-d",
        &body,
    ]);
    let output = command.arg("http://localhost/").output().await.unwrap();
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)))
}

#[tokio::test(flavor = "multi_thread")]
async fn namespaces_change_neither_who_a_caller_is_nor_what_a_path_means() {
    let server = Server::start(quick());
    let fake_root = ["unshare", "--user", "--map-root-user"];
    let who = curl(&server, &fake_root, method::WHO_AM_I, json!({})).await;
    assert_eq!(who["result"]["uid"], ALICE, "{who}");
    for below in [&[][..], &fake_root] {
        let made = curl(&server, below, method::WORKSPACE_CREATE, wanted("open")).await;
        assert_eq!(made["result"]["uid"], ALICE, "{below:?}: {made}");
        assert_eq!(made["result"]["created"], "2023-11-14T22:13:20Z");
    }
    let container = ["unshare", "--user", "--map-root-user", "--mount"];
    let refused = curl(&server, &container, method::WORKSPACE_CREATE, wanted("open")).await;
    assert_eq!(code(&refused), 1013, "{refused}");
    let listed = curl(&server, &container, method::WORKSPACE_LIST, json!({})).await;
    assert_eq!(listed["result"]["workspaces"].as_array().unwrap().len(), 1);
    server.stop().await;
}

#[test]
fn a_peers_place_is_known_while_it_lives() {
    use scorpio::sys::{
        identity::Identity,
        peer::{Peer, Place},
    };
    let peer = |child: &std::process::Child| {
        let pid = rustix::process::Pid::from_child(child);
        let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
        Peer { identity: Identity::root(), pid: child.id(), pidfd: Some(pidfd) }
    };
    let start = |program: &str, args: &[&str]| {
        let mut child = std::process::Command::new(program)
            .args(args)
            .args(["sh", "-c", "echo; read line"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        // One line says that it is where it is going to be.
        child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        child
    };
    let mut here = start("env", &[]);
    let same = peer(&here);
    assert_eq!(same.place().unwrap(), Place::Same);
    here.kill().unwrap();
    here.wait().unwrap();
    assert!(same.has_ended());
    assert_eq!(same.place().unwrap(), Place::Ended);
    let mut elsewhere = start("unshare", &["--mount"]);
    assert_eq!(peer(&elsewhere).place().unwrap(), Place::Elsewhere);
    elsewhere.kill().unwrap();
    elsewhere.wait().unwrap();
    let unknown = Peer { identity: Identity::root(), pid: 0, pidfd: None };
    assert_eq!(unknown.place().unwrap(), Place::Elsewhere);
}
