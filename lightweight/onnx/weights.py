"""The weights of an ONNX file, found by the structure of its graph, whatever bits they are stored in."""

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import numpy_helper

from lightweight.onnx.export import NORMALIZATION

MULTIPLICATIONS = {"Conv", "ConvTranspose", "ConvInteger", "Gemm", "MatMul", "MatMulInteger", "MatMulNBits"}
INT4 = "_int4"  # ends the name of a weight that is stored in 4 bits and becomes `_quantized` by a Cast
# The position of a stored tensor and of its zero point among the inputs of an operator.
ZERO_POINTS = {"DequantizeLinear": (0, 2), "ConvInteger": (1, 3), "MatMulInteger": (1, 3)}
# The position of the first input that is not learned, such as a scale, a zero point, a bound, a running statistic.
FIRST_SETTING = {
    "QuantizeLinear": 1, "DequantizeLinear": 1, "Clip": 1, "ConvInteger": 2, "MatMulInteger": 2, "MatMulNBits": 2,
    "BatchNormalization": 3,
}  # fmt: skip


@dataclass(frozen=True)
class StoredTensor:
    """Hold a tensor as stored in an ONNX file: `values` of any shape, zero point `zero`, and bits per value."""

    values: np.ndarray
    zero: float
    bits: int

    @property
    def nonzero(self) -> int:
        """Count the values that do not stand for 0."""
        return int(np.count_nonzero(self.values != self.zero))


def read_tensors(model: onnx.ModelProto) -> dict[str, StoredTensor]:
    """Read every initializer of the file, by its name, with its zero point; 4-bit values are unpacked."""
    arrays = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    in_4_bits = {item.name for item in model.graph.initializer if item.data_type == onnx.TensorProto.INT4}
    packed = {node.input[1]: node for node in model.graph.node if node.op_type == "MatMulNBits"}
    zero_points: dict[str, str] = {}
    for node in model.graph.node:
        tensor, zero_point = ZERO_POINTS.get(node.op_type, (0, len(node.input)))
        if zero_point < len(node.input):
            zero_points[node.input[tensor]] = node.input[zero_point]

    def read(name: str, array: np.ndarray) -> StoredTensor:
        if name in packed:
            return StoredTensor(unpack_int4(array, packed[name]), 0, 4)
        zero_point = arrays.get(zero_points.get(name, ""))
        if name in in_4_bits:
            return StoredTensor(array.astype(np.int8), 0, 4)
        # Integer weights are symmetric: all channels have the same zero point.
        return StoredTensor(array, 0 if zero_point is None else zero_point.flat[0], 8 * array.itemsize)

    return {name: read(name, array) for name, array in arrays.items()}


def unpack_int4(packed: np.ndarray, node: onnx.NodeProto) -> np.ndarray:
    """Unpack the weights of MatMulNBits to int8 (N, K) from -8 to 7; a byte holds two, the first in its lower half."""
    sizes = {item.name: item.i for item in node.attribute}
    halves = np.stack([packed & 15, packed >> 4], axis=-1).reshape(sizes["N"], -1)
    return halves[:, : sizes["K"]].astype(np.int8) - 8


def pack_int4(values: np.ndarray, node: onnx.NodeProto) -> np.ndarray:
    """Pack integers (N, K) from -8 to 7 as the weights of MatMulNBits, the inverse of `unpack_int4`; zeros fill up."""
    sizes = {item.name: item.i for item in node.attribute}
    missing = -values.shape[1] % sizes["block_size"]
    halves = (np.pad(values, ((0, 0), (0, missing))) + 8).astype(np.uint8)
    return halves[:, ::2] | halves[:, 1::2] << 4


def find_weights(model: onnx.ModelProto) -> list[tuple[onnx.NodeProto, str]]:
    """List every convolution and matrix product, in the order of the graph, with the name of the initializer it reads.

    The name is empty for a product of two activations.
    """
    initializers = {item.name for item in model.graph.initializer}
    stored: dict[str, str] = {}  # what a tensor was before Cast, DequantizeLinear, and Transpose behind them
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" or (node.op_type == "Cast" and node.input[0] in initializers):
            stored[node.output[0]] = stored.get(node.input[0], node.input[0])
        elif node.op_type == "Transpose" and node.input[0] in stored:
            stored[node.output[0]] = stored[node.input[0]]
    nodes = [node for node in model.graph.node if node.op_type in MULTIPLICATIONS]
    names = [stored.get(node.input[1], node.input[1]) for node in nodes]
    return [(node, name if name in initializers else "") for node, name in zip(nodes, names, strict=True)]


def layer_name(weight: str) -> str:
    """Name the layer of a weight: `conv1` for `model.conv1.weight`, to which quantizers add `_quantized` and others."""
    for suffix in ("_quantized", INT4, "_Q4", ".weight"):
        weight = weight.removesuffix(suffix)
    return weight.removeprefix("model.")


def list_weighted_nodes(model: onnx.ModelProto) -> dict[str, list[onnx.NodeProto]]:
    """List the convolutions and matrix products with weights by the name of their layer, which may be used twice."""
    nodes: dict[str, list[onnx.NodeProto]] = {}
    for node, weight in find_weights(model):
        if weight:
            nodes.setdefault(layer_name(weight), []).append(node)
    return nodes


def count_parameters(content: bytes) -> tuple[int, int]:
    """Count the learned values in a file, and those of them that are not zero."""
    learned = learned_tensors(content)
    return sum(tensor.values.size for tensor in learned), sum(tensor.nonzero for tensor in learned)


def learned_tensors(content: bytes) -> list[StoredTensor]:
    """List the learned tensors of a file.

    Scales and zero points of the quantizer, the input normalisation, running statistics and constants are not learned.
    """
    model = onnx.load_from_string(content)
    settings = NORMALIZATION | _settings(model)
    tensors = [tensor for name, tensor in read_tensors(model).items() if name not in settings]
    return [tensor for tensor in tensors if tensor.values.dtype != np.int64]


def _settings(model: onnx.ModelProto) -> set[str]:
    """Name the tensors that are not learned; dynamic quantization multiplies by the scales of its weights."""
    settings: set[str] = set()
    scales = {node.output[1] for node in model.graph.node if node.op_type == "DynamicQuantizeLinear"}
    for node in model.graph.node:
        settings.update(node.input[FIRST_SETTING.get(node.op_type, len(node.input)) :])
        if node.op_type == "Mul" and scales & set(node.input):
            settings.update(node.input)
    return settings
