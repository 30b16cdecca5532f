"""Five sizes of a model file: on disk, by two compressors, by an ideal entropy coder, and as its weights in bits.

What the file takes beyond the last is its container: names, graph, scales, running statistics.
"""

import zlib
from collections.abc import Iterable
from typing import Any

import numpy as np
import zstandard

from lightweight.onnx.weights import StoredTensor

ZLIB_LEVEL, ZSTD_LEVEL = 9, 9


def measure_sizes(content: bytes, learned: Iterable[StoredTensor]) -> dict[str, Any]:
    """Measure the bytes of a file and of its learned tensors."""
    tensors = list(learned)
    return {
        "size_bytes": len(content),
        "compressed_bytes": len(zlib.compress(content, ZLIB_LEVEL)),
        "zstd_bytes": len(zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress(content)),
        "entropy_bytes": _in_bytes(sum(coded_bits(tensor) for tensor in tensors)),
        "ideal_bytes": _in_bytes(sum(tensor.values.size * tensor.bits for tensor in tensors)),
    }


def coded_bits(tensor: StoredTensor) -> float:
    """Estimate the bits of a tensor by an ideal coder of order 0 (Shannon 1948), the shortest of four codes.

    Those are: every value as it is; the places of zeros by their entropy and the other values as they are; every value
    by the entropy of values, after a table of the distinct ones; the same for each byte of the values, by its place.
    No code takes more bits than the tensor.
    """
    size = tensor.values.size
    _, counts = np.unique(tensor.values, return_counts=True)
    by_value = _entropy(counts) * size + len(counts) * tensor.bits
    split = np.array([tensor.nonzero, size - tensor.nonzero])
    by_zeros = _entropy(split) * size + tensor.nonzero * tensor.bits
    places = np.ascontiguousarray(tensor.values).reshape(-1, 1).view(np.uint8).T
    planes = [np.bincount(place, minlength=256) for place in places]
    by_bytes = sum(_entropy(plane) * size + 8 * np.count_nonzero(plane) for plane in planes)
    return float(min(size * tensor.bits, by_zeros, by_value, by_bytes))


def _entropy(counts: np.ndarray) -> float:
    """Compute the entropy of a distribution from its counts, in bits per value."""
    shares = counts[counts > 0] / max(1, counts.sum())
    return float(-(shares * np.log2(shares)).sum())


def _in_bytes(bits: float) -> int:
    return int(np.ceil(bits / 8))
