"""Imitation: results of the right shape in place of those that take long to compute, where values do not matter."""

from typing import Any

import torch
from torch import Tensor

from lightweight.tracing.rules import EXPENSIVE


def imitate(func: Any, args: Any, kwargs: Any) -> Any:
    """Execute an operator, but give zeros in place of convolutions and matrix products."""
    if func not in EXPENSIVE:
        return func(*args, **kwargs)
    images = [value for value in args if isinstance(value, Tensor)]
    if func is torch.ops.aten.convolution.default:
        channels, groups = images[0].shape[1], args[8]
        if channels != images[1].shape[0] if args[6] else channels != images[1].shape[1] * groups:
            raise RuntimeError(f"{channels} channels do not fit weights of shape {list(images[1].shape)}")
    result = func(*(value.to("meta") if isinstance(value, Tensor) else value for value in args), **kwargs)
    last = result.dim() == 4 and any(
        value.dim() == 4 and value.is_contiguous(memory_format=torch.channels_last) and not value.is_contiguous()
        for value in images
    )
    order = torch.channels_last if last else torch.contiguous_format
    return torch.zeros(result.shape, dtype=result.dtype, device=images[0].device).contiguous(memory_format=order)
