"""blows.py STATE [--restart N] [--kill N] [--watchdog N] [--packages N --package FILE --later FILE] [--watchdog-s N]

Ends the daemon under the load again and again, by every way in which a successor follows, and waits each time until the successor
answers and every worker of the load goes on. `STATE/blows.json` then says what happened when. As root.
"""

import argparse
import itertools
import json
import os
import signal
import subprocess
import sys
import time

sys.dont_write_bytecode = True

import ledger

UNIT = "scorpio.service"
DROP_IN = "/run/systemd/system/scorpio.service.d/blows.conf"
CONNECTIONS = "/run/connections"
# For a package on an emulated machine under this load; elsewhere it takes a second.
PATIENCE_S = 900
# These end too seldom to be waited for.
NOT_AWAITED = {"build", "evict"}
# Of three kills two come when answers have been held back.
KILLS_OF_ONE_KIND = 3
# So long the load is left alone between two blows.
BETWEEN_S = 0.3
# A thread that reads the device holds an answer by then, and requests that nobody has read are queued.
HELD_REQUESTS = 4
HOLD_S = 10
# A thread that is stopped for longer is not stopped for a moment only, as each system call of a traced thread is.
STILL_S = 0.05


class Blows:
    def __init__(self, state, options):
        self.state, self.options = state, options
        self.done, self.kills = [], 0
        self.cold, self.requests = 0, {}
        self.connections = connections()
        self.mark = self.asked_and_cold()

    def one(self, kind):
        run("systemctl", "reset-failed", UNIT)
        self.account()
        blow = {"kind": kind, "begin": time.monotonic()}
        pid = main_pid()
        getattr(self, kind)(pid, blow)
        while main_pid() in (0, pid) or run("scorpioctl", "health", check=False).returncode != 0:
            in_time(blow["at"], "the service does not come back")
            time.sleep(0.02)
        blow["back"] = time.monotonic()
        self.done.append(blow)
        self.mark = self.asked_and_cold()
        self.settle(blow["back"])

    def settle(self, since):
        """Until every worker has ended one operation that it may have begun before, and another one."""
        before = ledger.beats(self.state)
        while True:
            now = ledger.beats(self.state)
            slow = [name for name in before if now[name][0] < before[name][0] + 2 and name not in NOT_AWAITED]
            if not slow and time.monotonic() > since + BETWEEN_S:
                return
            in_time(since, f"{slow} do not go on")
            time.sleep(0.02)

    def account(self):
        """Adds up what was asked, and what was cold, since the mark: while one daemon served, which takes its counters with it."""
        cold = self.cold_operations()
        requests, (requests_before, cold_before) = asked(), self.mark
        self.cold += cold - cold_before
        for opcode, count in requests.items():
            more = count - requests_before.get(opcode, 0)
            self.requests[opcode] = self.requests.get(opcode, 0) + more

    def asked_and_cold(self):
        requests = asked()
        return requests, self.cold_operations()

    def cold_operations(self):
        return sum(cold for _, cold in ledger.beats(self.state).values())

    def restart(self, _pid, blow):
        blow["at"] = time.monotonic()
        run("systemctl", "restart", UNIT)

    def kill(self, pid, blow):
        self.kills += 1
        if self.kills % KILLS_OF_ONE_KIND == 0:
            blow["at"] = time.monotonic()
            os.kill(pid, signal.SIGKILL)
            blow["waiting"] = self.waiting()
            return
        # No answer is written any more, so that requests which the daemon has read are unanswered when it is killed.
        inject = f"inject=writev:delay_enter={(HOLD_S + 2) * 1_000_000}"
        words = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=writev", "-e", inject, "-p", str(pid)]
        with subprocess.Popen(words, stderr=subprocess.DEVNULL) as holder:
            until = time.monotonic() + HOLD_S
            # Requests may wait before the tracer is there, if the machine is slow.
            while not (holds(pid) and self.waiting() >= HELD_REQUESTS) and time.monotonic() < until:
                time.sleep(0.002)
            blow["waiting"] = self.waiting()
            blow["at"] = time.monotonic()
            os.kill(pid, signal.SIGKILL)
            # A thread that is traced is not gone before its tracer says so.
            holder.kill()

    def waiting(self):
        """How many requests the kernel has no answer to."""
        total = 0
        for connection in self.connections:
            with open(f"{CONNECTIONS}/{connection}/waiting", encoding="ascii") as file:
                total += int(file.read())
        return total

    def watchdog(self, pid, blow):
        told = watchdog_entries()
        blow["at"] = time.monotonic()
        os.kill(pid, signal.SIGSTOP)
        while main_pid() == pid:
            in_time(blow["at"], "the watchdog sleeps")
            time.sleep(0.05)
        if watchdog_entries() == told:
            raise SystemExit("it was not the watchdog that ended the daemon")

    def upgrade(self, _pid, blow):
        self.install(self.options.later, blow)

    def downgrade(self, _pid, blow):
        self.install(self.options.package, blow)

    def install(self, package, blow):
        blow["at"] = time.monotonic()
        run("dpkg", "-i", package)
        version = run("dpkg-deb", "-f", package, "Version").stdout
        if run("dpkg-query", "-W", "-f", "${Version}\n", "scorpio").stdout != version:
            raise SystemExit(f"{package} was not installed")

    def hungry_watchdog(self, seconds):
        """The watchdog's patience from the next start on; 0 for the unit's own."""
        if seconds:
            os.makedirs(os.path.dirname(DROP_IN), exist_ok=True)
            with open(DROP_IN, "w", encoding="ascii") as file:
                file.write(f"[Service]\nWatchdogSec={seconds}\n")
        else:
            os.unlink(DROP_IN)
        run("systemctl", "daemon-reload")

    def save(self):
        with open(os.path.join(self.state, "blows.json"), "w", encoding="utf-8") as file:
            json.dump({"blows": self.done, "cold": self.cold, "requests": self.requests}, file)


def run(*words, check=True):
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=PATIENCE_S)
    if check and done.returncode != 0:
        raise SystemExit(f"{' '.join(words)} ended with {done.returncode}: {done.stdout}")
    return done


def in_time(since, complaint):
    if time.monotonic() > since + PATIENCE_S:
        raise SystemExit(complaint)


def main_pid():
    return int(run("systemctl", "show", "-P", "MainPID", UNIT).stdout)


def asked():
    """How often the daemon was asked for what, by all sessions, since it started; what has no answer is no question."""
    total = {}
    for session in json.loads(run("scorpioctl", "--json", "stats").stdout)["sessions"].values():
        for opcode, count in session["by_opcode"].items():
            if opcode not in ("FORGET", "BATCH_FORGET", "INTERRUPT"):
                total[opcode] = total.get(opcode, 0) + count
    return total


def holds(pid):
    """Whether a thread of this process is held by its tracer."""
    stopped = stopped_threads(pid)
    if stopped:
        time.sleep(STILL_S)
    return bool(stopped & stopped_threads(pid))


def stopped_threads(pid):
    """Threads that a tracer has stopped."""
    stopped = set()
    for thread in os.listdir(f"/proc/{pid}/task"):
        try:
            with open(f"/proc/{pid}/task/{thread}/stat", encoding="utf-8") as file:
                if file.read().rsplit(")", 1)[1].split()[0] == "t":
                    stopped.add(thread)
        except (FileNotFoundError, ProcessLookupError):  # it may end meanwhile
            pass
    return stopped


def watchdog_entries():
    return run("journalctl", "-u", UNIT, "-o", "cat", "--no-pager").stdout.count("Watchdog timeout")


def connections():
    """The numbers of the kernel's FUSE connections to the daemon."""
    with open("/proc/self/mountinfo", encoding="utf-8") as table:
        return [line.split(" ")[2].split(":")[1] for line in table if " - fuse.scorpio " in line]


def plan(options):
    """The kinds take turns. The watchdog's come last, between restarts that make it hungry and patient again."""
    kinds = [["restart"] * (options.restart - (2 if options.watchdog else 0)), ["kill"] * options.kill]
    kinds.append(["upgrade", "downgrade"] * options.packages)
    return [blow for turn in itertools.zip_longest(*kinds) for blow in turn if blow]


def main():
    words = argparse.ArgumentParser()
    words.add_argument("state")
    for name in ("--restart", "--kill", "--watchdog", "--packages"):
        words.add_argument(name, type=int, default=0)
    words.add_argument("--watchdog-s", type=int, default=2)
    words.add_argument("--package")
    words.add_argument("--later")
    options = words.parse_args()
    blows = Blows(options.state, options)
    try:
        all_of_them(blows, options)
    finally:
        blows.save()


def all_of_them(blows, options):
    for kind in plan(options):
        blows.one(kind)
    if options.watchdog:
        blows.hungry_watchdog(options.watchdog_s)
        try:
            blows.one("restart")
            for _ in range(options.watchdog):
                blows.one("watchdog")
        finally:
            blows.hungry_watchdog(0)
        blows.one("restart")
    blows.account()


if __name__ == "__main__":
    main()
