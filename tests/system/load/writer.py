"""writer.py STATE NAME MOUNT REFERENCE NUMBER

Makes, changes, renames and removes files in directories of the mounted tree, by write and by shared mappings, and notes outside of
the mount what must be found there.
"""

import fcntl
import hashlib
import mmap
import os
import random
import sys

sys.dont_write_bytecode = True

import ledger
import locks
import reader
import tree

MAP_BYTES = 64 * 1024
# Then some are removed first.
MOST_FILES = 100
# In the root of the mount; all writers of a user count in it.
COUNTER = "counter"


class Writer:
    def __init__(self, book, mount, reference, number):
        self.book = book
        self.tree = tree.Tree(reference)
        self.random = random.Random(int(number))
        self.made, self.counted, self.names = {}, 0, 0
        os.chdir(mount)
        self.untouched = self.tree.changed[int(number) % tree.WRITERS :: tree.WRITERS]
        self.changed = {}
        self.appended = self.new_name()
        self.append_to = os.open(self.appended, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
        self.append_sum, self.append_size = hashlib.sha256(), 0
        self.mapped, self.map, self.map_model = self.new_map()
        lock = self.new_name()
        os.close(os.open(lock, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))
        self.locks = locks.Locks(lock, os.O_RDWR)

    def steps(self):
        return {
            self.make: 4,
            self.append: 3,
            self.store: 3,
            self.copy_up: 2,
            self.rename: 2,
            self.remove: 2,
            self.directory: 1,
            self.count: 2,
            self.read_own: 2,
            self.read: 3,
            self.miss: 2,
            self.try_locks: 1,
        }

    def new_name(self):
        """In a directory of the tree: to make it, the kernel must ask whether it is there."""
        self.names += 1
        return os.path.join(self.random.choice(self.tree.directories), f"{self.book.name}-{self.names}")

    def new_map(self):
        path, model = self.new_name(), bytearray(self.random.randbytes(MAP_BYTES))
        with open(path, "xb") as file:
            file.write(model)
        file = os.open(path, os.O_RDWR)
        self.note(path, model)
        return path, mmap.mmap(file, MAP_BYTES), model

    def note(self, path, content):
        self.book.note(path=path, bytes=len(content), sum=hashlib.sha256(content).hexdigest())

    def note_gone(self, path):
        self.book.note(path=path, sum=None)

    def make(self):
        if len(self.made) >= MOST_FILES:
            return self.remove()
        path, content = self.new_name(), self.random.randbytes(self.random.randrange(1, 64 * 1024))
        with self.book.operation("new file", cold=True):
            with open(path, "xb") as file:
                file.write(content)
                if self.random.random() < 0.2:
                    file.flush()
                    os.fsync(file.fileno())
        self.made[path] = content
        self.note(path, content)

    def append(self):
        more = self.random.randbytes(self.random.randrange(1, 4096))
        with self.book.operation("append"):
            reader.expect(os.write(self.append_to, more) == len(more), "a short write")
        self.append_sum.update(more)
        self.append_size += len(more)
        self.book.note(path=self.appended, bytes=self.append_size, sum=self.append_sum.hexdigest())

    def store(self):
        at, more = self.random.randrange(MAP_BYTES - 4096), self.random.randbytes(self.random.randrange(1, 4096))
        with self.book.operation("store into a mapping"):
            self.map[at : at + len(more)] = more
            if self.random.random() < 0.5:
                self.map.flush()
        self.map_model[at : at + len(more)] = more
        self.note(self.mapped, self.map_model)

    def copy_up(self):
        """Changes a file of the tree; at first that copies it up."""
        if self.untouched:
            path = self.untouched.pop()
            kind, content = "copy-up", bytearray(self.tree.content(path))
        else:
            kind, (path, content) = "change", self.random.choice(list(self.changed.items()))
        more, at = self.random.randbytes(100), self.random.randrange(len(content) + 1)
        with self.book.operation(kind):
            file = os.open(path, os.O_RDWR)
            try:
                reader.expect(os.pwrite(file, more, at) == len(more), "a short write")
            finally:
                os.close(file)
        content[at : at + len(more)] = more
        self.changed[path] = content
        self.note(path, content)

    def rename(self):
        if not self.made:
            return
        old, new = self.random.choice(list(self.made)), self.new_name()
        with self.book.operation("rename", cold=True):
            os.rename(old, new)
        self.made[new] = self.made.pop(old)
        self.note_gone(old)
        self.note(new, self.made[new])

    def remove(self):
        if not self.made:
            return
        path = self.random.choice(list(self.made))
        with self.book.operation("removal"):
            os.unlink(path)
        del self.made[path]
        self.note_gone(path)

    def directory(self):
        path = self.new_name()
        with self.book.operation("new directory", cold=True):
            os.mkdir(path)
        with self.book.operation("removal of a directory"):
            os.rmdir(path)

    def count(self):
        """All writers of the user take turns, by a lock."""
        with self.book.operation("count under a lock"), open(COUNTER, "r+b", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            count = int(file.read() or b"0") + 1
            file.seek(0)
            file.write(str(count).encode())
        self.counted += 1
        self.book.note(counted=self.counted)

    def read_own(self):
        if not self.made:
            return
        path = self.random.choice(list(self.made))
        with self.book.operation("read of one's own"), open(path, "rb") as file:
            content = file.read()
        reader.expect(content == self.made[path], path)

    def read(self):
        path = self.random.choice(self.tree.kept)
        with self.book.operation("cold read", cold=True):
            content = reader.drop_and_read(path)
        reader.expect(content == self.tree.content(path), path)

    def miss(self):
        name = self.new_name()
        with self.book.operation("look-up of no name", cold=True):
            reader.expect(not os.path.lexists(name), name)

    def try_locks(self):
        with self.book.operation("lock"):
            self.locks.expect(fcntl.LOCK_EX)


def run(book, mount, reference, number):
    ledger.work(book, Writer(book, mount, reference, number).steps())


if __name__ == "__main__":
    ledger.main(run)
