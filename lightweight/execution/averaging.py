"""Averages over batches that processes share out, in one order for any number of processes."""

from collections.abc import Callable

import torch
from torch import Tensor

from lightweight.execution.ranks import map_shared, share

BLOCKS = 64  # runs of batches: more than there are processes


def average(measure: Callable[[int], Tensor], batches: int, width: int) -> Tensor:
    """Average what `measure` returns for the number of each batch, float64 (width,), shared out over the processes.

    The sum has one order for any number of processes: first within each of `BLOCKS` runs of batches, then over these.
    """

    def add(block: int) -> Tensor:
        return sum(map(measure, _of_blocks(block, block + 1, batches)), torch.zeros(width, dtype=torch.float64))

    return map_shared(add, BLOCKS, width).sum(0) / batches


def own_batches(batches: int) -> range:
    """Return the numbers of the batches that `average` measures in this process, in their order."""
    blocks = share(BLOCKS)
    return _of_blocks(blocks.start, blocks.stop, batches)


def _of_blocks(first: int, last: int, batches: int) -> range:
    return range(first * batches // BLOCKS, last * batches // BLOCKS)
