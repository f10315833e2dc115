//! What programs do with one file: mappings, programs, unnamed files, holes, attributes, locks.

use crate::{
    Case, Family, Outcome, cases,
    place::Place,
    support::{ALICE, BOB},
    table,
};

const TREE: &str = r##"
    echo content > f; cp f g; cp f h; cp f locked; cp f posix; cp f ofd; cp f acl; cp f direct; mkdir d; echo x > d/x
    printf '#!/bin/sh\necho ran "$@"\n' > script; chmod 755 script; cp /bin/echo program; cp /bin/echo changed
    head -c 1000000 /dev/zero | tr '\0' 'a' > large; cp large punched; cp large ranged
"##;

const CASES: &[Case] = cases![
    shared_mappings_are_seen_by_all_processes,
    a_private_mapping_changes_nothing,
    scripts_and_programs_run,
    a_program_that_is_built_here_runs_here,
    unnamed_files_work_and_can_get_a_name,
    fallocate_in_its_modes,
    holes_are_found,
    a_files_range_is_copied,
    direct_reads_give_the_same_bytes,
    access_control_lists_are_kept_and_obeyed,
    flock_excludes_other_processes,
    posix_locks_exclude_other_processes,
    descriptions_locks_exclude_other_processes,
    a_waiting_lock_is_granted_and_stops_nobody_else,
    special_files_of_users_work,
    a_lease_is_broken_by_a_writer,
    reads_beyond_the_end_are_empty,
];

#[test]
fn files_do_what_programs_expect() {
    let users = &[ALICE, BOB];
    table::check(&Family { title: "Files", tree: TREE.to_owned(), users, kept: false, cases: CASES });
}

fn shared_mappings_are_seen_by_all_processes(place: &Place) -> Outcome {
    place.python(
        r#"
for name in ("f", "new"):
    if name == "new": put("new", "content\n")
    fd = os.open(name, os.O_RDWR)
    mapped = mmap.mmap(fd, 8)
    def work(number):
        other = mmap.mmap(os.open(name, os.O_RDWR), 8)
        other[number:number + 1] = b"CONT"[number:number + 1]
    same(processes(4, work), [0] * 4)
    same((mapped[:], get(name)), (b"CONTent\n", "CONTent\n"))
    mapped[7:8] = b"!"
    same(os.pread(fd, 8, 0), b"CONTent!")
    os.pwrite(fd, b"?", 7); same(mapped[:], b"CONTent?")
    mapped.flush(); mapped.close()
    same(get(name), "CONTent?")
"#,
    )
}

fn a_private_mapping_changes_nothing(place: &Place) -> Outcome {
    place.python(
        r#"
mapped = mmap.mmap(os.open("g", os.O_RDONLY), 8, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
mapped[0:1] = b"C"
same((mapped[:], get("g")), (b"Content\n", "content\n"))
same(refused(lambda: mmap.mmap(os.open("g", os.O_RDONLY), 8, prot=mmap.PROT_WRITE)), "EACCES")
"#,
    )
}

fn scripts_and_programs_run(place: &Place) -> Outcome {
    place.sh("test \"$(./script a b)\" = 'ran a b'; test \"$(./program x)\" = x
         test \"$(printf '\\n' >> changed; ./changed y)\" = y; cp program copied; test \"$(./copied z)\" = z
         chmod 644 script; ! ./script 2>/dev/null; mv program d/moved; test \"$(d/moved m)\" = m")
}

fn a_program_that_is_built_here_runs_here(place: &Place) -> Outcome {
    place.sh("printf 'int puts(const char *); int main() { puts(\"built\"); }' > b.c; cc -o b b.c; test $(./b) = built")
}

fn unnamed_files_work_and_can_get_a_name(place: &Place) -> Outcome {
    place.python(
        r#"
for where in (".", "d"):
    fd = os.open(where, os.O_TMPFILE | os.O_RDWR, 0o640)
    os.write(fd, b"unnamed"); same(os.fstat(fd).st_nlink, 0)
    call("linkat", AT, b"/proc/self/fd/%d" % fd, AT, os.fsencode(f"{where}/named"), 0x400)
    same((get(f"{where}/named"), os.stat(f"{where}/named").st_mode), ("unnamed", 0o100640))
fd = os.open("d", os.O_TMPFILE | os.O_RDWR | os.O_EXCL)
same(refused(call, "linkat", AT, b"/proc/self/fd/%d" % fd, AT, b"d/never", 0x400), "ENOENT")
same(sorted(os.listdir("d")), ["moved", "named", "x"])
"#,
    )
}

fn fallocate_in_its_modes(place: &Place) -> Outcome {
    place.python(
        r#"
KEEP, PUNCH, COLLAPSE, ZERO, INSERT = 1, 2, 8, 16, 32
fd = os.open("punched", os.O_RDWR)
fallocate(fd, 0, 0, 1_100_000); same(os.fstat(fd).st_size, 1_100_000)
fallocate(fd, KEEP, 0, 2_000_000); same(os.fstat(fd).st_size, 1_100_000)
fallocate(fd, PUNCH | KEEP, 100, 200)
same(os.pread(fd, 400, 0), b"a" * 100 + b"\0" * 200 + b"a" * 100)
fallocate(fd, ZERO, 1000, 100); same(os.pread(fd, 102, 999), b"a" + b"\0" * 100 + b"a")
fallocate(fd, COLLAPSE, 4096, 4096); same(os.fstat(fd).st_size, 1_100_000 - 4096)
fallocate(fd, INSERT, 4096, 4096); same(os.pread(fd, 4098, 4095), b"a" + b"\0" * 4096 + b"a")
same(refused(lambda: fallocate(os.open("large", os.O_RDONLY), 0, 0, 10)), "EBADF")
"#,
    )
}

fn holes_are_found(place: &Place) -> Outcome {
    place.python(
        r#"
fd = os.open("sparse", os.O_RDWR | os.O_CREAT); os.ftruncate(fd, 10 << 20); os.pwrite(fd, b"x", 5 << 20); os.fsync(fd)
same(os.lseek(fd, 0, os.SEEK_DATA), 5 << 20)
same(os.lseek(fd, 0, os.SEEK_HOLE), 0)
same(os.lseek(fd, 5 << 20, os.SEEK_HOLE), (5 << 20) + 4096)
same(refused(os.lseek, fd, 6 << 20, os.SEEK_DATA), "ENXIO")
same(os.fstat(fd).st_blocks * 512 < 1 << 20, True)
lower = os.open("large", os.O_RDONLY)
same((os.lseek(lower, 10, os.SEEK_DATA), os.lseek(lower, 10, os.SEEK_HOLE)), (10, 1_000_000))
same(refused(os.lseek, lower, 1_000_000, os.SEEK_DATA), "ENXIO")
"#,
    )
}

fn a_files_range_is_copied(place: &Place) -> Outcome {
    place.python(
        r#"
def copy(source, target, count):
    while count: count -= os.copy_file_range(source, target, count)
put("source", get("large")); source = os.open("source", os.O_RDONLY)
new = os.open("copy", os.O_RDWR | os.O_CREAT); copy(source, new, 1_000_000)
same(get("copy"), get("large"))
append("g", ""); over = os.open("ranged", os.O_RDWR); copy(os.open("g", os.O_RDONLY), over, 8)
lower = os.open("large", os.O_RDONLY)
same(get("ranged")[:9], "content\na")
sent = os.open("sent", os.O_RDWR | os.O_CREAT)
total = 0
while total < 1_000_000: total += os.sendfile(sent, lower, total, 1_000_000 - total)
same(get("sent"), get("large"))
"#,
    )
}

fn direct_reads_give_the_same_bytes(place: &Place) -> Outcome {
    place.python(
        r#"
def direct(name, size):
    fd = os.open(name, os.O_RDONLY | os.O_DIRECT)
    space = mmap.mmap(-1, 1 << 20); count = os.readv(fd, [space]); same(space[:count], get(name).encode("latin1")); same(count, size)
direct("direct", 8); direct("large", 1_000_000)
put("direct", b"d" * 4096); direct("direct", 4096)
"#,
    )
}

fn access_control_lists_are_kept_and_obeyed(place: &Place) -> Outcome {
    place.sh(&format!(
        r#"
        setfacl -m u:1:rw,g:2:r acl; setfacl -d -m u:1:rx d; mkdir d/below; echo x > d/below/f
        test "$(getfacl -nc acl | tr '\n' ' ')" = 'user::rw- user:1:rw- group::r-- group:2:r-- mask::rw- other::r--  '
        test "$(getfacl -nc d/below | grep -c '^default:user:1:r-x')" = 1
        test "$(getfacl -nc d/below/f | grep -c '^user:1:r-x')" = 1
        setfacl -m u:{ALICE}:---,u:{BOB}:--- acl; cat acl > /dev/null  # the owner's entry goes before a named one
        chmod 600 acl; test "$(getfacl -nc acl | grep -c '^mask::---')" = 1
        "#
    ))
    .and_then(|_| place.sh("setfacl -m m::rw acl; setfacl -x u:1 acl"))
}

fn flock_excludes_other_processes(place: &Place) -> Outcome {
    place.python(
        r#"
before = os.open("locked", os.O_RDONLY); fcntl.flock(before, fcntl.LOCK_EX)  # of the lower still
def other(number): return 7 if refused(fcntl.flock, os.open("locked", os.O_RDWR), fcntl.LOCK_EX | fcntl.LOCK_NB) == "EAGAIN" else 8
same(processes(3, other), [7] * 3)  # the first of them copied it up
fcntl.flock(before, fcntl.LOCK_SH)
def reader(number): return 7 if refused(fcntl.flock, os.open("locked", os.O_RDONLY), fcntl.LOCK_SH | fcntl.LOCK_NB) == "allowed" else 8
same(processes(3, reader), [7] * 3)
os.close(before); same(processes(1, other), [8])
"#,
    )
}

fn posix_locks_exclude_other_processes(place: &Place) -> Outcome {
    place.python(
        r#"
fd = os.open("posix", os.O_RDONLY); fcntl.lockf(fd, fcntl.LOCK_SH, 4, 0)  # of the lower still
def other(number):
    mine = os.open("posix", os.O_RDWR)
    return 7 if (refused(fcntl.lockf, mine, fcntl.LOCK_EX | fcntl.LOCK_NB, 4, 0), refused(fcntl.lockf, mine, fcntl.LOCK_EX | fcntl.LOCK_NB, 4, 4 + 4 * number)) == ("EAGAIN", "allowed") else 8
same(processes(3, other), [7] * 3)
fcntl.lockf(fd, fcntl.LOCK_UN)
def free(number): return 7 if refused(fcntl.lockf, os.open("posix", os.O_RDWR), fcntl.LOCK_EX | fcntl.LOCK_NB) == "allowed" else 8
same(processes(1, free), [7])
"#,
    )
}

fn descriptions_locks_exclude_other_processes(place: &Place) -> Outcome {
    place.python(
        r#"
fd = os.open("ofd", os.O_RDWR); fcntl.fcntl(fd, OFD_SETLK, lock(F_WRLCK))
second = os.open("ofd", os.O_RDWR)
same(refused(fcntl.fcntl, second, OFD_SETLK, lock(F_WRLCK)), "EAGAIN")  # another description of the same process
same(processes(2, lambda number: 7 if refused(fcntl.fcntl, os.open("ofd", os.O_RDWR), OFD_SETLK, lock(F_WRLCK)) == "EAGAIN" else 8), [7] * 2)
same(processes(1, lambda number: 7 if refused(fcntl.fcntl, fd, OFD_SETLK, lock(F_WRLCK)) == "allowed" else 8), [7])  # inherited
os.close(fd); fcntl.fcntl(second, OFD_SETLK, lock(F_WRLCK))
"#,
    )
}

fn a_waiting_lock_is_granted_and_stops_nobody_else(place: &Place) -> Outcome {
    place.python(
        r#"
fd = os.open("h", os.O_RDWR); fcntl.lockf(fd, fcntl.LOCK_EX)
ready, told = os.pipe()
child = os.fork()
if child == 0:
    os.write(told, b"1"); fcntl.lockf(os.open("h", os.O_RDWR), fcntl.LOCK_EX); append("h", "had it"); os._exit(0)
os.read(ready, 1)
append("h", "others go on\n"); put("while", "it waits"); same(get("g")[:1], "c")
fcntl.lockf(fd, fcntl.LOCK_UN)
same((os.waitpid(child, 0)[1], get("h")), (0, "content\nothers go on\nhad it"))
"#,
    )
}

fn special_files_of_users_work(place: &Place) -> Outcome {
    place.python(
        r#"
import socket
os.mkfifo("d/fifo")
def other(number): put("d/fifo", "through", os.O_WRONLY)
child = os.fork()
if child == 0: other(0); os._exit(0)
same((get("d/fifo"), os.waitpid(child, 0)[1]), ("through", 0))
listening = socket.socket(socket.AF_UNIX); listening.bind("d/socket"); listening.listen()
client = socket.socket(socket.AF_UNIX); client.connect("d/socket"); client.send(b"hello")
same(listening.accept()[0].recv(5), b"hello")
os.symlink("x" * 4000, "d/long"); same(len(os.readlink("d/long")), 4000)
"#,
    )
}

fn a_lease_is_broken_by_a_writer(place: &Place) -> Outcome {
    place.python(
        r#"
import signal
F_SETLEASE, F_RDLCK = 1024, 0
fd = os.open("large", os.O_RDONLY)
broken = []
signal.signal(signal.SIGIO, lambda *_: (broken.append(1), fcntl.fcntl(fd, F_SETLEASE, F_UNLCK)))
taken = refused(fcntl.fcntl, fd, F_SETLEASE, F_RDLCK)
if taken == "allowed":
    child = os.fork()
    if child == 0: os.open("large", os.O_RDWR); os._exit(0)
    while os.waitpid(child, os.WNOHANG)[0] == 0: time.sleep(0.01)
    print("broken" if broken else "not broken")
else: print(taken)
"#,
    )
}

fn reads_beyond_the_end_are_empty(place: &Place) -> Outcome {
    place.python(
        r#"
fd = os.open("g", os.O_RDONLY)
same([os.pread(fd, 10, offset) for offset in (7, 8, 9, 1 << 20, 1 << 40)], [b"\n", b"", b"", b"", b""])
same(refused(os.pread, os.open("d", os.O_RDONLY), 10, 0), "EISDIR")
same(refused(os.open, "g/x", os.O_RDONLY), "ENOTDIR")
"#,
    )
}
