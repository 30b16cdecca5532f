"""The processes that compute a stage together, and sums over them that do not depend on their number.

The processes are the ranks of torch.distributed; without it there is one, of rank 0. Its collectives only move data:
every sum is made here, in one order for any number of processes.
"""

import os
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from lightweight.core import files

FOLDER = "LIGHTWEIGHT_SHARED_FOLDER"  # set in processes that are all on one machine: for what they share in memory
BLOCKS = 64  # of batches, whose sums are added by a tree: more than there are processes


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
    """Map the file of float32 (rows, length) that all processes of this machine have in common."""
    path = f"{os.environ[FOLDER]}/sum-{length}"
    memory = torch.from_file(path, shared=True, size=rows * length, dtype=torch.float32)
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


def agree(fact: bool) -> bool:
    """Tell whether a fact holds in all processes."""
    return largest(0 if fact else 1) == 0
