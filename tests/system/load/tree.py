"""The files of the mounted tree as plain git has them, and which of them readers and writers take."""

import os
import zlib

# Of each user.
READERS = WRITERS = 4
# Mappings are held of so many files, and nobody else reads those: mapped pages cannot be dropped.
MAPPED = 2 * READERS


class Tree:
    def __init__(self, reference):
        self.reference = reference
        self.directories, sources = [], []
        for top, _, names in os.walk(os.path.join(reference, "src")):
            self.directories.append(os.path.relpath(top, reference))
            sources += [os.path.relpath(os.path.join(top, name), reference) for name in names]
        sources = [path for path in sources if self.size(path) > 0]
        sources.sort(key=lambda path: (-self.size(path), path))
        self.mapped, others = sources[:MAPPED], sources[MAPPED:]
        # A quarter is there to be changed; the rest is as it was, whatever happens around it.
        self.changed = [path for path in others if zlib.crc32(path.encode()) % 4 == 0]
        self.kept = [path for path in others if path not in set(self.changed)]
        self.kept += [f"lib/{name}" for name in ("mdb.c", "midl.c", "lmdb.h", "midl.h", "Makefile")]

    def content(self, path):
        with open(os.path.join(self.reference, path), "rb") as file:
            return file.read()

    def size(self, path):
        return os.path.getsize(os.path.join(self.reference, path))

    def names(self, directory):
        return set(os.listdir(os.path.join(self.reference, directory)))
