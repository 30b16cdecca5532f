"""Imitation: results of the right shape in place of those that take long to compute, where values do not matter."""

from typing import Any

import torch
from torch import Tensor

from lightweight.tracing.rules import EXPENSIVE

aten = torch.ops.aten


def imitate(func: Any, args: Any, kwargs: Any) -> Any:
    """Execute an operator, but give zeros in place of convolutions and matrix products.

    Raises RuntimeError where the operator would, because sizes do not fit each other.
    """
    if func not in EXPENSIVE:
        return func(*args, **kwargs)
    if func is aten.convolution.default:
        return _imitate_convolution(*args)
    added, left, right = args[:3] if func in (aten.addmm.default, aten.baddbmm.default) else (None, *args[:2])
    if left.shape[-1] != right.shape[-2] or left.shape[:-2] != right.shape[:-2]:
        raise RuntimeError(f"shapes {list(left.shape)} and {list(right.shape)} cannot be multiplied")
    shape = (*left.shape[:-1], right.shape[-1])
    if added is not None and torch.broadcast_shapes(added.shape, shape) != shape:
        raise RuntimeError(f"a tensor of shape {list(added.shape)} cannot be added to one of shape {list(shape)}")
    return torch.zeros(shape, dtype=left.dtype, device=left.device)


def _imitate_convolution(
    images: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    transposed: bool,
    more: list[int],
    groups: int,
) -> Tensor:
    """Return zeros in the shape and the memory format of a convolution's result."""
    channels, (first, second) = images.shape[1], weight.shape[:2]
    inputs, outputs = (first, second * groups) if transposed else (second * groups, first)
    if channels != inputs or first % groups or (bias is not None and len(bias) != outputs):
        raise RuntimeError(
            f"{channels} channels, weights of shape {list(weight.shape)} and biases do not fit each other"
        )
    sizes = []
    for place, (size, kernel) in enumerate(zip(images.shape[2:], weight.shape[2:], strict=True)):
        step, border, spread, extra = (values[place % len(values)] for values in (stride, padding, dilation, more))
        reach = spread * (kernel - 1) + 1
        sizes.append(
            (size - 1) * step + reach + extra - 2 * border if transposed else (size + 2 * border - reach) // step + 1
        )
    if min(sizes, default=1) < 1:
        raise RuntimeError(f"images of shape {list(images.shape)} are smaller than kernels of {list(weight.shape)}")
    last = images.dim() == 4 and any(
        value.is_contiguous(memory_format=torch.channels_last) and not value.is_contiguous()
        for value in (images, weight)
    )
    result = torch.zeros((images.shape[0], outputs, *sizes), dtype=images.dtype, device=images.device)
    return result.contiguous(memory_format=torch.channels_last) if last else result
