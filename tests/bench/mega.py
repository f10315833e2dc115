"""The tests' Mega server as a program, over the same repository, each answer delayed as by a distant network."""

import json
import os
import select
import subprocess
import urllib.request

import scorpio
import shell

PROGRAM = os.path.join(scorpio.BIN, "examples", "mega-server")
BUILD = "cargo build --release --example mega-server"
START_S = 120


class Server:
    """Answers `delay_ms` later than it could."""

    def __init__(self, base, repo, delay_ms):
        self.url = None
        with open(f"{base}/mega-server.log", "w", encoding="utf-8") as log:
            self.process = subprocess.Popen([PROGRAM, repo, "--delay", str(delay_ms)], stdout=subprocess.PIPE, stderr=log)
        if select.select([self.process.stdout], [], [], START_S)[0]:
            self.url = self.process.stdout.readline().decode().strip()
        if not self.url:
            self.process.kill()
            with open(f"{base}/mega-server.log", encoding="utf-8", errors="replace") as log:
                raise shell.Failed(f"the Mega server does not start: {log.read()[-600:]}")

    def requests(self):
        """All that were made of it so far."""
        try:
            with urllib.request.urlopen(f"{self.url}/control/counts", timeout=60) as answer:
                return sum(each["requests"] for each in json.load(answer)["requests"])
        except OSError as error:
            raise shell.Failed(f"the Mega server does not count: {error}") from None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
