"""Read and replace the integer weights of a quantized ONNX graph, as ONNX Runtime's quantizers write them.

A layer `conv1` has `model.conv1.weight_quantized`, `_scale` and `_zero_point`. Weights of 4 bits are packed by two into
a byte: for MatMulNBits, which has a scale for every block of inputs, or for a Cast that makes 8-bit integers of them,
which the runtime does once, when it loads the file.
"""

import numpy as np
import onnx
import torch
from onnx import NodeProto, TensorProto, helper, numpy_helper
from torch import Tensor

from lightweight.onnx.weights import INT4, list_weighted_nodes, pack_int4, unpack_int4
from lightweight.rounding.grid import Grid
from lightweight.rounding.layer import RoundedLayer, StoredLayer
from lightweight.rounding.saturation import all_neighbours

INT4_OPSET = 21  # the first with a Cast from int4


def float_weights(model: onnx.ModelProto) -> dict[str, Tensor]:
    """Read the float32 weights by the name of their layer, in PyTorch's order: outputs first."""
    tensors = {item.name: item for item in model.graph.initializer}
    weights: dict[str, Tensor] = {}
    for name, nodes in list_weighted_nodes(model).items():
        stored = tensors.get(nodes[0].input[1])
        if stored is not None and stored.data_type == TensorProto.FLOAT:
            values = torch.from_numpy(numpy_helper.to_array(stored).copy())
            weights[name] = values.T.contiguous() if is_transposed(nodes[0]) else values
    return weights


def stored_layers(model: onnx.ModelProto, high: int, limit_sums: bool) -> dict[str, StoredLayer]:
    """Read the layers of integer weights by their names; those of 8 bits reach from -high to `high`."""
    arrays = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    layers: dict[str, StoredLayer] = {}
    for name, (node, *_) in list_weighted_nodes(model).items():
        sizes = {item.name: item.i for item in node.attribute}
        if node.op_type == "MatMulNBits":
            blocks = torch.tensor(arrays[node.input[2]]).double().view(sizes["N"], -1)
            blocks = blocks.repeat_interleave(sizes["block_size"], dim=1)[:, : sizes["K"]]
            layers[name] = StoredLayer(Grid(blocks, -8, 7), torch.from_numpy(unpack_int4(arrays[node.input[1]], node)))
        elif f"model.{name}.weight_quantized" in arrays:
            integers, scales = arrays[f"model.{name}.weight_quantized"], arrays[f"model.{name}.weight_scale"]
            kind = "MatMul" if is_transposed(node) else node.op_type
            orders = all_neighbours(kind, integers.shape, sizes.get("group", 1)) if limit_sums else []
            values = torch.tensor(integers.T if kind == "MatMul" else integers)
            grid = Grid(torch.tensor(scales).double().view(-1, 1), -high, high)
            layers[name] = StoredLayer(grid, values, orders)
    return layers


def write_layer(model: onnx.ModelProto, name: str, rounded: RoundedLayer, correct_bias: bool) -> None:
    """Replace the integers and scales of a layer, and add the shift of its outputs to its bias, in place.

    A layer that stays float32 in this model, or whose bias other layers read, too, keeps what it has.
    """
    tensors = {item.name: item for item in model.graph.initializer}
    node, values = list_weighted_nodes(model)[name][0], rounded.integers.numpy()
    if node.op_type == "MatMulNBits":
        _replace(tensors[node.input[1]], pack_int4(values, node))
    elif f"model.{name}.weight_quantized" in tensors:
        stored = tensors[f"model.{name}.weight_quantized"]
        array = np.ascontiguousarray(values.T if is_transposed(node) else values)
        _replace(tensors[f"model.{name}.weight_scale"], rounded.scales.numpy())
        if rounded.bits == 4:
            _store_in_4_bits(model, stored, array)
        else:
            _replace(stored, array)
    else:
        return
    if correct_bias:
        shift_bias(model, node, rounded.shift.numpy())


def is_transposed(node: NodeProto) -> bool:
    """Return whether a matrix product reads its weight as (inputs, outputs)."""
    attributes = {item.name: item.i for item in node.attribute}
    return node.op_type.startswith("MatMul") or (node.op_type == "Gemm" and not attributes.get("transB", 0))


def _replace(tensor: TensorProto, values: np.ndarray) -> None:
    tensor.CopyFrom(numpy_helper.from_array(values.reshape(tuple(tensor.dims)), tensor.name))


def _store_in_4_bits(model: onnx.ModelProto, stored: TensorProto, values: np.ndarray) -> None:
    """Store integers in 4 bits, and let a Cast make of them the 8-bit integers that the graph reads."""
    name = stored.name
    packed = f"{name.removesuffix('_quantized')}{INT4}"
    halves = np.append(values, np.zeros(values.size % 2, values.dtype)).astype(np.uint8) & 15  # the first is the lower
    content = (halves[::2] | halves[1::2] << 4).tobytes()
    stored.CopyFrom(helper.make_tensor(packed, TensorProto.INT4, values.shape, content, raw=True))
    model.graph.node.insert(0, helper.make_node("Cast", [packed], [name], name=f"{packed}_cast", to=TensorProto.INT8))
    model.opset_import[0].version = max(model.opset_import[0].version, INT4_OPSET)


def shift_bias(model: onnx.ModelProto, node: NodeProto, shift: np.ndarray) -> None:
    """Add the shift (M,) to the float32 bias of a layer that no other node reads, in the node or added behind it."""
    name = _find_bias(model, node)
    readers = sum(list(reader.input).count(name) for reader in model.graph.node)
    for tensor in model.graph.initializer:
        if tensor.name == name and readers == 1 and list(tensor.dims) == [len(shift)]:
            _replace(tensor, numpy_helper.to_array(tensor) + shift)


def _find_bias(model: onnx.ModelProto, node: NodeProto) -> str:
    """Name the initializer that a layer, or the Add behind it, adds to its outputs; empty if there is none."""
    if node.op_type in ("Conv", "Gemm"):
        return node.input[2] if len(node.input) > 2 else ""
    stored = {item.name for item in model.graph.initializer}
    between = {"Cast", "Mul"} if node.op_type == "MatMulInteger" else set()  # which scale a dynamic product
    while True:
        readers = [reader for reader in model.graph.node if node.output[0] in reader.input]
        if len(readers) != 1:
            return ""
        (node,) = readers
        if node.op_type == "Add":
            return next((name for name in node.input if name in stored), "")
        if node.op_type not in between:
            return ""
