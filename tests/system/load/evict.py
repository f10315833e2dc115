"""evict.py STATE NAME

Has the kernel forget, several times a second, all names and pages of the mounts that nobody uses right now. Remounting a file system
with the options that it has does that; `drop_caches` would do it to every file system of the host. As root.
"""

import ctypes
import os
import sys

sys.dont_write_bytecode = True

import ledger

REST_S = 0.25
MS_REMOUNT = 32
FLAGS = {"ro": 1, "nosuid": 2, "nodev": 4, "noexec": 8, "noatime": 1024, "nodiratime": 2048, "relatime": 1 << 21}


def mounts():
    """Point, flags and kind of each. Overlays first: they hold the names of what they stand on."""
    found = {"overlay": [], "fuse.scorpio": []}
    with open("/proc/self/mountinfo", encoding="utf-8") as table:
        for line in table:
            before, after = (part.split(" ") for part in line.rstrip("\n").split(" - "))
            kind, source = after[:2]
            if kind == "fuse.scorpio" or (kind == "overlay" and source.startswith("scorpio:")):
                flags = [FLAGS[option] for option in before[5].split(",") if option in FLAGS]
                found[kind].append((before[4], sum(flags), kind))
    return found["overlay"] + found["fuse.scorpio"]


def forget(libc, point, flags, kind):
    if libc.mount(b"none", point.encode(), None, ctypes.c_ulong(MS_REMOUNT | flags), None) == 0:
        return
    error = ctypes.get_errno()
    # A daemon that starts mounts a session to find out what this kernel can, and unmounts it. A workspace never goes.
    if kind == "overlay" or point in [mounted for mounted, _, _ in mounts()]:
        raise OSError(error, os.strerror(error), point)


def run(book):
    libc = ctypes.CDLL(None, use_errno=True)

    def evict():
        with book.operation("eviction", is_long=True):
            for mount in mounts():
                forget(libc, *mount)

    ledger.work(book, {evict: 1}, REST_S)


if __name__ == "__main__":
    ledger.main(run)
