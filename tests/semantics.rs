//! What `docs/SEMANTICS.md` promises, paragraph by paragraph, in real mounts. Needs root.

#![allow(clippy::unwrap_used)] // a test that fails panics

mod support;

use std::{
    fs,
    ops::{Deref, DerefMut},
    os::unix::fs::{FileExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use nix::sys::signal::Signal;
use support::{ALICE, BOB, Host};

/// One of everything a repository can hold.
const REPOSITORY: &str = r"
    printf 'hello\n' > f; printf '#!/bin/sh\necho ran\n' > x; chmod 755 x; ln -s f l; ln -s /etc/hostname absolute
    mkdir -p d/e; echo one > d/one; echo two > d/e/two; cp d/one same
    printf '* -text\n' > .git/info/attributes
    printf 'a\r\nb\r\n' > crlf; printf '\303\251\377' > bytes
    printf '*.txt text eol=crlf\n*.bin filter=lfs\n' > .gitattributes; printf 'a\nb\n' > lf.txt
    printf 'version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n' > p.bin
    git add -A; git update-index --add --cacheinfo 160000,1234567890123456789012345678901234567890,sub
    git commit -q -m first";

/// One daemon at a time: each takes care of all workspace mounts that it sees.
static ALONE: Mutex<()> = Mutex::new(());

struct Alone {
    host: Host, // dropped before the other
    _guard: MutexGuard<'static, ()>,
}

impl Deref for Alone {
    type Target = Host;

    fn deref(&self) -> &Host {
        &self.host
    }
}

impl DerefMut for Alone {
    fn deref_mut(&mut self) -> &mut Host {
        &mut self.host
    }
}

fn host() -> Alone {
    let guard = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    Alone { host: Host::with_repo("", REPOSITORY), _guard: guard }
}

/// The same with a workspace of ALICE's: where it is, and its id.
fn mounted() -> (Alone, PathBuf, String) {
    let host = host();
    let (at, id) = host.mount(ALICE, "w", &[]);
    (host, at, id)
}

/// Unmounts a workspace of ALICE's and mounts it again.
fn remount(host: &Host, at: &Path, id: &str) {
    host.json(ALICE, &["unmount", at.to_str().unwrap()]);
    assert_eq!(fs::read_dir(at).unwrap().count(), 0);
    host.json(ALICE, &["mount", "--workspace", id]);
}

/// Runs a Python program as ALICE in `at`: system calls that a shell has no word for.
#[track_caller]
fn python(host: &Host, at: &Path, program: &str) -> String {
    fs::write(host.path("program.py"), program).unwrap();
    host.sh_as(ALICE, &format!("cd '{}' && exec /usr/bin/python3 ../../program.py", at.display()))
}

#[test]
fn bytes_are_gits_bytes() {
    let (host, at, _) = mounted();
    let read = |name: &str| fs::read(at.join(name)).unwrap();
    assert_eq!(read("crlf"), b"a\r\nb\r\n");
    assert_eq!(read("lf.txt"), b"a\nb\n");
    assert_eq!(read("bytes"), b"\xc3\xa9\xff");
    assert_eq!(read("p.bin"), b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n");
    assert!(!at.join(".git").exists());
    host.sh("cd repo && echo later > f && git commit -q -a -m second");
    assert_eq!(read("f"), b"hello\n");
}

#[test]
fn kinds_modes_and_owner_are_these() {
    let (host, at, _) = mounted();
    let cases = [
        ("f", 0o100_644, 6),
        ("x", 0o100_755, 19),
        ("l", 0o120_777, 1),
        ("absolute", 0o120_777, 13),
        ("d", 0o040_755, 0),
        ("sub", 0o040_755, 0),
    ];
    for (name, mode, size) in cases {
        let stat = fs::symlink_metadata(at.join(name)).unwrap();
        let seen = (stat.mode(), stat.size(), stat.uid(), stat.gid(), stat.nlink());
        assert_eq!(seen, (mode, size, ALICE, ALICE, 1), "{name}");
    }
    assert_eq!(fs::read_link(at.join("absolute")).unwrap(), Path::new("/etc/hostname"));
    assert_eq!(fs::read_dir(at.join("sub")).unwrap().count(), 0);
    assert_eq!(fs::metadata(&at).unwrap().mode(), 0o040_700);
    assert!(!host.try_sh_as(BOB, &format!("cat {}/f", at.display())).status.success());
    let (open, _) = host.mount(ALICE, "open", &["--mode", "0755"]);
    assert_eq!(host.sh_as(BOB, &format!("cat {}/f", open.display())), "hello\n");
}

#[test]
fn all_of_a_root_has_one_time_and_it_survives_a_restart() {
    let (mut host, at, id) = mounted();
    let times = |at: &Path| {
        ["f", "l", "d", "d/e/two", "sub"].map(|name| {
            let stat = fs::symlink_metadata(at.join(name)).unwrap();
            assert_eq!(
                (stat.mtime_nsec(), stat.ctime(), stat.atime()),
                (0, stat.mtime(), stat.mtime()),
                "{name}"
            );
            stat.mtime()
        })
    };
    let before = times(&at);
    assert_eq!(before, [before[0]; 5]);
    host.end(Signal::SIGKILL);
    host.start();
    let view = host.json(ALICE, &["info", &id]);
    assert_eq!(view["state"], "mounted");
    assert_eq!(times(&at), before);
    let (other, _) = host.mount(ALICE, "other", &[]);
    assert_eq!(times(&other), before, "another workspace on the same root");
}

#[test]
fn numbers_are_those_of_one_file_system() {
    let (host, at, _) = mounted();
    host.sh_as(ALICE, &format!("cd {} && echo more >> f && echo new > new", at.display()));
    let names = ["", "f", "x", "l", "d", "d/e", "d/e/two", "sub", "new", "same"];
    let stats = names.map(|name| fs::symlink_metadata(at.join(name)).unwrap());
    assert!(stats.iter().all(|stat| stat.dev() == stats[0].dev()));
    let mut numbers: Vec<_> = stats.iter().map(MetadataExt::ino).collect();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), names.len());
    assert!(stats[2].ino() >> 63 == 1 && stats[8].ino() >> 63 == 0);
}

#[test]
fn space_is_that_of_the_uppers_file_system() {
    let (host, at, _) = mounted();
    let numbers = |path: &Path| {
        let stat = nix::sys::statvfs::statvfs(path).unwrap();
        (stat.blocks(), stat.files(), stat.name_max())
    };
    assert_eq!(numbers(&at), numbers(&host.path("state")));
}

#[test]
fn what_a_local_file_system_can_do_works() {
    let (host, at, _) = mounted();
    let said = python(
        &host,
        &at,
        r#"
import ctypes, os, socket
libc = ctypes.CDLL(None, use_errno=True)
def check(result):
    if result != 0: raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
os.mkfifo("fifo")
listening = socket.socket(socket.AF_UNIX); listening.bind("socket"); listening.listen()
fd = os.open(".", os.O_TMPFILE | os.O_RDWR, 0o600); os.write(fd, b"unnamed")
check(libc.linkat(-100, b"/proc/self/fd/%d" % fd, -100, b"named", 0x400))
assert open("named").read() == "unnamed"
check(libc.renameat2(-100, b"f", -100, b"same", 2))
assert (open("f").read(), open("same").read()) == ("one\n", "hello\n")
os.posix_fallocate(os.open("f", os.O_RDWR), 0, 8192); assert os.stat("f").st_size == 8192
os.truncate("f", 3); assert open("f").read() == "one"
os.link("d/one", "again"); assert (os.stat("d/one").st_nlink, open("again").read()) == (2, "one\n")
os.unlink("again"); assert os.stat("d/one").st_nlink == 1
with open("x", "ab") as file: file.write(b"echo again\n")
print(os.popen("./x").read(), end="")
"#,
    );
    assert_eq!(said, "ran\nagain\n");
}

#[test]
fn changes_survive_a_remount() {
    let (host, at, id) = mounted();
    host.sh_as(
        ALICE,
        &format!("cd {} && mv d D && rm l && rm -r sub && chmod 600 f && echo new > D/e/new", at.display()),
    );
    remount(&host, &at, &id);
    let list = host.sh_as(
        ALICE,
        &format!("cd {} && LC_ALL=C find . -type f | sort && cat D/e/two D/e/new", at.display()),
    );
    let files = "./.gitattributes\n./D/e/new\n./D/e/two\n./D/one\n./bytes\n./crlf\n./f\n./lf.txt\n./p.bin\n./same\n./x\n";
    assert_eq!(list, format!("{files}two\nnew\n"));
    assert_eq!(fs::metadata(at.join("f")).unwrap().mode() & 0o7777, 0o600);
    assert!(
        !at.join("d").exists() && !at.join("sub").exists() && fs::symlink_metadata(at.join("l")).is_err()
    );
}

#[test]
fn setuid_bits_give_nothing_and_devices_cannot_be_made() {
    let host = host();
    let (at, _) = host.mount(ALICE, "w", &["--mode", "0755"]);
    // BOB runs ALICE's setuid copy of `id`: were it honoured, he would be ALICE.
    host.sh_as(ALICE, &format!("cd {} && cp $(command -v id) id && chmod 4755 id", at.display()));
    assert_eq!(fs::metadata(at.join("id")).unwrap().mode() & 0o7777, 0o4755);
    assert_eq!(host.sh_as(BOB, &format!("{}/id -u", at.display())), format!("{BOB}\n"));
    let said = python(
        &host,
        &at,
        r#"
import errno, os, stat
for kind, number in ((stat.S_IFCHR, 0), (stat.S_IFCHR, os.makedev(1, 3)), (stat.S_IFBLK, os.makedev(8, 0))):
    try: os.mknod("device", kind | 0o600, number)
    except OSError as error: print(errno.errorcode[error.errno])
try: os.setxattr("f", "trusted.overlay.opaque", b"y")
except OSError as error: print(errno.errorcode[error.errno])
"#,
    );
    assert_eq!(said, "EPERM\nEPERM\nEPERM\nEPERM\n");
}

#[test]
fn a_descriptor_follows_a_copy_up_and_a_mapping_does_not() {
    let (host, at, _) = mounted();
    let said = python(
        &host,
        &at,
        r#"
import mmap, os
before = os.open("f", os.O_RDONLY)
mapped = mmap.mmap(before, 0, mmap.MAP_SHARED, mmap.PROT_READ)
assert mapped[:] == b"hello\n"
time = os.stat("x").st_mtime_ns
with open("f", "r+b") as file: file.write(b"HELLO\nmore\n")
print(os.pread(before, 100, 0), mapped[:5])
writable = os.open("f", os.O_RDWR); both = mmap.mmap(writable, 0); both[0:1] = b"J"; both.flush()
print(os.pread(before, 5, 0))
os.chmod("x", 0o700); os.close(os.open("same", os.O_RDWR))
print(os.stat("x").st_mtime_ns == time, os.stat("same").st_mtime_ns == time, oct(os.stat("same").st_mode))
"#,
    );
    assert_eq!(said, "b'HELLO\\nmore\\n' b'hello'\nb'JELLO'\nTrue True 0o100644\n");
}

#[test]
fn locks_hold_across_a_copy_up() {
    let (host, at, _) = mounted();
    let said = python(
        &host,
        &at,
        r#"
import fcntl, os
before = os.open("f", os.O_RDONLY); fcntl.flock(before, fcntl.LOCK_EX)
after = os.open("f", os.O_RDWR)
try: fcntl.flock(after, fcntl.LOCK_EX | fcntl.LOCK_NB); print("taken twice")
except BlockingIOError: print("held")
fcntl.flock(before, fcntl.LOCK_UN); fcntl.flock(after, fcntl.LOCK_EX | fcntl.LOCK_NB)
fcntl.lockf(after, fcntl.LOCK_EX | fcntl.LOCK_NB)
child = os.fork()
if child == 0:
    try: fcntl.lockf(os.open("f", os.O_RDWR), fcntl.LOCK_EX | fcntl.LOCK_NB); os._exit(1)
    except OSError: os._exit(0)
print(os.waitpid(child, 0)[1])
"#,
    );
    assert_eq!(said, "held\n0\n");
}

#[test]
fn watches_see_changes_of_files_that_are_copied_up() {
    let (host, at, _) = mounted();
    let said = python(
        &host,
        &at,
        r#"
import ctypes, os, struct
libc = ctypes.CDLL(None, use_errno=True)
fd = libc.inotify_init1(os.O_NONBLOCK)
file, directory = libc.inotify_add_watch(fd, b"f", 0x2), libc.inotify_add_watch(fd, b"d", 0x102)
open("f", "a").write("more\n"); open("d/new", "w").write("x")
events, seen, at = os.read(fd, 4096), set(), 0
while at < len(events):
    watch, mask, _, length = struct.unpack_from("iIII", events, at); at += 16 + length
    seen.add(("file" if watch == file else "directory", hex(mask)))
print(sorted(seen))
"#,
    );
    assert_eq!(said, "[('directory', '0x100'), ('directory', '0x2'), ('file', '0x2')]\n");
}

#[test]
fn attributes_can_be_set_and_are_kept() {
    let (host, at, id) = mounted();
    let said = python(
        &host,
        &at,
        r#"
import errno, os
for ask in (lambda: os.getxattr("f", "user.a"), lambda: os.listxattr("f")):
    try: ask(); print("an answer")
    except OSError as error: print(error.errno in (errno.ENODATA, errno.ENOTSUP))
os.setxattr("f", "user.a", b"1")
"#,
    );
    assert_eq!(said, "True\nTrue\n");
    remount(&host, &at, &id);
    let said = python(
        &host,
        &at,
        "import os; print(os.getxattr('f', 'user.a'), os.listxattr('f'), open('f').read(), end='')",
    );
    assert_eq!(said, "b'1' ['user.a'] hello\n");
}

#[test]
fn ephemeral_and_read_only_are_what_they_say() {
    let mut host = host();
    let (read_only, _) = host.mount(ALICE, "r", &["--read-only"]);
    let (ephemeral, id) = host.mount(ALICE, "e", &["--ephemeral"]);
    for change in ["touch new", "echo x >> f", "chmod 600 f", "rm f", "mkdir m"] {
        let output = host.try_sh_as(ALICE, &format!("cd {} && LC_ALL=C {change}", read_only.display()));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("Read-only file system"), "{change}: {said}");
    }
    assert_eq!(fs::metadata(&read_only).unwrap().mode(), 0o040_700);
    host.sh_as(ALICE, &format!("cd {} && echo new > new && sync new", ephemeral.display()));
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let options = table.lines().find(|line| line.contains(&format!("scorpio:{id}"))).unwrap();
    assert!(options.contains("volatile"), "{options}");
    host.end(Signal::SIGKILL);
    host.start();
    assert_eq!(host.refused(ALICE, &["info", &id]), (3, "NoSuchWorkspace".to_owned()));
    assert_eq!(fs::read_dir(&ephemeral).unwrap().count(), 0);
    assert_eq!(host.json(ALICE, &["list"]).as_array().unwrap().len(), 1);
}

#[test]
fn warm_means_that_the_daemon_is_not_asked() {
    let (host, at, _) = mounted();
    let walk = format!(
        "cd {} && find . -ls > /dev/null && find . -type f -exec cat {{}} + > /dev/null && ./x && readlink l && ! cat missing 2> /dev/null",
        at.display()
    );
    host.sh_as(ALICE, &walk);
    host.sh_as(ALICE, &walk);
    let before = host.requests();
    host.sh_as(ALICE, &walk);
    assert_eq!(host.requests() - before, 0, "{:?}", host.opcodes());
    host.sh("echo 3 > /proc/sys/vm/drop_caches");
    host.sh_as(ALICE, &walk);
    assert!(host.requests() > before, "the counter counts");
}

#[test]
fn what_is_written_never_passes_through_the_daemon() {
    let (host, at, _) = mounted();
    host.sh_as(
        ALICE,
        &format!(
            "cd {} && head -c 1048576 /dev/zero > large && echo x >> f && mv d D && rm l && mkdir m && ln f m/f && \
             chmod 600 x && touch same && : > crlf && sync",
            at.display()
        ),
    );
    const READING: [&str; 15] = [
        "INIT",
        "LOOKUP",
        "GETATTR",
        "READLINK",
        "READ",
        "READDIR",
        "READDIRPLUS",
        "STATFS",
        "OPEN",
        "OPENDIR",
        "FLUSH",
        "GETXATTR",
        "LISTXATTR",
        "IOCTL",
        "LSEEK",
    ];
    let opcodes = host.opcodes();
    let silent =
        ["FORGET", "BATCH_FORGET", "INTERRUPT", "STATX", "SYNCFS", "POLL", "FSYNC", "RELEASE", "RELEASEDIR"];
    let others: Vec<_> = opcodes
        .keys()
        .filter(|name| !READING.contains(&name.as_str()) && !silent.contains(&name.as_str()))
        .collect();
    assert!(others.is_empty(), "{others:?} of {opcodes:?}");
}

#[test]
fn an_origin_that_is_away_is_eio_and_nothing_is_remembered() {
    let (host, at, _) = mounted();
    host.sh(&format!("cat {}/x && mv repo/.git repo/away", at.display()));
    let read = |name: &str| fs::read_to_string(at.join(name)).map_err(|error| error.raw_os_error());
    assert_eq!(read("x").unwrap().len(), 19, "what was read stays");
    assert_eq!(read("f"), Err(Some(libc::EIO)));
    let list: std::io::Result<Vec<_>> = fs::read_dir(at.join("d")).and_then(Iterator::collect);
    assert_eq!(list.unwrap_err().raw_os_error(), Some(libc::EIO));
    assert!(host.log().contains("a question of the kernel failed"), "{}", host.log());
    host.sh("mv repo/away repo/.git");
    assert_eq!(read("f"), Ok("hello\n".to_owned()));
    assert_eq!(read("d/e/two"), Ok("two\n".to_owned()));
}

#[test]
fn a_restart_keeps_what_was_written_and_what_was_not() {
    let (mut host, at, _) = mounted();
    host.sh_as(ALICE, &format!("cd {} && echo new > new && rm same && cat f", at.display()));
    let written = fs::File::open(at.join("new")).unwrap();
    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        host.end(signal);
        let mut bytes = [0; 4];
        written.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(&bytes, b"new\n", "a descriptor of a written file works while no daemon does");
        host.start();
        assert_eq!(fs::read_to_string(at.join("new")).unwrap(), "new\n");
        assert_eq!(fs::read_to_string(at.join("d/e/two")).unwrap(), "two\n");
        assert!(!at.join("same").exists());
    }
}

#[test]
fn a_workspace_with_changes_is_not_removed_unasked() {
    let (host, at, id) = mounted();
    host.sh_as(ALICE, &format!("echo new > {}/new", at.display()));
    assert_eq!(host.refused(ALICE, &["remove", &id]), (6, "UnsavedChanges".to_owned()));
    assert_eq!(fs::read_to_string(at.join("new")).unwrap(), "new\n");
    host.json(ALICE, &["remove", &id, "--discard", "--yes"]);
    assert_eq!(host.json(ALICE, &["list"]).as_array().unwrap().len(), 0);
}

/// "Moving uppers to another file system" in `docs/OPERATIONS.md`.
#[test]
fn uppers_are_moved_as_operations_says() {
    let (mut host, at, id) = mounted();
    host.sh_as(ALICE, &format!("cd {} && echo new > new && mv d D && rm same && chmod 600 f", at.display()));
    host.end(Signal::SIGTERM);
    host.sh("mkdir -m 700 uppers && cp -a state/workspaces uppers/");
    let config = fs::read_to_string(host.path("scorpio.toml")).unwrap();
    let moved = format!("[daemon]\nupper_root = \"{}\"", host.path("uppers/workspaces").display());
    fs::write(host.path("scorpio.toml"), config.replacen("[daemon]", &moved, 1)).unwrap();
    host.sh(&format!("rm -rf state/workspaces/{id}/upper state/workspaces/{id}/work-*"));
    host.start();
    let said =
        host.sh_as(ALICE, &format!("cd {} && cat new D/e/two f && ! ls same 2> /dev/null", at.display()));
    assert_eq!(said, "new\ntwo\nhello\n");
    assert_eq!(fs::metadata(at.join("f")).unwrap().permissions().mode() & 0o7777, 0o600);
}
