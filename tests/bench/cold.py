"""How long it takes to get a tree, to walk and to read it for the first time, and what that leaves in memory and on disk."""

import sys
import time

import machine
import peers
import shell

NAMES = "find . -path ./.git -prune -o -print | wc -l"
WALK = "find . -path ./.git -prune -o -ls | wc -l"
READ_ALL = "find . -path ./.git -prune -o -type f -print0 | xargs -0 -n 500 -P {} cat | wc -c"
# Above it, a tree is not read as a whole nor walked after the kernel forgot it: minutes that tell nothing new.
WHOLE_FILES = 200_000
# Where each file may cost a request to a distant server, a step gets so long; then it is given up, and that is what is reported.
PATIENCE_S = 120
DISTANT = ["scorpio-mega", "scorpiofs"]
# A distant server's tree of more files is walked, not read.
DISTANT_FILES = 10_000
# Longer than idle threads are kept.
SETTLE_S = 30


class Steps:
    """Steps in one tree; each keeps seconds, result and what the processes behind it hold afterwards."""

    def __init__(self, tree, patience):
        self.tree, self.patience = tree, patience
        self.slab = machine.slab()
        self.facts = {"usable": {"seconds": tree.usable}, **tree.extra}

    def step(self, name, script):
        tree = self.tree
        before = tree.requests() if tree.requests else 0
        printed, seconds = shell.run(script, cwd=tree.path, user=tree.user, timeout=self.patience)
        facts = {"seconds": seconds, "result": int(printed), "slab": machine.grown(self.slab, machine.slab())}
        if tree.requests:
            facts["requests"] = tree.requests() - before
        if tree.asked:
            facts["asked"] = tree.asked()
        if tree.daemon:
            facts["rss"] = tree.daemon.rss_anon()
        self.facts[name] = facts


def pass_through(name, site, first):
    """One tree of one peer, from nothing to everything read."""
    patience = PATIENCE_S if name in DISTANT else shell.LONGEST_S
    whole = site.files <= (DISTANT_FILES if name in DISTANT else WHOLE_FILES)
    with peers.obtain(name, site) as tree:
        steps = Steps(tree, patience)
        try:
            steps.step("names", NAMES)
            steps.step("walk", WALK)
            steps.step("again", WALK)
            if whole:
                steps.step("read", READ_ALL.format(1))
                steps.step("read_again", READ_ALL.format(1))
                shell.drop_caches()
                steps.step("dropped", WALK)
            if first and tree.daemon:
                time.sleep(SETTLE_S)
                steps.facts["rss_later"] = tree.daemon.rss_anon()
            steps.facts["disk"] = shell.bytes_on_disk(*tree.disk)
        except shell.Failed as failed:
            if name not in DISTANT:
                raise
            steps.facts["failed"] = str(failed)
    return steps.facts


def measure(site, names, rounds, late):
    """All peers in turns; a list of passes for each. That a distant one fails is a result, and is printed as one."""
    facts = {name: [] for name in names}
    # Those that take minutes because their server is far away are told apart by more than the spread.
    once = {name for name in names if name == "scorpiofs" or name in DISTANT and site.files > DISTANT_FILES}
    for turn in range(rounds):
        if turn and late():
            break
        at = turn % len(names)
        for name in names[at:] + names[:at]:
            if turn and name in once:
                continue
            print(f"  {site.files:,} files, cold, round {turn + 1}: {peers.LABELS[name]}", file=sys.stderr, flush=True)
            try:
                facts[name].append(pass_through(name, site, not turn))
            except shell.Failed as failed:
                if name not in DISTANT:
                    raise
                facts[name].append({"failed": str(failed)})
    return facts


def readers(site):
    """Eight readers at once read a tree that nobody has walked before."""
    with peers.obtain("scorpio", site) as tree:
        steps = Steps(tree, shell.LONGEST_S)
        steps.step("readers", READ_ALL.format(8))
        return steps.facts["readers"]
