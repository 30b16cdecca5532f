"""A ratio of latencies is measured in one run: the models take turns, so that a slow moment hits them all."""

import time
from collections.abc import Callable
from statistics import median
from typing import Annotated, Any

import numpy as np
from pydantic import Field
from scipy.stats import binom

from lightweight.params import Params

SETTLE_SECONDS = 0.02  # a thread pool spins for a while after its last call and would take the cores of the next
SAMPLE_SECONDS = 0.01  # shorter calls are repeated until a sample lasts this long


class BenchmarkParams(Params):
    batch_sizes: list[Annotated[int, Field(ge=1, le=65_536)]] = Field(min_length=1)
    rounds: int = Field(ge=10, le=100_000)


def interleave(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, np.ndarray]:
    """Milliseconds per call (rounds,) of each, measured A B C, B C A, C A B, ... after a warm-up."""
    repeats = {}
    for name, call in calls.items():
        call()
        repeats[name] = max(1, round(SAMPLE_SECONDS / max(_seconds(call, 3), 1e-9)))
    names, samples = list(calls), {name: [] for name in calls}
    for turn in range(rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            time.sleep(SETTLE_SECONDS)
            calls[name]()
            samples[name].append(1000 * _seconds(calls[name], repeats[name]))
    return {name: np.array(values) for name, values in samples.items()}


def summarize(samples: np.ndarray, reference: np.ndarray) -> dict[str, Any]:
    """Median and percentiles in milliseconds, and how many times faster than `reference`, round by round.

    The 95 % interval of the median ratio comes from order statistics; where it spans 1 there is no difference.
    """
    ratios = np.sort(reference / samples)
    rank = int(binom.ppf(0.025, len(ratios), 0.5))
    low, high = ratios[max(rank - 1, 0)], ratios[min(len(ratios) - rank, len(ratios) - 1)]
    verdict = "faster" if low > 1 else "slower" if high < 1 else "no difference"
    return {
        "latency_ms": median(samples),
        "latency_ms_p05": float(np.percentile(samples, 5)),
        "latency_ms_p95": float(np.percentile(samples, 95)),
        "speedup": median(ratios),
        "speedup_low": float(low),
        "speedup_high": float(high),
        "verdict": verdict,
    }


def _seconds(call: Callable[[], Any], repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - start) / repeats
