"""What is changed while the daemon looks at it, and what is asked of it by several at once."""

import collections
import contextlib
import os
import time

import client
import host
from host import GROUND
from people import ALICE, BOB, Running, run_as
from table import LONG, Proofs, case, figure

GROUP = "Races"
BAD = "1002 `BadMountPoint`"

# How long the race for a mount point goes on, and how long the others: thousands of swaps and many calls.
SWAPPED_S, OTHERS_S = (10, 10) if LONG else (3, 2)
# Who calls at once. With the one who swaps they keep two processors busy.
CALLERS = 3
# Fewer swaps or calls than these show nothing.
SWAPS_AT_LEAST, CALLS_AT_LEAST = 1000, 10
# How long nothing must change before a creation that was given up counts as over.
REST_S = 0.5

proved = Proofs(GROUP).proved
proved("a mount point swapped between the look and the mount", "alice", "mounted in place",
       "src/engine/kernel/mounter/tests.rs", "swapping_the_point_for_a_symlink_never_moves_the_mount")
proved("mounts made for one directory at once, and ended", "alice", "1002 `BadMountPoint` for all but one",
       "src/engine/kernel/mounter/tests.rs",
       "of_mounts_made_for_one_directory_at_once_one_stays_and_the_others_are_refused")
proved("fifty creations at once with a limit of ten", "alice", "1008 `LimitReached`",
       "src/antares/tests/creation.rs", "fifty_at_once_never_exceed_a_limit_of_ten")


def swap(steps, end):
    """Renames in turns until `end`; how many turns were whole. Names come back in the end."""
    turns = 0
    while time.monotonic() < end:
        done = []
        with contextlib.suppress(OSError):
            for old, new in steps:
                os.rename(old, new)
                done.append((old, new))
        turns += len(done) == len(steps)
        if len(done) % len(steps):
            back(done, end)
    return turns


def back(done, end):
    """Undoes a turn that broke off, as soon as what is mounted lets it."""
    for old, new in reversed(done):
        while True:
            try:
                os.rename(new, old)
                break
            except OSError:
                if time.monotonic() > end + 30:
                    raise
                time.sleep(0.001)


def mount_until(end, point, below):
    """Mounts and unmounts; outcomes by number. A mount anywhere but below `below` is an outcome of its own."""
    outcomes = collections.Counter()
    while time.monotonic() < end:
        made = host.create(point, ephemeral=True)
        outcomes[client.outcome(made)] += 1
        if "result" not in made:
            continue
        workspace = made["result"]["id"]
        for place in host.mounted_at(workspace):
            if os.path.dirname(place) not in below:
                outcomes[f"mounted at {place}"] += 1
        ended = host.unmount(workspace, lazy=True)
        if "result" not in ended:
            outcomes[f"not unmounted: {client.outcome(ended)}"] += 1
    return outcomes


def race(steps, point, below, name, seconds):
    """Alice swaps and mounts at the same time. What came of the calls, if they met both."""
    end = time.monotonic() + seconds
    swapper = Running(ALICE, swap, steps, end)
    callers = [Running(ALICE, mount_until, end, point, below) for _ in range(CALLERS)]
    waited = host.bob_goes_on()
    outcomes = sum((caller.result() for caller in callers), collections.Counter())
    if any(outcome not in (BAD, "allowed") for outcome in outcomes):
        # The swapper waits for what they left.
        host.clear_user(ALICE)
    turns = swapper.result()
    for running in (swapper, *callers):
        running.end()
    calls = sum(outcomes.values())
    figure(f"{name}: {turns} swaps, {calls} calls, {outcomes['allowed']} mounted, bob waited {waited * 1000:.0f} ms")
    if turns < SWAPS_AT_LEAST or calls < CALLS_AT_LEAST:
        return f"only {turns} swaps and {calls} calls"
    return ", or ".join(sorted(outcomes))


@case("a mount point swapped for symlinks to bob's and to another of hers", "alice", f"{BAD}, or allowed")
def symlink():
    bobs = host.directory(f"{BOB.home}/trap", BOB)
    trap = host.directory(f"{GROUND}/elsewhere/trap")
    base = host.directory(f"{GROUND}/base")
    host.directory(f"{base}/ws")
    os.symlink(bobs, f"{base}/to-bob")
    os.symlink(trap, f"{base}/to-trap")
    steps = []
    for link in ("to-bob", "to-trap"):
        steps += [("ws", "aside"), (link, "ws"), ("ws", link), ("aside", "ws")]
    steps = [(f"{base}/{old}", f"{base}/{new}") for old, new in steps]
    found = race(steps, f"{base}/ws", [base], "symlinks", SWAPPED_S)
    os.rmdir(bobs)
    return found


@case("a parent renamed, and swapped for a symlink to bob's", "alice", f"{BAD}, or allowed")
def parent():
    bobs = host.directory(f"{BOB.home}/trap", BOB)
    host.directory(f"{bobs}/ws", BOB)
    base = host.directory(f"{GROUND}/base")
    for name in ("p", "q"):
        host.directory(f"{base}/{name}")
        host.directory(f"{base}/{name}/ws")
    os.symlink(bobs, f"{base}/to-bob")
    steps = [("p", "aside"), ("q", "p"), ("p", "q"), ("to-bob", "p"), ("p", "to-bob"), ("aside", "p")]
    steps = [(f"{base}/{old}", f"{base}/{new}") for old, new in steps]
    below = [f"{base}/{name}" for name in ("p", "q", "aside")]
    found = race(steps, f"{base}/p/ws", below, "parents", OTHERS_S)
    os.rmdir(f"{bobs}/ws")
    os.rmdir(bobs)
    return found


def repeat(end, function, *args):
    """Outcomes of the same call until `end`, by number."""
    outcomes = collections.Counter()
    while time.monotonic() < end:
        outcomes[client.outcome(function(*args))] += 1
    return outcomes


# What a call may get that meets another one on the same workspace or the same place.
IN_TURN = {"allowed", BAD, "1009 `Busy`", "1011 `WrongState`"}


@case("unmounted, mounted again and mounted over by four callers at once", "alice", "1002, 1009, 1011, or done in turn")
def remount():
    point = host.directory(f"{GROUND}/ws")
    workspace = run_as(ALICE, host.create, point)["result"]["id"]
    end = time.monotonic() + OTHERS_S
    again = lambda: client.call("workspace.mount", {"id": workspace})
    over = lambda: taken_back(host.create(point, ephemeral=True))
    work = [(host.unmount, workspace), (host.unmount, workspace, True), (again,), (over,)]
    callers = [Running(ALICE, repeat, end, *each) for each in work]
    waited = host.bob_goes_on()
    outcomes = sum((caller.result() for caller in callers), collections.Counter())
    for caller in callers:
        caller.end()
    figure(f"unmount against mount: {sum(outcomes.values())} calls, bob waited {waited * 1000:.0f} ms")
    state = run_as(ALICE, client.call, "workspace.get", {"id": workspace})["result"]["state"]
    places = len(host.mounted_at(workspace))
    if {"mounted": 1, "unmounted": 0}.get(state) != places:
        return f"{state}, and mounted {places} times"
    removed = client.outcome(run_as(ALICE, host.remove, workspace))
    if removed != "allowed" or set(outcomes) - IN_TURN:
        return f"removed: {removed}; {dict(outcomes)}"
    return "1002, 1009, 1011, or done in turn"


def taken_back(made):
    if "result" in made:
        host.unmount(made["result"]["id"], lazy=True)
    return made


@case("one place asked for by eight callers at once", "alice", f"{BAD} for all but one")
def crowd():
    point = host.directory(f"{GROUND}/ws")
    callers = [Running(ALICE, host.create, point) for _ in range(8)]
    made = [caller.result() for caller in callers]
    for caller in callers:
        caller.end()
    ids = [each["result"]["id"] for each in made if "result" in each]
    refused = {client.outcome(each) for each in made if "result" not in each}
    stacked = sum(len(host.mounted_at(each)) for each in ids)
    for each in ids:
        run_as(ALICE, host.remove, each)
    if len(ids) != 1 or stacked != 1:
        return f"{len(ids)} were made, {stacked} mounted"
    return f"{', '.join(sorted(refused))} for all but one"


def leave_at(delays, point, keeps_running):
    """Asks for a mount and hangs up after each of the delays."""
    for number, delay in enumerate(delays):
        sock = client.connect()
        params = {"origin": host.ORIGIN, "mount_point": f"{point}/{number}", "labels": {"left": "early"}}
        sock.sendall(client.request(client.message("workspace.create", params)))
        time.sleep(delay)
        if not keeps_running:
            os._exit(0)
        sock.close()


def at_rest(points):
    """The workspaces at `points`, once nothing of them changes any more."""
    end, seen, since = time.monotonic() + host.SETTLED_WITHIN_S, None, 0
    while time.monotonic() < end:
        views = [view for view in host.workspaces(uid=ALICE.uid) if view["mount_point"] in points]
        now = [(view["id"], view["state"]) for view in views]
        if now != seen or host.look().children:
            seen, since = now, time.monotonic()
        elif time.monotonic() - since > REST_S:
            return views
        time.sleep(0.02)
    raise AssertionError(f"creations do not come to rest: {seen}")


def remaining(points):
    """What is left of creations whose callers went: whole workspaces only, which are removed."""
    halves = []
    for view in at_rest(points):
        if view["state"] != "mounted" or host.mounted_at(view["id"]) != [view["mount_point"]]:
            halves.append(view)
        run_as(ALICE, host.remove, view["id"])
    return f"half-made: {halves}" if halves else "undone, or there as a whole"


@case("the caller hangs up at any moment of a creation", "alice", "undone, or there as a whole")
def hang_up():
    rounds = 300 if LONG else 30
    points = [host.directory(f"{GROUND}/{number}") for number in range(rounds)]
    # From before it is read to after the answer.
    run_as(ALICE, leave_at, [0.002 * (number % 30) for number in range(rounds)], GROUND, True)
    return remaining(points)


@case("the caller's process ends right after sending", "alice", "undone, or there as a whole")
def exit_at_once():
    delays, points = (0, 0, 0.001, 0.005, 0.01, 0.02, 0.03, 0.05), []
    for number, delay in enumerate(delays):
        top = host.directory(f"{GROUND}/{number}")
        points.append(host.directory(f"{top}/0"))
        Running(ALICE, leave_at, [delay], top, False).end()
    return remaining(points)
