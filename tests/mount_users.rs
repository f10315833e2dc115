//! Two users at once, each in mounts of their own that look and work like directories of theirs. Needs root.
//!
//! Databases, git, locks and mappings of two users at once: `tests/engine_suite`.

#![allow(clippy::unwrap_used)] // a test that fails panics

mod support;

use std::{path::Path, process::Command};

use support::{ALICE, BOB, Host, LOWERS, crates, lower};

/// A C project, a cargo package, and directories to rename.
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
fn what_is_outside_of_a_workspace_is_never_taken_for_one() {
    let host = Host::with_repo("", "echo x > x && git add x && git commit -q -m first");
    let (point, id) = host.mount(ALICE, "ws", &[]);
    host.sh_as(ALICE, &format!("mkdir '{0}/below' && cd '{0}/below'", point.display()));
    assert_eq!(host.json(ALICE, &["info", point.join("below").to_str().unwrap()])["id"], id.as_str());
    assert_eq!(host.refused(ALICE, &["unmount", point.join("below").to_str().unwrap()]).0, 3);
    assert_eq!(host.refused(ALICE, &["info", Path::new("/").to_str().unwrap()]).0, 3);
    assert_eq!(host.mounts(), [point]);
}
