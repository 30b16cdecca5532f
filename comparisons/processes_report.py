"""The table of what comparisons/results/processes.csv holds, and which goals it reaches.

    python -m comparisons.processes_report

Writes comparisons/results/processes.md: medians over rounds, ratios of the same round with their 95 % interval.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from lightweight.core.files import write_text
from lightweight.evaluation.statistics import median_interval
from lightweight.execution.process import run_stage
from lightweight.reporting.table import markdown

TABLE, FIGURES = (Path("comparisons/results") / f"processes.{kind}" for kind in ("md", "csv"))
NETWORKS = ("resnet20", "cnn", "tiny")
COLUMNS = ["network", "machine", "setup", "round", "step_ms", "cpu", "cores", "load", "date", "torch"]
MAX_IDLE_LOAD = 0.5  # of the machine before the first turn


@dataclass(frozen=True)
class Setup:
    """Hold how many processes of how many threads train, in how many shards, and whether exactly."""

    processes: int
    threads: int
    shards: int
    exact: bool


ONE, TWO, DDP, THREADS = "1 process", "2 processes", "2 processes, DDP", "1 process of 2 threads"
SETUPS = {
    ONE: Setup(1, 1, 2, True),
    TWO: Setup(2, 1, 2, True),
    DDP: Setup(2, 1, 1, False),
    THREADS: Setup(1, 2, 1, True),
}


@dataclass(frozen=True)
class Goal:
    """Hold a goal of a network: the times of `before` over those of `after`, at least or at most so much."""

    words: str
    network: str
    before: tuple[str, str]  # machine and setup
    after: tuple[str, str]
    least: float = 0.0
    most: float = math.inf


QUIET, BUSY = "quiet", "one core busy"
FASTER, STEADY, CHEAP = "2 processes, times as fast", "one core busy, times the quiet time", "exact, times DDP's time"
GOALS = [
    Goal(FASTER, "resnet20", (QUIET, ONE), (QUIET, TWO), least=1.8),
    Goal(FASTER, "cnn", (QUIET, ONE), (QUIET, TWO), least=1.3),
    Goal(FASTER, "tiny", (QUIET, ONE), (QUIET, TWO), least=1.2),
    *(Goal(STEADY, network, (BUSY, TWO), (QUIET, TWO), most=2.0) for network in NETWORKS),
    *(Goal(CHEAP, network, (QUIET, TWO), (QUIET, DDP), most=1.2) for network in ("resnet20", "cnn")),
]


def report() -> None:
    """Write and print the table."""
    text = describe(pd.read_csv(FIGURES))
    write_text(TABLE, text)
    print(text)


def describe(figures: pd.DataFrame) -> str:
    """Write what was measured where, a row for every setup, and which goals are reached, in Markdown."""
    first = figures.iloc[0]
    title = (
        f"Milliseconds per training step at batches of 256, median of {figures['round'].max()} rounds, on "
        f"{first['cores']} cores of {first['cpu']}, {first['date']}, PyTorch {first['torch']}, load before "
        f"{first['load']:.2f}. A process has one thread, and a batch two shards, unless said otherwise. Ratios are of "
        "the same round, with the 95 % interval of their median."
    )
    shared = "" if first["load"] <= MAX_IDLE_LOAD else "**Others used this machine: the figures are a trial.**\n\n"
    return f"{title}\n\n{shared}{markdown(compare(figures))}\n{markdown(judge(figures))}"


def compare(figures: pd.DataFrame) -> pd.DataFrame:
    """Compare every setup with one process on the same machine, and with itself on the quiet machine, as text."""
    times = by_round(figures)
    rows = []
    for network, machine, setup in times.columns:
        own = times[network, machine, setup]
        row = {"network": network, "machine": machine, "processes": setup, "ms": f"{own.median():.1f}"}
        row["times as fast as one"] = ratio(times, (network, machine, ONE), (network, machine, setup))
        row["time to DDP's"] = ratio(times, (network, machine, setup), (network, machine, DDP))
        row["time to quiet"] = ratio(times, (network, machine, setup), (network, QUIET, setup))
        rows.append(row)
    return pd.DataFrame(rows)


def judge(figures: pd.DataFrame) -> pd.DataFrame:
    """Say of every goal whether the figures reach it, as text; those of what was not measured are left out."""
    times = by_round(figures)
    rows = []
    for goal in GOALS:
        before, after = (goal.network, *goal.before), (goal.network, *goal.after)
        if before in times.columns and after in times.columns:
            found = (times[before] / times[after]).median()
            bound = f"at least {goal.least}" if goal.least else f"at most {goal.most}"
            row = {"network": goal.network, "what": goal.words, "goal": bound, "measured": ratio(times, before, after)}
            rows.append(row | {"reached": "yes" if goal.least <= found <= goal.most else "no"})
    return pd.DataFrame(rows, columns=["network", "what", "goal", "measured", "reached"])


def by_round(figures: pd.DataFrame) -> pd.DataFrame:
    """Arrange milliseconds by round (rows) and by network, machine and setup (columns), in the order above."""
    kinds = ["network", "machine", "setup"]
    known = figures[kinds].drop_duplicates()
    order = {QUIET: 0, BUSY: 1} | {name: number for number, name in enumerate((*NETWORKS, *SETUPS))}
    columns = sorted(known.itertuples(index=False, name=None), key=lambda column: [order[name] for name in column])
    return figures.pivot(index="round", columns=kinds, values="step_ms")[columns]


def ratio(times: pd.DataFrame, before: tuple[str, str, str], after: tuple[str, str, str]) -> str:
    """Format the median of the ratios of each round with its interval; empty for a ratio to itself or to nothing."""
    if before == after or not {before, after} <= set(times.columns):
        return ""
    ratios = (times[before] / times[after]).to_numpy()
    low, high = median_interval(ratios)
    return f"{np.median(ratios):.2f}{'' if math.isnan(low) else f' [{low:.2f}, {high:.2f}]'}"


if __name__ == "__main__":
    run_stage(report)
