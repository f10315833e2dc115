"""report.py STATE

What the load met, as lines `FIGURE ...`; ends with 1, and says why, if anything of what is promised does not hold.
"""

import glob
import json
import os
import statistics
import sys

sys.dont_write_bytecode = True

import tree

# The least share of operations for which the daemon had to be asked.
COLD = 1 / 3
# Of what was broken; when much is, most of it is the same.
MOST_TOLD = 10


def load(path):
    with open(path, encoding="utf-8") as file:
        return json.load(file)


class Report:
    def __init__(self, state):
        self.workers = {}
        for name in load(os.path.join(state, "crew")):
            path = os.path.join(state, f"{name}.json")
            self.workers[name] = load(path) if os.path.exists(path) else None
        told = load(os.path.join(state, "blows.json"))
        self.blows, self.cold, self.requests = told["blows"], told["cold"], told["requests"]
        self.verified = [load(path) for path in sorted(glob.glob(os.path.join(state, "verified-*.json")))]
        self.broken = []

    def kinds(self):
        kinds = {}
        for name, worker in self.workers.items():
            if worker is None:
                self.broken.append(f"{name} did not end as it should")
                continue
            self.broken += [f"{failure.strip()} ({name})" for failure in worker["failures"]]
            for kind, (count, cold) in worker["kinds"].items():
                all_of_it, cold_of_it = kinds.get(kind, (0, 0))
                kinds[kind] = (all_of_it + count, cold_of_it + cold)
        return kinds

    def operations(self):
        kinds = self.kinds()
        failed = len(self.broken)
        evictions, _ = kinds.pop("eviction", (0, 0))
        total = sum(count for count, _ in kinds.values())
        cold = sum(cold for _, cold in kinds.values())
        by_kind = ", ".join(f"{kind} {count}" for kind, (count, _) in sorted(kinds.items()))
        print(f"FIGURE {failed} of {total} operations failed ({by_kind})")
        asked = sum(self.requests.values())
        most = sorted(self.requests.items(), key=lambda item: -item[1])[:4]
        by_opcode = ", ".join(f"{opcode} {count}" for opcode, count in most)
        share = cold / max(total, 1)
        print(
            f"FIGURE {share:.0%} of them cold: between the blows {self.cold}, for which the daemon got {asked} requests "
            f"({by_opcode}); caches emptied {evictions} times"
        )
        self.expect(share >= COLD, "too few operations were cold")
        self.expect(asked >= self.cold > 0, "the daemon was asked less often than operations were cold")
        self.expect(evictions > 0, "caches were never emptied")
        self.expect(kinds.get("build", (0, 0))[0] > 0, "no build came to its end")

    def expect(self, holds, complaint):
        if not holds:
            self.broken.append(complaint)

    def pauses(self):
        """The longest pause at each blow, counted from the blow on, and the longest that fell into none."""
        slow = [one for worker in self.workers.values() if worker for one in worker["slow"]]
        longest = [self.longest(blow, slow) for blow in self.blows]
        by_kind = {}
        for blow, pause in zip(self.blows, longest):
            by_kind.setdefault(blow["kind"], []).append(pause)
        told = [
            f"{kind} {max(pauses):.0f} (of {len(pauses)}, median {statistics.median(pauses):.0f})"
            for kind, pauses in by_kind.items()
        ]
        quiet = max((end - begin for kind, begin, end in slow if not self.is_in_a_blow(begin, end)), default=0)
        print(f"FIGURE longest pause of an operation in ms: {', '.join(told)}; without a blow {quiet * 1000:.0f}")

    @staticmethod
    def longest(blow, slow):
        met = (end - max(begin, blow["at"]) for _, begin, end in slow if begin < blow["back"] and end > blow["at"])
        return max(met, default=0) * 1000

    def is_in_a_blow(self, begin, end):
        return any(begin < blow["back"] and end > blow["begin"] for blow in self.blows)

    def in_flight(self):
        waiting = [blow["waiting"] for blow in self.blows if blow["kind"] == "kill"]
        print(f"FIGURE requests in flight at each kill: {' '.join(map(str, waiting))}")
        self.expect(2 * sum(count > 0 for count in waiting) > len(waiting), "most kills met no request in flight")

    def content(self):
        sums = {key: sum(found[key] for found in self.verified) for key in ("files", "bytes", "count", "rows")}
        print(
            f"FIGURE verified: {sums['files']} files of {sums['bytes'] / 1e6:.0f} MB, {sums['rows']} commits, "
            f"a counter at {sums['count']}"
        )
        self.broken += [wrong for found in self.verified for wrong in found["wrong"]]
        self.expect(len(self.verified) == 2, "not both mounts were verified")
        writers = [name for name in self.workers if name.startswith("writer-")]
        self.expect(len(writers) == 2 * tree.WRITERS, "there were not all writers")
        self.expect(sums["rows"] > 0, "nothing was committed")


def main(state):
    report = Report(state)
    report.operations()
    report.pauses()
    report.in_flight()
    report.content()
    for broken in report.broken[:MOST_TOLD]:
        # Of a traceback, what was done and how it failed.
        print("broken:", *broken.strip().splitlines()[-3:], sep="\n    ")
    if report.broken:
        raise SystemExit(f"{len(report.broken)} promises were broken")


if __name__ == "__main__":
    main(*sys.argv[1:])
