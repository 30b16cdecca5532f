"""The agreement of processes: each computes the same as rank 0, and goes on from what that one has read."""

import hashlib
import json
import os
import platform
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from lightweight.core.errors import InputError
from lightweight.core.machine import package_versions
from lightweight.core.yaml import read_yaml
from lightweight.execution.ranks import rank, world_size


def check_equal(params: Path) -> None:
    """Raise InputError unless this process has the parameters, code, versions and instruction set of rank 0."""
    mine = describe(params)
    content = broadcast(json.dumps(mine).encode())
    first = json.loads(content or b"{}")
    for name, value in mine.items():
        if value != first.get(name):
            rule = f"of process 0 it is {first.get(name)!r}; all machines must compute the same"
            raise InputError(f"machine {os.environ.get('GROUP_RANK', 0)}: {name} = {value!r}: {rule}")


def describe(params: Path) -> dict[str, Any]:
    """Describe what decides about results, by a name for each part that tells where to look."""
    content = read_yaml(params)
    versions = {f"version of {name}": version for name, version in package_versions().items()}
    sections = {f"{params}: {name}": json.dumps(value, default=str) for name, value in content.items()}
    digest = hashlib.sha256()
    for path in sorted(path for folder in ("lightweight", "stages") for path in Path(folder).rglob("*.py")):
        digest.update(path.as_posix().encode() + path.read_bytes())
    capability = torch.backends.cpu.get_cpu_capability()
    return {
        **sections,
        "code of lightweight and stages": digest.hexdigest()[:12],
        "version of Python": platform.python_version(),
        **versions,
        "instruction set": capability,
    }


def broadcast(content: bytes | None) -> bytes | None:
    """Give the bytes that rank 0 has, or None, to all processes."""
    if world_size() == 1:
        return content
    length = torch.tensor([-1 if content is None else len(content)])
    dist.broadcast(length, 0)
    if length.item() < 0:
        return None
    data = torch.empty(int(length.item()), dtype=torch.uint8)
    if rank() == 0:
        data = torch.frombuffer(bytearray(content or b""), dtype=torch.uint8) if content else data
    dist.broadcast(data, 0)
    return data.numpy().tobytes()
