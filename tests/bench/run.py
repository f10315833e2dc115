#!/usr/bin/env python3
"""Measures Scorpio beside everything else that gives a user a tree of a commit, all in one run.

    cargo build --release --bins --example mega-server
    cargo install scorpiofs --version 0.4.1 --locked --root target/peers
    apt-get install fuse-overlayfs gcc make python3 git libclang-dev
    tests/bench/run.py --write-docs --raw target/bench.json

Needs root, 10 GB below /var/tmp and some 25 minutes on two quiet cores; with --full, which adds a tree of 1,000,000
files, 30 GB and an hour. It ends with an error where a peer is missing, unless
that one is left out by name: --without scorpiofs. Prints Markdown; --write-docs puts it between the markers of
docs/BENCHMARKS.md, with plots below docs/plots. --from FILE makes both from the raw samples of an earlier run.

    --full                       the tree of 1,000,000 files too
    --sizes 2000,80000           trees to measure (tests/bench/trees.py makes them, always the same)
    --warm 2000,80000            those of them in which all warm tests are run
    --rounds N, --cold-rounds N  rounds of the warm and of the cold passes, all peers in turns
    --keep-trees DIRECTORY       make the trees there once, and find them there the next time
    --delay-ms N                 how far away the Mega server is
    --smoke                      a tree of 500 files, one round: shows that the script works, in a minute or two
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time

sys.dont_write_bytecode = True

import cold
import machine
import mega
import peers
import report
import restart
import scorpio
import sharing
import shell
import trees
import warm

# When this much time has gone, one round of what follows has to be enough.
ENOUGH_S = 18 * 60
ENOUGH_FULL_S = 60 * 60
# The whole run ends then, whatever hangs.
LONGEST_RUN_S = 35 * 60
LONGEST_FULL_RUN_S = 100 * 60
LARGEST = 1_000_000
WORKSPACES = 1000
# ScorpioFS lists one directory after another: beyond this it only shows how long we are willing to wait.
SCORPIOFS_FILES = 5_000
# One cold round is enough where a round takes minutes, two where nothing else is asked for.
MANY_ROUNDS_FILES = 200_000
COLD_ROUNDS = 2
FEW_FILES = 10_000


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--sizes", default="2000,80000")
    parser.add_argument("--warm", default="2000,80000")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--cold-rounds", type=int)
    parser.add_argument("--without", action="append", default=[], choices=[name for name in peers.LABELS if name not in ("native", "overlay", "scorpio")])
    parser.add_argument("--keep-trees")
    parser.add_argument("--delay-ms", type=int, default=10)
    parser.add_argument("--workspaces", type=int, default=WORKSPACES)
    parser.add_argument("--raw")
    parser.add_argument("--from", dest="earlier")
    parser.add_argument("--write-docs", action="store_true")
    parser.add_argument("--smoke", action="store_true")
    options = parser.parse_args()
    if options.smoke:
        options.sizes, options.warm, options.rounds, options.cold_rounds, options.workspaces = "500", "500", 1, 1, 20
        warm.CREATED, cold.SETTLE_S, restart.KILLS = 200, 2, 3
    options.sizes = [int(size) for size in options.sizes.split(",")]
    options.warm = [int(size) for size in options.warm.split(",") if size]
    if options.full:
        options.sizes.append(LARGEST)
    return options


def ready(options, base):
    """Everything that is to be measured can be, or the run ends here."""
    if os.geteuid() != 0:
        sys.exit("this mounts: run it as root")
    wanted = [name for name in peers.LABELS if name not in options.without]
    if lacking := peers.missing(wanted):
        sys.exit("missing:\n" + "".join(f"  {name}: {how}\n" for name, how in lacking)
                 + "Install them, or leave a peer out by name: --without NAME")
    if "scorpio-mega" in wanted and (reason := scorpio.refusal(base, scorpio.mega_origin("http://127.0.0.1:1"))):
        sys.exit(f"this build of Scorpio has no Mega origin ({reason}); leave it out with --without scorpio-mega")


def environment(base):
    """Root's repositories are read by an unprivileged user. In a file: git hides variables from a git it calls itself."""
    os.environ["GIT_CONFIG_GLOBAL"] = f"{base}/gitconfig"
    with open(f"{base}/gitconfig", "w", encoding="ascii") as file:
        file.write("[safe]\n\tdirectory = *\n[user]\n\tname = b\n\temail = b@invalid\n[core]\n\thooksPath = /nonexistent\n")


def repository(options, base, size):
    """The tree of that size as a bare repository, and the seconds that making it took."""
    kept = options.keep_trees and f"{os.path.realpath(options.keep_trees)}/{size}.git"
    if kept and os.path.exists(f"{kept}/scorpio-bench-complete"):
        return kept, None
    place = kept or f"{base}/{size}.git"
    shutil.rmtree(place, ignore_errors=True)
    os.makedirs(os.path.dirname(place), exist_ok=True)
    begin = time.perf_counter()
    trees.make(size, place)
    seconds = time.perf_counter() - begin
    with open(f"{place}/scorpio-bench-complete", "w", encoding="ascii"):
        pass
    return place, seconds


def one_size(options, base, probe, size, late):
    print(f"{size:,} files", file=sys.stderr, flush=True)
    repo, making = repository(options, base, size)
    facts = {"making": making,
             "files": int(shell.output(f"git -C {repo} ls-tree -r HEAD | wc -l")),
             "directories": int(shell.output(f"git -C {repo} ls-tree -r -d HEAD | wc -l")) + 1,
             "bytes": int(shell.output(f"git -C {repo} ls-tree -r -l HEAD | awk '{{s += $4}} END {{printf \"%d\", s}}'"))}
    here = f"{base}/{size}"
    os.mkdir(here)
    with contextlib.ExitStack() as undo:
        site = peers.Site(here, repo, facts["files"])
        wanted = [name for name in peers.OBTAINED if name not in options.without]
        if facts["files"] > SCORPIOFS_FILES and "scorpiofs" in wanted:
            wanted.remove("scorpiofs")
        working = [name for name in peers.WORKING if name == "native" or name in wanted]
        if any(name in peers.OF_MEGA for name in wanted):
            site.server = undo.enter_context(mega.Server(here, repo, options.delay_ms))
        # What worktree and the unions stand on; also the one sample of a clone where that takes minutes.
        checkout = undo.enter_context(peers.clone(site))
        site.checkout = checkout.path
        many = facts["files"] < MANY_ROUNDS_FILES
        site.only_clone = None if many else checkout
        rounds = options.cold_rounds or (COLD_ROUNDS if facts["files"] < FEW_FILES else 1)
        facts["cold"] = cold.measure(site, wanted, rounds if many else 1, late)
        check(facts)
        facts["mount_speeds"] = further_mounts(site)
        if many:
            facts["readers"] = cold.readers(site)
        if size in options.warm:
            facts["warm"] = warm.measure(site, here, probe, working, options.rounds, late)
        if size == options.warm[0]:
            facts["sharing"] = sharing.one_commit(site)
            facts["idle"] = sharing.idle_workspaces(site, options.workspaces)
            facts["restart"] = restart.pauses(site, here, probe, f"{here}/list.small")
    shutil.rmtree(here)
    if not options.keep_trees:
        shutil.rmtree(repo)
    return facts


def further_mounts(site, count=20):
    """Mounts of a commit that is here by one user after the other: seconds until `ls` answered."""
    with peers.obtain("scorpio", site) as tree:
        return [tree.daemon.mount(f"more-{user}", user)[2] for user in shell.USERS[1:count + 1]]


def check(facts):
    """Whoever claims a whole tree has to have all of it; only ScorpioFS may be wrong without ending the run."""
    entries = facts["files"] + facts["directories"]
    for name, passes in facts["cold"].items():
        for each in passes:
            for step in ("names", "walk", "again", "dropped"):
                if name in ("sparse", "scorpiofs") or step not in each:
                    continue
                # A clone's own `.git` is not walked but named, and git keeps no empty directory.
                if each[step]["result"] not in (entries, entries + 1):
                    raise shell.Failed(f"{name}, {step}: {each[step]['result']} entries instead of {entries}")


def tidy(base):
    peers.unmount_below(base)
    shutil.rmtree(base, ignore_errors=True)


def give_up(*_):
    raise shell.Failed("the run takes longer than it may")


def measure(options):
    base = tempfile.mkdtemp(prefix="scorpio-bench.", dir="/var/tmp")
    os.chmod(base, 0o755)
    signal.signal(signal.SIGALRM, give_up)
    signal.alarm(LONGEST_FULL_RUN_S if options.full else LONGEST_RUN_S)
    raw = {"options": vars(options), "load_before": os.getloadavg(), "sizes": {}}
    try:
        ready(options, base)
        environment(base)
        raw["machine"] = machine.facts()
        probe = f"{base}/probe"
        shell.timed(f"gcc -O2 -o {probe} {os.path.dirname(os.path.realpath(__file__))}/probe.c")
        begin = time.monotonic()
        enough = begin + (ENOUGH_FULL_S if options.full else ENOUGH_S)
        for size in options.sizes:
            raw["sizes"][str(size)] = one_size(options, base, probe, size, lambda: time.monotonic() > enough)
            save(raw, options.raw)
        raw["load_after"], raw["seconds"] = os.getloadavg(), time.monotonic() - begin
        save(raw, options.raw)
        return raw
    except shell.Failed as failed:
        save(raw, options.raw)
        sys.exit(f"the benchmark failed: {failed}")
    finally:
        signal.alarm(0)
        tidy(base)


def save(raw, place):
    if place:
        with open(place, "w", encoding="utf-8") as file:
            json.dump(raw, file, indent=1)


def main():
    options = arguments()
    if options.earlier:
        with open(options.earlier, encoding="utf-8") as file:
            raw = json.load(file)
    else:
        raw = measure(options)
    if options.write_docs:
        report.write_docs(raw)
    else:
        print(report.everything(raw))


main()
