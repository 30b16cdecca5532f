"""Pictures compare the variants side by side, the original first; axes say their unit, bars start at zero."""

import io
import sys
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from lightweight.core.variants import VARIANTS
from lightweight.reporting.table import Metrics

BEFORE, AFTER, MUTED = "#8da0b3", "#1b6ca8", "#d5dde5"
plt.rcParams |= {
    "font.size": 9,
    "text.parse_math": False,  # a class may be called $x$
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "figure.constrained_layout.use": True,
}

Rows = list[dict[str, str]]


def draw_comparison(metrics: Metrics) -> bytes:
    """Accuracy with its interval, size, parameters and MACs of every variant, as a PNG."""
    figure, axes = _axes(1, 4, (12, 2.6))
    names = list(VARIANTS)
    scores = [metrics[name] for name in names]
    accuracy = np.array([score["accuracy"] for score in scores]) * 100
    low = accuracy - np.array([score["accuracy_low"] for score in scores]) * 100
    high = np.array([score["accuracy_high"] for score in scores]) * 100 - accuracy
    colors = [AFTER if name == "optimized" else BEFORE for name in names]
    axes[0].errorbar(accuracy, range(len(names)), xerr=[low, high], fmt="none", ecolor=MUTED, elinewidth=5)
    axes[0].scatter(accuracy, range(len(names)), c=colors, zorder=2)
    axes[0].set_yticks(range(len(names)), names)
    axes[0].set_title("test accuracy (%), 95 % interval")
    _bars(axes[1], "size (MB), zipped in dark", [s["size_bytes"] / 1e6 for s in scores], colors)
    axes[1].barh(range(len(names)), [s["compressed_bytes"] / 1e6 for s in scores], color="#00000055", height=0.3)
    _bars(axes[2], "parameters (M), nonzero in dark", [s["parameters"] / 1e6 for s in scores], colors)
    axes[2].barh(range(len(names)), [s["nonzero_parameters"] / 1e6 for s in scores], color="#00000055", height=0.3)
    _bars(axes[3], "MACs (M), int8 in dark", [s["macs"] / 1e6 for s in scores], colors)
    int8 = [s["macs"] * s["int8_mac_share"] / 1e6 for s in scores]
    axes[3].barh(range(len(names)), int8, color="#00000055", height=0.3)
    for axis in axes:
        axis.invert_yaxis()
    for axis in axes[1:]:
        axis.set_yticks(range(len(names)), [])
    return _png(figure)


def draw_latency(latency: Metrics) -> bytes:
    """Median milliseconds, 5th to 95th percentile, of each measured model at each batch size, as a PNG."""
    batches = [key for key in next(iter(latency.values())) if key.startswith("batch_")]
    figure, axes = _axes(1, len(batches), (4 * len(batches), 1.9))
    for axis, batch in zip(axes, batches, strict=True):
        measured = [latency[name][batch] for name in latency]
        middle = np.array([entry["latency_ms"] for entry in measured])
        below = np.maximum(middle - [entry["latency_ms_p05"] for entry in measured], 0)
        above = np.maximum(np.array([entry["latency_ms_p95"] for entry in measured]) - middle, 0)
        colors = [AFTER if name == "optimized" else BEFORE for name in latency]
        axis.barh(range(len(latency)), middle, color=colors, xerr=[below, above], ecolor="#00000088")
        axis.set_yticks(range(len(latency)), list(latency))
        axis.set_title(f"latency at {batch.replace('_', ' ')} (ms)")
        axis.invert_yaxis()
    return _png(figure)


def draw_training(train: Rows, swa: Rows, recovery: Rows) -> bytes:
    """Loss and validation accuracy by epoch: training, the averaging phase, and recovery after pruning, as a PNG."""
    figure, axes = _axes(1, 2, (10, 2.9))
    last = max([int(row["epoch"]) for row in (*train, *swa)], default=0)
    phases = [("train", train, BEFORE, 0), ("swa", swa, AFTER, 0), ("after pruning", recovery, "#c8553d", last)]
    for name, rows, color, offset in phases:
        if rows:
            epochs = [int(row["epoch"]) + offset for row in rows]
            for axis, key, factor in ((axes[0], "train_loss", 1), (axes[1], "val_accuracy", 100)):
                axis.plot(epochs, [factor * float(row[key]) for row in rows], "o-", color=color, label=name, ms=3)
    if swa:
        for axis in axes:
            axis.axvspan(int(swa[0]["epoch"]) - 0.5, last + 0.5, color=MUTED, alpha=0.4, lw=0, zorder=0)
    axes[0].set_title("training loss (the averaging phase is shaded)")
    axes[1].set_title("validation accuracy (%)")
    for axis in axes:
        axis.set_xlabel("epoch")
    if train or recovery:
        axes[0].legend(frameon=False)
    return _png(figure)


def draw_confusion(predictions: Rows) -> bytes:
    """Actual class by row, predicted by column, the number of test images in each cell, as a PNG."""
    classes = sorted({row[key] for row in predictions for key in ("actual", "predicted")}, key=_numbers_first)
    counts = np.zeros((len(classes), len(classes)), dtype=int)
    for row in predictions:
        counts[classes.index(row["actual"]), classes.index(row["predicted"])] += 1
    side = min(max(4.0, 0.42 * len(classes) + 1.4), 14.0)
    figure, (axis,) = _axes(1, 1, (side, side))
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axis.set_xticks(range(len(classes)), classes, rotation=90 if max(map(len, classes)) > 2 else 0)
    axis.set_yticks(range(len(classes)), classes)
    if len(classes) <= 20:
        for actual, predicted in np.argwhere(counts):
            dark = shares[actual, predicted] > 0.5
            text = str(counts[actual, predicted])
            axis.text(predicted, actual, text, ha="center", va="center", color="w" if dark else "k", fontsize=7)
    axis.tick_params(labelsize=min(9, 700 / len(classes)))
    axis.set_xlabel("predicted by the optimized file")
    axis.set_ylabel("actual")
    return _png(figure)


def _numbers_first(name: str) -> tuple[int, str]:
    """Sorts "2" before "10", and any number before a word."""
    return (int(name), "") if name.isdecimal() else (sys.maxsize, name)


def draw_sparsity(rows: Rows) -> bytes:
    """The share of every layer's weights that pruning removed or zeroed, and its share of all weights, as a PNG."""
    names = [row["layer"] for row in rows]
    figure, axes = _axes(1, 2, (9, max(1.6, 0.3 * len(rows) + 0.9)))
    weights = np.array([int(row["weights"]) for row in rows])
    _bars(axes[0], "pruned (% of the layer's weights)", [100 * float(row["sparsity"]) for row in rows], AFTER)
    _bars(axes[1], "weights (% of the network's)", list(100 * weights / weights.sum()), BEFORE)
    axes[0].set_xlim(0, 100)
    axes[0].set_yticks(range(len(names)), names)
    axes[1].set_yticks(range(len(names)), [])
    for axis in axes:
        axis.invert_yaxis()
    return _png(figure)


def draw_sensitivity(rows: Rows) -> bytes:
    """What accuracy each layer costs that is pruned alone, the worst first, beside its parameters, as a PNG."""
    rows = sorted(rows, key=lambda row: -float(row["drop"]))
    names = [name if len(name) <= 40 else f"{name[:37]}..." for name in (row["layer"] for row in rows)]
    figure, axes = _axes(1, 2, (9, max(1.6, 0.3 * len(rows) + 0.9)))
    share = float(rows[0]["amount"])
    _bars(axes[0], f"points lost without {share:.0%} of the layer", [100 * float(row["drop"]) for row in rows], AFTER)
    _bars(axes[1], "parameters of the layer", [int(row["parameters"]) for row in rows], BEFORE)
    axes[0].set_yticks(range(len(names)), names)
    axes[1].set_yticks(range(len(names)), [])
    for axis in axes:
        axis.invert_yaxis()
    return _png(figure)


def _axes(rows: int, columns: int, size: tuple[float, float]) -> tuple[Figure, list[Any]]:
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False)
    return figure, list(axes.flat)


def _bars(axis: Any, title: str, values: list[float], color: Any) -> None:
    bars = axis.barh(range(len(values)), values, color=color)
    axis.bar_label(bars, [f" {value:.3g}" for value in values], fontsize=8)
    axis.margins(x=0.18)
    axis.set_title(title)


def _png(figure: Figure) -> bytes:
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=130)
    plt.close(figure)
    return content.getvalue()
