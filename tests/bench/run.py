#!/usr/bin/env python3
"""Measures Scorpio beside native ext4 and kernel overlayfs on ext4, all in one run, and prints Markdown.

    tests/bench/run.py [--repo REPOSITORY | --linux] [--rounds N] [--make 'COMMAND'] [--raw FILE]

Needs root, and a release build (cargo build --release). --linux makes a repository from Debian's linux-source package
(installing it if it is missing: some 140 MB, 80,000 files). Peers are measured in turns, round by round; a ratio is that
of the minima, the spread is maximum over minimum. Raw samples go to --raw as JSON.
"""

import argparse
import contextlib
import glob
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time

PEERS = ["native", "overlay", "scorpio"]
USER = 61001
PROJECT = os.path.realpath(os.path.join(os.path.dirname(__file__), "..", ".."))
BIN = os.path.join(os.environ.get("CARGO_TARGET_DIR", os.path.join(PROJECT, "target")), "release")


def sh(script, cwd=None, user=None, quiet=True):
    """Runs a script, which must succeed; seconds it took."""
    drop = {"user": user, "group": user, "extra_groups": []} if user else {}
    environment = dict(os.environ, HOME="/nonexistent", GIT_CONFIG_GLOBAL="/dev/null", GIT_CONFIG_COUNT="1",
                       GIT_CONFIG_KEY_0="safe.directory", GIT_CONFIG_VALUE_0="*", LC_ALL="C")
    begin = time.perf_counter()
    done = subprocess.run(["bash", "-euc", script], cwd=cwd, env=environment, stdout=subprocess.PIPE if quiet else None,
                          stderr=subprocess.PIPE, **drop)
    took = time.perf_counter() - begin
    if done.returncode != 0:
        sys.exit(f"failed: {script}\n{done.stderr.decode(errors='replace')}")
    return took


def out(script, cwd=None):
    return subprocess.run(["bash", "-euc", script], cwd=cwd, check=True, stdout=subprocess.PIPE).stdout.decode()


class Scorpio:
    """A private daemon."""

    def __init__(self, base, repo):
        self.base, self.socket = base, f"{base}/scorpio.sock"
        with open(f"{base}/scorpio.toml", "w") as file:
            file.write(f"""
                [daemon]
                socket = "{self.socket}"
                state_dir = "{base}/state"
                cache_dir = "{base}/cache"
                runtime_dir = "{base}/run"
                [auth]
                mode = "static"
                mount = ["{USER}"]
                [origin.repo]
                kind = "git"
                path = "{repo}"
            """)
        log = open(f"{base}/log", "w")
        self.process = subprocess.Popen([f"{BIN}/scorpiod", "--config", f"{base}/scorpio.toml"], stderr=log, stdout=log)
        while subprocess.run([f"{BIN}/scorpioctl", "--socket", self.socket, "health"], capture_output=True).returncode:
            if self.process.poll() is not None:
                sys.exit(open(f"{base}/log").read())
            time.sleep(0.02)

    def ctl(self, *args, user=None):
        drop = {"user": user, "group": user, "extra_groups": []} if user else {}
        done = subprocess.run([f"{BIN}/scorpioctl", "--socket", self.socket, "--json", *args], capture_output=True, **drop)
        if done.returncode:
            sys.exit(f"scorpioctl {args}: {done.stderr.decode()}")
        return json.loads(done.stdout or "null")

    def mount(self, name):
        point = f"{self.base}/mnt/{name}"
        os.makedirs(point)
        os.chown(point, USER, USER)
        begin = time.perf_counter()
        self.ctl("mount", "repo:/", point, user=USER)
        took = time.perf_counter() - begin
        return point, took, took + sh("ls", cwd=point, user=USER)

    def requests(self):
        return sum(session["requests"] for session in self.ctl("stats")["sessions"].values())

    def rss_anon(self):
        with open(f"/proc/{self.process.pid}/status") as file:
            return int(re.search(r"RssAnon:\s+(\d+)", file.read()).group(1)) * 1024

    def stop(self):
        self.process.terminate()
        self.process.wait(60)


def slab():
    """Bytes of kernel slab in the caches that a walk fills."""
    total = {}
    with open("/proc/slabinfo") as file:
        for line in list(file)[2:]:
            name, _, objects, size = line.split()[:4]
            if name in ("fuse_inode", "ovl_inode", "dentry"):
                total[name] = int(objects) * int(size)
    return total


def linux_repository(base):
    if not glob.glob("/usr/src/linux-source-*.tar.xz"):
        sh("apt-get update -qq; DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends linux-source xz-utils")
    archive = sorted(glob.glob("/usr/src/linux-source-*.tar.xz"))[-1]
    repo = f"{base}/linux"
    sh(f"mkdir {repo} && tar -xf {archive} --strip-components=1 -C {repo} && cd {repo} && git init -q -b main . && git add -A -f"
       " && git -c user.name=b -c user.email=b@invalid -c gc.auto=0 commit -qm linux && git repack -qad")
    bare = f"{base}/linux.git"
    sh(f"git clone -q --bare {repo} {bare} && rm -rf {repo}")
    return bare


def prepare(base, repo, scorpio):
    """One writable tree per peer, all from the same commit."""
    trees = {}
    native, lower = f"{base}/native", f"{base}/lower"
    for tree in (native, lower):
        os.mkdir(tree)
        sh(f"git -C {repo} archive HEAD | tar -x -C {tree}; chown -R {USER}:{USER} {tree}")
    trees["native"] = native
    overlay = {name: f"{base}/overlay/{name}" for name in ("upper", "work", "merged")}
    for path in overlay.values():
        os.makedirs(path)
        os.chown(path, USER, USER)
    sh(f"mount -t overlay bench -o lowerdir={lower},upperdir={overlay['upper']},workdir={overlay['work']},"
       f"metacopy=on,redirect_dir=on,index=off,xino=on,nosuid,nodev {overlay['merged']}")
    trees["overlay"] = overlay["merged"]
    trees["scorpio"] = scorpio.mount("main")[0]
    for tree in trees.values():
        sh(f"git clone -q --no-checkout --shared {repo} .tmp && mv .tmp/.git .git && rmdir .tmp"
           " && git reset -q && git status --porcelain | (! grep .)", cwd=tree, user=USER)
    return trees


def tests(make):
    small = "find . -path ./.git -prune -o -type f -size -32k -print0 | sort -z | head -zn 10000 | xargs -0 cat >/dev/null"
    named = [
        ("`find`, warm", "find . >/dev/null", 5),
        ("`find -ls`, warm", "find . -ls >/dev/null", 5),
        ("read 10,000 small files, warm", small, 3),
        ("`git status`, warm", "git status >/dev/null", 5),
        ("create 5,000 files of 1 KiB and delete them",
         "mkdir .b; for i in {1..5000}; do echo \"$REPLY\" >.b/$i; done; rm -r .b", 3),
        ("rename a directory of the commit there and back",
         "d=$(find . -mindepth 1 -maxdepth 1 -type d ! -name .git | sort | head -n 1); for i in {1..50}; do mv $d .x; mv .x $d; done", 3),
    ]
    if make:
        named.append((f"`{make}`", make, 1))
    return named


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repo", default=PROJECT)
    parser.add_argument("--linux", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--make", default="")
    parser.add_argument("--raw")
    options = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("this mounts: run it as root")
    if not os.path.exists(f"{BIN}/scorpiod"):
        sys.exit("build first: cargo build --release")
    base = tempfile.mkdtemp(prefix="scorpio-bench.", dir="/var/tmp")
    os.chmod(base, 0o755)
    scorpio = None
    try:
        repo = linux_repository(base) if options.linux else os.path.realpath(options.repo)
        scorpio = Scorpio(base, repo)
        measure(base, repo, scorpio, options)
    finally:
        if scorpio:
            scorpio.stop()
        with contextlib.suppress(Exception):
            subprocess.run(["umount", "-l", f"{base}/overlay/merged"], stderr=subprocess.DEVNULL)
        shutil.rmtree(base, ignore_errors=True)


def measure(base, repo, scorpio, options):
    raw = {"mount": [], "samples": {}, "requests": {}}
    files = int(out(f"git -C {repo} ls-tree -r HEAD | wc -l"))
    cold_mount = scorpio.mount("first")
    raw["mount"] = [scorpio.mount(f"more-{n}")[1:] for n in range(20)]
    cold = {}
    before, rss, kernel = scorpio.requests(), scorpio.rss_anon(), slab()
    cold["walk"] = sh("find . -ls >/dev/null", cwd=cold_mount[0], user=USER)
    walked = {"requests": scorpio.requests() - before, "rss": scorpio.rss_anon(), "slab": slab()}
    before = scorpio.requests()
    sh("find . -ls >/dev/null", cwd=cold_mount[0], user=USER)
    walked["again"] = scorpio.requests() - before
    trees = prepare(base, repo, scorpio)
    for name, script, _ in tests(options.make):
        for tree in trees.values():
            sh(script, cwd=tree, user=USER)
    for turn in range(options.rounds):
        for name, script, times in tests(options.make):
            for peer in PEERS[turn % 3:] + PEERS[:turn % 3]:
                before = scorpio.requests()
                samples = [sh(script, cwd=trees[peer], user=USER) for _ in range(times)]
                raw["samples"].setdefault(name, {}).setdefault(peer, []).extend(samples)
                if peer == "scorpio":
                    raw["requests"].setdefault(name, []).append((scorpio.requests() - before) / times)
    if options.raw:
        with open(options.raw, "w") as file:
            json.dump(raw, file, indent=1)
    report(raw, files, cold_mount, cold, walked, rss, kernel)


def report(raw, files, cold_mount, cold, walked, rss, kernel):
    missing = [peer for samples in raw["samples"].values() for peer in PEERS if not samples.get(peer)]
    if missing:
        sys.exit(f"no samples of {missing}")
    uname = os.uname()
    print(f"Kernel {uname.release}, {os.cpu_count()} cores, {files:,} files.\n")
    mounts = sorted(took for took, _ in raw["mount"])
    until_ls = sorted(took for _, took in raw["mount"])
    middle = len(mounts) // 2
    print("| mount | |\n|---|---|")
    print(f"| first mount of the commit (whole `scorpioctl` process) | {cold_mount[1] * 1000:.0f} ms |")
    print(f"| and until `ls` there has answered | {cold_mount[2] * 1000:.0f} ms |")
    print(f"| 20 further mounts, median (least, most) | {mounts[middle] * 1000:.0f} ms ({mounts[0] * 1000:.0f}, {mounts[-1] * 1000:.0f}) |")
    print(f"| and until `ls` there has answered, median | {until_ls[middle] * 1000:.0f} ms |")
    print("\n| cold walk (`find -ls`, empty cache) | |\n|---|---|")
    print(f"| time | {cold['walk']:.2f} s |")
    print(f"| requests to the daemon | {walked['requests']:,} |")
    print(f"| requests of a second walk | {walked['again']:,} |")
    print(f"| RssAnon before, after | {rss / 2**20:.1f} MiB, {walked['rss'] / 2**20:.1f} MiB |")
    for name in sorted(kernel):
        print(f"| slab `{name}` before, after | {kernel[name] / 2**20:.1f} MiB, {walked['slab'][name] / 2**20:.1f} MiB |")
    print("\n| | native, s | overlay / native | scorpio / native | scorpio / overlay | requests to the daemon |\n|---|---|---|---|---|---|")
    for name, samples in raw["samples"].items():
        least = {peer: min(samples[peer]) for peer in PEERS}
        spread = {peer: max(samples[peer]) / least[peer] for peer in PEERS}
        requests = max(raw["requests"][name])
        print(f"| {name} | {least['native']:.3f} (×{spread['native']:.2f}) | {least['overlay'] / least['native']:.2f} (×{spread['overlay']:.2f})"
              f" | {least['scorpio'] / least['native']:.2f} (×{spread['scorpio']:.2f}) | {least['scorpio'] / least['overlay']:.2f} | {requests:,.0f} |")


main()
