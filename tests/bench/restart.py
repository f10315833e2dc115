"""How long a reader waits while the daemon is killed and started again, its sessions kept by a service manager."""

import subprocess
import sys
import threading
import time

import scorpio
import shell

KILLS = 10
EVERY_S = 1.0
# Part of the reads must reach the daemon, or nobody would notice that it is away.
DROP_EVERY_S = 0.15


def pauses(site, base, probe, listed):
    """A reader for each kill; operations, failures and the longest wait of each, in milliseconds."""
    print(f"  {site.files:,} files: the daemon is killed {KILLS} times", file=sys.stderr, flush=True)
    place = site.fresh("restart")
    keeper = scorpio.Keeper(place)
    with scorpio.Daemon(f"{place}/daemon", scorpio.git_origin(site.repo), keeper) as daemon:
        point = daemon.mount("main")[0]
        shell.timed(f"{probe} read {listed} 1", cwd=point, user=shell.USER)
        over = threading.Event()
        dropper = threading.Thread(target=drop_until, args=(over,))
        dropper.start()
        try:
            undisturbed = watch(probe, listed, point)
            disturbed = [killed(daemon, probe, listed, point) for _ in range(KILLS)]
        finally:
            over.set()
            dropper.join()
        if len(keeper.kept) != 2:
            raise shell.Failed(f"one session is two descriptors, not {len(keeper.kept)}")
    return {"undisturbed": undisturbed, "killed": disturbed}


def drop_until(over):
    """Caches are dropped in a loop, as in the handover's tests: a third of the reads and more are cold."""
    while not over.wait(DROP_EVERY_S):
        shell.drop_caches()


def watch(probe, listed, point, meanwhile=None):
    reader = subprocess.Popen([probe, "watch", listed, str(EVERY_S)], cwd=point, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, **shell.dropped(shell.USER))
    if meanwhile:
        time.sleep(EVERY_S / 3)
        meanwhile()
    printed, complaint = reader.communicate(timeout=60)
    if reader.returncode:
        raise shell.Failed(f"a reader failed: {complaint.decode()}")
    operations, failures, longest = printed.split()
    return {"operations": int(operations), "failures": int(failures), "longest_ms": float(longest)}


def killed(daemon, probe, listed, point):
    def kill_and_start():
        daemon.process.kill()
        daemon.process.wait()
        begin = time.perf_counter()
        daemon.start()
        kill_and_start.took = time.perf_counter() - begin
    facts = watch(probe, listed, point, kill_and_start)
    return facts | {"start_ms": kill_and_start.took * 1000}
