"""Round the weights of one layer to integers, so that its outputs on calibration images change least.

`nearest` rounds each weight by itself. `gptq` chooses column by column, and the columns that are left make up for the
error (Frantar et al. 2023; the update is that of Optimal Brain Compression, Frantar, Singh and Alistarh 2022).
"""

from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from lightweight.gram.columns import ReconstructedLayer, merge_weight, split_weight
from lightweight.gram.matmul import exact_matmul
from lightweight.gram.measure import Gram
from lightweight.gram.sweep import sweep
from lightweight.rounding.grid import Grid, fit_scales

Rounding = Literal["nearest", "gptq"]


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
    layer: ReconstructedLayer, weight: Tensor, gram: Gram, grid: Grid | None, rounding: Rounding
) -> RoundedLayer:
    """Round a weight, of the shape of the layer's, on a grid of scales (M, 1) or (M, K); without one, to 4 bits.

    Weights that pruning has set to zero stay zero.
    """
    rows, flat = split_weight(layer, weight.double()), weight.double().flatten(1)
    if grid is None:
        diagonal = gram.matrix.diagonal(dim1=-2, dim2=-1)[:, None].expand_as(rows)
        grid = fit_scales(flat, merge_weight(layer, diagonal).flatten(1), 4)
    own = Grid(split_weight(layer, grid.scales.expand_as(flat)), grid.low, grid.high)
    rounded = nearest = own.nearest(rows)
    error = nearest_error = _output_error(rows, nearest, gram)
    if rounding == "gptq":
        swept = sweep(rows, gram.matrix, partial(_choose, own, rows != 0))
        if (swept_error := _output_error(rows, swept, gram)) < error:
            rounded, error = swept, swept_error
    shift = (rows - rounded).mul_(gram.mean[:, None]).cumsum(-1)
    shift[..., :-1] = 0  # the last column holds the sum, which stays after merging
    return RoundedLayer(
        merge_weight(layer, own.integers(rounded)).to(torch.int8),
        grid.scales.float(),
        merge_weight(layer, shift).flatten(1).sum(1).float(),
        grid.bits,
        nearest_error,
        error,
    )


def _choose(grid: Grid, kept: Tensor, targets: Tensor, columns: Tensor, costs: Tensor) -> Tensor:
    """Round targets (G, rows) of columns (G,) to the nearest values of the grid; weights that were zero stay zero."""
    matrices = torch.arange(len(columns))
    own = Grid(grid.scales[matrices, :, columns], grid.low, grid.high)
    return own.nearest(targets) * kept[matrices, :, columns]


def _output_error(rows: Tensor, rounded: Tensor, gram: Gram) -> float:
    """Compute the change of a layer's outputs that rounding causes, as a share of the outputs, root mean square."""
    change, whole = (_energy(values, gram) for values in (rows - rounded, rows))
    return float((change / whole).sqrt()) if whole > 0 else 0.0


def _energy(rows: Tensor, gram: Gram) -> Tensor:
    return (exact_matmul(rows, gram.matrix) * rows).flatten().cumsum(0)[-1].clamp_min(0)
