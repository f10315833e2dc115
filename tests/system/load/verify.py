"""verify.py STATE MOUNT REFERENCE NUMBER

Whether all that the workers of one user noted is in the mount when the load is over, and everything else there is as plain git
has it. As that user; `STATE/verified-NUMBER.json` says what was found.
"""

import hashlib
import json
import os
import sqlite3
import sys

sys.dont_write_bytecode = True

import database
import tree
import writer


def notes(state, name):
    try:
        with open(os.path.join(state, f"{name}.log"), encoding="utf-8") as file:
            return [json.loads(line) for line in file]
    except FileNotFoundError:
        return []


class Verified:
    def __init__(self):
        self.files = self.bytes = self.count = self.rows = 0
        self.wrong = []

    def file(self, path, size, expected):
        try:
            with open(path, "rb") as file:
                content = file.read()
        except OSError as error:
            self.wrong.append(f"{path}: {error}")
            return
        self.files, self.bytes = self.files + 1, self.bytes + len(content)
        if len(content) != size or hashlib.sha256(content).hexdigest() != expected:
            self.wrong.append(f"{path}: {len(content)} bytes instead of {size}, or others")

    def expect(self, holds, complaint):
        if not holds:
            self.wrong.append(complaint)


def main(state, mount, reference, number):
    number, found = int(number), Verified()
    os.chdir(mount)
    last, counted = {}, 0
    for index in range(number * tree.WRITERS, (number + 1) * tree.WRITERS):
        lines = notes(state, f"writer-{index}")
        found.expect(lines, f"writer-{index} noted nothing")
        last.update({line["path"]: line for line in lines if "path" in line})
        counted += max((line["counted"] for line in lines if "counted" in line), default=0)
    for path, line in last.items():
        if line["sum"] is None:
            found.expect(not os.path.lexists(path), f"{path} is still there")
        else:
            found.file(path, line["bytes"], line["sum"])
    with open(writer.COUNTER, encoding="ascii") as file:
        count = file.read()
    found.expect(count == str(counted), f"{count} were counted instead of {counted}")
    files = tree.Tree(reference)
    for path in files.kept + files.mapped + [path for path in files.changed if path not in last]:
        found.file(path, files.size(path), hashlib.sha256(files.content(path)).hexdigest())
    if os.path.exists(database.NAME):
        acknowledged = {line["row"] for line in notes(state, "database")}
        rows = sqlite3.connect(database.NAME)
        found.expect(rows.execute("PRAGMA integrity_check").fetchone() == ("ok",), "the database is damaged")
        there = {row for (row,) in rows.execute("SELECT n FROM rows")}
        found.expect(acknowledged <= there, f"{len(acknowledged - there)} commits are lost")
        found.rows = len(acknowledged)
    found.count = counted
    with open(os.path.join(state, f"verified-{number}.json"), "w", encoding="utf-8") as file:
        json.dump(vars(found), file)


if __name__ == "__main__":
    main(*sys.argv[1:])
