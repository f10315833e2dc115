"""Work in trees that were used before: every test in every peer in turns, with the requests that reach our daemon."""

import contextlib
import dataclasses
import sys
import time

import machine
import peers
import shell

# A pass on ext4 should take some tenths of a second: on small trees it is repeated within the sample.
FILES_PER_PASS = 20_000
SMALL_BYTES = 32 << 10
SMALL_FILES = 10_000
APPENDED = 100
# A sample during which somebody else dropped the kernel's caches is taken again, so often at most.
TRIES = 4
# Files of the tests that create, rename and delete.
CREATED = 5000
# Unions in user space: what they cannot do is a result. They get so long for one sample, and for all of a size together.
FALLIBLE = ["fuse-overlayfs", "scorpiofs"]
PATIENCE_S = 60
BUDGET_S = 120


@dataclasses.dataclass
class Test:
    """One test: what is timed, and what must be done before each sample and after it."""

    name: str
    title: str
    script: str
    samples: int = 3
    before: str = "true"
    after: str = "true"
    warms: bool = True
    """Whether each series of samples begins with one that is not counted; else only the first one does."""


def lists(site, base):
    """Files that name files of the commit, as the probe reads them."""
    listed = shell.output(f"git -C {site.repo} ls-tree -r -l HEAD").splitlines()
    files = [(mode, int(size), path) for (mode, _, _, size), path in
             ((line.split("\t")[0].split(), line.split("\t")[1]) for line in listed)]
    plain = [(size, path) for mode, size, path in files if mode.startswith("100")]
    spread = max(1, len(plain) // SMALL_FILES)
    chosen = {"all": [path for _, _, path in files],
              "small": [path for size, path in plain if 0 < size < SMALL_BYTES][::spread][:SMALL_FILES],
              "large": [path for size, path in plain if size > 8 * SMALL_BYTES]}
    # What a copy-up changes is read by no other test.
    chosen["changed"] = [path for size, path in plain if 0 < size < SMALL_BYTES and path.startswith("build/") is False][1::2]
    for name, paths in chosen.items():
        with open(f"{base}/list.{name}", "w", encoding="utf-8") as file:
            file.write("\n".join(paths) + "\n")
    return {name: f"{base}/list.{name}" for name in chosen}


def tests(site, base, probe):
    """In the order in which they are run."""
    of = lists(site, base)
    loops = max(1, FILES_PER_PASS // site.files)
    again = f"for i in $(seq {loops}); do {{}}; done"
    small_loops = max(1, loops // 8)
    first = "d=$(find . -mindepth 1 -maxdepth 1 -type d ! -name .git ! -name build ! -name assets ! -name tools | sort | head -n 1)"
    return [
        Test("find", "`find`", again.format("find . >/dev/null")),
        Test("find-ls", "`find -ls`", again.format("find . -ls >/dev/null")),
        Test("stat", "`lstat` of every file", f"{probe} stat {of['all']} {2 * loops}"),
        Test("absent", "`lstat` of as many absent names", f"{probe} absent {of['all']} {2 * loops}"),
        Test("read-small", "open, read, close: files below 32 KiB", f"{probe} read {of['small']} {small_loops}"),
        Test("read-large", "read files above 256 KiB", f"{probe} read {of['large']} 8"),
        Test("mmap", "`mmap` them, touch all pages", f"{probe} mmap {of['large']} 8"),
        Test("exec", "start a program of the tree, 200 times", f"{probe} exec ./tools/true 200"),
        Test("status", "`git status`", again.format("git status >/dev/null") if loops < 8 else
             "for i in $(seq 8); do git status >/dev/null; done"),
        Test("create", f"create {CREATED:,} files of 1 KiB", f"{probe} create .b {CREATED}", after="rm -r .b"),
        Test("rmtree", f"delete {CREATED:,} files", "rm -r .b", before=f"{probe} create .b {CREATED}"),
        Test("write", "write 64 MiB, and over it", f"{probe} write .w 64", after="rm .w"),
        Test("rename", f"rename {CREATED:,} files", f"{probe} rename .b {CREATED}", before=f"{probe} create .b {CREATED}",
             after="rm -r .b"),
        Test("swap", "rename a directory of the commit there and back, 1,000 times", f"{first}; {probe} swap $d 1000"),
        Test("build", "`make -j2` of 120 C files", "make -s -j2 -C build", samples=1, before="make -s -C build clean",
             warms=False),
    ]


def clone_into(site, tree, user):
    """Makes the tree of a commit a clone of its repository with an index that is right."""
    shell.timed(f"git clone -q --no-checkout --shared {site.repo} .tmp && mv .tmp/.git .git && rmdir .tmp && git reset -q",
                cwd=tree, user=user)
    left = shell.output("git status --porcelain", cwd=tree, user=user)
    if left:
        raise shell.Failed(f"a fresh tree is not clean: {tree}: {left[:200]}")


def trees(site, names, undo):
    """A tree to work in per peer, all of the same commit; and why there is none, or one without an index."""
    made, refused, bare = {}, {}, {}
    for name in names:
        try:
            made[name] = undo.enter_context(peers.obtain("clone" if name == "native" else name, site))
        except shell.Failed as failed:
            if name != "scorpiofs":
                raise
            refused[name] = str(failed)
            continue
        try:
            if name in ("scorpio", "scorpiofs"):
                clone_into(site, made[name].path, made[name].user)
            # The checkout's index knows other inodes: refreshed once, it is as good in a union as it was below it.
            shell.timed("git status >/dev/null", cwd=made[name].path, user=made[name].user)
        except shell.Failed as failed:
            if name not in FALLIBLE:
                raise
            bare[name] = str(failed)
    return made, refused, bare


class Samples:
    """Seconds by test and peer, requests of our daemon by test, and why something is missing."""

    def __init__(self):
        self.seconds, self.requests, self.refused, self.left = {}, {}, {}, dict.fromkeys(FALLIBLE, BUDGET_S)
        self.disturbed = 0

    def take(self, test, peer, tree):
        """A series of samples, after a pass that is not counted: memory that was not used for a while may be gone."""
        series = 1 if peer == "scorpiofs" else test.samples
        if test.warms or peer not in self.seconds.get(test.name, {}):
            self.sample(test, peer, tree)
        for _ in range(series):
            for _ in range(TRIES):
                dropped = machine.caches_dropped()
                seconds, requests = self.sample(test, peer, tree)
                if machine.caches_dropped() == dropped:
                    break
                self.disturbed += 1
            if requests is not None:
                self.requests.setdefault(test.name, []).append(requests)
            self.seconds.setdefault(test.name, {}).setdefault(peer, []).append(seconds)

    def sample(self, test, peer, tree):
        patience = PATIENCE_S if peer in FALLIBLE else shell.LONGEST_S
        shell.timed(test.before, cwd=tree.path, user=tree.user, timeout=patience)
        before = tree.requests() if tree.requests else 0
        seconds = shell.timed(test.script, cwd=tree.path, user=tree.user, timeout=patience)
        requests = tree.requests() - before if tree.requests else None
        shell.timed(test.after, cwd=tree.path, user=tree.user, timeout=patience)
        return seconds, requests

    def first_writes(self, test, peer, tree):
        """One sample that cannot be taken twice, and is left out where caches were dropped; the next files are another one."""
        failed = self.refused.setdefault(test.name, {})
        if peer in failed:
            return
        dropped = machine.caches_dropped()
        try:
            seconds, requests = self.sample(test, peer, tree)
        except shell.Failed as failure:
            if peer not in FALLIBLE:
                raise
            failed[peer] = str(failure)
            return
        if machine.caches_dropped() != dropped:
            self.disturbed += 1
            return
        self.seconds.setdefault(test.name, {}).setdefault(peer, []).append(seconds)
        if requests is not None:
            self.requests.setdefault(test.name, []).append(requests)

    def try_take(self, test, peer, tree):
        """Once a union in user space has failed a test, that is its result; and it cannot use up the time of all."""
        if peer not in FALLIBLE:
            self.take(test, peer, tree)
            return
        failed = self.refused.setdefault(test.name, {})
        if peer in failed:
            return
        begin = time.monotonic()
        try:
            if self.left[peer] > 0:
                self.take(test, peer, tree)
            elif not self.seconds.get(test.name, {}).get(peer):
                failed[peer] = f"not reached: its {BUDGET_S} s were used up by the tests before"
        except shell.Failed as failure:
            self.seconds.get(test.name, {}).pop(peer, None)
            failed[peer] = str(failure)
            subdue(tree)
        self.left[peer] -= time.monotonic() - begin


def subdue(tree):
    """What a test left half-done must not disturb the next."""
    with contextlib.suppress(shell.Failed):
        shell.timed("rm -rf .b .w", cwd=tree.path, user=tree.user, timeout=PATIENCE_S)


def copy_up(samples, site, base, probe, made, turn):
    """The first write to files of the commit; each round and sample has files of its own."""
    test = Test("copy-up", f"first write to {APPENDED} files", "", samples=1, warms=False)
    for peer, tree in made.items():
        if not turn and peer not in samples.refused.get(test.name, {}):
            # What is copied up is warm, as everything else here.
            read = Test(test.name, "", f"{probe} read {base}/list.changed 1", samples=1, warms=False)
            Samples().try_take(read, peer, tree)
        for sample in range(3):
            at = (turn * 3 + sample) * APPENDED
            test.script = f"{probe} append {base}/list.changed {at} {APPENDED}"
            samples.first_writes(test, peer, tree)


def measure(site, base, probe, names, rounds, late):
    """All tests in all peers. Once it is late, the first round has to be enough."""
    samples = Samples()
    planned = tests(site, base, probe)
    with contextlib.ExitStack() as undo:
        made, refused, bare = trees(site, names, undo)
        samples.refused["status"] = bare
        for turn in range(rounds):
            if turn and late():
                break
            order = list(made)
            order = order[turn % len(order):] + order[:turn % len(order)]
            print(f"  {site.files:,} files, warm, round {turn + 1}", file=sys.stderr, flush=True)
            for test in planned:
                for peer in order:
                    samples.try_take(test, peer, made[peer])
        for turn in range(rounds):
            copy_up(samples, site, base, probe, made, turn)
    for peer, reason in refused.items():
        for test in [*planned, Test("copy-up", "", "")]:
            samples.refused.setdefault(test.name, {})[peer] = reason
    titles = {test.name: test.title for test in planned} | {"copy-up": f"first write to {APPENDED} files of the commit"}
    idle = [peer for peer in names if not any(by.get(peer) for by in samples.seconds.values()) and peer not in refused]
    absent = [(test, peer) for test in titles for peer in names
              if not samples.seconds.get(test, {}).get(peer) and not samples.refused.get(test, {}).get(peer)]
    if absent or idle:
        raise shell.Failed(f"no samples of {absent or idle}")
    return {"titles": titles, "seconds": samples.seconds, "requests": samples.requests, "refused": samples.refused,
            "disturbed": samples.disturbed}
