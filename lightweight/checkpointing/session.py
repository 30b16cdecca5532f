"""The session of a stage: where an interrupted run finds its state, and what all parts of the stage share."""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from lightweight.checkpointing.checkpointer import Checkpointer
from lightweight.checkpointing.run_folder import (
    FINISHED,
    acquire_run_folder,
    checksum,
    fingerprint,
    remove_old_runs,
)
from lightweight.core.errors import InputError
from lightweight.core.files import read_json, write_json
from lightweight.data.augmentation import OFF, AugmentParams
from lightweight.data.dataset import Dataset
from lightweight.execution.ranks import is_writer


def discard(line: str) -> None:
    """Ignore a line of the log."""


@dataclass(frozen=True)
class Session:
    """Hold what all parts of a stage share: data set and its augmentation, seed, threads, checkpointer and log."""

    dataset: Dataset
    seed: int
    threads: int = 1
    checkpointer: Checkpointer = field(default_factory=Checkpointer)
    log: Callable[[str], None] = discard
    augmentation: AugmentParams = OFF


@contextmanager
def open_session(
    folder: Path,
    params: SimpleNamespace,
    dataset: Dataset,
    files: Iterable[Path],
    output: Path,
    *,
    log: Callable[[str], None],
) -> Iterator[Session]:
    """Open the session of the stage `folder.name`, resumed from a matching run folder in `folder` if there is one.

    `params` has `seed`, `threads`, `train.augment` and the sections that the stage has loaded. For the other arguments
    see `resumable`.
    """
    with resumable(folder.parent, folder.name, vars(params), files, output, log=log) as checkpointer:
        yield Session(dataset, params.seed, params.threads, checkpointer, log, params.train.augment)


@contextmanager
def resumable(
    work: Path,
    stage: str,
    params: dict[str, Any],
    files: Iterable[Path],
    output: Path,
    *,
    log: Callable[[str], None],
    lock: Path = Path("dvc.lock"),
) -> Iterator[Checkpointer]:
    """Open the checkpointer of a stage on a run folder in `work/stage`, with the checkpoint that is in it.

    A later run with equal `params`, contents of `files` and code is resumed from them. It begins anew after DVC has
    recorded `output` in its lock file: an interruption before that loses no work, and a run that is repeated on purpose
    does all the work again. `log` receives a line when a run is resumed, or when its checkpoint is damaged.
    """
    if not is_writer():  # another process on this machine writes the checkpoints
        yield Checkpointer(stage=stage, log=log)
        return
    folder, descriptor = acquire_run_folder(work / stage, fingerprint(params, files))
    try:
        remove_old_runs(work, folder)
        finished = folder / FINISHED
        if finished.exists():
            if _recorded_in_lock(finished, lock):
                for file in filter(Path.is_file, folder.iterdir()):
                    file.unlink()
            finished.unlink(missing_ok=True)
        with ThreadPoolExecutor(1) as writer:
            yield Checkpointer(folder, stage, writer, log)
        write_json(finished, {"lock": _lock_mtime(lock), "output": checksum(output, "md5")})
    finally:
        os.close(descriptor)


def _lock_mtime(lock: Path) -> int | None:
    """Read the time of the last change of `dvc.lock` in nanoseconds; None without the file."""
    return lock.stat().st_mtime_ns if lock.exists() else None


def _recorded_in_lock(finished: Path, lock: Path) -> bool:
    """Return whether DVC has recorded the output in its lock file since the run ended; False if that is unknown."""
    try:
        end = read_json(finished)
        end = {"lock": end["lock"], "output": str(end["output"])}
    except (InputError, KeyError, TypeError):
        return False
    return _lock_mtime(lock) != end["lock"] and lock.exists() and end["output"] in lock.read_text()
