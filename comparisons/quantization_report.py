"""The table and the picture of what comparisons/results/quantization.csv holds."""

from pathlib import Path

import matplotlib.pyplot as plt

from lightweight.core.files import read_csv, write_text
from lightweight.reporting.table import accuracy, markdown

TABLE, PLOT, FIGURES = (Path("comparisons/results") / f"quantization.{kind}" for kind in ("md", "png", "csv"))
BATCHES, AGAINST = (1, 64), ("float", "eager")
COLUMNS = ["network", "tool", "method", "size_bytes", "int8_mac_share", "accuracy", "accuracy_low", "accuracy_high"]
COLUMNS += ["images", "gained", "lost", "mcnemar_p"]
for size in BATCHES:
    COLUMNS += [f"batch_{size}_ms"]
    COLUMNS += [f"batch_{size}_{against}_speedup{end}" for against in AGAINST for end in ("", "_low", "_high")]
COLUMNS += ["cpu"]
Rows = list[dict[str, str]]


def report() -> None:
    rows = read_csv(FIGURES)
    write_text(TABLE, text(rows))
    draw(rows)
    print(text(rows))


def text(rows: Rows) -> str:
    """A table per network."""
    parts = []
    for network, own in by_network(rows).items():
        about = f"`{network}`, {int(own[0]['images']):,} test images, one thread of {own[0]['cpu']}."
        parts.append(f"{about}\n\n{markdown(table(own))}")
    return "\n".join(parts)


def by_network(rows: Rows) -> dict[str, Rows]:
    return {
        name: [row for row in rows if row["network"] == name] for name in dict.fromkeys(row["network"] for row in rows)
    }


def table(rows: Rows) -> list[list[str]]:
    """Sizes against the float32 file of the same network; speeds against ONNX Runtime in float32 and eager PyTorch."""
    whole = int(rows[0]["size_bytes"])
    head = ["made by", "method", "MB", "smaller", "MACs in int8", "test accuracy", "gained, lost"]
    head += [f"batch {size} {words}" for size in BATCHES for words in ("(ms)", "to float32", "to PyTorch")]
    lines = [head]
    for row in rows:
        size = int(row["size_bytes"])
        scores = {key: float(row[key]) for key in ("accuracy", "accuracy_low", "accuracy_high")}
        line = [row["tool"], row["method"], f"{size / 1e6:.3f}", f"{whole / size:.2f}x"]
        line += [f"{float(row['int8_mac_share']):.0%}", accuracy(scores), f"{row['gained']}, {row['lost']}"]
        for batch in BATCHES:
            line += [f"{float(row[f'batch_{batch}_ms']):.3f}"]
            line += [speedup(row, f"batch_{batch}_{against}_speedup") for against in AGAINST]
        lines.append(line)
    return lines


def speedup(row: dict[str, str], key: str) -> str:
    middle, low, high = (float(row[f"{key}{end}"]) for end in ("", "_low", "_high"))
    return f"{middle:.2f} [{low:.2f}, {high:.2f}]"


def draw(rows: Rows) -> None:
    """Per network: accuracy with its interval, times smaller, times faster than the float32 file at two batch sizes."""
    networks = by_network(rows)
    figure, axes = plt.subplots(len(networks), 4, figsize=(15, 3.4 * len(networks)), squeeze=False)
    for line, (network, own) in zip(axes, networks.items(), strict=True):
        names = [f"{row['tool']} {row['method']}" for row in own]
        colors = ["#1f6fb2" if row["tool"].startswith("ours") else "#b8b8b8" for row in own]
        right, low, high = ([100 * float(row[f"accuracy{end}"]) for row in own] for end in ("", "_low", "_high"))
        errors = [[a - b for a, b in zip(right, low, strict=True)], [b - a for a, b in zip(right, high, strict=True)]]
        line[0].barh(names, right, color=colors, xerr=errors, ecolor="#555555")
        line[0].set_xlim(min(low) - 0.5, min(100, max(high) + 0.2))
        line[0].set_title(f"{network}: accuracy (%)")
        sizes = [int(row["size_bytes"]) for row in own]
        panels = [("times smaller", [sizes[0] / size for size in sizes])]
        panels += [(f"times faster at batch {size}", [float(row[f"batch_{size}_float_speedup"]) for row in own])
                   for size in BATCHES]  # fmt: skip
        for axis, (title, values) in zip(line[1:], panels, strict=True):
            axis.barh(names, values, color=colors)
            axis.axvline(1, color="#c8553d", linewidth=1)
            axis.set_yticklabels([])
            axis.set_title(title)
        for axis in line:
            axis.invert_yaxis()
    figure.tight_layout()
    figure.savefig(PLOT, dpi=110)
    plt.close(figure)
