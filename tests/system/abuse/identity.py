"""Who somebody is, and where they are."""

import os
import socket
import subprocess
import time

import client
import host
import jsontext
from host import GROUND
from people import ALICE, BOB, NOBODY, ROOT, STRANGER, Running, held_by, run_as
from points import tried
from table import Proofs, case

GROUP = "Identity"
BAD = "1002 `BadMountPoint`"
NOT_ALLOWED = "1007 `NotAuthorised`"
ELSEWHERE = "1013 `ForeignNamespace`"

proved = Proofs(GROUP).proved
proved("a process id that is used again for another process", "alice", ELSEWHERE,
       "rpc_socket.rs", "a_peers_place_is_known_while_it_lives")
proved("put out of the group, before the next call", "alice", NOT_ALLOWED, "system/checks/access.sh", "polkit_decides")
proved("polkit is silent, slow or gone", "alice", NOT_ALLOWED,
       "auth_polkit.rs", "polkit_decides_and_its_silence_is_a_refusal")
proved("powers of root that the daemon does not need", "the daemon", "given up",
       "mount_bad_days/endings.rs", "the_daemon_keeps_exactly_the_powers_it_needs")


@case("a directory of root's own", "root", "allowed")
def root():
    found = run_as(ROOT, tried, host.directory("/root/abuse", ROOT))
    os.rmdir("/root/abuse")
    return found


@case("a directory of alice's", "root", BAD)
def root_at_alices():
    return run_as(ROOT, tried, host.directory(f"{GROUND}/w"))


@case("a directory of its own, by nobody", "nobody", NOT_ALLOWED)
def nobody():
    return run_as(NOBODY, tried, host.directory(f"{GROUND}/w", NOBODY))


@case("a directory of its own, by a uid that has no account", "uid 4242", NOT_ALLOWED)
def stranger():
    return run_as(STRANGER, tried, host.directory(f"{GROUND}/w", STRANGER))


def curl(below, method, params):
    """A call by curl, run below other programs."""
    command = [*below, "curl", "-sS", "--unix-socket", client.SOCKET, "-H", "content-type: application/json"]
    command += ["-d", client.message(method, params), "http://localhost/"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise AssertionError(f"{command}: {done.stderr}")
    return jsontext.loads(done.stdout)


def from_below(person, below):
    point = host.directory(f"{GROUND}/w", person)
    params = {"origin": host.ORIGIN, "mount_point": point, "ephemeral": True}
    made = run_as(person, curl, below, "workspace.create", params)
    if "result" in made:
        view = made["result"]
        if view["uid"] != person.uid or host.mounted_at(view["id"]) != [point]:
            return f"mounted for uid {view['uid']} at {host.mounted_at(view['id'])}"
        run_as(person, host.unmount, view["id"])
    return client.outcome(made)


@case("as root of a user namespace of her own", "alice", "allowed, as alice")
def user_namespace():
    return f"{from_below(ALICE, ['unshare', '--user', '--map-root-user'])}, as alice"


@case("from a user and mount namespace of her own", "alice", ELSEWHERE)
def mount_namespace():
    return from_below(ALICE, ["unshare", "--user", "--map-root-user", "--mount"])


@case("from another mount namespace", "root", ELSEWHERE)
def roots_mount_namespace():
    return from_below(ROOT, ["unshare", "--mount"])


@case("from another pid namespace, where paths are the same", "root", "allowed")
def pid_namespace():
    return from_below(ROOT, ["unshare", "--pid", "--fork"])


def create_from_inside(point):
    sock = client.connect("scorpio.sock")
    return client.outcome(client.call("workspace.create", {"origin": host.ORIGIN, "mount_point": point}, sock))


@case("from a chroot in which the path is another directory", "alice", ELSEWHERE)
def chroot():
    outside = host.directory(f"{GROUND}/w")
    host.directory(f"{GROUND}{outside}")
    return run_as(ALICE, create_from_inside, outside, root=GROUND)


def hand_over(ours, theirs):
    """A connection of alice's, into somebody else's hands."""
    sock = client.connect()
    socket.send_fds(ours, [b"x"], [sock.fileno()])
    return None, (sock, theirs)


def use(theirs, method, params):
    _, received, _, _ = socket.recv_fds(theirs, 1, 1)
    sock = socket.socket(fileno=received[0])
    sock.settimeout(client.PATIENCE_S)
    return client.call(method, params, sock)


def in_bobs_hands(method, params, ended=False):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        maker = Running(ALICE, hand_over, ours, theirs, keep=True)
        maker.result()
        if ended:
            maker.end()
        reply = run_as(BOB, use, theirs, method, params)
        maker.end()
    return reply


@case("a connection of alice's, in bob's hands: who it is", "bob", "alice")
def passed_on():
    return in_bobs_hands("whoami", {})["result"]["user"]


@case("a connection of alice's, in bob's hands: a directory of bob's", "bob", BAD)
def passed_on_to_mount():
    point = host.directory(f"{GROUND}/bobs", BOB)
    return client.outcome(in_bobs_hands("workspace.create", {"origin": host.ORIGIN, "mount_point": point}))


@case("a connection whose maker has ended", "bob", NOT_ALLOWED)
def orphaned_connection():
    point = host.directory(f"{GROUND}/w")
    params = {"origin": host.ORIGIN, "mount_point": point}
    return client.outcome(in_bobs_hands("workspace.create", params, ended=True))


def before_and_after(point, revoke, revoked):
    """Outcomes on one connection: at once, and when consent can no longer be remembered."""
    sock = client.connect()
    params = {"origin": host.ORIGIN, "mount_point": point, "ephemeral": True}
    made = client.call("workspace.create", params, sock)
    client.call("workspace.unmount", {"id": made["result"]["id"]}, sock)
    os.write(revoke, b"x")
    os.read(revoked, 1)
    end = time.monotonic() + 6
    while time.monotonic() < end:
        client.call("origin.list", {}, sock)  # idle it would be closed
        time.sleep(0.5)
    return client.outcome(client.call("workspace.create", params, sock))


@case("put out of the group in the middle of a connection", "alice", f"{NOT_ALLOWED} within 5 s", long=True)
def revoked():
    point = host.directory(f"{GROUND}/w")
    (wait, revoke), (wait_revoked, done) = os.pipe(), os.pipe()
    caller = Running(ALICE, before_and_after, point, revoke, wait_revoked)
    os.read(wait, 1)
    subprocess.run(["gpasswd", "-d", "alice", "scorpio"], check=True, capture_output=True)
    os.write(done, b"x")
    try:
        return f"{caller.result()} within 5 s"
    finally:
        caller.end()
        subprocess.run(["usermod", "-aG", "scorpio", "alice"], check=True)
        for fd in (wait, revoke, wait_revoked, done):
            os.close(fd)
