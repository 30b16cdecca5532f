"""Run a stage and note the project files that it opens: `python -m tests.audit stages.train LOG`.

A file counts as read when Python opens it, and as written when its temporary twin is renamed or linked to it.
"""

import json
import runpy
import sys
from pathlib import Path

ROOT = Path.cwd()
read: set[str] = set()
written: set[str] = set()


def inside(name: object) -> str | None:
    path = Path(str(name)).absolute()
    if not path.is_relative_to(ROOT) or path.suffix in (".py", ".tmp") or path.parent.name == "__pycache__":
        return None
    return path.relative_to(ROOT).as_posix()


def hook(event: str, arguments: tuple) -> None:
    if event == "open" and isinstance(arguments[0], str | Path):
        read.add(inside(arguments[0]))
    elif event in ("os.rename", "os.link"):
        written.add(inside(arguments[1]))


if __name__ == "__main__":
    stage, log = sys.argv[1:]
    sys.addaudithook(hook)
    try:
        runpy.run_module(stage, run_name="__main__")
    finally:
        noted = {"read": sorted(read - {None} - written), "written": sorted(written - {None})}
        sys.stdout.flush()
        Path(log).write_text(json.dumps(noted))
