"""Does what it is told in a directory, and says what came of it: one JSON line in, one out.

Descriptors stay open in numbered slots over everything that happens to their names. Nothing is said that no program
may rely on: no device and inode numbers, no size or link count of a directory, and no times but those that were set
(which lie before 2001, where no clock puts them) on what is not a file's metadata alone: see `told_time`.
"""

import ctypes
import errno
import fcntl
import hashlib
import json
import mmap
import os
import stat
import sys

libc = ctypes.CDLL(None, use_errno=True)
libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_longlong, ctypes.c_longlong]
AT_FDCWD = -100
SET_BEFORE = 1_000_000_000
slots = {}


def checked(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), "")
    return "ok"


def raw(path):
    return path.encode("latin-1")


def text(name):
    return name.decode("latin-1")


def digest(data):
    return [len(data), hashlib.sha1(data).hexdigest()]


def content(length, seed):
    return (hashlib.sha1(str(seed).encode()).digest() * (length // 20 + 1))[:length]


def fd(slot):
    if slot not in slots:
        raise OSError(errno.EBADF, "")
    return slots[slot]


def put(slot, opened):
    if slot in slots:
        os.close(slots[slot])
    slots[slot] = opened
    return "ok"


def described(seen):
    told = [oct(seen.st_mode), seen.st_uid, seen.st_gid]
    if not stat.S_ISDIR(seen.st_mode):
        told += [seen.st_size, seen.st_nlink]
    if seen.st_mtime < SET_BEFORE and not stat.S_ISFIFO(seen.st_mode):  # what goes through a pipe changes its time, or not
        told.append(seen.st_mtime_ns)
    return told


def listed(at):
    with os.scandir(at) as entries:
        kind = lambda entry: "d" if entry.is_dir(follow_symlinks=False) else "l" if entry.is_symlink() else "f"
        return sorted(text(os.fsencode(entry.name)) + " " + kind(entry) for entry in entries)


def listed_again(descriptor):
    os.lseek(descriptor, 0, 0)
    return listed_names(descriptor)


def listed_names(descriptor):
    """By the descriptor itself, not by a copy with an offset of its own."""
    buffer, names = ctypes.create_string_buffer(32768), []
    while True:
        length = libc.getdents64(descriptor, buffer, 32768)
        checked(length)
        if length == 0:
            return sorted(name for name in names if name not in (".", ".."))
        at = 0
        while at < length:
            reclen = int.from_bytes(buffer.raw[at + 16 : at + 18], "little")
            names.append(text(ctypes.string_at(ctypes.addressof(buffer) + at + 19)))
            at += reclen


def read_all(path):
    opened = os.open(raw(path), os.O_RDONLY | os.O_NONBLOCK)
    try:
        return digest(b"".join(iter(lambda: os.read(opened, 1 << 20), b"")))
    finally:
        os.close(opened)


def append(slot, length, seed):
    return os.write(fd(slot), content(length, seed))


def mapped_write(slot, offset, length, seed):
    with mmap.mmap(fd(slot), 0, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE) as pages:
        at = offset % len(pages)
        data = content(min(length, len(pages) - at), seed)
        pages[at : at + len(data)] = data
        pages.flush()
        return len(data)


def told_time(seen, writable, time):
    """A file whose metadata alone was copied up gets the time of the copy when it is opened for writing, so that a time
    set on it before need not last: it is put where times are not told."""
    return time if writable or not stat.S_ISREG(seen.st_mode) else time + SET_BEFORE


def set_time(path, time):
    time = told_time(os.lstat(path), False, time)
    os.utime(path, (time, time), follow_symlinks=False)


def is_removed(descriptor):
    """Whether it reads what has no name any more, which cannot be copied up: left alone, see the page."""
    name = os.readlink("/proc/self/fd/%d" % descriptor)
    return name.endswith(" (deleted)") and not is_writable(descriptor)


def is_writable(descriptor):
    return fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY


def set_mode_of(descriptor, mode):
    return "left alone" if is_removed(descriptor) else os.fchmod(descriptor, mode)


def set_time_of(descriptor, time):
    if is_removed(descriptor):
        return "left alone"
    time = told_time(os.fstat(descriptor), is_writable(descriptor), time)
    os.utime(descriptor, (time, time))


def touch(path, time):
    opened = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        os.utime(opened, (time, time))
    finally:
        os.close(opened)


def remove_all(path):
    """As `rm -r`."""
    if not stat.S_ISDIR(os.lstat(path).st_mode):
        os.unlink(path)
        return
    for name in os.listdir(path):
        remove_all(path + b"/" + name)
    os.rmdir(path)


def copy_range(source, target, length, at, to):
    """As programs do it: between an unchanged file of the repository and a written one it is EXDEV."""
    try:
        return os.copy_file_range(source, target, length, at, to)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        return os.pwrite(target, os.pread(source, length, at), to)


def xattrs(path):
    names = sorted(name for name in os.listxattr(path, follow_symlinks=False) if name.startswith("user."))
    return {name: text(os.getxattr(path, name, follow_symlinks=False)) for name in names}


OPERATIONS = {
    "open": lambda slot, path, flags, mode: put(slot, os.open(raw(path), flags | os.O_NONBLOCK, mode)),
    "openat": lambda slot, dir, name, flags: put(slot, os.open(raw(name), flags | os.O_NONBLOCK, 0o640, dir_fd=fd(dir))),
    "close": lambda slot: os.close(fd(slot)) or slots.pop(slot) and "ok",
    "tmpfile": lambda slot, path, mode: put(slot, os.open(raw(path), os.O_TMPFILE | os.O_RDWR, mode)),
    "linkfd": lambda slot, path: checked(libc.linkat(AT_FDCWD, b"/proc/self/fd/%d" % fd(slot), AT_FDCWD, raw(path), 0x400)),
    "write": lambda slot, offset, length, seed: os.pwrite(fd(slot), content(length, seed), offset),
    "append": append,
    "read": lambda slot, offset, length: digest(os.pread(fd(slot), length, offset)),
    "mapwrite": mapped_write,
    "ftruncate": lambda slot, length: os.ftruncate(fd(slot), length),
    "truncate": lambda path, length: os.truncate(raw(path), length),
    "fallocate": lambda slot, mode, offset, length: checked(libc.fallocate(fd(slot), mode, offset, length)),
    "copyrange": lambda source, target, length, at, to: copy_range(fd(source), fd(target), length, at, to),
    "fsync": lambda slot: os.fsync(fd(slot)),
    "fstat": lambda slot: described(os.fstat(fd(slot))),
    "fchmod": lambda slot, mode: set_mode_of(fd(slot), mode),
    "futimens": lambda slot, time: set_time_of(fd(slot), time),
    "touch": lambda path, time: touch(raw(path), time),
    "rmtree": lambda path: remove_all(raw(path)),
    "fdlist": lambda slot: listed_again(fd(slot)),
    "stat": lambda path: described(os.lstat(raw(path))),
    "readall": read_all,
    "list": lambda path: listed(raw(path)),
    "mkdir": lambda path, mode: os.mkdir(raw(path), mode),
    "rmdir": lambda path: os.rmdir(raw(path)),
    "unlink": lambda path: os.unlink(raw(path)),
    "rename": lambda old, new, flags: checked(libc.renameat2(AT_FDCWD, raw(old), AT_FDCWD, raw(new), flags)),
    "link": lambda old, new: os.link(raw(old), raw(new), follow_symlinks=False),
    "symlink": lambda target, path: os.symlink(raw(target), raw(path)),
    "mkfifo": lambda path: os.mkfifo(raw(path)),
    "readlink": lambda path: text(os.readlink(raw(path))),
    "chmod": lambda path, mode: os.chmod(raw(path), mode),
    "utimens": lambda path, time: set_time(raw(path), time),
    "access": lambda path, mode: os.access(raw(path), mode),
    "setxattr": lambda path, name, value, flags: os.setxattr(raw(path), name, raw(value), flags, follow_symlinks=False),
    "getxattr": lambda path, name: text(os.getxattr(raw(path), name, follow_symlinks=False)),
    "removexattr": lambda path, name: os.removexattr(raw(path), name, follow_symlinks=False),
    "xattrs": lambda path: xattrs(raw(path)),
    # Without the care that the others take for what is known to differ.
    "exactly copyrange": lambda source, target, length: os.copy_file_range(fd(source), fd(target), length, 0, 0),
    "exactly fchmod": lambda slot, mode: os.fchmod(fd(slot), mode),
    "exactly futimens": lambda slot, time: os.utime(fd(slot), (time, time)),
    "exactly utimens": lambda path, time: os.utime(raw(path), (time, time)),
    "tree": lambda: dict(tree(b".")),
}


def attempt(call, *args):
    try:
        return call(*args)
    except OSError as error:
        return errno.errorcode.get(error.errno, error.errno)
    except ValueError:
        return "EINVAL"  # Python's own for a mapping of nothing


def tree(at):
    """Everything there is, by path."""
    yield text(at), [described(os.lstat(at)), attempt(xattrs, at)]
    names = attempt(lambda: sorted(os.listdir(at)))
    if not isinstance(names, list):
        yield text(at) + "/", names
        return
    for name in names:
        path = at + b"/" + name
        seen = attempt(os.lstat, path)
        if not isinstance(seen, os.stat_result):  # a directory that can be read and not searched
            yield text(path), seen
            continue
        if stat.S_ISDIR(seen.st_mode):
            yield from tree(path)
            continue
        told = [described(seen), attempt(xattrs, path)]
        if stat.S_ISREG(seen.st_mode):
            told.append(attempt(read_all, text(path)))
        if stat.S_ISLNK(seen.st_mode):
            told.append(text(os.readlink(path)))
        yield text(path), told


def main():
    os.chdir(sys.argv[1])
    os.umask(0o022)
    for line in sys.stdin:
        name, *args = json.loads(line)
        sys.stdout.write(json.dumps(attempt(OPERATIONS[name], *args)) + "\n")
        sys.stdout.flush()


main()
