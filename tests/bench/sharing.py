"""Many users of one daemon: what is fetched and kept once, and what an idle workspace costs."""

import subprocess
import sys
import time

import peers
import scorpio
import shell

READERS = 20
READ_ALL = "find . -path ./.git -prune -o -type f -print0 | xargs -0 -n 500 cat | wc -c"


def one_commit(site):
    """Twenty users read all of one commit at the same time, with an empty cache; beside it, what a clone occupies."""
    print(f"  {site.files:,} files: {READERS} users read one commit", file=sys.stderr, flush=True)
    blobs = int(shell.output(f"git -C {site.repo} ls-tree -r HEAD | awk '{{print $3}}' | sort -u | wc -l"))
    trees = int(shell.output(f"git -C {site.repo} ls-tree -r -d HEAD | awk '{{print $3}}' | sort -u | wc -l")) + 1
    place = site.fresh("sharing")
    with scorpio.Daemon(f"{place}/daemon", scorpio.git_origin(site.repo)) as daemon:
        users = shell.USERS[:READERS]
        points = [daemon.mount(f"user-{user}", user)[0] for user in users]
        begin = time.perf_counter()
        readers = [subprocess.Popen(["bash", "-c", READ_ALL], cwd=point, stdout=subprocess.PIPE, **shell.dropped(user))
                   for point, user in zip(points, users)]
        read = {int(reader.communicate(timeout=shell.LONGEST_S)[0]) for reader in readers}
        seconds = time.perf_counter() - begin
        stats = daemon.stats()
        if len(read) != 1 or any(reader.returncode for reader in readers):
            raise shell.Failed(f"{READERS} users did not read the same: {sorted(read)} bytes")
        facts = {"users": READERS, "seconds": seconds, "bytes": read.pop(), "blobs": blobs, "trees": trees,
                 "fetched": stats["origins"]["repo"]["fetched"], "rss": daemon.rss_anon(),
                 "disk": shell.bytes_on_disk(*(f"{place}/daemon/{name}" for name in ("cache", "state", "run")))}
    with peers.obtain("clone", site) as tree:
        facts["clone_disk"] = shell.bytes_on_disk(tree.path)
    return facts


def idle_workspaces(site, count):
    """So many workspaces of one user, mounted and not used."""
    print(f"  {site.files:,} files: {count} idle workspaces", file=sys.stderr, flush=True)
    place = site.fresh("idle")
    with scorpio.Daemon(f"{place}/daemon", scorpio.git_origin(site.repo)) as daemon:
        daemon.mount("warm-up")
        anon, kernel = daemon.rss_anon(), kernel_memory()
        begin = time.perf_counter()
        for number in range(count):
            daemon.ctl("mount", "repo:/", daemon.point(f"idle-{number}", shell.USER), user=shell.USER)
        seconds = time.perf_counter() - begin
        return {"count": count, "seconds": seconds, "rss_each": (daemon.rss_anon() - anon) / count,
                "kernel_each": (kernel_memory() - kernel) / count}


def kernel_memory():
    """Bytes of the kernel's own structures: mounts, superblocks, inodes, names."""
    with open("/proc/meminfo", encoding="ascii") as file:
        return sum(int(line.split()[1]) * 1024 for line in file if line.startswith(("Slab:", "Percpu:")))
