"""Integer weights whose products no CPU cuts off.

x86 CPUs without VNNI multiply two neighbouring activations, uint8, by their weights, int8, and cut the sum of the two
products at 16 bits (vpmaddubsw). As activations reach 255, no sum is cut if and only if |a + b| <= 128 for every two
neighbouring weights. Which weights are neighbours was found by experiment, with ONNX Runtime 1.31 and OpenVINO 2026.4.
"""

from collections.abc import Sequence

import numpy as np

LARGEST_SUM = 128  # 255 * 128 fits into 16 bits, 255 * 129 does not
LARGEST = 127
STEP_WIDTHS = 16  # that are tried for a row, from the one without the limit to the one at which no sum exceeds it
VALUES_AT_A_TIME = 2**20


def neighbours(kind: str, shape: Sequence[int], groups: int = 1, padded: bool = False) -> np.ndarray:
    """Return the partner of every column of a weight, -1 for none: a column is a weight of one output.

    `kind` and `shape` are Conv (M, C/groups, kH, kW), whose columns are its flat last dimensions, MatMul (K, N), or
    Gemm (N, K) for a transposed weight. The kernels of a convolution walk over positions, and over channels at each;
    the 1st and 2nd, the 3rd and 4th weight on the way are neighbours. Depthwise convolutions add in 32 bits. With
    `padded`, an odd number of channels leaves the last one of each position alone: OpenVINO does so without groups.
    """
    if kind != "Conv":
        columns = shape[0] if kind == "MatMul" else shape[1]
        return _pair(np.arange(columns), columns)
    outputs, channels, *kernel = shape
    if channels == 1 < groups == outputs:
        return np.full(np.prod(kernel), -1)
    order = np.arange(np.prod(shape[1:])).reshape(channels, -1).T
    return _pair(order[:, : channels // 2 * 2] if padded else order, order.size)


def _pair(order: np.ndarray, columns: int) -> np.ndarray:
    """Make partners of every two columns that follow one another in `order`."""
    partner = np.full(columns, -1)
    pairs = order.reshape(-1)[: order.size // 2 * 2].reshape(-1, 2)
    partner[pairs] = pairs[:, ::-1]
    return partner


def all_neighbours(kind: str, shape: Sequence[int], groups: int = 1) -> list[np.ndarray]:
    """Return the partners of every column in ONNX Runtime, and those in OpenVINO where they are others."""
    orders = [neighbours(kind, shape, groups, padded) for padded in ((False, True) if groups == 1 else (False,))]
    return orders if len(orders) > 1 and (orders[0] != orders[1]).any() else orders[:1]


def saturates(integers: np.ndarray, partner: np.ndarray) -> np.ndarray:
    """Tell for each row of integers (rows, columns) whether a sum of products can be cut off."""
    first, second = _pairs(partner)
    return (np.abs(integers[:, first].astype(np.int32) + integers[:, second]) > LARGEST_SUM).any(axis=1)


def limit_sums(
    integers: np.ndarray,
    partner: np.ndarray,
    importance: np.ndarray | None = None,
    exact: np.ndarray | None = None,
) -> np.ndarray:
    """Lower integers (rows, columns) so that no sum of two partners exceeds the limit, by the least squared error.

    Errors are in steps from `exact` (rows, columns), what the integers were rounded from, by default from themselves; a
    column weighs as much as its `importance` (columns,). All other integers stay. As none grows in size, limits of
    several kinds of partners can be kept one after another.
    """
    first, second = _pairs(partner)
    limited = integers.astype(np.int32)
    a, b = limited[:, first], limited[:, second]
    sign = np.sign(a + b)
    excess = np.maximum(np.abs(a + b) - LARGEST_SUM, 0)
    weights = np.ones(len(partner)) if importance is None else importance
    share = weights[first] / (weights[first] + weights[second])
    errors = np.zeros(limited.shape) if exact is None else limited - exact
    # With a lowered by x and b by the rest, the error is share (e - x)^2 + (1 - share) (f - excess + x)^2.
    x = share * sign * errors[:, first] + (1 - share) * (excess - sign * errors[:, second])
    lowered = np.clip(np.rint(x), 0, excess).astype(np.int32)
    limited[:, first] -= sign * lowered
    limited[:, second] -= sign * (excess - lowered)
    return limited


def round_rows(
    weights: np.ndarray, integers: np.ndarray, scales: np.ndarray, orders: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray, int]:
    """Round the rows anew in which a sum can be cut off: return integers, scales and how many integers were lowered.

    `weights` (rows, columns) were rounded to `integers` in steps of `scales` (rows,). In the rows concerned, limited by
    each of `orders`, steps become as wide as the squared error is least: wider steps round all of a row more coarsely,
    narrower ones lower more of its large neighbours. All other rows stay.
    """
    integers, scales, moved = integers.copy(), scales.copy(), 0
    rows = np.flatnonzero(np.any([saturates(integers, order) for order in orders], axis=0))
    for part in np.array_split(rows, -(-rows.size * weights.shape[1] // VALUES_AT_A_TIME)) if rows.size else []:
        integers[part], scales[part], count = _search_steps(weights[part].astype(np.float64), scales[part], orders)
        moved += count
    return integers, scales, moved


def _search_steps(
    weights: np.ndarray, scales: np.ndarray, orders: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray, int]:
    sums = [np.abs(weights[:, first] + weights[:, second]) for first, second in map(_pairs, orders)]
    reach = np.concatenate(sums, axis=1).max(axis=1)
    widest = np.maximum(scales, reach / LARGEST_SUM)
    least = np.full(len(weights), np.inf)
    best, steps, moved = np.zeros(weights.shape, np.int32), scales.copy(), np.zeros(len(weights), int)
    for part in np.linspace(0, 1, STEP_WIDTHS):
        step = (scales + part * (widest - scales)).astype(scales.dtype)  # as it will be stored
        exact = weights / step[:, None]
        rounded = limited = np.clip(np.rint(exact), -LARGEST, LARGEST).astype(np.int32)
        for order in orders:
            limited = limit_sums(limited, order, exact=exact)
        error = np.square((limited - exact) * step[:, None]).sum(axis=1)
        better = error < least
        least[better], best[better], steps[better] = error[better], limited[better], step[better]
        moved[better] = (limited != rounded)[better].sum(axis=1)
    return best, steps, int(moved.sum())


def _pairs(partner: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """List the pairs of columns once, as the lower and the higher column of each."""
    first = np.flatnonzero(partner > np.arange(len(partner)))
    return first, partner[first]
