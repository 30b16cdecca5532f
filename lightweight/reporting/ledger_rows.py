"""The ledger for readers: a row per number in the words of its reader, a column per model, cells as text."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd

Cell = Callable[[dict[str, Any]], str]


@dataclass(frozen=True)
class LedgerRow:
    """Hold the name of a number, its definition in a sentence, and its text for each model."""

    name: str
    definition: str
    cells: tuple[str, ...]


@dataclass(frozen=True)
class LedgerGroup:
    """Hold rows that answer one question."""

    name: str
    rows: tuple[LedgerRow, ...]


def group_ledger(ledger: pd.DataFrame) -> list[LedgerGroup]:
    """Group the numbers of a ledger: quality, bytes, work, and time at each batch size; rows without any are left out.

    The columns of each row are the models of the ledger, in its order.
    """
    models: list[dict[str, Any]] = [dict(zip(ledger.columns, cells, strict=True)) for cells in ledger.to_numpy()]
    batches = [column.removesuffix("_ms") for column in ledger.columns if column.endswith("_ms")]
    groups = [("quality", QUALITY), ("bytes", BYTES), ("work", WORK)]
    groups += [(batch.replace("_", " "), _time_rows(batch)) for batch in batches]
    return [LedgerGroup(name, rows) for name, recipes in groups if (rows := _fill(recipes, models))]


def _fill(recipes: list[tuple[str, str, Cell]], models: list[dict[str, Any]]) -> tuple[LedgerRow, ...]:
    rows = [LedgerRow(name, about, tuple(_text(cell, own) for own in models)) for name, about, cell in recipes]
    return tuple(row for row in rows if any(row.cells))


def _text(cell: Cell, own: dict[str, Any]) -> str:
    """Write a cell, empty where a number that it takes was not measured."""
    try:
        return cell(own)
    except TypeError:  # None has no format
        return ""


def number(key: str, template: str, factor: float = 1) -> Cell:
    """Make the cell of one number, times a factor where it is not whole."""
    return lambda own: template.format(own[key] * factor if factor != 1 else own[key] + 0)


def _digits(key: str) -> Cell:
    """Make the cell of a number in three digits, zeros at its end included."""
    return lambda own: f"{own[key]:#.3g}".rstrip(".")


def _named(own: dict[str, Any]) -> str:
    return f"{100 * own['worst_class_accuracy']:.2f} ({own['worst_class']})"


def _interval(key: str, template: str, factor: float = 1) -> Cell:
    def write(own: dict[str, Any]) -> str:
        low, high = (template.format(factor * own[f"{key}_{end}"]) for end in ("low", "high"))
        return f"{low} to {high}"

    return write


QUALITY: list[tuple[str, str, Cell]] = [
    ("accuracy (%)", "share of the test images that are classified right", number("accuracy", "{:.2f}", 100)),
    ("95 % interval", "Wilson interval of the accuracy", _interval("accuracy", "{:.2f}", 100)),
    ("difference (points)", "accuracy less that of the original", number("difference", "{:+.2f}", 100)),
    ("gained / lost", "images right here and not in the original, and the other way round",
     lambda own: f"{own['gained'] + 0:,} / {own['lost'] + 0:,}"),
    ("McNemar p", "exact paired test of gained against lost", number("mcnemar_p", "{:.3g}")),
    ("worst class (%)", "the lowest accuracy of a class, and the class", _named),
    ("calibration error (%)", "ECE over 15 bins: how far confidence and accuracy lie apart",
     number("calibration_error", "{:.2f}", 100)),
    ("log loss (nats)", "mean negative log-likelihood of the labels", number("log_loss", "{:.4f}")),
]  # fmt: skip
BYTES: list[tuple[str, str, Cell]] = [
    ("on disk", "size of the file", number("size_bytes", "{:,}")),
    ("zlib", "the same file by zlib at level 9", number("compressed_bytes", "{:,}")),
    ("zstd", "the same file by zstd at level 9", number("zstd_bytes", "{:,}")),
    ("entropy", "the weights alone by an ideal coder of order 0", number("entropy_bytes", "{:,}")),
    ("weights", "parameters times the bits of each", number("ideal_bytes", "{:,}")),
    ("container", "on disk less weights: names, graph, scales, statistics", number("container_bytes", "{:,}")),
]
WORK: list[tuple[str, str, Cell]] = [
    ("parameters", "learned values in the file", number("parameters", "{:,}")),
    ("not zero", "parameters that are not zero", number("nonzero_parameters", "{:,}")),
    ("MACs", "multiply-accumulate operations per image", number("macs", "{:,}")),
    ("in int8 (%)", "share of the MACs that run on 8-bit integers", number("int8_mac_share", "{:.0f}", 100)),
]


def _time_rows(batch: str) -> list[tuple[str, str, Cell]]:
    """List the rows of a batch size."""
    return [
        ("median (ms)", "milliseconds per call, the median of all turns", _digits(f"{batch}_ms")),
        ("95th percentile (ms)", "of the milliseconds per call", _digits(f"{batch}_ms_p95")),
        ("times as fast", "as the original in ONNX Runtime, in the same rounds",
         number(f"{batch}_speedup", "{:.2f}")),
        ("95 % interval", "of times as fast, by the sign test", _interval(f"{batch}_speedup", "{:.2f}")),
        ("peak memory (MB)", "that opening the file and one call add to ONNX Runtime",
         number(f"{batch}_peak_memory_bytes", "{:.1f}", 1e-6)),
    ]  # fmt: skip
