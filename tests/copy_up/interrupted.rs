//! Copy-ups that are cut off half-way: the writer dies, the daemon dies, the disk is full. What was there is there, whole.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Instant,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    configuration, inventory, shared,
    support::{ALICE, Host, LOWERS, PATIENCE, become_user},
};

const SIZE: u64 = 48 << 20;
/// The daemon is stopped when it has handed out this much.
const BEGUN: u64 = 2 << 20;

/// A large file whose blocks differ, and a small one.
const REPOSITORY: &str = r#"
    git config core.compression 0
    python3 -c 'import sys; [sys.stdout.buffer.write((b"%015d\n" % n) * 65536) for n in range(48)]' > large
    echo small > small; git add -A && git commit -q -m first; sha256sum large > ../sum
"#;

fn host(kind: &str, kept: bool) -> Host {
    let mut host = Host::new(&configuration(kind));
    fs::create_dir(host.path("repo")).unwrap();
    host.sh(&format!("cd repo && git init -q -b main . && git config user.name t && git config user.email t@t && {REPOSITORY}"));
    if kept {
        host.manage();
    }
    host.start();
    host
}

/// Bytes that the daemon has written so far, answers to the kernel most of all.
fn written(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/io")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("wchar: ")).unwrap();
    line.parse().unwrap()
}

fn signal(pid: u32, which: Signal) {
    kill(Pid::from_raw(i32::try_from(pid).unwrap()), which).unwrap();
}

/// Attempts to stop a copy half-way: on a busy machine one may be over before it is seen.
const ATTEMPTS: u32 = 30;

/// A process of ALICE's that opens the large file for writing and appends to it.
fn start_writer(at: &Path) -> Child {
    let mut command = Command::new("sh");
    command.args(["-c", "exec printf 'end\\n' >> large"]).current_dir(at).stderr(Stdio::null());
    become_user(&mut command, ALICE).spawn().unwrap()
}

/// A host, a workspace, and a writer in it whose copy-up is half-way, because the daemon was stopped.
fn stopped_half_way(kind: &str, kept: bool) -> (Host, PathBuf, String, Child) {
    let host = host(kind, kept);
    for attempt in 0..ATTEMPTS {
        let (at, id) = host.mount(ALICE, &format!("w{attempt}"), &[]);
        // In the daemon's cache, so that what is handed out from now on is the copy.
        host.sh_as(ALICE, &format!("head -c 1 '{}/large' > /dev/null", at.display()));
        host.sh("sync; echo 3 > /proc/sys/vm/drop_caches");
        let before = written(host.pid());
        let mut writer = start_writer(&at);
        let begin = Instant::now();
        while written(host.pid()) - before < BEGUN {
            assert!(begin.elapsed() < PATIENCE, "the copy does not begin");
            std::hint::spin_loop();
        }
        signal(host.pid(), Signal::SIGSTOP);
        if written(host.pid()) - before < SIZE {
            return (host, at, id, writer);
        }
        signal(host.pid(), Signal::SIGCONT);
        assert!(writer.wait().unwrap().success());
        host.json(ALICE, &["remove", "--yes", "--discard", &id]);
    }
    panic!("{ATTEMPTS} copies were over before they were stopped");
}

/// The large file is the repository's, with `end` behind it.
#[track_caller]
fn assert_whole(host: &Host, at: &Path, end: &str) {
    host.sh_as(
        ALICE,
        &format!(
            "cd '{0}'; head -c {SIZE} large | sha256sum | cut -d' ' -f1 > /dev/shm/scorpio-test-$$; \
             test \"$(cat /dev/shm/scorpio-test-$$)\" = \"$(cut -d' ' -f1 ../../sum)\"; rm /dev/shm/scorpio-test-$$; \
             test \"$(tail -c +{1} large)\" = '{end}'",
            at.display(),
            SIZE + 1
        ),
    );
}

/// Nothing of the copy is in the upper, nor left over in the work directory.
#[track_caller]
fn assert_nothing_copied(host: &Host, id: &str) {
    assert_eq!(inventory(host, id), "");
    let left = host.sh(&format!("find state/workspaces/{id} -path '*/work-*' -type f"));
    assert_eq!(left, "");
}

fn a_killed_writer(kind: &str) {
    let (host, at, id, mut writer) = stopped_half_way(kind, false);
    writer.kill().unwrap();
    signal(host.pid(), Signal::SIGCONT);
    assert!(!writer.wait().unwrap().success());
    assert_nothing_copied(&host, &id);
    assert_whole(&host, &at, "");
    host.sh_as(ALICE, &format!("cd '{}'; echo again >> large", at.display()));
    assert_whole(&host, &at, "again");
}

#[test]
fn a_writer_killed_half_way_leaves_the_file_as_it_was() {
    let _caches = shared();
    LOWERS.into_iter().for_each(a_killed_writer);
}

fn a_killed_daemon_with_sessions_kept(kind: &str) {
    let (mut host, at, _, mut writer) = stopped_half_way(kind, true);
    host.end(Signal::SIGKILL);
    assert!(writer.try_wait().unwrap().is_none());
    host.start();
    assert!(writer.wait().unwrap().success(), "{}", host.log());
    assert_whole(&host, &at, "end");
}

#[test]
fn a_daemon_killed_half_way_goes_on_with_the_copy_where_its_session_is_kept() {
    let _caches = shared();
    LOWERS.into_iter().for_each(a_killed_daemon_with_sessions_kept);
}

fn a_killed_daemon_without(kind: &str) {
    let (mut host, at, id, mut writer) = stopped_half_way(kind, false);
    host.end(Signal::SIGKILL);
    assert!(!writer.wait().unwrap().success(), "the writer is told");
    assert_nothing_copied(&host, &id);
    host.start();
    assert_eq!(host.json(ALICE, &["info", &id])["state"], "mounted");
    assert_whole(&host, &at, "");
    host.sh_as(ALICE, &format!("cd '{}'; echo again >> large", at.display()));
    assert_whole(&host, &at, "again");
}

#[test]
fn a_daemon_killed_half_way_fails_the_writer_and_nothing_else_where_it_is_not_kept() {
    let _caches = shared();
    LOWERS.into_iter().for_each(a_killed_daemon_without);
}

fn a_full_disk(kind: &str) {
    let mut host = Host::new(&configuration(kind));
    host.sh(&format!(
        "mkdir -m 700 uppers && truncate -s 32M image && mkfs.ext4 -q image && mount -o loop image uppers && chmod 700 uppers
         mkdir repo && cd repo && git init -q -b main . && git config user.name t && git config user.email t@t && {REPOSITORY}"
    ));
    host.set("SCORPIO_DAEMON__UPPER_ROOT", host.path("uppers").to_str().unwrap().to_owned().as_str());
    host.start();
    let (at, id) = host.mount(ALICE, "w", &[]);
    let says_full = |script: &str| {
        let output = host.try_sh_as(ALICE, &format!("cd '{}'; LC_ALL=C {script}", at.display()));
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && told.contains("No space left on device"), "{script}: {output:?}");
    };
    for change in [
        "dd if=/dev/null of=large oflag=append conv=notrunc",
        "dd if=/dev/zero of=large bs=1 count=1 conv=notrunc",
        "truncate -s +1 large",
    ] {
        says_full(change);
        assert_eq!(host.sh(&format!("cd uppers/{id}/upper && find . -mindepth 1")), "", "{change}");
        assert_eq!(host.sh(&format!("find uppers/{id} -path '*/work-*' -type f")), "", "{change}");
        assert_whole(&host, &at, "");
    }
    // What needs no space for the data works, also on a file that does not fit.
    let utime = "/usr/bin/python3 -c 'import os; os.utime(\"renamed\", (5, 5))'";
    // Blocks of a copy that was given up are free once the journal has it.
    host.sh("sync -f uppers");
    host.sh_as(
        ALICE,
        &format!("cd '{}'; chmod 600 large; mv large renamed; {utime}; echo x >> small", at.display()),
    );
    // Here the data is copied into the file that the mode has put there: it keeps its mark, so that what the lower has is
    // read, and the space that the attempt took.
    says_full("dd if=/dev/zero of=renamed bs=1 count=1 conv=notrunc");
    let mark =
        host.sh(&format!("getfattr -d -m metacopy uppers/{id}/upper/renamed | grep -c metacopy || true"));
    assert_eq!(mark, "1\n");
    let look = "mv renamed large; stat -c '%a %s' large; tail -n 1 small";
    let seen = host.sh_as(ALICE, &format!("cd '{}'; {look}", at.display()));
    assert_eq!(seen, format!("600 {SIZE}\nx\n"));
    assert_whole(&host, &at, "");
    // Less than all of it is no copy.
    host.sh_as(ALICE, &format!("cd '{}'; : > large; test ! -s large", at.display()));
}

#[test]
fn a_copy_up_that_does_not_fit_is_enospc_and_the_file_stays_whole() {
    let _caches = shared();
    LOWERS.into_iter().for_each(a_full_disk);
}
