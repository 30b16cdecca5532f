"""The processes that compute a stage together: who they are, what each computes, and how they exchange results.

The processes are the ranks of torch.distributed; without it there is one, of rank 0. Sums that round are made in one
order for any number of processes, by tree_sum.py and averaging.py.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from lightweight.core import files


def rank() -> int:
    """Return the number of this process among those that compute the stage, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Return the number of processes that compute the stage."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_writer() -> bool:
    """Tell whether this process writes files: one on every machine does, the others only compute."""
    return not files.read_only


def share(total: int) -> range:
    """Return the part of `range(total)` that is this process's to compute: parts are contiguous and nearly equal."""
    number, size = rank(), world_size()
    return range(number * total // size, (number + 1) * total // size)


def merge_rows(rows: Tensor) -> Tensor:
    """Fill in the rows that other processes have computed, in place; each row is zero in all processes but one."""
    if world_size() > 1:
        dist.all_reduce(rows)  # x + 0 = x: the order of these sums does not matter
    return rows


def largest(number: int) -> int:
    """Return the largest of the numbers that all processes give."""
    numbers = torch.tensor([number])
    if world_size() > 1:
        dist.all_reduce(numbers, dist.ReduceOp.MAX)
    return int(numbers.item())


def map_shared(function: Callable[[int], Any], total: int, width: int) -> Tensor:
    """Compute rows of `width` numbers with a function of the row's number, shared out over the processes.

    Returns all rows, float64 (total, width) on the CPU, in every process.
    """
    rows = torch.zeros(total, width, dtype=torch.float64)
    for number in share(total):
        rows[number] = torch.as_tensor(function(number), dtype=torch.float64)
    return merge_rows(rows)


def agree(fact: bool) -> bool:
    """Tell whether a fact holds in all processes."""
    return largest(0 if fact else 1) == 0
