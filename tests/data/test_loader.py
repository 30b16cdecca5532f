import os
import signal
import sys
import time

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from lightweight.core.errors import InputError
from lightweight.data import loader
from lightweight.data.loader import count_workers, load_in_order


class Squares(Dataset):
    """Squares of the numbers; even ones take longer, so that workers overtake each other."""

    def __init__(self, fail: int = -1, kill: int = -1) -> None:
        self.fail, self.kill = fail, kill

    def __getitem__(self, number: int) -> np.ndarray | InputError:
        if number == self.kill:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.002 * (number % 2 == 0))
        return InputError(f"item {number}: bad") if number == self.fail else np.array([number**2, os.getpid()])


@pytest.mark.parametrize("workers", ["0", "1", "3"])
def test_items_come_in_order_from_as_many_processes_as_the_environment_says(monkeypatch, workers):
    monkeypatch.setenv("LIGHTWEIGHT_WORKERS", workers)
    squares, processes = zip(*load_in_order(Squares(), 30), strict=True)
    assert [int(square) for square in squares] == [number**2 for number in range(30)]
    found = {int(process) for process in processes}
    assert found == {os.getpid()} if workers == "0" else len(found - {os.getpid()}) == int(workers)


def test_loading_leaves_the_global_random_state_alone(monkeypatch):
    monkeypatch.setenv("LIGHTWEIGHT_WORKERS", "1")
    before = torch.random.get_rng_state()
    list(load_in_order(Squares(), 8))
    assert torch.random.get_rng_state().equal(before)


@pytest.mark.parametrize("workers", ["0", "2"])
def test_bad_input_found_by_a_worker_is_one_line(monkeypatch, workers):
    monkeypatch.setenv("LIGHTWEIGHT_WORKERS", workers)
    with pytest.raises(InputError) as error:
        list(load_in_order(Squares(fail=12), 20))
    assert str(error.value) == "item 12: bad"


@pytest.mark.skipif(sys.platform != "linux", reason="kills a forked process")
def test_a_worker_that_is_killed_is_one_line(monkeypatch):
    monkeypatch.setenv("LIGHTWEIGHT_WORKERS", "2")
    with pytest.raises(InputError) as error:
        list(load_in_order(Squares(kill=12), 20))
    assert str(error.value) == "A process that loads images was killed; the same command goes on from here"


def test_processes_of_a_machine_share_its_cores(monkeypatch):
    monkeypatch.delenv("LIGHTWEIGHT_WORKERS", raising=False)
    monkeypatch.setattr(loader, "usable_cores", lambda: 12)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert count_workers() == 3
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "64")
    assert count_workers() == 1


@pytest.mark.parametrize("value", ["-1", "65", "many"])
def test_another_number_of_workers_is_refused(monkeypatch, value):
    monkeypatch.setenv("LIGHTWEIGHT_WORKERS", value)
    with pytest.raises(InputError) as error:
        count_workers()
    assert str(error.value) == f"environment: LIGHTWEIGHT_WORKERS = {value!r}: must be an integer from 0 to 64"
