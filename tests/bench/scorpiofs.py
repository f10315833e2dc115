"""ScorpioFS, from its published crate: one daemon over a Mega server, one writable job mount of `/`.

    cargo install scorpiofs --version 0.4.1 --locked --root target/peers    (its zstd-sys needs libclang-dev)
"""

import contextlib
import json
import os
import socket
import subprocess
import time
import urllib.request

import scorpio
import shell

VERSION = "0.4.1"
ROOT = os.path.join(os.environ.get("CARGO_TARGET_DIR", os.path.join(scorpio.PROJECT, "target")), "peers")
PROGRAM = os.environ.get("SCORPIOFS", os.path.join(ROOT, "bin", "scorpio"))
INSTALL = f"cargo install scorpiofs --version {VERSION} --locked --root {os.path.relpath(ROOT, scorpio.PROJECT)}"
# A mount of a tree that it lists first may take long; a server that is gone must not hold the run.
START_S = 60
MOUNT_S = 120
# It lists directories in the background, and advises to wait for it; so we do, so long at most.
READY_S = 60

CONFIGURATION = """
base_url = "{url}"
lfs_url = "{url}/lfs"
store_path = "{base}/store"
workspace = "{base}/workspace"
config_file = "{base}/config.toml"
antares_upper_root = "{base}/antares/upper"
antares_cl_root = "{base}/antares/cl"
antares_mount_root = "{base}/antares/mnt"
antares_state_file = "{base}/antares/state.toml"
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class ScorpioFs:
    """Its defaults, but for addresses and places."""

    def __init__(self, base, url):
        os.makedirs(f"{base}/antares")
        self.base, self.address = base, f"127.0.0.1:{free_port()}"
        with open(f"{base}/scorpio.toml", "w", encoding="utf-8") as file:
            file.write(CONFIGURATION.format(base=base, url=url))
        with open(f"{base}/log", "w", encoding="utf-8") as log:
            command = [PROGRAM, "-c", f"{base}/scorpio.toml", "--log-level", "warn", "--http-addr", self.address, "serve"]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=base)
        deadline = time.monotonic() + START_S
        while True:
            try:
                self.ask("GET", "/health", timeout=2)
                return
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise shell.Failed(f"ScorpioFS does not start: {self.complaint()}") from None
                time.sleep(0.02)

    def complaint(self):
        with open(f"{self.base}/log", encoding="utf-8", errors="replace") as log:
            return log.read()[-600:]

    def ask(self, method, path, body=None, timeout=MOUNT_S):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://{self.address}{path}", data, {"content-type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return json.load(answer)

    def mount(self, name, path="/"):
        """The mount point, and seconds until the call came back and until `ls` there did."""
        begin = time.perf_counter()
        try:
            made = self.ask("POST", "/antares/mounts", {"job_id": name, "path": path})
        except OSError as error:
            raise shell.Failed(f"ScorpioFS does not mount: {error}: {self.complaint()}") from None
        took = time.perf_counter() - begin
        point = made["mountpoint"]
        usable = took + shell.timed("ls >/dev/null", cwd=point, timeout=MOUNT_S)
        return point, took, usable, self.ready(made["mount_id"], begin)

    def ready(self, mount, begin):
        """Seconds until it says that the mount may be worked in, or nothing if it does not say so in time."""
        while time.perf_counter() < begin + READY_S:
            with contextlib.suppress(OSError):
                if self.ask("GET", f"/antares/mounts/{mount}/ready", timeout=10)["ready"]:
                    return time.perf_counter() - begin
            time.sleep(0.05)
        return None

    def rss_anon(self):
        return scorpio.rss_anon(self.process.pid)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
