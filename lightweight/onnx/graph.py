"""The layers of an ONNX file: what each stores, its MACs, and whether ONNX Runtime executes it on 8-bit integers."""

import math
import tempfile
from pathlib import Path

import lightweight.core.telemetry  # noqa: F401 - before onnxruntime

import numpy as np
import onnx
import onnxruntime

from lightweight.core.errors import first_line
from lightweight.onnx.layer import Layer
from lightweight.onnx.weights import find_weights, layer_name, read_tensors

INT8_OPERATORS = {  # of ONNX Runtime's optimized graphs
    "ConvInteger", "QLinearConv", "MatMulInteger", "QLinearMatMul", "QGemm",
    "DynamicQuantizeMatMul", "MatMulIntegerToFloat",
}  # fmt: skip


def list_layers(content: bytes) -> list[Layer]:
    """List every convolution and matrix product of the file in the order of its graph."""
    model = onnx.load_from_string(content)
    tensors, pairs, in_int8 = read_tensors(model), find_weights(model), _names_executed_in_int8(content)
    shapes = shapes_for_one_image(model, [name for node, _ in pairs for name in (node.input[0], node.output[0])])
    unpacked = {node.input[0]: node.output[0] for node in model.graph.node if node.op_type == "Cast"}  # from 4 bits
    layers = []
    for node, weight in pairs:
        inputs, outputs = shapes[node.input[0]], shapes[node.output[0]]
        if not weight:
            layers.append(Layer(node.name, 0, 0, 32, math.prod(outputs) * inputs[-1], node.name in in_int8))
            continue
        stored = tensors[weight]
        size = stored.values.size
        multiplied = inputs if node.op_type == "ConvTranspose" else outputs  # each position takes every weight once
        positions = math.prod(multiplied[2:] if node.op_type.startswith("Conv") else multiplied[:-1])
        macs = size * positions
        in_8_bits = bool({weight, unpacked.get(weight)} & in_int8)
        layers.append(Layer(layer_name(weight), size, stored.nonzero, stored.bits, macs, in_8_bits))
    return layers


def shapes_for_one_image(model: onnx.ModelProto, names: list[str]) -> dict[str, tuple[int, ...]]:
    """Run the graph on one image to find the shapes of tensors in it: symbolic inference gives up at some reshapes.

    The tensors become outputs of `model`.
    """
    if not names:  # for no name, the session would return all outputs
        return {}
    image = model.graph.input[0]
    pixels = np.zeros([1, *(size.dim_value for size in image.type.tensor_type.shape.dim[1:])], dtype=np.float32)
    names = list(dict.fromkeys(names))
    known = {item.name for item in (image, *model.graph.output)}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in known)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL  # or tensors are fused away
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return {name: value.shape for name, value in zip(names, session.run(names, {image.name: pixels}), strict=True)}


def _names_executed_in_int8(content: bytes) -> set[str]:
    """Name the integer operators, and their inputs, in the graph that ONNX Runtime makes of the file.

    Raises OSError when there is no space for that graph on disk.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "optimized.onnx"
        options = onnxruntime.SessionOptions()
        # The last level would only change the memory layout, and rename the weights that it copies.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = str(path)
        try:
            onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # of classes that ONNX Runtime does not name in its interface
            raise OSError(None, f"not written: {first_line(error)}", str(path)) from None
        nodes = onnx.load(path).graph.node
    return {name for node in nodes if node.op_type in INT8_OPERATORS for name in (node.name, *node.input)}
