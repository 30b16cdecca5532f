"""Grids of integers for weights: scales for rows or for blocks of a row, and the least and largest integer."""

from dataclasses import dataclass

import torch
from torch import Tensor

SHRINKING = [1 - 0.02 * step for step in range(26)]  # of the largest weight, which the outermost integer stands for


@dataclass(frozen=True)
class Grid:
    """Hold the scales, float64, of weights, which take the values scale times an integer from `low` to `high`.

    The scales are (G, rows, K) for rows of weights (G, rows, K), or (M, K) or (M, 1) for a whole layer.
    """

    scales: Tensor
    low: int
    high: int

    @property
    def bits(self) -> int:
        """Return the number of bits that integers take."""
        return self.high.bit_length() + 1

    def integers(self, weights: Tensor) -> Tensor:
        """Round weights to the nearest integers of the grid."""
        return (weights / self.scales).round_().clamp_(self.low, self.high)

    def nearest(self, weights: Tensor) -> Tensor:
        """Round weights to the nearest values of the grid."""
        return self.integers(weights).mul_(self.scales)


def fit_scales(weights: Tensor, importance: Tensor, bits: int) -> Grid:
    """Find the scale of each row of weights (M, K), on a symmetric grid of so many bits, at which rounding costs least.

    The cost is the squared error, weighted by the importance (M, K) of each weight. Scales are rounded to float32, in
    which the file stores them.
    """
    high = 2 ** (bits - 1) - 1
    largest = weights.abs().amax(-1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny) / high
    best, least = largest, torch.full_like(largest, torch.inf)
    for share in SHRINKING:
        scales = (largest * share).float().double()
        error = Grid(scales, -high, high).nearest(weights).sub_(weights)
        cost = error.square_().mul_(importance).cumsum(-1)[..., -1:]
        best, least = torch.where(cost < least, scales, best), torch.minimum(cost, least)
    return Grid(best, -high, high)
