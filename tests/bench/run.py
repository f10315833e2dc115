#!/usr/bin/env python3
"""Measures Scorpio beside native ext4 and kernel overlayfs on ext4, all in one run, and prints Markdown.

    tests/bench/run.py [--repo REPOSITORY | --linux] [--rounds N] [--make 'COMMAND'] [--raw FILE]

Needs root, and a release build (cargo build --release). --linux makes a repository from Debian's linux-source package
(installing it if it is missing: some 140 MB, 80,000 files). Every daemon is a private one over a bare clone of the
repository, and everything lies in one new directory below /var/tmp, removed at the end.

Cold passes run once each, with an empty cache and a new daemon, and no peer: native and overlay have nothing to fetch.
Warm tests run in all peers in turns, round by round; a ratio is that of the minima, the spread is maximum over minimum.
A peer that has no sample fails the run. Raw samples go to --raw as JSON.
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
    environment = dict(os.environ, HOME="/nonexistent", LC_ALL="C")
    begin = time.perf_counter()
    done = subprocess.run(["bash", "-euc", script], cwd=cwd, env=environment, stdout=subprocess.PIPE if quiet else None,
                          stderr=subprocess.PIPE, **drop)
    took = time.perf_counter() - begin
    if done.returncode != 0:
        sys.exit(f"failed in {cwd}: {script}\n{done.stderr.decode(errors='replace')}")
    return took


def out(script, cwd=None):
    return subprocess.run(["bash", "-euc", script], cwd=cwd, check=True, stdout=subprocess.PIPE).stdout.decode()


class Scorpio:
    """A private daemon."""

    def __init__(self, base, repo):
        os.mkdir(base)
        # A copy under a name of its own: a build must not replace it, nor anybody take it for the host's daemon.
        program = shutil.copy(f"{BIN}/scorpiod", f"{base}/scorpiod-bench")
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
        self.process = subprocess.Popen([program, "--config", f"{base}/scorpio.toml"], stderr=log, stdout=log)
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
        if self.process.wait(60) != 0:
            sys.exit(f"the daemon ended badly, see {self.base}/log")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


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
    return repo


def bare_clone(base, source):
    """A repository that holds still, owned by us, whatever the other one is."""
    sh(f"git clone -q --bare --no-local {source} {base}/repo.git")
    return f"{base}/repo.git"


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


READ_ALL = "find . -type f -print0 | xargs -0 -n 500 -P {} cat >/dev/null"


def tests(make):
    small = "find . -path ./.git -prune -o -type f -size -32k -print0 | sort -z | head -zn 10000 | xargs -0 cat >/dev/null"
    large = "find . -path ./.git -prune -o -type f -size +256k -print0 | sort -z | xargs -0 cat >/dev/null"
    named = [
        ("`find`, warm", "find . >/dev/null", 5),
        ("`find -ls`, warm", "find . -ls >/dev/null", 5),
        ("read up to 10,000 files below 32 KiB, warm", small, 3),
        ("read all files above 256 KiB, warm", large, 3),
        ("`git status`, warm", "git status >/dev/null", 5),
        ("create 5,000 small files and delete them",
         "mkdir .b; for i in {1..5000}; do echo content >.b/$i; done; rm -r .b", 3),
        ("rename a directory of the commit there and back, 50 times",
         "d=$(find . -mindepth 1 -maxdepth 1 -type d ! -name .git | sort | head -n 1);"
         " for i in {1..50}; do mv $d .x; mv .x $d; done", 3),
    ]
    if make:
        named.append((f"`{make}`", make, 1))
    return named


def cold_walk_and_read(base, repo):
    """One user walks the whole tree, again, then one reader reads all files. All on an empty cache."""
    with Scorpio(f"{base}/cold-1", repo) as scorpio:
        facts = {"slab_idle": slab(), "rss_idle": scorpio.rss_anon()}
        point, facts["mount"], facts["until_ls"] = scorpio.mount("main")

        def step(name, script):
            before = scorpio.requests()
            facts[name] = {"seconds": sh(script, cwd=point, user=USER)}
            facts[name] |= {"requests": scorpio.requests() - before, "rss": scorpio.rss_anon(), "slab": slab()}
        step("walk", "find . -ls >/dev/null")
        step("again", "find . -ls >/dev/null")
        step("read", READ_ALL.format(1))
        step("read_again", READ_ALL.format(1))
        time.sleep(15)  # longer than idle threads are kept
        facts["rss_later"] = scorpio.rss_anon()
    return facts


def cold_readers(base, repo):
    """Eight readers at once read all files of a tree that nobody has walked before."""
    with Scorpio(f"{base}/cold-8", repo) as scorpio:
        point, mount, until_ls = scorpio.mount("main")
        before = scorpio.requests()
        facts = {"mount": mount, "until_ls": until_ls, "seconds": sh(READ_ALL.format(8), cwd=point, user=USER)}
        return facts | {"requests": scorpio.requests() - before, "rss": scorpio.rss_anon()}


def warm(base, repo, rounds, make):
    """All tests in all peers, and further mounts of a commit that is here."""
    facts = {"mounts": [], "samples": {}, "requests": {}}
    with Scorpio(f"{base}/main", repo) as scorpio, contextlib.ExitStack() as undo:
        undo.callback(lambda: subprocess.run(["umount", "-l", f"{base}/overlay/merged"], stderr=subprocess.DEVNULL))
        trees = prepare(base, repo, scorpio)
        facts["mounts"] = [scorpio.mount(f"more-{n}")[1:] for n in range(20)]
        for _, script, _ in tests(make):
            for tree in trees.values():
                sh(script, cwd=tree, user=USER)
        for turn in range(rounds):
            for name, script, times in tests(make):
                for peer in PEERS[turn % 3:] + PEERS[:turn % 3]:
                    before = scorpio.requests()
                    samples = [sh(script, cwd=trees[peer], user=USER) for _ in range(times)]
                    facts["samples"].setdefault(name, {}).setdefault(peer, []).extend(samples)
                    if peer == "scorpio":
                        facts["requests"].setdefault(name, []).append((scorpio.requests() - before) / times)
        facts["rss"] = scorpio.rss_anon()
    missing = [(name, peer) for name, _, _ in tests(make) for peer in PEERS if not facts["samples"].get(name, {}).get(peer)]
    if missing:
        sys.exit(f"no samples of {missing}")
    return facts


def machine():
    with open("/proc/cpuinfo") as file:
        model = re.search(r"model name\s*:\s*(.*)", file.read())
    with open("/proc/meminfo") as file:
        memory = int(re.search(r"MemTotal:\s+(\d+)", file.read()).group(1)) * 1024
    return {"kernel": os.uname().release, "cores": os.cpu_count(), "cpu": model.group(1) if model else "?", "memory": memory,
            "disk": out("findmnt -no FSTYPE -T /var/tmp").strip(), "version": out(f"{BIN}/scorpiod --version").strip(),
            "commit": out("git describe --always --dirty", cwd=PROJECT).strip()}


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
    # Root's repositories are read by an unprivileged user. In a file: git hides variables from a git it calls itself.
    os.environ["GIT_CONFIG_GLOBAL"] = f"{base}/gitconfig"
    with open(f"{base}/gitconfig", "w") as file:
        file.write("[safe]\n\tdirectory = *\n")
    try:
        repo = bare_clone(base, linux_repository(base) if options.linux else os.path.realpath(options.repo))
        raw = {"machine": machine(), "load_before": os.getloadavg(), "files": int(out(f"git -C {repo} ls-tree -r HEAD | wc -l"))}
        raw["clone"] = sh(f"git clone -q --no-local {repo} {base}/clone && rm -rf {base}/clone")
        raw["cold"] = cold_walk_and_read(base, repo)
        raw["readers"] = cold_readers(base, repo)
        raw["warm"] = warm(base, repo, options.rounds, options.make)
        raw["load_after"] = os.getloadavg()
        if options.raw:
            with open(options.raw, "w") as file:
                json.dump(raw, file, indent=1)
        report(raw)
    finally:
        tidy(base)


def tidy(base):
    """Nothing may be removed through a mount that was left behind."""
    with open("/proc/self/mountinfo") as file:
        left = [line.split()[4] for line in file if line.split()[4].startswith(f"{base}/")]
    for point in reversed(left):
        subprocess.run(["umount", "-l", point])
    with open("/proc/self/mountinfo") as file:
        if any(line.split()[4].startswith(f"{base}/") for line in file):
            sys.exit(f"mounts are left below {base}")
    shutil.rmtree(base, ignore_errors=True)


def mib(size):
    return f"{size / 2**20:.1f} MiB"


def table(*rows):
    print("\n" + "\n".join("| " + " | ".join(map(str, row)) + " |" for row in [rows[0], ["---"] * len(rows[0]), *rows[1:]]))


def report(raw):
    host, cold, readers, measured = raw["machine"], raw["cold"], raw["readers"], raw["warm"]
    print(f"{host['version']} at {host['commit']}; kernel {host['kernel']}, {host['cores']} cores ({host['cpu']}),"
          f" {host['memory'] / 2**30:.0f} GiB, {host['disk']}; {raw['files']:,} files; load average"
          f" {raw['load_before'][0]:.1f} at the start, {raw['load_after'][0]:.1f} at the end.")
    mounts, until_ls = (sorted(times) for times in zip(*measured["mounts"]))
    middle = len(mounts) // 2
    table(["mount (whole `scorpioctl` process)", ""],
          ["first of the commit, empty cache", ", ".join(f"{each['mount'] * 1000:.0f} ms" for each in (cold, readers))],
          ["and until `ls` there has answered", ", ".join(f"{each['until_ls'] * 1000:.0f} ms" for each in (cold, readers))],
          ["20 further ones: median (least, most)",
           f"{mounts[middle] * 1000:.0f} ms ({mounts[0] * 1000:.0f}, {mounts[-1] * 1000:.0f})"],
          ["and until `ls` there has answered: median", f"{until_ls[middle] * 1000:.0f} ms"])
    steps = [("`find -ls`, empty cache", cold["walk"]), ("`find -ls` again", cold["again"]),
             ("then read all files, one reader", cold["read"]), ("read them again", cold["read_again"]),
             ("find and read all files, empty cache, eight readers", readers)]
    table(["cold", "time", "requests to the daemon", "RssAnon after"],
          *([name, f"{step['seconds']:.2f} s", f"{step['requests']:,}", mib(step["rss"])] for name, step in steps),
          ["for comparison: `git clone` of the same repository", f"{raw['clone']:.2f} s", "", ""])
    table(["memory", ""],
          ["RssAnon of the idle daemon", mib(cold["rss_idle"])],
          ["RssAnon after the walk", mib(cold["walk"]["rss"])],
          ["RssAnon 15 s after everything was read", mib(cold["rss_later"])],
          *([f"slab `{name}` before, after the walk", f"{mib(size)}, {mib(cold['walk']['slab'][name])}"]
            for name, size in sorted(cold["slab_idle"].items())))
    rows = []
    for name, samples in measured["samples"].items():
        least = {peer: min(samples[peer]) for peer in PEERS}
        spread = {peer: max(samples[peer]) / least[peer] for peer in PEERS}
        rows.append([name, f"{least['native']:.3f} (×{spread['native']:.2f})",
                     f"{least['overlay'] / least['native']:.2f} (×{spread['overlay']:.2f})",
                     f"{least['scorpio'] / least['native']:.2f} (×{spread['scorpio']:.2f})",
                     f"{least['scorpio'] / least['overlay']:.2f}", f"{max(measured['requests'][name]):,.0f}"])
    table(["warm", "native, s", "overlay / native", "scorpio / native", "scorpio / overlay", "requests to the daemon"], *rows)


main()
