"""The inputs of a layer as columns: what one output position of a convolution or linear layer multiplies by weights.

Columns stand in the order of `weight.flatten(1)`: input channel, then row and column of the kernel.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

ReconstructedLayer = nn.Conv2d | nn.Linear
MAX_COLUMNS = 4608  # of a layer whose inputs are correlated with each other; a wider one is split into blocks


def count_blocks(layer: ReconstructedLayer) -> int:
    """Return into how many blocks of equal width the columns of each group of a layer are split."""
    columns = layer.weight[0].numel()
    return next(blocks for blocks in range(1, columns + 1) if columns % blocks == 0 and columns / blocks <= MAX_COLUMNS)


def gram_shape(layer: ReconstructedLayer) -> tuple[int, int]:
    """Return how many Gram matrices a layer has, one for each block of each group, and how many columns each has."""
    groups = layer.groups if isinstance(layer, nn.Conv2d) else 1
    blocks = count_blocks(layer)
    return groups * blocks, layer.weight[0].numel() // blocks


def split_weight(layer: ReconstructedLayer, weight: Tensor) -> Tensor:
    """Arrange a weight (M, ...) as rows for each Gram matrix: (G, rows, K). `merge_weight` is the inverse."""
    groups = layer.groups if isinstance(layer, nn.Conv2d) else 1
    rows = weight.reshape(groups, len(weight) // groups, count_blocks(layer), -1)
    return rows.transpose(1, 2).flatten(0, 1)


def merge_weight(layer: ReconstructedLayer, rows: Tensor) -> Tensor:
    """Arrange rows (G, rows, K) as the weight (M, ...) that they were split from."""
    groups = layer.groups if isinstance(layer, nn.Conv2d) else 1
    parts = rows.reshape(groups, count_blocks(layer), rows.shape[1], -1).transpose(1, 2)
    return parts.reshape(layer.weight.shape)


@dataclass(frozen=True)
class Window:
    """Describe how the kernel of a convolution moves over its inputs, as ATen is told: rows and columns."""

    stride: list[int]
    padding: list[int]
    dilation: list[int]


def input_columns(layer: ReconstructedLayer, inputs: Tensor, max_positions: int, window: Window | None) -> Tensor:
    """Return at most about `max_positions` columns of the inputs of a layer: (G, K, positions).

    A convolution takes inputs (N, C, H, W) and moves its window over them, a linear layer takes inputs (..., K).
    Positions are taken at equal distances. The distance shares no factor with the positions of an image, so that they
    lie at other places in every image.
    """
    if window is None:
        positions = inputs.reshape(-1, inputs.shape[-1])
        columns = positions[:: _step(len(positions), 1, max_positions)].t()
    else:
        columns = _patches(inputs, layer.weight.shape[2:], window, max_positions)
    number, width = gram_shape(layer)
    return columns.reshape(number, width, -1)


def _patches(inputs: Tensor, kernel: Sequence[int], window: Window, max_positions: int) -> Tensor:
    """Return what a window covers at some of its positions on inputs (N, C, H, W): (C * kernel, positions)."""
    padded = functional.pad(inputs, [window.padding[axis] for axis in (1, 1, 0, 0)])
    reaches = [dilation * (size - 1) for dilation, size in zip(window.dilation, kernel, strict=True)]
    height, width = (
        (side - reach - 1) // stride + 1
        for side, reach, stride in zip(padded.shape[2:], reaches, window.stride, strict=True)
    )
    each = height * width
    places = torch.arange(0, len(inputs) * each, _step(len(inputs) * each, each, max_positions))
    starts = places % each // width, places % width
    rows, columns = (
        start[:, None] * stride + torch.arange(size) * dilation
        for start, stride, size, dilation in zip(starts, window.stride, kernel, window.dilation, strict=True)
    )
    patches = padded[(places // each)[:, None, None], :, rows[:, :, None], columns[:, None, :]]
    return patches.permute(3, 1, 2, 0).flatten(0, 2)


def _step(positions: int, each: int, max_positions: int) -> int:
    """Return the distance of the positions to take, which has no common factor with those of `each` image."""
    step = math.ceil(positions / max_positions)
    while math.gcd(step, each) > 1:
        step += 1
    return step
