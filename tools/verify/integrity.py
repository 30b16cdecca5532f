"""Names what is damaged in a workspace: artifacts that dvc.lock does not mean, cache objects that belie their names.

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
from lightweight.reporting.provenance import checksum


def damaged_artifacts(root: Path, scratch: Path) -> list[Path]:
    """Outputs that are there and are not what dvc.lock says, relative to `root`; all of them are read."""
    status = json.loads(_dvc(root, scratch, "status", "--json"))
    changes = (change for stage in status.values() for change in stage if isinstance(change, dict))
    outs = (out for change in changes for out in change.get("changed outs", {}).items())
    return sorted(Path(path) for path, state in outs if state == "modified")


def damaged_objects(root: Path, scratch: Path) -> tuple[list[Path], int]:
    """Objects in the cache of `root`, an absolute path, whose MD5 is not their name; and how many were read."""
    cache = Path(_dvc(root, scratch, "cache", "dir").strip())
    cache = cache.relative_to(root) if cache.is_relative_to(root) else cache
    names = {
        path: (path.parent.name + path.name).removesuffix(".dir") for path in (root / cache).glob("files/md5/??/*")
    }
    objects = {
        path: name for path, name in names.items() if len(name) == 32 and path.is_file()
    }  # not half-written ones
    damaged = sorted(path for path, name in objects.items() if checksum(path) != name)
    return [cache / path.relative_to(root / cache) for path in damaged], len(objects)


def remedy(damaged: list[Path]) -> str:
    """What mends all of them, tried with and without the other copy: DVC makes again what is missing."""
    return f"{shlex.join(['rm', '-rf', *map(str, damaged)])} && dvc repro"


def _dvc(root: Path, scratch: Path, *arguments: str) -> str:
    """What the command prints. Checksums that DVC has noted elsewhere are not believed."""
    environment = os.environ | {"DVC_SITE_CACHE_DIR": str(scratch), "DVC_NO_ANALYTICS": "1"}
    command = [sys.executable, "-m", "dvc", *arguments]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError(f"dvc {' '.join(arguments)}: {' '.join(done.stderr.split())}")
    return done.stdout
