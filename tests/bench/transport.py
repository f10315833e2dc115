#!/usr/bin/env python3
"""What a call of the control socket costs, and what other ways of calling would: the figures of docs/decisions/transport.md.

    cargo build --release --bins
    tests/bench/transport.py [--calls N]

Needs root and dbus-daemon. Every way is one client in Python over a Unix socket, `whoami` for Scorpio and the nearest to
nothing for the others, so what is compared is the transport. Median and 99th percentile, all ways in turns in one run.
"""

import argparse
import base64
import json
import os
import shutil
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True

import scorpio
import shell

TURNS = 5
CALL = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "whoami"}).encode()
ECHO = """
import os, socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
connection, _ = listener.accept()
while data := connection.recv(65536):
    connection.sendall(data)
"""


def connected(path):
    deadline = time.monotonic() + 10
    while True:
        client = socket.socket(socket.AF_UNIX)
        try:
            client.connect(path)
            return client
        except OSError:
            client.close()
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def until(client, enough):
    data = b""
    while not enough(data):
        more = client.recv(65536)
        if not more:
            raise shell.Failed("the connection was closed")
        data += more
    return data


def whole_answer(data):
    head, found, body = data.partition(b"\r\n\r\n")
    if not found:
        return False
    length = next(int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
    return len(body) >= length


def http(client):
    client.sendall(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(CALL), CALL))
    if b'"result"' not in until(client, whole_answer):
        raise shell.Failed("not an answer")


def http_each(path):
    with connected(path) as client:
        http(client)


def websocket(path):
    client = connected(path)
    key = base64.b64encode(os.urandom(16)).decode()
    client.sendall(("GET / HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\n"
                    f"sec-websocket-key: {key}\r\n\r\n").encode())
    if b" 101 " not in until(client, lambda data: data.endswith(b"\r\n\r\n")):
        raise shell.Failed("no WebSocket")
    return client


def framed(client):
    mask = os.urandom(4)
    body = bytes(byte ^ mask[at % 4] for at, byte in enumerate(CALL))
    client.sendall(bytes([0x81, 0x80 | len(body)]) + mask + body)
    # Answers of this call are between 126 bytes and 64 KiB, or shorter.
    def enough(data):
        if len(data) < 4:
            return False
        short = data[1] < 126
        return len(data) >= (2 + data[1] if short else 4 + struct.unpack(">H", data[2:4])[0])
    until(client, enough)


def bus_message(serial, member):
    """A method call to the bus itself, without arguments."""
    def field(code, kind, text):
        raw = struct.pack("<BB", code, 1) + kind + b"\0" + struct.pack("<I", len(text)) + text + b"\0"
        return raw + b"\0" * (-len(raw) % 8)
    fields = b"".join([field(1, b"o", b"/org/freedesktop/DBus"), field(2, b"s", b"org.freedesktop.DBus"),
                       field(3, b"s", member), field(6, b"s", b"org.freedesktop.DBus")])
    return struct.pack("<BBBBIII", ord("l"), 1, 0, 1, 0, serial, len(fields.rstrip(b"\0")) + 1) + fields


def bus_call(client, serial, member):
    client.sendall(bus_message(serial, member))
    data = b""
    while True:
        more = client.recv(65536)
        if not more:
            raise shell.Failed("the bus closed the connection")
        data += more
        while len(data) >= 16:
            body, _, fields = struct.unpack("<III", data[4:16])
            size = 16 + fields + (-fields % 8) + body
            if len(data) < size:
                break
            kind, data = data[1], data[size:]
            if kind in (2, 3):  # an answer or an error; signals are passed over
                if kind == 3:
                    raise shell.Failed("the bus refused a call")
                return


def bus(path):
    client = connected(path)
    client.sendall(b"\0AUTH EXTERNAL " + str(os.getuid()).encode().hex().encode() + b"\r\n")
    until(client, lambda data: data.endswith(b"\r\n"))
    client.sendall(b"BEGIN\r\n")
    bus_call(client, 1, b"Hello")
    return client


def measured(ways, calls):
    samples = {name: [] for name in ways}
    for _ in range(TURNS):
        for name, call in ways.items():
            for _ in range(calls):
                begin = time.perf_counter()
                call()
                samples[name].append((time.perf_counter() - begin) * 1e6)
    return samples


def start_bus(base):
    with open(f"{base}/bus.conf", "w", encoding="ascii") as file:
        file.write(f'<busconfig><listen>unix:path={base}/bus</listen><auth>EXTERNAL</auth><policy context="default">'
                   '<allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/></policy></busconfig>')
    return subprocess.Popen(["dbus-daemon", "--nofork", f"--config-file={base}/bus.conf"], stderr=subprocess.DEVNULL)


def compare(base, calls):
    echo = subprocess.Popen([sys.executable, "-c", ECHO, f"{base}/echo"])
    broker = start_bus(base)
    try:
        subprocess.run(["git", "init", "-q", "--bare", f"{base}/repo.git"], check=True)
        with scorpio.Daemon(f"{base}/daemon", scorpio.git_origin(f"{base}/repo.git")) as daemon:
            bare, kept, socketed, dbus = connected(f"{base}/echo"), connected(daemon.socket), websocket(daemon.socket), bus(f"{base}/bus")
            serial = iter(range(2, 1 << 31))
            def there_and_back():
                bare.sendall(CALL)
                bare.recv(65536)
            ways = {"bytes there and back, a process that echoes": there_and_back,
                    "`whoami`, HTTP, one connection": lambda: http(kept),
                    "`whoami`, HTTP, a connection for each call": lambda: http_each(daemon.socket),
                    "`whoami`, WebSocket": lambda: framed(socketed),
                    "D-Bus, `GetId` of dbus-daemon itself": lambda: bus_call(dbus, next(serial), b"GetId"),
                    "`scorpioctl whoami`, the whole process": lambda: daemon.ctl("whoami")}
            samples = measured(dict(list(ways.items())[:-1]), calls)
            return samples | measured(dict(list(ways.items())[-1:]), max(1, calls // 50))
    finally:
        for process in (echo, broker):
            process.kill()
            process.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=1000)
    options = parser.parse_args()
    base = tempfile.mkdtemp(prefix="scorpio-transport.", dir="/var/tmp")
    try:
        samples = compare(base, options.calls)
    except shell.Failed as failed:
        sys.exit(f"failed: {failed}")
    finally:
        shutil.rmtree(base, ignore_errors=True)
    print("| | median, µs | 99th percentile, µs |\n|---|---|---|")
    for name, times in samples.items():
        print(f"| {name} | {statistics.median(times):.0f} | {statistics.quantiles(times, n=100)[98]:.0f} |")


if __name__ == "__main__":
    main()
