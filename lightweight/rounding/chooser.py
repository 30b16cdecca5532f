"""The chooser rounds the columns of a layer one after another, for `gram.sweep`, within the limits of a file."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from lightweight.rounding.grid import Grid
from lightweight.rounding.saturation import LARGEST_SUM


class Chooser:
    """Round targets to the nearest values of a grid; weights that pruning has set to zero stay zero.

    No sum of two integers of neighbouring columns exceeds the limit of `saturation.py`: what is left for a column
    follows from its partners that were chosen before.
    """

    def __init__(self, grid: Grid, rows: Tensor, orders: Sequence[np.ndarray]) -> None:
        """Take a grid of scales (G, rows, K), weights (G, rows, K), and the partner of each column, by kernel."""
        self.grid, self.kept = grid, rows != 0
        self.partners = [_by_matrix(order, rows) for order in orders]
        self.integers = torch.zeros_like(rows)  # a column that is not chosen yet leaves its partner free
        self.matrices = torch.arange(len(rows))

    def __call__(self, targets: Tensor, columns: Tensor, costs: Tensor) -> Tensor:
        """Choose values for the columns (G,) from their targets (G, rows)."""
        here = self.matrices, slice(None), columns
        scales = self.grid.scales[here]
        integers = Grid(scales, self.grid.low, self.grid.high).integers(targets) * self.kept[here]
        for partners in self.partners:
            partner = partners[self.matrices, columns]
            taken = self.integers[self.matrices, :, partner.clamp_min(0)] * (partner >= 0)[:, None]
            integers = torch.minimum(torch.maximum(integers, -LARGEST_SUM - taken), LARGEST_SUM - taken)
        self.integers[here] = integers
        return integers * scales


def _by_matrix(order: np.ndarray, rows: Tensor) -> Tensor:
    """Arrange partners of all columns for each matrix (G, K); one that stands in another block counts as none."""
    number, columns = len(rows), rows.shape[-1]
    blocks = len(order) // columns
    local = torch.from_numpy(order).view(blocks, columns) - columns * torch.arange(blocks)[:, None]
    return local.masked_fill((local < 0) | (local >= columns), -1).repeat(number // blocks, 1)
