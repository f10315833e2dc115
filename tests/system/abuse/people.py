"""Who abuses, and how something is done as they: by a process of their own, which is theirs entirely."""

import collections
import contextlib
import os
import pickle
import pwd
import select
import signal
import time
import traceback

Person = collections.namedtuple("Person", "name uid gid groups home")


def account(name):
    entry = pwd.getpwnam(name)
    return Person(name, entry.pw_uid, entry.pw_gid, os.getgrouplist(name, entry.pw_gid), entry.pw_dir)


ALICE, BOB, ROOT, NOBODY = (account(name) for name in ("alice", "bob", "root", "nobody"))
# Nobody's account.
STRANGER = Person("uid 4242", 4242, 4242, [4242], "/")

# Longest anything may take that does not say otherwise.
PATIENCE_S = 120


# What keeps processes that keep something, as long as it is open here.
RELEASES = set()


def become(person, root=None):
    if root:
        # The socket's directory stays the current one, so that it can be reached from inside.
        os.chdir("/run/scorpio")
        os.chroot(root)
    os.setgroups(person.groups)
    os.setresgid(person.gid, person.gid, person.gid)
    os.setresuid(person.uid, person.uid, person.uid)


class Running:
    """`function(*args)` in a process of `person`. With `keep` it returns what to tell and what to keep until `end`."""

    def __init__(self, person, function, *args, root=None, keep=False):
        self.told, tell = os.pipe()
        wait, self.release = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            # Those of others too: they end when nobody holds theirs any more.
            for fd in (self.told, self.release, *RELEASES):
                os.close(fd)
            _work(person, root, function, args, tell, wait if keep else None)
        RELEASES.add(self.release)
        os.close(tell)
        os.close(wait)

    def result(self, patience_s=PATIENCE_S):
        end, told = time.monotonic() + patience_s, b""
        while not told.endswith(b"\0end"):
            ready, _, _ = select.select([self.told], [], [], max(0, end - time.monotonic()))
            more = os.read(self.told, 1 << 20) if ready else b""
            if not more:
                self.end(signal.SIGKILL)
                raise RuntimeError("no answer from the process that tried it")
            told += more
        value, error = pickle.loads(told)
        if error:
            raise RuntimeError(error)
        return value

    def end(self, kill=None):
        if self.pid is None:
            return
        RELEASES.discard(self.release)
        os.close(self.release)
        if kill:
            os.kill(self.pid, kill)
        os.waitpid(self.pid, 0)
        os.close(self.told)
        self.pid = None


def _work(person, root, function, args, tell, wait):
    status, kept = 0, None
    try:
        become(person, root)
        value = function(*args)
        if wait is not None:
            value, kept = value
        told = pickle.dumps((value, None))
    except BaseException:
        told, status = pickle.dumps((None, traceback.format_exc())), 1
    with contextlib.suppress(OSError):
        with os.fdopen(tell, "wb") as file:
            file.write(told + b"\0end")
        if wait is not None:
            os.read(wait, 1)
    del kept
    os._exit(status)


def run_as(person, function, *args, root=None, patience_s=PATIENCE_S):
    running = Running(person, function, *args, root=root)
    try:
        return running.result(patience_s)
    finally:
        running.end()


@contextlib.contextmanager
def held_by(person, function, *args):
    """What `function` tells, while a process of `person` keeps what it made."""
    running = Running(person, function, *args, keep=True)
    try:
        yield running.result()
    finally:
        running.end()
