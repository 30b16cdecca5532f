"""Damage in a workspace: artifacts that are not those of dvc.lock, cache objects whose MD5 is not their name.

DVC trusts a file whose size and time did not change, and every cache object that is write-protected: it does not see
a flipped bit, and even puts a damaged object in place of the good file that a stage has just written.
"""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

from lightweight.core.errors import InputError
from lightweight.reporting.provenance import md5_of_file

MD5_DIGITS = 32


def find_damaged_artifacts(root: Path, state: Path) -> list[Path]:
    """Find the outputs below `root` that are there and are not what dvc.lock says, by reading all of them.

    `state` is an empty folder for DVC's notes. Returns paths relative to `root`.
    """
    status = json.loads(_run_dvc(root, state, "status", "--json"))
    changes = (change for stage in status.values() for change in stage if isinstance(change, dict))
    outs = (out for change in changes for out in change.get("changed outs", {}).items())
    return sorted(Path(path) for path, change in outs if change == "modified")


def find_damaged_objects(root: Path, state: Path) -> tuple[list[Path], int]:
    """Find the objects in the cache of `root`, an absolute path, whose MD5 is not their name; and count those read."""
    cache = find_cache(root, state)
    paths = (root / cache).glob("files/md5/??/*")
    objects = [path for path in paths if len(_name(path)) == MD5_DIGITS and path.is_file()]  # not half-written
    damaged = sorted(path for path in objects if is_damaged(path))
    return [cache / path.relative_to(root / cache) for path in damaged], len(objects)


def find_cache(root: Path, state: Path) -> Path:
    """Find DVC's cache, which users may have moved: relative to `root`, an absolute path, where it lies below it."""
    cache = Path(_run_dvc(root, state, "cache", "dir").strip())
    return cache.relative_to(root) if cache.is_relative_to(root) else cache


def find_object(cache: Path, md5: str) -> Path:
    """Return the path of the object that dvc.lock or the list of a folder names, whether it is there or not."""
    return cache / "files/md5" / md5[:2] / md5[2:]


def is_damaged(path: Path) -> bool:
    """Tell whether the MD5 of an object of the cache is not its name."""
    return md5_of_file(path) != _name(path)


def _name(path: Path) -> str:
    """Return the MD5 that the path of an object says."""
    return (path.parent.name + path.name).removesuffix(".dir")


def repair_command(damaged: list[Path]) -> str:
    """Write the command that mends the damaged files: it removes them, and DVC makes again what is missing.

    The tests run it with and without an undamaged copy of the same content.
    """
    return f"{shlex.join(['rm', '-rf', *map(str, damaged)])} && dvc repro"


def _run_dvc(root: Path, state: Path, *arguments: str) -> str:
    """Run DVC and return its output; `state` takes the place of the checksums that DVC has noted elsewhere.

    Raises InputError when the command fails.
    """
    environment = os.environ | {"DVC_SITE_CACHE_DIR": str(state), "DVC_NO_ANALYTICS": "1"}
    command = [sys.executable, "-m", "dvc", *arguments]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError(f"dvc {' '.join(arguments)}: {' '.join(done.stderr.split())}")
    return done.stdout
