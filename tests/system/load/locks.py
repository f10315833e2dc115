"""Locks that a worker holds in a mount for as long as it lives, and whether others still meet them."""

import fcntl
import os
import struct

# From <fcntl.h>; not in every version of the module. A lock asked for like this meets those of its own process too.
F_OFD_GETLK = 36
FLOCK = "hhqqii"


class Locks:
    """A flock lock and a POSIX lock on the file at `path`: shared ones if it is open for reading only."""

    def __init__(self, path, flags):
        writes = flags != os.O_RDONLY
        self.held = os.open(path, flags)
        # Kept open: closing any descriptor of the file would give this process's POSIX locks up.
        self.other = os.open(path, os.O_RDWR if writes else os.O_RDONLY)
        fcntl.flock(self.held, fcntl.LOCK_EX if writes else fcntl.LOCK_SH)
        fcntl.lockf(self.held, fcntl.LOCK_EX if writes else fcntl.LOCK_SH)

    def expect(self, kind):
        """Raises unless both locks are held, as `LOCK_EX` or `LOCK_SH`."""
        try:
            fcntl.flock(self.other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pass
        else:
            raise AssertionError("the flock lock is gone")
        wish = struct.pack(FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0, 0)
        met = struct.unpack(FLOCK, fcntl.fcntl(self.other, F_OFD_GETLK, wish))[0]
        if met != (fcntl.F_WRLCK if kind == fcntl.LOCK_EX else fcntl.F_RDLCK):
            raise AssertionError(f"instead of the POSIX lock there is one of type {met}")
