//! Two users at once, each in mounts of their own that look and work like directories of theirs. Needs root.

#![allow(clippy::unwrap_used)] // a test that fails panics

mod support;

use std::{path::Path, process::Command};

use support::{ALICE, BOB, Host, LOWERS, crates, lower};

/// Commits that the SQLite writers make together.
const COMMITS: u32 = 600;
/// Processes that write at once.
const WRITERS: u32 = 4;

/// A C project, a cargo package, a database, and directories to rename.
fn repository() -> String {
    format!(
        r#"
        cp -R {crates}/lmdb-master-sys-*/lmdb/libraries/liblmdb liblmdb
        mkdir -p package/src dir/sub/subsub tools
        printf '[package]\nname = "small"\nversion = "0.1.0"\nedition = "2021"\n[workspace]\n' > package/Cargo.toml
        printf 'fn main() {{ println!("built here"); }}\n#[test]\nfn passes() {{}}\n' > package/src/main.rs
        for n in $(seq 100); do echo content of $n > dir/sub/f$n; done; echo deep > dir/sub/subsub/deep
        printf '#!/bin/sh\necho ran as $(id -u)\n' > tools/run; chmod 755 tools/run
        ln -s dir/sub/f1 link; echo gone > doomed; echo kept > kept; head -c 300000 /dev/urandom > large
        sqlite3 copied.db 'PRAGMA journal_mode=WAL; CREATE TABLE t(writer, n, UNIQUE(writer, n)); INSERT INTO t VALUES(9, 0);' >/dev/null
        sqlite3 copied.db 'PRAGMA wal_checkpoint(TRUNCATE);' >/dev/null; rm -f copied.db-*
        git add -A -f . && git commit -q -m first
        "#,
        crates = crates().display()
    )
}

/// Runs `work` for alice and for bob at the same time.
fn both(work: impl Fn(u32) + Sync) {
    std::thread::scope(|scope| {
        let users = [ALICE, BOB].map(|uid| {
            scope.spawn({
                let work = &work;
                move || work(uid)
            })
        });
        users.into_iter().for_each(|user| user.join().unwrap());
    });
}

fn name(uid: u32) -> &'static str {
    if uid == ALICE { "alice" } else { "bob" }
}

/// A script for `uid` in their mount, with a writable HOME beside it.
#[track_caller]
fn work(host: &Host, uid: u32, script: &str) -> String {
    let (top, who) = (host.path("mnt"), name(uid));
    let top = top.display();
    host.sh_as(
        uid,
        &format!("export HOME='{top}/{who}-home' GIT_CONFIG_GLOBAL='{top}/{who}-home/gitconfig'; cd '{top}/{who}'; {script}"),
    )
}

/// A host with both users' workspaces mounted; returns their ids too.
fn two_users(kind: &str) -> (Host, [String; 2]) {
    let host = Host::with_repo(&lower(kind), &repository());
    let ids = [ALICE, BOB].map(|uid| {
        host.point(uid, &format!("{}-home", name(uid)));
        host.mount(uid, name(uid), &[]).1
    });
    (host, ids)
}

/// All that can be seen of a workspace: names, types, modes, owners, times, targets, link counts, content.
fn everything(host: &Host, uid: u32) -> String {
    work(
        host,
        uid,
        "find . -mindepth 1 -printf '%p %y %m %U %G %l' \\( -type d -printf '\\n' -o -printf ' %s %T@\\n' \\) | sort
         find . -type f -print0 | sort -z | xargs -0 sha256sum",
    )
}

fn each_edits_as_if_alone(kind: &str) {
    let (host, ids) = two_users(kind);
    both(|uid| {
        let (who, other) = (name(uid), if uid == ALICE { BOB } else { ALICE });
        assert_eq!(work(&host, uid, "find . \\( ! -user $(id -u) -o ! -group $(id -g) \\) -print"), "");
        let done = work(
            &host,
            uid,
            &format!(
                r#"
                echo {who} >> kept; echo {who} > new; mkdir made; echo x > made/x
                mv dir/sub dir/renamed; mv dir moved; rm doomed; rm -r moved/renamed/subsub; mkdir moved/renamed/subsub
                chmod 640 large; chmod 700 tools; ln -s new soft; ln new hard; ln moved/renamed/f2 hard-of-lower
                ln -sf kept link; touch -d @1000000000 moved/renamed/f3; : > moved/renamed/f4
                echo more >> moved/renamed/f5; mkfifo pipe; tools/run
                "#
            ),
        );
        assert_eq!(done, format!("ran as {uid}\n"));
        let seen = work(
            &host,
            uid,
            "cat kept new hard soft; ls -A moved moved/renamed/subsub; ls moved/renamed | wc -l; test ! -e doomed; test ! -e dir
             stat -c '%a %h' large tools new hard-of-lower; readlink link; stat -c %Y moved/renamed/f3; wc -c < moved/renamed/f4
             tail -n 1 moved/renamed/f5; cat hard-of-lower",
        );
        let expected = format!(
            "kept\n{who}\n{who}\n{who}\n{who}\nmoved:\nrenamed\n\nmoved/renamed/subsub:\n101\n640 1\n700 2\n644 2\n644 2\nkept\n\
             1000000000\n0\nmore\ncontent of 2\n"
        );
        // A directory's link count is what its file system makes of it.
        let without_links =
            |text: &str| text.replace("700 2", "700").replace("700 1", "700").replace("700 3", "700");
        assert_eq!(without_links(&seen), without_links(&expected));

        let theirs = host.path("mnt").join(name(other));
        for trespass in ["ls {}", "cat {}/kept", "echo x > {}/x", "cd {}", "stat {}/kept"] {
            let output = host.try_sh_as(uid, &trespass.replace("{}", theirs.to_str().unwrap()));
            let told = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(
                !output.status.success() && told.contains("ermission denied") || told.contains("can't cd"),
                "{trespass}: {output:?}"
            );
        }
    });
    neither_manages_the_others(&host, &ids);

    let before = [everything(&host, ALICE), everything(&host, BOB)];
    both(|uid| {
        let id = &ids[usize::from(uid == BOB)];
        assert!(host.ctl(uid, &["unmount", id]).status.success());
        assert_eq!(work(&host, uid, "ls -A"), "");
        let view = host.json(uid, &["mount", "--workspace", id]);
        assert_eq!(view["state"], "mounted");
    });
    assert_eq!([everything(&host, ALICE), everything(&host, BOB)], before);
}

fn neither_manages_the_others(host: &Host, ids: &[String; 2]) {
    for (uid, theirs) in [(ALICE, &ids[1]), (BOB, &ids[0])] {
        let listed = host.json(uid, &["list"]);
        let listed: Vec<_> = listed.as_array().unwrap().iter().map(|view| &view["uid"]).collect();
        assert_eq!(listed, [&serde_json::json!(uid)]);
        for verb in [
            &["info", theirs] as &[&str],
            &["unmount", theirs],
            &["unmount", "--lazy", theirs],
            &["remove", "--yes", "--discard", theirs],
            &["mount", "--workspace", theirs],
            &["export", theirs],
        ] {
            assert_eq!(host.refused(uid, verb), (3, "NoSuchWorkspace".to_owned()), "{verb:?}");
        }
        assert_eq!(host.refused(uid, &["list", "--all"]), (4, "NotAuthorised".to_owned()));
    }
    let all = host.json(0, &["list", "--all"]);
    let mut owners: Vec<_> =
        all.as_array().unwrap().iter().map(|view| view["uid"].as_u64().unwrap()).collect();
    owners.sort_unstable();
    assert_eq!(owners, [u64::from(ALICE), u64::from(BOB)]);
    assert_eq!(host.json(0, &["list"]), serde_json::json!([]));
}

fn each_builds(kind: &str) {
    let (host, _) = two_users(kind);
    // Users cannot enter the home that holds the toolchain; a mount of it has its own way in, and goes with the host.
    let sysroot = Command::new("rustc").args(["--print", "sysroot"]).output().unwrap();
    let sysroot = String::from_utf8(sysroot.stdout).unwrap();
    host.sh(&format!("mkdir toolchain && mount --bind '{}' toolchain", sysroot.trim()));
    let toolchain = host.path("toolchain/bin");
    both(|uid| {
        work(&host, uid, "make -s -C liblmdb >/dev/null && test -x liblmdb/mdb_stat");
        work(
            &host,
            uid,
            "cd liblmdb && mkdir testdb && ./mtest > /dev/null && ./mdb_stat testdb | grep -q Entries",
        );
        assert_eq!(
            work(&host, uid, "make -C liblmdb | grep -vc 'Nothing to be done\\|Entering\\|Leaving' || true"),
            "0\n"
        );
        let cargo =
            format!("export PATH='{}':$PATH CARGO_HOME=$HOME/cargo; cd package;", toolchain.display());
        let built = work(
            &host,
            uid,
            &format!("{cargo} cargo run --offline -q; cargo test --offline -q | grep -c '1 passed'"),
        );
        assert_eq!(built, "built here\n1\n");
        let again =
            work(&host, uid, &format!("{cargo} cargo build --offline 2>&1 | grep -c Compiling || true"));
        assert_eq!(again, "0\n", "what is built is fresh");
    });
}

fn git_works(kind: &str) {
    let (host, _) = two_users(kind);
    both(|uid| {
        let said = work(
            &host,
            uid,
            r#"
            git config --global user.name n; git config --global user.email e@e
            git init -q -b main . && git add -A && git commit -q -m first && git status --porcelain
            git mv dir/sub dir/renamed && echo more >> kept && git rm -q doomed && git commit -q -a -m second
            git checkout -q HEAD~1 && cat kept && git checkout -q main && git stash list && git gc -q --prune=now
            git fsck --strict 2>&1 | grep -v '^notice' || true; git status --porcelain; git log --format=%s; git diff --stat HEAD~1 | tail -n 1
            "#,
        );
        assert_eq!(
            said,
            "kept\nsecond\nfirst\n 102 files changed, 1 insertion(+), 1 deletion(-)\n"
                .replace(" 102", &format!(" {}", CHANGED))
        );
    });
}

/// Files that the second commit touches: 101 renamed, one appended to, one removed.
const CHANGED: u32 = 103;

fn sqlite_loses_nothing(kind: &str) {
    let (host, _) = two_users(kind);
    both(|uid| {
        work(
            &host,
            uid,
            "sqlite3 new.db 'PRAGMA journal_mode=WAL; CREATE TABLE t(writer, n, UNIQUE(writer, n))' | grep -qx wal",
        );
        for (database, already) in [("new.db", 0), ("copied.db", 1)] {
            let each = COMMITS / WRITERS;
            work(
                &host,
                uid,
                &format!(
                    r#"
                    for writer in $(seq {WRITERS}); do
                        (echo .timeout 60000; for n in $(seq {each}); do echo "INSERT INTO t VALUES($writer, $n);"; done) \
                            | sqlite3 -bail {database} & pids="$pids $!"
                    done
                    for pid in $pids; do wait $pid; done
                    "#
                ),
            );
            let found = work(
                &host,
                uid,
                &format!(
                    "sqlite3 {database} 'PRAGMA journal_mode; SELECT count(*), count(DISTINCT writer) FROM t; PRAGMA integrity_check'"
                ),
            );
            let writers = WRITERS + already;
            assert_eq!(found, format!("wal\n{}|{writers}\nok\n", COMMITS + already), "{database}");
        }
    });
}

/// Locks, shared mappings, and a program that is built and run where it lies.
const PROBE: &str = r#"
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#define CHECK(c) do { if (!(c)) { printf("line %d: %s\n", __LINE__, #c); return 1; } } while (0)
static int locked_by_us(int fd) { struct flock l = {.l_type = F_WRLCK}; return fcntl(fd, F_SETLK, &l); }
int main(void) {
    int pipes[2], status; char byte, text[8] = {0};
    int fd = open("kept", O_RDWR);           /* lies in the repository: opening it for writing copies it up */
    int reader = open("kept", O_RDONLY);
    CHECK(fd >= 0 && reader >= 0 && !locked_by_us(fd) && !pipe(pipes));
    pid_t child = fork();
    if (!child) { int other = open("kept", O_RDWR); _exit(locked_by_us(other) == -1 ? 7 : 8); }
    CHECK(waitpid(child, &status, 0) == child && WEXITSTATUS(status) == 7);
    char *shared = mmap(0, 4, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(shared != MAP_FAILED);
    if (!(child = fork())) { memcpy(shared, "KEPT", 4); _exit(0); }
    CHECK(waitpid(child, &status, 0) == child && !memcmp(shared, "KEPT", 4));
    CHECK(pread(fd, text, 4, 0) == 4 && !strcmp(text, "KEPT"));
    CHECK(pread(reader, text, 4, 0) == 4 && !strcmp(text, "KEPT"));
    CHECK(!msync(shared, 4, MS_SYNC) && !munmap(shared, 4));
    (void)byte; printf("all is as on any file system\n"); return 0;
}
"#;

fn locks_and_mappings_work(kind: &str) {
    let (host, _) = two_users(kind);
    both(|uid| {
        // The mapping and the two descriptors of one process agree once the file is copied up.
        let said = work(
            &host,
            uid,
            &format!(
                "cat > probe.c <<'EOF'\n{PROBE}\nEOF\ncc -o probe probe.c && : >> kept && ./probe && cat kept"
            ),
        );
        assert_eq!(said, "all is as on any file system\nKEPT\n");
        let said = work(
            &host,
            uid,
            "flock -n large -c 'flock -n large -c true || echo excluded'; flock -n large -c 'echo free again'",
        );
        assert_eq!(said, "excluded\nfree again\n");
        // A lock on one's own file says nothing about the other user's file of the same name.
        work(&host, uid, "flock -n kept -c 'sleep 0.2'");
    });
}

fn on_both_lowers(test: fn(&str)) {
    LOWERS.into_iter().for_each(test);
}

#[test]
fn two_users_edit_as_if_each_were_alone_and_find_all_of_it_after_a_remount() {
    on_both_lowers(each_edits_as_if_alone);
}

#[test]
fn two_users_build_c_and_cargo_projects() {
    on_both_lowers(each_builds);
}

#[test]
fn git_works_in_a_mount() {
    on_both_lowers(git_works);
}

#[test]
fn four_sqlite_writers_lose_nothing() {
    on_both_lowers(sqlite_loses_nothing);
}

#[test]
fn locks_and_shared_mappings_work() {
    on_both_lowers(locks_and_mappings_work);
}

#[test]
fn what_is_outside_of_a_workspace_is_never_taken_for_one() {
    let host = Host::with_repo("", "echo x > x && git add x && git commit -q -m first");
    let (point, id) = host.mount(ALICE, "ws", &[]);
    host.sh_as(ALICE, &format!("mkdir '{0}/below' && cd '{0}/below'", point.display()));
    assert_eq!(host.json(ALICE, &["info", point.join("below").to_str().unwrap()])["id"], id.as_str());
    assert_eq!(host.refused(ALICE, &["unmount", point.join("below").to_str().unwrap()]).0, 3);
    assert_eq!(host.refused(ALICE, &["info", Path::new("/").to_str().unwrap()]).0, 3);
    assert_eq!(host.mounts(), [point]);
}
