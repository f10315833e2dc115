"""Many workspaces on thirty roots, made and used by two users at once. Run in a machine by checks/many.sh.

many.py repositories COUNT DIR       two repositories, for COUNT workspaces; as root
many.py make WHO COUNT               mounts those of user WHO (0 or 1) below ~/many
many.py visit WHO COUNT ROUND        writes to each and reads a file of it that nobody has read before
many.py through WHO COUNT FLAG       goes on writing and reading in all of them for as long as the file FLAG is there
many.py remove WHO COUNT             takes them away
"""

import os
import random
import subprocess
import sys
import threading
import time

ORIGINS, COMMITS, TOPS = ["manya", "manyb"], range(5), ["", "one", "two"]
ROOTS = [(origin, commit, top) for origin in ORIGINS for commit in COMMITS for top in TOPS]
USERS, ROUNDS = 2, 4
# As many of one user's mounts as the daemon makes at once.
AT_ONCE = 4


def files(count):
    """Files in a directory, so that each workspace has some of its own for each round, whoever shares its root."""
    return (count // (USERS * len(ROOTS)) + 1) * USERS * ROUNDS


def content(root, number):
    origin, commit, top = root
    return f"{origin} v{commit} {top} {number}\n"


def repositories(count, directory):
    for origin in ORIGINS:
        work = os.path.join(directory, origin)
        git = ["git", "-C", work, "-c", "user.name=test", "-c", "user.email=test@invalid"]
        subprocess.run(["git", "init", "-q", "-b", "main", work], check=True)
        for commit in COMMITS:
            for top in TOPS:
                os.makedirs(os.path.join(work, top), exist_ok=True)
                for number in range(files(count)):
                    with open(os.path.join(work, top, f"f{number}"), "w") as file:
                        file.write(content((origin, commit, top), number))
            for words in (["add", "-A"], ["commit", "-qm", f"v{commit}"], ["tag", f"v{commit}"]):
                subprocess.run(git + words, check=True)


def workspaces(who, count):
    """Index, root and place of each; both users have some on every root."""
    home = os.path.expanduser("~/many")
    return [(i, ROOTS[i // USERS % len(ROOTS)], f"{home}/{i}") for i in range(who, count, USERS)]


def at_once(jobs):
    """Runs commands, some at a time."""
    jobs, failed, lock = iter(jobs), [], threading.Lock()

    def work():
        while True:
            with lock:
                words = next(jobs, None)
            if words is None:
                return
            done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            if done.returncode != 0:
                failed.append((words, done.stdout.decode()))

    threads = [threading.Thread(target=work) for _ in range(AT_ONCE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise SystemExit(f"{len(failed)} failed, the first: {failed[0]}")


def make(who, count):
    for _, _, path in workspaces(who, count):
        os.makedirs(path)
    at_once(
        ["scorpioctl", "--quiet", "mount", f"{origin}:{top}@v{commit}", path]
        for _, (origin, commit, top), path in workspaces(who, count)
    )


def remove(who, count):
    listed = subprocess.run(["scorpioctl", "list"], check=True, stdout=subprocess.PIPE).stdout.decode()
    home = os.path.expanduser("~/many/")
    ids = [line.split()[0] for line in listed.splitlines()[1:] if home in line]
    if len(ids) != len(workspaces(who, count)):
        raise SystemExit(f"{len(ids)} workspaces are there")
    at_once(["scorpioctl", "--quiet", "remove", "--discard", "--yes", id] for id in ids)
    for _, _, path in workspaces(who, count):
        os.rmdir(path)
    os.rmdir(home)


def read(path):
    with open(path) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return file.read()


def expect(found, wanted, path):
    if found != wanted:
        raise SystemExit(f"{path}: {found!r} instead of {wanted!r}")


def visit(who, count, turn):
    longest = 0
    for index, root, path in workspaces(who, count):
        begin = time.monotonic()
        with open(f"{path}/mine", "a") as file:
            file.write(f"round {turn}\n")
        expect(read(f"{path}/mine"), "".join(f"round {n}\n" for n in range(turn + 1)), path)
        mine = index // (USERS * len(ROOTS)) * USERS + index % USERS
        number = mine * ROUNDS + turn
        expect(read(f"{path}/f{number}"), content(root, number), path)
        longest = max(longest, time.monotonic() - begin)
    print(f"{longest * 1000:.0f}")


def through(who, count, flag):
    own, done, longest = workspaces(who, count), 0, 0
    written = {path: "" for _, _, path in own}
    while os.path.exists(flag):
        _, root, path = random.choice(own)
        number, begin = random.randrange(files(count)), time.monotonic()
        expect(read(f"{path}/f{number}"), content(root, number), path)
        with open(f"{path}/through", "a") as file:
            file.write(f"{done}\n")
        written[path] += f"{done}\n"
        longest = max(longest, time.monotonic() - begin)
        done += 1
        if done == 1:
            open(f"{flag}.{who}", "w").close()
    for path, wanted in written.items():
        if wanted:
            expect(read(f"{path}/through"), wanted, path)
            os.unlink(f"{path}/through")
    print(f"{done} visits, none failed, longest {longest * 1000:.0f} ms")


verb, words = sys.argv[1], sys.argv[2:]
if verb == "repositories":
    repositories(int(words[0]), words[1])
elif verb in ("make", "remove"):
    {"make": make, "remove": remove}[verb](int(words[0]), int(words[1]))
elif verb == "visit":
    visit(int(words[0]), int(words[1]), int(words[2]))
elif verb == "through":
    through(int(words[0]), int(words[1]), words[2])
else:
    raise SystemExit(__doc__)
