"""What training took on this machine. It is not reproducible, so it is kept apart, by the MD5 of the trained file."""

import hashlib
import resource
from pathlib import Path
from statistics import median
from typing import Any

import torch

from lightweight.core.files import read_bytes, read_json, write_json
from lightweight.core.machine import cpu_name


def record(folder: Path, model: Path, seconds: list[float], device: torch.device, threads: int) -> dict[str, Any]:
    """Write what training took into `folder`: the median seconds of an epoch, peak memory of this process in bytes."""
    md5 = hashlib.md5(read_bytes(model), usedforsecurity=False).hexdigest()
    noted = {
        "model_md5": md5,
        "epochs": len(seconds),
        "seconds_per_epoch": median(seconds) if seconds else None,
        "peak_memory_bytes": _peak_resident_bytes(),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "peak_gpu_memory_bytes": torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
        "cpu": cpu_name(),
        "threads": threads,
    }
    write_json(_path(folder, md5, len(seconds)), noted)
    return noted


def load(folder: Path, md5: str, epochs: int) -> dict[str, Any] | None:
    """What `record` wrote about the file and the epochs that made it, whatever became of it since; None if nothing.

    Weights that are taken as they are, in no epoch, are the same file as where they were trained.
    """
    path = _path(folder, md5, epochs)
    return read_json(path) if path.exists() else None


def _path(folder: Path, md5: str, epochs: int) -> Path:
    return folder / f"{md5}-{epochs}.json"


def _peak_resident_bytes() -> int:
    try:  # getrusage would count what the process that started this one held
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
