"""The process of a stage: bad input ends in one line and exit code 1, and no stage outlives the DVC that started it.

Before a stage begins, dvc.lock is copied, which DVC rewrites in place: `make mend` brings it back after a kill in that
moment.
"""

import argparse
import contextlib
import ctypes
import os
import re
import select
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

from lightweight.core.errors import InputError
from lightweight.core.files import write_bytes
from lightweight.core.params import Arithmetic, load_params
from lightweight.execution.arithmetic import fix_instruction_set

PR_SET_PDEATHSIG = 1  # linux/prctl.h
ORPHAN_ADOPTERS = re.compile(r"init|systemd|tini|dumb-init|catatonit|containerd-shim.*|conmon")


def run_stage(main: Callable[[], None]) -> None:
    """Run a stage: an InputError or OSError ends in one line and exit code 1, other exceptions in a traceback.

    Where nobody reads the output any longer, it ends quietly, as by SIGPIPE.
    A script of `stages/` takes no argument but --help, which prints its docstring. Other commands read their own.
    """
    _refuse_arguments(sys.modules["__main__"])
    die_with_parent()
    warnings.showwarning = _show_warning
    try:
        _copy_lock(Path("dvc.lock"), Path("work/dvc.lock"))
        main()
        sys.stdout.flush()
    except (InputError, OSError) as error:
        if isinstance(error, BrokenPipeError) and _reader_has_ended():
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains when it flushes
            sys.exit(128 + signal.SIGPIPE)
        sys.exit(f"error: {describe_failure(error) or error}")


def _reader_has_ended() -> bool:
    """Return whether what reads the output of this process has ended, such as `head`."""
    poll = select.poll()
    poll.register(sys.stdout, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    sys.stderr.write(f"warning: {message}\n")


def _refuse_arguments(script: ModuleType) -> None:
    """End the process if `script` is that of a stage and it was given arguments; at --help print its docstring."""
    name = script.__spec__.name if script.__spec__ else ""
    if name.startswith("stages."):
        usage = f"python -m {name} [-h]    (its parameters stand in params.yaml)"
        form = argparse.RawDescriptionHelpFormatter
        argparse.ArgumentParser(usage=usage, description=script.__doc__, formatter_class=form).parse_args()


def describe_failure(error: BaseException) -> str | None:
    """Describe an error that the user can mend in one line; None for any other exception."""
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, OSError) and not isinstance(error, ConnectionError):
        return f"{error.filename or 'input or output'}: {error.strerror or error}"
    return None


def install_signal_handlers() -> None:
    """Install the handlers of a stage, before it imports anything large: an exception could get lost in an import."""
    die_with_parent()
    signal.signal(signal.SIGINT, _exit_interrupted)


def fix_arithmetic(params: Path) -> None:
    """Fix the instruction set of a stage by `arithmetic` in `params`, before torch loads.

    Bad input ends in one line and exit code 1.
    """
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # or a lost connection is told by pages of C++ frames
    try:
        fix_instruction_set(load_params(params, arithmetic=Arithmetic).arithmetic)
    except InputError as error:
        sys.exit(f"error: {error}")


def _exit_interrupted(*_: object) -> None:
    """End the process at Ctrl-C with one line and without a traceback."""
    os.write(2, b"Interrupted: the same command goes on from here\n")
    os._exit(128 + signal.SIGINT)


def _copy_lock(lock: Path, copy: Path) -> None:
    """Copy dvc.lock, which DVC has just read or written, unless this is one of DVC's own copies of the project."""
    if lock.exists() and os.environ.get("DVC_ROOT") == str(Path.cwd()):
        write_bytes(copy, lock.read_bytes())


@contextlib.contextmanager
def limit_time(seconds: float, end: Callable[[], object]) -> Iterator[None]:
    """Call `end` in a thread if a context lasts longer; there is no such thread after the context."""
    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


def die_with_parent() -> None:
    """Kill this process when its parent dies, or the next `dvc repro` would start a second writer (Linux only)."""
    if sys.platform != "linux":
        return
    parent = os.getppid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent or _is_orphan(parent):  # it died before the line above took effect
        os.kill(os.getpid(), signal.SIGKILL)


def _is_orphan(parent: int) -> bool:
    """Tell whether DVC started this process and another one has inherited it.

    DVC may be process 1 itself, in a container.
    """
    if "DVC_ROOT" not in os.environ:
        return False
    try:
        folder = Path(f"/proc/{parent}")
        name, command = (folder / "comm").read_text().strip(), (folder / "cmdline").read_bytes()
    except OSError:  # the parent has gone, too
        return True
    return bool(parent == 1 or ORPHAN_ADOPTERS.fullmatch(name)) and not re.search(rb"dvc|python", command)
