"""What happens to mounts and the daemon meanwhile, not by the daemon."""

import os
import random
import subprocess
import time

import client
import host
from host import GROUND
from people import ALICE, Running, run_as
from resources import content, crash, of_bob, write_something
from table import LONG, Proofs, case

GROUP = "Life cycle"

proved = Proofs(GROUP).proved
CHECKS = "system/checks"

proved("restart and `kill -9` under a build, a database and cold reads", "root", "no failed call",
       f"{CHECKS}/handover_load.sh", "handover_under_load")
proved("`kill -9` with open files, mappings, locks and requests in flight", "root", "no failed call",
       "handover.rs", "nobody_notices_twenty_kills_with_one_session_for_all")
proved("`kill -9` while workspaces are made, unmounted and removed", "root", "what was acknowledged holds",
       "mount_bad_days/kills.rs", "what_was_acknowledged_holds_after_kills_at_any_moment")
proved("`kill -9` between the mount and its record, and the other way round", "root", "there as a whole, or gone",
       "src/antares/tests/crash.rs", "a_creation_cut_short_vanishes_and_one_that_was_recorded_comes_back")
proved("an upgrade with mounts", "root", "they stay", f"{CHECKS}/package.sh", "upgrade")
proved("stop and start", "root", "unmounted, then back", f"{CHECKS}/life.sh", "stop_and_start")
proved("a reboot", "root", "back", f"{CHECKS}/life.sh", "reboot")
proved("removing and purging the package", "root", "unsaved work is kept", f"{CHECKS}/package.sh", "remove_and_purge")
proved("a mount point that is another directory after a start", "alice", "not mounted on",
       "src/antares/tests/restart.rs", "a_mount_point_that_is_another_directory_is_not_mounted_on")
proved("unmounting what is in use", "alice", "1009 `Busy`",
       "mount_bad_days/endings.rs", "a_mount_in_use_stays_until_its_users_are_gone_or_it_is_ended_lazily")


def again(workspace, point):
    """Ends a workspace that somebody else took out of sight, and mounts it again."""
    ended = client.outcome(host.unmount(workspace))
    mounted = client.outcome(client.call("workspace.mount", {"id": workspace, "mount_point": point}))
    work = content(f"{point}/work") if mounted == "allowed" else ""
    removed = client.outcome(host.remove(workspace))
    found = (ended, mounted, work, removed)
    return "unmounts and mounts it again" if found == ("allowed", "allowed", "hers", "allowed") else str(found)


@case("`umount -l` by root behind the daemon's back", "root", "unmounts and mounts it again")
def behind_our_back():
    point = host.directory(f"{GROUND}/w")
    workspace = run_as(ALICE, write_something, point)
    subprocess.run(["umount", "-l", point], check=True)
    return run_as(ALICE, again, workspace, point)


# Mountinfo is compared with what should be there every 30 s.
NOTICED_WITHIN_S = 40


@case("`umount -l` by root, which the daemon notices by itself", "root", "unmounted, her work kept", long=True)
def noticed():
    point = host.directory(f"{GROUND}/w")
    workspace, end = run_as(ALICE, write_something, point), time.monotonic() + NOTICED_WITHIN_S
    subprocess.run(["umount", "-l", point], check=True)
    state = lambda: run_as(ALICE, client.call, "workspace.get", {"id": workspace})["result"]["state"]
    while state() == "mounted" and time.monotonic() < end:
        time.sleep(0.5)
    found = state()
    kept = content(f"{host.STATE}/{workspace}/upper/work") == "hers"
    run_as(ALICE, host.remove, workspace)
    return f"{found}, her work {'kept' if kept else 'lost'}"


SESSION = "abuse-session.service"


@case("a logout that detaches `/run/user` with a workspace below it", "alice", "unmounts and mounts it again")
def logout():
    unit, top = f"user-runtime-dir@{ALICE.uid}.service", f"/run/user/{ALICE.uid}"
    # In the place of a session: without one the directory is taken away at once.
    needs = ["--property", f"Requires={unit}", "--property", f"After={unit}"]
    subprocess.run(["systemd-run", "--quiet", "--unit", SESSION, *needs, "sleep", "infinity"], check=True)
    try:
        workspace = run_as(ALICE, write_something, host.directory(f"{top}/w"))
    finally:
        subprocess.run(["systemctl", "stop", SESSION, unit], check=True)
    if host.mounted_at(workspace):
        return "still mounted"
    return run_as(ALICE, again, workspace, host.directory(f"{GROUND}/w"))


@case("`systemctl daemon-reexec` and `daemon-reload`", "root", "nothing")
def reexec():
    kept = host.shown("NFileDescriptorStore")
    subprocess.run(["systemctl", "daemon-reexec"], check=True)
    subprocess.run(["systemctl", "daemon-reload"], check=True)
    now = host.shown("NFileDescriptorStore")
    return "nothing" if now == kept != "0" else f"{now} of {kept} descriptors are kept"


@case("a setuid program and a device, made in a workspace", "alice, for bob", "nosuid, nodev")
def setuid():
    point = host.directory(f"{GROUND}/w")
    workspace = run_as(ALICE, host.create, point)["result"]["id"]
    with open("/proc/1/mountinfo", encoding="utf-8") as table:
        options = next(line.split(" ")[5].split(",") for line in table if f"scorpio:{workspace} " in line)
    run_as(ALICE, host.remove, workspace)
    return ", ".join(option for option in ("nosuid", "nodev") if option in options)


def make_until_stopped(base, stop):
    """Makes workspaces and removes every other one, whatever happens to the daemon; ids that must be there at last."""
    told, number = set(), 0
    while not os.path.exists(stop):
        number += 1
        point = f"{base}/{number}"
        os.mkdir(point)
        try:
            made = host.create(point)
            if "result" in made and number % 2:
                host.remove(made["result"]["id"])
            elif "result" in made:
                told.add(made["result"]["id"])
        except OSError:
            pass  # the daemon was killed at that moment
    return told


WHOLE = "each is mounted and listed, or neither"


@case("`kill -9` in the middle of mounts, several times", "root", WHOLE, restarts=True)
def killed():
    rounds, faults, bobs = 20 if LONG else 3, [], of_bob()
    for number in range(rounds):
        base = host.directory(f"{GROUND}/{number}")
        stop = f"{base}/stop"
        makers = [Running(ALICE, make_until_stopped, host.directory(f"{base}/{each}"), stop) for each in range(3)]
        time.sleep(random.uniform(0.1, 0.4))  # the moment of the kill is what this is about
        crash()
        os.mkdir(stop)
        told = set().union(*(maker.result() for maker in makers))
        for maker in makers:
            maker.end()
        views = {view["id"]: view for view in host.workspaces(uid=ALICE.uid)}
        faults += [f"{each} was told and is not there" for each in told - set(views)]
        # One whose removal was under way may be unmounted.
        states = {each: views[each]["state"] for each in told & set(views)}
        faults += [f"{each} is {state}" for each, state in states.items() if state != "mounted"]
        sources = {source for _, _, source in host.mounts() if source.startswith("scorpio:")}
        known = {f"scorpio:{view['id']}" for view in host.workspaces(state="mounted")}
        if sources != known:
            faults.append(f"{sorted(sources - known)} are not listed, {sorted(known - sources)} not mounted")
        host.clear_user(ALICE)
    if client.call("orphan.list")["result"]:
        faults.append("there are orphans")
    if of_bob() != bobs:
        faults.append("bob's mounts changed")
    return "; ".join(faults) or WHOLE
