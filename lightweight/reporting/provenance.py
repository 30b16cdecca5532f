"""The record of who first made the bytes of each artifact: commit, changed files, processor, threads, versions.

The record stands beside the artifacts and never in them, because equal inputs must give equal bytes. An entry stays
while the bytes of its artifact do, whoever makes them again, and is written anew when they change. An artifact that
`dvc pull` brings keeps the entry of its maker, if metrics/provenance.json comes by git.
"""

import hashlib
import platform
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lightweight.core.errors import InputError
from lightweight.core.files import read_json
from lightweight.core.machine import cpu_type, package_versions, platform_name

SOURCES = ("params.yaml", "dvc.yaml", "stages", "lightweight")  # files in git that decide about the bytes
Entries = dict[str, dict[str, Any]]  # by the path of the artifact


def update_record(record: Path, artifacts: Iterable[Path], threads: int, processes: int | None = None) -> Entries:
    """Return the entries of the artifacts: those of `record` whose MD5 still matches, and new ones for the others.

    The entries are by path, and nothing is written. Raises InputError for a missing artifact or a damaged record.
    """
    known = read_json(record) if record.exists() else {}
    if not isinstance(known, dict) or not all(isinstance(entry, dict) for entry in known.values()):
        raise InputError(f"{record}: must hold one mapping per artifact; delete it to have it written anew")
    origin = None
    entries = {}
    for path in artifacts:
        name, md5 = path.as_posix(), md5_of_file(path)
        if known.get(name, {}).get("md5") != md5:
            origin = origin or describe_origin(threads, processes)
            entries[name] = {"md5": md5, **origin}
        else:
            entries[name] = known[name]
    return entries


def describe_origin(threads: int, processes: int | None = None) -> dict[str, Any]:
    """Describe what determines results beside the data; `processes`, which train, only if results depend on them."""
    commit, changed = _commit()
    return {
        "commit": commit,
        "changed": changed,
        "python": platform.python_version(),
        "platform": platform_name(),
        "cpu": cpu_type(),
        "threads": threads,
        **({} if processes is None else {"processes": processes}),
        "versions": package_versions(),
    }


def md5_of_file(path: Path) -> str:
    """Compute the MD5 by which DVC knows a file. Raises InputError that names a missing file."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; `dvc repro` makes it") from None


def _commit() -> tuple[str | None, list[str] | None]:
    """Return HEAD and the files of SOURCES that differ from HEAD; None where this folder is no clone of its own."""
    try:
        if _git("rev-parse", "--show-prefix").strip():  # a folder inside another project's clone
            return None, None
        changed = _git("diff", "--name-only", "-z", "HEAD", "--", *SOURCES)
        return _git("rev-parse", "HEAD").strip(), sorted(filter(None, changed.split("\0")))
    except (OSError, subprocess.CalledProcessError):
        return None, None


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], capture_output=True, check=True, text=True).stdout
