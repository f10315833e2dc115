"""What a worker of the load keeps outside of the mounts: its operations by kind, those that took long, what failed.

Files in the directory of the load (`state`), one of each for every worker:

    NAME.beat    two numbers: how many operations have ended, and how many of those were cold; they grow while it goes on
    NAME.log     what must be found in the mount at the end, a line of JSON each (writers and the database)
    NAME.json    counts, slow operations and failures, written when the worker ends
    on           as long as it is there, workers go on
"""

import contextlib
import json
import mmap
import os
import random
import struct
import sys
import time
import traceback

# Operations from this length on are told one by one, with their times.
SLOW_S = 0.010
# As BEAT is written.
BEAT = struct.Struct("<QQ")
# A worker to which everything fails need not say it more often.
MOST_FAILURES = 50
# Between two operations: sixteen workers and a build leave two processors time to see how long anything waits.
REST_S = 0.020


class Ledger:
    def __init__(self, state, name):
        self.state, self.name = state, name
        self.kinds, self.slow, self.failures = {}, [], []
        self.ended = self.cold = 0
        file = os.open(self.path("beat"), os.O_RDWR | os.O_CREAT, 0o644)
        os.ftruncate(file, BEAT.size)
        self.beat = mmap.mmap(file, BEAT.size)
        os.close(file)
        self.log = open(self.path("log"), "w", encoding="utf-8")

    def path(self, suffix):
        return os.path.join(self.state, f"{self.name}.{suffix}")

    def goes_on(self):
        return os.path.exists(os.path.join(self.state, "on"))

    @contextlib.contextmanager
    def operation(self, kind, cold=False, is_long=False):
        """Counts what is done inside. `cold`: the daemon must be asked. `is_long`: its length says nothing."""
        begin = time.monotonic()
        try:
            yield
        finally:
            end = time.monotonic()
            counts = self.kinds.setdefault(kind, [0, 0])
            counts[0] += 1
            counts[1] += cold
            if end - begin >= SLOW_S and not is_long:
                self.slow.append((kind, begin, end))
            self.count(cold)

    def note(self, **line):
        """Something that has been acknowledged."""
        self.log.write(json.dumps(line) + "\n")
        self.log.flush()

    def count(self, cold):
        self.ended, self.cold = self.ended + 1, self.cold + cold
        BEAT.pack_into(self.beat, 0, self.ended, self.cold)

    def failed(self):
        # Wherever it failed: this worker is not stuck.
        self.count(cold=False)
        if len(self.failures) < MOST_FAILURES:
            self.failures.append(traceback.format_exc())

    def close(self):
        self.log.close()
        with open(self.path("json"), "w", encoding="utf-8") as file:
            json.dump({"kinds": self.kinds, "slow": self.slow, "failures": self.failures}, file)


def work(ledger, steps, rest=REST_S):
    """Takes steps, `{function: weight}`, at random until the load is over."""
    chosen = random.Random(ledger.name)
    functions, weights = list(steps), list(steps.values())
    while ledger.goes_on():
        try:
            chosen.choices(functions, weights)[0]()
        except Exception:
            ledger.failed()
        time.sleep(rest)


def beats(state):
    """How many operations each worker has ended, and how many of them were cold."""
    counts = {}
    for file in os.listdir(state):
        if file.endswith(".beat"):
            with open(os.path.join(state, file), "rb") as beat:
                counts[file.removesuffix(".beat")] = BEAT.unpack(beat.read().ljust(BEAT.size, b"\0"))
    return counts


def main(worker):
    """Runs `worker(ledger, ARGUMENTS...)`, of which nothing is lost when it fails as a whole."""
    ledger = Ledger(*sys.argv[1:3])
    try:
        worker(ledger, *sys.argv[3:])
    except Exception:
        ledger.failed()
    ledger.close()
