"""Who is best at what: our file for a task against the best of the others, and the reason where that is known."""

from collections.abc import Iterator
from typing import Any

import pandas as pd

from comparisons.peers.trials import OURS
from lightweight.evaluation.statistics import SIGNIFICANCE

MEASURES = {  # by the name in reasons: the column, whether less is better, how it is written
    "bytes": ("size_bytes", True, "{:,.0f} bytes"),
    "time": ("cpu_seconds", True, "{:.0f} CPU seconds"),
    "lines": ("lines", True, "{:.0f} lines"),
}


def describe_verdicts(
    figures: pd.DataFrame, times: pd.DataFrame | None, task: str, peers: dict[str, Any]
) -> Iterator[str]:
    """Yield a sentence for each measure in which others can be compared with our file, and why they win."""
    ours, others = figures[figures["peer"] == OURS], figures[figures["peer"] != OURS]
    if ours.empty or others.empty:
        return
    own, best = reference(ours), others.loc[others["accuracy"].idxmax()]
    yield judge_accuracy(own, best) + why(peers, task, "accuracy", best["peer"], better(own, best))
    for measure, (column, _, written) in MEASURES.items():
        best = others.loc[others[column].idxmin()]
        won = best[column] < own[column]
        theirs, mine = (written.format(row[column]) for row in (best, own))
        words = f"{measure.capitalize()}: {name(best)} has {theirs}, ours {mine}."
        yield words + (f" {best['peer']} wins." if won else "") + why(peers, task, measure, best["peer"], won)
    if times is not None:
        yield from judge_speed(times.dropna(subset="speedup"), own["method"], task, peers)


def reference(ours: pd.DataFrame) -> pd.Series:
    """Return the row of our file that others are compared with: the first."""
    return ours.iloc[0]


def name(row: pd.Series) -> str:
    """Name a file by tool and method."""
    return f"{row['peer']} ({row['method']})"


def better(own: pd.Series, best: pd.Series) -> bool:
    """Tell whether the best of the others gets so many more images right that it is not chance."""
    paired = not pd.isna(best["ours_p"])
    return bool(paired and best["only_theirs"] > best["only_ours"] and best["ours_p"] < SIGNIFICANCE)


def judge_accuracy(own: pd.Series, best: pd.Series) -> str:
    """Say which of two files is more accurate, by the images that only one of them gets right."""
    gap = 100 * (best["accuracy"] - own["accuracy"])
    words = f"Accuracy: the best of the others is {name(best)}, {best['accuracy']:.2%}, ours {own['accuracy']:.2%}: "
    if pd.isna(best["ours_p"]):
        return words + f"{gap:+.2f} points, not paired."
    words += f"{gap:+.2f} points, p {best['ours_p']:.2g}, "
    if best["ours_p"] >= SIGNIFICANCE:
        return words + "no difference that is not chance."
    return words + (f"{best['peer']} wins." if gap > 0 else "ours wins.")


def judge_speed(times: pd.DataFrame, method: str, task: str, peers: dict[str, Any]) -> Iterator[str]:
    """Yield a sentence for each runtime and batch size: the fastest of the others, and ours."""
    for (runtime, batch), own in times.groupby(["runtime", "batch"], sort=False):
        ours = own[(own["peer"] == OURS) & (own["method"] == method)]
        others = own[own["peer"] != OURS]
        if ours.empty or others.empty:
            continue
        mine, best = ours.iloc[0], others.loc[others["speedup"].idxmax()]
        won = best["speedup_low"] > mine["speedup_high"]
        words = (
            f"Speed in {runtime}, batch {batch}: {name(best)} is {best['speedup']:.2f} times as fast as float32, "
            f"ours {mine['speedup']:.2f} times."
        )
        yield words + (f" {best['peer']} wins." if won else "") + why(peers, task, "speed", best["peer"], won)


def why(peers: dict[str, Any], task: str, measure: str, peer: str, won: bool) -> str:
    """Return the reason that is known for what a peer wins, if it wins."""
    known = peers.get("reasons", {}).get(task, {}).get(measure, {})
    text = known.get(peer, known.get("any", ""))
    return f" {text}" if won and text else ""
