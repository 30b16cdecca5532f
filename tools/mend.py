"""Mend what DVC leaves half written when it is killed: dvc.lock, and its own file of locks.

    python -m tools.mend

Says what it did; exit code 1 when something is broken that it cannot mend.

Reads   dvc.lock, work/dvc.lock (the copy that the last stage made before it began), .dvc/tmp/rwlock
Writes  dvc.lock; removes .dvc/tmp/rwlock
"""

import json
from pathlib import Path

from lightweight.core.errors import InputError
from lightweight.core.files import write_bytes
from lightweight.core.yaml import read_yaml
from lightweight.execution.process import run_stage

LOCK, COPY, LOCKS = Path("dvc.lock"), Path("work/dvc.lock"), Path(".dvc/tmp/rwlock")


def main() -> None:
    done = [line for line in (mend_locks(LOCKS), mend_lock(LOCK, COPY)) if line]
    print(*done or ["nothing is broken"], sep="\n")


def mend_locks(path: Path) -> str | None:
    """Remove DVC's file of locks if it is not whole, and say so; DVC makes it anew."""
    if not path.exists() or _is_json(path):
        return None
    path.unlink()
    return f"removed {path}, which was half written"


def mend_lock(path: Path, copy: Path) -> str | None:
    """Bring dvc.lock back from its copy if it is not whole, and say so. Raises InputError where neither is whole."""
    if not path.exists() or _has_stages(path):
        return None
    if not (copy.exists() and _has_stages(copy)):
        rule = f"`git checkout {path}` brings the committed one back"
        raise InputError(f"{path}: half written, and {copy} is no whole copy of it; {rule}")
    write_bytes(path, copy.read_bytes())
    return f"{path} is now the copy that the last stage made before it began"


def _is_json(path: Path) -> bool:
    try:
        return isinstance(json.loads(path.read_bytes()), dict)
    except ValueError:
        return False


def _has_stages(path: Path) -> bool:
    """Tell whether a dvc.lock is whole: YAML to the end of its last line, with stages that have a command."""
    try:
        stages = read_yaml(path)["stages"]
        return path.read_bytes().endswith(b"\n") and all(stage["cmd"] for stage in stages.values())
    except (InputError, TypeError, KeyError, AttributeError):
        return False


if __name__ == "__main__":
    run_stage(main)
