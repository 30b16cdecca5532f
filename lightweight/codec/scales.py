"""Scales on a logarithmic grid of exact float32 numbers: 2^(1/32) apart, and equal on every machine."""

from decimal import Decimal, localcontext

import numpy as np

STEPS = 32  # in an octave
LEAST, LARGEST = -100 * STEPS, 100 * STEPS  # codes, within which scale and weights are normal float32 numbers

with localcontext(prec=30):
    MANTISSAS = [round(Decimal(2) ** (Decimal(step) / STEPS) * (1 << 23)) for step in range(STEPS)]


def nearest_codes(scales: np.ndarray, stride: int) -> np.ndarray:
    """Return the codes, multiples of `stride`, of the scales of the grid next to positive ones (N,), by their ratio."""
    exact = np.log2(np.maximum(np.asarray(scales, np.float64), 2.0**-100)) * (STEPS / stride)
    return (np.clip(np.rint(exact) * stride, LEAST, LARGEST)).astype(np.int64)


def scales_of(codes: np.ndarray) -> np.ndarray:
    """Return the scales, float32 (N,), of codes; no rounding and no function of the machine's library is in them."""
    octaves, steps = np.divmod(np.asarray(codes, np.int64), STEPS)
    return np.ldexp(np.array(MANTISSAS, np.float32)[steps], octaves - 23).astype(np.float32)
