//! `scorpioctl` against a socket that answers as the contract says: what each verb asks, in which order, and how it ends.
#![allow(clippy::unwrap_used)] // a test that cannot go on fails

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::{
        fs::symlink,
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::{Arc, Mutex, mpsc},
};

use serde_json::{Value, json};

type Answer = dyn Fn(&str, &Value) -> Option<Result<Value, Value>> + Send + Sync;

/// A socket with scripted answers. `None` keeps the caller waiting.
struct Scripted {
    place: tempfile::TempDir,
    calls: Arc<Mutex<Vec<(String, Value)>>>,
    hung_up: mpsc::Receiver<()>,
}

impl Scripted {
    fn new(
        answer: impl Fn(&str, &Value) -> Option<Result<Value, Value>> + Send + Sync + 'static,
    ) -> Scripted {
        let place = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(place.path().join("s")).unwrap();
        let calls = Arc::new(Mutex::new(Vec::new()));
        let (sender, hung_up) = mpsc::channel();
        let answer: Arc<Answer> = Arc::new(answer);
        let log = calls.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (answer, log, sender) = (answer.clone(), log.clone(), sender.clone());
                std::thread::spawn(move || {
                    serve(&stream.unwrap(), &*answer, &log);
                    let _ = sender.send(());
                });
            }
        });
        Scripted { place, calls, hung_up }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_scorpioctl"));
        command.arg("--socket").arg(self.place.path().join("s")).args(arguments);
        command
            .current_dir(self.place.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        // The temporary directory may itself lie behind a symlink.
        fs::canonicalize(self.place.path()).unwrap().join(name)
    }

    /// The calls so far, without those that only look around.
    fn asked(&self, method: &str) -> Vec<Value> {
        let calls = self.calls.lock().unwrap();
        calls.iter().filter(|(name, _)| name == method).map(|(_, params)| params.clone()).collect()
    }
}

fn serve(stream: &UnixStream, answer: &Answer, log: &Mutex<Vec<(String, Value)>>) {
    let mut reader = BufReader::new(stream);
    while let Some(body) = request(&mut reader) {
        let call: Value = serde_json::from_slice(&body).unwrap();
        let method = call["method"].as_str().unwrap().to_owned();
        log.lock().unwrap().push((method.clone(), call["params"].clone()));
        let Some(result) = answer(&method, &call["params"]) else {
            let _ = reader.read(&mut [0]); // returns when the caller hangs up
            return;
        };
        let reply = match result {
            Ok(result) => json!({ "jsonrpc": "2.0", "id": call["id"], "result": result }),
            Err(error) => json!({ "jsonrpc": "2.0", "id": call["id"], "error": error }),
        };
        let body = reply.to_string();
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let mut writer = stream;
        if writer.write_all((head + &body).as_bytes()).is_err() {
            return;
        }
    }
}

fn request(reader: &mut BufReader<&UnixStream>) -> Option<Vec<u8>> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(body)
}

fn view(id: &str, mount_point: &Path) -> Value {
    json!({
        "id": id, "state": "mounted", "uid": 1000, "user": "alice", "origin": "linux", "path": "", "rev": "v6.12",
        "commit": "adc218676eef25575469234709c2d87185ca223a", "tree": "4b825dc642cb6eb9a060e54bf8d69288fbee4904",
        "mount_point": mount_point, "ephemeral": false, "read_only": false, "labels": {},
        "created": "2026-01-02T03:04:05Z"
    })
}

fn refusal(kind: &str, message: &str) -> Value {
    json!({ "code": 1000, "message": message, "data": { "kind": kind, "request_id": "r-1", "retryable": false } })
}

fn none() -> Value {
    json!({ "workspaces": [] })
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

const ID: &str = "abcdefghijkm";

#[test]
fn mount_makes_the_directory_and_prints_the_id() {
    let daemon = Scripted::new(|method, params| {
        Some(Ok(match method {
            "workspace.list" => none(),
            _ => view(ID, Path::new(params["mount_point"].as_str().unwrap())),
        }))
    });
    symlink(daemon.place.path(), daemon.path("link")).unwrap();
    let output = daemon.run(&[
        "mount",
        "linux:/drivers/",
        "link/new",
        "--rev",
        "v6.12",
        "--ephemeral",
        "--read-only",
        "--label",
        "a=b",
        "--ttl",
        "2h",
        "--mode",
        "755",
    ]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert_eq!(out(&output), format!("{ID}\n"));
    assert!(err(&output).starts_with("mounted linux: (v6.12, adc218676eef) at "), "{}", err(&output));
    assert!(daemon.path("new").is_dir());
    assert_eq!(
        daemon.asked("workspace.create"),
        [json!({
            "origin": "linux", "path": "drivers", "rev": "v6.12", "mount_point": daemon.path("new"),
            "ephemeral": true, "read_only": true, "labels": { "a": "b" }, "ttl_s": 7200, "mode": "0755"
        })]
    );
    let quiet = daemon.run(&["mount", "linux:", "new", "--quiet"]);
    assert_eq!((out(&quiet), err(&quiet)), (format!("{ID}\n"), String::new()));
    let json = daemon.run(&["mount", "linux:", "new", "--quiet", "--json"]);
    let shown: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(shown, view(ID, &daemon.path("new")));
}

#[test]
fn an_at_sign_is_the_paths_where_no_revision_follows_it() {
    let daemon = Scripted::new(|method, params| {
        Some(match (method, params["rev"].as_str()) {
            ("workspace.list", _) => Ok(none()),
            (_, Some(rev)) => Err(refusal("NoSuchRevision", &format!("there is no revision `{rev}`"))),
            (_, None) => Ok(view(ID, Path::new("/x"))),
        })
    });
    let output = daemon.run(&["mount", "web:node_modules/@types", "dir"]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    let asked: Vec<_> = daemon
        .asked("workspace.create")
        .iter()
        .map(|params| (params["path"].clone(), params["rev"].clone()))
        .collect();
    assert_eq!(asked, [(json!("node_modules"), json!("types")), (json!("node_modules/@types"), Value::Null)]);
}

#[test]
fn a_refused_mount_says_why_and_leaves_no_directory() {
    let daemon = Scripted::new(|method, params| {
        Some(match (method, params["rev"].as_str()) {
            ("workspace.list", _) => Ok(none()),
            (_, Some(rev)) => Err(refusal("NoSuchRevision", &format!("there is no revision `{rev}`"))),
            (_, None) => Err(refusal("NoSuchPath", "there is no directory `a@v9`")),
        })
    });
    let output = daemon.run(&["mount", "linux:a@v9", "dir"]);
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(
        err(&output),
        "error: there is no revision `v9`\n  why: taken as a part of the path: there is no directory `a@v9`\n  \
         request r-1 (journalctl SCORPIO_REQUEST_ID=r-1)\n"
    );
    assert!(!daemon.path("dir").exists());
    // A directory that was there before stays.
    fs::create_dir(daemon.path("dir")).unwrap();
    assert_eq!(daemon.run(&["mount", "linux:a@v9", "dir"]).status.code(), Some(3));
    assert!(daemon.path("dir").is_dir());
}

#[test]
fn ctrl_c_hangs_up_so_that_the_daemon_takes_the_mount_back() {
    let (sender, asked) = mpsc::channel();
    let sender = Mutex::new(sender);
    let daemon = Scripted::new(move |method, _| {
        if method == "workspace.list" {
            return Some(Ok(none()));
        }
        sender.lock().unwrap().send(()).unwrap();
        None
    });
    let child = daemon.command(&["mount", "linux:", "dir"]).spawn().unwrap();
    asked.recv().unwrap();
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(child.id().try_into().unwrap()),
        nix::sys::signal::Signal::SIGINT,
    )
    .unwrap();
    daemon.hung_up.recv().unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", err(&output));
    assert!(err(&output).contains("the daemon takes back what was begun"), "{}", err(&output));
    assert!(!daemon.path("dir").exists());
}

#[test]
fn a_directory_is_matched_with_its_workspace_without_looking_into_it() {
    let place = Arc::new(Mutex::new(PathBuf::new()));
    let at = place.clone();
    let daemon = Scripted::new(move |method, params| {
        Some(Ok(match method {
            // Not one's own: found among those of all users.
            "workspace.list" if params["all"] == false => none(),
            "workspace.list" => json!({ "workspaces": [view(ID, &at.lock().unwrap())] }),
            _ => json!({}),
        }))
    });
    // Nothing is at the mount point: only its name matters.
    *place.lock().unwrap() = daemon.path("real/src");
    symlink("real", daemon.path("link")).unwrap();
    let output = daemon.run(&["unmount", "link/./src/"]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert_eq!(daemon.asked("workspace.unmount"), [json!({ "id": ID, "lazy": false })]);
    let inside = daemon.run(&["info", "link/src/sub/dir", "--json"]);
    assert_eq!(inside.status.code(), Some(0), "{}", err(&inside));
    // What ends a workspace takes its mount point, not any directory in it.
    let inside = daemon.run(&["remove", "link/src/sub", "--discard"]);
    assert_eq!(inside.status.code(), Some(3));
    assert!(err(&inside).contains("no workspace of yours is at "), "{}", err(&inside));
    assert!(daemon.asked("workspace.remove").is_empty());
}

#[test]
fn a_list_of_many_pages_is_read_to_its_end_and_an_endless_one_is_not() {
    let daemon = Scripted::new(|_, params| {
        Some(Ok(match params["after"].as_str() {
            None => json!({ "workspaces": [view(ID, Path::new("/a"))], "next": ID }),
            Some(_) => json!({ "workspaces": [view("nopqrstuvwxy", Path::new("/b"))] }),
        }))
    });
    let output = daemon.run(&["list", "--label", "k=v"]);
    assert_eq!(
        out(&output),
        "ID            STATE    SOURCE        MOUNT POINT\n\
         abcdefghijkm  mounted  linux:@v6.12  /a\n\
         nopqrstuvwxy  mounted  linux:@v6.12  /b\n"
    );
    assert_eq!(daemon.asked("workspace.list")[0]["labels"], json!({ "k": "v" }));
    let endless = Scripted::new(|_, _| Some(Ok(json!({ "workspaces": [], "next": ID }))));
    let output = endless.run(&["list"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(err(&output).contains("its list has no end"), "{}", err(&output));
}

#[test]
fn draining_waits_until_nothing_is_mounted_and_says_who_is_left() {
    let looks = Mutex::new(0);
    let daemon = Scripted::new(move |method, _| {
        Some(Ok(match method {
            "drain.begin" => json!({ "draining": true, "since": "2026-01-02T03:04:05Z", "mounted": 1 }),
            "drain.end" => json!({ "draining": false, "mounted": 0 }),
            "health" => {
                let mut looks = looks.lock().unwrap();
                *looks += 1;
                let there =
                    if *looks < 3 { json!({ "mounting": 1, "failed": 1 }) } else { json!({ "failed": 1 }) };
                json!({
                    "version": "0.1.0", "pid": 1, "uptime_s": 5, "lower": "shared", "authorizer": "static",
                    "workspaces": there, "problems": []
                })
            }
            _ => none(),
        }))
    });
    let output = daemon.run(&["drain", "--timeout", "60s"]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert_eq!(daemon.asked("health").len(), 3);
    assert!(
        err(&output).contains("no new mounts are taken") && err(&output).ends_with("nothing is mounted\n")
    );
    let output = daemon.run(&["drain", "--undo", "--json"]);
    assert_eq!(out(&output), "{\"draining\":false,\"mounted\":0,\"left\":[]}\n");
    assert_eq!((daemon.asked("drain.begin").len(), daemon.asked("drain.end").len()), (1, 1));
}

#[test]
fn who_does_not_unmount_in_time_is_named_and_the_end_is_6() {
    let daemon = Scripted::new(|method, _| {
        Some(Ok(match method {
            "drain.begin" => json!({ "draining": true, "mounted": 1 }),
            "health" => json!({
                "version": "0.1.0", "pid": 1, "uptime_s": 5, "lower": "shared", "authorizer": "static",
                "workspaces": { "mounted": 1 }, "draining": true, "problems": []
            }),
            _ => json!({ "workspaces": [view(ID, Path::new("/a"))] }),
        }))
    });
    let output = daemon.run(&["drain", "--timeout", "0s"]);
    assert_eq!(output.status.code(), Some(6), "{}", err(&output));
    assert!(out(&output).ends_with(&format!("{ID}  mounted  /a\n")), "{}", out(&output));
    // Without a time nobody is waited for.
    assert_eq!(daemon.run(&["drain"]).status.code(), Some(0));
}

#[test]
fn what_was_written_is_counted_on_all_pages() {
    let usage = |id: &str| json!({ "id": id, "uid": 1000, "mount_point": "/a", "bytes": 4096, "inodes": 2 });
    let daemon = Scripted::new(move |_, params| {
        Some(Ok(match params["after"].as_str() {
            None => json!({ "workspaces": [usage(ID)], "next": ID }),
            Some(_) => json!({ "workspaces": [usage("nopqrstuvwxy")] }),
        }))
    });
    let output = daemon.run(&["du", "--json"]);
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(found, json!({ "workspaces": [usage(ID), usage("nopqrstuvwxy")] }));
    assert!(out(&daemon.run(&["du", "--all"])).ends_with("\n2 workspaces take 8.0 KiB and 4 inodes.\n"));
    assert_eq!(daemon.asked("workspace.usage")[2], json!({ "all": true }));
}

#[test]
fn the_daemons_refusal_decides_the_exit_status() {
    for (kind, code) in [
        ("NotAuthorised", 4),
        ("Busy", 6),
        ("UnsavedChanges", 6),
        ("OriginUnavailable", 7),
        ("NoSuchWorkspace", 3),
        ("Internal", 1),
        ("OriginDenied", 4),
        ("Stopping", 5),
    ] {
        let daemon = Scripted::new(move |_, _| Some(Err(refusal(kind, "it cannot be done"))));
        let output = daemon.run(&["remove", ID]);
        assert_eq!(output.status.code(), Some(code), "{kind}: {}", err(&output));
        assert!(err(&output).starts_with("error: it cannot be done\n"), "{}", err(&output));
    }
}

#[test]
fn json_is_the_contracts_own() {
    let health = json!({
        "version": env!("CARGO_PKG_VERSION"), "pid": 1, "uptime_s": 5, "lower": "shared", "authorizer": "static",
        "workspaces": {}, "problems": ["Origin `x` does not answer."]
    });
    let answer = health.clone();
    let daemon = Scripted::new(move |_, _| Some(Ok(answer.clone())));
    let output = daemon.run(&["health", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(serde_json::from_slice::<Value>(&output.stdout).unwrap(), health);
}

#[test]
fn an_answer_that_breaks_the_contract_is_no_panic() {
    let daemon = Scripted::new(|_, _| Some(Ok(json!("what?"))));
    let output = daemon.run(&["health"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(err(&output).contains("different versions"), "{}", err(&output));
}
