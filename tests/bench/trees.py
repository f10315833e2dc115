#!/usr/bin/env python3
"""Repositories of any size, always the same for a size: one commit, made by git fast-import.

    tests/bench/trees.py FILES DIRECTORY    a bare repository

The shape is that of large source trees: some twelve files in a directory (one has many more), directories mostly five
levels deep, half of the files below 1.5 KiB and a mean of 3.4 KiB, one executable in a hundred and one symlink in two
hundred. Content is text that compresses about 3:1. Three parts are in every tree: `build` is a C program of 120 files with
a Makefile, `assets` holds 48 MiB in 16 files that do not compress, `tools/true` is the host's /bin/true.
"""

import math
import os
import random
import subprocess
import sys

SEED = 20240229
BUILD_SOURCES = 120
BUILD_HEADERS = 40
ASSETS = 16
ASSET_BYTES = 3 << 20
# Mean number of files in a directory.
FILES_PER_DIRECTORY = 12
# Lognormal sizes: half of the files are below the median; the cut keeps the few largest from deciding the sum.
MEDIAN_BYTES = 1536
SIGMA = 1.25
LARGEST_BYTES = 256 << 10
DEEPEST = 12

WORDS = ("core net drivers arch lib fs mm block sound crypto tools test include api server client proto http cache index "
         "store query parse lexer codec image video audio font layout style dom view model control event queue task pool "
         "alloc sched clock timer power bus usb pci gpio spi nand flash disk raid crypt hash sign cert auth user group role "
         "policy audit log trace metric probe debug bench sample").split()
ENDINGS = [".c", ".h", ".cc", ".py", ".rs", ".go", ".java", ".ts", ".md", ".json", ".yaml", ".txt", "", ".S"]


def words_of(chance, size):
    """Text that looks like source to a compressor."""
    parts, length = [], 0
    while length < size:
        line = "    " * chance.randrange(4) + " ".join(chance.choices(WORDS, k=chance.randint(2, 9)))
        line += f"({chance.randrange(10 ** 6)});\n"
        parts.append(line)
        length += len(line)
    return "".join(parts).encode()


def directories(chance, count):
    """Paths of so many directories: new ones are put below earlier ones, and below shallow ones more often."""
    made = [("", 0)]
    seen = {""}
    while len(made) <= count:
        # The first dozen lie at the top; later ones prefer old parents, which gives the depth of large source trees.
        parent, depth = made[0] if len(made) <= 12 else made[1 + int((len(made) - 1) * chance.random() ** 1.3)]
        name = f"{parent}{WORDS[chance.randrange(len(WORDS))]}"
        if name + "/" in seen:
            name += f"-{len(made)}"
        if depth < DEEPEST:
            made.append((name + "/", depth + 1))
            seen.add(name + "/")
    return [path for path, _ in made[1:]]


def ordinary_files(chance, count):
    """(path, mode, content) of the ordinary part of a tree."""
    pool = words_of(chance, 2 << 20)
    where = directories(chance, max(12, count // FILES_PER_DIRECTORY))
    left = count
    crowded = min(10_000, count // 20)
    mu = math.log(MEDIAN_BYTES)
    for number, directory in enumerate(where):
        here = crowded if number == 20 else min(200, int(chance.lognormvariate(math.log(9), 0.75)) + 1)
        if number == len(where) - 1:
            here = left
        for name in range(min(here, left)):
            path = f"{directory}{WORDS[(number + name) % len(WORDS)]}_{name}{ENDINGS[(number * 7 + name) % len(ENDINGS)]}"
            kind = chance.random()
            if kind < 0.005 and name:
                yield path, "120000", b"."
                continue
            size = min(LARGEST_BYTES, int(chance.lognormvariate(mu, SIGMA)))
            begin = chance.randrange(len(pool) - size)
            # The path makes each content its own: a store that keeps equal files once gains nothing here.
            yield path, "100755" if kind > 0.99 else "100644", path.encode() + b"\n" + pool[begin:begin + size]
        left -= min(here, left)
        if not left:
            return


def build_files(chance):
    """A program of many small files, each of which includes some headers."""
    headers = [f"part{number}.h" for number in range(BUILD_HEADERS)]
    for number, name in enumerate(headers):
        text = [f"#ifndef PART{number}_H", f"#define PART{number}_H"]
        text += [f"static inline int part{number}_{at}(int x) {{ return x * {chance.randrange(2, 99)} + {at}; }}" for at in range(30)]
        yield f"build/include/{name}", "100644", ("\n".join(text) + "\n#endif\n").encode()
    for number in range(BUILD_SOURCES):
        used = chance.sample(range(BUILD_HEADERS), 12)
        text = ["#include <stdio.h>", "#include <stdlib.h>", "#include <string.h>"]
        text += [f'#include "part{part}.h"' for part in used]
        for at in range(20):
            steps = " ".join(f"x = part{part}_{at}(x) ^ (x >> {part % 7 + 1});" for part in used)
            text.append(f"int unit{number}_{at}(int x) {{ for (int i = 0; i < 9; i++) {{ {steps} }} return x; }}")
        yield f"build/src/unit{number}.c", "100644", ("\n".join(text) + "\n").encode()
    calls = "".join(f"int unit{number}_0(int);\n" for number in range(BUILD_SOURCES))
    total = " + ".join(f"unit{number}_0({number})" for number in range(BUILD_SOURCES))
    yield "build/src/main.c", "100644", f"#include <stdio.h>\n{calls}int main(void) {{ printf(\"%d\\n\", {total}); }}\n".encode()
    yield "build/Makefile", "100644", (
        b"objects := $(patsubst src/%.c,out/%.o,$(wildcard src/*.c))\n"
        b"program: $(objects)\n\tcc -o $@ $^\n"
        b"out/%.o: src/%.c | out\n\tcc -O1 -Iinclude -MMD -c -o $@ $<\n"
        b"out:\n\tmkdir -p $@\nclean:\n\trm -rf out program\n.PHONY: clean\n-include $(objects:.o=.d)\n")


def large_files(chance):
    for number in range(ASSETS):
        yield f"assets/{number:02}.bin", "100644", chance.randbytes(ASSET_BYTES)
    with open("/bin/true", "rb") as file:
        yield "tools/true", "100755", file.read()


def files(count):
    """All files of a tree of `count`."""
    chance = random.Random(SEED)
    fixed = [*build_files(chance), *large_files(chance)]
    yield from fixed
    yield from ordinary_files(chance, max(100, count - len(fixed)))


def make(count, place):
    """A bare repository at `place`; its number of files."""
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", place], check=True)
    # Sent on to fast clients; the least effort in compression makes the generator twice as fast.
    command = ["git", "-c", "core.compression=1", "fast-import", "--quiet", "--depth=0", "--big-file-threshold=1m"]
    made = 0
    with subprocess.Popen(command, cwd=place, stdin=subprocess.PIPE) as importer:
        out = importer.stdin
        out.write(b"commit refs/heads/main\ncommitter b <b@invalid> 1700000000 +0000\ndata 5\nbench\n")
        for path, mode, content in files(count):
            out.write(b"M %s inline %s\ndata %d\n" % (mode.encode(), path.encode(), len(content)))
            out.write(content)
            out.write(b"\n")
            made += 1
        out.close()
        if importer.wait() != 0:
            raise OSError("git fast-import failed")
    # What a blobless clone asks of its server, and what servers of large repositories have.
    for key, value in (("uploadpack.allowFilter", "true"), ("uploadpack.allowAnySHA1InWant", "true"), ("gc.auto", "0")):
        subprocess.run(["git", "config", key, value], cwd=place, check=True)
    return made


if __name__ == "__main__":
    if len(sys.argv) != 3 or os.path.exists(sys.argv[2]):
        sys.exit(__doc__)
    print(make(int(sys.argv[1]), sys.argv[2]), "files")
