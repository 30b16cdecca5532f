"""The table and the picture of what comparisons/results/pruning.csv holds.

    python -m comparisons.pruning_report

Writes comparisons/results/pruning.md with the mean and the range over seeds, and comparisons/results/pruning.png.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes

from comparisons.pruning_cases import CASES, SPARSITIES, Case
from lightweight.core.files import write_text
from lightweight.execution.process import run_stage
from lightweight.reporting.table import markdown

TABLE, PLOT, FIGURES = (Path("comparisons/results") / f"pruning.{kind}" for kind in ("md", "png", "csv"))
KIND = ["tool", "method", "scope", "schedule", "reestimated"]  # columns that tell one kind of pruning from another
COLUMNS = ["network", "seed", *KIND[:3], "sparsity", *KIND[3:], "accuracy"]
STYLES = {"none": ":", "one_shot": "--", "polynomial": "-"}
COLORS = {"unstructured, global": "#1f6fb2", "unstructured, layer": "#7fb2d9", "structured, layer": "#c8553d"}


def report() -> None:
    """Write and print the table, and draw the picture."""
    figures = pd.read_csv(FIGURES)
    text = describe(figures)
    write_text(TABLE, text)
    draw(figures)
    print(text)


def describe(figures: pd.DataFrame) -> str:
    """Write a table per network in Markdown, with what pruning over all layers gains on pruning each layer alone."""
    return "\n".join(
        f"{title(case, own)}\n\n{markdown(compare(own))}\n{global_gain(own)}\n" for case, own in by_case(figures)
    )


def by_case(figures: pd.DataFrame) -> Iterator[tuple[Case, pd.DataFrame]]:
    """Select the figures of every case that was measured, with accuracy in percent."""
    percent = figures.assign(accuracy=100 * figures["accuracy"])
    for case in CASES:
        own = percent[percent["network"] == case.network]
        if len(own):
            yield case, own


def title(case: Case, figures: pd.DataFrame) -> str:
    """Say how the network of a case was trained, and how accurate it is before pruning."""
    dense = unpruned(figures)
    return (
        f"`{case.network}`, {case.images:,} training images, {case.epochs} + {case.tuning_epochs} epochs, {len(dense)} "
        f"seeds: dense {mean_and_range(dense)} % of 2,000 test images."
    )


def compare(figures: pd.DataFrame) -> pd.DataFrame:
    """Compare accuracies as text, a row per kind of pruning and a column per sparsity."""
    pruned = figures[figures["method"] != "dense"]
    cells = pruned.groupby([*KIND, "sparsity"], sort=False)["accuracy"].agg(mean_and_range).unstack(sort=False)
    kinds = cells.index.to_frame(index=False)
    return pd.DataFrame(
        {
            "tool": kinds["tool"],
            "pruned": kinds["method"] + ", " + kinds["scope"],
            "fine-tuned": kinds["schedule"].str.replace("_", " "),
            "statistics": kinds["reestimated"].map({True: "new", False: "old"}),
            **{f"{sparsity:.0%}": list(cells[sparsity]) for sparsity in SPARSITIES[1:]},
        }
    )


def global_gain(figures: pd.DataFrame) -> str:
    """Say what pruning over all layers together gains on pruning each layer alone."""
    ours = figures[(figures["tool"] == "ours") & (figures["method"] == "unstructured") & figures["reestimated"]]
    means = ours.pivot_table(index=["scope", "schedule"], columns="sparsity", values="accuracy")
    all_layers, each_layer = (pd.DataFrame(means.loc[scope]) for scope in ("global", "layer"))
    gains = (all_layers - each_layer)[[0.5, 0.7, 0.9]].round(1) + 0.0  # which turns -0.0 into 0.0
    by_schedule = [
        f"{str(schedule).replace('_', ' ')} {', '.join(f'{gain:+.1f}' for gain in points)}"
        for schedule, points in gains.iterrows()
    ]
    heading = "Global against layer with new statistics at 50, 70 and 90 %, in points, by fine-tuning"
    return f"{heading}: {'; '.join(by_schedule)}."


def unpruned(figures: pd.DataFrame) -> "pd.Series[float]":
    """Select the accuracies before pruning, by seed."""
    return figures.loc[(figures["method"] == "dense") & ~figures["reestimated"], "accuracy"]


def mean_and_range(accuracies: "pd.Series[float]") -> str:
    """Format the mean and the range over seeds; NaN stands for a pruned network that does not run."""
    if accuracies.hasnans:
        return "does not run"
    return f"{accuracies.mean():.2f} [{accuracies.min():.2f}, {accuracies.max():.2f}]"


def draw(figures: pd.DataFrame) -> None:
    """Draw accuracy against sparsity by network, with new BatchNorm statistics above and old ones below."""
    cases = list(by_case(figures))
    figure, axes = plt.subplots(2, len(cases), figsize=(6.4 * len(cases), 8.4), squeeze=False, sharex=True)
    for row, reestimated in zip(axes, (True, False), strict=True):
        for axis, (case, own) in zip(row, cases, strict=True):
            ours = own[(own["tool"] == "ours") & (own["reestimated"] == reestimated) & (own["method"] != "dense")]
            for kind, accuracies in ours.groupby(["method", "scope", "schedule"], sort=False):
                draw_curve(axis, kind, accuracies, unpruned(own))
            axis.set_title(f"{case.network}: accuracy with {'new' if reestimated else 'old'} statistics (%)")
            axis.set_xlabel("sparsity (%)")
    axes[0][0].legend(fontsize=7)
    figure.savefig(PLOT, dpi=130, bbox_inches="tight")
    plt.close(figure)


def draw_curve(axis: Axes, kind: Any, accuracies: pd.DataFrame, dense: "pd.Series[float]") -> None:
    """Draw the mean accuracy and its range of one kind of pruning, a method, scope and schedule, from `dense` on."""
    method, scope, schedule = kind
    spread = accuracies.groupby("sparsity")["accuracy"].agg(["mean", "min", "max"])
    spread.loc[0.0] = [dense.mean(), dense.min(), dense.max()]
    spread = spread.sort_index()
    shares, color = 100 * spread.index, COLORS[f"{method}, {scope}"]
    label = f"{method}, {scope}, {schedule.replace('_', ' ')}"
    axis.plot(shares, spread["mean"], STYLES[schedule], color=color, label=label)
    axis.fill_between(shares, spread["min"], spread["max"], color=color, alpha=0.12)


if __name__ == "__main__":
    run_stage(report)
