"""Run folders, which hold the checkpoints of a run and have a digest of everything that the run depends on in the name.

One process at a time uses a run folder: it locks the folder in the file system.
"""

import fcntl
import hashlib
import json
import os
import re
import shutil
import sys
import sysconfig
import time
from collections.abc import Iterable
from itertools import count
from pathlib import Path
from typing import Any

import torch
from pydantic_core import to_jsonable_python

from lightweight.core.machine import cpu_type, package_versions, platform_name

NAME = re.compile(r"[0-9a-f]{16}-\d+")
FINISHED = "finished"  # the name of a file in the folder of a run whose outputs are written
MAX_INTERRUPTED = 2  # folders of interrupted runs that each stage keeps, beside the one in use
WAIT_SECONDS = 2.0  # after which a process that was just killed no longer locks its folder


def fingerprint(params: dict[str, Any], files: Iterable[Path]) -> str:
    """Compute a digest of parameters, files, all loaded modules of the project, and versions, in 16 hex digits.

    The machine is part of it only as far as results depend on it: the type of a GPU, and of the CPU unless the
    arithmetic is portable.
    """
    machine: list[Any] = [sys.version, platform_name(), package_versions()]
    machine.append(torch.cuda.get_device_name() if torch.cuda.is_available() else None)
    if params.get("arithmetic") != "portable":
        machine.append(cpu_type())
    digest = hashlib.sha256(json.dumps([to_jsonable_python(params), machine], sort_keys=True).encode())
    for path in (*files, *_loaded_sources()):
        digest.update(checksum(path).encode())
    return digest.hexdigest()[:16]


def _loaded_sources() -> list[Path]:
    """List the source files of all loaded modules below the current folder, except those of installed packages."""
    here = f"{Path.cwd()}/"
    packages = tuple(f"{sysconfig.get_path(name)}/" for name in ("stdlib", "purelib", "platlib"))
    names = {getattr(module, "__file__", None) or "" for module in list(sys.modules.values())}
    return sorted(Path(name) for name in names if name.startswith(here) and not name.startswith(packages))


def checksum(path: Path, algorithm: str = "sha256") -> str:
    """Compute the digest of a file by an algorithm of hashlib, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def acquire_run_folder(stage: Path, digest: str) -> tuple[Path, int]:
    """Lock the first folder `stage/DIGEST-N` that no other process has locked; N counts from 1.

    Returns the folder and the descriptor that locks it until the descriptor is closed. Two experiments that differ in a
    later stage make equal runs at the same time, each in a folder of its own. Raises OSError where none can be made.
    """
    stage.mkdir(parents=True, exist_ok=True)
    for number in count(1):
        folder = stage / f"{digest}-{number}"
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            descriptor = _lock(folder)
            if descriptor is not None:
                return folder, descriptor
            if time.monotonic() > deadline:
                break
            time.sleep(0.05)
    raise AssertionError


def _lock(folder: Path) -> int | None:
    """Lock the folder and return the descriptor; None if another process has locked or removed the folder."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
    except (FileExistsError, FileNotFoundError):  # another process removes it at this moment
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), folder.stat()):
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(descriptor)
    return None


def remove_old_runs(work: Path, current: Path) -> None:
    """Remove the folders of finished runs, and for each stage all but the newest folders of interrupted runs.

    Locked folders stay, and so does `current`. Another process may do the same at the same time.
    """
    for stage in (path for path in work.iterdir() if path.is_dir()):
        runs = [path for path in stage.iterdir() if NAME.fullmatch(path.name) and path != current]
        interrupted = [path for path in runs if not (path / FINISHED).exists()]
        newest = sorted(interrupted, key=_modified_at, reverse=True)[:MAX_INTERRUPTED]
        for folder in set(runs) - set(newest):
            descriptor = _lock(folder)
            if descriptor is not None:
                shutil.rmtree(folder, ignore_errors=True)
                os.close(descriptor)


def _modified_at(folder: Path) -> float:
    """Return the time of the last change in seconds; 0 if the folder is gone."""
    try:
        return folder.stat().st_mtime
    except FileNotFoundError:
        return 0.0
