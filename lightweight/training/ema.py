"""EMA: the exponential moving average of the weights over all steps of training (Polyak and Juditsky 1992)."""

from functools import partial

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


def make_ema(model: nn.Module, decay: float) -> AveragedModel:
    """Make a moving average of the weights and statistics of `model`, which `update_parameters(model)` updates."""
    return AveragedModel(model, multi_avg_fn=partial(_update_average, decay=decay), use_buffers=True)


@torch.no_grad()
def _update_average(average: list[Tensor], current: list[Tensor], updates: Tensor, decay: float) -> None:
    """Move the average towards the current weights and statistics; integers, such as counters, are copied.

    The decay at update n is min(decay, (1 + n) / (10 + n)): it begins low, so that also a short run forgets the weights
    of its first steps.
    """
    if not average[0].is_floating_point():
        torch._foreach_copy_(average, current)
        return
    number = int(updates)
    torch._foreach_lerp_(average, current, 1 - min(decay, (1 + number) / (10 + number)))
