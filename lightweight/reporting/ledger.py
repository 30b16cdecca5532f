"""The ledger: every number of every model in one table, one row each; docs/metrics.md defines the columns.

Timings and memory belong to one machine, so they are joined when the table is made, and no stage depends on it.
"""

from collections.abc import Callable
from typing import Any

import pandas as pd

from lightweight.core.variants import COMPACT, VARIANTS
from lightweight.reporting.results import Latency, Scores, batch_sizes

INTEGERS = "integers"  # the compact network on a microcontroller, whose `size_bytes` are those of its coded weights
# `exported`, the original in ONNX Runtime, is timed but not scored
MODELS = ("original", "exported", *VARIANTS[1:], COMPACT, INTEGERS)
QUALITY = (
    "accuracy", "accuracy_low", "accuracy_high", "difference", "gained", "lost", "mcnemar_p",
    "worst_class", "worst_class_accuracy", "calibration_error", "log_loss",
)  # fmt: skip
SIZES = ("size_bytes", "compressed_bytes", "zstd_bytes", "entropy_bytes", "ideal_bytes", "container_bytes")
COSTS = ("parameters", "nonzero_parameters", "macs", "int8_mac_share")
TIMES = {  # of each batch size: column, and the keys under which `benchmark` wrote it
    "ms": ("latency_ms",),
    "ms_p95": ("latency_ms_p95",),
    "speedup": ("against_exported", "speedup"),
    "speedup_low": ("against_exported", "speedup_low"),
    "speedup_high": ("against_exported", "speedup_high"),
    "verdict": ("against_exported", "verdict"),
    "peak_memory_bytes": ("peak_memory_bytes",),
}


def make_ledger(scores: Scores, latency: Latency) -> pd.DataFrame:
    """Make the ledger by model; a cell is None where the number was not measured.

    Speedups are against the original in the same runtime, `exported`.
    """
    batches = [f"{batch}_{column}" for batch in batch_sizes(latency) for column in TIMES]
    columns = ["timed_in", *QUALITY, *SIZES, *COSTS, *batches]
    rows = {name: _describe(name, scores, latency) for name in MODELS if name in scores or name in latency}
    cells = [[row.get(column) for column in columns] for row in rows.values()]
    return pd.DataFrame(cells, index=list(rows), columns=columns, dtype=object).rename_axis("model")


def _describe(name: str, scores: Scores, latency: Latency) -> dict[str, Any]:
    """List what was measured of a model, and what follows from it."""
    own = dict(scores.get(name, {}))
    if own:
        own["difference"] = own["accuracy"] - scores["original"]["accuracy"]
    if "ideal_bytes" in own:
        own["container_bytes"] = own["size_bytes"] - own["ideal_bytes"]
    for batch in batch_sizes(latency):
        for column, keys in TIMES.items():
            value: Any = latency.get(name, {}).get(batch, {})
            for key in keys:
                value = value.get(key, {})
            own[f"{batch}_{column}"] = None if value == {} else value
    if name in latency:
        own["timed_in"] = "PyTorch" if name == "original" else "ONNX Runtime"
    return own


def ledger_text(table: pd.DataFrame) -> str:
    """Write the ledger for a terminal: a column per model, a row per number, each in its unit."""
    shown = table.apply(lambda column: column.map(_format(str(column.name))))
    lines = shown.T.rename_axis(None).rename_axis(None, axis="columns").to_string().splitlines()
    return "".join(f"{line.rstrip()}\n" for line in lines)


def _format(column: str) -> Callable[[Any], str]:
    """Choose how the cells of a column are written."""
    write: Callable[[Any], str] = str
    if "accuracy" in column or column in ("int8_mac_share", "calibration_error"):
        write = "{:.2%}".format
    elif column == "difference":
        write = "{:+.2%}".format
    elif column.endswith(("_ms", "_p95", "_speedup", "_low", "_high")):
        write = "{:.2f}".format
    elif column in ("mcnemar_p", "log_loss"):
        write = "{:.3g}".format
    elif column not in ("worst_class", "timed_in") and not column.endswith("verdict"):
        write = "{:,}".format
    return lambda value: "" if value is None else write(value)
