"""A stage ends a bad input with one line and exit code 1, and never outlives the process that started it.

Before it begins it keeps a copy of dvc.lock, which DVC rewrites in place: `make mend` mends what a kill in that moment
leaves.
"""

import ctypes
import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from lightweight.core.errors import InputError
from lightweight.core.files import write_bytes

PR_SET_PDEATHSIG = 1  # linux/prctl.h
REAPERS = re.compile(r"init|systemd|tini|dumb-init|catatonit|containerd-shim.*|conmon")  # which inherit orphans


def run_stage(main: Callable[[], None]) -> None:
    """Run a stage: users see one line for what they can mend, programmers a traceback for what they cannot."""
    _die_with_parent()
    try:
        _keep_lock(Path("dvc.lock"), Path("work/dvc.lock"))
        main()
    except InputError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        sys.exit(f"error: {error.filename or 'input or output'}: {error.strerror or error}")


def install_signal_handlers() -> None:
    """What a stage does before it imports anything large: an exception for Ctrl-C could get lost in an import."""
    _die_with_parent()
    signal.signal(signal.SIGINT, _interrupted)


def _interrupted(*_: object) -> None:
    os.write(2, b"interrupted: the same command goes on from here\n")
    os._exit(128 + signal.SIGINT)


def _keep_lock(lock: Path, copy: Path) -> None:
    """Copy what DVC has just read or written, unless this is one of its own copies of the project."""
    if lock.exists() and os.environ.get("DVC_ROOT") == str(Path.cwd()):
        write_bytes(copy, lock.read_bytes())


def _die_with_parent() -> None:
    """A killed `dvc` leaves its stage running, and the next `dvc repro` would start a second writer (Linux only)."""
    if sys.platform != "linux":
        return
    parent = os.getppid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent or _is_orphan(parent):  # it died before the line above took effect
        os.kill(os.getpid(), signal.SIGKILL)


def _is_orphan(parent: int) -> bool:
    """Whether DVC started this process and another has inherited it; DVC may be process 1 itself, in a container."""
    if "DVC_ROOT" not in os.environ:
        return False
    try:
        about = Path(f"/proc/{parent}")
        name, command = (about / "comm").read_text().strip(), (about / "cmdline").read_bytes()
    except OSError:  # it has gone, too
        return True
    return bool(parent == 1 or REAPERS.fullmatch(name)) and not re.search(rb"dvc|python", command)
