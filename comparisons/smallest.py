"""Bytes against error: the smallest files of the recipes beside what others published on MNIST.

    python -m comparisons.smallest

Reads   comparisons/smallest.toml, recipes/results/*-compact*.json
Writes  comparisons/results/smallest.md, comparisons/results/smallest.png
Ours are whole files, `compact.lwz`: the mean over seeds of bytes and errors, from the worst seed to the best.
"""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from lightweight.core.files import read_json, write_text
from lightweight.execution.process import run_stage
from lightweight.reporting.table import markdown

PUBLISHED = Path("comparisons/smallest.toml")
TABLE, PICTURE = (Path("comparisons/results") / f"smallest.{kind}" for kind in ("md", "png"))
RESULTS = Path("recipes/results")
NETWORKS = {"lenet300": "LeNet-300-100", "lenet5": "LeNet-5-Caffe", "tiny": "any", "cnn": "any"}
TITLES = {"LeNet-300-100": "LeNet-300-100", "LeNet-5-Caffe": "LeNet-5-Caffe", "any": "MNIST, any network"}
OURS = "Lightweight"
MARKERS = {"weights": "s", "bitstream": "^", "flash": "v", "whole file": "o"}


@dataclass(frozen=True)
class Point:
    """Hold a point: bytes, error in percent of the test images, and from which to which error seeds went."""

    network: str
    method: str
    bytes: float
    error: float
    size: str
    source: str
    label: str = ""  # a short name
    best: float | None = None
    worst: float | None = None


def main() -> None:
    points = list_points()
    write_text(TABLE, describe(points))
    draw(points)
    print(TABLE.read_text())


def list_points() -> list[Point]:
    """List the published points, and ours."""
    return [Point(**entry) for entry in tomllib.loads(PUBLISHED.read_text())["point"]] + list_ours()


def list_ours() -> list[Point]:
    """List the points of the recipes that were run by several seeds."""
    points = []
    for path in sorted(RESULTS.glob("*-compact*.json")):
        stored, network = read_json(path), NETWORKS.get(path.stem.partition("-")[0])
        found = stored.get("seeds", {}).get("summary", {}).get("compact")
        if network and found:
            points.append(make_point(path.stem, network, found, len(stored["seeds"]["runs"])))
    return points


def make_point(name: str, network: str, found: dict[str, Any], seeds: int) -> Point:
    """Make the point of a recipe from the summary of its seeds."""
    best, mean, worst = (100 * (1 - found[key]) for key in ("best", "mean", "worst"))
    method, source = f"{OURS}, {name}", f"{seeds} seeds"
    return Point(network, method, found["bytes"], mean, "whole file", source, best=best, worst=worst)


def describe(points: list[Point]) -> str:
    """Write a table for each network in Markdown, by bytes."""
    parts = [
        "Test error on MNIST against bytes. Definitions of size differ; those of others leave out what they name.\n"
    ]
    for network, title in TITLES.items():
        rows = [
            {
                "method": point.method,
                "bytes": f"{point.bytes:,.0f}",
                "of": point.size,
                "error (%)": f"{point.error:.2f}{describe_range(point)}",
                "source": point.source,
            }
            for point in sorted(points, key=lambda point: point.bytes)
            if point.network == network
        ]
        parts.append(f"### {title}\n\n{markdown(pd.DataFrame(rows))}")
    return "\n".join(parts)


def describe_range(point: Point) -> str:
    """Describe the errors of the best and the worst seed."""
    return f" [{point.best:.2f}, {point.worst:.2f}]" if point.best is not None else ""


def draw(points: list[Point]) -> None:
    """Draw a panel for each network of which there is a file of ours, with bytes on a logarithmic axis."""
    networks = [name for name in TITLES if any(point.network == name and is_ours(point) for point in points)]
    figure, axes = plt.subplots(1, len(networks), figsize=(6.5 * len(networks), 4), layout="constrained", squeeze=False)
    for axis, network in zip(axes[0], networks, strict=True):
        own = sorted((point for point in points if point.network == network), key=lambda point: point.bytes)
        for place, point in enumerate(own):
            draw_point(axis, point, -10 if place % 2 else 3)
        axis.set(title=TITLES[network], xscale="log", xlabel="bytes", ylabel="test error (%)")
        axis.margins(0.25, 0.12)
        axis.grid(alpha=0.25, which="both", linewidth=0.5)
    marks = [Line2D([], [], marker=mark, linestyle="", color="#666666", label=size) for size, mark in MARKERS.items()]
    axes[0, -1].legend(handles=marks, fontsize=8, title="bytes are of", title_fontsize=8)
    figure.savefig(PICTURE, dpi=110, metadata={"Software": None})
    plt.close(figure)


def draw_point(axis: Axes, point: Point, shift: int) -> None:
    """Draw a point, its name beside it and so many points above, and the range of its seeds."""
    color, size, place = ("#c8553d", 8, (-7, "right")) if is_ours(point) else ("#1f6fb2", 5, (7, "left"))
    if point.best is not None and point.worst is not None:
        axis.vlines(point.bytes, point.best, point.worst, color=color, linewidth=1.2)
    axis.plot(point.bytes, point.error, MARKERS[point.size], color=color, markersize=size)
    name, where = point.label or point.method.removeprefix(f"{OURS}, "), {"xytext": (place[0], shift), "ha": place[1]}
    axis.annotate(name, (point.bytes, point.error), **where, textcoords="offset points", fontsize=8, color=color)


def is_ours(point: Point) -> bool:
    """Return whether a point is of a recipe."""
    return point.method.startswith(OURS)


if __name__ == "__main__":
    run_stage(main)
