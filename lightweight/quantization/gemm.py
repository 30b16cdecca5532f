"""Gemm nodes become MatMul and Add nodes, which the quantizers of linear layers convert."""

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
