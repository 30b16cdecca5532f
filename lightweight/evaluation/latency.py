"""A ratio of latencies is measured in one run: the models take turns, so that a slow moment hits them all.

The threads of a runtime spin on after a call (ONNX Runtime's for about 60 ms) and would take the cores of whoever
comes next: a turn begins when the process is idle, and who follows whom changes from round to round.
"""

import random
import time
from collections.abc import Callable, Iterable
from statistics import median
from typing import Annotated, Any

import numpy as np
from pydantic import Field
from scipy.stats import binom

from lightweight.core.params import Params

LOOK_SECONDS = 0.01  # between two looks at whether threads still spin
MOST_LOOKS = 100  # where something else in the process never rests
SAMPLE_SECONDS = 0.01  # shorter calls are repeated until a sample lasts this long


class BenchmarkParams(Params):
    batch_sizes: list[Annotated[int, Field(ge=1, le=65_536)]] = Field(min_length=1)
    rounds: int = Field(ge=10, le=100_000)


def interleave(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, np.ndarray]:
    """Milliseconds per call (rounds,) of each, measured once a round in an order drawn anew, after a warm-up."""
    repeats = {}
    for name, call in calls.items():
        call()
        repeats[name] = max(1, round(SAMPLE_SECONDS / max(_seconds(call, 3), 1e-9)))
    samples: dict[str, list[float]] = {name: [] for name in calls}
    order = random.Random(0)
    for _ in range(rounds):
        for name in order.sample(list(calls), len(calls)):
            _wait_until_idle()
            calls[name]()
            samples[name].append(1000 * _seconds(calls[name], repeats[name]))
    return {name: np.array(values) for name, values in samples.items()}


def compare(samples: dict[str, np.ndarray], reference: str, pairs: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """`summarize` of every model against `reference`, and of each pair (model, other) as its `against_OTHER`."""
    found = {name: summarize(values, samples[reference]) for name, values in samples.items()}
    for name, other in pairs:
        found[name][f"against_{other}"] = summarize(samples[name], samples[other])
    return found


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


def slowdown_warnings(latency: dict[str, dict[str, Any]]) -> list[str]:
    """Warn where the optimized file is slower than its own network in float32, in the same runtime: a line each."""
    lines = []
    for batch, found in latency.get("optimized", {}).items():
        ratio = found.get("against_recalibrated", {}) if batch.startswith("batch_") else {}
        if ratio.get("verdict") == "slower":
            times = f"{ratio['speedup']:.2f} times [{ratio['speedup_low']:.2f}, {ratio['speedup_high']:.2f}]"
            lines.append(
                f"warning: at {batch.replace('_', ' ')} the optimized file runs {times} as fast as the same network in "
                "float32: here quantize saves bytes, not time; quantize.method: none is faster"
            )
    return lines


def _wait_until_idle() -> None:
    """Wait until no thread of this process runs."""
    before = time.process_time()
    for _ in range(MOST_LOOKS):
        time.sleep(LOOK_SECONDS)
        now = time.process_time()
        if now - before < 0.1 * LOOK_SECONDS:
            return
        before = now


def _seconds(call: Callable[[], Any], repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - start) / repeats
