"""Run a command that may not touch the network: `python -m tests.faults.silence LOG HOST COMMAND...`.

Every Python process of it notes its start, its sockets and its downloads in LOG. A process that binds, listens, or
connects to an internet address is ended by the kernel (seccomp, Linux) whatever its language: ONNX Runtime's telemetry
is C++, which no hook of Python sees. HOST is the host's name for the command, `-` leaves it.
"""

import ctypes
import os
import platform
import socket
import sys
import tempfile
from pathlib import Path

HOOK = """
import json, os, sys

def note(event, arguments):
    if event.split(".")[0] in ("start", "socket", "urllib", "http", "ftplib", "smtplib"):
        line = json.dumps([event, repr(arguments), sys.orig_argv])
        file = os.open(os.environ["SILENCE_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(file, line.encode() + b"\\n")
        os.close(file)

sys.addaudithook(note)
note("start", ())
"""
BIND_LISTEN_CONNECT = {"x86_64": (49, 50, 42), "aarch64": (200, 201, 203)}  # numbers of the system calls
LENGTH_V4, LENGTH_V6 = 16, 28  # of the two kinds of internet addresses, bytes; paths of local sockets have others
LOAD, IF_EQUAL, RETURN = 0x20, 0x15, 0x06  # linux/bpf_common.h
NUMBER, THIRD_ARGUMENT = 0, 32  # offsets in struct seccomp_data
KILL, ALLOW = 0x80000000, 0x7FFF0000  # linux/seccomp.h
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, FILTER = 38, 22, 2  # linux/prctl.h


class Instruction(ctypes.Structure):
    _fields_ = [("code", ctypes.c_uint16), ("then", ctypes.c_uint8), ("orelse", ctypes.c_uint8), ("k", ctypes.c_uint32)]


class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.POINTER(Instruction))]


def forbid_network() -> None:
    """For this process and all that it starts, for good. Raises OSError where the kernel has no seccomp."""
    bind, listen, connect = BIND_LISTEN_CONNECT[platform.machine()]
    lines = [
        (LOAD, 0, 0, NUMBER),
        (IF_EQUAL, 5, 0, bind),  # jumps count the lines that are passed over
        (IF_EQUAL, 4, 0, listen),
        (IF_EQUAL, 0, 4, connect),
        (LOAD, 0, 0, THIRD_ARGUMENT),
        (IF_EQUAL, 1, 0, LENGTH_V4),
        (IF_EQUAL, 0, 1, LENGTH_V6),
        (RETURN, 0, 0, KILL),
        (RETURN, 0, 0, ALLOW),
    ]
    program = Program(len(lines), (Instruction * len(lines))(*lines))
    libc = ctypes.CDLL(None, use_errno=True)
    for arguments in ((PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), (PR_SET_SECCOMP, FILTER, ctypes.byref(program))):
        if libc.prctl(*arguments):
            raise OSError(ctypes.get_errno(), "no seccomp")


if __name__ == "__main__":
    log, host, *command = sys.argv[1:]
    if host != "-":
        socket.sethostname(host)
    hook = Path(tempfile.mkdtemp(prefix="silence-"), "sitecustomize.py")
    hook.write_text(HOOK)
    environment = os.environ | {"SILENCE_LOG": log, "PYTHONPATH": str(hook.parent)}
    forbid_network()
    os.execvpe(command[0], command, environment)
