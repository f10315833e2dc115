"""reader.py STATE NAME MOUNT REFERENCE NUMBER

Reads what nobody changes, by every way there is, and compares it with plain git's checkout. Holds open files, a mapping, locks
and its working directory in the mount all the time.
"""

import fcntl
import mmap
import os
import random
import sys

sys.dont_write_bytecode = True

import ledger
import locks
import tree


class Reader:
    def __init__(self, book, mount, reference, number):
        self.book, self.mount = book, mount
        self.tree = tree.Tree(reference)
        self.random = random.Random(int(number))
        self.absent = 0
        # Somewhere below the root of the mount, to which all paths that are used are relative.
        self.below = self.random.choice(self.tree.directories)
        os.chdir(os.path.join(mount, self.below))
        self.open_files = {path: os.open(self.here(path), os.O_RDONLY) for path in self.random.sample(self.tree.kept, 8)}
        self.mapped = self.tree.mapped[int(number)]
        self.mapped_file = os.open(self.here(self.mapped), os.O_RDONLY)
        self.map = mmap.mmap(self.mapped_file, 0, prot=mmap.PROT_READ)
        # Whoever closes a file loses all POSIX locks on it: this one is left alone.
        locked = self.tree.kept.pop(self.random.randrange(len(self.tree.kept)))
        self.locks = locks.Locks(self.here(locked), os.O_RDONLY)

    def here(self, path):
        return os.path.relpath(path, self.below)

    def steps(self):
        return {
            self.read: 4,
            self.read_open_file: 3,
            self.read_mapping: 3,
            self.miss: 3,
            self.read_again: 2,
            self.stat: 3,
            self.list: 2,
            self.try_locks: 1,
        }

    def read(self):
        path = self.random.choice(self.tree.kept)
        with self.book.operation("cold read", cold=True):
            content = drop_and_read(self.here(path))
        expect(content == self.tree.content(path), path)

    def read_again(self):
        path = self.random.choice(self.tree.kept)
        with self.book.operation("read"), open(self.here(path), "rb") as file:
            content = file.read()
        expect(content == self.tree.content(path), path)

    def read_open_file(self):
        path, file = self.random.choice(list(self.open_files.items()))
        at = self.random.randrange(self.tree.size(path))
        with self.book.operation("cold read of an open file", cold=True):
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            content = os.pread(file, 4096, at)
        expect(content == self.tree.content(path)[at : at + 4096], path)

    def read_mapping(self):
        with self.book.operation("cold read of a mapping", cold=True):
            self.map.madvise(mmap.MADV_DONTNEED)
            os.posix_fadvise(self.mapped_file, 0, 0, os.POSIX_FADV_DONTNEED)
            content = self.map[:]
        expect(content == self.tree.content(self.mapped), self.mapped)

    def miss(self):
        """Asks for a name that nobody has asked for before."""
        self.absent += 1
        name = os.path.join(self.random.choice(self.tree.directories), f"{self.book.name}-{self.absent}")
        with self.book.operation("look-up of no name", cold=True):
            expect(not os.path.lexists(self.here(name)), name)

    def stat(self):
        path = self.random.choice(self.tree.kept)
        with self.book.operation("stat"):
            size = os.stat(self.here(path)).st_size
        expect(size == self.tree.size(path), path)

    def list(self):
        directory = self.random.choice(self.tree.directories)
        with self.book.operation("listing"):
            names = set(os.listdir(self.here(directory)))
        # Writers add names, and take none away that were there.
        expect(names >= self.tree.names(directory), directory)

    def try_locks(self):
        with self.book.operation("lock"):
            self.locks.expect(fcntl.LOCK_SH)


def drop_and_read(path):
    file = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        content = b""
        while more := os.read(file, 1 << 20):
            content += more
        return content
    finally:
        os.close(file)


def expect(holds, what):
    if not holds:
        raise AssertionError(f"not as it was: {what}")


def run(book, mount, reference, number):
    ledger.work(book, Reader(book, mount, reference, number).steps())


if __name__ == "__main__":
    ledger.main(run)
