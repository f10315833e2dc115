"""Everything that a program can learn of a tree, as lines of JSON: [what, answer].

look.py TREE PLACE ro|rw

What is told does not depend on where the tree is mounted: no st_dev, no mount id. Failures are told by their errno's
name. PLACE is the mount's own root, where trees are found by name alone. With "rw" the mount lets changes through
to the server, with "ro" the kernel refuses them itself.
"""

import ctypes
import ctypes.util
import errno
import fcntl
import hashlib
import json
import mmap
import os
import select
import stat
import struct
import sys

libc = ctypes.CDLL(None, use_errno=True)
AT_FDCWD = -100
BIG = 1000  # a directory with more entries is sampled


def told(call):
    """The answer of a call, or its errno."""
    try:
        return call()
    except OSError as error:
        return errno.errorcode.get(error.errno, error.errno)
    except OverflowError:
        return "overflow"


def libc_call(name, *args):
    result = getattr(libc, name)(*args)
    if result < 0:
        raise OSError(ctypes.get_errno(), name)
    return result


libc.lseek.restype = ctypes.c_longlong
libc.lseek.argtypes = [ctypes.c_int, ctypes.c_longlong, ctypes.c_int]
libc.getdents64.restype = ctypes.c_ssize_t
libc.copy_file_range.restype = ctypes.c_ssize_t
libc.copy_file_range.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint]
libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_longlong, ctypes.c_longlong]


def name_of(path):
    return path.decode("latin-1")


def say(what, path, answer):
    sys.stdout.write(json.dumps([what + " " + name_of(path), answer]) + "\n")


def digest(data):
    return [len(data), hashlib.sha1(data).hexdigest()]


def statx(fd, path, flags):
    room = ctypes.create_string_buffer(256)
    libc_call("statx", fd, path, flags, 0xFFF, room)
    mask, blksize, attributes, nlink, uid, gid, mode, _, ino, size, blocks, attr_mask = struct.unpack_from("<IIQIIIHHQQQQ", room)
    times = [struct.unpack_from("<qI", room, at) for at in (64, 80, 96, 112)]
    rdev = struct.unpack_from("<II", room, 128)
    dio = struct.unpack_from("<II", room, 152)
    mask &= ~0x5000  # the mount's id, which differs
    return [mask, blksize, attributes, nlink, uid, gid, oct(mode), ino, size, blocks, attr_mask, times, rdev, dio]


def getdents(fd, room=32768):
    """One answer: [name, d_ino, d_type, d_off] of each entry."""
    buffer = ctypes.create_string_buffer(room)
    length = libc_call("getdents64", fd, buffer, room)
    entries, at = [], 0
    while at < length:
        ino, off, reclen, kind = struct.unpack_from("<QqHB", buffer, at)
        name = ctypes.string_at(ctypes.addressof(buffer) + at + 19)
        entries.append([name_of(name), ino, kind, off])
        at += reclen
    return entries


def listing(path, room):
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        entries = []
        while True:
            piece = getdents(fd, room)
            if not piece:
                return entries
            entries += piece
    finally:
        os.close(fd)


def resumed(path, whence, offset):
    """How a listing goes on that is told to go to an offset. How far one answer reaches is the kernel's choice."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        to = libc_call("lseek", fd, offset, whence)
        first = told(lambda: getdents(fd, 4096))
        now = told(lambda: libc_call("lseek", fd, 0, 1))
        return [to, first[:3], now == first[-1][3]] if first and isinstance(first, list) else [to, first, now]
    finally:
        os.close(fd)


def with_open(path, flags, act):
    fd = os.open(path, flags, 0o644)
    try:
        return act(fd)
    finally:
        os.close(fd)


def opened(path, flags):
    return told(lambda: with_open(path, flags, lambda fd: "opened"))


def xattrs(path):
    room = ctypes.create_string_buffer(4096)
    for name in (b"user.x", b"security.capability", b"security.selinux", b"system.posix_acl_access", b"trusted.overlay.opaque"):
        say("getxattr " + name.decode(), path, told(lambda: libc_call("lgetxattr", path, name, room, 4096)))
        say("getxattr size " + name.decode(), path, told(lambda: libc_call("lgetxattr", path, name, None, 0)))
    say("listxattr", path, told(lambda: libc_call("llistxattr", path, room, 4096)))
    say("listxattr size", path, told(lambda: libc_call("llistxattr", path, None, 0)))
    for name in (b"user.x", b"trusted.x", b"system.posix_acl_access"):
        say("setxattr " + name.decode(), path, told(lambda: libc_call("lsetxattr", path, name, b"v", 1, 0)))
        say("removexattr " + name.decode(), path, told(lambda: libc_call("lremovexattr", path, name)))


def changes(path, is_dir):
    other = path[:200] + b".new"
    say("chmod", path, told(lambda: os.chmod(path, 0o600)))
    say("chown", path, told(lambda: os.lchown(path, 0, 0)))
    say("chown none", path, told(lambda: os.lchown(path, -1, -1)))
    say("utime", path, told(lambda: os.utime(path, (1, 1), follow_symlinks=False)))
    say("utime now", path, told(lambda: os.utime(path, follow_symlinks=False)))
    say("truncate", path, told(lambda: os.truncate(path, 1)))
    say("unlink", path, told(lambda: os.unlink(path)))
    say("rmdir", path, told(lambda: os.rmdir(path)))
    say("rename", path, told(lambda: os.rename(path, other)))
    for flag in (1, 2, 4, 8):
        say("rename2 %d" % flag, path, told(lambda: libc_call("renameat2", AT_FDCWD, path, AT_FDCWD, other, flag)))
        say("rename2 self %d" % flag, path, told(lambda: libc_call("renameat2", AT_FDCWD, path, AT_FDCWD, path, flag)))
    say("link", path, told(lambda: os.link(path, other, follow_symlinks=False)))
    say("symlink over", path, told(lambda: os.symlink(b"x", path)))
    say("mkdir over", path, told(lambda: os.mkdir(path)))
    say("mknod over", path, told(lambda: os.mknod(path, stat.S_IFIFO | 0o644)))
    if is_dir:
        new = path + b"/new"
        say("create", path, opened(new, os.O_CREAT | os.O_WRONLY))
        say("create exclusively", path, opened(new, os.O_CREAT | os.O_EXCL | os.O_RDWR))
        say("mkdir", path, told(lambda: os.mkdir(new)))
        say("symlink", path, told(lambda: os.symlink(b"x", new)))
        say("mknod", path, told(lambda: os.mknod(new, stat.S_IFIFO | 0o644)))
        say("tmpfile", path, opened(path, os.O_TMPFILE | os.O_RDWR))
        say("nothing came of it", path, told(lambda: os.lstat(new).st_ino))


def opens(path, rw):
    flags = {
        "rdonly": os.O_RDONLY, "wronly": os.O_WRONLY, "rdwr": os.O_RDWR, "append": os.O_WRONLY | os.O_APPEND,
        "creat": os.O_RDONLY | os.O_CREAT, "excl": os.O_RDONLY | os.O_CREAT | os.O_EXCL, "directory": os.O_DIRECTORY,
        "nofollow": os.O_NOFOLLOW, "path": os.O_PATH, "path nofollow": os.O_PATH | os.O_NOFOLLOW, "direct": os.O_DIRECT,
        "noatime": os.O_NOATIME, "nonblock": os.O_NONBLOCK,
    }
    if not rw:  # see the table in the test
        flags["trunc"] = os.O_WRONLY | os.O_TRUNC
    for name, flag in flags.items():
        say("open " + name, path, opened(path, flag))


def reads(path, size):
    marks = {0, 1, 511, 4095, 4096, 4097, 65535, 65536, 65537, 131072, size // 2, size - 1, size, size + 1, size + 4096, 1 << 31, (1 << 62)}
    fd = told(lambda: os.open(path, os.O_RDONLY))
    if not isinstance(fd, int):
        say("no reads", path, fd)
        return
    for offset in sorted(mark for mark in marks if mark >= 0):
        for length in (0, 1, 4095, 4096, 65537, 1 << 20):
            say("read %d at %d" % (length, offset), path, told(lambda: digest(os.pread(fd, length, offset))))
        for whence in (3, 4):
            say("lseek %d to %d" % (whence, offset), path, told(lambda: libc_call("lseek", fd, offset, whence)))
    for whence, offset in ((0, -1), (2, 0), (2, -1), (2, 7), (1, -1), (3, -1), (9, 0)):
        say("lseek %d by %d" % (whence, offset), path, told(lambda: libc_call("lseek", fd, offset, whence)))
    os.lseek(fd, 0, 0)
    whole = told(lambda: digest(b"".join(iter(lambda: os.read(fd, 9000), b""))))
    say("whole", path, whole)
    say("mmap", path, told(lambda: digest(mapped(fd, size))) if size else "empty")
    calls(path, fd)
    os.close(fd)
    say("direct", path, told(lambda: with_open(path, os.O_DIRECT, lambda fd: digest(direct(fd)))))


def mapped(fd, size):
    with mmap.mmap(fd, size, mmap.MAP_SHARED, mmap.PROT_READ) as pages:
        return pages[:]


def direct(fd):
    pages = mmap.mmap(-1, 1 << 20)
    got = os.preadv(fd, [pages], 0)
    return pages[:got]


def calls(path, fd):
    room = ctypes.create_string_buffer(4096)
    for name, number in (("getflags", 0x80086601), ("setflags", 0x40086602), ("getversion", 0x80087601), ("fsgetxattr", 0x801C581F),
                         ("fibmap", 1), ("figetbsz", 2), ("fionread", 0x541B), ("fiemap", 0xC020660B), ("tcgets", 0x5401), ("unknown", 0x1234)):
        say("ioctl " + name, path, told(lambda: libc_call("ioctl", fd, ctypes.c_ulong(number), room)))
    for mode in (0, 1, 2, 3, 16):
        say("fallocate %d" % mode, path, told(lambda: libc_call("fallocate", fd, mode, 0, 4096)))
    for kind in (fcntl.LOCK_SH | fcntl.LOCK_NB, fcntl.LOCK_EX | fcntl.LOCK_NB, fcntl.LOCK_UN):
        say("flock %d" % kind, path, told(lambda: fcntl.flock(fd, kind)))
        say("lockf %d" % kind, path, told(lambda: fcntl.lockf(fd, kind)))
    lock = struct.pack("hhqqi4x", fcntl.F_RDLCK, 0, 0, 0, 0)
    for name, command in (("getlk", fcntl.F_GETLK), ("setlk", fcntl.F_SETLK), ("ofd get", 36), ("ofd set", 37), ("lease", 1024)):
        say("fcntl " + name, path, told(lambda: struct.unpack("hhqqi4x", fcntl.fcntl(fd, command, lock))[:4]) if command != 1024 else told(lambda: fcntl.fcntl(fd, command, fcntl.F_RDLCK)))
    say("fsync", path, told(lambda: os.fsync(fd)))
    say("fdatasync", path, told(lambda: os.fdatasync(fd)))
    say("syncfs", path, told(lambda: libc_call("syncfs", fd)))
    say("fadvise", path, told(lambda: os.posix_fadvise(fd, 0, 0, 3)))
    say("write", path, told(lambda: os.pwrite(fd, b"x", 0)))
    say("ftruncate", path, told(lambda: os.ftruncate(fd, 0)))
    say("getdents", path, told(lambda: len(getdents(fd, 256))))
    say("poll", path, told(lambda: polled(fd)))
    say("copied", path, told(lambda: copied(fd)))
    say("fchmod", path, told(lambda: os.fchmod(fd, 0o600)))
    say("statx of descriptor", path, told(lambda: statx(fd, b"", 0x1000)))
    say("fstatvfs", path, told(lambda: list(os.fstatvfs(fd))[:10]))


def polled(fd):
    poll = select.poll()
    poll.register(fd, 0xFFFF)
    return [event for _, event in poll.poll(0)]


def copied(fd):
    with open("/dev/null", "wb") as null:
        sent = told(lambda: os.sendfile(null.fileno(), fd, 0, 1 << 20))
    into = os.memfd_create("x")
    got = told(lambda: libc_call("copy_file_range", fd, None, into, None, 1 << 20, 0))
    os.close(into)
    return [sent, got]


def writes(path):
    """What a server says that is asked to write."""
    def act(fd):
        # Twice: the first may be what the kernel does before it asks.
        answers = [told(lambda: os.pwrite(fd, b"x" * 10, 0)) for _ in range(2)]
        answers += [told(lambda: libc_call("fallocate", fd, mode, 0, 4096)) for mode in (0, 1, 3)]
        answers += [told(lambda: os.ftruncate(fd, 3)), told(lambda: libc_call("copy_file_range", fd, None, fd, None, 1, 0))]
        return answers
    for name, flags in (("", os.O_RDWR), (" directly", os.O_RDWR | os.O_DIRECT)):
        say("write" + name, path, told(lambda: with_open(path, flags, act)))
        say("is as before", path, told(lambda: statx(AT_FDCWD, path, 0x100)))


def symlink(path):
    room = ctypes.create_string_buffer(4096)
    say("readlink", path, told(lambda: name_of(os.readlink(path))))
    for length in (1, 16, 4095):
        say("readlink %d" % length, path, told(lambda: libc_call("readlink", path, room, length)))
    say("through it", path, told(lambda: statx(AT_FDCWD, path, 0)))
    say("O_PATH readlink", path, told(lambda: with_open(path, os.O_PATH | os.O_NOFOLLOW, lambda fd: name_of(os.readlink(b"", dir_fd=fd)))))


def handle(path):
    room = ctypes.create_string_buffer(struct.pack("<I", 128), 256)
    mount_id = ctypes.c_int()
    libc_call("name_to_handle_at", AT_FDCWD, path, room, ctypes.byref(mount_id), 0)
    return list(struct.unpack_from("<Ii", room))


def absent(path):
    for name in (b"absent", b"a" * 255, b"a" * 256, b"a" * 1025, b"a" * 4000, b"\xff", b"new\nline\n"):
        for _ in range(2):  # once asked, once remembered
            say("absent %d" % len(name), path, told(lambda: os.lstat(path + b"/" + name).st_ino))
    say("empty name", path, told(lambda: os.lstat(b"").st_ino))
    say("dots", path, [told(lambda: os.lstat(path + dots).st_ino) for dots in (b"/.", b"/..", b"/./..", b"/")])


def directory(path, rw):
    entries = told(lambda: listing(path, 32768))
    say("listing", path, entries)
    say("listing by little", path, told(lambda: hashlib.sha1(json.dumps(listing(path, 300)).encode()).hexdigest()))
    if isinstance(entries, list):
        offsets = [entry[3] for entry in entries]
        offsets = offsets if len(offsets) < 50 else offsets[:5] + offsets[5:-5:997] + offsets[-5:]
        for offset in offsets + [0, len(entries) + 7, 1 << 40, (1 << 63) - 1]:
            say("seekdir %d" % offset, path, told(lambda: resumed(path, 0, offset)))
    for whence, offset in ((0, -1), (1, 0), (1, 5), (2, 0), (2, -1), (3, 0), (4, 0)):
        say("dir lseek %d by %d" % (whence, offset), path, told(lambda: resumed(path, whence, offset)))
    say("read a directory", path, told(lambda: with_open(path, os.O_DIRECTORY, lambda fd: os.read(fd, 10))))
    say("pread a directory", path, told(lambda: with_open(path, os.O_DIRECTORY, lambda fd: os.pread(fd, 10, 0))))
    absent(path)
    with_dir = told(lambda: with_open(path, os.O_DIRECTORY, lambda fd: calls(path, fd)))
    say("calls", path, with_dir)
    return entries if isinstance(entries, list) else []


def node(path, kind, rw):
    say("statx", path, told(lambda: statx(AT_FDCWD, path, 0x100)))
    seen = told(lambda: os.lstat(path))
    size = seen.st_size if isinstance(seen, os.stat_result) else 0
    is_dir = kind == stat.S_IFDIR
    say("access", path, [told(lambda: os.access(path, mode)) for mode in range(8)])
    say("access of a link", path, [told(lambda: libc_call("faccessat", AT_FDCWD, path, mode, 0x100)) for mode in range(8)])
    say("below", path, [told(lambda: os.lstat(path + below).st_ino) for below in (b"/x", b"/", b"/.", b"/..", b"/" + b"y" * 256)])
    say("handle", path, told(lambda: handle(path)))
    say("statvfs", path, told(lambda: list(os.statvfs(path))[:10]))
    opens(path, rw)
    xattrs(path)
    if kind == stat.S_IFLNK:
        symlink(path)
    else:
        say("readlink", path, told(lambda: os.readlink(path)))
    if kind == stat.S_IFREG:
        reads(path, size)
        say("exec", path, told(lambda: libc_call("execveat", AT_FDCWD, path, None, None, 0x10000)))  # AT_EXECVE_CHECK
        if rw:
            writes(path)
    if not is_dir:
        say("listing", path, told(lambda: listing(path, 4096)))
    changes(path, is_dir)
    say("afterwards", path, told(lambda: statx(AT_FDCWD, path, 0x100)))


def walk(path, rw):
    entries = directory(path, rw)
    node(path, stat.S_IFDIR, rw)
    step = 1 if len(entries) < BIG else len(entries) // 20
    for number, (name, _, kind, _) in enumerate(entries):
        if name in (".", ".."):
            continue
        child = path + b"/" + name.encode("latin-1")
        if number % step:
            say("statx", child, told(lambda: statx(AT_FDCWD, child, 0x100)))
        elif kind << 12 == stat.S_IFDIR:
            walk(child, rw)
        else:
            node(child, kind << 12, rw)


def place(path):
    """The mount's own root: trees are found in it, not listed."""
    say("place listing", path, told(lambda: [entry[0] for entry in listing(path, 4096)]))
    say("place statx", path, told(lambda: statx(AT_FDCWD, path, 0x100)))
    say("place statvfs", path, told(lambda: list(os.statvfs(path))[:10]))
    for name in (b"no-such-root", b"1", b"-", b"x" * 255, b"x" * 256, b"99999999-" + b"0" * 40):
        for _ in range(2):
            say("place " + name.decode(), path, told(lambda: os.lstat(path + b"/" + name).st_ino))


def main():
    tree, at, mode = sys.argv[1:]
    os.chdir(at)
    place(b".")
    os.chdir(tree)
    walk(b".", mode == "rw")


main()
