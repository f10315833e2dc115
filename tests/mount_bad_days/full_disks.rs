//! Full disks under cache, state and uppers: an error for whom it concerns, nothing lost, well again with space.

use std::fs;

use serde_json::json;

use crate::{
    assert_nothing_half_made,
    support::{ALICE, BOB, Host},
    workspaces,
};

const REPOSITORY: &str = r#"
    for n in $(seq 12); do head -c 1000000 /dev/urandom > large$n; done
    mkdir dir; for n in $(seq 50); do echo $n > dir/f$n; done; git add . && git commit -q -m first
"#;

/// A host whose directory `name` is a small file system of its own; no daemon yet.
fn host_with_small(name: &str, make: &str) -> Host {
    let host = Host::new("");
    host.sh(&format!("mkdir -m 700 {name} && {make} && chmod 700 {name}"));
    host.sh(&format!(
        "mkdir repo && cd repo && git init -q -b main . && git config user.name t && git config user.email t@t && git config gc.auto 0 && {REPOSITORY}"
    ));
    host
}

fn sums(host: &Host, uid: u32, at: &std::path::Path) -> String {
    host.sh_as(
        uid,
        &format!(
            "cd '{}'; find . -path ./.git -prune -o -type f -print0 | sort -z | xargs -0 sha256sum",
            at.display()
        ),
    )
}

#[test]
fn a_full_cache_is_an_error_of_what_is_not_in_it_alone() {
    let mut host = host_with_small("cache", "mount -t tmpfs -o size=6m tmpfs cache");
    host.start();
    let (alices, _) = host.mount(ALICE, "alices", &[]);
    let (bobs, _) = host.mount(BOB, "bobs", &[]);
    let cached = format!("cat '{}'/dir/* | sha256sum", alices.display());
    let sum = host.sh_as(ALICE, &cached);
    let read_all = |uid: u32, at: &std::path::Path| {
        host.try_sh_as(uid, &format!("cd '{}'; cat large* > /dev/null", at.display()))
    };
    let output = read_all(ALICE, &alices);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && told.contains("Input/output error"), "{told}");
    assert!(told.lines().all(|line| line.contains("Input/output error")), "{told}");
    // What is here is served, what is written is kept, and mounts are made.
    assert_eq!(host.sh_as(ALICE, &cached), sum);
    assert_eq!(host.sh_as(BOB, &format!("cat '{}'/dir/* | sha256sum", bobs.display())), sum);
    host.sh_as(
        BOB,
        &format!(
            "cd '{}'; echo new > new; echo more >> dir/f1; mv dir moved; cat new moved/f1",
            bobs.display()
        ),
    );
    assert_eq!(host.json(ALICE, &["health"])["workspaces"]["mounted"], 2);
    host.sh("mount -o remount,size=64m cache");
    assert_eq!(sums(&host, ALICE, &alices), sums(&host, 0, &host.path("repo")));
    assert_eq!(host.sh_as(BOB, &format!("cd '{}'; cat new moved/f1", bobs.display())), "new\n1\nmore\n");
    assert_nothing_half_made(&host, "state/workspaces");
}

#[test]
fn a_full_state_directory_refuses_new_workspaces_and_keeps_the_others() {
    let mut host = host_with_small("state", "mount -t tmpfs -o size=256k tmpfs state");
    host.set("SCORPIO_DAEMON__UPPER_ROOT", host.path("uppers").to_str().unwrap().to_owned().as_str());
    host.start();
    let (alices, id) = host.mount(ALICE, "alices", &[]);
    host.sh("cat /dev/zero > state/filler 2>/dev/null || true");
    let before = workspaces(&host);
    let point = host.point(BOB, "bobs");
    let create = ["mount", "repo:", point.to_str().unwrap()];
    assert_eq!(host.refused(BOB, &create), (1, "Internal".to_owned()));
    assert_eq!(workspaces(&host), before);
    host.sh("test ! -e mnt/bobs/dir");
    host.sh_as(ALICE, &format!("cd '{}'; echo new > new; cat dir/f1 new", alices.display()));
    host.sh("rm state/filler");
    assert_nothing_half_made(&host, "uppers");
    assert_eq!(host.json(BOB, &create)["state"], "mounted");
    assert!(host.ctl(ALICE, &["unmount", &id]).status.success());
    host.json(ALICE, &["mount", "--workspace", &id]);
    assert_eq!(host.sh_as(ALICE, &format!("cat '{}/new'", alices.display())), "new\n");
    // Full at the moment of an unmount or a start: no workspace is lost either.
    host.sh("cat /dev/zero > state/filler 2>/dev/null || true");
    host.ctl(ALICE, &["unmount", &id]);
    host.end(nix::sys::signal::Signal::SIGTERM);
    host.start();
    assert_eq!(workspaces(&host).len(), 2);
    host.sh("rm state/filler");
    host.end(nix::sys::signal::Signal::SIGTERM);
    host.start();
    if host.json(ALICE, &["info", &id])["state"] != "mounted" {
        host.json(ALICE, &["mount", "--workspace", &id]);
    }
    assert_eq!(host.sh_as(ALICE, &format!("cat '{}/new'", alices.display())), "new\n");
    assert_nothing_half_made(&host, "uppers");
}

#[test]
fn upper_inodes_that_run_out_are_enospc_and_lose_nothing() {
    // Room for bytes there is; a workspace takes some ten inodes, the file system itself eleven.
    let make = "truncate -s 64M image && mkfs.ext4 -q -N 128 image && mount -o loop image uppers";
    let mut host = host_with_small("uppers", make);
    host.set("SCORPIO_DAEMON__UPPER_ROOT", host.path("uppers").to_str().unwrap());
    host.start();
    let (alices, id) = host.mount(ALICE, "alices", &[]);
    let (bobs, _) = host.mount(BOB, "bobs", &[]);
    host.sh_as(BOB, &format!("cd '{}'; echo early > early; echo more >> dir/f1", bobs.display()));
    let fill = host.try_sh_as(
        ALICE,
        &format!(
            "cd '{}'; echo first > first; for n in $(seq 200); do : > n$n || exit 1; done",
            alices.display()
        ),
    );
    assert!(String::from_utf8_lossy(&fill.stderr).contains("No space left"), "{fill:?}");
    // A copy-up takes an inode: without one the file stays as it was. What has one is written on.
    let copy_up = host.try_sh_as(ALICE, &format!("cd '{}'; echo x >> large1", alices.display()));
    assert!(String::from_utf8_lossy(&copy_up.stderr).contains("No space left"), "{copy_up:?}");
    host.sh_as(ALICE, &format!("cmp '{0}/large1' repo/large1; echo second >> '{0}/first'", alices.display()));
    host.sh_as(BOB, &format!("cd '{}'; echo more >> early; cat dir/f1 large2 > /dev/null", bobs.display()));
    let point = host.point(BOB, "late");
    assert_eq!(host.refused(BOB, &["mount", "repo:", point.to_str().unwrap()]), (1, "Internal".to_owned()));
    assert_nothing_half_made(&host, "uppers");
    assert_eq!(host.json(ALICE, &["health"])["problems"], json!([]));
    host.sh_as(ALICE, &format!("cd '{}'; rm n*; echo x >> large1", alices.display()));
    assert!(host.ctl(ALICE, &["unmount", &id]).status.success());
    host.json(ALICE, &["mount", "--workspace", &id]);
    let seen =
        host.sh_as(ALICE, &format!("cd '{}'; cat first; tail -c 2 large1; ls | wc -l", alices.display()));
    assert_eq!(seen, "first\nsecond\nx\n14\n");
    assert_eq!(
        host.sh_as(BOB, &format!("cd '{}'; cat early dir/f1; ls dir | wc -l", bobs.display())),
        "early\nmore\n1\nmore\n50\n"
    );
}

#[test]
fn a_full_upper_file_system_is_enospc_and_loses_nothing() {
    let make = "truncate -s 32M image && mkfs.ext4 -q image && mount -o loop image uppers";
    let mut host = host_with_small("uppers", make);
    host.set("SCORPIO_DAEMON__UPPER_ROOT", host.path("uppers").to_str().unwrap().to_owned().as_str());
    host.start();
    let (alices, id) = host.mount(ALICE, "alices", &[]);
    let (bobs, _) = host.mount(BOB, "bobs", &[]);
    host.sh_as(BOB, &format!("cd '{}'; echo early > early; echo more >> dir/f1", bobs.display()));
    let fill = host
        .try_sh_as(ALICE, &format!("cd '{}'; echo first > first; cat /dev/zero > filler", alices.display()));
    assert!(String::from_utf8_lossy(&fill.stderr).contains("No space left"), "{fill:?}");
    // A copy-up that does not fit leaves the file as it was.
    let copy_up = host.try_sh_as(ALICE, &format!("cd '{}'; echo x >> large1", alices.display()));
    assert!(String::from_utf8_lossy(&copy_up.stderr).contains("No space left"), "{copy_up:?}");
    host.sh_as(ALICE, &format!("cmp '{}/large1' repo/large1", alices.display()));
    // Everything that needs no space goes on.
    host.sh_as(BOB, &format!("cd '{}'; cat early dir/f1 large2 > /dev/null; rm dir/f2", bobs.display()));
    let point = host.point(BOB, "late");
    let late = host.ctl(BOB, &["mount", "repo:", point.to_str().unwrap()]);
    assert!(late.status.success() || late.status.code() == Some(1), "{late:?}");
    assert_nothing_half_made(&host, "uppers");
    assert_eq!(host.json(ALICE, &["health"])["problems"], json!([]));
    host.sh_as(ALICE, &format!("cd '{}'; rm filler; echo x >> large1; cat first", alices.display()));
    host.sh("sync -f uppers");
    assert!(host.ctl(ALICE, &["unmount", &id]).status.success());
    host.json(ALICE, &["mount", "--workspace", &id]);
    let seen =
        host.sh_as(ALICE, &format!("cd '{}'; cat first; tail -c 2 large1; ls | wc -l", alices.display()));
    assert_eq!(seen, "first\nx\n14\n");
    assert_eq!(
        host.sh_as(BOB, &format!("cd '{}'; cat early dir/f1; ls dir | wc -l", bobs.display())),
        "early\n1\nmore\n49\n"
    );
    assert_eq!(fs::read_dir(&alices).unwrap().count(), 14);
}
