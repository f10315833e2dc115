"""Commands with a bound on their time, as root or as a user, and how long they took."""

import os
import signal
import subprocess
import time

# One user more than the goal for shared storage names; numbers that no account of a host has.
USERS = range(61001, 61022)
USER = USERS[0]

# Nothing that is measured may take longer: the whole run is bounded.
LONGEST_S = 600


class Failed(Exception):
    """A command that did not do what it should; says which and why."""


def dropped(user):
    """Arguments for subprocess that give up root."""
    return {"user": user, "group": user, "extra_groups": []} if user else {}


def run(script, cwd=None, user=None, timeout=LONGEST_S):
    """Runs a script that must succeed; what it printed, and the seconds it took."""
    environment = dict(os.environ, HOME="/nonexistent", LC_ALL="C")
    begin = time.perf_counter()
    child = subprocess.Popen(["bash", "-euo", "pipefail", "-c", script], cwd=cwd, env=environment, stdin=subprocess.DEVNULL,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True, **dropped(user))
    try:
        printed, complaint = child.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        try:
            child.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            pass  # in D state in a mount that hangs; its mount is taken away at the end
        raise Failed(f"not done after {timeout} s: {script}") from None
    took = time.perf_counter() - begin
    if child.returncode != 0:
        said = complaint.decode(errors="replace").strip().splitlines()[-3:]
        raise Failed(f"status {child.returncode}: {script}: {' / '.join(said)[:400]}")
    return printed.decode(errors="replace"), took


def timed(script, cwd=None, user=None, timeout=LONGEST_S):
    return run(script, cwd, user, timeout)[1]


def output(script, cwd=None, user=None):
    return run(script, cwd, user)[0].strip()


def bytes_on_disk(*places):
    """What the places occupy, hard links once."""
    return int(output("du -csB1 " + " ".join(places) + " | tail -n 1 | cut -f 1"))


def drop_caches():
    """The kernel's clean pages, names and inodes, of all peers alike."""
    with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as file:
        file.write("3")
