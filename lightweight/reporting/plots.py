"""Pictures of a run as PNG files: variants side by side, the original first; axes say their unit, bars start at 0."""

import io
import sys
from collections.abc import Iterable, Sequence

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lightweight.core.variants import in_order
from lightweight.reporting.results import Latency, Scores, batch_sizes

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

Rows = Sequence[dict[str, str]]  # of a CSV file


def draw_comparison(scores: Scores) -> bytes:
    """Draw the accuracy with its interval, the size, the parameters and the MACs of every variant."""
    figure, axes = _make_axes(1, 4, (12, 2.6))
    values = pd.DataFrame.from_dict(scores, orient="index").loc[in_order(scores)]
    colors = _colors(values.index)
    middle, low, high = (100 * values[key] for key in ("accuracy", "accuracy_low", "accuracy_high"))
    axes[0].errorbar(
        middle, range(len(values)), xerr=[middle - low, high - middle], fmt="none", ecolor=MUTED, elinewidth=5
    )
    axes[0].scatter(middle, range(len(values)), c=colors, zorder=2)
    axes[0].set_yticks(range(len(values)), values.index)
    axes[0].set_title("test accuracy (%), 95 % interval")
    for axis, title, whole, part in (
        (axes[1], "size (MB), zipped in dark", values["size_bytes"], values["compressed_bytes"]),
        (axes[2], "parameters (M), nonzero in dark", values["parameters"], values["nonzero_parameters"]),
        (axes[3], "MACs (M), int8 in dark", values["macs"], values["macs"] * values["int8_mac_share"]),
    ):
        _draw_bars(axis, title, list(whole / 1e6), colors)
        axis.barh(range(len(values)), part / 1e6, color="#00000055", height=0.3)
    for axis in axes:
        axis.invert_yaxis()
    for axis in axes[1:]:
        axis.set_yticks(range(len(values)), [])
    return _as_png(figure)


def draw_latency(latency: Latency) -> bytes:
    """Draw the median milliseconds of each timed model at each batch size, with the 5th to 95th percentile."""
    batches = batch_sizes(latency)
    figure, axes = _make_axes(1, len(batches), (4 * len(batches), 1.9))
    for axis, batch in zip(axes, batches, strict=True):
        times = pd.DataFrame.from_dict({model: measured[batch] for model, measured in latency.items()}, orient="index")
        middle = times["latency_ms"]
        below, above = middle - times["latency_ms_p05"], times["latency_ms_p95"] - middle
        errors = [below.clip(lower=0), above.clip(lower=0)]
        axis.barh(range(len(times)), middle, color=_colors(times.index), xerr=errors, ecolor="#00000088")
        axis.set_yticks(range(len(times)), times.index)
        axis.set_title(f"latency at {batch.replace('_', ' ')} (ms)")
        axis.invert_yaxis()
    return _as_png(figure)


def draw_training(train: Rows, swa: Rows, recovery: Rows) -> bytes:
    """Draw loss and validation accuracy by epoch: training, the averaging phase, and recovery after pruning."""
    figure, axes = _make_axes(1, 2, (10, 2.9))
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
    return _as_png(figure)


def draw_confusion(predictions: Rows) -> bytes:
    """Draw the confusion matrix, actual classes by row and predicted ones by column, with the number of test images."""
    pairs = pd.DataFrame(predictions)
    classes = sorted(set(pairs.to_numpy().flat), key=_numbers_first)
    counts = pd.crosstab(pairs["actual"], pairs["predicted"]).reindex(index=classes, columns=classes, fill_value=0)
    shares = counts.div(counts.sum(axis=1).clip(lower=1), axis=0).to_numpy()
    side = min(max(4.0, 0.42 * len(classes) + 1.4), 14.0)
    figure, (axis,) = _make_axes(1, 1, (side, side))
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axis.set_xticks(range(len(classes)), classes, rotation=90 if max(map(len, classes)) > 2 else 0)
    axis.set_yticks(range(len(classes)), classes)
    if len(classes) <= 20:
        for actual, predicted in np.argwhere(counts.to_numpy()):
            text, dark = str(counts.iat[actual, predicted]), shares[actual, predicted] > 0.5
            axis.text(predicted, actual, text, ha="center", va="center", color="w" if dark else "k", fontsize=7)
    axis.tick_params(labelsize=min(9, 700 / len(classes)))
    axis.set_xlabel("predicted by the optimized file")
    axis.set_ylabel("actual")
    return _as_png(figure)


def _numbers_first(name: str) -> tuple[int, str]:
    """Make a key that sorts "2" before "10", and any number before a word."""
    return (int(name), "") if name.isdecimal() else (sys.maxsize, name)


def draw_sparsity(rows: Rows) -> bytes:
    """Draw the share of every layer's weights that pruning removed or zeroed, beside its share of all weights."""
    names = [row["layer"] for row in rows]
    figure, axes = _make_axes(1, 2, (9, max(1.6, 0.3 * len(rows) + 0.9)))
    weights = np.array([int(row["weights"]) for row in rows])
    _draw_bars(axes[0], "pruned (% of the layer's weights)", [100 * float(row["sparsity"]) for row in rows], AFTER)
    _draw_bars(axes[1], "weights (% of the network's)", list(100 * weights / weights.sum()), BEFORE)
    axes[0].set_xlim(0, 100)
    axes[0].set_yticks(range(len(names)), names)
    axes[1].set_yticks(range(len(names)), [])
    for axis in axes:
        axis.invert_yaxis()
    return _as_png(figure)


def draw_sensitivity(rows: Rows) -> bytes:
    """Draw the accuracy that is lost where a layer alone is pruned, the worst first, beside its parameters.

    Without rows, which is sensitivity switched off, the picture says so.
    """
    rows = sorted(rows, key=lambda row: -float(row["drop"]))
    names = [name if len(name) <= 40 else f"{name[:37]}..." for name in (row["layer"] for row in rows)]
    figure, axes = _make_axes(1, 2, (9, max(1.6, 0.3 * len(rows) + 0.9)))
    lost = f"points lost without {float(rows[0]['amount']):.0%} of the layer" if rows else "not measured"
    _draw_bars(axes[0], lost, [100 * float(row["drop"]) for row in rows], AFTER)
    _draw_bars(axes[1], "parameters of the layer", [int(row["parameters"]) for row in rows], BEFORE)
    axes[0].set_yticks(range(len(names)), names)
    axes[1].set_yticks(range(len(names)), [])
    for axis in axes:
        axis.invert_yaxis()
    return _as_png(figure)


def _make_axes(rows: int, columns: int, size: tuple[float, float]) -> tuple[Figure, list[Axes]]:
    """Make a figure of so many inches, and its axes in a list."""
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False)
    return figure, list(axes.flat)


def _colors(models: Iterable[str]) -> list[str]:
    """Choose a colour of its own for the optimized model."""
    return [AFTER if name == "optimized" else BEFORE for name in models]


def _draw_bars(axis: Axes, title: str, values: Sequence[float], color: str | Sequence[str]) -> None:
    """Draw horizontal bars with their values in three digits."""
    bars = axis.barh(range(len(values)), values, color=color)
    axis.bar_label(bars, [f" {value:.3g}" for value in values], fontsize=8)
    axis.margins(x=0.18)
    axis.set_title(title)


def _as_png(figure: Figure) -> bytes:
    """Render the figure and close it."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=130)
    plt.close(figure)
    return content.getvalue()
