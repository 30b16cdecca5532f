"""Assemble a packed network from an exported model and the integers of its weights."""

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import numpy_helper

from lightweight.codec.container import PackedNetwork, take_apart
from lightweight.codec.scales import STEPS, nearest_codes, scales_of
from lightweight.codec.tensors import CodedTensor
from lightweight.onnx.export import NORMALIZATION

OTHER_BITS = 8  # of weights without integers: embeddings, and what the exporter has put together


def assemble(model: onnx.ModelProto, weights: Mapping[str, CodedTensor], bias_bits: int) -> PackedNetwork:
    """Pack a float32 model with coded tensors in the place of its weights of these names.

    Biases and the like are rounded to `bias_bits` of the range of their tensor. Raises ValueError for a graph that the
    format cannot hold.
    """
    coded = {
        name: weights.get(name) or round_evenly(array, OTHER_BITS if array.ndim > 1 else bias_bits)
        for name, array in _learned(model).items()
    }
    return take_apart(model, coded)


def list_others(model: onnx.ModelProto, weights: Mapping[str, CodedTensor]) -> list[str]:
    """List the tensors of two dimensions and more that are none of the coded weights, by their names."""
    return [name for name, array in _learned(model).items() if array.ndim > 1 and name not in weights]


def _learned(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """Read the float32 initializers by name, but for single values and the input normalisation."""
    arrays = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    return {
        name: array
        for name, array in arrays.items()
        if array.dtype == np.float32 and name not in NORMALIZATION and array.size > 1
    }


def find_scales(model: onnx.ModelProto, integers: Mapping[str, np.ndarray], scale_steps: int) -> dict[str, CodedTensor]:
    """Find the scales with which integers, by the names of weights in the network, give those of the exported model."""
    coded: dict[str, CodedTensor] = {}
    for item in model.graph.initializer:
        found = integers.get(item.name.removeprefix("model."))
        fitted = fit_scales(numpy_helper.to_array(item), found, STEPS // scale_steps) if found is not None else None
        if fitted:
            coded[item.name] = fitted
    return coded


def fit_scales(weight: np.ndarray, integers: np.ndarray, stride: int) -> CodedTensor | None:
    """Find the scale of each channel with which integers give a weight (M, ...) that is such a product, or nearly.

    None where the integers are of another shape, or the product is another weight.
    """
    if sorted(integers.shape) != sorted(weight.shape):
        return None
    axis = 0
    if integers.shape != weight.shape or (weight.ndim == 2 and not _is_multiple(weight, integers)):
        integers, axis = integers.T, 1
    if integers.shape != weight.shape:
        return None
    rows = np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1).astype(np.float64)
    whole = np.moveaxis(integers, axis, 0).reshape(rows.shape).astype(np.int64)
    energy = (whole * whole).sum(1)
    scales = (rows * whole).sum(1) / np.maximum(energy, 1)
    if not np.allclose(scales[:, None] * whole, rows, rtol=1e-3, atol=1e-5 * np.abs(rows).max(initial=1e-30)):
        return None
    signs = np.where(scales < 0, -1, 1)
    codes = nearest_codes(np.abs(scales), stride)
    used = np.flatnonzero((energy > 0) & (scales != 0))
    if len(used):  # a channel without weights takes the scale before, which costs nothing
        places = used[np.maximum(np.searchsorted(used, np.arange(len(codes)), side="right") - 1, 0)]
        codes = codes[places]
    shape = [-1 if place == axis else 1 for place in range(weight.ndim)]
    return CodedTensor((integers * signs.reshape(shape)).astype(np.int32), codes, axis)


def round_evenly(array: np.ndarray, bits: int) -> CodedTensor:
    """Round an array to integers, of a step of 2^-bits of its range, rounded to a power of 2^(1/4)."""
    spread = max(float(np.ptp(array)), float(np.abs(array).max()) / 8, 1e-20)
    codes = nearest_codes(np.array([spread / (2**bits - 1)]), STEPS // 4)
    return CodedTensor(np.rint(array.astype(np.float64) / scales_of(codes)).astype(np.int32), codes)


def _is_multiple(weight: np.ndarray, integers: np.ndarray) -> bool:
    """Return whether a square weight has zeros only where its integers have them, so that it is not transposed."""
    return bool(((integers != 0) | (weight == 0)).all())
