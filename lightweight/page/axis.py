"""Axes of drawings: values become positions, and round values become ticks."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

STEPS = (1, 2, 2.5, 5, 10)  # times a power of ten, between two ticks
TICKS = 5  # at most, or one more
LOG_TICKS = (1, 2, 5)


@dataclass(frozen=True)
class Axis:
    """Map values between `low` and `high` to positions between `start` and `end`, linearly or by logarithms."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        """Return the position of a value; one outside of the range lies at its end."""
        low, high, inside = self.low, self.high, min(max(value, self.low), self.high)
        if self.log:
            low, high, inside = math.log(low), math.log(high), math.log(inside)
        return self.start + (self.end - self.start) * (inside - low) / (high - low)

    def ticks(self) -> list[float]:
        """List round values in the range."""
        return self._log_ticks() if self.log else self._linear_ticks()

    def _linear_ticks(self) -> list[float]:
        span = (self.high - self.low) / TICKS
        power = 10 ** math.floor(math.log10(span))
        step = next(factor * power for factor in STEPS if factor * power >= span * (1 - 1e-9))
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [round(number * step, 12) for number in range(first, last + 1)]

    def _log_ticks(self) -> list[float]:
        powers = range(math.floor(math.log10(self.low)), math.floor(math.log10(self.high)) + 1)
        every = [factor * 10.0**power for power in powers for factor in LOG_TICKS]
        inside = [tick for tick in every if self.low * (1 - 1e-9) <= tick <= self.high * (1 + 1e-9)]
        if len(inside) < 2:  # of a range within one decade
            return self._linear_ticks()
        decades = [tick for tick in inside if math.isclose(math.log10(tick) % 1, 0, abs_tol=1e-9)]
        chosen = decades if len(inside) > TICKS + 1 and len(decades) > 1 else inside
        return chosen[:: -(-len(chosen) // (TICKS + 2))]


def linear_axis(values: Iterable[float], start: float, end: float, *, margin: float = 0.06) -> Axis:
    """Make a linear axis with a margin at both ends, which are 1 apart at least where all values are equal."""
    known = list(values)
    low, high = min(known), max(known)
    space = margin * (high - low) or 0.5
    return Axis(low - space, high + space, start, end)


def log_axis(values: Iterable[float], start: float, end: float, *, margin: float = 1.25) -> Axis:
    """Make a logarithmic axis of positive values that begins and ends at `margin` times beyond them."""
    known = [value for value in values if value > 0]
    return Axis(min(known) / margin, max(known) * margin, start, end, log=True)


def short(value: float) -> str:
    """Write a number on an axis in as few characters as it takes: 0.05, 20, 1.5k, 25M."""
    for limit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:.3g}{letter}"
    return f"{value:.3g}"
