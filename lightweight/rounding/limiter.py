"""Quantized ONNX files in which no CPU cuts off a sum of products, at 8 bits."""

import numpy as np
import onnx
from onnx import numpy_helper

from lightweight.onnx.weights import find_weights, layer_name
from lightweight.rounding.saturation import all_neighbours, round_rows

LIMITED = {"Conv", "Gemm", "MatMul", "MatMulInteger"}  # ONNX Runtime transposes convolutions in float32
SUFFIX = "_quantized"  # that quantizers add to the name of a weight; the name of its scales ends in `_scale` instead


class SumLimiter:
    """Round weights of quantized files so that no sum of two products is cut off.

    `changes` says for every layer that was rounded anew how many weights were lowered for it, and how many times as
    wide a step is on average.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        """Take the weights from the float32 model that the files are made of."""
        self.weights = {item.name: item for item in model.graph.initializer}
        self.changes: dict[str, tuple[int, float]] = {}
        self.rounded: dict[str, tuple[np.ndarray, np.ndarray]] = {}  # integers and scales, for the next file

    def limit(self, model: onnx.ModelProto) -> None:
        """Change integers and scales of a quantized file in place."""
        stored = {item.name: item for item in model.graph.initializer}
        for node, name in find_weights(model):
            source = name.removesuffix(SUFFIX)
            if node.op_type not in LIMITED or source == name or source not in self.weights:
                continue
            if name not in self.rounded:
                self.rounded[name] = self._round(node, stored[name], stored[f"{source}_scale"])
            for tensor, values in zip((stored[name], stored[f"{source}_scale"]), self.rounded[name], strict=True):
                tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))

    def _round(
        self, node: onnx.NodeProto, weight: onnx.TensorProto, scale: onnx.TensorProto
    ) -> tuple[np.ndarray, np.ndarray]:
        attributes = {item.name: item.i for item in node.attribute}
        kind = node.op_type if node.op_type == "Conv" or attributes.get("transB") else "MatMul"
        integers, scales = numpy_helper.to_array(weight), numpy_helper.to_array(scale)
        source = numpy_helper.to_array(self.weights[weight.name.removesuffix(SUFFIX)])
        orders = all_neighbours(kind, integers.shape, attributes.get("group", 1))
        rows, exact = (item.T if kind == "MatMul" else item.reshape(len(item), -1) for item in (integers, source))
        assert scales.shape == rows.shape[:1], weight.name  # a scale per output
        limited, steps, moved = round_rows(exact, rows, scales, orders)
        if (limited != rows).any():
            self.changes[layer_name(weight.name)] = (moved, float((steps / scales).mean()))
        limited = limited.T if kind == "MatMul" else limited.reshape(integers.shape)
        return np.ascontiguousarray(limited), steps
