"""Where an artifact was new stands beside it, never in it: commit, changed files, processor, threads, versions.

An entry is about bytes: it stays while they do, whoever makes them again, and is written anew when they change. What
`dvc pull` brings comes with the entry of those who made it, if metrics/provenance.json comes by git.
"""

import hashlib
import platform
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lightweight.core.errors import InputError
from lightweight.core.files import read_json
from lightweight.core.machine import cpu_type, system, versions

SOURCES = ("params.yaml", "dvc.yaml", "stages", "lightweight")  # what decides about bytes and is tracked by git


def update(record: Path, artifacts: Iterable[Path], threads: int) -> dict[str, dict[str, Any]]:
    """The entries of the artifacts: those in `record` whose MD5 is still true, and new ones for the others.

    Raises InputError for a missing artifact or a damaged record.
    """
    known = read_json(record) if record.exists() else {}
    if not isinstance(known, dict) or not all(isinstance(entry, dict) for entry in known.values()):
        raise InputError(f"{record}: must hold one mapping per artifact; delete it to have it written anew")
    made = None
    entries = {}
    for path in artifacts:
        name, md5 = path.as_posix(), checksum(path)
        if known.get(name, {}).get("md5") != md5:
            made = made or origin(threads)
            entries[name] = {"md5": md5, **made}
        else:
            entries[name] = known[name]
    return entries


def origin(threads: int) -> dict[str, Any]:
    """Whatever besides data decides about the bytes that are made here and now."""
    commit, changed = _commit()
    return {
        "commit": commit,
        "changed": changed,
        "python": platform.python_version(),
        "platform": system(),
        "cpu": cpu_type(),
        "threads": threads,
        "versions": versions(),
    }


def checksum(path: Path) -> str:
    """The MD5 by which DVC knows a file. Raises InputError that names a missing one."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; `dvc repro` makes it") from None


def _commit() -> tuple[str | None, list[str] | None]:
    """HEAD and the tracked files of SOURCES that differ from it; None where this folder is no clone of its own."""
    try:
        if _git("rev-parse", "--show-prefix").strip():  # a folder inside another project's clone
            return None, None
        changed = _git("diff", "--name-only", "-z", "HEAD", "--", *SOURCES)
        return _git("rev-parse", "HEAD").strip(), sorted(filter(None, changed.split("\0")))
    except (OSError, subprocess.CalledProcessError):
        return None, None


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], capture_output=True, check=True, text=True).stdout
