"""Code the integers of large tensors row by row, a whole row in one step.

The probabilities of a weight come from how often each integer stood, in the rows before, where a row had as many
non-zeros and a column was as busy. Counting and dividing are done in integers.
"""

import numpy as np

from lightweight.codec.numbers import FieldCoder
from lightweight.codec.probability import ONE

ROW_CLASSES, COLUMN_CLASSES = 16, 12
LARGEST = 1 << 11
GAIN = 32  # of a count, against the prior of one for each integer
MEMORY = 3  # a column forgets an eighth with each row
SHORT = 16  # weights of a row, below which the number of its non-zeros is not told
AT_ONCE = 1 << 22  # probabilities that are computed together


def code_rows(fields: FieldCoder, layer: int, given: np.ndarray) -> np.ndarray:
    """Write integers (M, ...), or read as many; return them, int32. Raises ValueError for an integer beyond 2,048."""
    rows = given.reshape(len(given), -1).astype(np.int64)
    largest = fields.natural("largest", int(np.abs(rows).max(initial=0)))
    if largest > LARGEST:
        raise ValueError(f"has an integer beyond {LARGEST:,}")
    if not largest or not rows.size:
        return np.zeros(given.shape, np.int32)
    counts = _prior(largest)
    busy = np.zeros(rows.shape[1], np.int64)
    found = np.zeros(rows.shape, np.int32)
    for number, row in enumerate(rows):
        found[number] = _code_row(fields, row, largest, counts, busy)
        size = np.minimum(np.abs(found[number]), 3).astype(np.int64)
        busy += (size << 6) - (busy >> MEMORY)
    return found.reshape(given.shape)


def _prior(largest: int) -> np.ndarray:
    """Make the counts (row classes, column classes, integers) to begin with: small integers are more frequent."""
    size = np.abs(np.arange(-largest, largest + 1))
    return np.tile(np.maximum(1, 8 >> np.minimum(size, 3)), (ROW_CLASSES, COLUMN_CLASSES, 1)).astype(np.int64)


def _code_row(fields: FieldCoder, row: np.ndarray, largest: int, counts: np.ndarray, busy: np.ndarray) -> np.ndarray:
    """Code a row, and count its integers."""
    row_class = 0
    if len(row) >= SHORT:
        share = int(np.count_nonzero(row)) * (ROW_CLASSES - 1)
        row_class = fields.natural("row", -(-share // len(row)))
        if row_class >= ROW_CLASSES:
            raise ValueError("has a row of more non-zeros than weights")
        if not row_class:
            return np.zeros(len(row), np.int32)
    column_class = np.minimum(_bit_length(busy >> 3), COLUMN_CLASSES - 1)
    tables = _normalize(counts[row_class])
    step = max(1, AT_ONCE // tables.shape[1])
    parts = [
        fields.coder.symbols(tables[column_class[start : start + step]], row[start : start + step] + largest)
        for start in range(0, len(row), step)
    ]
    symbols = np.concatenate(parts)
    np.add.at(counts[row_class], (column_class, symbols), GAIN)
    return (symbols - largest).astype(np.int32)


def _normalize(counts: np.ndarray) -> np.ndarray:
    """Scale counts (N, integers) to probabilities of the sum ONE, each at least 1; the most frequent takes the rest."""
    number = counts.shape[1]
    tables = 1 + counts * (ONE - number) // counts.sum(1, keepdims=True)
    tables[np.arange(len(tables)), tables.argmax(1)] += ONE - tables.sum(1)
    return tables


def _bit_length(values: np.ndarray) -> np.ndarray:
    """Count the bits of whole numbers below 2^16, by comparisons."""
    return (values[:, None] >= (1 << np.arange(16))).sum(1)
