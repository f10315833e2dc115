"""What a user does who syncs each step. Every promise is noted outside of the disks, with the length of the disks' log before
it was begun and when it was kept. Goes on until the file `stop` appears."""

import json
import mmap
import os
import random
import sqlite3
import sys
import zlib

uid, workspace, mount, log, notes, stop, seed = sys.argv[1:]
notes = open(notes, "w", buffering=1)
os.setgroups([])
os.setgid(int(uid))
os.setuid(int(uid))
os.umask(0o022)
os.chdir(mount)
rand = random.Random(int(seed))

# As many of each kind lie in the repository.
FILES = 12
# What is done in one run has an end, and so has what the disks must hold.
LEAST, MOST = 6, 40


def position():
    return os.stat(log).st_size


def sum_of(data):
    return {"len": len(data), "crc": zlib.crc32(data)}


def note(key, begin, kind, path, torn=False, **state):
    state["path"] = path
    told = {"workspace": workspace, "key": key, "from": begin, "upto": position(), "torn": torn, "state": {kind: state}}
    notes.write(json.dumps(told) + "\n")


def read(path):
    with open(path, "rb") as file:
        return file.read()


def sync(path):
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


def write(path, data):
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def some(most):
    return rand.randbytes(rand.randrange(1, most))


def lower():
    """What the repository holds is promised from the start."""
    begin = position()
    note("config", begin, "is", "config", sum=sum_of(read("config")))
    for n in range(FILES):
        name = f"changed/{n}"
        note(name, begin, "is", name, sum=sum_of(read(name)))
        note(name + " begins", begin, "starts", name, sum=sum_of(read(name)))
        note(f"gone/{n}", begin, "is", f"gone/{n}", sum=sum_of(read(f"gone/{n}")))
        note(f"mode/{n}", begin, "is", f"mode/{n}", sum=sum_of(read(f"mode/{n}")), mode=0o644)
        note(f"tree/{n}", begin, "is", f"tree/{n}/file", sum=sum_of(read(f"tree/{n}/file")), gone=f"tree/moved-{n}")


appended = b""


def append(n):
    global appended
    begin = position()
    data = some(3000)
    fd = os.open("log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | (os.O_DSYNC if n % 3 == 2 else 0), 0o644)
    assert os.write(fd, data) == len(data)
    [os.fsync, os.fdatasync, lambda fd: None][n % 3](fd)
    os.close(fd)
    if n == 0:
        sync(".")
    appended += data
    note("log", begin, "starts", "log", sum=sum_of(appended))


def new(n):
    begin, data = position(), some(20000)
    write(f"new/{n}", data)
    sync("new")
    note(f"new/{n}", begin, "is", f"new/{n}", sum=sum_of(data))
    begin = position()
    os.link(f"new/{n}", f"new/{n}-too")
    sync("new")
    note(f"new/{n}-too", begin, "is", f"new/{n}-too", sum=sum_of(data))


def replace(n):
    begin, data = position(), some(6000)
    write("config.new", data)
    os.rename("config.new", "config")
    sync(".")
    note("config", begin, "is", "config", sum=sum_of(data))


def change(n):
    if n >= FILES:
        return
    begin, name = position(), f"changed/{n}"
    with open(name, "r+b") as file:
        data = file.read()
        more = some(3000)
        file.write(more)
        file.flush()
        os.fsync(file.fileno())
    note(name, begin, "is", name, torn=True, sum=sum_of(data + more))


def mode(n):
    if n >= FILES:
        return
    begin, name = position(), f"mode/{n}"
    data = read(name)
    os.chmod(name, 0o600)
    sync(name)
    note(name, begin, "is", name, sum=sum_of(data), mode=0o600)


def delete(n):
    if n >= FILES:
        return
    begin, name = position(), f"gone/{n}"
    os.unlink(name)
    sync("gone")
    note(name, begin, "absent", name)


def move(n):
    if n >= FILES:
        return
    begin, name, to = position(), f"tree/{n}", f"tree/moved-{n}"
    data = read(name + "/file")
    os.rename(name, to)
    sync("tree")
    note(name, begin, "is", to + "/file", sum=sum_of(data), gone=name)


def make(n):
    begin, data, name = position(), some(5000), f"made/{n}"
    os.mkdir(name)
    write(name + "/file", data)
    sync(name)
    sync("made")
    note(name, begin, "is", name + "/file", sum=sum_of(data))


def map(n):
    begin = position()
    page = n % 4 * 4096
    mapped[page : page + 4096] = rand.randbytes(4096)
    mapped.flush()
    note("mapped", begin, "is", "mapped", torn=True, sum=sum_of(mapped[:]))


def unsynced(n):
    begin, data, name = position(), some(5000), f"unsynced-{n}"
    with open(name, "wb") as file:
        file.write(data)
    note(name, begin, "unsynced", name, sum=sum_of(data))


def database(name, journal, synchronous):
    begin = position()
    base = sqlite3.connect(name, isolation_level=None)
    assert base.execute(f"pragma journal_mode={journal}").fetchone()[0] == journal
    base.execute(f"pragma synchronous={synchronous}")
    base.execute("pragma wal_autocheckpoint=10")
    base.execute("create table t (n integer primary key, x text)")
    sync(".")
    note(name, begin, "rows", name, count=0)
    return base


def insert(base, name, n):
    begin = position()
    base.execute("insert into t values (?, ?)", (n + 1, str(n + 1) * (1 + (n + 1) % 50)))
    note(name, begin, "rows", name, count=n + 1)


lower()
for directory in ["new", "made"]:
    os.mkdir(directory)
write("mapped", bytes(16384))
sync(".")
with open("mapped", "r+b") as file:
    mapped = mmap.mmap(file.fileno(), 16384)
wal = database("wal.db", "wal", "full")
# With a journal that is deleted, a commit is told before its deletion is synced unless it is `extra`.
rollback = database("rollback.db", "delete", "extra")

for n in range(MOST):
    if n >= LEAST and os.path.exists(stop):
        break
    steps = [append, new, replace, change, mode, delete, move, make, map, unsynced]
    rand.shuffle(steps)
    for step in steps:
        step(n)
    insert(wal, "wal.db", n)
    insert(rollback, "rollback.db", n)
print(n)
