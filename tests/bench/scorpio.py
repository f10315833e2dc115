"""A private Scorpio daemon over one origin, and what it counts."""

import fcntl
import json
import os
import re
import shutil
import socket
import subprocess
import threading
import time

import shell

PROJECT = os.path.realpath(os.path.join(os.path.dirname(__file__), "..", ".."))
BIN = os.path.join(os.environ.get("CARGO_TARGET_DIR", os.path.join(PROJECT, "target")), "release")
START_S = 30
STOP_S = 120

CONFIGURATION = """
[daemon]
socket = "{base}/scorpio.sock"
state_dir = "{base}/state"
cache_dir = "{base}/cache"
runtime_dir = "{base}/run"
[limits]
workspaces_per_user = 4096
workspaces_per_host = 4096
[auth]
mode = "static"
mount = ["*"]
[origin.repo]
{origin}
"""


def git_origin(repo):
    return f'kind = "git"\npath = "{repo}"'


def mega_origin(url):
    return f'kind = "mega"\nurl = "{url}"'


def refusal(base, origin):
    """Why this build does not take such an origin, or nothing."""
    path = f"{base}/check.toml"
    with open(path, "w", encoding="utf-8") as file:
        file.write(CONFIGURATION.format(base=base, origin=origin))
    done = subprocess.run([f"{BIN}/scorpiod", "--config", path, "config", "validate"], capture_output=True, check=False)
    return done.stderr.decode().strip() if done.returncode else None


class Daemon:
    """Started with an empty cache; ends with the `with` block, its mounts too."""

    def __init__(self, base, origin, keeper=None):
        os.mkdir(base)
        # A copy under a name of its own: a build must not replace it, nor anybody take it for the host's daemon.
        self.program = shutil.copy(f"{BIN}/scorpiod", f"{base}/scorpiod-bench")
        self.base, self.socket, self.keeper, self.process = base, f"{base}/scorpio.sock", keeper, None
        with open(f"{base}/scorpio.toml", "w", encoding="utf-8") as file:
            file.write(CONFIGURATION.format(base=base, origin=origin))
        self.start()

    def start(self):
        command, more = [self.program, "--config", f"{self.base}/scorpio.toml"], {}
        if self.keeper:
            command, more = self.keeper.handed_to(command)
        with open(f"{self.base}/log", "a", encoding="utf-8") as log:
            self.process = subprocess.Popen(command, stderr=log, stdout=log, **more)
        deadline = time.monotonic() + START_S
        while not self.answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                with open(f"{self.base}/log", encoding="utf-8") as log:
                    raise shell.Failed(f"scorpiod does not start: {log.read()[-2000:]}")
            time.sleep(0.002)

    def answers(self):
        try:
            with socket.socket(socket.AF_UNIX) as probe:
                probe.connect(self.socket)
            return True
        except OSError:
            return False

    def ctl(self, *args, user=None):
        command = [f"{BIN}/scorpioctl", "--socket", self.socket, "--json", *args]
        done = subprocess.run(command, capture_output=True, check=False, timeout=shell.LONGEST_S, **shell.dropped(user))
        if done.returncode:
            raise shell.Failed(f"scorpioctl {' '.join(args)}: {done.stderr.decode().strip()}")
        return json.loads(done.stdout or "null")

    def point(self, name, user):
        path = f"{self.base}/mnt/{name}"
        os.makedirs(path)
        os.chown(path, user, user)
        return path

    def mount(self, name, user=shell.USER, path="/"):
        """The mount point, and seconds until `scorpioctl` came back and until `ls` there did."""
        point = self.point(name, user)
        begin = time.perf_counter()
        self.ctl("mount", f"repo:{path}", point, user=user)
        took = time.perf_counter() - begin
        return point, took, took + shell.timed("ls >/dev/null", cwd=point, user=user)

    def stats(self):
        return self.ctl("stats")

    def requests(self):
        return sum(session["requests"] for session in self.stats()["sessions"].values())

    def fetched(self):
        return self.stats()["origins"]["repo"]["fetched"]

    def rss_anon(self):
        return rss_anon(self.process.pid)

    def stop(self):
        self.process.terminate()
        try:
            status = self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = f"none after {STOP_S} s"
        if status != 0:
            with open(f"{self.base}/log", encoding="utf-8", errors="replace") as log:
                raise shell.Failed(f"the daemon ended badly, status {status}: {log.read()[-2000:]}")

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind is None:
            self.stop()
        else:
            self.process.kill()
            self.process.wait()


def rss_anon(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return int(re.search(r"RssAnon:\s+(\d+)", file.read()).group(1)) * 1024


class Keeper:
    """As much of a service manager as keeps descriptors for the next process (sd_notify's FDSTORE)."""

    def __init__(self, place):
        self.path, self.kept = f"{place}/notify", []
        self.inbox = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.inbox.bind(self.path)
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self):
        while True:
            message, descriptors, *_ = socket.recv_fds(self.inbox, 65536, 64)
            words = dict(line.split("=", 1) for line in message.decode().splitlines() if "=" in line)
            if words.get("FDSTOREREMOVE") == "1":
                gone = [kept for kept in self.kept if kept[0] == words.get("FDNAME")]
                self.kept = [kept for kept in self.kept if kept not in gone]
                descriptors += [number for _, number in gone]
            elif words.get("FDSTORE") == "1":
                # High numbers: the low ones are where the next process wants them.
                self.kept += [(words["FDNAME"], fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 200)) for number in descriptors]
            for number in descriptors:
                os.close(number)

    def handed_to(self, command):
        """`command` as it must be started to find what is kept, and arguments for subprocess."""
        kept = list(self.kept)
        moves = " ".join(f"{3 + at}<&{number} {number}<&-" for at, (_, number) in enumerate(kept))
        environment = dict(os.environ, NOTIFY_SOCKET=self.path, FDSTORE="4096")
        script = 'exec "$@"'
        if kept:
            environment |= {"LISTEN_FDS": str(len(kept)), "LISTEN_FDNAMES": ":".join(name for name, _ in kept)}
            script = f'exec {moves}; export LISTEN_PID=$$; exec "$@"'
        return ["bash", "-c", script, "bash", *command], {"env": environment, "pass_fds": [number for _, number in kept]}
