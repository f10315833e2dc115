//! Workspaces that change hands, over real mounts, on both lowers. Needs root.
//!
//! Recipients are looked up in the account database, so these are accounts that every host has.

#![allow(clippy::unwrap_used)] // a test that fails panics

mod support;

use std::{
    path::Path,
    process::{Child, Command, Stdio},
};

use nix::sys::signal::Signal::{SIGKILL, SIGTERM};
use support::{Host, LOWERS, become_user, lower};

/// `daemon`.
const ALICE: u32 = 1;
/// `bin`.
const BOB: u32 = 2;
/// `sys`.
const CAROL: u32 = 3;

/// Files of the repository, each for one thing that will happen to it.
const REPOSITORY: &str = r#"
    mkdir -p doomed-dir/sub replaced moved-from/deep kept/deep
    for dir in doomed-dir doomed-dir/sub replaced moved-from moved-from/deep kept kept/deep; do echo "in $dir" > $dir/file; done
    echo doomed > doomed; echo edited > edited; head -c 200000 /dev/urandom > chmodded; echo linked > linked
    echo for-bob > for-bob; ln -s for-bob symlink; echo lock > lock
    sqlite3 base.db 'PRAGMA journal_mode=WAL; CREATE TABLE t(writer, n, UNIQUE(writer, n));' >/dev/null
    sqlite3 base.db 'PRAGMA wal_checkpoint(TRUNCATE);' >/dev/null; rm -f base.db-*
    git add -A && git commit -qm first
"#;

/// One of everything that an upper can hold.
const WORK: &str = r#"
    echo regular > regular; mkdir -p made/deep; echo in > made/deep/file; ln -s regular made/link; ln regular hardlink
    mkfifo fifo; echo acl > acl; setfacl -m u:3:rw,g:3:r acl; setfacl -d -m u:3:rwx made
    echo xattr > xattr; setfattr -n user.colour -v blue xattr
    rm doomed; rm -r doomed-dir; rm -r replaced; mkdir replaced; echo new > replaced/new
    mv moved-from moved-to; echo more >> edited; chmod 600 chmodded; ln linked linked-too
    echo setuid > setuid; chmod 4755 setuid; echo private > private; chmod 600 private
    touch -d '2001-02-03 04:05:06.789' regular made
    echo 'odd
name' > 'odd
name'; printf x > "$(printf '\377')"
"#;

fn host(kind: &str, extra: &str) -> Host {
    let mut host = Host::new(&format!("{extra}\n{}", lower(kind)));
    for variable in ["SCORPIO_AUTH__MOUNT", "SCORPIO_AUTH__MANAGE_OTHERS"] {
        host.set(variable, "[]");
    }
    host.set("SCORPIO_AUTH__MOUNT", r#"["1", "2", "3"]"#);
    std::fs::create_dir(host.path("repo")).unwrap();
    host.sh(&format!(
        "cd repo && git init -q -b main . && git config user.name t && git config user.email t@t && git config gc.auto 0 && {REPOSITORY}"
    ));
    host
}

/// All that can be seen of a workspace but whose it is, by `uid` through the mount: names, kinds, modes, sizes, times, link
/// counts, targets, content, attributes and access lists. All of it must be `uid`'s.
#[track_caller]
fn everything(host: &Host, uid: u32, point: &Path) -> String {
    let point = point.display();
    let others = host.sh_as(uid, &format!("cd '{point}'; find . ! -user {uid} -o ! -group {uid}"));
    assert_eq!(others, "", "not all is uid {uid}'s");
    host.sh_as(
        uid,
        &format!(
            "cd '{point}'; find . -printf '%p %y %m %s %T@ %n %l\\n' | LC_ALL=C sort;
             find . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum;
             find . ! -type l -print0 | LC_ALL=C sort -z | xargs -0 getfacl -n | grep -v -e '^# owner' -e '^# group';
             find . ! -type l -print0 | LC_ALL=C sort -z | xargs -0 getfattr -d 2>/dev/null || true"
        ),
    )
}

/// Everything in the upper but deletions, which are overlayfs's own, is stored with these ids.
#[track_caller]
fn assert_stored_as(host: &Host, id: &str, uid: u32) {
    let upper = host.path("state/workspaces").join(id).join("upper");
    let others =
        host.sh(&format!("find '{}' ! -type c \\( ! -user {uid} -o ! -group {uid} \\)", upper.display()));
    assert_eq!(others, "");
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A process of `uid`'s that stands in `dir` until it is dropped.
struct Dweller(Child);

impl Dweller {
    fn new(uid: u32, dir: &Path) -> Dweller {
        let mut command = Command::new("cat");
        command.current_dir(dir).stdin(Stdio::piped());
        Dweller(become_user(&mut command, uid).spawn().unwrap())
    }
}

impl Drop for Dweller {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Whatever `uid` tries about `id` ends as if there were no such workspace.
#[track_caller]
fn assert_out_of_reach(host: &Host, uid: u32, id: &str) {
    assert_eq!(host.json(uid, &["list"]).as_array().unwrap().len(), 0);
    let at = host.path("mnt");
    let none = (3, "NoSuchWorkspace".to_owned());
    for args in [
        &["info", id][..],
        &["mount", "--workspace", id],
        &["unmount", id, "--lazy"],
        &["remove", id, "--discard", "--yes"],
        &["export", id, "-o", text(&at.join("never"))],
    ] {
        assert_eq!(host.refused(uid, args), none, "{args:?}");
    }
    assert_eq!(host.refused(uid, &["give", id, "sys"]).0, 3);
    // Without the client's own look at it first.
    let answer = host.call(uid, "workspace.give", &serde_json::json!({"id": id, "user": "sys"}));
    assert_eq!(answer["error"]["data"]["kind"], "NotAuthorised", "{answer}");
    assert_eq!(answer["error"]["data"]["action"], "org.scorpio.give");
}

#[test]
fn what_alice_made_is_bobs_with_modes_times_and_content_and_stays_stored_as_hers() {
    for kind in LOWERS {
        let mut host = host(kind, "");
        host.manage();
        host.start();
        let (hers, id) = host.mount(ALICE, "alice", &[]);
        host.sh_as(ALICE, &format!("cd mnt/alice; {WORK}"));
        let before = everything(&host, ALICE, &hers);
        assert_stored_as(&host, &id, ALICE);

        let given = host.json(0, &["give", &id, "bin"]);
        assert_eq!(
            (&given["uid"], &given["user"], &given["state"]),
            (&BOB.into(), &"bin".into(), &"unmounted".into())
        );
        assert_eq!((&given["stored_uid"], &given["stored_gid"]), (&ALICE.into(), &ALICE.into()));
        assert!(host.mounts().is_empty());
        assert_out_of_reach(&host, ALICE, &id);
        assert!(host.log().contains("given to another user"), "{}", host.log());

        let his = host.point(BOB, "bob");
        host.json(BOB, &["mount", "--workspace", &id, text(&his)]);
        assert_eq!(everything(&host, BOB, &his), before, "{kind}");
        assert_out_of_reach(&host, ALICE, &id);
        assert!(!host.try_sh_as(ALICE, "ls mnt/bob").status.success());

        // He works in it as she did.
        host.sh_as(
            BOB,
            "cd mnt/bob; echo bob >> regular; test \"$(cat hardlink)\" = \"$(cat regular)\"; echo bob > private; rm setuid
             mv made his; echo new > his/new; mkdir -p his/fresh; echo up >> for-bob; chmod 640 kept/file; rm -r kept/deep
             mv moved-to moved-on; rm acl; chmod u+s xattr; test \"$(getfattr --only-values -n user.colour xattr)\" = blue
             setfacl -m u:3:r for-bob; touch fifo; rm symlink; ln edited another; chown 2:2 regular; ! chown 1 regular 2>/dev/null",
        );
        assert_stored_as(&host, &id, ALICE);
        let worked = everything(&host, BOB, &his);
        assert_ne!(worked, before);

        // Over a remount, a restart that keeps the mount, and one that mounts anew.
        host.json(BOB, &["unmount", &id]);
        host.json(BOB, &["mount", "--workspace", &id]);
        assert_eq!(everything(&host, BOB, &his), worked);
        for signal in [SIGTERM, SIGKILL] {
            host.end(signal);
            host.start();
            assert_eq!(host.json(BOB, &["info", &id])["state"], "mounted");
            assert_eq!(everything(&host, BOB, &his), worked);
        }
        host.end(SIGKILL);
        host.manager().with(Vec::clear);
        host.start();
        assert_eq!(host.json(BOB, &["info", &id])["state"], "mounted");
        assert_eq!(everything(&host, BOB, &his), worked, "mounted anew");
        assert_out_of_reach(&host, ALICE, &id);

        // And back: the same bytes, with nothing between disk and mount any more.
        let back = host.json(0, &["give", text(&his), "daemon"]);
        assert_eq!((&back["uid"], &back["stored_uid"]), (&ALICE.into(), &serde_json::Value::Null));
        assert_out_of_reach(&host, BOB, &id);
        host.json(ALICE, &["mount", "--workspace", &id, text(&hers)]);
        assert_eq!(everything(&host, ALICE, &hers), worked);
        let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let line = table.lines().find(|line| line.contains(&format!("scorpio:{id}"))).unwrap();
        assert!(!line.contains("-upper/upper"), "{line}");
    }
}

#[test]
fn given_on_and_on_the_first_ids_stay_on_disk() {
    for kind in LOWERS {
        let mut host = host(kind, "");
        host.start();
        let (_, id) = host.mount(ALICE, "alice", &[]);
        host.sh_as(ALICE, &format!("cd mnt/alice; {WORK}"));
        let before = everything(&host, ALICE, &host.path("mnt/alice"));
        for (user, uid) in [("bin", BOB), ("sys", CAROL), ("2", BOB), ("3", CAROL)] {
            let at = host.point(uid, &format!("{user}s"));
            host.json(0, &["give", &id, user, "--at", text(&at)]);
            assert_eq!(host.json(uid, &["info", &id])["state"], "mounted");
            if uid == BOB {
                // Carol stands in an access list, and would be read as alice where carol is the owner: see below.
                assert_eq!(everything(&host, uid, &at), before, "{user}");
            }
            host.sh_as(
                uid,
                &format!(
                    "cd mnt/{user}s; time=$(stat -c %y .); echo {user} > new; rm new; touch -d \"$time\" ."
                ),
            );
            assert_stored_as(&host, &id, ALICE);
        }
        // The owner's id and the stored one stand for each other: what named carol names alice where carol is alice.
        assert!(host.sh_as(CAROL, "getfacl -c -n mnt/3s/acl").contains("user:1:rw-"));
    }
}

#[test]
fn a_database_with_four_writers_and_locks_work_after_it() {
    for kind in LOWERS {
        let mut host = host(kind, "");
        host.start();
        let (_, id) = host.mount(ALICE, "alice", &[]);
        host.sh_as(ALICE, "cd mnt/alice; sqlite3 base.db 'INSERT INTO t VALUES (0, 0)'; echo x >> lock");
        let at = host.point(BOB, "bob");
        host.json(0, &["give", &id, "bin", "--at", text(&at)]);
        host.sh_as(
            BOB,
            "cd mnt/bob
             for writer in 1 2 3 4; do
                 (for n in $(seq 50); do sqlite3 base.db \"PRAGMA busy_timeout=60000; INSERT INTO t VALUES ($writer, $n)\" >/dev/null || exit 1; done) &
                 pids=\"$pids $!\"
             done
             for pid in $pids; do wait $pid; done",
        );
        assert_eq!(
            host.sh_as(BOB, "sqlite3 mnt/bob/base.db 'SELECT count(*) FROM t; PRAGMA integrity_check'"),
            "201\nok\n"
        );
        host.sh_as(
            BOB,
            "cd mnt/bob; exec 8>>lock; flock -n 8; ! flock -n lock true; flock -u 8; flock -n lock true
             ! (exec 9<kept/file; flock -n 9; echo copied >> kept/file; flock -n kept/file true)",
        );
        assert_stored_as(&host, &id, ALICE);
    }
}

#[test]
fn a_workspace_in_use_is_not_given_and_the_holder_is_named() {
    let mut host = host("auto", "");
    host.start();
    let (hers, id) = host.mount(ALICE, "alice", &[]);
    let dweller = Dweller::new(ALICE, &hers);
    let answer = host.call(0, "workspace.give", &serde_json::json!({"id": id, "user": "bin"}));
    assert_eq!(answer["error"]["data"]["kind"], "Busy", "{answer}");
    let named = format!("cat ({})", dweller.0.id());
    assert!(answer["error"]["message"].as_str().unwrap().contains(&named), "{answer}");
    assert_eq!(host.json(ALICE, &["info", &id])["state"], "mounted");
    // Out of sight, her process could go on writing into what would be his.
    host.json(ALICE, &["unmount", &id, "--lazy"]);
    assert_eq!(host.refused(0, &["give", &id, "bin"]), (6, "Busy".to_owned()));
    drop(dweller);
    host.json(ALICE, &["mount", "--workspace", &id]);
    // So could one that keeps a copy of the mount in a namespace of its own.
    let mut unshared = Command::new("unshare");
    unshared.args(["--mount", "--propagation", "private", "sh", "-c", "echo ready; exec cat"]);
    let mut copy = unshared.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut ready = [0; 6];
    std::io::Read::read_exact(copy.stdout.as_mut().unwrap(), &mut ready).unwrap();
    assert_eq!(host.refused(0, &["give", &id, "bin"]), (6, "Busy".to_owned()));
    assert_eq!(host.json(ALICE, &["info", &id])["state"], "unmounted", "hers still, and not mounted");
    copy.kill().unwrap();
    copy.wait().unwrap();
    let begin = std::time::Instant::now();
    // The kernel takes the namespace apart after its last process has been waited for.
    while !host.ctl(0, &["give", &id, "bin"]).status.success() {
        assert!(begin.elapsed() < support::PATIENCE, "{}", host.log());
    }
    assert_eq!(host.json(BOB, &["info", &id])["uid"], BOB);
}

#[test]
fn who_may_give_what_to_whom() {
    let mut host = host("auto", "[origin.private]\nkind = \"git\"\npath = \"/nonexistent\"\nallow = [\"1\"]");
    host.sh("sed -i \"s|/nonexistent|$PWD/repo|\" scorpio.toml");
    host.set("SCORPIO_AUTH__GIVE", r#"["2"]"#);
    host.set("SCORPIO_LIMITS__WORKSPACES_PER_USER", "3");
    host.start();
    let (hers, id) = host.mount(ALICE, "alice", &[]);
    let bad = (2, "BadParameter".to_owned());
    for user in ["no-such-user", "4000000000", "99999999999999", "", "root", "0", "daemon", "1", "a\nb"] {
        assert_eq!(host.refused(0, &["give", &id, user]), bad, "{user:?}");
    }
    // Owners may not push what they made on others.
    assert_eq!(host.refused(ALICE, &["give", &id, "bin"]), (4, "NotAuthorised".to_owned()));
    // Who may give gives what is theirs, and nobody else's.
    let (_, bobs) = host.mount(BOB, "bob", &[]);
    let answer = host.call(BOB, "workspace.give", &serde_json::json!({"id": id, "user": "sys"}));
    assert_eq!(answer["error"]["data"]["kind"], "NoSuchWorkspace", "{answer}");
    assert_eq!(host.refused(BOB, &["give", &bobs, "sys", "--at", "/tmp"]), (4, "-".to_owned()));
    assert_eq!(host.json(BOB, &["give", &bobs, "sys"])["uid"], CAROL);
    // What the recipient may not see is not opened to them by a gift.
    let at = host.point(ALICE, "private");
    let private = host.json(ALICE, &["mount", "private:/", text(&at)])["id"].as_str().unwrap().to_owned();
    assert_eq!(host.refused(0, &["give", &private, "bin"]), (3, "NoSuchOrigin".to_owned()));
    let (_, throw_away) = host.mount(ALICE, "throw-away", &["--ephemeral"]);
    assert_eq!(host.refused(0, &["give", &throw_away, "bin"]), (6, "WrongState".to_owned()));
    // It counts for the recipient.
    for n in 0..3 {
        host.mount(BOB, &format!("full{n}"), &[]);
    }
    assert_eq!(host.refused(0, &["give", &id, "bin"]), (6, "LimitReached".to_owned()));
    assert_eq!(host.json(ALICE, &["info", &id])["state"], "mounted", "nothing of it was begun");
    // At a place that will not do it is given all the same, and says so.
    let failed = host.ctl(0, &["give", &id, "sys", "--at", text(&host.path("mnt/absent"))]);
    let told = String::from_utf8_lossy(&failed.stderr).into_owned();
    assert!(!failed.status.success() && told.contains("is sys's now, but not mounted"), "{told}");
    assert_eq!(host.json(CAROL, &["info", &id])["state"], "unmounted");
    assert_eq!(
        host.refused(CAROL, &["mount", "--workspace", &id, text(&hers)]),
        (1, "BadMountPoint".to_owned())
    );
}

#[test]
fn roots_own_and_read_only_workspaces_can_be_given() {
    for kind in LOWERS {
        let mut host = host(kind, "");
        host.set("SCORPIO_AUTH__MOUNT", r#"["0", "1", "2", "3"]"#);
        host.start();
        let (jobs, job) = host.mount(0, "job", &[]);
        host.sh(&format!("cd mnt/job; {WORK}"));
        let before = everything(&host, 0, &jobs);
        let at = host.point(ALICE, "alices");
        host.json(0, &["give", &job, "daemon", "--at", text(&at)]);
        assert_eq!(everything(&host, ALICE, &at), before, "{kind}");
        host.sh_as(
            ALICE,
            "cd mnt/alices; echo more >> regular; rm edited; mv made elsewhere; echo > for-bob",
        );
        assert_stored_as(&host, &job, 0);
        // Root itself can still work in it, and what it makes is its own.
        host.sh("cd mnt/alices; echo root > roots; test \"$(stat -c %u roots)\" = 0; rm roots");

        let (_, shown) = host.mount(BOB, "shown", &["--read-only"]);
        let at = host.point(CAROL, "shown-to-carol");
        host.json(0, &["give", &shown, "sys", "--at", text(&at)]);
        let listed = host.sh_as(CAROL, "stat -c '%u %a' mnt/shown-to-carol; cat mnt/shown-to-carol/for-bob");
        assert_eq!(listed, "3 700\nfor-bob\n");
        assert!(!host.try_sh_as(CAROL, "touch mnt/shown-to-carol/x").status.success());
        assert!(!host.try_sh_as(BOB, "ls mnt/shown-to-carol").status.success());
    }
}

#[test]
fn an_export_names_the_ids_that_its_owner_sees() {
    let mut host = host("auto", "");
    host.start();
    let (_, id) = host.mount(ALICE, "alice", &[]);
    host.sh_as(ALICE, &format!("cd mnt/alice; {WORK}\nsetfacl -m u:2:r acl"));
    host.json(0, &["give", &id, "bin"]);
    let home = host.point(BOB, "home");
    let file = home.join("changes.tar");
    assert!(host.ctl(BOB, &["export", &id, "--format", "tar", "-o", text(&file)]).status.success());
    let offline = host.daemon_command(&["export", &id, "--format", "tar"]);
    assert_eq!(std::fs::read(&file).unwrap(), offline, "with and without a daemon");
    let listed = host.sh(&format!("tar --numeric-owner -tvf '{}' | grep -v ^c", file.display()));
    for line in listed.lines() {
        assert!(line.contains(" 2/2 "), "{line}");
    }
    // The access list named bob, who has become the owner: alice stands for him there.
    let acl = host.sh(&format!(
        "mkdir unpacked; tar -xp --xattrs '--xattrs-include=*' -f '{}' -C unpacked; getfacl -c -n unpacked/acl",
        file.display()
    ));
    assert!(acl.contains("user:1:r--") && acl.contains("user:3:rw-"), "{acl}");
}
