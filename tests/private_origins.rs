//! Origins that not everybody may read: whose credentials they are read with, and what others learn of them. Needs root.

#![allow(clippy::unwrap_used)] // a test that fails panics

mod mega_server;
mod support;

use std::{
    fs,
    io::Write,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    process::{Command, Output, Stdio},
};

use mega_server::{Endpoint, MegaServer};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use support::{ALICE, BOB, Host, LOWERS, lower};

/// `same` lies in both directories. What is read apart has a directory apart: small files come with the sizes of their siblings.
const MONOREPO: &str = r"
    mkdir mono && cd mono && git init -q -b main . && git config user.name t && git config user.email t@t
    mkdir open secret; echo open >open/f; echo both | tee open/same >secret/same
    for name in early late later latest; do mkdir secret/$name; echo $name >secret/$name/f; done; git add -A; git commit -q -m first";

/// A server of which `/secret` is open to `alice-1` and `alice-2` alone, and everything to nobody without a token.
fn server(host: &Host) -> MegaServer {
    host.sh(MONOREPO);
    let server = MegaServer::start(&host.path("mono"));
    server.restrict("/", &["alice-1", "alice-2", "bob-1"]);
    server
}

/// A daemon over [`server`]. The origin is written into the configuration once the server's address is known.
fn host(lower_kind: &str, origin: &str) -> (MegaServer, Host) {
    let mut host = Host::new(&lower(lower_kind));
    let server = server(&host);
    let config = host.path("scorpio.toml");
    let mut text = fs::read_to_string(&config).unwrap();
    text.push_str(&format!("\n[origin.mega]\nkind = \"mega\"\nurl = \"{}\"\n{origin}\n", server.url()));
    fs::write(&config, text).unwrap();
    host.start();
    (server, host)
}

fn mount(host: &Host, uid: u32, source: &str, name: &str) -> (std::path::PathBuf, String) {
    let point = host.point(uid, name);
    let view = host.json(uid, &["mount", source, point.to_str().unwrap()]);
    assert_eq!(view["origin"], "mega", "{view}");
    (point, view["id"].as_str().unwrap().to_owned())
}

fn refused_mount(host: &Host, uid: u32, source: &str, name: &str) -> (i32, String) {
    let point = host.point(uid, name);
    let refused = host.refused(uid, &["mount", source, point.to_str().unwrap()]);
    assert_eq!(host.json(uid, &["list"]), json!([]));
    refused
}

fn login(host: &Host, uid: u32, token: &str) -> Value {
    let answer = host.call(uid, "credential.store", &json!({"origin": "mega", "secret": token}));
    if answer["error"].is_null() { answer["result"].clone() } else { answer["error"]["data"].clone() }
}

/// `scorpioctl login` as a script runs it.
fn login_by_command(host: &Host, uid: u32, input: &str) -> Output {
    let mut command = host.ctl_command(uid, &["login", "mega"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

/// What `cat` says, as `uid`.
fn cat(host: &Host, uid: u32, path: &Path) -> Result<String, String> {
    let output = host.try_sh_as(uid, &format!("cat '{}'", path.display()));
    match output.status.success() {
        true => Ok(String::from_utf8(output.stdout).unwrap()),
        false => Err(String::from_utf8(output.stderr).unwrap()),
    }
}

fn is_eio(read: Result<String, String>) -> bool {
    read.is_err_and(|told| told.contains("Input/output error"))
}

fn logged_in(host: &Host, uid: u32) -> Value {
    let origins = host.json(uid, &["origins"]);
    origins.as_array().unwrap().iter().find(|origin| origin["name"] == "mega").unwrap()["logged_in"].clone()
}

#[test]
fn a_user_reads_with_the_login_of_that_user_and_no_other() {
    for kind in LOWERS {
        let (server, host) = host(kind, "read_with = \"user\"");
        server.restrict("/secret", &["alice-1", "alice-2"]);

        // Without a login, and with one that the origin refuses, there is nothing, and nothing is left.
        assert_eq!(refused_mount(&host, ALICE, "mega:/", "none"), (4, "OriginDenied".to_owned()));
        let request = json!({"origin": "mega", "mount_point": host.point(ALICE, "never").to_str().unwrap()});
        assert_eq!(
            host.call(ALICE, "workspace.create", &request)["error"]["message"],
            format!(
                "origin `mega` refuses access: credential `login of user {ALICE}`: there is none; log in with `scorpioctl login mega`"
            )
        );
        assert_eq!(login(&host, ALICE, "wrong")["kind"], "OriginDenied");
        assert_eq!(login(&host, ALICE, "two words")["kind"], "BadParameter");
        assert_eq!((logged_in(&host, ALICE), logged_in(&host, BOB)), (json!(false), json!(false)));

        let told = login_by_command(&host, ALICE, "alice-1\n");
        assert!(told.status.success(), "{told:?}");
        assert_eq!(login(&host, BOB, "bob-1")["tried"], true);
        assert_eq!((logged_in(&host, ALICE), logged_in(&host, BOB)), (json!(true), json!(true)));
        // One that is refused does not take the place of one that works, not even while it is tried.
        let kept = host.path(&format!("state/credentials/mega/{ALICE}"));
        let before = (fs::read(&kept).unwrap(), fs::metadata(&kept).unwrap().ino());
        assert_eq!(login(&host, ALICE, "wrong")["kind"], "OriginDenied");
        assert_eq!((fs::read(&kept).unwrap(), fs::metadata(&kept).unwrap().ino()), before);

        let (alice, _) = mount(&host, ALICE, "mega:/secret", "alice");
        assert_eq!(cat(&host, ALICE, &alice.join("early/f")).unwrap(), "early\n");
        assert_eq!(cat(&host, ALICE, &alice.join("same")).unwrap(), "both\n");

        // Not even by an id that a listing of his own names, and the same for what is cached and what is not.
        assert_eq!(refused_mount(&host, BOB, "mega:/secret", "secret"), (4, "OriginDenied".to_owned()));
        let (bob, _) = mount(&host, BOB, "mega:/", "bob");
        assert!(is_eio(cat(&host, BOB, &bob.join("secret/early/f"))));
        assert!(is_eio(cat(&host, BOB, &bob.join("secret/late/f"))));
        let shows = |name: &str| {
            host.try_sh_as(BOB, &format!("stat '{}'", bob.join(name).display())).status.success()
        };
        assert!(!shows("secret/early/f") && !shows("secret/late/f") && shows("secret") && shows("open/f"));

        // The bytes that alice had fetched are fetched for bob by bob.
        let blob = host.sh("git -C mono rev-parse HEAD:open/same").trim().to_owned();
        let by = |token: &str| {
            let like = |seen: &mega_server::Seen| {
                seen.endpoint == Endpoint::FileBlob
                    && seen.target == blob
                    && seen.token.as_deref() == Some(token)
            };
            server.count(like)
        };
        assert_eq!(by("alice-1"), 1);
        assert!(is_eio(cat(&host, BOB, &bob.join("open/same"))), "the server keeps this blob from bob");
        assert!(by("bob-1") >= 1);

        // Each sees the counters of views of their own.
        let origins = |uid| {
            host.json(uid, &["stats"])["origins"].as_object().unwrap().keys().cloned().collect::<Vec<_>>()
        };
        assert!(origins(ALICE).contains(&format!("mega+{ALICE}")), "{:?}", origins(ALICE));
        assert!(!origins(BOB).contains(&format!("mega+{ALICE}")), "{:?}", origins(BOB));
        // Such a name is nobody's to ask for.
        assert_eq!(refused_name(&host, BOB, &format!("mega+{ALICE}")), "BadParameter");

        for token in ["alice-1", "bob-1", "wrong"] {
            assert!(!host.log().contains(token), "the log holds a token");
        }
    }
}

fn refused_name(host: &Host, uid: u32, origin: &str) -> String {
    let point = host.point(uid, "name");
    let request = json!({"origin": origin, "mount_point": point.to_str().unwrap()});
    host.call(uid, "workspace.create", &request)["error"]["data"]["kind"].as_str().unwrap().to_owned()
}

#[test]
fn a_login_that_expires_is_eio_and_a_line_that_names_it_until_the_next() {
    for kind in LOWERS {
        let (server, mut host) = host(kind, "read_with = \"user\"");
        assert_eq!(login(&host, ALICE, "alice-1")["tried"], true);
        let (point, id) = mount(&host, ALICE, "mega:/secret", "alice");
        assert_eq!(cat(&host, ALICE, &point.join("early/f")).unwrap(), "early\n");

        server.expire("alice-1", true);
        assert!(is_eio(cat(&host, ALICE, &point.join("late/f"))));
        assert_eq!(cat(&host, ALICE, &point.join("early/f")).unwrap(), "early\n");
        let name = format!("login of user {ALICE}");
        assert!(host.log().contains(&name), "{}", host.log());

        // A new login heals the mount that is there.
        assert_eq!(login(&host, ALICE, "alice-2")["tried"], true);
        assert_eq!(cat(&host, ALICE, &point.join("late/f")).unwrap(), "late\n");

        // After a restart what is stored is used, without the user.
        host.end(Signal::SIGTERM);
        let secret = host.path(&format!("state/credentials/mega/{ALICE}"));
        let metadata = fs::metadata(&secret).unwrap();
        assert_eq!((metadata.permissions().mode() & 0o7777, metadata.uid()), (0o600, 0));
        host.start();
        assert_eq!(host.json(ALICE, &["info", &id])["state"], "mounted");
        assert_eq!(cat(&host, ALICE, &point.join("later/f")).unwrap(), "later\n");

        // After a logout, nothing of it is.
        assert_eq!(host.json(ALICE, &["logout", "mega"])["forgotten"], true);
        assert_eq!(host.json(ALICE, &["logout", "mega"])["forgotten"], false);
        assert!(!secret.exists());
        assert!(is_eio(cat(&host, ALICE, &point.join("latest/f"))));
        assert_eq!(cat(&host, ALICE, &point.join("later/f")).unwrap(), "later\n");

        // One that is damaged is named, and another login replaces it.
        assert_eq!(login(&host, ALICE, "alice-2")["tried"], true);
        fs::write(&secret, "scorpio-credential 1 00000000 3\nabc").unwrap();
        host.end(Signal::SIGTERM);
        host.start();
        assert!(is_eio(cat(&host, ALICE, &point.join("latest/f"))));
        assert!(host.log().contains("is damaged"), "{}", host.log());
        assert_eq!(login(&host, ALICE, "alice-2")["tried"], true);
        assert_eq!(cat(&host, ALICE, &point.join("latest/f")).unwrap(), "latest\n");
    }
}

#[test]
fn the_services_credential_opens_its_origin_for_whom_the_origin_allows() {
    for kind in LOWERS {
        let mut host = Host::new(&lower(kind));
        let server = server(&host);
        let (config, credentials) = (host.path("scorpio.toml"), host.path("credentials"));
        let text = fs::read_to_string(&config).unwrap();
        let origin = format!(
            "\n[origin.mega]\nkind = \"mega\"\nurl = \"{}\"\ncredential = \"mega-token\"\nallow = [\"{ALICE}\"]\n",
            server.url()
        );
        fs::write(&config, text.clone() + &origin).unwrap();
        fs::create_dir(&credentials).unwrap();
        host.set("CREDENTIALS_DIRECTORY", credentials.to_str().unwrap());
        host.start();

        // Missing.
        assert_eq!(refused_mount(&host, ALICE, "mega:/", "early"), (4, "OriginDenied".to_owned()));
        assert!(host.log().contains("mega-token"), "{}", host.log());
        assert_eq!(login(&host, ALICE, "alice-1")["kind"], "WrongState");

        // There from now on, without a restart.
        fs::write(credentials.join("mega-token"), "alice-1\n").unwrap();
        let (point, id) = mount(&host, ALICE, "mega:/secret", "alice");
        assert_eq!(cat(&host, ALICE, &point.join("early/f")).unwrap(), "early\n");
        assert_eq!(refused_mount(&host, BOB, "mega:/", "bob"), (3, "NoSuchOrigin".to_owned()));
        assert_eq!(host.json(BOB, &["origins"]).as_array().unwrap().len(), 1);
        assert!(host.json(BOB, &["stats"])["origins"].get("mega").is_none());

        // Expired, then renewed in place.
        server.expire("alice-1", true);
        assert!(is_eio(cat(&host, ALICE, &point.join("late/f"))));
        fs::write(credentials.join("mega-token"), "alice-2\n").unwrap();
        assert_eq!(cat(&host, ALICE, &point.join("late/f")).unwrap(), "late\n");

        // A right that was taken away ends with the mount that is there.
        host.end(Signal::SIGTERM);
        fs::write(&config, text + &origin.replace(&ALICE.to_string(), &BOB.to_string())).unwrap();
        host.start();
        assert_eq!(host.json(ALICE, &["info", &id])["state"], "mounted");
        host.json(ALICE, &["unmount", point.to_str().unwrap()]);
        let again = host.refused(ALICE, &["mount", "--workspace", &id]);
        assert_eq!(again, (3, "NoSuchOrigin".to_owned()));
        let by_root = host.refused(0, &["mount", "--workspace", &id]);
        assert_eq!(by_root, (3, "NoSuchOrigin".to_owned()));
        assert!(!host.log().contains("alice-1") && !host.log().contains("alice-2"));
    }
}

/// Accounts that every system has: who is given something must have one.
const DAEMON: u32 = 1;
const SYS: u32 = 3;

#[test]
fn who_is_given_a_workspace_reads_its_origin_with_a_login_of_their_own() {
    for kind in LOWERS {
        let mut host = Host::new(&lower(kind));
        let config = host.path("scorpio.toml");
        let text = fs::read_to_string(&config).unwrap().replace("mount = [", "mount = [\"1\", \"3\", ");
        let server = server(&host);
        server.restrict("/secret", &["alice-1"]);
        let origin = format!("kind = \"mega\"\nurl = \"{}\"\nread_with = \"user\"\n", server.url());
        fs::write(&config, format!("{text}\n[origin.mega]\n{origin}")).unwrap();
        host.start();
        assert_eq!(login(&host, DAEMON, "alice-1")["tried"], true);
        let (point, id) = mount(&host, DAEMON, "mega:/secret", "first");
        assert_eq!(cat(&host, DAEMON, &point.join("early/f")).unwrap(), "early\n");
        host.sh_as(
            DAEMON,
            &format!("echo changed >{}/early/f; echo new >{}/new", point.display(), point.display()),
        );
        host.json(0, &["give", &id, &SYS.to_string()]);

        // Theirs is what was written; what was read for the giver is not.
        let at = host.point(SYS, "second");
        let again = ["mount", "--workspace", &id, at.to_str().unwrap()];
        let mounted = host.ctl(SYS, &again);
        let unread = ["late/f", "same"].map(|name| cat(&host, SYS, &at.join(name)));
        assert!(!mounted.status.success() || unread.into_iter().all(is_eio), "{mounted:?}");
        assert_eq!(login(&host, SYS, "bob-1")["tried"], true);
        let mounted = host.ctl(SYS, &again);
        assert!(!mounted.status.success() || is_eio(cat(&host, SYS, &at.join("late/f"))), "{mounted:?}");
        assert_eq!(login(&host, SYS, "alice-1")["tried"], true);
        if host.json(SYS, &["info", &id])["state"] != "mounted" {
            host.json(SYS, &again);
        }
        assert_eq!(cat(&host, SYS, &at.join("early/f")).unwrap(), "changed\n");
        assert_eq!(cat(&host, SYS, &at.join("new")).unwrap(), "new\n");
        assert_eq!(cat(&host, SYS, &at.join("late/f")).unwrap(), "late\n");
        assert_eq!(host.refused(DAEMON, &["info", &id]).1, "NoSuchWorkspace");
    }
}

#[test]
fn a_token_is_read_from_a_terminal_without_being_shown() {
    let (_server, host) = host("auto", "read_with = \"user\"");
    let seen = typed_at_the_prompt(&host, b"alice-1\n");
    assert!(seen.contains("mega takes the token") && !seen.contains("alice-1"), "{seen}");
    assert!(has_words(&seen, &["code=0", "echo"]), "{seen}");
    assert_eq!(logged_in(&host, ALICE), json!(true));
}

#[test]
fn whoever_interrupts_a_login_has_the_terminal_as_it_was() {
    let (_server, host) = host("auto", "read_with = \"user\"");
    let seen = typed_at_the_prompt(&host, b"alice-1\x03");
    assert!(seen.contains("no token was sent") && !seen.contains("alice-1"), "{seen}");
    assert!(has_words(&seen, &["code=130", "isig", "icanon", "echo"]), "{seen}");
    assert_eq!(logged_in(&host, ALICE), json!(false));
}

/// A mode that is off is another word: `-echo`.
fn has_words(text: &str, words: &[&str]) -> bool {
    words.iter().all(|word| text.split_whitespace().any(|found| found == *word))
}

/// What a terminal shows of Alice's login, its exit code and the terminal's modes afterwards included, when `keys` are
/// typed as soon as she is asked.
fn typed_at_the_prompt(host: &Host, keys: &[u8]) -> String {
    let login = format!(
        "{} --socket {} login mega; echo code=$?; stty -a",
        env!("CARGO_BIN_EXE_scorpioctl"),
        host.path("scorpio.sock").display()
    );
    // `script` gives it a terminal.
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--command", &login, "/dev/null"]);
    script.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = support::become_user(&mut script, ALICE).spawn().unwrap();
    let mut seen = String::new();
    let mut out = child.stdout.take().unwrap();
    let mut byte = [0];
    while !seen.ends_with("Token for mega: ") {
        assert_eq!(std::io::Read::read(&mut out, &mut byte).unwrap(), 1, "{seen}");
        seen.push(char::from(byte[0]));
    }
    let mut hand = child.stdin.take().unwrap();
    hand.write_all(keys).unwrap();
    std::io::Read::read_to_string(&mut out, &mut seen).unwrap();
    drop(hand);
    assert!(child.wait().unwrap().success(), "{seen}");
    seen
}
