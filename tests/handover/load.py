"""What users do in a workspace, each role a process: goes on until the file `stop` appears, checks every answer, and
prints how much was done, what failed, and the longest wait."""

import errno
import fcntl
import hashlib
import json
import mmap
import os
import random
import sqlite3
import sys
import time
import traceback

role, uid, mount, host = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
os.setgroups([])
os.setgid(uid)
os.setuid(uid)
manifest = json.load(open(host + "/manifest"))
rand = random.Random(os.getpid())
FILES = sorted(name for name in manifest if name.startswith("tree/"))


def digest(data):
    return hashlib.sha256(data).hexdigest()


def cold(fd):
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)


def expect(fine, what):
    if not fine:
        raise AssertionError(what)


def reader():
    while True:
        name = rand.choice(FILES)
        with open(f"{mount}/{name}", "rb") as file:
            if rand.random() < 0.7:
                cold(file.fileno())
            expect(digest(file.read()) == manifest[name], name)
        if rand.random() < 0.05:
            top = os.path.dirname(name)
            there = {f"{top}/{entry}" for entry in os.listdir(f"{mount}/{top}")}
            expect({other for other in FILES if os.path.dirname(other) == top} <= there, top)
        yield


def writer():
    log = os.open(mount + "/log", os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    inode = os.fstat(log).st_ino
    written = 0
    while True:
        line = b"%08d\n" % written
        expect(os.write(log, line) == len(line), "short write")
        written += 1
        if written % 50 == 0:
            os.fsync(log)
            expect(os.stat(mount + "/log").st_ino == inode, "another inode")
            expect(os.pread(log, 9 * written, 0).split() == [b"%08d" % n for n in range(written)], "log")
        # Copy-up of a file from below, and a rename over it.
        name = f"{mount}/changed/{written % 40}"
        with open(name, "r+b") as file:
            first = file.read()
            file.seek(0, 2)
            file.write(b"+")
        with open(name + ".new", "wb") as file:
            file.write(first)
        os.rename(name + ".new", name)
        expect(digest(open(name, "rb").read()) == manifest[f"changed/{written % 40}"], name)
        yield


def mapper():
    name = "tree/large"
    fd = os.open(f"{mount}/{name}", os.O_RDONLY)
    view = mmap.mmap(fd, 0, prot=mmap.PROT_READ)
    while True:
        view.madvise(mmap.MADV_DONTNEED)
        cold(fd)
        expect(digest(view[:]) == manifest[name], name)
        yield


def dweller():
    os.chdir(mount + "/tree/3")
    names = sorted(os.listdir("."))
    while True:
        expect(sorted(os.listdir(".")) == names, "listing")
        name = rand.choice(names)
        fd = os.open(name, os.O_RDONLY)
        cold(fd)
        expect(digest(os.read(fd, 1 << 20)) == manifest["tree/3/" + name], name)
        os.close(fd)
        expect(os.getcwd() == mount + "/tree/3", "cwd")
        yield


def holder():
    file = open(mount + "/lock", "r+b")
    fcntl.lockf(file, fcntl.LOCK_EX)
    while True:
        expect(file.seek(0) == 0 and file.read(4) == b"lock", "content")
        time.sleep(0.01)
        yield


def prober():
    while True:
        with open(mount + "/lock", "r+b") as file:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                expect(error.errno in (errno.EAGAIN, errno.EACCES), str(error))
            else:
                raise AssertionError("the lock is lost")
        time.sleep(0.01)
        yield


def database():
    base = sqlite3.connect(mount + "/base.db", timeout=30, isolation_level=None)
    expect(base.execute("pragma journal_mode").fetchone()[0] == "wal", "journal mode")
    return base


def inserter():
    base, count = database(), 0
    while True:
        base.execute("insert into t values (?, ?)", (count, "x" * rand.randrange(500)))
        count += 1
        if count % 100 == 0:
            expect(base.execute("select count(*) from t").fetchone()[0] == count, "count")
        yield


def counter():
    base, last = database(), 0
    while True:
        count, top = base.execute("select count(*), coalesce(max(n), -1) from t").fetchone()
        expect(count == top + 1 and count >= last, "rows are missing")
        last = count
        yield


done, failed, longest = 0, [], 0.0
work = globals()[role]()
while not os.path.exists(host + "/stop"):
    begin = time.monotonic()
    try:
        next(work)
        if done == 0:
            print("begun", flush=True)
        done += 1
    except BaseException:
        failed.append(traceback.format_exc())
        if len(failed) > 3:
            break
        work = globals()[role]()
    longest = max(longest, time.monotonic() - begin)
print(json.dumps({"role": role, "done": done, "failed": failed, "longest": longest}), flush=True)
