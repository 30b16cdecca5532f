"""Code the integers of a weight plane by plane: all weights at one place of the kernel, some rows in one step.

The table of a weight is that of those coded before in a like neighbourhood: the sum of its neighbours in the kernel,
and how large weights have been in its kernel, row and column. It is mixed with the table of all weights before, which
counts most while a class has few. Counting and dividing are done in integers.
"""

import numpy as np

from lightweight.codec.numbers import FieldCoder
from lightweight.codec.probability import ONE

LARGEST = 1 << 11
SUMS = 4  # of neighbours, on either side of 0
LEVELS = np.array([38, 77, 154, 256, 410, 666])  # of the expected size of a weight, in 256ths
OF_ROW, OF_COLUMN = 2, 4  # weights of the kernel that the means of row and column count as
CAPPED = 15  # size, from which a weight counts no more
MIXED = 16  # weights that the table of all weights counts as, beside the table of a class
FIRST_STEP, STEPS = 2, 16  # rows that are coded together at first; later a sixteenth of all
UNIT = 16  # of a weight in the table of all
MOST_OF_CLASS, MOST_OF_ALL = 1 << 20, 1 << 24  # counts, beyond which they are halved
AT_ONCE = 1 << 22  # probabilities that are computed together


class PlaneCoder:
    """Code the weights (M, C, H, W) of one layer."""

    def __init__(self, fields: FieldCoder, shape: tuple[int, int, int, int], largest: int) -> None:
        self.fields, self.shape, self.largest = fields, shape, largest
        size = np.abs(np.arange(-largest, largest + 1))
        self.all = np.maximum(1, 4 * UNIT * (8 >> np.minimum(size, 3)) // 32).astype(np.int64)
        self.classes = np.zeros(((2 * SUMS + 1) * (len(LEVELS) + 1), 2 * largest + 1), np.int64)
        self.kernels = np.zeros(shape[:2], np.int64)  # sums of the sizes of weights, by kernel, row and column
        self.rows, self.columns = np.zeros(shape[0], np.int64), np.zeros(shape[1], np.int64)
        self.coded = 0  # rows of all planes, which the sums of columns are of

    def code(self, given: np.ndarray) -> np.ndarray:
        """Write all weights, or read them; return them, int32."""
        found = np.zeros(self.shape, np.int32)
        rows, _, height, width = self.shape
        for plane in range(height * width):
            y, x = divmod(plane, width)
            sums = self._neighbours(found, y, x)
            start, step = 0, FIRST_STEP
            while start < rows:
                part = slice(start, min(rows, start + step))
                classes = self._classify(sums[part], part, plane)
                found[part, :, y, x] = self._code_part(classes, given[part, :, y, x])
                sizes = np.minimum(np.abs(found[part, :, y, x]), CAPPED).astype(np.int64)
                self.columns += sizes.sum(0)
                self.coded += len(sizes)
                start, step = start + step, min(2 * step, max(FIRST_STEP, rows // STEPS))
            sizes = np.minimum(np.abs(found[:, :, y, x]), CAPPED).astype(np.int64)
            self.kernels += sizes
            self.rows += sizes.sum(1)
        return found

    def _neighbours(self, found: np.ndarray, y: int, x: int) -> np.ndarray:
        """Sum the neighbours (M, C) of a place in the kernel, those that are coded, with factors, by halves."""
        sums = np.zeros(self.shape[:2], np.int64)
        for dy, dx, factor in ((0, -1, 2), (-1, 0, 2), (-1, -1, -1), (-1, 1, 1)):
            if y + dy >= 0 and 0 <= x + dx < self.shape[3]:
                sums += factor * found[:, :, y + dy, x + dx].astype(np.int64)
        return np.clip(np.sign(sums) * ((np.abs(sums) + 1) // 2), -SUMS, SUMS)

    def _classify(self, sums: np.ndarray, part: slice, plane: int) -> np.ndarray:
        """Give the class of each weight of some rows, from the sums of its neighbours and its expected size."""
        columns = 256 * self.columns // self.coded if self.coded else np.full(self.shape[1], 128)
        mean = int(columns.sum()) // len(columns)
        rows = 256 * self.rows[part] // (plane * self.shape[1]) if plane else np.full(len(sums), mean)
        total = 256 * self.kernels[part] + OF_ROW * rows[:, None] + OF_COLUMN * columns
        levels = np.searchsorted(LEVELS, total // (plane + OF_ROW + OF_COLUMN))
        return (sums + SUMS) * (len(LEVELS) + 1) + levels

    def _code_part(self, classes: np.ndarray, given: np.ndarray) -> np.ndarray:
        """Code the weights of some rows, of classes (rows, C), and count them."""
        tables, flat, values = self._tables(), classes.ravel(), given.ravel() + self.largest
        step = max(1, AT_ONCE // tables.shape[1])
        starts = range(0, len(flat), step)
        parts = [self.fields.coder.symbols(tables[flat[at : at + step]], values[at : at + step]) for at in starts]
        symbols = np.concatenate(parts)
        np.add.at(self.classes, (flat, symbols), 1)
        np.add.at(self.all, symbols, UNIT)
        self.classes[self.classes.sum(1) > MOST_OF_CLASS] >>= 1
        if self.all.sum() > MOST_OF_ALL:
            self.all -= self.all >> 1
        return (symbols - self.largest).reshape(given.shape)

    def _tables(self) -> np.ndarray:
        """Compute the probabilities of each class, of the sum ONE and at least 1; the most frequent takes the rest."""
        number = len(self.all)
        mixed = self.classes * self.all.sum() + MIXED * self.all
        tables = 1 + mixed * (ONE - number) // mixed.sum(1, keepdims=True)
        tables[np.arange(len(tables)), tables.argmax(1)] += ONE - tables.sum(1)
        return tables


def code_weights(fields: FieldCoder, given: np.ndarray) -> np.ndarray:
    """Write integers (M, ...), or read as many; return them, int32. Raises ValueError for an integer beyond 2,048."""
    largest = fields.natural("largest", 0 if fields.reads else int(np.abs(given).max(initial=0)))
    if largest > LARGEST:
        raise ValueError(f"has an integer beyond {LARGEST:,}")
    if not largest or not given.size:
        return np.zeros(given.shape, np.int32)
    height = given.shape[2] if given.ndim > 2 else 1
    shape = (*given.shape[:2], height, given.size // (given.shape[0] * given.shape[1] * height))
    coder = PlaneCoder(fields, shape, largest)
    return coder.code(given.reshape(shape)).reshape(given.shape)
