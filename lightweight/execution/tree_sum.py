"""Sums over processes in one order: the bits do not depend on the number of processes that compute the parts."""

import os
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from lightweight.execution.ranks import rank, world_size

FOLDER = "LIGHTWEIGHT_SHARED_FOLDER"  # set in processes that are all on one machine: for what they share in memory


def tree_sum(parts: Iterable[Tensor]) -> Tensor:
    """Add the vectors of all processes by a balanced binary tree, and return the sum in every process.

    Every process gives equally many, a power of two, and the parts of a process stand next to each other in the tree:
    the sum has the same bits for any number of processes. It is valid until the next call.
    """
    mine = _tree_sum_here(parts)
    if world_size() == 1:
        return mine
    on_one_machine = os.environ.get(FOLDER) and mine.device.type == "cpu"
    return _add_in_memory(mine) if on_one_machine else _add_by_messages(mine)


def _add_in_memory(mine: Tensor) -> Tensor:
    """Add vectors through memory that the processes of one machine share: every process adds one piece of all."""
    number, size, length = rank(), world_size(), len(mine)
    memory = _shared_memory(length, size + 1)
    memory[number].copy_(mine)
    dist.barrier()
    piece = slice(number * length // size, (number + 1) * length // size)
    memory[size, piece].copy_(_tree_sum_here(memory[:size, piece]))
    dist.barrier()
    return memory[size]


@cache
def _shared_memory(length: int, rows: int) -> Tensor:
    """Map the file of float32 (rows, length) that all processes of this machine have in common.

    The file is removed as soon as all have it: the memory ends with them, however they end.
    """
    path = Path(os.environ[FOLDER], f"sum-{length}")
    memory = torch.from_file(str(path), shared=True, size=rows * length, dtype=torch.float32)
    dist.barrier()
    if rank() == 0:
        path.unlink()
    return memory.view(rows, length)


def _add_by_messages(mine: Tensor) -> Tensor:
    """Add vectors by collectives that only move data: every process adds one piece of all, and all get its sum."""
    size = world_size()
    length, piece = len(mine), -(-len(mine) // size)
    padded = torch.nn.functional.pad(mine, (0, size * piece - length))
    pieces = torch.empty_like(padded)
    dist.all_to_all_single(pieces, padded)
    dist.all_gather_single(padded, _tree_sum_here(pieces.split(piece)))
    return padded[:length]


def _tree_sum_here(parts: Iterable[Tensor]) -> Tensor:
    """Add 2^n vectors by a balanced binary tree, with at most n + 1 of them in memory."""
    sums: list[tuple[int, Tensor]] = []  # the height of a subtree, and its sum
    for part in parts:
        height = 0
        while sums and sums[-1][0] == height:
            part = sums.pop()[1] + part
            height += 1
        sums.append((height, part))
    assert len(sums) == 1, "the number of parts must be a power of two"
    return sums[0][1]
