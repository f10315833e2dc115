"""Every way to get a writable tree of a commit that is measured: how it is obtained, what it leaves on the disk."""

import contextlib
import dataclasses
import os
import shutil
import subprocess
import time
from typing import Callable, Optional

import mega
import scorpio
import scorpiofs
import shell

LABELS = {
    "native": "ext4",
    "clone": "git clone",
    "worktree": "git worktree",
    "sparse": "git, blobless, sparse cone",
    "overlay": "overlayfs on ext4",
    "fuse-overlayfs": "fuse-overlayfs",
    "scorpio": "Scorpio",
    "scorpio-mega": "Scorpio, Mega origin",
    "scorpiofs": "ScorpioFS",
}
# Peers with a tree to work in for long; the others are ways to obtain one, and then ext4.
WORKING = ["native", "overlay", "fuse-overlayfs", "scorpio", "scorpiofs"]
OBTAINED = ["clone", "worktree", "sparse", "overlay", "fuse-overlayfs", "scorpio", "scorpio-mega", "scorpiofs"]
# Ways that need a Mega server.
OF_MEGA = ["scorpio-mega", "scorpiofs"]
OVERLAY = "metacopy=on,redirect_dir=on,index=off,xino=on,nosuid,nodev"


@dataclasses.dataclass
class Tree:
    """A tree at hand."""

    path: str
    usable: float
    disk: list
    daemon: object = None
    """Has rss_anon(), if there is a process behind the tree."""
    requests: Optional[Callable] = None
    """Requests that the kernel sent to the daemon so far."""
    asked: Optional[Callable] = None
    """Requests that the daemon sent to its origin so far."""
    extra: dict = dataclasses.field(default_factory=dict)
    user: Optional[int] = shell.USER


@dataclasses.dataclass
class Site:
    """What the peers of one size share."""

    base: str
    repo: str
    files: int
    server: Optional[mega.Server] = None
    checkout: str = ""
    only_clone: Optional[Tree] = None
    made: int = 0

    def fresh(self, name):
        self.made += 1
        path = f"{self.base}/{name}-{self.made}"
        os.mkdir(path)
        os.chown(path, shell.USER, shell.USER)
        return path


def missing(names):
    """What must be installed or built for these peers, as (peer, how)."""
    found = []
    if not os.path.exists(f"{scorpio.BIN}/scorpiod"):
        found.append(("scorpio", "cargo build --release --bins"))
    if "fuse-overlayfs" in names and not shutil.which("fuse-overlayfs"):
        found.append(("fuse-overlayfs", "apt-get install fuse-overlayfs"))
    if "scorpiofs" in names and not os.path.exists(scorpiofs.PROGRAM):
        found.append(("scorpiofs", f"{scorpiofs.INSTALL}, or name its program in SCORPIOFS"))
    if any(name in names for name in OF_MEGA) and not os.path.exists(mega.PROGRAM):
        found.append(("a Mega server for " + ", ".join(OF_MEGA), mega.BUILD))
    return found


@contextlib.contextmanager
def clone(site):
    place = site.fresh("clone")
    took = shell.timed(f"git clone -q --no-local file://{site.repo} {place} && cd {place} && ls >/dev/null", user=shell.USER)
    yield Tree(place, took, [place])
    shutil.rmtree(place)


@contextlib.contextmanager
def worktree(site):
    """A further tree of a clone that is there."""
    place = site.fresh("worktree")
    took = shell.timed(f"git -C {site.checkout} worktree add -q --detach {place} && cd {place} && ls >/dev/null", user=shell.USER)
    yield Tree(place, took, [place])
    shutil.rmtree(place)
    shell.timed(f"git -C {site.checkout} worktree prune", user=shell.USER)


@contextlib.contextmanager
def sparse(site):
    """A clone without blobs, and one directory of the top checked out: the one with most files below it, `build` and `assets` apart."""
    place = site.fresh("sparse")
    cone = shell.output(f"git -C {site.repo} ls-tree -r --name-only HEAD | grep / | grep -v ^assets/ | cut -d/ -f1 |"
                        " sort | uniq -c | sort -rn | awk 'NR == 3 { print $2 }'")
    took = shell.timed(f"git clone -q --no-local --filter=blob:none --sparse file://{site.repo} {place} && cd {place}"
                       f" && git sparse-checkout set {cone} && ls {cone} >/dev/null", user=shell.USER)
    yield Tree(place, took, [place], extra={"cone": cone})
    shutil.rmtree(place)


@contextlib.contextmanager
def union(site, mount):
    """An overlay of the checkout by `mount`, which is told the directories."""
    place = site.fresh("union")
    for name in ("upper", "work", "merged"):
        os.mkdir(f"{place}/{name}")
        os.chown(f"{place}/{name}", shell.USER, shell.USER)
    point = f"{place}/merged"
    begin = time.perf_counter()
    daemon = mount(f"lowerdir={site.checkout},upperdir={place}/upper,workdir={place}/work", point)
    shell.timed("ls >/dev/null", cwd=point, user=shell.USER)
    try:
        yield Tree(point, time.perf_counter() - begin, [f"{place}/upper"], daemon)
    finally:
        subprocess.run(["umount", "-l", point], check=False)
        shutil.rmtree(place, ignore_errors=True)


def overlay(site):
    return union(site, lambda layers, point: shell.timed(f"mount -t overlay bench -o {layers},{OVERLAY} {point}") and None)


class FuseOverlay:
    """The process behind a mount of fuse-overlayfs; it names its mount point on its command line."""

    def __init__(self, point):
        self.pid = int(shell.output(f"pgrep -n -f 'fuse-overlayfs.*{point}$'"))

    def rss_anon(self):
        return scorpio.rss_anon(self.pid)


def fuse_overlayfs(site):
    def mount(layers, point):
        # Its output must not keep our pipe open.
        shell.timed(f"fuse-overlayfs -o {layers},allow_other {point} >/dev/null 2>&1")
        return FuseOverlay(point)
    return union(site, mount)


@contextlib.contextmanager
def ours(site, origin, server=None):
    place = site.fresh("scorpio")
    # The time of the daemon's start is not counted: it runs since the host was started.
    with scorpio.Daemon(f"{place}/daemon", origin) as daemon:
        idle = daemon.rss_anon()
        before = server.requests() if server else 0
        point, mounted, usable = daemon.mount("first")
        extra = {"mount": mounted, "rss_idle": idle, "second": daemon.mount("second", shell.USERS[1])[2]}
        if server:
            extra["asked_until_ls"] = server.requests() - before
        disk = [f"{place}/daemon/{name}" for name in ("cache", "state", "run")]
        asked = (lambda: server.requests() - before) if server else daemon.fetched
        yield Tree(point, usable, disk, daemon, daemon.requests, asked, extra)
    shutil.rmtree(place, ignore_errors=True)


@contextlib.contextmanager
def theirs(site, server):
    place = site.fresh("scorpiofs")
    # The mounts of a process that ended badly stay; whatever lies below is taken down from the last to the first.
    try:
        with scorpiofs.ScorpioFs(f"{place}/daemon", server.url) as daemon:
            idle, before = daemon.rss_anon(), server.requests()
            point, mounted, usable, ready = daemon.mount("first")
            # Its files belong to whoever runs the daemon, and nobody else may write.
            yield Tree(point, usable, [f"{place}/daemon"], daemon, None, lambda: server.requests() - before,
                       {"mount": mounted, "rss_idle": idle, "ready": ready}, user=None)
    finally:
        unmount_below(place)
        shutil.rmtree(place, ignore_errors=True)


def obtain(name, site):
    """A fresh tree of the peer `name`, gone again at the end of the `with` block."""
    if name == "clone" and site.only_clone:
        return contextlib.nullcontext(site.only_clone)
    ways = {"clone": clone, "worktree": worktree, "sparse": sparse, "overlay": overlay, "fuse-overlayfs": fuse_overlayfs,
            "scorpio": lambda site: ours(site, scorpio.git_origin(site.repo)),
            "scorpio-mega": lambda site: ours(site, scorpio.mega_origin(site.server.url), site.server),
            "scorpiofs": lambda site: theirs(site, site.server)}
    return ways[name](site)


def unmount_below(place):
    """Nothing may be removed through a mount that was left behind."""
    def points():
        with open("/proc/self/mountinfo", encoding="utf-8") as file:
            return [line.split()[4] for line in file if line.split()[4].startswith(f"{place}/")]
    for point in reversed(points()):
        subprocess.run(["umount", "-l", point], check=False, stderr=subprocess.DEVNULL)
    if points():
        raise shell.Failed(f"mounts are left below {place}")
