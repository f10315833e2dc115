"""What the daemon holds, and whether somebody else can still work: looked at before and after every case."""

import collections
import contextlib
import os
import subprocess
import time

import client
from people import ALICE, BOB, run_as

UNIT = "scorpio.service"
STATE = "/var/lib/scorpio/workspaces"
LAYERS = "/run/scorpio/daemon/layers"
DROP_IN = f"/run/systemd/system/{UNIT}.d/abuse.conf"
# Where alice does it all; fresh for every case.
GROUND = "/home/alice/abuse"
ORIGIN = "project"

# Longest that what a case left may take to go by itself: connections end 5 s after their last byte at most.
SETTLED_WITHIN_S = 15
# The process that MainPID named last, and since when it has been there.
LAST = {}

# Longest that bob's few calls may take, whatever is done to the daemon at the time.
BOB_WAITS_AT_MOST_S = 5

Sight = collections.namedtuple("Sight", "pid mounts workspaces directories layers children descriptors")


def shown(name):
    return subprocess.run(["systemctl", "show", "-P", name, UNIT], capture_output=True, text=True).stdout.strip()


def pid():
    """The daemon's process: the one that was asked about last, as long as it lives."""
    if not LAST.get("since") or LAST["since"] != _since(LAST["pid"]):
        LAST["pid"] = int(shown("MainPID"))
        LAST["since"] = _since(LAST["pid"])
    return LAST["pid"]


def _since(process):
    """When a process was started: its id may be used again, not both together. Empty when there is none."""
    with contextlib.suppress(OSError):
        with open(f"/proc/{process}/stat", encoding="utf-8") as file:
            return file.read().rsplit(") ", 1)[1].split(" ")[19]
    return ""


def mounts():
    """Id, place and source of every mount that PID 1 sees. That of the layers is made anew by each start."""
    with open("/proc/1/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        lines = [line.split(" ") for line in table]
    found = ((fields[0], fields[4], fields[fields.index("-") + 2]) for fields in lines)
    return frozenset(("any", *rest) if rest[0] == LAYERS else (number, *rest) for number, *rest in found)


def mounted_at(workspace):
    """Where a workspace is mounted, escapes undone."""
    return [_unescaped(place) for _, place, source in mounts() if source == f"scorpio:{workspace}"]


def _unescaped(place):
    return place.encode("utf-8", "surrogateescape").decode("unicode_escape").encode("latin-1").decode()


def workspaces(**wanted):
    """Everybody's, as root sees them."""
    reply = client.call("workspace.list", {"all": True, "limit": 1000})
    views = reply["result"]["workspaces"]
    return [view for view in views if all(view.get(key) == value for key, value in wanted.items())]


def look():
    main = pid()
    # Before we ask it anything: our own connection has some for a moment after we closed it.
    descriptors = len(os.listdir(f"/proc/{main}/fd"))
    children = []
    for task in os.listdir(f"/proc/{main}/task"):
        with contextlib.suppress(OSError):  # a thread that has ended
            with open(f"/proc/{main}/task/{task}/children", encoding="ascii") as file:
                children += file.read().split()
    return Sight(
        pid=main,
        mounts=mounts(),
        workspaces=frozenset((view["id"], view["state"], view["uid"]) for view in workspaces()),
        directories=frozenset(name for name in os.listdir(STATE) if not name.startswith(".")),
        layers=len(os.listdir(LAYERS)),
        children=len(children),
        descriptors=descriptors,
    )


def differences(before, now, other_process=False):
    """What is not as it was. Fewer descriptors are no fault, and neither is another process after a restart."""
    found = []
    for name in Sight._fields:
        was, is_ = getattr(before, name), getattr(now, name)
        if was == is_ or (name == "descriptors" and is_ < was):
            continue
        if other_process and name in ("pid", "descriptors"):
            continue
        if isinstance(was, frozenset):
            was, is_ = sorted(was - is_), sorted(is_ - was)
        found.append(f"{name}: {was} before, {is_} after")
    return found


def settled(before, other_process=False):
    """Waits until all is as it was; the differences that stay."""
    end = time.monotonic() + SETTLED_WITHIN_S
    while found := differences(before, look(), other_process):
        if time.monotonic() > end:
            return found
        time.sleep(0.05)
    return []


def cpu_s(process):
    """Processor time that a process has used."""
    with open(f"/proc/{process}/stat", encoding="utf-8") as file:
        fields = file.read().rsplit(") ", 1)[1].split(" ")
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mib(process):
    """Its anonymous memory."""
    with open(f"/proc/{process}/status", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("RssAnon:")) // 1024


def create(point, **options):
    return client.call("workspace.create", {"origin": ORIGIN, "mount_point": point, **options})


def unmount(workspace, lazy=False):
    return client.call("workspace.unmount", {"id": workspace, "lazy": lazy})


def remove(workspace):
    return client.call("workspace.remove", {"id": workspace, "discard": True, "lazy": True})


def bob_goes_on():
    """Bob mounts, reads, lists and unmounts; how long that took him."""
    seconds = run_as(BOB, _work, f"{BOB.home}/goes-on")
    if seconds > BOB_WAITS_AT_MOST_S:
        raise AssertionError(f"bob was kept waiting for {seconds:.1f} s")
    return seconds


def root_goes_on():
    """The same by root."""
    _work("/root/goes-on")
    os.rmdir("/root/goes-on")


def _work(point):
    begin = time.monotonic()
    os.makedirs(point, exist_ok=True)
    made = create(point, ephemeral=True)
    if "result" not in made:
        raise AssertionError(f"bob cannot mount: {made}")
    with open(f"{point}/lib/Makefile", encoding="utf-8") as file:
        file.read()
    with open(f"{point}/new", "w", encoding="utf-8") as file:
        file.write("bob's")
    listed = client.call("workspace.list")["result"]["workspaces"]
    if made["result"]["id"] not in [view["id"] for view in listed]:
        raise AssertionError(f"bob does not see what is his: {listed}")
    ended = unmount(made["result"]["id"])
    if "result" not in ended:
        raise AssertionError(f"bob cannot unmount: {ended}")
    return time.monotonic() - begin


def fresh_ground():
    subprocess.run(["rm", "-rf", "--one-file-system", GROUND], check=True)
    os.mkdir(GROUND)
    os.chmod(GROUND, 0o755)
    os.chown(GROUND, ALICE.uid, ALICE.gid)


def directory(path, owner=ALICE, mode=0o755):
    """Makes one, somebody's, as root would."""
    os.makedirs(path, exist_ok=True)
    os.chown(path, owner.uid, owner.gid)
    os.chmod(path, mode)
    return path


def leave():
    """Takes our places and settings away."""
    if os.path.exists(DROP_IN):
        restart()
    subprocess.run(["rm", "-rf", "--one-file-system", GROUND, f"{BOB.home}/goes-on"], check=True)


def clear_user(person):
    """Takes every workspace of a person away that lies below a place of ours."""
    for view in workspaces(uid=person.uid):
        if view["mount_point"].startswith(f"{GROUND}/"):
            remove(view["id"])


def restart(settings="", seconds=30):
    """Starts the service anew, with other settings of its unit or with none but its own, and waits until it serves."""
    os.makedirs(os.path.dirname(DROP_IN), exist_ok=True)
    if settings:
        with open(DROP_IN, "w", encoding="ascii") as file:
            file.write(f"[Service]\n{settings}\n")
    elif os.path.exists(DROP_IN):
        os.remove(DROP_IN)
    subprocess.run(["systemctl", "daemon-reload"], check=True)
    # So many starts within seconds are more than the unit allows, which is not what is shown here.
    subprocess.run(["systemctl", "reset-failed", UNIT], capture_output=True)
    subprocess.run(["systemctl", "restart", UNIT], check=True, timeout=seconds)


def serves(seconds=30):
    """Waits until the service answers root."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if "result" in client.call("health"):
                return
        except OSError:
            pass
        time.sleep(0.02)
    raise AssertionError("the service does not answer")
