"""What an ONNX file holds and what the runtime makes of it: weights, MACs and precision, layer by layer."""

import math
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # on by default, and read once: while it is imported

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

from lightweight.export import NORMALIZATION

MULTIPLY = {"Conv", "ConvInteger", "QLinearConv", "Gemm", "MatMul", "MatMulInteger", "QLinearMatMul"}
INT8 = {  # operators of ONNX Runtime's optimized graphs that multiply 8-bit integers
    "ConvInteger", "QLinearConv", "MatMulInteger", "QLinearMatMul", "QGemm",
    "DynamicQuantizeMatMul", "MatMulIntegerToFloat",
}  # fmt: skip
SETTINGS = {"QuantizeLinear": 1, "DequantizeLinear": 1, "Clip": 1, "BatchNormalization": 3}  # not learned, from input


@dataclass(frozen=True)
class Layer:
    """Weights, those of them that are not zero, MACs per image, and whether these run on 8-bit integers."""

    name: str
    weights: int
    nonzero: int
    macs: int
    int8: bool


def layers(content: bytes) -> list[Layer]:
    """Every convolution and matrix product, in the order of the graph; a product of two activations has no weights."""
    model = onnx.load_from_string(content)
    weights = _initializers(model)
    source = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    executed = _executed_in_int8(content)
    nodes = [node for node in model.graph.node if node.op_type in MULTIPLY]
    shapes = _shapes_for_one_image(model, [name for node in nodes for name in (node.input[0], node.output[0])])
    found = []
    for node in nodes:
        name = source.get(node.input[1], node.input[1])
        outputs = shapes[node.output[0]]
        if name in weights:
            positions = math.prod(outputs[2:] if node.op_type.startswith("Conv") else outputs[:-1])
            size, nonzero = weights[name].size, _nonzero(name, weights)
            found.append(Layer(_layer(name), size, nonzero, size * positions, name in executed))
        else:
            found.append(Layer(node.name, 0, 0, math.prod(outputs) * shapes[node.input[0]][-1], node.name in executed))
    return found


def parameters(content: bytes) -> tuple[int, int]:
    """The number of learned values in the file, and of those that are not zero.

    Scales and zero points of the quantizer, the input normalisation, running statistics and constants are not.
    """
    model = onnx.load_from_string(content)
    values = _initializers(model)
    settings = set(NORMALIZATION)
    for name in values:
        if name.endswith("_quantized"):
            stem = name.removesuffix("_quantized")
            settings |= {f"{stem}_scale", f"{stem}_zero_point", f"{name}_scale", f"{name}_zero_point"}
    for node in model.graph.node:
        settings |= set(node.input[SETTINGS.get(node.op_type, len(node.input)) :])
    learned = [name for name, value in values.items() if name not in settings and value.dtype != np.int64]
    return sum(values[name].size for name in learned), sum(_nonzero(name, values) for name in learned)


def int8_share(found: list[Layer]) -> float:
    """The share of all MACs that run on 8-bit integers; 0 of none."""
    return sum(layer.macs for layer in found if layer.int8) / max(1, sum(layer.macs for layer in found))


def _initializers(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}


def _nonzero(name: str, values: dict[str, np.ndarray]) -> int:
    """Integer weights are symmetric: one zero point for all channels."""
    zero_point = values.get(f"{name.removesuffix('_quantized')}_zero_point")
    zero = 0 if zero_point is None else zero_point.flat[0]
    return int(np.count_nonzero(values[name] != zero))


def _layer(name: str) -> str:
    """`model.conv1.weight_quantized`, as exporter and quantizer call a weight, is the weight of `conv1`."""
    return name.removesuffix("_quantized").removesuffix(".weight").removeprefix("model.")


def _shapes_for_one_image(model: onnx.ModelProto, names: list[str]) -> dict[str, tuple[int, ...]]:
    """The shapes of tensors inside the graph, from running it: symbolic inference gives up at some reshapes."""
    if not names:  # for which the session would give all outputs
        return {}
    image = model.graph.input[0]
    pixels = np.zeros([1, *(size.dim_value for size in image.type.tensor_type.shape.dim[1:])], dtype=np.float32)
    names = list(dict.fromkeys(names))
    known = {item.name for item in (image, *model.graph.output)}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in known)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL  # it fuses tensors away
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return {name: value.shape for name, value in zip(names, session.run(names, {image.name: pixels}), strict=True)}


def _executed_in_int8(content: bytes) -> set[str]:
    """Names of the integer operators, and of what they take, in the graph that ONNX Runtime makes of the file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "optimized.onnx"
        options = onnxruntime.SessionOptions()
        # One level below the last, which only changes the memory layout and renames the weights that it copies.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = str(path)
        try:
            onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # of classes that ONNX Runtime does not name in its interface
            raise OSError(None, f"not written: {str(error).splitlines()[0]}", str(path)) from None
        nodes = onnx.load(path).graph.node
    return {name for node in nodes if node.op_type in INT8 for name in (node.name, *node.input)}
