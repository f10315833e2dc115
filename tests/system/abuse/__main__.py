"""Tries every abuse of the table against the installed service; see docs/ABUSE.md, which this writes.

    python3 /var/tmp/abuse [--only REGEX] [--page]      as root, on a machine where alice and bob may mount `project`

--page prints the page, after all cases held. What went wrong goes to standard error, and the status is 1 then.
"""

import re
import sys
import time
import traceback

sys.dont_write_bytecode = True

import host
import page
import table

# Each adds its rows, in this order.
import points  # noqa: F401
import races  # noqa: F401
import identity  # noqa: F401
import others  # noqa: F401
import protocol  # noqa: F401
import resources  # noqa: F401
import life  # noqa: F401


def attempt(row, before):
    """Tries one row. What is wrong, and how long bob took afterwards."""
    try:
        host.fresh_ground()
        found = row.attempt()
        faults = [] if found == row.expected else [f"{row.expected} was expected, {found} came back"]
    except Exception:
        faults = [traceback.format_exc()]
    faults += host.settled(before, other_process=row.restarts)
    try:
        waited = host.bob_goes_on()
    except Exception:
        return faults + [traceback.format_exc()], 0
    return faults + host.settled(before, other_process=row.restarts), waited


def warm_up():
    """What is opened once stays open, and is no leak."""
    host.clear_user(host.ALICE)
    host.fresh_ground()
    for _ in range(2):
        host.bob_goes_on()
    # Root has a session of its own, which stays.
    host.root_goes_on()
    # The last connections end a moment after their last answer.
    sights = []
    for _ in range(5):
        time.sleep(0.05)
        sights.append(host.look())
    return min(sights, key=lambda sight: sight.descriptors)


def main(arguments):
    only = re.compile(arguments[arguments.index("--only") + 1] if "--only" in arguments else "")
    begin, failed, tried, longest = time.monotonic(), 0, 0, 0
    before = warm_up()
    for row in table.ROWS:
        if row.attempt is None or (row.long and not table.LONG) or not only.search(f"{row.group}: {row.name}"):
            continue
        started = time.monotonic()
        faults, waited = attempt(row, before)
        tried, longest = tried + 1, max(longest, waited)
        if faults:
            failed += 1
            print(f"FAILED {row.group}: {row.name}", *faults, sep="\n    ", file=sys.stderr)
        else:
            print(f"ok {row.group}: {row.name} ({time.monotonic() - started:.1f} s)", file=sys.stderr)
        if faults or row.restarts:
            before = warm_up()
    host.leave()
    if failed:
        print(f"{failed} of {tried} cases failed", file=sys.stderr)
        return 1
    if "--page" in arguments:
        print(page.written(table.ROWS), end="")
    named = len(table.ROWS) - sum(1 for row in table.ROWS if row.attempt)
    figures = [f"{tried} cases tried in {time.monotonic() - begin:.0f} s, {named} proved elsewhere"]
    figures += [f"bob waited for {longest * 1000:.0f} ms at most", *table.FIGURES]
    print("FIGURE " + "; ".join(figures), file=sys.stderr)
    return 0


sys.exit(main(sys.argv[1:]))
