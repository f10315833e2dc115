"""What the figures were measured on, and what the kernel holds."""

import os
import re

import shell
import scorpio


def slab():
    """Bytes of kernel slab in the caches that a walk fills."""
    total = {}
    with open("/proc/slabinfo", encoding="ascii") as file:
        for line in list(file)[2:]:
            name, _, objects, size = line.split()[:4]
            if name in ("fuse_inode", "ovl_inode", "dentry"):
                total[name] = int(objects) * int(size)
    return total


def grown(before, after):
    """Bytes that all of these caches grew by."""
    return sum(after.values()) - sum(before.values())


def caches_dropped():
    """How often somebody told the kernel to drop its caches."""
    with open("/proc/vmstat", encoding="ascii") as file:
        return sum(int(line.split()[1]) for line in file if line.startswith(("drop_pagecache", "drop_slab")))


def facts():
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        model = re.search(r"model name\s*:\s*(.*)", file.read())
    with open("/proc/meminfo", encoding="ascii") as file:
        memory = int(re.search(r"MemTotal:\s+(\d+)", file.read()).group(1)) * 1024
    return {
        "kernel": re.match(r"[\d.]+", os.uname().release).group(0), "cores": os.cpu_count(),
        "cpu": model.group(1) if model else "?", "memory": memory,
        "disk": shell.output("findmnt -no FSTYPE -T /var/tmp"), "git": shell.output("git --version"),
        "version": shell.output(f"{scorpio.BIN}/scorpiod --version"),
        "commit": shell.output("git describe --always --dirty", cwd=scorpio.PROJECT)}
