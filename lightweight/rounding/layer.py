"""Round the weights of one layer to integers, so that its outputs on calibration images change least.

`nearest` rounds each weight by itself. `gptq` chooses column by column, and the columns that are left make up for the
error (Frantar et al. 2023; the update is that of Optimal Brain Compression, Frantar, Singh and Alistarh 2022).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from lightweight.gram.columns import ReconstructedLayer, merge_weight, split_weight
from lightweight.gram.matmul import exact_matmul
from lightweight.gram.measure import Gram
from lightweight.gram.sweep import sweep
from lightweight.rounding.chooser import Chooser
from lightweight.rounding.grid import Grid, fit_scales
from lightweight.rounding.saturation import saturates

Rounding = Literal["nearest", "gptq"]


@dataclass(frozen=True)
class StoredLayer:
    """Hold a layer as a quantizer has stored it: its grid with scales (M, 1) or (M, K), and integers (M, ...).

    `orders` are the partners of each column whose sums of integers are limited (`saturation.py`), one for each kernel.
    """

    grid: Grid
    integers: Tensor
    orders: Sequence[np.ndarray] = ()


@dataclass(frozen=True)
class RoundedLayer:
    """Hold integers in the shape of a weight, their scales, and the shift (M,) of mean outputs that rounding causes.

    The scales are (M, 1), or (M, K) where blocks of a row have scales of their own. `nearest_error` and `error` are
    changes of the layer's outputs on the calibration images as a share of the outputs, root mean square, where every
    weight is rounded by itself and as rounded here.
    """

    integers: Tensor
    scales: Tensor
    shift: Tensor
    bits: int
    nearest_error: float
    error: float


def round_layer(
    layer: ReconstructedLayer, weight: Tensor, gram: Gram, stored: StoredLayer | None, rounding: Rounding
) -> RoundedLayer:
    """Round a weight, of the shape of the layer's, on the grid of the stored layer; without one, to 4 bits.

    With `nearest`, the integers are those that are stored. Weights that pruning has set to zero stay zero.
    """
    rows, flat = split_weight(layer, weight.double()), weight.double().flatten(1)
    if stored is None:
        diagonal = gram.matrix.diagonal(dim1=-2, dim2=-1)[:, None].expand_as(rows)
        grid = fit_scales(flat, merge_weight(layer, diagonal).flatten(1), 4)
        stored = StoredLayer(grid, grid.integers(flat))
    grid = stored.grid
    own = Grid(split_weight(layer, grid.scales.expand_as(flat)), grid.low, grid.high)
    integers = split_weight(layer, stored.integers.double())
    error = nearest_error = _output_error(rows, integers * own.scales, gram)
    if rounding == "gptq":
        chooser = Chooser(own, rows, stored.orders)
        swept_error = _output_error(rows, sweep(rows, gram.matrix, chooser), gram)
        if swept_error < error and not _exceeds(merge_weight(layer, chooser.integers), stored.orders):
            integers, error = chooser.integers, swept_error
    shift = (rows - integers * own.scales).mul_(gram.mean[:, None]).cumsum(-1)
    shift[..., :-1] = 0  # the last column holds the sum, which stays after merging
    return RoundedLayer(
        merge_weight(layer, integers).to(torch.int8),
        grid.scales.float(),
        merge_weight(layer, shift).flatten(1).sum(1).float(),
        grid.bits,
        nearest_error,
        error,
    )


def _exceeds(integers: Tensor, orders: Sequence[np.ndarray]) -> bool:
    """Return whether a sum of neighbours exceeds the limit, which a column of another block may cause."""
    flat = integers.flatten(1).numpy()
    return any(saturates(flat, order).any() for order in orders)


def _output_error(rows: Tensor, rounded: Tensor, gram: Gram) -> float:
    """Compute the change of a layer's outputs that rounding causes, as a share of the outputs, root mean square."""
    change, whole = (_energy(values, gram) for values in (rows - rounded, rows))
    return float((change / whole).sqrt()) if whole > 0 else 0.0


def _energy(rows: Tensor, gram: Gram) -> Tensor:
    return (exact_matmul(rows, gram.matrix) * rows).flatten().cumsum(0)[-1].clamp_min(0)
