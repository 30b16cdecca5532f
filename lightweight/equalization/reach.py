"""How far each channel of a stream reaches: on calibration images, and on any image, as far as that can be proven."""

from collections.abc import Iterable, Mapping

import lightweight.core.telemetry  # noqa: F401 - before onnxruntime

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from lightweight.equalization.streams import Stream
from lightweight.onnx.session import make_inference_session

SLACK = 1 + 2**-16  # for the rounding of float32 sums
SAME_RANGE = {"Pad", "MaxPool", "Identity", "AveragePool", "GlobalAveragePool"}


def measure_reach(
    model: onnx.ModelProto, streams: Iterable[Stream], batches: Iterable[np.ndarray], threads: int = 1
) -> dict[str, np.ndarray]:
    """Measure the largest absolute value of every channel (C,) of the tensors of streams, over batches of pixels."""
    shapes = {item.name: len(item.type.tensor_type.shape.dim) for item in model.graph.value_info}
    names = [name for stream in streams for name in stream.tensors if shapes.get(name) in (2, 4)]
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    for name in names:
        axes = numpy_helper.from_array(np.array([0, 2, 3][: max(1, shapes[name] - 1)]), f"{name}_axes")
        probe.graph.initializer.append(axes)
        probe.graph.node.extend(
            [
                helper.make_node("Abs", [name], [f"{name}_abs"]),
                helper.make_node("ReduceMax", [f"{name}_abs", axes.name], [f"{name}_reach"], keepdims=0),
            ]
        )
    outputs = [f"{name}_reach" for name in names]
    probe.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs)
    session = make_inference_session(probe.SerializeToString(), threads)
    reach: dict[str, np.ndarray] = {}
    for pixels in batches:
        for name, values in zip(names, session.run(outputs, {"input": pixels}), strict=True):
            reach[name] = np.maximum(reach.get(name, 0), values)
    return reach


def prove_bounds(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """Bound the values of each channel (C,) that convolutions write whose inputs Clip has bounded, from above."""
    constants = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    ranges: dict[str, tuple[float, float]] = {}
    bounds: dict[str, np.ndarray] = {}
    for node in model.graph.node:
        if node.op_type == "Clip":
            low, high = (constants.get(name) for name in node.input[1:3])
            if low is not None and high is not None:
                ranges[node.output[0]] = (min(0.0, float(low)), float(high))  # padding adds zeros
        elif node.op_type in SAME_RANGE and node.input[0] in ranges:
            ranges[node.output[0]] = ranges[node.input[0]]
        elif node.op_type == "Conv" and node.input[0] in ranges and node.input[1] in constants:
            bounds[node.output[0]] = _bound(node, constants, *ranges[node.input[0]])
    return bounds


def _bound(node: NodeProto, constants: Mapping[str, np.ndarray], low: float, high: float) -> np.ndarray:
    weight = constants[node.input[1]].astype(np.float64).reshape(len(constants[node.input[1]]), -1)
    bias = constants[node.input[2]] if len(node.input) > 2 and node.input[2] in constants else np.zeros(len(weight))
    largest = np.maximum(weight * low, weight * high).sum(axis=1)
    return np.maximum(largest * SLACK + bias + np.abs(bias) * (SLACK - 1), 0)
