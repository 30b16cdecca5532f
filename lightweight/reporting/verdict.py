"""The verdict: what was compressed, by how much, at what cost and how sure, in a line and in four figures."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lightweight.evaluation.statistics import SIGNIFICANCE
from lightweight.reporting.phrases import percent
from lightweight.reporting.results import Latency, Scores, batch_sizes

ABOUT_ONE = 1.05  # a ratio below it, and above its inverse, is called the same


@dataclass(frozen=True)
class Figure:
    """Hold a number before and after compression, the change, how sure it is, and whether it is for the worse."""

    name: str
    change: str
    before: str
    after: str
    sure: str
    worse: bool


def verdict(scores: Scores, latency: Latency) -> str:
    """Say in one line how much smaller, faster and more or less accurate the optimized file is."""
    original, optimized = scores["original"], scores["optimized"]
    parts = [_ratio(original["size_bytes"] / optimized["size_bytes"], "smaller", "larger", "as large")]
    if measured := fastest_batch(latency):
        ratio = measured["optimized"]["against_exported"]
        same = ratio["verdict"] == "no difference"
        about = "" if same or ratio["precise"] else "about "
        parts.append("as fast" if same else about + _ratio(ratio["speedup"], "faster", "slower", "as fast"))
    points = 100 * (optimized["accuracy"] - original["accuracy"])
    if optimized["mcnemar_p"] >= SIGNIFICANCE:
        parts.append("no measurable loss of accuracy" if points <= 0 else "no measurable change of accuracy")
    else:
        parts.append(f"{abs(points):.2f} points {'more' if points > 0 else 'less'} accurate")
    line = ", ".join(parts)
    return f"{line[0].upper()}{line[1:]}."


def figures(scores: Scores, latency: Latency) -> list[Figure]:
    """List the four figures: size, accuracy, time where it was measured, and work."""
    before, after = scores["original"], scores["optimized"]
    found = [
        Figure(
            "size on disk",
            times(before["size_bytes"] / after["size_bytes"]),
            bytes_text(before["size_bytes"]),
            bytes_text(after["size_bytes"]),
            f"zipped {bytes_text(before['compressed_bytes'])} to {bytes_text(after['compressed_bytes'])}",
            after["size_bytes"] > before["size_bytes"],
        ),
        Figure(
            "accuracy on test images",
            f"{100 * (after['accuracy'] - before['accuracy']):+.2f} points".replace("-", "\N{MINUS SIGN}"),
            f"{100 * before['accuracy']:.2f} %",
            f"{100 * after['accuracy']:.2f} %",
            f"95 % interval {100 * after['accuracy_low']:.2f} to {100 * after['accuracy_high']:.2f}, "
            f"McNemar p = {after['mcnemar_p']:.2g}",
            after["mcnemar_p"] < SIGNIFICANCE and after["accuracy"] < before["accuracy"],
        ),
    ]
    if measured := fastest_batch(latency):
        ratio = measured["optimized"]["against_exported"]
        same = ratio["verdict"] == "no difference"
        found.append(
            Figure(
                f"time per call, {batch_sizes(latency)[0].replace('_', ' ')}",
                "no difference" if same else times(ratio["speedup"]),
                f"{measured['exported']['latency_ms']:.3g} ms",
                f"{measured['optimized']['latency_ms']:.3g} ms",
                f"95 % interval {ratio['speedup_low']:.1f} to {ratio['speedup_high']:.1f} times, same runtime",
                ratio["verdict"] == "slower",
            )
        )
    found.append(
        Figure(
            "multiply-accumulates",
            times(before["macs"] / after["macs"]) if after["macs"] else "",
            f"{before['macs'] / 1e6:.3g} M",
            f"{after['macs'] / 1e6:.3g} M",
            f"{percent(after['int8_mac_share'])} of them on 8-bit integers",
            after["macs"] > before["macs"],
        )
    )
    return found


def fastest_batch(latency: Latency) -> dict[str, Mapping[str, Any]]:
    """Select what was measured at the first batch size, by model, where the two files ran in the same runtime."""
    first = batch_sizes(latency)[:1]
    measured = {name: own[batch] for name, own in latency.items() for batch in first if batch in own}
    compared = "exported" in measured and "against_exported" in measured.get("optimized", {})
    return measured if compared else {}


def times(ratio: float) -> str:
    """Write a ratio in three digits, and one below 1 as its inverse with a slash: 77\N{MULTIPLICATION SIGN}."""
    if ratio < 1 / ABOUT_ONE:
        return f"1/{_digits(1 / ratio)}"
    return f"{_digits(ratio)}\N{MULTIPLICATION SIGN}"


def _digits(ratio: float) -> str:
    return f"{ratio:.0f}" if ratio >= 20 else f"{ratio:.1f}"


def _ratio(ratio: float, more: str, less: str, same: str) -> str:
    if 1 / ABOUT_ONE < ratio < ABOUT_ONE:
        return same
    return f"{_digits(ratio)} times {more}" if ratio > 1 else f"{_digits(1 / ratio)} times {less}"


def bytes_text(value: float) -> str:
    """Write bytes in the largest unit of 1000 that leaves at least 1, with three digits: 323 kB, 25 MB."""
    for limit, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value >= limit:
            scaled = value / limit
            return f"{scaled:.0f} {unit}" if scaled >= 100 else f"{scaled:.3g} {unit}"
    return f"{value:.0f} B"


def count_text(value: int) -> str:
    """Write a count in full below a million, else in millions or more with three digits: 78,400, 8.58 M, 1.8 G."""
    for limit, letter in ((1e9, "G"), (1e6, "M")):
        if value >= limit:
            scaled = value / limit
            return f"{scaled:,.0f} {letter}" if scaled >= 100 else f"{scaled:.3g} {letter}"
    return f"{value:,}"
