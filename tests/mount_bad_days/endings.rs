//! Stop, start, kill; busy and displaced mounts; exports with and without a daemon; what is left of root's powers.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::fs::{chown, symlink},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use nix::sys::signal::Signal;
use serde_json::json;

use crate::{
    assert_nothing_half_made,
    support::{ALICE, BOB, Host, LOWERS, become_user, lower},
    workspaces,
};

const REPOSITORY: &str = r#"
    mkdir -p dir/sub; for n in $(seq 200); do echo content of $n > dir/sub/f$n; done
    echo kept > kept; echo doomed > doomed; head -c 300000 /dev/urandom > binary; printf '#!/bin/sh\n' > run; chmod 755 run
    ln -s kept link; git add . && git commit -q -m first
"#;

/// Something of every kind of change.
const CHANGES: &str = r#"
    echo more >> kept; rm doomed; mv dir/sub dir/moved; echo new > dir/new; mkdir empty; ln -s nowhere dangling
    head -c 200000 /dev/urandom >> binary; chmod 644 run; rm dir/moved/f7; echo x > 'odd name'; ln -sf doomed link
    printf '\377' > "$(printf 'not\nUTF-8 \376')"; chmod 755 dir/moved/f9; rm dir/moved/f8; mkdir dir/moved/f8; echo y > dir/moved/f8/in
"#;

/// Names, types, modes, owners, times and content of all that `point` shows to `uid`.
fn everything(host: &Host, uid: u32, point: &Path) -> String {
    host.sh_as(
        uid,
        &format!(
            "cd '{}'; find . -mindepth 1 -printf '%p %y %m %U %G %l' \\( -type d -printf '\\n' -o -printf ' %s %T@\\n' \\) | sort
             find . -type f -print0 | sort -z | xargs -0 sha256sum",
            point.display()
        ),
    )
}

fn change(host: &Host, uid: u32, point: &Path) {
    host.sh_as(uid, &format!("cd '{}'; {CHANGES}", point.display()));
}

fn an_end_and_a_start_bring_all_back(kind: &str, signal: Signal) {
    let mut host = Host::with_repo(&lower(kind), REPOSITORY);
    let (alices, _) = host.mount(ALICE, "alices", &[]);
    let (bobs, _) = host.mount(BOB, "bobs", &[]);
    let (sealed, _) = host.mount(BOB, "sealed", &["--read-only"]);
    let (_, gone) = host.mount(ALICE, "ephemeral", &["--ephemeral"]);
    let (_, resting) = host.mount(ALICE, "resting", &[]);
    change(&host, ALICE, &alices);
    change(&host, BOB, &bobs);
    assert!(host.ctl(ALICE, &["unmount", &resting]).status.success());
    let see = |host: &Host| {
        [(ALICE, &alices), (BOB, &bobs), (BOB, &sealed)].map(|(uid, at)| everything(host, uid, at))
    };
    let (seen, listed) = (see(&host), workspaces(&host));
    for round in 0..3 {
        let status = host.end(signal);
        if signal == Signal::SIGTERM {
            assert_eq!(status.code(), Some(0));
            assert_eq!(host.all_mounts(), [] as [&Path; 0], "a stop unmounts everything");
            assert_eq!(fs::read_dir(&alices).unwrap().count(), 0);
        }
        host.start();
        let expected: Vec<_> = listed.iter().filter(|(id, ..)| *id != gone).cloned().collect();
        assert_eq!(workspaces(&host), expected, "round {round}");
        assert_eq!(see(&host), seen, "round {round}");
        assert_nothing_half_made(&host, "state/workspaces");
    }
}

#[test]
fn a_stop_unmounts_everything_and_a_start_brings_it_back() {
    LOWERS.into_iter().for_each(|kind| an_end_and_a_start_bring_all_back(kind, Signal::SIGTERM));
}

#[test]
fn a_kill_loses_nothing_and_a_start_brings_it_back() {
    LOWERS.into_iter().for_each(|kind| an_end_and_a_start_bring_all_back(kind, Signal::SIGKILL));
}

#[test]
fn a_second_daemon_leaves_the_mounts_of_the_first_alone() {
    let first = Host::with_repo("", REPOSITORY);
    let (point, id) = first.mount(ALICE, "ws", &[]);
    change(&first, ALICE, &point);
    let seen = everything(&first, ALICE, &point);
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let mut second = Host::with_repo("", REPOSITORY);
        second.mount(ALICE, "other", &[]);
        assert_eq!(workspaces(&second).len(), 1);
        second.end(signal);
        second.start();
        second.end(signal);
        drop(second);
        assert_eq!(first.json(ALICE, &["info", &id])["state"], "mounted");
        assert_eq!(everything(&first, ALICE, &point), seen);
    }
    assert_nothing_half_made(&first, "state/workspaces");
}

/// Readers that are in the middle of it when the daemon is killed.
const READERS: usize = 8;

fn a_kill_leaves_no_process_stuck(kind: &str) {
    let files = "for n in $(seq 40); do mkdir d$n; for f in $(seq 50); do echo $n $f > d$n/f$f; done; done";
    let mut host = Host::with_repo(&lower(kind), &format!("{files}; git add . && git commit -q -m first"));
    let mut cut_off = 0;
    for round in 0..6 {
        // A new mount is cold for the kernel, and a new cache for the daemon.
        host.end(Signal::SIGTERM);
        fs::remove_dir_all(host.path("cache")).unwrap();
        host.start();
        let (point, _) = host.mount(ALICE, &format!("ws{round}"), &[]);
        let begun = host.requests();
        let script = format!("cd '{}'; find . -type f | shuf | xargs sha256sum | sort", point.display());
        let ended: Vec<_> = std::thread::scope(|scope| {
            let readers: Vec<_> =
                (0..READERS).map(|_| scope.spawn(|| host.try_sh_as(ALICE, &script))).collect();
            // Not before they are at work; then at a moment of its own in each round.
            while host.requests() < begun + 100 + 300 * round {
                assert!(readers.iter().any(|reader| !reader.is_finished()), "all was read before the kill");
            }
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(host.pid().cast_signed()), Signal::SIGKILL)
                .unwrap();
            let killed = std::time::Instant::now();
            let ended = readers.into_iter().map(|reader| reader.join().unwrap()).collect();
            assert!(
                killed.elapsed() < Duration::from_secs(20),
                "readers ended {:?} after the kill",
                killed.elapsed()
            );
            ended
        });
        cut_off += ended.iter().filter(|output| !output.stderr.is_empty()).count();
        host.end(Signal::SIGKILL);
        host.start();
        let found = host.sh_as(ALICE, &script);
        assert_eq!(
            found,
            host.sh("cd repo; find . -path ./.git -prune -o -type f -print | xargs sha256sum | sort")
        );
    }
    assert!(cut_off > 0, "no kill came while somebody was reading");
    assert_nothing_half_made(&host, "state/workspaces");
}

#[test]
fn a_kill_leaves_no_reader_stuck_and_a_start_shows_all_again() {
    LOWERS.into_iter().for_each(a_kill_leaves_no_process_stuck);
}

#[test]
fn a_mount_in_use_stays_until_its_users_are_gone_or_it_is_ended_lazily() {
    let host = Host::with_repo("", REPOSITORY);
    let (point, id) = host.mount(ALICE, "ws", &[]);
    let script = format!(
        "cd '{}'; echo ready; read word; echo $word >> kept; cat kept dir/sub/f1; echo done",
        point.display()
    );
    let mut command = Command::new("sh");
    command.args(["-c", &script]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut user = become_user(&mut command, ALICE).spawn().unwrap();
    let mut said = BufReader::new(user.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!(said.next().unwrap(), "ready");

    assert_eq!(host.refused(ALICE, &["unmount", &id]), (6, "Busy".to_owned()));
    let told = host.ctl(ALICE, &["unmount", &id]);
    let told = String::from_utf8_lossy(&told.stderr).into_owned();
    assert!(told.contains(&format!("sh ({})", user.id())) && told.contains("--lazy"), "{told}");
    assert_eq!(host.json(ALICE, &["info", &id])["state"], "mounted");
    assert_eq!(host.mounts(), std::slice::from_ref(&point));
    assert_eq!(host.refused(ALICE, &["remove", "--yes", "--discard", &id]), (6, "Busy".to_owned()));

    assert!(host.ctl(ALICE, &["unmount", "--lazy", &id]).status.success());
    assert_eq!(host.mounts(), [] as [&Path; 0]);
    assert_eq!(host.json(ALICE, &["info", &id])["state"], "unmounted");
    // Who was in there works on, and what is written there is kept like everything else.
    user.stdin.take().unwrap().write_all(b"late\n").unwrap();
    assert_eq!(said.collect::<Vec<_>>(), ["kept", "late", "content of 1", "done"]);
    assert!(user.wait().unwrap().success());
    host.json(ALICE, &["mount", "--workspace", &id]);
    assert_eq!(host.sh_as(ALICE, &format!("cat '{}/kept'", point.display())), "kept\nlate\n");
}

#[test]
fn a_workspace_with_changes_is_only_removed_on_request() {
    let host = Host::with_repo("", REPOSITORY);
    let (point, id) = host.mount(ALICE, "ws", &[]);
    change(&host, ALICE, &point);
    let seen = everything(&host, ALICE, &point);
    assert_eq!(host.refused(ALICE, &["remove", "--yes", &id]), (6, "UnsavedChanges".to_owned()));
    assert_eq!(host.json(ALICE, &["info", &id])["state"], "mounted");
    assert_eq!(everything(&host, ALICE, &point), seen);
    assert!(host.ctl(ALICE, &["remove", "--yes", "--discard", &id]).status.success());
    assert_eq!(workspaces(&host), []);
    assert_nothing_half_made(&host, "state/workspaces");
}

/// What happens to a mount point while no daemon runs.
type Mishap = fn(&Host, &Path);

#[test]
fn a_workspace_whose_place_is_gone_waits_and_comes_back_elsewhere() {
    let rows: [(&str, Mishap); 5] = [
        ("removed", |_, point| fs::remove_dir(point).unwrap()),
        ("replaced", |_, point| {
            fs::rename(point, point.with_extension("old")).unwrap();
            fs::create_dir(point).unwrap();
            chown(point, Some(ALICE), Some(ALICE)).unwrap();
        }),
        ("filled", |_, point| fs::write(point.join("somebody's"), "x").unwrap()),
        ("link", |host, point| {
            fs::remove_dir(point).unwrap();
            symlink(host.path("mnt"), point).unwrap();
        }),
        ("given-away", |_, point| chown(point, Some(BOB), Some(BOB)).unwrap()),
    ];
    let mut host = Host::with_repo("", REPOSITORY);
    let made: Vec<_> = rows.iter().map(|(name, _)| host.mount(ALICE, name, &[])).collect();
    let (untouched, _) = host.mount(BOB, "untouched", &[]);
    let seen: Vec<_> = made
        .iter()
        .map(|(point, _)| {
            change(&host, ALICE, point);
            everything(&host, ALICE, point)
        })
        .collect();
    host.end(Signal::SIGTERM);
    for ((_, mishap), (point, _)) in rows.iter().zip(&made) {
        mishap(&host, point);
    }
    host.start();
    assert_eq!(host.mounts(), [untouched]);
    for (((name, _), (_, id)), seen) in rows.iter().zip(&made).zip(&seen) {
        let view = host.json(ALICE, &["info", id]);
        assert_eq!(view["state"], "displaced", "{name}: {view}");
        assert!(view["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{name}: {view}");
        let elsewhere = host.point(ALICE, &format!("{name}-elsewhere"));
        let view = host.json(ALICE, &["mount", "--workspace", id, elsewhere.to_str().unwrap()]);
        assert_eq!([&view["state"], &view["mount_point"]], [&json!("mounted"), &json!(elsewhere)], "{name}");
        assert_eq!(&everything(&host, ALICE, &elsewhere), seen, "{name}");
    }
    assert_nothing_half_made(&host, "state/workspaces");
}

#[test]
fn an_export_is_the_same_with_the_daemon_up_and_down() {
    let mut host = Host::with_repo("", REPOSITORY);
    let (point, id) = host.mount(ALICE, "ws", &[]);
    change(&host, ALICE, &point);
    // A patch of git's knows no empty directories.
    host.sh_as(ALICE, &format!("rmdir '{}/empty'", point.display()));
    let outs = host.point(ALICE, "exports");
    for format in ["tar", "patch"] {
        let output = outs.join(format);
        let args = ["export", &id, "--format", format, "-o", output.to_str().unwrap()];
        assert!(host.ctl(ALICE, &args).status.success());
    }
    host.sh("git clone -q repo clone && cd clone && git apply --binary ../mnt/exports/patch");
    let shape = "find . -path ./.git -prune -o -type f -print0 -o -type l -print0 | sort -z | xargs -0 -n 1 \
                 sh -c 'printf \"%s \" \"$0\"; readlink \"$0\" || (test -x \"$0\" && echo x; sha256sum < \"$0\")'";
    let mounted = host.sh_as(ALICE, &format!("cd '{}'; {shape}", point.display()));
    assert_eq!(host.sh(&format!("cd clone; {shape}")), mounted);

    host.end(Signal::SIGKILL);
    for format in ["tar", "patch"] {
        let down = host.daemon_command(&["export", &id, "--format", format]);
        assert!(down.len() > 200_000, "{format}: {} bytes", down.len());
        assert!(down == fs::read(outs.join(format)).unwrap(), "{format} differs");
    }
}

#[test]
fn the_daemon_keeps_exactly_the_powers_it_needs() {
    let host = Host::with_repo("", REPOSITORY);
    let needed = scorpio::daemon::privileges::NEEDED.iter().fold(0, |all, one| all | one.bitmask());
    let status = fs::read_to_string(format!("/proc/{}/status", host.pid())).unwrap();
    let mask = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        u64::from_str_radix(line.trim(), 16).unwrap()
    };
    let sets = ["CapEff:", "CapPrm:", "CapBnd:", "CapInh:", "CapAmb:"].map(mask);
    assert_eq!(sets, [needed, needed, needed, 0, 0]);
}
