"""Latencies from times that were measured in turns: ratios with an interval, verdicts, and warnings.

The interval holds at whichever look `timing.time_in_turns` ended. There are four of them, and each takes a quarter of
the chance of 1 in 20 that an interval misses the median of the ratios (Bonferroni).
"""

from collections.abc import Iterable, Iterator, Mapping
from statistics import median
from typing import Any

import numpy as np

from lightweight.evaluation.statistics import CONFIDENCE, median_interval

LOOKS = (1, 2, 4, 8)  # at the intervals, after so many times `benchmark.rounds`
CONFIDENCE_OF_A_LOOK = 1 - (1 - CONFIDENCE) / len(LOOKS)
VERSUS = "against_"  # begins the keys of ratios to other models than the reference


def compare(
    samples: Mapping[str, np.ndarray], reference: str, pairs: Iterable[tuple[str, str]], precision: float
) -> dict[str, dict[str, Any]]:
    """Summarize every model against `reference`, and each pair (model, other) under the model's key `against_OTHER`."""
    summaries = {
        name: summarize(values) | compare_ratio(values, samples[reference], precision)
        for name, values in samples.items()
    }
    for name, other in pairs:
        summaries[name][f"{VERSUS}{other}"] = compare_ratio(samples[name], samples[other], precision)
    return summaries


def summarize(samples: np.ndarray) -> dict[str, Any]:
    """Summarize milliseconds per call (rounds,): median, percentiles, and the 95th over the 50th as dispersion."""
    middle, high = median(samples), float(np.percentile(samples, 95))
    return {
        "rounds": len(samples),
        "latency_ms": middle,
        "latency_ms_p05": float(np.percentile(samples, 5)),
        "latency_ms_p95": high,
        "dispersion": high / middle,
    }


def compare_ratio(samples: np.ndarray, reference: np.ndarray, precision: float) -> dict[str, Any]:
    """Compare milliseconds (rounds,) with those of `reference` in the same rounds.

    The speedup is the median of the ratios of each round. There is a difference only where both halves of the rounds,
    each taken alone, show it by an interval of their own.
    """
    ratios = reference / samples
    low, high = median_interval(ratios, CONFIDENCE_OF_A_LOOK)
    halves = [median_interval(half) for half in np.array_split(ratios, 2)]
    verdict = "no difference"
    if all(least > 1 for least, _ in ((low, high), *halves)):
        verdict = "faster"
    elif all(most < 1 for _, most in ((low, high), *halves)):
        verdict = "slower"
    middle = median(ratios)
    return {
        "speedup": middle,
        "speedup_low": low,
        "speedup_high": high,
        "precise": is_precise(middle, low, high, precision),
        "verdict": verdict,
    }


def is_precise(middle: float, low: float, high: float, precision: float) -> bool:
    """Tell whether the half width of an interval is at most the share `precision` of its middle."""
    return bool(high - low <= 2 * precision * middle)


def conditions(latency: Mapping[str, Mapping[str, Any]]) -> str:
    """Describe how busy the machine was, how fast its clock ran, and how much the latencies of a model varied."""
    machine = latency["original"]
    load = f"load {machine['load_before']:.2f} before and {machine['load_after']:.2f} after"
    frequency = [f"{machine['cpu_mhz']:,.0f} MHz"] if machine["cpu_mhz"] else []
    dispersion = max(summary["dispersion"] for _, _, summary in _summaries(latency))
    return ", ".join([load, *frequency, f"95th percentiles up to {dispersion:.2f} times the median"])


def imprecision_warnings(latency: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Warn of each ratio whose interval is not narrow enough, one line each.

    `latency` holds the summaries by model and `batch_SIZE`.
    """
    return [
        f"warning: at {batch.replace('_', ' ')} {name} against {other} is {ratio['speedup']:.2f} "
        f"[{ratio['speedup_low']:.2f}, {ratio['speedup_high']:.2f}] times as fast after {summary['rounds']} rounds: "
        "not precise; the machine was too busy for benchmark.precision"
        for name, batch, summary in _summaries(latency)
        for other, ratio in _ratios(summary)
        if not ratio["precise"]
    ]


def slowdown_warnings(latency: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Warn of each batch size at which the optimized file is slower than its own network in float32, one line each.

    `latency` holds the summaries by model and `batch_SIZE`; both files ran in the same runtime.
    """
    lines = []
    for name, batch, summary in _summaries(latency):
        ratio = summary.get(f"{VERSUS}recalibrated", {})
        if name == "optimized" and ratio.get("verdict") == "slower":
            times = f"{ratio['speedup']:.2f} times [{ratio['speedup_low']:.2f}, {ratio['speedup_high']:.2f}]"
            lines.append(
                f"warning: at {batch.replace('_', ' ')} the optimized file runs {times} as fast as the same network in "
                "float32: here quantize saves bytes, not time; quantize.method: none is faster"
            )
    return lines


def _summaries(latency: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Yield model, `batch_SIZE` and summary."""
    for name, measured in latency.items():
        yield from ((name, key, value) for key, value in measured.items() if key.startswith("batch_"))


def _ratios(summary: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield what a model was compared with, and the ratio."""
    yield "original in PyTorch", summary
    yield from ((key.removeprefix(VERSUS), value) for key, value in summary.items() if key.startswith(VERSUS))
