"""database.py STATE NAME MOUNT

Commits one row after another to an SQLite database in the mount, with everything synced.
"""

import sqlite3
import sys

sys.dont_write_bytecode = True

import ledger

NAME = "rows.db"


def run(book, mount):
    database = sqlite3.connect(f"{mount}/{NAME}", timeout=60, isolation_level=None)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=FULL")
    database.execute("CREATE TABLE rows (n INTEGER PRIMARY KEY)")
    rows = 0

    def commit():
        nonlocal rows
        with book.operation("commit to a database"):
            database.execute("INSERT INTO rows VALUES (?)", [rows + 1])
        rows += 1
        book.note(row=rows)

    ledger.work(book, {commit: 1})


if __name__ == "__main__":
    ledger.main(run)
