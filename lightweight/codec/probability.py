"""Predict bits by integers only, so that every machine predicts the same: counters of contexts, mixed by what helped.

Logistic mixing after Mahoney 2005 (Adaptive Weighing of Context Models for Lossless Data Compression).
"""

from collections.abc import Hashable, Sequence
from decimal import Decimal, localcontext
from functools import cache

ONE = 1 << 16  # a probability of 1
UNIT = 256  # of a log-odds, natural logarithm, of 1
LARGEST = 2047  # log-odds, in units: a probability of 0.9997
LEAST = 16  # probability, of ONE, that a bit is predicted with
SLOWEST = 255  # bits, over which a counter averages at most
WEIGHT = 1 << 16  # a weight of 1
RECIPROCALS = [2 * ONE // (2 * seen + 3) for seen in range(SLOWEST + 1)]  # the share of the next bit: 1 / (n + 1.5)


@cache
def squash_table() -> list[int]:
    """Compute 1 / (1 + exp(-x)) for log-odds from -LARGEST to LARGEST, by decimals, which are equal everywhere."""
    with localcontext(prec=30):
        exact = (ONE / (1 + (Decimal(-odds) / UNIT).exp()) for odds in range(-LARGEST, LARGEST + 1))
        return [min(max(round(value), LEAST), ONE - LEAST) for value in exact]


@cache
def stretch_table() -> list[int]:
    """Compute log-odds for 4,096 probabilities, the middle of each sixteen of ONE."""
    with localcontext(prec=30):
        shares = (Decimal(2 * part + 1) / 8192 for part in range(4096))
        return [min(max(round(UNIT * (share / (1 - share)).ln()), -LARGEST), LARGEST) for share in shares]


class Predictor:
    """Predict the bits of one stream, each from several contexts, and learn from every bit."""

    def __init__(self) -> None:
        self.squash, self.stretch = squash_table(), stretch_table()
        self.counters: dict[Hashable, list[int]] = {}  # probability of a 1, and number of bits seen, by context
        self.weights: dict[Hashable, list[int]] = {}  # of the contexts, by kind of bit
        self._used: list[list[int]] = []
        self._odds: list[int] = []
        self._mixed: list[int] = []
        self.probability = ONE // 2

    def predict(self, kind: Hashable, contexts: Sequence[Hashable], rate: int = 5) -> int:
        """Return the probability, of ONE, that the next bit is 1; one kind always has the same number of contexts."""
        counters, stretch = self.counters, self.stretch
        self._used = [counters.setdefault((kind, place, key), [ONE // 2, 0]) for place, key in enumerate(contexts)]
        self._odds = [stretch[counter[0] >> 4] for counter in self._used]
        weights = self.weights.get(kind)
        if weights is None:
            weights = self.weights[kind] = [WEIGHT * 6 // (5 * len(contexts))] * len(contexts)
        self._mixed, self._rate = weights, rate
        total = sum(weight * odds for weight, odds in zip(weights, self._odds, strict=True)) >> 16
        self.probability = self.squash[min(max(total, -LARGEST), LARGEST) + LARGEST]
        return self.probability

    def update(self, bit: int) -> None:
        """Learn the bit that was predicted last."""
        error = (bit << 16) - self.probability
        for place, odds in enumerate(self._odds):
            self._mixed[place] += error * odds * self._rate >> 16
        target = bit << 16
        for counter in self._used:
            seen = counter[1]
            counter[0] += (target - counter[0]) * RECIPROCALS[seen] >> 16
            if seen < SLOWEST:
                counter[1] = seen + 1
