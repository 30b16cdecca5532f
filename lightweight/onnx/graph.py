"""What an ONNX file holds and what the runtime makes of it: weights, MACs and precision, layer by layer."""

import math
import os
import tempfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # on by default, and read once: while it is imported

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

from lightweight.core.errors import first_line
from lightweight.onnx.export import NORMALIZATION

MULTIPLY = {
    "Conv",
    "ConvTranspose",
    "ConvInteger",
    "QLinearConv",
    "Gemm",
    "MatMul",
    "MatMulInteger",
    "QLinearMatMul",
    "MatMulNBits",
}
INT8 = {  # operators of ONNX Runtime's optimized graphs that multiply 8-bit integers
    "ConvInteger", "QLinearConv", "MatMulInteger", "QLinearMatMul", "QGemm",
    "DynamicQuantizeMatMul", "MatMulIntegerToFloat",
}  # fmt: skip
SETTINGS = {"QuantizeLinear": 1, "DequantizeLinear": 1, "Clip": 1, "BatchNormalization": 3}  # not learned, from input


@dataclass(frozen=True)
class Layer:
    """Weights, those that are not zero, bits of each, MACs per image, and whether these run on 8-bit integers."""

    name: str
    weights: int
    nonzero: int
    bits: int
    macs: int
    int8: bool


def weighted(model: onnx.ModelProto) -> dict[str, list[onnx.NodeProto]]:
    """The nodes of every convolution and matrix product with weights, by the name of its layer."""
    known, dequantized, found = {item.name for item in model.graph.initializer}, _dequantized(model), {}
    for node in model.graph.node:
        if name := _weight(node, known, dequantized):
            found.setdefault(_layer(name), []).append(node)
    return found


def _weight(node: onnx.NodeProto, known: Collection[str], dequantized: dict[str, str]) -> str | None:
    if node.op_type not in MULTIPLY:
        return None
    name = dequantized.get(node.input[1], node.input[1])
    return name if name in known else None


def _dequantized(model: onnx.ModelProto) -> dict[str, str]:
    """What float tensors were before DequantizeLinear, and Transpose behind it."""
    found: dict[str, str] = {}
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear":
            found[node.output[0]] = node.input[0]
        elif node.op_type == "Transpose" and node.input[0] in found:
            found[node.output[0]] = found[node.input[0]]
    return found


def layers(content: bytes) -> list[Layer]:
    """Every convolution and matrix product, in the order of the graph; a product of two activations has no weights."""
    model = onnx.load_from_string(content)
    weights, source = _initializers(model), _dequantized(model)
    executed = _executed_in_int8(content)
    nodes = [node for node in model.graph.node if node.op_type in MULTIPLY]
    shapes = _shapes_for_one_image(model, [name for node in nodes for name in (node.input[0], node.output[0])])
    found = []
    for node in nodes:
        name, outputs = _weight(node, weights, source), shapes[node.output[0]]
        if name is None:
            products = math.prod(outputs) * shapes[node.input[0]][-1]
            found.append(Layer(node.name, 0, 0, 32, products, node.name in executed))
            continue
        values = _unpacked(weights[name], node) if node.op_type == "MatMulNBits" else weights[name]
        reached = shapes[node.input[0]] if node.op_type == "ConvTranspose" else outputs  # a weight multiplies each once
        positions = math.prod(reached[2:] if node.op_type.startswith("Conv") else reached[:-1])
        bits = 4 if node.op_type == "MatMulNBits" else 8 * values.itemsize
        nonzero = int(np.count_nonzero(values != _zero(name, weights)))
        found.append(Layer(_layer(name), values.size, nonzero, bits, values.size * positions, name in executed))
    return found


def parameters(content: bytes) -> tuple[int, int]:
    """The number of learned values in the file, and of those that are not zero.

    Scales and zero points of the quantizer, the input normalisation, running statistics and constants are not.
    """
    model = onnx.load_from_string(content)
    values = _initializers(model)
    packed = {node.input[1]: node for node in model.graph.node if node.op_type == "MatMulNBits"}
    settings = set(NORMALIZATION) | {node.input[2] for node in packed.values()}
    for name in values:
        if name.endswith("_quantized"):
            stem = name.removesuffix("_quantized")
            settings |= {f"{stem}_scale", f"{stem}_zero_point", f"{name}_scale", f"{name}_zero_point"}
    for node in model.graph.node:
        settings |= set(node.input[SETTINGS.get(node.op_type, len(node.input)) :])
    learned = [name for name, value in values.items() if name not in settings and value.dtype != np.int64]
    arrays = {name: _unpacked(values[name], packed[name]) if name in packed else values[name] for name in learned}
    zeros = {name: _zero(name, values) for name in learned}
    return sum(map(np.size, arrays.values())), sum(int((arrays[name] != zeros[name]).sum()) for name in learned)


def _initializers(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}


def _zero(name: str, values: dict[str, np.ndarray]) -> float:
    """What stands for zero. Integer weights are symmetric: one zero point for all channels."""
    zero_point = values.get(f"{name.removesuffix('_quantized')}_zero_point")
    return 0 if zero_point is None else zero_point.flat[0]


def _unpacked(packed: np.ndarray, node: onnx.NodeProto) -> np.ndarray:
    """The weights (N, K) of MatMulNBits, from -8 to 7; it stores two in a byte, the first in the lower half."""
    about = {item.name: item.i for item in node.attribute}
    both = np.stack([packed & 15, packed >> 4], axis=-1).reshape(about["N"], -1)
    return both[:, : about["K"]].astype(np.int8) - 8


def _layer(name: str) -> str:
    """`model.conv1.weight_quantized`, as exporter and quantizer call a weight, is the weight of `conv1`."""
    return name.removesuffix("_quantized").removesuffix("_Q4").removesuffix(".weight").removeprefix("model.")


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
            raise OSError(None, f"not written: {first_line(error)}", str(path)) from None
        nodes = onnx.load(path).graph.node
    return {name for node in nodes if node.op_type in INT8 for name in (node.name, *node.input)}
