"""Places to mount at."""

import os
import time

import client
import host
import hungfs
import jsontext
from host import GROUND
from people import ALICE, BOB, ROOT, Running, run_as
from table import LONG, Proofs, case

GROUP = "Mount points"
BAD = "1002 `BadMountPoint`"

proved = Proofs(GROUP).proved
TABLE = ("mount_bad_input.rs", "every_bad_mount_point_is_refused_on_both_lowers")

proved("`/`, `/etc`", "alice", BAD, *TABLE)
proved("`/proc/self`, `/proc/self/fd`, `/proc/self/cwd`, `/proc/sys`", "alice", BAD, *TABLE)
proved("`/sys/kernel`, `/dev/null`", "alice", BAD, *TABLE)
proved("a directory of another user, and one of hers in it", "alice", BAD, *TABLE)
proved("a symlink, one that leads nowhere, one with a slash behind it", "alice", BAD, *TABLE)
proved("a symlink in the middle", "alice", BAD, *TABLE)
proved("`..` and `.` in the middle, a trailing slash, a doubled one", "alice", BAD, *TABLE)
proved("an empty path, a relative one", "alice", BAD, *TABLE)
proved("256 bytes in a name, 5,000 in a path", "alice", BAD, *TABLE)
proved("a newline or a NUL in a name", "alice", BAD, *TABLE)
proved("a file, and a name below a file", "alice", BAD, *TABLE)
proved("a directory with entries", "alice", BAD, *TABLE)
proved("what does not exist", "alice", BAD, *TABLE)
proved("a mounted workspace, hers or another's", "alice", BAD, *TABLE)
proved("a directory in a workspace, hers or another's", "alice", BAD, *TABLE)
proved("the daemon's own directories", "alice", BAD, *TABLE)
proved("a directory that its owner cannot list", "alice", BAD,
       "src/engine/kernel/mounter/point.rs", "a_directory_the_user_cannot_list_is_refused")


def tried(point):
    """What comes of mounting at `point`; what was mounted is looked at, and ended."""
    made = client.call("workspace.create", {"origin": host.ORIGIN, "mount_point": point, "ephemeral": True})
    if "result" in made:
        workspace = made["result"]["id"]
        if made["result"]["mount_point"] != point or host.mounted_at(workspace) != [point]:
            return f"mounted at {host.mounted_at(workspace)}, said to be at {made['result']['mount_point']}"
        with open(f"{point}/lib/Makefile", encoding="utf-8") as file:
            file.read()
        ended = host.unmount(workspace)
        if "result" not in ended:
            return f"mounted and not unmounted: {ended}"
    return client.outcome(made)


def attempt(point):
    return run_as(ALICE, tried, point)


@case("`/tmp` itself, sticky and everybody's", "alice", BAD)
def tmp():
    return attempt("/tmp")


@case("a directory of hers in `/tmp`, in `/dev/shm`", "alice", "allowed")
def memory():
    found = []
    for place in ("/tmp/abuse", "/dev/shm/abuse"):
        host.directory(place)
        found.append(attempt(place))
        os.rmdir(place)
    return " and ".join(dict.fromkeys(found))


@case("a directory of hers in `/run/user` of another", "alice", BAD)
def runtime():
    top = host.directory(f"/run/user/{BOB.uid}", BOB, 0o700)
    inner = host.directory(f"{top}/w")
    found = attempt(inner)
    os.rmdir(inner)
    os.rmdir(top)
    return found


@case("a directory of another user that her group may write to", "alice", BAD)
def group():
    shared = host.directory("/var/tmp/bobs", BOB)
    os.chown(shared, BOB.uid, ALICE.gid)
    os.chmod(shared, 0o2775)
    found = attempt(shared)
    os.rmdir(shared)
    return found


@case("a trailing `/.`", "alice", BAD)
def dot():
    return attempt(f"{host.directory(f'{GROUND}/w')}/.")


@case("`/proc/self/root` on the way", "alice", BAD)
def magic():
    return attempt(f"/proc/self/root{host.directory(f'{GROUND}/w')}")


@case("a space, `\\040`, a comma, a colon, quotes, `=` and letters that are not ASCII in a name", "alice", "allowed")
def odd():
    names = ("a b", "\\040", "a,b", "a:b", 'a"b', "a'b", "a\\", "lowerdir=x", "日本", "#", " ", "...")
    found = [attempt(host.directory(f"{GROUND}/{name}")) for name in names]
    return ", ".join(dict.fromkeys(found))


@case("a tab, an escape or a DEL in a name", "alice", BAD)
def control():
    found = [attempt(host.directory(f"{GROUND}/{name}")) for name in ("a\tb", "a\x1b[2J", "a\x7f")]
    return ", ".join(dict.fromkeys(found))


@case("half a surrogate pair in a name", "alice", "-32602 `BadParameter`")
def surrogate():
    body = client.message("workspace.create", {"origin": host.ORIGIN, "mount_point": f"{GROUND}/X"})
    return run_as(ALICE, posted, body.replace("X", "\\ud800").encode())


@case("bytes that are not UTF-8 in a name", "alice", "-32600")
def bytes_in_name():
    body = client.message("workspace.create", {"origin": host.ORIGIN, "mount_point": f"{GROUND}/X"})
    return run_as(ALICE, posted, body.encode().replace(b"X", b"\xff\xfe"))


def posted(body):
    return client.outcome(client.parsed(*client.exchange(client.request(body))))


@case("a path as a number, as null, as a list", "alice", "-32602 `BadParameter`")
def shape():
    params = [{"origin": host.ORIGIN, "mount_point": point} for point in (7, None, [GROUND])]
    found = [client.outcome(run_as(ALICE, client.call, "workspace.create", each)) for each in params]
    return ", ".join(dict.fromkeys(found))


@case("a file system of hers that shuts root out", "alice", BAD)
def shut():
    top = host.directory(f"{GROUND}/mine")
    with hungfs.mounted(top, ALICE, answers=True):
        return attempt(top)


# More than the mounters that one user may have at once.
HUNG_CALLERS = 6
# `engine.mount_timeout` while this is tried.
SHORT_S = 2


@case("a network file system that never answers, six times at once", "alice", "1015 `Internal`", restarts=True)
def hung():
    host.restart(f"Environment=SCORPIO_ENGINE__MOUNT_TIMEOUT={SHORT_S}s")
    host.serves()
    top = host.directory(f"{GROUND}/net")
    with hungfs.mounted(top, ALICE, answers=False):
        callers = [Running(ALICE, tried, f"{top}/w") for _ in range(HUNG_CALLERS)]
        time.sleep(0.3)  # so that they wait there while bob works
        host.bob_goes_on()
        found = [caller.result() for caller in callers]
        for caller in callers:
            caller.end()
        host.bob_goes_on()
    host.restart()
    host.serves()
    return ", ".join(dict.fromkeys(found))
