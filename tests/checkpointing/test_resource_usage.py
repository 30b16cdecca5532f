"""The record of a training run has its time and memory, and names the trained file and the machine."""

import hashlib

import pytest
import torch

from lightweight.checkpointing.resource_usage import load, record
from lightweight.core.machine import cpu_name


def test_a_record_is_found_by_the_md5_of_the_model_and_its_epochs(tmp_path):
    path = tmp_path / "model"
    path.write_bytes(b"weights")
    usage = record(tmp_path, path, [3.0, 1.0, 2.0], torch.device("cpu"), threads=2)
    md5 = hashlib.md5(b"weights").hexdigest()
    assert usage["model_md5"] == md5
    untrained = record(tmp_path, path, [], torch.device("cpu"), threads=2)  # of a run that took the same weights
    assert load(tmp_path, md5, 3) == usage
    assert load(tmp_path, md5, 0) == untrained
    assert load(tmp_path, md5, 2) is None
    assert load(tmp_path, md5[::-1], 3) is None
    assert (usage["epochs"], usage["seconds_per_epoch"], usage["threads"]) == (3, 2.0, 2)
    assert (usage["gpu"], usage["peak_gpu_memory_bytes"]) == (None, None)
    assert usage["cpu"] == cpu_name()
    assert untrained["seconds_per_epoch"] is None


PEAK = """
import sys
from pathlib import Path
import torch
from lightweight.checkpointing.resource_usage import record
block = torch.ones(int(sys.argv[2]), dtype=torch.uint8)
del block
print(record(Path(sys.argv[1]), Path(sys.argv[1]) / "model", [], torch.device("cpu"), 1)["peak_memory_bytes"])
"""


def test_the_peak_memory_is_that_of_the_process_in_bytes_even_when_freed(tmp_path, start_python):
    (tmp_path / "model").touch()
    small, large = (int(start_python(PEAK, tmp_path, size).communicate(timeout=60)[0]) for size in (1, 400_000_000))
    assert large - small == pytest.approx(400e6, rel=0.1)
