"""Matrix products that have the same bits on every CPU and for every number of threads.

A BLAS adds products in an order that depends on the CPU, and so rounds differently. Here the matrices are split into
integers that are small enough for every sum to be exact in float64, whatever its order (the splitting of Ozaki et al.
2012). Everything else, such as scaling by powers of two, is elementwise, which IEEE 754 rounds in one way only.
"""

import math

import torch
from torch import Tensor

MANTISSA = 53  # bits of a float64


def exact_matmul(left: Tensor, right: Tensor) -> Tensor:
    """Multiply float64 matrices (..., M, K) and (..., K, N) with about 40 bits of each row and column.

    Equal factors give equal bits. A row of `left` or column of `right` is accurate relative to its largest entry.
    """
    bits = integer_bits(left.shape[-1])
    left_high, left_low, left_scale = _split(left, bits, -1)
    right_high, right_low, right_scale = _split(right, bits, -2)
    low = (left_high @ right_low).add_(left_low @ right_high)  # both exact, and so is their sum
    return (left_high @ right_high).add_(low.mul_(2.0**-bits)).mul_(left_scale).mul_(right_scale)


def integer_bits(terms: int) -> int:
    """Return how many bits integers may have so that a sum of so many of their products is exact in float64."""
    return (MANTISSA - 1 - math.ceil(math.log2(max(terms, 1)))) // 2


def scale_to(values: Tensor, bits: int, dim: int | None = None) -> Tensor:
    """Return the least power of two by which values divided are below 2^bits, over all or along one dimension."""
    largest = values.abs().amax() if dim is None else values.abs().amax(dim, keepdim=True)
    exponent = torch.frexp(largest.double()).exponent - bits
    return ((exponent + 1023).long() << 52).view(torch.float64)  # the bits of a float64; `ldexp` may round


def _split(values: Tensor, bits: int, dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """Split values into (high + low / 2^bits) * scale, of integers and a power of two for each line along `dim`."""
    scale = scale_to(values, bits, dim)
    low = values / scale
    high = low.round()
    return high, low.sub_(high).mul_(2.0**bits).round_(), scale
