"""What is no call, too much of it, or too slow."""

import os
import select
import time

import client
import host
from client import WebSocket
from host import GROUND
from people import ALICE, Running, held_by, run_as
from table import Proofs, case, figure

GROUP = "Protocol"

proved = Proofs(GROUP).proved
JSON = ("rpc_socket.rs", "malformed_requests_have_exact_answers")
HTTP = ("rpc_socket.rs", "malformed_http_has_exact_answers")

proved("no JSON", "alice", "-32700", *JSON)
proved("JSON that is no object", "alice", "HTTP 400", *JSON)
proved("an empty body, one of spaces", "alice", "HTTP 400", *JSON)
proved("10,000 levels of nesting", "alice", "-32600, -32602", *JSON)
proved("a body of 300 KiB", "alice", "HTTP 413", *JSON)
proved("a method that there is not", "alice", "-32601", *JSON)
proved("parameters by position, as text", "alice", "-32602", *JSON)
proved("an id of 100,000 digits, one that is no id", "alice", "allowed", *JSON)
proved("a batch of 17, of 100,000, of none", "alice", "-32010, -32600", *JSON)
proved("one id 16 times in a batch", "alice", "allowed", *JSON)
proved("another content type, none", "alice", "HTTP 415", *HTTP)
proved("GET, PUT, a path that there is not", "alice", "HTTP 405, 404", *HTTP)
proved("an upgrade to HTTP/2", "alice", "HTTP 405", *HTTP)
proved("the preface of HTTP/2", "alice", "closed", *HTTP)
proved("a TLS hello", "alice", "HTTP 400", *HTTP)
proved("a body in chunks without an end", "alice", "HTTP 408 after 10 s", *HTTP)
proved("a body shorter than its `Content-Length`", "alice", "HTTP 408 after 10 s", *HTTP)
proved("a `Content-Length` of 100 MB, of -1", "alice", "HTTP 413, 400", *HTTP)
proved("two lengths that differ, a length and chunks", "alice", "HTTP 400", *HTTP)
proved("a header of 300 KB, 101 headers", "alice", "HTTP 431", *HTTP)
proved("a head that does not end, nothing at all", "alice", "closed after 5 s", *HTTP)
proved("labels, modes, lifetimes, revisions and paths out of bounds", "alice", "1001 `BadParameter`",
       "mount_bad_input.rs", "options_out_of_bounds_are_refused")
proved("origins, revisions and paths that there are not", "alice", "1003, 1004, 1005",
       "mount_bad_input.rs", "what_does_not_exist_is_not_found")
proved("a caller that only stops sending", "alice", "allowed",
       "rpc_socket.rs", "a_caller_that_only_stops_sending_gets_its_answer")
proved("requests without reading the answers", "alice", "closed",
       "rpc_socket.rs", "a_caller_that_sends_without_reading_is_cut_off")
proved("answers left unread", "alice", "closed after 60 s", "src/rpc/stream.rs", "a_write_nobody_takes_fails_in_time")
proved("more calls at once than one user may", "alice", "1008 `LimitReached`",
       "rpc_socket.rs", "calls_of_one_user_at_once_are_bounded")
proved("all places taken, by many users", "everybody", "HTTP 503; root gets in",
       "rpc_socket.rs", "root_gets_in_when_all_places_are_taken")
proved("nine subscriptions on a connection", "alice", "-32006",
       "rpc_socket.rs", "a_connection_has_eight_subscriptions_and_unsubscribing_frees_one")
proved("a subscription that is never read", "alice", "closed",
       "rpc_socket.rs", "a_subscriber_that_never_reads_is_dropped")
proved("a subscription that is read too slowly", "alice", "told what it missed",
       "rpc_socket.rs", "a_slow_watcher_is_told_that_it_lost_events_and_then_what_there_is")
proved("a message of 300 KiB on a WebSocket, a frame of 2^62 bytes", "alice", "-32007, closed",
       "rpc_socket.rs", "a_websocket_that_is_too_greedy_is_refused_or_closed")


def posted(body):
    return client.outcome(client.parsed(*client.exchange(client.request(body))))


def answered(data):
    status, _ = client.exchange(data)
    return f"HTTP {status}" if status else "closed"


@case("a body of NULs", "alice", "-32700")
def nuls():
    return run_as(ALICE, posted, b"{" + bytes(1000))


@case("an id that is not UTF-8", "alice", "no answer, as to a notification")
def id_of_bytes():
    return run_as(ALICE, posted, b'{"jsonrpc":"2.0","id":"\xff","method":"health"}')


@case("a NUL in a header, a header without a name", "alice", "HTTP 400")
def headers():
    heads = (b"POST / HTTP/1.1\r\nhost: x\r\nx: a\0b\r\n\r\n", b"POST / HTTP/1.1\r\nhost: x\r\n: y\r\n\r\n")
    return ", ".join(sorted({run_as(ALICE, answered, head) for head in heads}))


@case("a method of 100,000 letters", "alice", "-32601")
def long_method():
    return run_as(ALICE, posted, client.message("x" * 100_000))


@case("a request behind the end of another's body", "alice", "two answers, each to its own")
def smuggled():
    return run_as(ALICE, two_answers)


def two_answers():
    first = client.request(client.message("whoami", number=1))
    second = client.request(client.message("origin.list", number=2))
    sock = client.connect()
    sock.sendall(first + second)
    reader = client.Reader(sock)
    replies = [client.parsed(*reader.answer()) for _ in range(2)]
    return "two answers, each to its own" if [reply["id"] for reply in replies] == [1, 2] else str(replies)


# Twice as many as one user may hold.
HELD = 64


def hold(count, refused):
    """Opens connections and says nothing on them; the answers that come unasked, as many as are waited for."""
    socks = [client.connect() for _ in range(count)]
    end, answered_by = time.monotonic() + 3, {}
    while time.monotonic() < end and len(answered_by) < refused:
        ready, _, _ = select.select([sock for sock in socks if sock not in answered_by], [], [], 0.2)
        for sock in ready:
            answered_by[sock] = client.Reader(sock).answer()[0]
    return sorted(answered_by.values()), socks


@case("64 connections that are held", "alice", "HTTP 503 for 32 of them")
def held():
    with held_by(ALICE, hold, HELD, HELD // 2) as statuses:
        host.bob_goes_on()
        if "result" not in client.call("health"):
            return "root does not get in"
    return f"HTTP {', '.join(map(str, sorted(set(statuses))))} for {len(statuses)} of them"


CONNECTIONS = 10_000


def connect_often(count):
    for number in range(count):
        sock = client.connect()
        if number % 10 == 0:
            client.send(sock, b"POST / HTTP/1.1\r\n")
        sock.close()


@case("10,000 connections, one after the other", "alice", "served, or closed")
def many():
    begin = time.monotonic()
    caller = Running(ALICE, connect_often, CONNECTIONS)
    waited = host.bob_goes_on()
    caller.result()
    caller.end()
    figure(f"{CONNECTIONS} connections in {time.monotonic() - begin:.1f} s, bob waited {waited * 1000:.0f} ms")
    return "served, or closed"


PIPELINED = 10_000


def pipeline(count):
    """Sends all at once, by a process that does nothing else, and counts answers."""
    sock = client.connect()
    if os.fork() == 0:
        client.send(sock, client.request(client.message("origin.list")) * count)
        os._exit(0)
    reader, answers = client.Reader(sock), 0
    while answers < count and reader.answer()[0] == 200:
        answers += 1
    os.wait()
    return answers


@case("10,000 requests at once on one connection", "alice", "10,000 answers")
def pipelined():
    caller = Running(ALICE, pipeline, PIPELINED)
    host.bob_goes_on()
    answers = caller.result()
    caller.end()
    return f"{answers:,} answers"


# How slow callers are held in the long run: beyond the 10 s that a body may take.
SLOW_S = 13


def drip(kinds, seconds):
    """Sends a byte of each request every now and then; after how long, and how, each kind was ended."""
    heads = {"head": b"POST / HTTP/1.1\r\nx: ", "body": b"POST / HTTP/1.1\r\ncontent-length: 9999\r\n\r\n"}
    begin, open_socks, ends = time.monotonic(), {}, {}
    for number in range(kinds):
        kind, sock = ("head", "body")[number % 2], client.connect()
        sock.sendall(heads[kind])
        open_socks[sock] = kind
    while open_socks and time.monotonic() < begin + seconds:
        for sock in select.select(list(open_socks), [], [], 0.2)[0]:
            kind = open_socks.pop(sock)
            ends.setdefault(kind, set()).add((client.Reader(sock).answer()[0], round(time.monotonic() - begin)))
        for sock in open_socks:
            client.send(sock, b"x")
    return ends, len(open_socks)


SLOW_ENDS = "closed after 5 s, HTTP 408 after 10 s"


@case("32 connections that send a head or a body byte by byte", "alice", SLOW_ENDS, long=True)
def loris():
    caller = Running(ALICE, drip, 32, SLOW_S)
    for _ in range(5):
        host.bob_goes_on()
        time.sleep(1)
    ends, left = caller.result()
    caller.end()
    figure(f"slow callers were ended: {ends}")
    if left or {status for status, _ in ends["head"]} != {0} or {status for status, _ in ends["body"]} != {408}:
        return f"{left} were not ended; {ends}"
    late = [seconds for _, seconds in ends["head"] if not 4 <= seconds <= 7]
    late += [seconds for _, seconds in ends["body"] if not 9 <= seconds <= 12]
    return f"ended after {late} s" if late else SLOW_ENDS


def frames(sent, then):
    """What comes back after raw frames: the outcome of an answer, or how the connection ended."""
    socket = WebSocket()
    client.send(socket.sock, sent)
    if then:
        return then(socket)
    for text in socket.texts():
        return client.outcome(text)
    return "closed"


def on_websocket(sent, then=None):
    return run_as(ALICE, frames, sent, then)


@case("a call in 1,000 fragments", "alice", "allowed")
def fragments():
    text = client.message("origin.list").encode().ljust(1000)
    pieces = [WebSocket.frame(text[:1], final=False)]
    pieces += [WebSocket.frame(text[at : at + 1], opcode=0, final=at == 999) for at in range(1, 1000)]
    return on_websocket(b"".join(pieces))


@case("fragments without an end", "alice", "-32007")
def endless_fragments():
    piece = bytes(64 << 10)
    return on_websocket(WebSocket.frame(piece, final=False) + WebSocket.frame(piece, opcode=0, final=False) * 8)


@case("a frame without a mask", "alice", "allowed")
def unmasked():
    return on_websocket(WebSocket.frame(client.message("origin.list"), masked=False))


@case("frames of kinds that there are not", "alice", "closed")
def unknown_kind():
    return ", ".join(sorted({on_websocket(WebSocket.frame("x", opcode=kind)) for kind in (3, 7, 11, 15)}))


@case("a ping of 70,000 bytes", "alice", "closed")
def long_ping():
    return on_websocket(WebSocket.frame(bytes(70_000), opcode=WebSocket.PING))


def pongs(socket):
    count = 0
    while count < PINGS and (frame := socket.read()):
        count += frame[0] == WebSocket.PONG
    return f"{count:,} pongs"


PINGS = 10_000


@case("10,000 pings", "alice", "10,000 pongs")
def pings():
    return on_websocket(WebSocket.frame(b"", opcode=WebSocket.PING) * PINGS, pongs)


@case("text that is not UTF-8 in a message", "alice", "-32700")
def bad_text():
    return on_websocket(WebSocket.frame(b"\xff\xfe"))


def until_closed(socket):
    begin = time.monotonic()
    socket.sock.settimeout(120)
    while socket.read() is not None:
        pass
    seconds = time.monotonic() - begin
    return "closed" if 55 <= seconds <= 100 else f"closed after {seconds:.0f} s"


@case("pings that are never answered", "alice", "closed", long=True)
def no_pong():
    return on_websocket(b"", until_closed)


# As many as one user's connections can have.
WATCHERS, SUBSCRIPTIONS = 30, 8
EVENTS = 10


def watch_and_never_read():
    sockets = [WebSocket() for _ in range(WATCHERS)]
    for socket in sockets:
        answers = [socket.ask("workspace.watch") for _ in range(SUBSCRIPTIONS)]
        if any("result" not in answer for answer in answers):
            raise AssertionError(answers)
    return None, sockets


def mount_often(point, count):
    for _ in range(count):
        host.unmount(host.create(point, ephemeral=True)["result"]["id"])


@case("240 subscriptions that are never read, and news for all of them", "alice", "others are served")
def deaf_watchers():
    point, process = host.directory(f"{GROUND}/w"), host.pid()
    before = host.memory_mib(process)
    with held_by(ALICE, watch_and_never_read):
        run_as(ALICE, mount_often, point, EVENTS)
        waited = host.bob_goes_on()
        grown = host.memory_mib(process) - before
    figure(f"{WATCHERS * SUBSCRIPTIONS} deaf watchers cost {grown} MiB, bob waited {waited * 1000:.0f} ms")
    return "others are served" if grown <= MEMORY_MIB else f"{grown} MiB more memory"


# What unread events of one user may cost at most: some hundred bytes each, at most 64 queued for a connection.
MEMORY_MIB = 32
