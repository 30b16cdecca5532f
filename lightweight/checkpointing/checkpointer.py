"""The checkpointer saves what changes while a stage works, so that an interrupted run ends in the same bytes.

Objects with `state_dict` and `load_state_dict` are tracked, and files are added. All of them are written together, in
the background, and restored by the next run of the same work. How often follows from what a checkpoint costs
(CheckFreq, Mohan, Phanishayee and Chidambaram 2021).
"""

import os
import shutil
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any, Protocol, TypeVar

from torch import Tensor

from lightweight.checkpointing.run_folder import checksum
from lightweight.checkpointing.state_dict import flatten_state_dict, unflatten_state_dict
from lightweight.core.errors import InputError
from lightweight.core.files import write_bytes
from lightweight.core.tensor_file import read_tensors, write_tensors

MAX_LOST_SECONDS = 20.0  # of work between two checkpoints
MAX_OVERHEAD = 0.03  # the share of the time that checkpoints may take, unless more is needed to lose no more than that
STATE = "state.safetensors"


class Stateful(Protocol):
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> Any: ...


Tracked = TypeVar("Tracked", bound=Stateful)


class Checkpointer:
    """Track the state of a stage in its run folder, and save it when it is due; without a folder, save nothing."""

    def __init__(
        self,
        folder: Path | None = None,
        stage: str = "",
        writer: Executor | None = None,
        log: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.folder, self.stage, self.writer, self.log = folder, stage, writer, log
        self.tracked: dict[str, Stateful] = {}
        self.files: dict[str, str] = {}
        self.removed: list[Path] = []
        self.state: dict[str, Any] = {}
        self.writing: Future[None] | None = None
        self.cost, self.last = 0.0, time.monotonic()
        if folder and (folder / STATE).exists():
            self._restore(folder)

    @property
    def run_folder(self) -> Path:
        """Return the folder of this run, for files that are to be added."""
        assert self.folder is not None, "a checkpointer without a folder takes no files"
        return self.folder

    def _restore(self, folder: Path) -> None:
        try:
            tensors, content = read_tensors(folder / STATE)
            if any(checksum(folder / name) != expected for name, expected in content["files"].items()):
                raise InputError("another file of the checkpoint is damaged")
        except (InputError, OSError):
            self.log(f"{self.stage} starts over: the checkpoint in {folder} is damaged")
            return
        self.state, self.files = unflatten_state_dict(content["state"], tensors), content["files"]
        self.log(f"resuming {self.stage} at {content['where']}")

    def track(self, name: str, thing: Tracked) -> Tracked:
        """Make `thing` part of every later checkpoint, and restore its state from the run that is resumed, if any."""
        self.tracked[name] = thing
        if name in self.state:
            thing.load_state_dict(self.state.pop(name))
        return thing

    def untrack(self, *names: str) -> None:
        """Leave finished things out of later checkpoints, before others are tracked by these names."""
        for name in names:
            self.tracked.pop(name, None)

    def add_file(self, path: Path) -> None:
        """Make a complete file below the run folder part of every later checkpoint."""
        if self.folder:
            self.files[path.relative_to(self.folder).as_posix()] = checksum(path)

    def remove_file(self, path: Path) -> None:
        """Leave a file out of later checkpoints, and delete it as soon as no checkpoint refers to it."""
        if self.folder and self.files.pop(path.relative_to(self.folder).as_posix(), None):
            self.removed.append(path)

    def export_files(self, target: Path) -> None:
        """Make `target` a folder of all added files, by hard links where the file system allows them."""
        shutil.rmtree(target, ignore_errors=True)  # of another run, if not DVC started this one
        target.mkdir(parents=True)
        for path in (self.run_folder / name for name in self.files):
            try:
                os.link(path, target / path.name)
            except OSError:  # another file system
                write_bytes(target / path.name, path.read_bytes())

    def save_if_due(self, where: str) -> None:
        """Save after a small step, but only if the last checkpoint is older than `MAX_LOST_SECONDS`."""
        if time.monotonic() - self.last >= MAX_LOST_SECONDS:
            self.save(where)

    def save(self, where: str) -> None:
        """Save after a large step, in the background, unless the last checkpoint has not paid off its cost.

        `where` describes the position for the log of a resumed run.
        """
        now = time.monotonic()
        if not self.writer or now - self.last < min(MAX_LOST_SECONDS, self.cost / MAX_OVERHEAD):
            return
        if self.writing:
            if not self.writing.done():
                return
            self._report(self.writing.exception())
        tensors: dict[str, Tensor] = {}
        state = flatten_state_dict({name: thing.state_dict() for name, thing in self.tracked.items()}, tensors)
        content = {"where": where, "files": dict(self.files), "state": state}
        self.last = time.monotonic()
        self.writing = self.writer.submit(self._write, tensors, content, self.removed, self.last - now)
        self.removed = []

    def _write(self, tensors: dict[str, Tensor], content: dict[str, Any], old: list[Path], copying: float) -> None:
        """Write the checkpoint, then delete the files that it no longer refers to; `copying` is in seconds."""
        start = time.monotonic()
        try:
            write_tensors(self.run_folder / STATE, tensors, content)
            for path in old:
                path.unlink(missing_ok=True)
        finally:
            self.cost = copying + time.monotonic() - start

    def _report(self, error: BaseException | None) -> None:
        """Log that a checkpoint could not be written, for example on a full disk: the work goes on."""
        if isinstance(error, OSError):
            self.log(f"{self.stage} cannot be resumed from here: {error.filename}: {error.strerror}")
        elif error:
            raise error
