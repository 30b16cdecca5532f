"""Loading ahead: items of a torch data set are computed in other processes, and come out in their order.

LIGHTWEIGHT_WORKERS   processes that load for each process that computes; 0 loads in that process itself
"""

import os
import re
import signal
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from lightweight.core.errors import InputError
from lightweight.execution.machines import read_number, usable_cores
from lightweight.execution.process import die_with_parent

AHEAD = 2  # items that every worker loads before they are asked for


def count_workers() -> int:
    """Count the workers of this process: its share of the cores, or as the environment says. Raises InputError."""
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # of this stage on this machine; torchrun sets it
    return read_number("LIGHTWEIGHT_WORKERS", max(1, usable_cores() // processes), 0, 64)


def load_in_order(items: Dataset[Any], count: int) -> Iterator[Any]:
    """Yield the first `count` items, in order; few are loaded here. The number of workers enters no result.

    Items come through pipes: they must hold NumPy arrays and no tensors, which torch would pass through sockets and
    shared memory. Raises InputError when an item is one, or a worker was killed.
    """
    workers = min(count_workers(), count // (2 * AHEAD))
    with warnings.catch_warnings(action="ignore"):  # of more workers than cores, which the user has asked for
        loader = iter(
            DataLoader(
                items,
                batch_size=None,
                sampler=range(count),
                num_workers=workers,
                prefetch_factor=AHEAD if workers else None,
                collate_fn=_unchanged,
                worker_init_fn=_end_with_parent,
                generator=torch.Generator(),  # or the global one would give the base seed of the workers
            )
        )
    try:
        for item in loader:
            if isinstance(item, InputError):
                raise item
            yield item
    except RuntimeError as error:
        if not re.match(r"DataLoader worker .* (is killed|exited unexpectedly)", str(error)):
            raise
        raise InputError("A process that loads images was killed; the same command goes on from here") from None


def _unchanged(item: Any) -> Any:
    """Return an item as it is, and not as a tensor."""
    return item


def _end_with_parent(number: int) -> None:
    """Let a worker end with the process that it loads for, which alone answers to Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with_parent()
