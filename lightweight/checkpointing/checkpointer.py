"""An interrupted run goes on where it was and ends in the same bytes as one that was never interrupted.

Whatever changes while a stage works is tracked: objects with `state_dict` and `load_state_dict`, and files. They are
written together, in the background, and found again by the next run of the same work. How often follows from what
it costs (CheckFreq, Mohan, Phanishayee and Chidambaram 2021).
"""

import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

from torch import Tensor

from lightweight.checkpointing.run_folder import FINISHED, acquire_run_folder, checksum, fingerprint, remove_old_runs
from lightweight.checkpointing.state_dict import flatten_state_dict, unflatten_state_dict
from lightweight.core.errors import InputError
from lightweight.core.files import read_json, write_bytes, write_json
from lightweight.core.tensor_file import read_tensors, write_tensors

MAX_LOST_SECONDS = 20.0  # seconds of work between two checkpoints, at most
MAX_OVERHEAD = 0.03  # of the time that may go into writing checkpoints, unless more is needed to lose no more than that
STATE = "state.safetensors"


class Stateful(Protocol):
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> Any: ...


Thing = TypeVar("Thing", bound=Stateful)


@contextmanager
def resumable(
    work: Path,
    stage: str,
    params: dict[str, Any],
    files: Iterable[Path],
    output: Path,
    log: Callable[[str], None],
    lock: Path = Path("dvc.lock"),
) -> "Iterator[Checkpointer]":
    """Checkpoints of one stage's work under `work/stage`, which all of `params`, `files` and the code identify.

    They stay until another stage starts, or DVC has `output` in its lock file: an interruption before that costs no
    work, and work that is done on purpose a second time is done. `log` is told in one line when work is resumed, or
    cannot be.
    """
    folder, descriptor = acquire_run_folder(work / stage, fingerprint(params, files))
    try:
        remove_old_runs(work, folder)
        finished = folder / FINISHED
        if finished.exists():
            if _recorded_in_lock(finished, lock):
                (folder / STATE).unlink(missing_ok=True)
            finished.unlink()
        with ThreadPoolExecutor(1) as writer:
            yield Checkpointer(folder, stage, writer, log)
        write_json(finished, {"lock": _lock_mtime(lock), "output": checksum(output, "md5")})
    finally:
        os.close(descriptor)


def _lock_mtime(lock: Path) -> int | None:
    """What changes whenever DVC writes the file."""
    return lock.stat().st_mtime_ns if lock.exists() else None


def _recorded_in_lock(finished: Path, lock: Path) -> bool:
    """Whether DVC has written its lock file since the work ended, and the output is in it; not if nobody can tell."""
    try:
        end = read_json(finished)
        end = {"lock": end["lock"], "output": str(end["output"])}
    except (InputError, KeyError, TypeError):
        return False
    return _lock_mtime(lock) != end["lock"] and lock.exists() and end["output"] in lock.read_text()


class Checkpointer:
    """What is tracked, and when it was last written; without a folder it remembers nothing."""

    def __init__(
        self,
        folder: Path | None = None,
        stage: str = "",
        writer: ThreadPoolExecutor | None = None,
        log: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.folder, self.stage, self.writer, self.log = folder, stage, writer, log
        self.tracked: dict[str, Stateful] = {}
        self.files: dict[str, str] = {}
        self.forgotten: list[Path] = []
        self.state: dict[str, Any] = {}
        self.writing: Future | None = None
        self.cost, self.last = 0.0, time.monotonic()
        if folder and (folder / STATE).exists():
            self._restore(folder)

    def _restore(self, folder: Path) -> None:
        try:
            tensors, about = read_tensors(folder / STATE)
            if any(checksum(folder / name) != expected for name, expected in about["files"].items()):
                raise InputError("another file of the checkpoint is damaged")
        except (InputError, OSError):
            self.log(f"{self.stage} starts over: the checkpoint in {folder} is damaged")
            return
        self.state, self.files = unflatten_state_dict(about["state"], tensors), about["files"]
        self.log(f"resuming {self.stage} at {about['where']}")

    def track(self, name: str, thing: Thing) -> Thing:
        """Write the state of `thing` from now on; it is brought at once to the state of the run that is resumed."""
        self.tracked[name] = thing
        if name in self.state:
            thing.load_state_dict(self.state.pop(name))
        return thing

    def untrack(self, *names: str) -> None:
        """Forget what has come to its end, before another of the name begins."""
        for name in names:
            self.tracked.pop(name, None)

    def add_file(self, path: Path) -> None:
        """Count a complete file below the folder as part of every later checkpoint."""
        if self.folder:
            self.files[path.relative_to(self.folder).as_posix()] = checksum(path)

    def remove_file(self, path: Path) -> None:
        """Remove a kept file as soon as no checkpoint counts on it."""
        if self.folder and self.files.pop(path.relative_to(self.folder).as_posix(), None):
            self.forgotten.append(path)

    def export_files(self, target: Path) -> None:
        """Make `target` a folder of all kept files."""
        shutil.rmtree(target, ignore_errors=True)  # of another run, if not DVC started this one
        target.mkdir(parents=True)
        for path in (self.folder / name for name in self.files):
            try:
                os.link(path, target / path.name)
            except OSError:  # another file system
                write_bytes(target / path.name, path.read_bytes())

    def save_if_due(self, where: str) -> None:
        """After a small step: write a checkpoint if the last one is old."""
        if time.monotonic() - self.last >= MAX_LOST_SECONDS:
            self.save(where)

    def save(self, where: str) -> None:
        """After a large step: write a checkpoint in the background, unless the last one has not paid off its cost."""
        now = time.monotonic()
        if not self.writer or now - self.last < min(MAX_LOST_SECONDS, self.cost / MAX_OVERHEAD):
            return
        if self.writing:
            if not self.writing.done():
                return
            self._complain(self.writing.exception())
        tensors: dict[str, Tensor] = {}
        state = flatten_state_dict({name: thing.state_dict() for name, thing in self.tracked.items()}, tensors)
        about = {"where": where, "files": dict(self.files), "state": state}
        self.last = time.monotonic()
        self.writing = self.writer.submit(self._write, tensors, about, self.forgotten, self.last - now)
        self.forgotten = []

    def _write(self, tensors: dict[str, Tensor], about: dict[str, Any], old: list[Path], copying: float) -> None:
        start = time.monotonic()
        try:
            write_tensors(self.folder / STATE, tensors, about)
            for path in old:
                path.unlink(missing_ok=True)
        finally:
            self.cost = copying + time.monotonic() - start

    def _complain(self, error: BaseException | None) -> None:
        if isinstance(error, OSError):  # of a full disk: the work goes on
            self.log(f"{self.stage} cannot be resumed from here: {error.filename}: {error.strerror}")
        elif error:
            raise error
