"""Checkpoints of a running stage, so that a run that is interrupted and resumed ends in the same bytes as any other.

A `Checkpointer` tracks objects with `state_dict` and `load_state_dict`, and files that are added to it. All are written
together, in the background, and restored in the next run of the same stage. The interval between checkpoints follows
from the time that a checkpoint takes (CheckFreq, Mohan, Phanishayee and Chidambaram 2021).
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
from lightweight.core.module_state import load_state
from lightweight.core.tensor_file import parse_tensors, write_tensors
from lightweight.execution.agreement import broadcast
from lightweight.execution.ranks import agree

MAX_LOST_SECONDS = 20.0  # the work that an interruption may lose: the longest interval between two checkpoints
MAX_OVERHEAD = 0.03  # the share of the time that checkpoints may take, unless MAX_LOST_SECONDS demands more
STATE = "state.safetensors"


class Stateful(Protocol):
    """Describe an object whose state a checkpoint holds: nested dicts and lists of tensors, numbers and strings."""

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> Any: ...


Tracked = TypeVar("Tracked", bound=Stateful)


class Checkpointer:
    """Write checkpoints of tracked objects and files into a run folder; without a folder, write nothing.

    `stage` names the stage in lines for the log. Without a `writer`, which writes in the background, checkpoints of the
    folder are restored but not written.
    """

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
        self._restore(folder)

    @property
    def run_folder(self) -> Path:
        """Return the run folder; `add_file` takes only files in it."""
        assert self.folder is not None, "a checkpointer without a folder takes no files"
        return self.folder

    def _restore(self, folder: Path | None) -> None:
        """Restore the checkpoint of rank 0, if there is one, and log its position, or that it is damaged and ignored.

        All processes restore it, or none: not if the added files are damaged in the run folder of any machine.
        """
        found = (folder / STATE).read_bytes() if folder and (folder / STATE).exists() else None
        content = broadcast(found)
        if content is None:
            return
        try:
            tensors, state = parse_tensors(content, Path(STATE))
            intact = not folder or all(checksum(folder / name) == value for name, value in state["files"].items())
        except (InputError, OSError):
            intact = False
        if not agree(intact):
            self.log(f"{self.stage} starts over: the checkpoint in {folder} is damaged")
            return
        self.state, self.files = unflatten_state_dict(state["state"], tensors), state["files"]
        self.log(f"Resuming {self.stage} at {state['position']}")

    def track(self, name: str, stateful: Tracked) -> Tracked:
        """Make an object part of every later checkpoint, and restore its state if a run is resumed.

        Returns the object.
        """
        self.tracked[name] = stateful
        if name in self.state:
            load_state(stateful, self.state.pop(name))
        return stateful

    def untrack(self, *names: str) -> None:
        """Leave objects out of later checkpoints, for example before others are tracked by the same names."""
        for name in names:
            self.tracked.pop(name, None)

    def add_file(self, path: Path) -> None:
        """Make a file in the run folder, which must be complete, part of every later checkpoint."""
        if self.folder:
            self.files[path.relative_to(self.folder).as_posix()] = checksum(path)

    def remove_file(self, path: Path) -> None:
        """Leave a file out of later checkpoints, and delete the file as soon as no checkpoint refers to it."""
        if self.folder and self.files.pop(path.relative_to(self.folder).as_posix(), None):
            self.removed.append(path)

    def export_files(self, target: Path) -> None:
        """Copy all added files into a new folder `target`, as hard links where the file system allows them."""
        shutil.rmtree(target, ignore_errors=True)  # left by another run, which DVC has not removed
        target.mkdir(parents=True)
        for path in (self.run_folder / name for name in self.files):
            try:
                os.link(path, target / path.name)
            except OSError:  # another file system
                write_bytes(target / path.name, path.read_bytes())

    def save_if_due(self, position: str) -> None:
        """Call `save` after a small step, such as a batch, if the last checkpoint is older than `MAX_LOST_SECONDS`."""
        if time.monotonic() - self.last >= MAX_LOST_SECONDS:
            self.save(position)

    def save(self, position: str) -> None:
        """Write a checkpoint in the background, after a large step such as an epoch.

        Does nothing if the checkpoints would take more than `MAX_OVERHEAD` of the time, or while one is being written.
        A resumed run logs `position`, which describes the step that follows.
        """
        now = time.monotonic()
        if not self.writer or now - self.last < min(MAX_LOST_SECONDS, self.cost / MAX_OVERHEAD):
            return
        if self.writing:
            if not self.writing.done():
                return
            self._report(self.writing.exception())
        tensors: dict[str, Tensor] = {}
        state = flatten_state_dict({name: stateful.state_dict() for name, stateful in self.tracked.items()}, tensors)
        content = {"position": position, "files": dict(self.files), "state": state}
        self.last = time.monotonic()
        self.writing = self.writer.submit(self._write, tensors, content, self.removed, self.last - now)
        self.removed = []

    def _write(self, tensors: dict[str, Tensor], content: dict[str, Any], removed: list[Path], seconds: float) -> None:
        """Write the checkpoint, then delete the removed files; `seconds` is the time that copying the state took."""
        start = time.monotonic()
        try:
            write_tensors(self.run_folder / STATE, tensors, content)
            for path in removed:
                path.unlink(missing_ok=True)
        finally:
            self.cost = seconds + time.monotonic() - start

    def _report(self, error: BaseException | None) -> None:
        """Log that a checkpoint could not be written, for example on a full disk; the stage continues."""
        if isinstance(error, OSError):
            self.log(f"{self.stage} cannot be resumed from here: {error.filename}: {error.strerror}")
        elif error:
            raise error
