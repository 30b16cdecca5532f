"""Code whole numbers and texts of a file, each predicted from what stood in the same place before."""

from collections.abc import Hashable

from lightweight.codec.probability import Predictor
from lightweight.codec.range_coder import Coder

MOST_BITS = 64  # of a number


class FieldCoder:
    """Code named fields with one predictor; in reading, the values that are given are ignored."""

    def __init__(self, coder: Coder) -> None:
        self.coder, self.predictor = coder, Predictor()
        self.last: dict[Hashable, int] = {}

    @property
    def reads(self) -> bool:
        """Return whether fields are read, and not written."""
        return self.coder.reads

    def bit(self, kind: Hashable, contexts: tuple[Hashable, ...], bit: int = 0) -> int:
        """Code one bit of a kind, predicted from contexts; return it."""
        bit = self.coder.bit(self.predictor.predict(kind, contexts), bit)
        self.predictor.update(bit)
        return bit

    def natural(self, kind: Hashable, value: int = 0, context: Hashable = None) -> int:
        """Code a number of 0 or more, predicted from the last of its kind and from a context; return it.

        The number of its bits comes first, then its bits without the first 1 (Elias 1975, gamma code). Raises
        ValueError for a number of more than 64 bits.
        """
        contexts = (None, self.last.get(kind), context)
        value += 1
        length = value.bit_length() - 1
        place = 0
        while self.bit(("longer", kind), tuple((part, place) for part in contexts), int(place < length)):
            place += 1
            if place > MOST_BITS:
                raise ValueError(f"has a number of more than {MOST_BITS} bits")
        found = 1
        for shift in reversed(range(place)):
            key = found if place - shift <= 8 else (place, shift)  # later bits are noise
            found = 2 * found + self.bit(
                ("bits", kind), tuple((part, place, key) for part in contexts), value >> shift & 1
            )
        self.last[kind] = found - 1
        return found - 1

    def whole(self, kind: Hashable, value: int = 0, context: Hashable = None) -> int:
        """Code a number of either sign: 0, -1, 1, -2, ... as 0, 1, 2, 3, ..."""
        found = self.natural(kind, 2 * value if value >= 0 else -2 * value - 1, context)
        return -(found // 2) - 1 if found % 2 else found // 2

    def text(self, kind: Hashable, value: bytes = b"", most: int = 1 << 24) -> bytes:
        """Code bytes, each predicted from the four before. Raises ValueError for more than `most`."""
        length = self.natural(("length", kind), len(value))
        if length > most:
            raise ValueError(f"has a text of {length:,} bytes")
        found = bytearray()
        for place in range(length):
            given = value[place] if not self.reads else 0
            before = bytes(found[-4:])
            contexts = (None, before[-1:], before[-2:], before[-3:], before)
            byte = 1
            for shift in reversed(range(8)):
                byte = 2 * byte + self.bit("text", tuple((part, byte) for part in contexts), given >> shift & 1)
            found.append(byte & 255)
        return bytes(found)
