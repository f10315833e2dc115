"""crew.py start STATE REFERENCE USER:MOUNT USER:MOUNT | crew.py stop STATE

`start` starts readers and writers in each user's mount, a build in the first one, a database in the last one, and what makes
all of it cold; it returns when all of them work, `stop` when all of them have ended. As root.
"""

import json
import os
import subprocess
import sys
import time

sys.dont_write_bytecode = True

import ledger
import tree

# For the first build and the last one on an emulated machine.
PATIENCE_S = 900


def crew(reference, mounts):
    """Name, user, program and arguments of each worker."""
    for number, (user, mount) in enumerate(mounts):
        for worker in range(tree.READERS):
            name = f"reader-{number * tree.READERS + worker}"
            yield name, user, ["reader.py", mount, reference, str(number * tree.READERS + worker)]
        for worker in range(tree.WRITERS):
            name = f"writer-{number * tree.WRITERS + worker}"
            yield name, user, ["writer.py", mount, reference, str(number * tree.WRITERS + worker)]
    yield "build", mounts[0][0], ["build.py", mounts[0][1]]
    yield "database", mounts[-1][0], ["database.py", mounts[-1][1]]
    yield "evict", "root", ["evict.py"]


def start(state, reference, *mounts):
    mounts = [mount.split(":", 1) for mount in mounts]
    os.mkdir(state)
    os.chmod(state, 0o1777)
    open(os.path.join(state, "on"), "w").close()
    pids = {}
    for name, user, (program, *words) in crew(reference, mounts):
        command = [sys.executable, os.path.join(os.path.dirname(os.path.abspath(__file__)), program), state, name, *words]
        with open(os.path.join(state, f"{name}.output"), "wb") as output:
            worker = subprocess.Popen(
                command, user=user, group=user, extra_groups=[], cwd="/", start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            )
        pids[name] = worker.pid
    with open(os.path.join(state, "crew"), "w", encoding="utf-8") as file:
        json.dump(pids, file)
    until = time.monotonic() + PATIENCE_S
    # The first build takes its time.
    while waited_for := {name for name in pids if ledger.beats(state).get(name, (0, 0))[0] == 0} - {"build"}:
        ended = [name for name in waited_for if os.path.exists(os.path.join(state, f"{name}.json"))]
        if ended or time.monotonic() > until:
            for name in ended:
                with open(os.path.join(state, f"{name}.json"), encoding="utf-8") as file:
                    print(*json.load(file)["failures"], sep="\n")
            raise SystemExit(f"the load does not begin: {ended or waited_for}")
        time.sleep(0.05)


def lives(pid):
    """A zombie has ended."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # it may end between the two
        return False


def stop(state):
    os.unlink(os.path.join(state, "on"))
    with open(os.path.join(state, "crew"), encoding="utf-8") as file:
        pids = json.load(file)
    until = time.monotonic() + PATIENCE_S
    while left := {name: pid for name, pid in pids.items() if lives(pid)}:
        if time.monotonic() > until:
            for name, pid in left.items():
                with open(f"/proc/{pid}/stack", encoding="utf-8") as stack:
                    print(f"{name}:\n{stack.read()}")
            raise SystemExit(f"they do not end: {left}")
        time.sleep(0.05)


if __name__ == "__main__":
    {"start": start, "stop": stop}[sys.argv[1]](*sys.argv[2:])
