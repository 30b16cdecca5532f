"""Every layer before and after: shape, bits, bytes, MACs, whether it runs in int8, and how sensitive it is."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lightweight.onnx.coverage import LayerCoverage

FLOAT_BITS = 32

Rows = Sequence[Mapping[str, str]]


@dataclass(frozen=True)
class LayerRow:
    """Describe a layer of the original and of the optimized file; None where it is not known."""

    name: str
    shape: str | None
    shape_after: str | None
    kept: float | None  # share of the channels that give outputs
    bits: int
    bytes_before: float | None
    bytes_after: float
    macs_before: int | None
    macs_after: int
    int8: bool
    reason: str
    drop: float | None  # of accuracy, where it alone is pruned
    spared: str  # why pruning left it alone


def join_layers(coverage: Sequence[LayerCoverage], shapes: Rows, sensitivity: Rows, sparsity: Rows) -> list[LayerRow]:
    """Join what the stages have written on the layers, in the order of the optimized file.

    `shapes` are the rows of plots/layers.csv, `sensitivity` and `sparsity` of the files of these names.
    """
    by_name = {row["layer"]: row for row in shapes}
    drops = {row["layer"]: float(row["drop"]) for row in sensitivity}
    spared = {row["layer"]: row.get("spared", "") for row in sparsity}
    return [
        _join(layer, by_name.get(layer.name), drops.get(layer.name), spared.get(layer.name, "")) for layer in coverage
    ]


def _join(layer: LayerCoverage, row: Mapping[str, str] | None, drop: float | None, spared: str) -> LayerRow:
    sizes = [[int(side) for side in row[key].split("x")] for key in ("shape", "shape_after")] if row else []
    return LayerRow(
        name=layer.name,
        shape=_spell(sizes[0]) if row else None,
        shape_after=_spell(sizes[1]) if row else None,
        kept=sizes[1][0] / sizes[0][0] if row else None,
        bits=layer.bits,
        bytes_before=math.prod(sizes[0]) * FLOAT_BITS / 8 if row else None,
        bytes_after=layer.weights * layer.bits / 8,
        macs_before=int(row["macs"]) if row else None,
        macs_after=layer.macs,
        int8=layer.int8,
        reason=str(layer.reason or ""),
        drop=drop,
        spared=spared,
    )


def _spell(sizes: Sequence[int]) -> str:
    return " \N{MULTIPLICATION SIGN} ".join(map(str, sizes))
