"""Phrases for numbers, speeds and layers, of which the sentences of the summary are put together."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

NOTICEABLE = 0.05  # relative change of a size that is put into a number
SHOWN = 4  # names of layers, or ranges of names, in one phrase


def percent(share: float) -> str:
    """Format a share in [0, 1] in percent; one that is not 0 or 1 never becomes 0 % or 100 %."""
    if 0 < share < 0.0005:
        return "less than 0.1 %"
    if 0.9995 <= share < 1:
        return "more than 99.9 %"
    precise = 0 < share < 0.0995 or 0.995 <= share < 1
    return f"{100 * share:.1f} %" if precise else f"{100 * share:.0f} %"


def share_of_weights(shares: Sequence[float]) -> str:
    """Write the shares of pruned weights of several layers: one where they agree, else the range."""
    low, high = min(shares), max(shares)
    if high - low >= 0.005:
        return f"between {percent(low)} and {percent(high)} of each layer's weights"
    return f"{'half' if abs(low - 0.5) < 0.005 else percent(low)} of the weights"


def change_of_size(before: float, after: float, reference: str = "") -> str:
    """Write how much smaller or larger a size became, such as `4.0 times smaller than the original`."""
    times = before / after
    if times >= 1 + NOTICEABLE:
        return f"{times:.1f} times smaller{f' than {reference}' if reference else ''}"
    if times <= 1 - NOTICEABLE:
        return f"{1 / times:.1f} times larger{f' than {reference}' if reference else ''}"
    return f"about as large{f' as {reference}' if reference else ''}"


def speed(measured: Mapping[str, Any], reference: str = "") -> str:
    """Write a measured speedup with its interval, or that there is none; `reference` reads like ` as the original`.

    One that was not measured precisely is warned of.
    """
    times = f"{measured['speedup']:.2f} times [{measured['speedup_low']:.2f}, {measured['speedup_high']:.2f}]"
    precise = measured.get("precise", True)  # metrics of earlier versions do not tell
    if measured["verdict"] == "no difference":
        return f"as fast{reference} (no measurable difference{'' if precise else f'; not precise: {times}'})"
    return f"{times} as fast{reference}{'' if precise else ' (not precise: the machine was busy)'}"


def enumeration(parts: Sequence[str]) -> str:
    """Join phrases by commas and a last `and`."""
    return " and ".join(filter(None, [", ".join(parts[:-1]), *parts[-1:]]))


def layers(names: Sequence[str]) -> str:
    """Name layers, runs of numbered ones by their ends and of many only the first: `the layers conv1 to conv3`."""
    runs: list[list[str]] = []
    for name in names:
        if runs and _follows(runs[-1][-1], name):
            runs[-1].append(name)
        else:
            runs.append([name])
    parts = [part for run in runs for part in ([run] if len(run) > 2 else [[name] for name in run])]
    shown = parts if len(parts) <= SHOWN else parts[: SHOWN - 1]
    phrases = [part[0] if len(part) == 1 else f"{part[0]} to {part[-1]}" for part in shown]
    if rest := len(names) - sum(map(len, shown)):
        phrases.append(f"{rest} more")
    return f"the layer{'' if len(names) == 1 else 's'} {enumeration(phrases)}"


def _follows(name: str, other: str) -> bool:
    """Tell whether `other` is called like `name`, with the next number at its end."""
    first, second = (re.fullmatch(r"(.*?)(\d+)", text) for text in (name, other))
    return bool(first and second and first[1] == second[1] and int(first[2]) + 1 == int(second[2]))
