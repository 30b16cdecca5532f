"""The time and memory that training needed on this machine.

They are not reproducible, so they are recorded outside of the outputs of the stage, by the MD5 of the trained file.
"""

import resource
from pathlib import Path
from statistics import median
from typing import Any

import torch

from lightweight.checkpointing.run_folder import checksum
from lightweight.core.files import read_json, write_json
from lightweight.core.machine import cpu_name


def record(folder: Path, model: Path, seconds: list[float], device: torch.device, threads: int) -> dict[str, Any]:
    """Record in `folder` the time and memory that training the file `model` needed, and return the record.

    `seconds` are those of each epoch, of which the median is recorded; the peak memory is that of this process.
    """
    md5 = checksum(model, "md5")
    usage = {
        "model_md5": md5,
        "epochs": len(seconds),
        "seconds_per_epoch": median(seconds) if seconds else None,
        "peak_memory_bytes": _peak_resident_bytes(),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "peak_gpu_memory_bytes": torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
        "cpu": cpu_name(),
        "threads": threads,
    }
    write_json(_path(folder, md5, len(seconds)), usage)
    return usage


def load(folder: Path, md5: str, epochs: int) -> dict[str, Any] | None:
    """Load the record of a trained file by its MD5 and the number of its epochs; None if there is none.

    The number distinguishes the run that trained the file from a run that took the same weights without training.
    """
    path = _path(folder, md5, epochs)
    return read_json(path) if path.exists() else None


def _path(folder: Path, md5: str, epochs: int) -> Path:
    return folder / f"{md5}-{epochs}.json"


def _peak_resident_bytes() -> int:
    """Return the peak memory of this process in bytes."""
    try:  # getrusage counts the memory of the parent at the fork as well
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
