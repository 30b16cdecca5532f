"""A stage ends a bad input with one line and exit code 1, and never outlives the process that started it."""

import ctypes
import os
import signal
import sys
from collections.abc import Callable

from lightweight.errors import InputError

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def run(main: Callable[[], None]) -> None:
    """Run a stage: users see one line for what they can mend, programmers a traceback for what they cannot."""
    _die_with_parent()
    try:
        main()
    except InputError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        sys.exit(f"error: {error.filename or 'input or output'}: {error.strerror or error}")


def _die_with_parent() -> None:
    """A killed `dvc` leaves its stage running, and the next `dvc repro` would start a second writer (Linux only)."""
    if sys.platform != "linux":
        return
    parent = os.getppid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the line above took effect
        os.kill(os.getpid(), signal.SIGKILL)
