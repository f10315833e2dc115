"""build.py STATE NAME MOUNT

Builds the C library in the mount, from nothing, again and again.
"""

import subprocess
import sys

sys.dont_write_bytecode = True

import ledger


def run(book, mount):
    def build():
        with book.operation("build", is_long=True):
            command = ["make", "-C", f"{mount}/lib", "-s", "clean", "liblmdb.a"]
            done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            if done.returncode != 0:
                raise RuntimeError(f"make ended with {done.returncode}: {done.stderr}")

    ledger.work(book, {build: 1})


if __name__ == "__main__":
    ledger.main(run)
