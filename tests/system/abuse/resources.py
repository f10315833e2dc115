"""What runs out, and state that is not as we left it."""

import contextlib
import os
import resource
import signal
import subprocess
import time

import client
import host
from host import GROUND
from people import ALICE, BOB, Running, held_by, run_as
from protocol import hold
from table import Proofs, case, figure

GROUP = "Resources"

proved = Proofs(GROUP).proved
FULL = "mount_bad_days/full_disks.rs"

proved("one workspace more than a user may have, than the host may have", "alice", "1008 `LimitReached`",
       "mount_bad_input.rs", "the_fourth_of_three_workspaces_is_refused")
proved("more sessions than systemd's store of descriptors holds", "many users", "refused, and said",
       "src/daemon/keeper.rs", "what_would_overflow_the_store_is_refused")
proved("no descriptors left, in the server alone", "alice", "waits",
       "rpc_descriptors.rs", "accept_pauses_without_descriptors_and_goes_on_with_them")
proved("the uppers' disk full", "alice", "ENOSPC; others go on",
       FULL, "a_full_upper_file_system_is_enospc_and_loses_nothing")
proved("the state's disk full", "alice", "1015 `Internal`; others go on",
       FULL, "a_full_state_directory_refuses_new_workspaces_and_keeps_the_others")
proved("the cache's disk full", "alice", "EIO for what is not in it",
       FULL, "a_full_cache_is_an_error_of_what_is_not_in_it_alone")
proved("the object cache's map full", "readers", "EIO for what does not fit",
       "src/cache/tests.rs", "a_full_map_fails_that_put_and_nothing_else")
proved("a node table without room", "readers", "said; what is known is answered",
       "src/dicfuse/table/tests.rs", "a_full_table_says_so_and_goes_on_answering")
proved("more questions at an origin than one user may wait for", "alice", "EIO; others are served",
       "origin_gone.rs", "who_waits_beyond_their_share_is_refused_at_once_and_others_are_served")
proved("an origin that is a black hole", "200 readers", "EIO in time; can be killed",
       "origin_gone.rs", "two_hundred_who_wait_for_a_black_hole_hold_up_nobody_else")
proved("an origin that sends other bytes", "an origin", "EIO, never kept",
       "store_fetch.rs", "wrong_bytes_are_never_kept_and_a_good_answer_is_taken_later")
proved("a server that is slow, cut short, wrong, endless or gone", "an origin", "EIO in time; heals",
       "origin_mega_faults.rs", "every_fault_has_its_error_and_its_number_of_requests_and_heals")
proved("trees with `..`, `/`, NUL, doubled names, odd modes, huge symlinks", "an origin", "EIO of that place alone",
       "hostile_trees.rs", "each_bad_object_is_an_error_of_its_own_place_alone")
proved("a symlink in an upper that leads out of it", "alice", "exported as a symlink",
       "manager_export.rs", "a_symlink_in_the_upper_leads_nowhere")
proved("a state directory that others may write to", "root", "the start is refused",
       "src/antares/tests/restart.rs", "directories_that_others_may_write_to_are_refused")
proved("a record with any bit flipped", "a disk", "an orphan; its upper stays",
       "src/antares/tests/restart.rs", "a_damaged_record_makes_an_orphan_and_loses_nothing")
proved("a cache with any bytes changed while the host was down", "a disk", "never served",
       "cache_crash.rs", "no_corruption_of_another_boot_kills_the_process_or_is_served")
proved("a node table that is gone", "root", "mounted anew",
       "handover.rs", "a_session_whose_node_table_is_lost_is_not_gone_on_with")
proved("the uppers' inodes used up", "alice", "ENOSPC; others go on",
       FULL, "upper_inodes_that_run_out_are_enospc_and_lose_nothing")
proved("a directory with 100,000 names, 1,000,000 in the long run", "an origin", "listed, and each is found",
       "mount_tree.rs", "a_crowded_directory_is_listed_and_each_name_is_found")
proved("names that differ only in case", "an origin", "each its own",
       "mount_tree.rs", "a_cold_mount_is_what_a_plain_checkout_is_on_the_shared_lower")
proved("a clock that is set forward and back, by days", "root", "nothing ends",
       "system/checks/kernel.sh", "clock_steps")
proved("no memory left for the daemon", "root", "the next one goes on",
       "system/checks/kernel.sh", "memory_limit")
proved("a wrong configuration, at a restart and after a stop", "root", "the one before; status 78, no loop",
       "system/checks/life.sh", "wrong_configuration")
proved("a mount namespace of the daemon's own", "root", "status 78", "system/checks/life.sh", "private_namespace")

# Descriptors beyond those that the idle daemon has: fewer than one user's connections take.
SPARE = 40
# How long the daemon is watched while nothing can be accepted, and the processor time that it may take of it: a loop that
# spins takes all of it.
WATCHED_S, BUSY_AT_MOST_S = 1.0, 0.25


def ask_and_wait():
    begin = time.monotonic()
    reply = client.call("whoami")
    return client.outcome(reply), time.monotonic() - begin


@case("no descriptors left in the daemon", "alice", "waits without spinning, then served", restarts=True)
def descriptors():
    host.restart(f"LimitNOFILE={host.look().descriptors + SPARE}")
    host.serves()
    process = host.pid()
    with held_by(ALICE, hold, 32, 0):
        time.sleep(0.2)  # until as many are taken as there is room for
        begin, used = time.monotonic(), host.cpu_s(process)
        waiter = Running(BOB, ask_and_wait)
        time.sleep(WATCHED_S)
        used = host.cpu_s(process) - used
        watched = time.monotonic() - begin
        open_now = len(os.listdir(f"/proc/{process}/fd"))
    found, waited = waiter.result()
    waiter.end()
    full = journal_says("connections cannot be accepted")
    same = host.pid() == process
    host.restart()
    host.serves()
    busy = f"{used * 1000:.0f} ms in {watched:.1f} s"
    figure(f"without descriptors ({open_now} open) the daemon used {busy}; bob waited {waited:.1f} s")
    if not (full and same and found == "allowed"):
        return f"full: {full}, the same process: {same}, bob: {found}"
    return "waits without spinning, then served" if used <= BUSY_AT_MOST_S * watched else f"busy for {busy}"


# Of one user's processes together, each with as many as it may have.
HANDLES = 100_000


def open_files(point, count):
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    files = [os.path.join(top, name) for top, _, names in os.walk(f"{point}/src") for name in names]
    held = [os.open(files[number % len(files)], os.O_RDONLY) for number in range(count)]
    return len(held), held


@case("100,000 files open at once", "alice", "allowed; the daemon holds none of them")
def many_handles():
    point = host.directory(f"{GROUND}/w")
    workspace = run_as(ALICE, write_something, point)
    before, memory = host.look().descriptors, host.memory_mib(host.pid())
    each = min(resource.getrlimit(resource.RLIMIT_NOFILE)[1] - 100, HANDLES)
    with contextlib.ExitStack() as stack:
        left = HANDLES
        while left > 0:
            stack.enter_context(held_by(ALICE, open_files, point, min(each, left)))
            left -= each
        found = host.look().descriptors - before
        host.bob_goes_on()
        figure(f"{HANDLES:,} files open in a workspace: {host.memory_mib(host.pid()) - memory:+} MiB in the daemon")
    if client.outcome(run_as(ALICE, host.remove, workspace)) != "allowed":
        return "the workspace cannot be removed"
    return "allowed; the daemon holds none of them" if found <= 2 else f"{found} descriptors more in the daemon"


ENTRIES = 1_000_000


def fill(point):
    os.mkdir(f"{point}/crowd")
    crowd = os.open(f"{point}/crowd", os.O_RDONLY | os.O_DIRECTORY)
    for number in range(ENTRIES):
        os.close(os.open(f"{number:07}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644, dir_fd=crowd))
    os.close(crowd)


def crowd(point):
    with os.scandir(f"{point}/crowd") as entries:
        return sum(1 for _ in entries)


@case("a directory with 1,000,000 files of hers", "alice", "allowed; all are there after an unmount", long=True)
def huge_directory():
    point = host.directory(f"{GROUND}/w")
    workspace = run_as(ALICE, write_something, point)
    begin = time.monotonic()
    run_as(ALICE, fill, point, patience_s=900)
    filled = time.monotonic() - begin
    counts = [run_as(ALICE, crowd, point, patience_s=120)]
    ended = client.outcome(run_as(ALICE, host.unmount, workspace))
    again = client.outcome(run_as(ALICE, client.call, "workspace.mount", {"id": workspace}))
    counts.append(run_as(ALICE, crowd, point, patience_s=120))
    removed = client.outcome(run_as(ALICE, host.remove, workspace))
    # In the background, which is not done within the time that others need.
    end = time.monotonic() + 300
    while any(name.startswith(".trash-") for name in os.listdir(host.STATE)) and time.monotonic() < end:
        time.sleep(0.1)
    figure(f"{ENTRIES:,} files were made in {filled:.0f} s")
    if counts != [ENTRIES] * 2 or {ended, again, removed} != {"allowed"}:
        return f"{counts} files; unmounted: {ended}, mounted: {again}, removed: {removed}"
    return "allowed; all are there after an unmount"


def journal_says(words, lines=50):
    command = ["journalctl", "-u", host.UNIT, "-n", str(lines), "--no-pager", "-o", "cat"]
    return words in subprocess.run(command, capture_output=True, text=True).stdout


def crash():
    """Ends the daemon as a crash would; another one starts by itself."""
    subprocess.run(["systemctl", "reset-failed", host.UNIT], capture_output=True)
    process = host.pid()
    os.kill(process, signal.SIGKILL)
    end = time.monotonic() + 30
    while host.pid() in (process, 0) and time.monotonic() < end:
        time.sleep(0.02)
    host.serves()


def write_something(point):
    made = host.create(point)
    if "result" not in made:
        raise AssertionError(f"alice cannot mount at {point}: {made}")
    with open(f"{point}/work", "w", encoding="ascii") as file:
        file.write("hers")
    return made["result"]["id"]


def content(path):
    with open(path, encoding="ascii") as file:
        return file.read()


def of_bob():
    """Bob's mounts, which stay what they are."""
    ids = {view["id"] for view in host.workspaces(uid=BOB.uid)}
    return {mount for mount in host.mounts() if mount[2].removeprefix("scorpio:") in ids}


@case("a damaged record and a crash", "a disk", "an orphan, mounted and whole; bob's mounts stay", restarts=True)
def damaged_record():
    point = host.directory(f"{GROUND}/w")
    workspace = run_as(ALICE, write_something, point)
    record, before = f"{host.STATE}/{workspace}/record", of_bob()
    with open(record, "rb") as file:
        sound = file.read()
    with open(record, "wb") as file:
        file.write(sound[:40] + bytes([sound[40] ^ 1]) + sound[41:])
    crash()
    faults = []
    if workspace not in [each["id"] for each in client.call("orphan.list")["result"]]:
        faults.append("no orphan")
    if of_bob() != before:
        faults.append("bob's mounts changed")
    if content(f"{host.STATE}/{workspace}/upper/work") != "hers" or run_as(ALICE, content, f"{point}/work") != "hers":
        faults.append("her work is gone")
    # Mended, all is as it was.
    with open(record, "wb") as file:
        file.write(sound)
    crash()
    if host.mounted_at(workspace) != [point] or run_as(ALICE, content, f"{point}/work") != "hers":
        faults.append("not there again with a sound record")
    if client.outcome(run_as(ALICE, host.remove, workspace)) != "allowed":
        faults.append("cannot be removed")
    return "; ".join(faults) or "an orphan, mounted and whole; bob's mounts stay"


@case("a state directory that is read-only, and a crash", "a disk", "1015 `Internal`; all mounts stay", restarts=True)
def read_only_state():
    state, before = "/var/lib/scorpio", host.mounts()
    subprocess.run(["mount", "--bind", state, state], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", state], check=True)
    try:
        crash()
        refused = client.outcome(run_as(ALICE, host.create, host.directory(f"{GROUND}/w")))
        lost = before - host.mounts()
    finally:
        # The daemon has it open: lazily, and then another daemon opens what is below.
        subprocess.run(["umount", "-l", state], check=True)
    crash()
    return f"{refused}; {'all mounts stay' if not lost else f'{sorted(lost)} are gone'}"


@case("strange files beside the records, and a crash", "a disk", "left alone; all mounts stay", restarts=True)
def strange_files():
    before, names = host.mounts(), ["zzzz22223333", "-rf", "a\nb", "x" * 255]
    os.mkfifo(f"{host.STATE}/{names[0]}")
    os.symlink("/etc", f"{host.STATE}/{names[1]}")
    for name in names[2:]:
        os.mkdir(f"{host.STATE}/{name}")
    crash()
    there = [name for name in names if os.path.lexists(f"{host.STATE}/{name}")]
    lost = before - host.mounts()
    for name in names[:2]:
        os.unlink(f"{host.STATE}/{name}")
    for name in names[2:]:
        os.rmdir(f"{host.STATE}/{name}")
    crash()
    if there != names or lost:
        return f"{there} are left, {sorted(lost)} are gone"
    return "left alone; all mounts stay"
