"""The table and the picture of what comparisons/results/quantization.csv holds.

    python -m comparisons.quantization_report

Writes comparisons/results/quantization.md and comparisons/results/quantization.png.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from lightweight.core.files import write_text
from lightweight.execution.process import run_stage
from lightweight.reporting.table import accuracy_with_interval, markdown

TABLE, PLOT, FIGURES = (Path("comparisons/results") / f"quantization.{kind}" for kind in ("md", "png", "csv"))
BATCHES = (1, 64)
REFERENCES = {"float": "float32", "eager": "PyTorch"}  # of speedups: ONNX Runtime in float32, and eager PyTorch
ENDS = ("", "_low", "_high")
COLUMNS = ["network", "tool", "method", "size_bytes", "int8_mac_share", "accuracy", "accuracy_low", "accuracy_high"]
COLUMNS += ["images", "gained", "lost", "mcnemar_p"]
for batch in BATCHES:
    COLUMNS += [f"batch_{batch}_ms"]
    COLUMNS += [f"batch_{batch}_{reference}_speedup{end}" for reference in REFERENCES for end in ENDS]
COLUMNS += ["cpu"]


def report() -> None:
    """Write and print the table, and draw the picture."""
    figures = pd.read_csv(FIGURES)
    write_text(TABLE, describe(figures))
    draw(figures)
    print(describe(figures))


def describe(figures: pd.DataFrame) -> str:
    """Write a table per network in Markdown, with the test images and the processor it was measured on."""
    parts = []
    for network, own in figures.groupby("network", sort=False):
        title = f"`{network}`, {own['images'].iloc[0]:,} test images, one thread of {own['cpu'].iloc[0]}."
        parts.append(f"{title}\n\n{markdown(compare(own))}")
    return "\n".join(parts)


def compare(figures: pd.DataFrame) -> pd.DataFrame:
    """Compare the files of a network as text: sizes with the first file, which is float32, speeds with REFERENCES."""
    sizes = figures["size_bytes"]
    table = pd.DataFrame(
        {
            "made by": figures["tool"],
            "method": figures["method"],
            "MB": sizes.div(1e6).map("{:.3f}".format),
            "smaller": (sizes.iloc[0] / sizes).map("{:.2f}x".format),
            "MACs in int8": figures["int8_mac_share"].map("{:.0%}".format),
            "test accuracy": figures.apply(accuracy_with_interval, axis=1),
            "gained, lost": figures["gained"].astype(str) + ", " + figures["lost"].astype(str),
        }
    )
    for batch in BATCHES:
        table[f"batch {batch} (ms)"] = figures[f"batch_{batch}_ms"].map("{:.3f}".format)
        for reference, name in REFERENCES.items():
            speedups = figures[[f"batch_{batch}_{reference}_speedup{end}" for end in ENDS]]
            table[f"batch {batch} to {name}"] = [
                f"{middle:.2f} [{low:.2f}, {high:.2f}]" for middle, low, high in speedups.itertuples(index=False)
            ]
    return table


def draw(figures: pd.DataFrame) -> None:
    """Draw a row per network: accuracy with its interval, times smaller, times faster than float32 by batch size."""
    networks = list(figures.groupby("network", sort=False))
    figure, axes = plt.subplots(len(networks), 4, figsize=(15, 3.4 * len(networks)), squeeze=False)
    for line, (network, own) in zip(axes, networks, strict=True):
        names = list(own["tool"] + " " + own["method"])
        colors = ["#1f6fb2" if tool.startswith("ours") else "#b8b8b8" for tool in own["tool"]]
        middle, low, high = (100 * own[f"accuracy{end}"] for end in ENDS)
        line[0].barh(names, middle, color=colors, xerr=[middle - low, high - middle], ecolor="#555555")
        line[0].set_xlim(low.min() - 0.5, min(100, high.max() + 0.2))
        line[0].set_title(f"{network}: accuracy (%)")
        panels = {"times smaller": own["size_bytes"].iloc[0] / own["size_bytes"]}
        panels |= {f"times faster at batch {batch}": own[f"batch_{batch}_float_speedup"] for batch in BATCHES}
        for axis, (title, values) in zip(line[1:], panels.items(), strict=True):
            axis.barh(names, values, color=colors)
            axis.axvline(1, color="#c8553d", linewidth=1)
            axis.set_yticklabels([])
            axis.set_title(title)
        for axis in line:
            axis.invert_yaxis()
    figure.tight_layout()
    figure.savefig(PLOT, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    run_stage(report)
