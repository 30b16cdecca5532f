"""Times of layers by width, read from a table that was measured once: what a file takes, computed and not measured.

The sum over the layers of a file says which of two files is faster, not what either takes: what lies between the layers
is not in it. The table is a declared input, so that the same table gives the same choice on any machine.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from lightweight.core.errors import InputError
from lightweight.core.files import read_csv
from lightweight.onnx.graph import list_layers
from lightweight.onnx.weights import find_weights, layer_name, read_tensors

TABLE = Path("budget/layer_times.csv")
Widths = tuple[int, int]  # channels that a layer reads, of one group, and channels that it writes


@dataclass(frozen=True)
class Grid:
    """Hold milliseconds (I, O) of a layer at widths that it may read (I,) and write (O,), both ascending."""

    reads: np.ndarray
    writes: np.ndarray
    ms: np.ndarray

    def at(self, reads: int, writes: int) -> float:
        """Interpolate linearly in both widths; outside the grid, time is proportional to the width."""
        return float(self._weights(self.reads, reads) @ self.ms @ self._weights(self.writes, writes))

    @staticmethod
    def _weights(widths: np.ndarray, width: int) -> np.ndarray:
        """Return the share (W,) that each row of the grid has in a width."""
        weights = np.zeros(len(widths))
        if not widths[0] <= width <= widths[-1]:
            nearest = 0 if width < widths[0] else -1
            weights[nearest] = width / widths[nearest]
            return weights
        above = int(np.searchsorted(widths, width))
        if widths[above] == width:
            weights[above] = 1
            return weights
        share = (width - widths[above - 1]) / (widths[above] - widths[above - 1])
        weights[above - 1], weights[above] = 1 - share, share
        return weights


@dataclass(frozen=True)
class LayerTimes:
    """Hold the grid of every layer of a network, by its name and by whether it runs on 8-bit integers."""

    grids: Mapping[tuple[str, bool], Grid]

    def estimate(self, content: bytes) -> float:
        """Add up the milliseconds of the layers of an ONNX file. Raises InputError for one that was not measured."""
        model = onnx.load_from_string(content)
        int8 = {layer.name for layer in list_layers(content) if layer.int8}
        total = 0.0
        for name, (reads, writes) in list_widths(model):
            grid = self.grids.get((name, name in int8)) or self.grids.get((name, False))
            if grid is None:
                raise InputError(f"{TABLE}: has no layer {name}: make latency-table measures those of params.yaml")
            total += grid.at(reads, writes)
        return total


def list_widths(model: onnx.ModelProto) -> Iterable[tuple[str, Widths]]:
    """List what each layer reads (of one group) and writes, by its name; a layer that is used twice stands twice."""
    tensors = read_tensors(model)
    for node, weight in find_weights(model):
        if weight:
            yield layer_name(weight), widths(node, tensors[weight].values.shape)


def widths(node: onnx.NodeProto, shape: tuple[int, ...]) -> Widths:
    """Return what a layer with a weight of this shape reads (of one group) and writes."""
    if node.op_type.startswith("Conv"):
        return shape[1], shape[0]
    transposed = any(item.name == "transB" and item.i for item in node.attribute) or node.op_type == "MatMulNBits"
    return (shape[1], shape[0]) if transposed else (shape[0], shape[1])


def read_times(path: Path) -> LayerTimes:
    """Read a table with the columns layer, int8, reads, writes, ms. Raises InputError when missing or no grid."""
    if not path.is_file():
        raise InputError(f"{path}: is missing: make latency-table measures the layers of the network in params.yaml")
    cells: dict[tuple[str, bool], dict[Widths, float]] = {}
    try:
        for row in read_csv(path):
            key = row["layer"], row["int8"] == "True"
            cells.setdefault(key, {})[int(row["reads"]), int(row["writes"])] = float(row["ms"])
        return LayerTimes({key: _make_grid(values) for key, values in cells.items()})
    except (KeyError, ValueError):
        raise InputError(f"{path}: damaged: make latency-table measures anew") from None


def _make_grid(cells: Mapping[Widths, float]) -> Grid:
    """Make a grid of cells by widths; the KeyError of a missing one is the caller's."""
    reads, writes = (sorted({pair[side] for pair in cells}) for side in (0, 1))
    return Grid(np.array(reads), np.array(writes), np.array([[cells[i, o] for o in writes] for i in reads]))
