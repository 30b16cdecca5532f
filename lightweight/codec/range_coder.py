"""Code bits and rows of symbols into bytes and back, with integer probabilities, by constriction's range coder.

Probabilities are whole numbers of 65,536ths, which float32 holds exactly, so that every machine codes the same. The
encoder and the decoder have the same two verbs, and what walks over a model calls them without knowing which it has.
"""

from typing import Any, Protocol

import constriction
import numpy as np

from lightweight.codec.probability import ONE

Bernoulli, Categorical = constriction.stream.model.Bernoulli, constriction.stream.model.Categorical
RangeDecoder, RangeEncoder = constriction.stream.queue.RangeDecoder, constriction.stream.queue.RangeEncoder


class Coder(Protocol):
    """Code what it is given, or read what it is not given."""

    reads: bool

    def bit(self, probability: int, bit: int = 0) -> int:
        """Code a bit, of which 1 has the probability, of ONE; return it."""

    def symbols(self, tables: np.ndarray, values: np.ndarray | None = None) -> np.ndarray:
        """Code N symbols by tables of integers (N, alphabet), each of the sum ONE; return them, int32 (N,)."""


class Encoder:
    """Write bits and symbols; `content` ends the stream."""

    reads = False

    def __init__(self) -> None:
        self.stream = RangeEncoder()
        self._bits: list[int] = []
        self._probabilities: list[int] = []

    def bit(self, probability: int, bit: int = 0) -> int:
        """Write a bit."""
        self._bits.append(bit)
        self._probabilities.append(probability)
        return bit

    def symbols(self, tables: np.ndarray, values: np.ndarray | None = None) -> np.ndarray:
        """Write a row of symbols."""
        assert values is not None
        self._flush()
        values = np.ascontiguousarray(values, np.int32)
        self.stream.encode(values, Categorical(perfect=False), _shares(tables))
        return values

    def content(self) -> bytes:
        """Return the bytes of the stream without the zeros at its end, which the decoder adds again."""
        self._flush()
        return self.stream.get_compressed().astype("<u4").tobytes().rstrip(b"\0")

    def _flush(self) -> None:
        if self._bits:
            shares = _shares(np.array(self._probabilities))
            self.stream.encode(np.array(self._bits, np.int32), Bernoulli(perfect=False), shares)
            self._bits, self._probabilities = [], []


class Decoder:
    """Read bits and symbols. Bytes that no encoder wrote give some other bits, and never an error of their own."""

    reads = True

    def __init__(self, content: bytes) -> None:
        words = np.frombuffer(content + bytes(-len(content) % 4 + 8), "<u4").astype(np.uint32)
        self.stream = RangeDecoder(words)
        self._models: dict[int, Any] = {}

    def bit(self, probability: int, bit: int = 0) -> int:
        """Read a bit."""
        model = self._models.get(probability)
        if model is None:
            model = self._models[probability] = Bernoulli(probability / ONE, perfect=False)
        return int(self.stream.decode(model))

    def symbols(self, tables: np.ndarray, values: np.ndarray | None = None) -> np.ndarray:
        """Read a row of symbols."""
        return np.asarray(self.stream.decode(Categorical(perfect=False), _shares(tables)), np.int32)


def _shares(probabilities: np.ndarray) -> np.ndarray:
    return probabilities.astype(np.float32) / np.float32(ONE)
