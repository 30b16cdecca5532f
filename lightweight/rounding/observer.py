"""Ranges of weights in which no sum of two products is cut off, for training with rounding."""

import torch
from torch import Tensor
from torchao.quantization.pt2e import PerChannelMinMaxObserver

from lightweight.rounding.saturation import LARGEST, all_neighbours


class LimitedSumObserver(PerChannelMinMaxObserver):
    """Observe the range of each channel of a weight by its largest value or sum of two neighbours.

    With steps of that range over 127, neighbours that are both rounded up have a sum of 128 at most.
    """

    def __init__(self, kind: str, shape: tuple[int, ...], groups: int, **settings: object) -> None:
        """Take the arguments of `neighbours`, and the settings of torchao's observers."""
        super().__init__(**settings)
        self.orders = [torch.from_numpy(order) for order in all_neighbours(kind, shape, groups)]

    def forward(self, weight: Tensor) -> Tensor:
        """Note the ranges of a weight and return it."""
        rows = weight.detach().reshape(len(weight), -1)
        reach = rows.abs().amax(dim=1)
        for partner in self.orders:
            paired = partner >= 0
            sums = (rows[:, paired] + rows[:, partner[paired]]).abs()
            reach = torch.maximum(reach, sums.amax(dim=1)) if paired.any() else reach
        self.min_val.resize_(reach.shape).copy_(-reach)
        self.max_val.resize_(reach.shape).copy_(reach)
        return weight
