"""Latencies of several models, measured in turns in one process, so that a slow moment of the machine hits them all.

The threads of a runtime spin on after a call (ONNX Runtime's for about 60 ms) and would take the cores of whichever
model is called next. Therefore a turn begins only when the process is idle, and the order changes from round to round.
"""

import random
import time
from collections.abc import Callable, Hashable, Iterable, Mapping
from statistics import median
from typing import Any, TypeVar

import numpy as np

from lightweight.evaluation.statistics import median_interval

POLL_SECONDS = 0.01  # between two checks whether threads still spin
MAX_POLLS = 100  # where something else in the process never rests
SAMPLE_SECONDS = 0.01  # shorter calls are repeated until a sample lasts this long

Name = TypeVar("Name", bound=Hashable)


def interleave(calls: Mapping[Name, Callable[[], Any]], rounds: int) -> dict[Name, np.ndarray]:
    """Time every call once per round, in random order, and return milliseconds per call (rounds,) by name.

    Before the first round every call is warmed up.
    """
    repeats = {}
    for name, call in calls.items():
        call()
        repeats[name] = max(1, round(SAMPLE_SECONDS / max(_seconds_per_call(call, 3), 1e-9)))
    samples: dict[Name, list[float]] = {name: [] for name in calls}
    order = random.Random(0)
    for _ in range(rounds):
        for name in order.sample(list(calls), len(calls)):
            _wait_until_idle()
            calls[name]()
            samples[name].append(1000 * _seconds_per_call(calls[name], repeats[name]))
    return {name: np.array(values) for name, values in samples.items()}


def compare(
    samples: Mapping[str, np.ndarray], reference: str, pairs: Iterable[tuple[str, str]]
) -> dict[str, dict[str, Any]]:
    """Summarize every model against `reference`, and each pair (model, other) under the model's key `against_OTHER`."""
    summaries = {name: summarize(values, samples[reference]) for name, values in samples.items()}
    for name, other in pairs:
        summaries[name][f"against_{other}"] = summarize(samples[name], samples[other])
    return summaries


def summarize(samples: np.ndarray, reference: np.ndarray) -> dict[str, Any]:
    """Summarize latencies (rounds,) in milliseconds: median, percentiles, and the speedup over `reference`.

    The speedup is the median of the ratios of each round, with its 95 % interval; where the interval spans 1 the
    verdict is "no difference".
    """
    ratios = reference / samples
    low, high = median_interval(ratios)
    return {
        "latency_ms": median(samples),
        "latency_ms_p05": float(np.percentile(samples, 5)),
        "latency_ms_p95": float(np.percentile(samples, 95)),
        "speedup": median(ratios),
        "speedup_low": low,
        "speedup_high": high,
        "verdict": "faster" if low > 1 else "slower" if high < 1 else "no difference",
    }


def slowdown_warnings(latency: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Warn of each batch size at which the optimized file is slower than its own network in float32, one line each.

    `latency` holds the summaries by model and `batch_SIZE`; both files ran in the same runtime.
    """
    lines = []
    for batch, summary in latency.get("optimized", {}).items():
        ratio = summary.get("against_recalibrated", {}) if batch.startswith("batch_") else {}
        if ratio.get("verdict") == "slower":
            times = f"{ratio['speedup']:.2f} times [{ratio['speedup_low']:.2f}, {ratio['speedup_high']:.2f}]"
            lines.append(
                f"warning: at {batch.replace('_', ' ')} the optimized file runs {times} as fast as the same network in "
                "float32: here quantize saves bytes, not time; quantize.method: none is faster"
            )
    return lines


def _wait_until_idle() -> None:
    """Wait until no thread of this process runs, at most one second."""
    before = time.process_time()
    for _ in range(MAX_POLLS):
        time.sleep(POLL_SECONDS)
        now = time.process_time()
        if now - before < 0.1 * POLL_SECONDS:
            return
        before = now


def _seconds_per_call(call: Callable[[], Any], repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - start) / repeats
