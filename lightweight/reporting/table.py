"""One table compares all variants in the same columns; the README, the page and the terminal show the same text."""

from typing import Any

from lightweight.core.params import Params
from lightweight.core.variants import VARIANTS, VariantName

Metrics = dict[str, dict[str, Any]]


class ReportParams(Params):
    model: VariantName


def comparison(metrics: Metrics, latency: Metrics) -> list[list[str]]:
    """A header and a row per variant; latency in milliseconds, only of the variants in `latency`."""
    batches = [key for key in next(iter(latency.values()), {}) if key.startswith("batch_")]
    names = [f"{batch.replace('_', ' ')} (ms)" for batch in batches]
    head = ["model", "test accuracy", "size (MB)", "zipped (MB)", "parameters", "not zero", "MACs", "in int8", *names]
    return [head, *(_row(name, metrics[name], latency.get(name), batches) for name in VARIANTS)]


def _row(name: str, scores: dict[str, Any], latency: dict[str, Any] | None, batches: list[str]) -> list[str]:
    return [
        name,
        accuracy(scores),
        f"{scores['size_bytes'] / 1e6:.2f}",
        f"{scores['compressed_bytes'] / 1e6:.2f}",
        f"{scores['parameters']:,}",
        f"{scores['nonzero_parameters']:,}",
        f"{scores['macs'] / 1e6:.2f} M",
        f"{scores['int8_mac_share']:.0%}",
        *(f"{latency[batch]['latency_ms']:.2f}" if latency else "" for batch in batches),
    ]


def accuracy(scores: dict[str, Any]) -> str:
    """In percent, with its 95 % interval."""
    return f"{scores['accuracy']:.2%} [{100 * scores['accuracy_low']:.2f}, {100 * scores['accuracy_high']:.2f}]"


def headline(metrics: Metrics, latency: Metrics) -> str:
    """What compression did, in one sentence for accuracy and size and one per measured batch size."""
    before, after = metrics["original"], metrics["optimized"]
    size = before["size_bytes"] / after["size_bytes"]
    points = 100 * (after["accuracy"] - before["accuracy"])
    lines = [
        f"The optimized file is {size:.1f} times smaller than the original and {points:+.2f} points in accuracy "
        f"({after['gained']} images gained and {after['lost']} lost of {after['images']:,}, "
        f"McNemar p = {after['mcnemar_p']:.2g})."
    ]
    for batch in (key for key in latency.get("optimized", {}) if key.startswith("batch_")):
        optimized, exported = latency["optimized"][batch], latency["exported"][batch]
        lines.append(
            f"At {batch.replace('_', ' ')} it runs {_ratio(optimized)} as the original in PyTorch; "
            f"the original exported to ONNX Runtime, uncompressed, runs {_ratio(exported)}."
        )
    return "\n".join(lines)


def _ratio(measured: dict[str, Any]) -> str:
    if measured["verdict"] == "no difference":
        return "as fast (no difference)"
    low, high = measured["speedup_low"], measured["speedup_high"]
    return f"{measured['speedup']:.2f} times [{low:.2f}, {high:.2f}] as fast"


def markdown(rows: list[list[str]]) -> str:
    """The rows as a Markdown table, the first as its head, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]

    def line(cells: list[str]) -> str:
        first, *rest = zip(cells, widths, strict=True)
        return "| " + " | ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in rest)]) + " |"

    rule = "| " + " | ".join(["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]) + " |"
    return "\n".join([line(rows[0]), rule, *map(line, rows[1:])]) + "\n"
