"""Runs a program for which, and for all that it starts, fsync and fdatasync do nothing and succeed."""

import ctypes
import os
import platform
import struct
import sys

# linux/filter.h, linux/seccomp.h: load the call's number, compare it, return.
LOAD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, ERRNO_0 = 0x7FFF0000, 0x00050000
PR_SET_SECCOMP, FILTER = 22, 2

calls = {"x86_64": (74, 75), "aarch64": (82, 83)}[platform.machine()]
program = b"".join(
    struct.pack("<HBBI", *step)
    for step in [
        (LOAD, 0, 0, 0),
        (JUMP_IF_EQUAL, 2, 0, calls[0]),
        (JUMP_IF_EQUAL, 1, 0, calls[1]),
        (RETURN, 0, 0, ALLOW),
        (RETURN, 0, 0, ERRNO_0),
    ]
)
steps = ctypes.create_string_buffer(program)


class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("steps", ctypes.c_void_p)]


libc = ctypes.CDLL(None, use_errno=True)
given = Program(len(program) // 8, ctypes.addressof(steps))
if libc.prctl(PR_SET_SECCOMP, FILTER, ctypes.byref(given), 0, 0):
    sys.exit(os.strerror(ctypes.get_errno()))
os.execv(sys.argv[1], sys.argv[1:])
