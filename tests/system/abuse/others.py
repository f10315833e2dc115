"""Workspaces of other users: what alice may do to bob's, and what she is told of them."""

import os
import random

import client
import host
import jsontext
from host import GROUND
from people import ALICE, BOB, Running, run_as
from table import Proofs, case

GROUP = "Workspaces of others"
NONE_SUCH = "1006 `NoSuchWorkspace`"
NOT_ALLOWED = "1007 `NotAuthorised`"

proved = Proofs(GROUP).proved
proved("every method, by somebody with no right, by a manager and by root", "4 users", "as the policy says",
       "rpc_socket.rs", "every_method_answers_those_who_may_and_refuses_the_others")
proved("an origin that she may not mount", "alice", "1003 `NoSuchOrigin`, as if there were none",
       "rpc_socket.rs", "what_one_may_not_see_looks_as_if_it_were_not_there")
proved("content that another user's login delivered", "bob", "EIO, as if there were none",
       "private_blobs.rs", "a_private_file_is_to_others_like_one_that_exists_nowhere")
proved("another user's login", "bob", "EIO",
       "private_origins.rs", "a_user_reads_with_the_login_of_that_user_and_no_other")
proved("`give` to root, to oneself, to nobody", "an administrator", "1001 `BadParameter`",
       "mount_give.rs", "who_may_give_what_to_whom")


def bobs():
    """A workspace of bob's that is mounted."""
    return host.workspaces(uid=BOB.uid, state="mounted")[0]["id"]


def by_alice(method, **params):
    return client.outcome(run_as(ALICE, client.call, method, {"id": bobs(), **params}))


@case("`workspace.get` of bob's", "alice", NONE_SUCH)
def get():
    return by_alice("workspace.get")


@case("`workspace.mount` of bob's, at a place of hers", "alice", NONE_SUCH)
def mount():
    return by_alice("workspace.mount", mount_point=host.directory(f"{GROUND}/w"))


@case("`workspace.unmount` of bob's", "alice", NONE_SUCH)
def unmount():
    return by_alice("workspace.unmount")


@case("`workspace.unmount` of bob's, lazily", "alice", NONE_SUCH)
def unmount_lazily():
    return by_alice("workspace.unmount", lazy=True)


@case("`workspace.remove` of bob's, with all in it", "alice", NONE_SUCH)
def remove():
    return by_alice("workspace.remove", discard=True, lazy=True)


@case("`workspace.give` of bob's to herself", "alice", NOT_ALLOWED)
def give():
    return by_alice("workspace.give", user="alice")


@case("`workspace.give` of her own to bob", "alice", NOT_ALLOWED)
def give_away():
    own = host.workspaces(uid=ALICE.uid)[0]["id"]
    return client.outcome(run_as(ALICE, client.call, "workspace.give", {"id": own, "user": "bob"}))


@case("`workspace.watch` of bob's", "alice", NONE_SUCH)
def watch():
    wanted = bobs()
    return client.outcome(run_as(ALICE, lambda: client.WebSocket().ask("workspace.watch", {"id": wanted})))


@case("an export of bob's", "alice", "HTTP 404 and 1006")
def export():
    status, body = run_as(ALICE, client.exchange, f"GET /export/{bobs()} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
    return f"HTTP {status} and {jsontext.loads(body.decode())['code']}"


@case("`orphan.adopt` and `orphan.discard` of bob's", "alice", NOT_ALLOWED)
def adopt():
    wanted = {"origin": host.ORIGIN, "mount_point": host.directory(f"{GROUND}/w")}
    found = {by_alice("orphan.adopt", uid=ALICE.uid, workspace=wanted), by_alice("orphan.discard")}
    return ", ".join(sorted(found))


@case("`workspace.list` of everybody's", "alice", NOT_ALLOWED)
def list_all():
    return client.outcome(run_as(ALICE, client.call, "workspace.list", {"all": True}))


GUESSES = 1000
# Those that ids are made of.
LETTERS = "abcdefghijkmnpqrstuvwxyz23456789"


def guess(real):
    """Outcomes of guessed ids, and whether the one that there is looks like the others."""
    sock, outcomes = client.connect(), set()
    for _ in range(GUESSES):
        wanted = "".join(random.choices(LETTERS, k=12))
        outcomes.add(client.outcome(client.call("workspace.get", {"id": wanted}, sock)))
    texts = set()
    for wanted in ("zzzz22223333", real):
        error = client.call("workspace.get", {"id": wanted}, sock)["error"]
        error["data"].pop("request_id")
        texts.add(jsontext.dumps(error).replace(wanted, "ID"))
    return ", ".join(sorted(outcomes)) + ("" if len(texts) == 1 else f"; but {texts}")


@case("a thousand guessed ids; bob's looks like any of them", "alice", NONE_SUCH)
def guesses():
    return run_as(ALICE, guess, bobs())


@case("ids with `/`, `..`, `%2f`, capitals, NUL, 10,000 letters", "alice", "1001 `BadParameter`")
def ids():
    bad = ["../" + bobs(), "..", "%2f", bobs().upper(), "a\0b", "x" * 10_000, ""]
    found = [run_as(ALICE, client.call, "workspace.get", {"id": each}) for each in bad]
    return ", ".join(sorted({client.outcome(each) for each in found}))


def told():
    """Everything that she can ask about without naming it."""
    methods = ("workspace.list", "origin.list", "health", "counters", "whoami")
    answers = [jsontext.dumps(client.call(method)) for method in methods]
    after = client.call("workspace.list", {"after": "000000000000", "limit": 1000})
    return "\n".join([*answers, jsontext.dumps(after)])


@case("lists, counters and health: bob's names, paths and ids", "alice", "not told")
def leaks():
    text, secrets = run_as(ALICE, told), [BOB.home, "bob"]
    secrets += [view["id"] for view in host.workspaces(uid=BOB.uid)]
    found = [secret for secret in secrets if secret in text]
    return f"told: {found}" if found else "not told"


def watch_all(begun):
    """Ids of all workspaces that she is told of, until one goes; the first answer is told to `begun`."""
    watcher, seen = client.WebSocket(), set()
    watcher.send(client.message("workspace.watch"))
    for text in watcher.texts():
        event = text.get("params", {}).get("result", {})
        if "id" in text:
            os.write(begun, b"x")
        seen.add(event.get("id") or event.get("workspace", {}).get("id"))
        if event.get("event") == "gone":
            break
    return seen - {None}


@case("`workspace.watch` while bob mounts and unmounts", "alice", "not told")
def events():
    wait, begun = os.pipe()
    watcher = Running(ALICE, watch_all, begun)
    os.read(wait, 1)
    host.bob_goes_on()
    own = run_as(ALICE, host.create, host.directory(f"{GROUND}/w"))["result"]["id"]
    run_as(ALICE, host.remove, own)
    seen = watcher.result(30)
    watcher.end()
    os.close(wait)
    os.close(begun)
    others = seen - {own} - {view["id"] for view in host.workspaces(uid=ALICE.uid)}
    return f"told of {others}" if others else "not told"
