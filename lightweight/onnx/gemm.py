"""Weights of matrix products stand as the product reads them: Gemm becomes MatMul and Add, no weight is transposed."""

from collections import Counter

import numpy as np
import onnx
from onnx import helper, numpy_helper


def replace_gemm(model: onnx.ModelProto) -> None:
    """Replace Gemm(x, W, b) by MatMul and Add, in place; nodes and weights keep their names."""
    weights = {item.name: item for item in model.graph.initializer}
    nodes: list[onnx.NodeProto] = []
    transposed: set[str] = set()
    for node in model.graph.node:
        attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
        plain = attributes.get("alpha", 1.0) == attributes.get("beta", 1.0) == 1.0 and not attributes.get("transA", 0)
        if node.op_type != "Gemm" or not plain or node.input[1] not in weights:
            nodes.append(node)
            continue
        if attributes.get("transB", 0) and node.input[1] not in transposed:
            values = np.ascontiguousarray(numpy_helper.to_array(weights[node.input[1]]).T)
            weights[node.input[1]].CopyFrom(numpy_helper.from_array(values, node.input[1]))
            transposed.add(node.input[1])
        image, weight, *bias = node.input
        product = f"{node.output[0]}_product" if bias else node.output[0]
        nodes.append(helper.make_node("MatMul", [image, weight], [product], name=node.name))
        if bias:
            nodes.append(helper.make_node("Add", [product, bias[0]], [node.output[0]], name=f"{node.name}_bias"))
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def transpose_weights(model: onnx.ModelProto) -> None:
    """Store integer weights (M, N) as (N, M) where the graph transposes them for MatMul, in place.

    PyTorch exports linear layers over tokens (N, T, C) so. ONNX Runtime multiplies them in integers either way, but
    would transpose the weight under another name, by which nobody could tell.
    """
    weights = {item.name: item for item in model.graph.initializer}
    readers = Counter(name for node in model.graph.node for name in node.input)
    writers = {node.output[0]: node for node in model.graph.node if node.op_type == "DequantizeLinear"}
    kept: list[onnx.NodeProto] = []
    for node in model.graph.node:
        writer = writers.get(node.input[0]) if node.op_type == "Transpose" else None
        weight = weights.get(writer.input[0]) if writer is not None else None
        shared = readers[node.input[0]] > 1 or (weight is not None and readers[weight.name] > 1)
        if writer is None or weight is None or len(weight.dims) != 2 or shared:
            kept.append(node)
            continue
        values = np.ascontiguousarray(numpy_helper.to_array(weight).T)
        weight.CopyFrom(numpy_helper.from_array(values, weight.name))
        for attribute in writer.attribute:
            if attribute.name == "axis":
                attribute.i = 1 - attribute.i % 2
        writer.output[0] = node.output[0]
    del model.graph.node[:]
    model.graph.node.extend(kept)
