"""What training took is measured around each epoch and names the file that it is about."""

import hashlib

import pytest
import torch

from lightweight.core.machine import cpu_name
from lightweight.training.resource_usage import load, record


def test_the_cost_names_its_model_and_the_machine(tmp_path):
    path = tmp_path / "model"
    path.write_bytes(b"weights")
    found = record(tmp_path, path, [3.0, 1.0, 2.0], torch.device("cpu"), threads=2)
    md5 = hashlib.md5(b"weights").hexdigest()
    assert found["model_md5"] == md5
    taken = record(tmp_path, path, [], torch.device("cpu"), threads=2)  # by another run, in no epoch
    assert load(tmp_path, md5, 3) == found
    assert load(tmp_path, md5, 0) == taken
    assert load(tmp_path, md5, 2) is None
    assert load(tmp_path, md5[::-1], 3) is None
    assert (found["epochs"], found["seconds_per_epoch"], found["threads"]) == (3, 2.0, 2)
    assert (found["gpu"], found["peak_gpu_memory_bytes"]) == (None, None)
    assert found["cpu"] == cpu_name()
    assert taken["seconds_per_epoch"] is None


PEAK = """
import sys
from pathlib import Path
import torch
from lightweight.training.resource_usage import record
block = torch.ones(int(sys.argv[2]), dtype=torch.uint8)
del block
print(record(Path(sys.argv[1]), Path(sys.argv[1]) / "model", [], torch.device("cpu"), 1)["peak_memory_bytes"])
"""


def test_the_peak_memory_is_that_of_the_process_in_bytes_held_or_not(tmp_path, start_python):
    (tmp_path / "model").touch()
    small, large = (int(start_python(PEAK, tmp_path, size).communicate(timeout=60)[0]) for size in (1, 400_000_000))
    assert large - small == pytest.approx(400e6, rel=0.1)
