"""Fake quantization of weights in which no CPU cuts off a sum of products, for training with rounding."""

from typing import Any

import torch
from torch import Tensor
from torchao.quantization.pt2e import FakeQuantize, PerChannelMinMaxObserver

from lightweight.rounding.saturation import all_neighbours


class LimitedSumObserver(PerChannelMinMaxObserver):
    """Observe the range of each channel of a weight by its largest value or sum of two neighbours.

    With 127 steps in that range, neighbours that are both rounded up have a sum of 128 at most.
    """

    def __init__(self, shape: tuple[int, ...], groups: int, **settings: Any) -> None:
        """Take the shape of a weight, the groups of its convolution, and the settings of torchao's observers."""
        super().__init__(**settings)
        kind = "Conv" if len(shape) > 2 else "Gemm"
        self.orders = [torch.from_numpy(order) for order in all_neighbours(kind, shape, groups)]

    def forward(self, weight: Tensor) -> Tensor:
        """Note the range of a weight as it is now, and return the weight."""
        rows = weight.detach().flatten(1)
        sums = [rows[:, order >= 0] + rows[:, order[order >= 0]] for order in self.orders]
        reach = torch.cat([rows, *sums], dim=1).abs().amax(dim=1)
        self.min_val.resize_(reach.shape).copy_(-reach)
        self.max_val.resize_(reach.shape).copy_(reach)
        return weight


class LimitedSumFakeQuantize(FakeQuantize):
    """Round a weight in steps that always follow from its values of that moment."""

    def __init__(self, shape: tuple[int, ...], groups: int, **settings: Any) -> None:
        """Take the arguments of the observer, and the settings of torchao's fake quantization."""
        super().__init__(LimitedSumObserver.with_args(shape=shape, groups=groups), **settings)

    def enable_observer(self, enabled: bool = True) -> None:
        """Stay switched on: steps that are older than the weights could be too narrow."""
