"""Unfinished work has a folder of its own, named by a digest of all it depends on and held by one process at a time."""

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

from lightweight.core.machine import cpu_type, switches, system, versions

NAME = re.compile(r"[0-9a-f]{16}-\d+")
FINISHED = "finished"  # a file in the folder of work whose outputs are written
KEPT = 2  # folders of interrupted work per stage, beside the one in use
WAIT = 2.0  # seconds in which a process that was just killed lets go of its folder


def fingerprint(params: dict[str, Any], files: Iterable[Path]) -> str:
    """A digest of parameters, the contents of `files`, every module of the project that is loaded, and the machine."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    machine = [sys.version, system(), versions(), switches(), cpu_type(), torch.backends.cpu.get_cpu_capability(), gpu]
    digest = hashlib.sha256(json.dumps([to_jsonable_python(params), machine], sort_keys=True).encode())
    for path in (*files, *_code()):
        digest.update(checksum(path).encode())
    return digest.hexdigest()[:16]


def _code() -> list[Path]:
    """The loaded modules that lie in the current folder, those of an environment inside it left out."""
    here, packages = (
        f"{Path.cwd()}/",
        tuple(f"{sysconfig.get_path(name)}/" for name in ("stdlib", "purelib", "platlib")),
    )
    names = {getattr(module, "__file__", None) or "" for module in list(sys.modules.values())}
    return sorted(Path(name) for name in names if name.startswith(here) and not name.startswith(packages))


def checksum(path: Path, algorithm: str = "sha256") -> str:
    """The digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def acquire_run_folder(stage: Path, digest: str) -> tuple[Path, int]:
    """The first folder of this work that no other process holds, and the descriptor that holds it until closed.

    Equal work runs twice at the same time when two experiments differ in a later stage: each has its own folder.
    """
    for number in count(1):
        folder = stage / f"{digest}-{number}"
        deadline = time.monotonic() + WAIT
        while True:
            descriptor = _lock(folder)
            if descriptor is not None:
                return folder, descriptor
            if time.monotonic() > deadline:
                break
            time.sleep(0.05)
    raise AssertionError


def _lock(folder: Path) -> int | None:
    """Hold the folder, or None if another process does, or has just removed it."""
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
    """Remove the folders of finished work, and of each stage all but the newest of interrupted work; not held ones.

    Another process may do the same at the same time.
    """
    for stage in (path for path in work.iterdir() if path.is_dir()):
        runs = [path for path in stage.iterdir() if NAME.fullmatch(path.name) and path != current]
        interrupted = [path for path in runs if not (path / FINISHED).exists()]
        newest = sorted(interrupted, key=_modified_at, reverse=True)[:KEPT]
        for folder in set(runs) - set(newest):
            descriptor = _lock(folder)
            if descriptor is not None:
                shutil.rmtree(folder, ignore_errors=True)
                os.close(descriptor)


def _modified_at(folder: Path) -> float:
    """When, in seconds; 0 if it is gone."""
    try:
        return folder.stat().st_mtime
    except FileNotFoundError:
        return 0.0
