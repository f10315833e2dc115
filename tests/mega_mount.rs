//! Mounts of what a Mega server serves: the same as a plain checkout, while the server is well; errors in time, and no
//! others, while it is not. Needs root.
#![allow(clippy::unwrap_used)] // a test that fails panics

mod mega_ground;
mod mega_server;
mod origin_fixture;
mod support;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use mega_ground::{Ground, commit_entry};
use mega_server::{
    Endpoint,
    faults::{Act, Rule},
};
use nix::sys::signal::Signal::SIGTERM;
use origin_fixture::oid;
use support::{
    ALICE, BOB, Host, LOWERS, lower,
    reference::{ODD_THINGS, Reference, real_files},
};

/// A repository "of a few thousand files".
const ENOUGH_FILES: usize = 2500;
/// A crate with more than this is left out: bytes of bindings would only make the test long.
const LARGEST_CRATE_KIB: usize = 3000;
/// How long a process in a mount waits for the server.
const DEADLINE: Duration = Duration::from_secs(3);
/// What it may take beyond that on a loaded machine, its own start included.
const MARGIN: Duration = Duration::from_secs(4);

/// A directory whose listing does not fit into one answer.
const MANY: &str = "mkdir many; seq 500 | while read n; do echo $n > many/file-$n; done";

/// An id of nothing that the server has.
const NOWHERE: &str = "1234567890123456789012345678901234567890";

struct World {
    host: Host,
    ground: Ground,
}

impl World {
    /// A server that will be ill: waits end with [`DEADLINE`].
    fn new(kind: &str, script: &str) -> World {
        let deadline = format!("[fetch]\ndeadline = \"{}s\"\n", DEADLINE.as_secs());
        World::of(&format!("{}{deadline}", lower(kind)), Ground::new(script))
    }

    fn of(config: &str, ground: Ground) -> World {
        let mut host = Host::new(&format!("{config}{}", origin(&ground)));
        host.sh("git init -q repo");
        host.start();
        World { host, ground }
    }

    #[track_caller]
    fn mount(&self, uid: u32, spec: &str, name: &str) -> PathBuf {
        let point = self.host.point(uid, name);
        self.host.json(uid, &["mount", spec, point.to_str().unwrap()]);
        point
    }

    /// What a process of alice's comes to, and how long it took.
    fn run(&self, at: &Path, script: &str) -> (Result<String, String>, Duration) {
        let begin = Instant::now();
        let output = self.host.try_sh_as(ALICE, &format!("cd '{}'; {script}", at.display()));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let said = if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) };
        (said, begin.elapsed())
    }

    /// The script fails with EIO, in time.
    #[track_caller]
    fn assert_eio(&self, at: &Path, script: &str, what: &str) {
        let (said, took) = self.run(at, script);
        assert!(
            said.as_ref().is_err_and(|said| said.contains("Input/output error")),
            "{what}: {script}: {said:?}"
        );
        assert!(took < DEADLINE + MARGIN, "{what}: {script} took {took:?}");
    }

    #[track_caller]
    fn assert_says(&self, at: &Path, script: &str, expected: &str, what: &str) {
        let (said, _) = self.run(at, script);
        assert_eq!(said.as_deref(), Ok(expected), "{what}: {script}\n{}", self.host.log());
    }
}

/// The configuration of the ground's server.
fn origin(ground: &Ground) -> String {
    format!("[origin.mega]\nkind = \"mega\"\nurl = \"{}\"\n", ground.server.url())
}

/// Mounts the top for alice, and compares it with plain checkouts of what it is made of.
fn assert_is_a_plain_checkout<'w>(world: &'w World, repositories: &[(&Path, &str)]) -> Reference<'w> {
    let reference = Reference::check_out(&world.host, repositories);
    let point = world.mount(ALICE, "mega:/", "cold");
    reference.assert_read_by_many(ALICE, &point);
    assert_eq!(world.host.json(0, &["stats"])["origins"]["mega"]["failed"], 0);
    reference
}

fn a_cold_mount_is_what_a_plain_checkout_is(kind: &str) {
    let files = real_files(ENOUGH_FILES, LARGEST_CRATE_KIB);
    let ground = Ground::new(&format!("{files}\n{ODD_THINGS}\n{MANY}"));
    commit_entry(&ground.mono, "odd", "160000", NOWHERE, "submodule");
    ground.server.push("main");
    ground.server.disorder(&["/", "/odd"]);
    let world = World::of(&lower(kind), ground);
    let reference = assert_is_a_plain_checkout(&world, &[(&world.ground.mono, "")]);
    assert!(reference.files() > ENOUGH_FILES, "{} files", reference.files());

    // A large blob is asked for its size and for its content.
    let mut asked = BTreeMap::<_, usize>::new();
    for seen in world.ground.server.seen() {
        *asked.entry((seen.endpoint, seen.target)).or_default() += 1;
    }
    let blobs = asked.iter().filter(|((endpoint, _), _)| *endpoint == Endpoint::FileBlob);
    let often: Vec<_> = blobs.filter(|(_, times)| **times > 2).collect();
    assert!(often.is_empty(), "{often:?}");
    let before = world.ground.server.seen().len();
    let bobs = world.mount(BOB, "mega:/", "warm");
    reference.assert_content(BOB, &bobs);
    let later = &world.ground.server.seen()[before..];
    let blobs = later.iter().filter(|seen| seen.endpoint == Endpoint::FileBlob).count();
    assert_eq!(blobs, 0, "what one user read is there for the other");
}

fn repositories_inside_are_shown_as_they_are(kind: &str) {
    let ground =
        Ground::new("mkdir -p project third-party/plain; echo p > project/p; echo q > third-party/plain/q");
    let import = ground.import("imp", &format!("{ODD_THINGS}\n{MANY}\nmkdir inner; echo i > inner/i"));
    commit_entry(&import, "odd", "160000", NOWHERE, "submodule");
    ground.server.push_import("imp", "main");
    ground.server.disorder(&["/third-party"]);
    let second = ground.import("second", "mkdir s; echo s > s/s");
    let world = World::of(&lower(kind), ground);
    let repositories: [(&Path, &str); 3] =
        [(&world.ground.mono, ""), (&import, "third-party/imp"), (&second, "third-party/second")];
    assert_is_a_plain_checkout(&world, &repositories);
    let inner = world.mount(ALICE, "mega:/third-party/imp/inner", "inner");
    world.assert_says(&inner, "cat i", "i\n", "a mount of a part of a repository inside");
}

/// Ways for the server to be ill, and to stop being ill.
const ILLS: [&str; 7] = ["stopped", "black-hole", "truncate", "drop", "wrong-bytes", "empty", "garbage"];

fn fall_ill(ground: &Ground, ill: &str) {
    match ill {
        "stopped" => ground.server.stop(),
        "black-hole" => ground.server.misbehave(Rule::new(Act::BlackHole)),
        "truncate" => ground.server.misbehave(Rule::new(Act::Truncate)),
        "drop" => ground.server.misbehave(Rule::new(Act::Drop)),
        "wrong-bytes" => ground.server.misbehave(Rule::new(Act::WrongBytes)),
        "empty" => ground.server.misbehave(Rule::new(Act::Empty)),
        _ => ground.server.misbehave(Rule::new(Act::Garbage)),
    }
}

fn recover(ground: &Ground, ill: &str) {
    match ill {
        "stopped" => ground.server.resume(),
        _ => ground.server.behave(),
    }
}

fn an_ill_server_is_an_error_in_time_and_heals(kind: &str) {
    let ills = ILLS.join(" ");
    let world = World::new(
        kind,
        &format!(
            "mkdir warm; for n in $(seq 20); do echo warm $n > warm/$n; done
            for ill in {ills}; do mkdir $ill; echo small $ill > $ill/small; head -c 200000 /dev/urandom > $ill/large; done"
        ),
    );
    let point = world.mount(ALICE, "mega:/", "ws");
    world.assert_says(&point, "cat warm/* | wc -l; find . -type f | wc -l", "20\n34\n", "well");
    for ill in ILLS {
        let large =
            world.host.sh(&format!("sha256sum < '{}'", world.ground.mono.join(ill).join("large").display()));
        fall_ill(&world.ground, ill);
        world.assert_eio(&point, &format!("cat {ill}/small"), ill);
        world.assert_eio(&point, &format!("cat {ill}/large"), ill);
        world.assert_says(&point, "cat warm/* | wc -l", "20\n", ill);
        world.assert_says(&point, &format!("echo mine > {ill}/mine && cat {ill}/mine"), "mine\n", ill);
        recover(&world.ground, ill);
        world.assert_says(&point, &format!("cat {ill}/small"), &format!("small {ill}\n"), ill);
        world.assert_says(&point, &format!("sha256sum < {ill}/large"), &large, ill);
    }
}

fn a_restart_without_the_server_serves_what_is_cached(kind: &str) {
    let mut world = World::new(
        kind,
        "mkdir a b; for n in $(seq 20); do echo $n > a/$n; head -c 100000 /dev/urandom > b/$n; done",
    );
    let large = world.host.sh(&format!("sha256sum < '{}'", world.ground.mono.join("b/7").display()));
    let point = world.mount(ALICE, "mega:/", "ws");
    world.assert_says(&point, "cat a/* | wc -l; ls b | wc -l; echo mine > mine", "20\n20\n", "well");
    world.ground.server.stop();
    world.host.end(SIGTERM);
    world.host.start();
    world.assert_says(&point, "cat a/* | wc -l; ls b | wc -l; cat mine", "20\n20\nmine\n", "cached");
    world.assert_eio(&point, "cat b/7", "not cached");
    world.ground.server.resume();
    world.assert_says(&point, "sha256sum < b/7", &large, "the server is back");
}

fn a_mount_stays_what_it_was_when_the_head_moves(kind: &str) {
    let many =
        "seq 60 | while read n; do echo $n > $at/$n; done; for n in $(seq 3 3 60); do chmod 755 $at/$n; done";
    let world = World::new(
        kind,
        &format!(
            "mkdir -p a/deep b listed lost; for n in $(seq 20); do echo old $n > a/deep/$n; echo old $n > b/$n; done
            at=listed; {many}; at=lost; {many}"
        ),
    );
    let point = world.mount(ALICE, "mega:/", "old");
    world.assert_says(&point, "ls; ls listed | wc -l", "a\nb\nlisted\nlost\n60\n", "before");
    world
        .ground
        .push("echo new > a/deep/7; rm b/8; echo n > b/new; rm -r lost listed; mkdir lost; echo n > lost/n");
    let moved = "cat a/deep/7 b/8 listed/7; ls b listed | wc -l; stat -c %a listed/3";
    world.assert_says(&point, moved, "old 7\nold 8\n7\n83\n755\n", "moved");
    // What was not listed in time, and cannot be told from what is left, is an error; never what is there now.
    let (lost, took) = world.run(&point, "find lost | wc -l");
    let is_eio = lost.as_ref().is_err_and(|said| said.contains("Input/output error"));
    assert!(is_eio || lost.as_deref() == Ok("61\n"), "{lost:?}");
    assert!(took < DEADLINE + MARGIN, "{took:?}");
    let new = world.mount(ALICE, "mega:/", "new");
    world.assert_says(&new, "cat a/deep/7 b/new; ls b lost | wc -l", "new\nn\n24\n", "mounted anew");
    world.assert_says(&point, "cat a/deep/7", "old 7\n", "beside the new one");
}

/// Returns when all trees of a workspace have been fetched.
fn until_pinned(host: &Host, id: &str) {
    let begin = Instant::now();
    loop {
        let view = host.json(ALICE, &["info", id]);
        if view["pinned"] == "yes" {
            return;
        }
        assert!(view["pinned"] == "walking" && begin.elapsed() < support::PATIENCE, "{view}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn a_mount_of_the_top_outlives_the_head_it_was_and_the_daemon(kind: &str) {
    let mut world = World::new(
        kind,
        "mkdir -p a/deep b; for n in $(seq 80); do echo old $n > a/deep/$n; echo old $n > b/$n; done; echo old > TOP",
    );
    let old = world.ground.server.head().to_string();
    let point = world.host.point(ALICE, "ws");
    let view = world.host.json(ALICE, &["mount", "mega:/", point.to_str().unwrap()]);
    let id = view["id"].as_str().unwrap().to_owned();
    until_pinned(&world.host, &id);
    // Nothing of the old trees can be told from what is there now.
    world
        .ground
        .push("rm -r a b TOP; mkdir a; for n in $(seq 80); do echo new > new$n; echo new > a/$n; done");
    let all = "find . -type f | wc -l; cat TOP a/deep/7 b/80; echo mine >> b/9; tail -n 2 b/9";
    let is_old = "161\nold\nold 7\nold 80\nold 9\nmine\n";

    world.host.end(SIGTERM);
    world.host.start();
    world.assert_says(&point, all, is_old, "mounted over a restart");

    world.host.json(ALICE, &["unmount", &id]);
    world.host.end(SIGTERM);
    world.host.start();
    let view = world.host.json(ALICE, &["mount", "--workspace", &id]);
    assert_eq!(view["commit"], old);
    world.assert_says(&point, "cat TOP b/9", "old\nold 9\nmine\n", "mounted again after a restart");
    until_pinned(&world.host, &id);

    // Another one on that commit cannot be had any more, unless of a directory below.
    let bobs = world.host.point(BOB, "ws-bob");
    let spec = format!("mega:@{old}");
    let output = world.host.ctl(BOB, &["mount", &spec, bobs.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{said}");
    let head = world.ground.server.head();
    let why = format!(
        "origin `mega` tells of `/` at its newest commit only, which is {head}: what it was at {old}"
    );
    assert!(said.contains(&why) && said.contains("try: mount a directory below `/`"), "{said}");
    let below = world.mount(ALICE, &format!("mega:b@{old}"), "below");
    world.assert_says(&below, "ls | wc -l; cat 9", "80\nold 9\n", "a directory of that commit");
}

fn twenty_readers_are_one_fetch(kind: &str) {
    const AT_ONCE: usize = 20;
    let world = World::new(kind, "echo small > small; head -c 3000000 /dev/urandom > large; echo x > x");
    let points = [ALICE, BOB].map(|uid| world.mount(uid, "mega:/", &format!("ws{uid}")));
    for (name, requests) in [("small", 1), ("large", 2)] {
        let expected = world.host.sh(&format!("sha256sum < '{}'", world.ground.mono.join(name).display()));
        world.ground.server.misbehave(Rule::new(Act::Delay(300)));
        let gate = std::sync::Barrier::new(AT_ONCE);
        std::thread::scope(|scope| {
            for number in 0..AT_ONCE {
                let (host, gate, expected) = (&world.host, &gate, &expected);
                let (uid, point) = [(ALICE, &points[0]), (BOB, &points[1])][number % 2];
                scope.spawn(move || {
                    gate.wait();
                    assert_eq!(
                        host.sh_as(uid, &format!("sha256sum < '{}/{name}'", point.display())),
                        *expected
                    );
                });
            }
        });
        world.ground.server.behave();
        let blob = oid(&world.ground.mono, &format!("HEAD:{name}")).to_string();
        // A large one is asked for its size first.
        assert_eq!(world.ground.server.asked(Endpoint::FileBlob, &blob), requests, "{name}");
    }
}

#[test]
fn a_cold_mount_is_what_a_plain_checkout_is_on_the_shared_lower() {
    a_cold_mount_is_what_a_plain_checkout_is("shared");
}

#[test]
fn a_cold_mount_is_what_a_plain_checkout_is_on_the_owners_lower() {
    a_cold_mount_is_what_a_plain_checkout_is("per-owner");
}

#[test]
fn repositories_inside_are_shown_as_they_are_on_both_lowers() {
    LOWERS.into_iter().for_each(repositories_inside_are_shown_as_they_are);
}

#[test]
fn an_ill_server_is_an_error_in_time_and_heals_on_both_lowers() {
    LOWERS.into_iter().for_each(an_ill_server_is_an_error_in_time_and_heals);
}

#[test]
fn a_restart_without_the_server_serves_what_is_cached_on_both_lowers() {
    LOWERS.into_iter().for_each(a_restart_without_the_server_serves_what_is_cached);
}

#[test]
fn a_mount_stays_what_it_was_when_the_head_moves_on_both_lowers() {
    LOWERS.into_iter().for_each(a_mount_stays_what_it_was_when_the_head_moves);
}

#[test]
fn a_mount_of_the_top_outlives_the_head_it_was_and_the_daemon_on_both_lowers() {
    LOWERS.into_iter().for_each(a_mount_of_the_top_outlives_the_head_it_was_and_the_daemon);
}

#[test]
fn twenty_readers_are_one_fetch_on_both_lowers() {
    LOWERS.into_iter().for_each(twenty_readers_are_one_fetch);
}

#[test]
fn a_file_does_not_wait_for_the_whole_directory_it_is_in() {
    let world = World::new("shared", "mkdir d; seq 400 | while read n; do echo $n > d/$n; done");
    let point = world.mount(ALICE, "mega:/", "ws");
    world.assert_says(&point, "ls d | wc -l", "400\n", "names alone");
    // All sizes of the directory would take ten seconds, and a wait ends after three.
    world.ground.server.misbehave(Rule::new(Act::Delay(200)).on(Endpoint::FileBlob));
    world.assert_says(&point, "cat d/7", "7\n", "the first that is asked for");
    for name in ["399", "200", "11"] {
        world.assert_says(
            &point,
            &format!("cat d/{name}"),
            &format!("{name}\n"),
            "one whose siblings are under way",
        );
    }
}

#[test]
fn an_expired_credential_is_eio_and_a_line_that_names_it() {
    let ground = Ground::new("mkdir a b c; for d in a b c; do echo $d > $d/f; done");
    ground.server.restrict("/", &["first", "second"]);
    let credentials = ground.dir.path().join("credentials");
    std::fs::create_dir(&credentials).unwrap();
    let token = |text: &str| std::fs::write(credentials.join("mega-token"), text).unwrap();
    token("first");
    let mut host = Host::new(&format!("{}credential = \"mega-token\"\n", origin(&ground)));
    host.set("CREDENTIALS_DIRECTORY", credentials.to_str().unwrap());
    host.sh("git init -q repo");
    host.start();
    let world = World { host, ground };
    let point = world.mount(ALICE, "mega:/", "ws");
    world.assert_says(&point, "cat a/f; ls b c", "a\nb:\nf\n\nc:\nf\n", "well");
    world.ground.server.expire("first", true);
    world.assert_eio(&point, "cat b/f", "expired");
    world.assert_says(&point, "cat a/f", "a\n", "what is cached");
    let log = world.host.log();
    let line = log.lines().find(|line| line.contains("a credential does not open its origin")).unwrap();
    assert!(line.contains("mega-token") && line.contains("WARN"), "{line}");
    token("second");
    world.assert_says(&point, "cat b/f", "b\n", "renewed");
    assert!(!world.host.log().contains("first\"") && !log.contains("Bearer"), "no secret is logged");
}

#[test]
fn an_absent_blob_is_an_error_of_that_name_alone() {
    let world = World::new("shared", "mkdir d; echo a > d/a; echo z > d/z");
    // A tree may name a blob that the server does not have.
    commit_entry(&world.ground.mono, "d", "100644", NOWHERE, "gone");
    world.ground.server.push("main");
    let point = world.mount(ALICE, "mega:/", "ws");
    world.assert_says(&point, "ls d; cat d/a d/z", "a\ngone\nz\na\nz\n", "beside it");
    world.assert_eio(&point, "cat d/gone", "absent");
    world.assert_eio(&point, "stat d/gone", "absent");
}
