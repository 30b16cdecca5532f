"""Code the integers of weights for a small decoder in C: a range coder of 32 bits, and probabilities that adapt.

The coder is that of LZMA (Pavlov, LZMA specification): a bit takes one multiplication and no division. Its probability
is the mean of two averages over its past, of which one learns fast and one slowly. `c/network.c` decodes the same.
"""

from collections.abc import Iterable

import numpy as np

BITS = 15  # of an average
FAST, SLOW = 4, 7  # shifts by which the two averages learn
LEAST_RANGE = 1 << 24  # below which a byte follows
LEVELS = (64, 150, 300)  # of the mean size of the weights before, in 256ths
MOST_NEAR = 2  # of the sizes of the neighbours, left and above, together
LONGEST = 14  # steps of a size that have a context each
CAPPED = 8  # size, from which a weight counts no more
ZERO, SIGN, SIZE = 0, (len(LEVELS) + 1) * (MOST_NEAR + 1), (len(LEVELS) + 1) * (MOST_NEAR + 1) + 3
CONTEXTS = SIZE + LONGEST


class WeightEncoder:
    """Write the weights of one layer after the other; `content` ends the stream."""

    def __init__(self) -> None:
        self.fast, self.slow = ([1 << BITS - 1] * CONTEXTS for _ in range(2))  # probabilities of a 0
        self.level = 128  # mean size of the weights before
        self._low, self._range, self._found = 0, (1 << 32) - 1, bytearray()

    def write(self, weights: np.ndarray) -> None:
        """Write the integers (M, C, height, width) of a layer, kernel by kernel."""
        for kernel in weights.reshape(-1, *weights.shape[2:]).tolist():
            above = [0] * len(kernel[0])
            for row in kernel:
                left = 0
                for place, weight in enumerate(row):
                    self._write_weight(weight, left, abs(left) + abs(above[place]))
                    left = weight
                above = row

    def content(self) -> bytes:
        """Return the bytes of the stream: exactly those that the decoder reads."""
        for _ in range(4):
            self._write_byte()
        return bytes(self._found)

    def _write_weight(self, weight: int, left: int, near: int) -> None:
        level = sum(self.level > limit for limit in LEVELS)
        self._write_bit(ZERO + level * (MOST_NEAR + 1) + min(near, MOST_NEAR), int(weight != 0))
        if weight:
            self._write_bit(SIGN + (left > 0) + 2 * (left < 0), int(weight < 0))
            for step in range(1, abs(weight) + 1):
                self._write_bit(SIZE + min(step, LONGEST) - 1, int(step < abs(weight)))
        self.level += (min(abs(weight), CAPPED) << 4) - (self.level >> 4)

    def _write_bit(self, context: int, bit: int) -> None:
        bound = (self._range >> BITS + 1) * (self.fast[context] + self.slow[context])
        if bit:
            self._low, self._range = self._low + bound, self._range - bound
        else:
            self._range = bound
        for averages, shift in ((self.fast, FAST), (self.slow, SLOW)):
            share = averages[context]
            averages[context] = share - (share >> shift) if bit else share + ((1 << BITS) - share >> shift)
        while self._range < LEAST_RANGE:
            self._write_byte()
            self._range <<= 8

    def _write_byte(self) -> None:
        """Write the highest byte of the four that are not yet decided, after the carry of those before."""
        place = len(self._found) - 1
        if self._low >> 32:
            while self._found[place] == 255:
                self._found[place] = 0
                place -= 1
            self._found[place] += 1
        self._found.append(self._low >> 24 & 255)
        self._low = self._low << 8 & 0xFFFFFFFF


def encode_weights(layers: Iterable[np.ndarray]) -> bytes:
    """Encode the integers (M, C, height, width) of layers in one stream."""
    encoder = WeightEncoder()
    for weights in layers:
        encoder.write(weights)
    return encoder.content()
