"""The table: one row for each case. A case is tried here, or proved by a test that is named."""

import collections
import os

# In full size, which takes minutes; the landing run is short.
LONG = os.environ.get("SCORPIO_LONG") == "1"

Row = collections.namedtuple("Row", "group name who expected where attempt long restarts")

ROWS = []
FIGURES = []


def case(name, who, expected, long=False, restarts=False):
    """`attempt` returns what came back, which must be `expected`. With `restarts` another process serves afterwards."""

    def add(attempt):
        module = attempt.__globals__
        where = f"`tests/system/abuse/{os.path.basename(module['__file__'])}`" + (", long run" if long else "")
        ROWS.append(Row(module["GROUP"], name, who, expected, where, attempt, long, restarts))
        return attempt

    return add


class Proofs:
    """Rows of `group` that tests elsewhere prove."""

    def __init__(self, group):
        self.group = group

    def proved(self, name, who, expected, file, test):
        where = file if file.startswith("src/") else f"tests/{file}"
        ROWS.append(Row(self.group, name, who, expected, f"`{where}`: `{test}`", None, False, False))


def figure(text):
    """Printed with the result of the whole run."""
    FIGURES.append(text)
